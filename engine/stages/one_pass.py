"""One pass: clusters are there already, so a label map is painted as soon as its tiles are done.

Segments get their classes as they are made. A shard of them is dropped, unless it is to be kept,
when every source that has a tile in it is painted: what grows with the archive is the journal of
its tiles, and the label maps. The labels are those that two passes with these clusters give.
"""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from alps.engine.base.atomic import whole
from alps.engine.base.digests import fingerprint
from alps.engine.base.errors import RunFolderError
from alps.engine.clusters.assign import assign_table
from alps.engine.clusters.file import ClusterFile, load_clusters, refuse_others
from alps.engine.clusters.segment_data import longer_sides
from alps.engine.labels.paint import Painter, paint_fingerprint
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.plan import (
    PlannedTile,
    rows_of_shard,
    shard_count,
    shards_of_rows,
)
from alps.engine.run_folder.tables import read_table
from alps.engine.settings import ClusterSettings, RunSettings
from alps.engine.stages.opening import (
    RunOptions,
    mark,
    open_run,
    prepare_model,
    timed,
)
from alps.engine.stages.segment import collect_tiles, segment_archive


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
) -> dict[str, str]:
    """Segment, assign and paint what is missing. The folder must be locked.

    ``settings.cluster`` is not used: the clusters bring their own.

    Returns sources that could not be painted, with reasons.

    Raises:
        RunFolderError: the file of clusters cannot be read, or ``folder`` holds another run.
        SettingsError: the clusters were made with another model, or other kinds of tiles.
    """
    clusters = load_clusters(one_pass.clusters_from)
    loaded = prepare_model(settings, options)
    model = {"name": loaded.info.name, "sha256": loaded.info.sha256}
    refuse_others(clusters, one_pass.clusters_from, model, loaded.settings.to_dict())
    own = ClusterSettings(**clusters.made_with["settings"]["cluster"])
    loaded = replace(loaded, settings=replace(loaded.settings, cluster=own))
    also = {
        "clusters": clusters.sha256,
        "min_margin": settings.paint.min_margin,
        "keep_segments": one_pass.keep_segments,
    }
    run, loaded = open_run(folder, src, loaded, also=also)
    if not folder.clusters.exists():
        with whole(folder.clusters) as part:
            shutil.copyfile(one_pass.clusters_from, part)
    wanted = fingerprint(run["config_hash"], "one pass")
    shown = paint_fingerprint(wanted, settings.paint)
    number = len(clusters.model.centroids)
    with Painter(folder, number, shown, settings.paint.min_margin) as painter:
        keeper = _Keeper(folder, clusters, painter, one_pass.keep_segments)
        with timed(folder, "segment"):
            keeper.advance()
            segment_archive(folder, loaded.generator(), loaded.info, loaded.settings, keeper=keeper)
        painter.write_classes()
    collect_tiles(folder)
    mark(folder, "cluster", wanted)
    mark(folder, "paint", wanted)
    return painter.unpainted


def refuse_dropped(folder: RunFolder, run: dict[str, Any]) -> None:
    """Raise RunFolderError where a run's segments were not kept, but are needed."""
    if not run.get("also", {}).get("keep_segments", True):
        raise RunFolderError(
            f"{folder.root} was labelled in one pass and its segments were not kept; label into "
            "another OUT with --keep-segments to cluster or paint them again"
        )


class _Keeper:
    """What becomes of shards, as ``segment.Keeper``: assigned, painted, dropped."""

    def __init__(
        self, folder: RunFolder, clusters: ClusterFile, painter: Painter, keep: bool
    ) -> None:
        self._folder, self._clusters, self._painter, self._keep = folder, clusters, painter, keep
        self._plan = read_table(folder.plan)
        self._sides = longer_sides(self._plan)
        index = self._plan.column("source_index").to_numpy()
        # Tiles of source number s, in the plan's order: edges[s] to edges[s + 1].
        changes = np.flatnonzero(index[1:] != index[:-1]) + 1
        self._edges = np.concatenate([[0], changes, [len(index)]])
        self._next = 0  # the first source that is not settled
        self._dropped = 0  # shards before it

    def is_done(self, shard: int) -> bool:
        """Whether a shard need not be segmented: it is there, or all that needed it is painted."""
        if not self._folder.shard_tiles(shard).exists():
            return False
        if self._folder.segments(shard).exists():
            return True
        if self._keep:
            return False
        rows = rows_of_shard(self._plan, shard)
        first, last = np.searchsorted(self._edges, [rows[0], rows[-1]], side="right") - 1
        return all(self._is_settled(source) for source in range(first, last + 1))

    def finish(self, shard: int, table: pa.Table) -> pa.Table:
        """Segments with their classes."""
        return assign_table(table, self._clusters.model, self._sides, self._folder.segments(shard))

    def committed(self, shard: int) -> None:
        """A shard is on the disk."""
        self.advance()

    def advance(self) -> None:
        """Paint all sources whose tiles are done, in order; drop what nobody needs any more."""
        while self._next < len(self._edges) - 1:
            if not self._is_settled(self._next):
                begin, end = self._edges[self._next : self._next + 2]
                if not all(self._is_there(shard) for shard in shards_of_rows(begin, end)):
                    break
                self._painter.paint(self._tiles(self._next))
            self._note_refused(self._next)
            self._next += 1
        needed = shard_count(self._plan)
        if self._next < len(self._edges) - 1:
            needed = shards_of_rows(*self._edges[self._next : self._next + 2])[0]
        for shard in range(self._dropped, needed):
            if not self._keep:
                self._folder.segments(shard).unlink(missing_ok=True)
        self._dropped = needed

    def _is_there(self, shard: int) -> bool:
        return self._folder.shard_tiles(shard).exists() and self._folder.segments(shard).exists()

    def _is_settled(self, source: int) -> bool:
        """Whether a source has its label map, or can have none."""
        first = self._first(source)
        return bool(first.reason or self._painter.refused(first)) or self._painter.has(first)

    def _note_refused(self, source: int) -> None:
        """What an earlier start could not paint counts at the end of this one too."""
        first = self._first(source)
        if reason := self._painter.refused(first):
            self._painter.unpainted[first.source] = reason

    def _first(self, source: int) -> PlannedTile:
        return PlannedTile(**self._plan.slice(self._edges[source], 1).to_pylist()[0])

    def _tiles(self, source: int) -> list[PlannedTile]:
        begin, end = self._edges[source : source + 2]
        return [PlannedTile(**row) for row in self._plan.slice(begin, end - begin).to_pylist()]
