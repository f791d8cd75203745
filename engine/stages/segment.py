"""Segment and pool: every tile of the plan through everything mode, shard by shard."""

import sys
import time
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from torch import Tensor

from alps.engine.base.errors import SourceError
from alps.engine.base.failures import of_source
from alps.engine.base.progress import Progress
from alps.engine.images.raster import RasterReader, Tile
from alps.engine.images.reading import Reading, limits_from
from alps.engine.images.sources import root_of
from alps.engine.masks.generator import MaskGenerator, Segments
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.items import said_of
from alps.engine.run_folder.plan import Plan, PlannedTile, check_size
from alps.engine.run_folder.schemas import STAGES, TILE_SCHEMA, segment_schema
from alps.engine.run_folder.sums import is_whole
from alps.engine.run_folder.tables import read_table, write_table, write_tables
from alps.engine.sam.config import ModelInfo
from alps.engine.settings import FilledSettings
from alps.engine.stages.absences import Absences
from alps.engine.telemetry.record import recorder

# How many batches of tiles wait, read and decoded, for the model.
READ_AHEAD = 2
# What lies under no mask has an embedding too: of cells, so many a side of a window.
REST_CELLS = 4
NO_PIXEL = {"status": "skipped", "reason": "no valid pixel"}  # of a row of tiles.parquet


@dataclass
class ReadTile:
    """A tile's pixels, or why there are none."""

    planned: PlannedTile
    tile: Tile | None
    error: SourceError | None
    seconds: float

    @property
    def reason(self) -> str:
        """Why there are no pixels."""
        return self.planned.reason or str(self.error or "")

    def row(self) -> dict[str, Any]:
        """Its row of tiles.parquet as long as nothing was made of it: failed."""
        return self.planned.row() | {
            "status": "failed",
            "reason": self.reason,
            "segments": 0,
            "points": 0,
            "valid_pixels": 0,
            "covered_pixels": 0,
            **{f"{stage}_seconds": 0.0 for stage in STAGES},
            "read_seconds": self.seconds,
        }


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
    info: ModelInfo,
    settings: FilledSettings,
    share: tuple[int, int] = (0, 1),
    keeper: Keeper | None = None,
    again: Collection[int] = (),
) -> dict[str, str]:
    """Segment all shards of the plan that are not done yet.

    Args:
        folder: a run folder that holds a plan.
        generator: everything mode with the settings of the run.
        info: the model, for the width of its embeddings.
        settings: filled in for the model.
        share: (i, n), of n machines this one takes every n-th shard, starting with the i-th.
        keeper: what becomes of shards; by default they stay as they were made.
        again: tiles that could not be read before; all others of their shards are kept.

    Returns what is doubtful about the sources that were read, by its kind.

    Raises SourceAwayError where image after image is away that was there when the run was planned.
    """
    keeper = keeper or _KeepAll(folder)
    plan = Plan.of(folder)
    mine = range(share[0], plan.shards, share[1])
    redone = {plan.shard_of(tile) for tile in again}
    missing = [shard for shard in mine if shard in redone or not keeper.is_done(shard)]
    schema = segment_schema(info.config.embedding_channels)
    kept = _KeptTiles(folder, plan, again, schema)
    tiles = (
        tile for shard in missing for tile in plan.tiles_of(shard) if not kept.has(tile.tile_id)
    )
    total, left = (sum(len(plan.ids_of(shard)) for shard in shards) for shards in (mine, missing))
    at_once = generator.runtime.images_at_once
    with (
        Progress(total, "tiles", "segmenting", initial=total - left) as progress,
        ExitStack() as stack,
    ):
        reads = stack.enter_context(
            reading_ahead(tiles, reading_of(folder, settings), READ_AHEAD * at_once)
        )
        absences = Absences(archive_root(folder))
        for shard in missing:
            made = kept.of_shard(shard)
            waiting = islice(reads.results, len(plan.ids_of(shard)) - len(made))
            progress.advance(len(made))
            while batch := list(islice(waiting, at_once)):
                embeddings, seconds = _embed(batch, generator)
                for read in batch:
                    if not read.planned.reason:
                        absences.note(read.planned.source, read.error)
                    own = embeddings.get(read.planned.tile_id)
                    row, table = _segment_tile(read, own, generator, settings, schema)
                    row["encode_seconds"] += seconds if own else 0.0
                    made[read.planned.tile_id] = row, table
                    recorder.tile(row)
                    progress.advance(1)
            tile_rows, tables = zip(*(made[tile] for tile in sorted(made)), strict=True)
            began = time.perf_counter()
            write_table(pa.concat_tables(tables), folder.segments(shard))
            each = (time.perf_counter() - began) / len(tile_rows)
            for row in tile_rows:
                row["write_seconds"] = each
            # Written last: from here on the shard is done.
            write_table(
                pa.Table.from_pylist(list(tile_rows), schema=TILE_SCHEMA), folder.shard_tiles(shard)
            )
            recorder.shard()
            keeper.committed(shard)
        return reads.doubts


class _KeptTiles:
    """What is known already of the tiles of shards that are segmented again."""

    def __init__(
        self, folder: RunFolder, plan: Plan, again: Collection[int], schema: pa.Schema
    ) -> None:
        self._folder, self._again, self._schema = folder, frozenset(again), schema
        self._plan = plan
        self._shards = frozenset(plan.shard_of(tile) for tile in again)

    def has(self, tile_id: int) -> bool:
        """Whether a tile is known, and need not be read."""
        return self._plan.shard_of(tile_id) in self._shards and tile_id not in self._again

    def of_shard(self, shard: int) -> dict[int, tuple[dict[str, Any], pa.Table]]:
        """Rows and segments of its tiles that are known, by their ids."""
        if shard not in self._shards:
            return {}
        rows = read_table(self._folder.shard_tiles(shard)).to_pylist()
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


def _embed(
    batch: list[ReadTile], generator: MaskGenerator
) -> tuple[dict[int, list[Tensor]], float]:
    """Embeddings by tile id, where a batch is more than one tile, and the seconds of each."""
    some = {
        read.planned.tile_id: read.tile.rgb
        for read in batch
        if read.tile is not None and read.tile.valid.any()
    }
    if len(some) < 2:
        return {}, 0.0  # everything mode encodes a single tile itself
    began = time.perf_counter()
    embeddings = generator.embed(list(some.values()))
    seconds = (time.perf_counter() - began) / len(some)
    return dict(zip(some, embeddings, strict=True)), seconds


def _segment_tile(
    read: ReadTile,
    embeddings: list[Tensor] | None,
    generator: MaskGenerator,
    settings: FilledSettings,
    schema: pa.Schema,
) -> tuple[dict, pa.Table]:
    """A tile's row and its segments."""
    planned, tile, row = read.planned, read.tile, read.row()
    if tile is None:
        return row, schema.empty_table()
    valid = int(tile.valid.sum())
    if valid == 0:
        return row | NO_PIXEL, schema.empty_table()
    segments = generator.segment(
        tile.rgb,
        tile.valid,
        max_area=settings.segment.max_area,
        min_area=settings.segment.min_area,
        embeddings=embeddings,
        rest_cells=REST_CELLS,
    )
    # Segments and coverage are of SAM's masks, not of what lies under none.
    masks = int((segments.mask >= 0).sum())
    seconds = dict(segments.seconds)
    seconds["filter"] += seconds.pop("runs")
    row |= {
        "status": "ok" if masks else "empty",
        "reason": "" if masks else "no mask passed the gate",
        "segments": masks,
        "points": segments.prompted,
        "valid_pixels": valid,
        "covered_pixels": segments.covered,
        **{f"{stage}_seconds": value for stage, value in seconds.items()},
    }
    return row, _segment_table(planned.tile_id, segments, schema)


def _segment_table(tile_id: int, segments: Segments, schema: pa.Schema) -> pa.Table:
    count = len(segments)
    columns = {
        "tile_id": np.full(count, tile_id, dtype=np.int64),
        "segment_id": np.arange(count, dtype=np.int32),
        "mask": segments.mask,
        **{name: segments.boxes[:, i] for i, name in enumerate(("x", "y", "width", "height"))},
        "area": segments.area,
        "predicted_iou": segments.predicted_iou,
        "stability_score": segments.stability_score,
        "point_x": segments.points[:, 0],
        "point_y": segments.points[:, 1],
        "centre_x": segments.centres[:, 0],
        "centre_y": segments.centres[:, 1],
        "counts": segments.counts,
        "embedding": _lists(segments.embeddings),
        "colour": _lists(segments.colours),
    }
    return pa.table(columns, schema=schema)


def _lists(values: np.ndarray) -> pa.Array:
    """(n, C) as n lists of C float16."""
    flat = np.ascontiguousarray(values, dtype=np.float16).ravel()
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), values.shape[1])


class reading_ahead:
    """Context manager: ``results`` yields tiles in order, read by one thread ahead of their use."""

    def __init__(self, tiles: Iterable[PlannedTile], reading: Reading, ahead: int) -> None:
        self._tiles, self._reading, self._ahead = tiles, reading, ahead
        self.doubts: dict[str, str] = {}  # what a sample of a source shows: the first such source

    def __enter__(self) -> "reading_ahead":
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="alps-read")
        self._reader: tuple[str, RasterReader] | None = None
        self.results = self._run()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._close()

    def _run(self) -> Iterator[ReadTile]:
        tiles = iter(self._tiles)
        waiting = [self._pool.submit(self._read, tile) for tile in islice(tiles, self._ahead)]
        for tile in tiles:
            yield waiting.pop(0).result()
            waiting.append(self._pool.submit(self._read, tile))
        for future in waiting:
            yield future.result()

    def _read(self, planned: PlannedTile) -> ReadTile:
        began = time.perf_counter()
        if planned.reason:
            return ReadTile(planned, None, None, 0.0)
        try:
            with of_source(planned.source, "reading"):
                tile, error = self._open(planned).read(planned.window), None
        except SourceError as failure:
            tile, error = None, failure
        return ReadTile(planned, tile, error, time.perf_counter() - began)

    def _open(self, planned: PlannedTile) -> RasterReader:
        """The reader of a tile's source; neighbours in the plan share it."""
        if self._reader is None or self._reader[0] != planned.path:
            self._close()
            reader = RasterReader(planned.path, self._reading)
            self._reader = (planned.path, reader)
            try:
                check_size(reader, planned)
                self._note(planned.source, reader)
            except SourceError:
                self._close()
                raise
        return self._reader[1]

    def _note(self, source: str, reader: RasterReader) -> None:
        """Say what is doubtful, once a kind of doubt and not once a file."""
        if not reader.needs_sample:  # it would be read for this alone
            return
        for doubt in reader.describe().doubts:
            if doubt.kind not in self.doubts:
                self.doubts[doubt.kind] = f"{source}: {doubt.text}"
                print(f"warning: {source}: {doubt.text}", file=sys.stderr)

    def _close(self) -> None:
        if self._reader is not None:
            self._reader[1].close()
            self._reader = None
