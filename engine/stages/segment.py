"""Segment and pool: every tile of the plan through everything mode, shard by shard."""

import time
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from alps.engine.base.atomic import remove
from alps.engine.base.progress import Progress
from alps.engine.images.reading import Reading, limits_from
from alps.engine.images.sources import root_of
from alps.engine.masks.generator import MaskGenerator
from alps.engine.pipeline.line import Line
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.items import said_of
from alps.engine.run_folder.plan import Plan
from alps.engine.run_folder.schemas import TILE_SCHEMA
from alps.engine.run_folder.sums import is_whole
from alps.engine.run_folder.tables import read_table, write_table, write_tables
from alps.engine.runtimes.cores import cores_shared_out
from alps.engine.settings import FilledSettings
from alps.engine.stages.absences import Absences
from alps.engine.stages.tiles.masks import Batch, TileStages
from alps.engine.stages.tiles.reading import ReadTile, reading_ahead
from alps.engine.telemetry.record import recorder
from alps.engine.workers.protocol import Tell

Made = tuple[dict[str, Any], pa.Table]  # of a tile: its row, and its segments


class Keeper(Protocol):
    """What becomes of the segments of a shard."""

    def is_done(self, shard: int) -> bool:
        """Whether a shard need not be segmented."""
        ...

    def committed(self, shard: int) -> None:
        """Told when a shard and its rows are on the disk."""
        ...


def segment_archive(
    folder: RunFolder,
    generator: MaskGenerator,
    settings: FilledSettings,
    share: tuple[int, int] = (0, 1),
    keeper: Keeper | None = None,
    again: Collection[int] = (),
) -> dict[str, str]:
    """Segment all shards of the plan that are not done yet.

    Args:
        folder: a run folder that holds a plan.
        generator: everything mode with the settings of the run.
        settings: filled in for the model.
        share: (i, n), of n machines this one takes every n-th shard, starting with the i-th.
        keeper: what becomes of shards; by default they stay as they were made.
        again: tiles that could not be read before; all others of their shards are kept.

    Returns what is doubtful about the sources that were read, by its kind.

    Raises SourceAwayError where image after image is away that was there when the run was planned.
    """
    plan = Plan.of(folder)
    work = Segmenting(folder, plan, generator, settings, again)

    def carry_out(shards: Sequence[int], tell: Tell) -> Iterator[tuple[int, dict[str, str]]]:
        tiles = sum(len(plan.ids_of(shard)) for shard in shards)
        for ids, made, doubts in work.segment(map(plan.ids_of, shards), tell, tiles):
            shard = plan.shard_of(ids.start)
            commit(folder, shard, made)
            recorder.shard()
            yield shard, doubts

    return carry_out_shards(folder, carry_out, share, keeper, again)


def carry_out_shards(
    folder: RunFolder,
    carry_out: Callable[[Sequence[int], Tell], Iterator[tuple[int, dict[str, str]]]],
    share: tuple[int, int] = (0, 1),
    keeper: Keeper | None = None,
    again: Collection[int] = (),
) -> dict[str, str]:
    """Have all shards segmented that are not done yet, by whoever does that.

    carry_out: segments shards as they come, and yields each when it is on the disk, with what is
        doubtful about the sources that were read so far, by its kind; it tells of tiles that are
        made. Other arguments and what is returned as of ``segment_archive``.
    """
    keeper = keeper or _KeepAll(folder)
    plan = Plan.of(folder)
    mine = range(share[0], plan.shards, share[1])
    redone = {plan.shard_of(tile) for tile in again}
    missing = [shard for shard in mine if shard in redone or not keeper.is_done(shard)]
    total, left = (sum(len(plan.ids_of(shard)) for shard in shards) for shards in (mine, missing))
    doubts: dict[str, str] = {}
    if not missing:
        return doubts
    with Progress(total, "tiles", "segmenting", initial=total - left) as progress:
        for shard, new in carry_out(missing, progress.advance):
            for kind, doubt in new.items():  # once a kind of doubt and not once a file
                if kind not in doubts:
                    progress.note(f"warning: {doubt}")
                    doubts[kind] = doubt
            keeper.committed(shard)
        progress.move_to(total)  # tiles of a worker that died were told twice
    return doubts


@dataclass(frozen=True)
class Segmenting:
    """What tiles are segmented with; arguments as of ``segment_archive``."""

    folder: RunFolder
    plan: Plan
    generator: MaskGenerator
    settings: FilledSettings
    again: Collection[int] = ()
    # Of shards that are not segmented at once, ascending; they begin where a device's batches do.
    pieces: Sequence[range] = ()

    def segment(
        self, ranges: Iterator[range], tell: Tell, tiles: int | None = None
    ) -> Iterator[tuple[range, list[Made], dict[str, str]]]:
        """Segment ranges of tiles as they come: whole shards, or ``pieces``.

        Args:
            ranges: iterated by a thread of its own, a little ahead of the work.
            tell: told of tiles that are made.
            tiles: how many all ranges have, where that is known.

        Yields a range, what was made of its tiles, in order, and what is doubtful about the sources
        that were read so far, by its kind.
        """
        generator, settings = self.generator, self.settings
        channels = generator.runtime.config.embedding_channels
        work = TileStages(generator, settings.segment, channels)
        kept = _KeptTiles(self.folder, self.plan, self.again, work.schema)
        planned = (self.plan.planned(ids.start, ids.stop) for ids in ranges)
        parts = ([tile for tile in some if not kept.has(tile.tile_id)] for some in planned)
        stages, slots = work.stages(tiles)
        absences = Absences(archive_root(self.folder))
        reading = reading_of(self.folder, settings)
        with (
            cores_shared_out(),
            reading_ahead(parts, reading, settings.source.tile) as reads,
            Line(self._batches(kept, reads.results), stages, slots) as line,
        ):
            found = (one for some in line for one in some)
            for first in found:
                ids = self._range_of(first.tile_id)
                # Nothing is known of a shard that is in pieces.
                made = kept.of_shard(self.plan.shard_of(first.tile_id))
                tell(len(made))
                for one in chain([first], islice(found, len(ids) - len(made) - 1)):
                    if not one.read.planned.reason:
                        absences.note(one.read.planned.source, one.read.error)
                    made[one.tile_id] = one.row, one.segments
                    recorder.tile(one.row)
                    tell(1)
                yield ids, [made[tile] for tile in sorted(made)], dict(reads.doubts)

    def _batches(self, kept: "_KeptTiles", reads: Iterator[ReadTile]) -> Iterator[Batch]:
        """Tiles of each range that follow each other, as many as a device takes at once; known ones
        stay empty.

        No tile waits for one of a later range.
        """
        size = self.generator.runtime.capacity.images
        for read in reads:
            ids = self._range_of(read.planned.tile_id)
            own = chain([read], reads)
            for first in range(ids.start, ids.stop, size):
                some = range(first, min(first + size, ids.stop))
                if not all(map(kept.has, some)):
                    yield Batch.of([None if kept.has(tile) else next(own) for tile in some], size)

    def _range_of(self, tile_id: int) -> range:
        at = bisect_right(self.pieces, tile_id, key=lambda piece: piece.start) - 1
        if at >= 0 and tile_id in self.pieces[at]:
            return self.pieces[at]
        return self.plan.ids_of(self.plan.shard_of(tile_id))


def commit(folder: RunFolder, shard: int, made: Sequence[Made]) -> None:
    """Write a shard: rows of its tiles and their segments, in order."""
    rows, tables = zip(*made, strict=True)
    began = time.perf_counter()
    write_table(pa.concat_tables(tables), folder.segments(shard))
    each = (time.perf_counter() - began) / len(rows)
    for row in rows:
        row["write_seconds"] = each
    # Written last: from here on the shard is done.
    write_table(pa.Table.from_pylist(list(rows), schema=TILE_SCHEMA), folder.shard_tiles(shard))
    remove(folder.kept_tiles(shard))


class _KeptTiles:
    """What is known already of the tiles of shards that are segmented again."""

    def __init__(
        self, folder: RunFolder, plan: Plan, again: Collection[int], schema: pa.Schema
    ) -> None:
        self._folder, self._again, self._schema = folder, frozenset(again), schema
        self._plan = plan
        self._shards = frozenset(plan.shard_of(tile) for tile in again)
        self._aside = dict(self._set_aside())

    def has(self, tile_id: int) -> bool:
        """Whether a tile is known, and need not be read."""
        shard = self._plan.shard_of(tile_id)
        if shard in self._aside:
            return tile_id in self._aside[shard] and tile_id not in self._again
        return shard in self._shards and tile_id not in self._again

    def of_shard(self, shard: int) -> dict[int, tuple[dict[str, Any], pa.Table]]:
        """Rows and segments of its tiles that are known, by their ids."""
        if shard in self._aside:
            path = self._folder.kept_tiles(shard)
        elif shard in self._shards:
            path = self._folder.shard_tiles(shard)
        else:
            return {}
        rows = read_table(path).to_pylist()
        # Cast: what is read calls the values of lists otherwise, and files would differ by that.
        segments = read_table(self._folder.segments(shard)).cast(self._schema)
        ids = segments.column("tile_id").to_numpy()
        found = {}
        for row in rows:
            tile = row["tile_id"]
            if self.has(tile):
                start, end = np.searchsorted(ids, [tile, tile + 1])
                found[tile] = row, segments.slice(start, end - start)
            else:
                recorder.again(row)
        return found

    def _set_aside(self) -> Iterator[tuple[int, range]]:
        """Shards that are made again with tiles that came later, and those that are known."""
        folder = self._folder
        for path in sorted(folder.journal.glob("kept-*.parquet")):
            shard = int(path.stem.removeprefix("kept-"))
            is_there = is_whole(folder, folder.segments(shard))
            if is_there and not is_whole(folder, folder.shard_tiles(shard)):
                first = self._plan.ids_of(shard).start
                yield shard, range(first, first + read_table(path, ["tile_id"]).num_rows)


def archive_root(folder: RunFolder) -> str | None:
    """The folder below which the run's images lie."""
    run = folder.read_run() if folder.run_json.exists() else {}
    return root_of(run["source"]) if "source" in run else None


def reading_of(folder: RunFolder, settings: FilledSettings) -> Reading:
    """How the run's sources are read, with the stretches that were fitted when it began."""
    run = folder.read_run() if folder.run_json.exists() else {}
    if "source" not in run:
        return Reading(settings.source)
    reading = Reading.of_archive(run["source"], settings.source)
    shared = limits_from(run.get("stretches", {}))
    return replace(reading, shared=shared, said=said_of(folder, run))


def collect_tiles(folder: RunFolder) -> None:
    """Write tiles.parquet from the shards' rows; all shards must be done."""
    shards = range(Plan.of(folder).shards)
    write_tables((read_table(folder.shard_tiles(shard)) for shard in shards), folder.tiles)


def shards_missing(folder: RunFolder) -> int:
    """How many shards of the plan are not done."""
    keeper = _KeepAll(folder)
    return sum(not keeper.is_done(shard) for shard in range(Plan.of(folder).shards))


def is_segmented(folder: RunFolder, shard: int) -> bool:
    """Whether a shard's rows and segments are there, with all of their bytes."""
    paths = folder.shard_tiles(shard), folder.segments(shard)
    return all(is_whole(folder, path) for path in paths)


class _KeepAll:
    """Segments stay as they were made."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder

    def is_done(self, shard: int) -> bool:
        """The journal decides; but what somebody deleted or cut short since is made again."""
        return is_segmented(self._folder, shard)

    def committed(self, shard: int) -> None:
        pass
