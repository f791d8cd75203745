"""One pass: clusters are there already, so a label map is painted as soon as its tiles are done.

As soon as all tiles of a group of sources are segmented it is cut into regions, these get their
classes, and its label maps are painted. Segments and regions are dropped then, unless they are to
be kept: what grows with the archive is the journal of its tiles, and the label maps. The labels are
those that two passes with these clusters give.
"""

import shutil
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from alps.engine.base.atomic import remove, whole, write_text
from alps.engine.base.digests import fingerprint
from alps.engine.clusters.assign import assign_group
from alps.engine.clusters.file import ClusterFile, load_clusters, refuse_others
from alps.engine.clusters.region_reader import RegionReader
from alps.engine.clusters.vectors import write_vectors
from alps.engine.labels.paint import Painter, paint_fingerprint, settled
from alps.engine.naming.names import read_names
from alps.engine.regions.windows import COLUMNS
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.items import reading_of
from alps.engine.run_folder.locks import WHOLE
from alps.engine.run_folder.plan import Group, Plan
from alps.engine.run_folder.segment_store import SegmentStore
from alps.engine.run_folder.sums import is_right, is_whole, record
from alps.engine.settings import RunSettings
from alps.engine.stages.absences import (
    can_be_read,
    forget_label_maps,
    readable_again,
    shards_of,
)
from alps.engine.stages.changes import to_update
from alps.engine.stages.naming import SPLIT, names_of_these
from alps.engine.stages.opening import (
    RunOptions,
    mark,
    note_warnings,
    open_run,
    timed,
)
from alps.engine.stages.regions import CutSettings, cut_group, is_cut
from alps.engine.stages.segment import collect_tiles, is_segmented
from alps.engine.stages.tiles.job import prepare_for, segment_with
from alps.engine.workers.protocol import Alone, Crew


@dataclass(frozen=True)
class OnePass:
    """Where clusters come from, and what is kept."""

    clusters_from: Path  # clusters.npz of a run, or what `alps fit-clusters` wrote
    keep_segments: bool = False


def one_pass_stage(
    folder: RunFolder,
    src: str | Path,
    settings: RunSettings,
    options: RunOptions,
    one_pass: OnePass,
    crew: Crew | None = None,
) -> dict[str, str]:
    """Segment, assign and paint what is missing. The folder must be locked.

    ``settings.cluster`` is not used: the clusters bring their own.

    Returns sources that could not be painted, with reasons.

    Raises:
        RunFolderError: the file of clusters cannot be read, or ``folder`` holds another run.
        SettingsError: the clusters were made with another model, or other kinds of tiles.
    """
    crew = crew or Alone()
    clusters = load_clusters(one_pass.clusters_from)
    loaded = prepare_for(crew, folder, settings, options)
    model = {"name": loaded.info.name, "sha256": loaded.info.sha256}
    refuse_others(clusters, one_pass.clusters_from, model, loaded.settings.to_dict())
    loaded = replace(loaded, settings=replace(loaded.settings, cluster=clusters.settings()))
    names = read_names(folder) if folder.names.exists() else clusters.names
    names = names_of_these(folder, names, clusters)
    paint = settled(folder, settings.paint)
    also = {
        "clusters": clusters.sha256,
        **paint.deciding(),
        "keep_segments": one_pass.keep_segments,
    }
    if names.classes and not one_pass.keep_segments:  # label maps could not be painted anew
        also["names"] = names.sha256
    run, loaded = open_run(folder, src, loaded, also=also, wanted=options.wanted())
    if not is_right(folder, folder.clusters):
        with whole(folder.clusters) as part:
            shutil.copyfile(one_pass.clusters_from, part)
        record(folder, folder.clusters)
    if names.classes and not folder.names.exists():
        write_text(folder.names, names.text())
    digest = folder.names_digest()
    wanted = fingerprint(run["config_hash"], "one pass")
    shown = paint_fingerprint(wanted, paint, names)
    cutting = CutSettings(
        reading_of(folder, run),
        loaded.settings.segment.superpixels,
        on_gpu=loaded.model.device.type == "cuda",
    )
    with Painter(folder, clusters.model, shown, paint, names) as painter:
        keeper = _Keeper(folder, clusters, painter, one_pass.keep_segments, cutting)
        update = to_update(folder, options.update)
        again = keeper.try_again(update.tiles, options.retry_failed)
        with timed(folder, "segment"):
            keeper.advance()
            found = segment_with(crew, folder, loaded, options, keeper, again)
        note_warnings(folder, found, options.share)
        update.note(folder)
        painter.write_classes()
    collect_tiles(folder)
    mark(folder, "cluster", wanted)
    mark(folder, "paint", wanted)
    if clusters.model.splits:
        mark(folder, SPLIT, clusters.sha256)
    folder.update_run(names=digest)
    return painter.unpainted


class _Keeper:
    """What becomes of shards, as ``segment.Keeper``: cut, assigned, painted, dropped."""

    def __init__(
        self,
        folder: RunFolder,
        clusters: ClusterFile,
        painter: Painter,
        keep: bool,
        settings: CutSettings,
    ) -> None:
        self._folder, self._clusters, self._painter, self._keep = folder, clusters, painter, keep
        self._settings = settings
        self._plan = Plan.of(folder)
        self._groups = self._plan.group_numbers()
        self._store = SegmentStore(folder, COLUMNS)
        self._reader = RegionReader(folder)
        self._next = 0  # the first group that is not settled
        self._dropped = 0  # shards before it
        self._stale: set[int] = set()  # shards of which some tiles are segmented again

    def try_again(self, also: Collection[int], retry: bool = False) -> set[int]:
        """Take up sources that were away when they were read, cut or painted, and are there now.

        also: tiles of others that are made anew. retry: take up what is not there, too.

        Returns tiles to be segmented again whose shards are there; others of them are not.
        """
        folder, reading = self._folder, self._settings.reading
        written = [s for s in shards_of(folder, WHOLE) if is_whole(folder, folder.shard_tiles(s))]
        again = readable_again(folder, reading, written, retry) | set(also)
        forget_label_maps(folder, again)
        shards = {self._plan.shard_of(tile) for tile in again}
        for group in self._plan.groups():
            is_retried = not shards.isdisjoint(self._shards_of(group))
            for tiles in group.sources:
                if self._painter.refused(tiles[0]) and (retry or can_be_read(tiles[0], reading)):
                    self._painter.forget(tiles[0])
                    is_retried = True
            if is_retried:
                remove(folder.regions(group.number))
                remove(folder.region_classes(group.number))
        again = {tile for tile in again if is_segmented(folder, self._plan.shard_of(tile))}
        self._stale = {self._plan.shard_of(tile) for tile in again}
        return again

    def is_done(self, shard: int) -> bool:
        """Whether a shard need not be segmented: it is there, or all that needed it is painted."""
        if not is_whole(self._folder, self._folder.shard_tiles(shard)):
            return False
        if is_whole(self._folder, self._folder.segments(shard)):
            return True
        if self._keep:
            return False
        # Sources that begin in it, and the one that goes on from an earlier shard.
        first = self._plan.tile(self._plan.ids_of(shard).start)
        begins = self._plan.shard_of(self._plan.rows_of_source(first.source_index).start)
        needing = (self._plan.group(number) for number in sorted({begins, shard}))
        return all(self._is_settled(group) for group in needing)

    def committed(self, shard: int) -> None:
        """A shard is on the disk."""
        self._stale.discard(shard)
        self.advance()

    def advance(self) -> None:
        """Paint all groups whose tiles are done, in order; drop what nobody needs any more."""
        while self._next < len(self._groups):
            group = self._plan.group(self._groups[self._next])
            if not self._is_settled(group):
                if not all(self._is_there(shard) for shard in self._shards_of(group)):
                    break
                self._paint(group)
            for tiles in group.sources:  # what an earlier start could not paint counts too
                if reason := self._painter.refused(tiles[0]):
                    self._painter.unpainted[tiles[0].source] = reason
            self._next += 1
        if self._keep:
            return
        self._drop()

    def _paint(self, group: Group) -> None:
        if not is_cut(self._folder, group.number):
            cut_group(self._folder, group, self._store, self._settings)
        if not is_whole(self._folder, self._folder.region_classes(group.number)):
            model = self._clusters.model
            write_vectors(self._folder, group.number, model.known_features(), self._reader)
            assign_group(self._folder, group.number, model)
        for tiles in group.sources:
            if not self._painter.has(tiles[0]):
                self._painter.paint(tiles)

    def _drop(self) -> None:
        """Delete what groups before the next one needed."""
        is_last = self._next == len(self._groups)
        needed = None if is_last else self._groups[self._next]
        for group in map(self._plan.group, self._groups[self._dropped : self._next]):
            for tiles in group.sources:
                remove(self._folder.region_raster(tiles[0].label))
            for path in (
                self._folder.region_classes(group.number),
                self._folder.region_vectors(group.number),
                self._folder.regions(group.number),
                self._folder.borders(group.number),
                self._folder.objects(group.number),
            ):
                remove(path)
            for shard in self._shards_of(group):
                if needed is None or shard < needed:
                    remove(self._folder.segments(shard))
        self._dropped = self._next

    def _is_there(self, shard: int) -> bool:
        return shard not in self._stale and is_segmented(self._folder, shard)

    def _shards_of(self, group: Group) -> range:
        """Shards in which a group's tiles lie."""
        first, last = group.sources[0][0], group.sources[-1][-1]
        return self._plan.shards_of(first.tile_id, last.tile_id + 1)

    def _is_settled(self, group: Group) -> bool:
        """Whether each source of a group has its label map, or can have none."""
        firsts = [tiles[0] for tiles in group.sources]
        return all(
            bool(first.reason or self._painter.refused(first)) or self._painter.has(first)
            for first in firsts
        )
