"""The vectors of a run folder's regions, read from Parquet as they are asked for.

A piece is a row group. Batches are drawn from a pool of pieces in random order, rows of different
pieces mixed, so that no batch is one shard's kind of land. Memory is the pool and a piece, whatever
the archive's size; small archives are kept.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from alps.engine.clusters.data import Batch, MemoryVectors
from alps.engine.clusters.features import (
    SEGMENT_COLUMNS,
    FeatureFit,
    FeatureModel,
    RegionColumns,
    SegmentColumns,
    SourceMeans,
    lists,
    refuse_older,
    refuse_unusable,
    segment_columns,
)
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.plan import groups_of, shard_count, tiles_of_shard
from alps.engine.run_folder.segment_store import SegmentStore
from alps.engine.run_folder.tables import open_table, read_table
from alps.engine.settings import ClusterSettings

REGION_COLUMNS = ("area", "colour", "tiles", "segments", "shares")
MEANS_KEPT = 1 << 12  # sources whose means are kept
POOL_ROWS = 1 << 16  # mixed before they are cut into batches
KEEP_BYTES = 1 << 28  # vectors up to this size stay in memory


NO_MEANS = SourceMeans(np.zeros((0, 1)), np.zeros((0, 1)), np.zeros(0))


class RegionReader:
    """Reads what features of regions are made from: their rows, and the segments they saw."""

    def __init__(self, folder: RunFolder) -> None:
        self._store = SegmentStore(folder, SEGMENT_COLUMNS)
        names = ["tile_id", "source_index", "width", "height"]
        plan = read_table(folder.plan, names)
        # Longer side of each tile, which the network's input is scaled to; ids count from 0.
        self._sides = np.maximum(*(plan.column(name).to_numpy() for name in names[2:]))
        self._source_of = plan.column("source_index").to_numpy()
        self._means: OrderedDict[int, SourceMeans] = OrderedDict()

    def of_tile(self, tile_id: int) -> SegmentColumns:
        """The segments of a tile. Raises RunFolderError for numbers that are none."""
        table = self._store.of_tile(tile_id)
        columns = segment_columns(table, int(self._sides[tile_id]))
        refuse_unusable(columns.embedding, "embeddings", tile_id)
        return columns

    def columns(self, table: pa.Table) -> RegionColumns:
        """Of rows of regions that have at least REGION_COLUMNS."""
        entries = {name: table.column(name).combine_chunks() for name in ("tiles", "segments")}
        shares = table.column("shares").combine_chunks()
        tiles = entries["tiles"].flatten().to_numpy()
        starts = entries["tiles"].offsets.to_numpy().astype(np.int64)
        names, which = np.unique(tiles, return_inverse=True)
        # What nobody saw has no vectors, but of the archive's width.
        found = [self.of_tile(int(tile)) for tile in names] or [_none_of(self.of_tile(0))]
        lengths = np.array([len(one.area) for one in found], np.int64)
        before = np.cumsum(lengths) - lengths
        sources, source = np.unique(self._source_of[names], return_inverse=True)
        return RegionColumns(
            _joined(found),
            np.repeat(source, lengths),
            SourceMeans.join([self._mean_of(int(index)) for index in sources] or [NO_MEANS]),
            starts - starts[0],
            before[which] + entries["segments"].flatten().to_numpy(),
            shares.flatten().to_numpy(),
            lists(table, "colour"),
            table.column("area").to_numpy(),
        )

    def _mean_of(self, source_index: int) -> SourceMeans:
        """What the segments of a source share."""
        if source_index not in self._means:
            first, end = np.searchsorted(self._source_of, [source_index, source_index + 1])
            parts = (self.of_tile(tile) for tile in range(first, end))
            self._means[source_index] = SourceMeans.of(part for part in parts if len(part.area))
            if len(self._means) > MEANS_KEPT:
                self._means.popitem(last=False)
        return self._means[source_index]


def _joined(parts: list[SegmentColumns]) -> SegmentColumns:
    return SegmentColumns(
        np.concatenate([part.embedding for part in parts]),
        np.concatenate([part.place for part in parts]),
        np.concatenate([part.area for part in parts]),
    )


def _none_of(columns: SegmentColumns) -> SegmentColumns:
    return SegmentColumns(columns.embedding[:0], columns.place[:0], columns.area[:0])


@dataclass(frozen=True)
class Piece:
    """A row group of a file of regions."""

    path: Path
    group: int
    first: int  # the first row's index among all of the run
    rows: int


class RunRegions:
    """The vectors of a run folder's regions, as ``alps.engine.clusters.data.Vectors``.

    model: makes vectors of regions. place: puts an array where it is worked on, on a GPU say.
    Reading raises RunFolderError for what is damaged, or holds numbers that are none.
    """

    def __init__(
        self,
        folder: RunFolder,
        settings: ClusterSettings,
        place: Callable[[np.ndarray], Any] = np.asarray,
    ) -> None:
        plan = read_table(folder.plan)
        self.groups = [group for group, _ in groups_of(plan)]
        self._reader = RegionReader(folder)
        self.pieces = _pieces([folder.regions(group) for group in self.groups])
        self.count = sum(piece.rows for piece in self.pieces)
        self._weigh, self._place = settings.weight_by_area, place
        fit = FeatureFit(settings)
        for shard in range(shard_count(plan)):
            refuse_older(folder.segments(shard), SEGMENT_COLUMNS)
            for tile in tiles_of_shard(plan, shard):
                segments = self._reader.of_tile(tile.tile_id)
                if len(segments.area):
                    fit.add_segments(segments)
        for piece in self.pieces:
            with open_table(piece.path) as file:
                fit.add_colours(lists(file.read_row_group(piece.group, ["colour"]), "colour"))
        self.model: FeatureModel = fit.solve()
        self._kept: MemoryVectors | None = None
        if self.count and self._width() * 4 * self.count <= KEEP_BYTES:
            parts = [self._read(piece) for piece in self.pieces]
            self._kept = MemoryVectors(*self._batch(parts, placed=True))

    def take(self, rows: np.ndarray) -> Batch:
        """The vectors of these indices, which ascend; one pass over the pieces they lie in."""
        if self._kept is not None:
            return self._kept.take(rows)
        parts = []
        for piece in self.pieces:
            low, high = np.searchsorted(rows, [piece.first, piece.first + piece.rows])
            if high > low:
                parts.append(self._read(piece, rows[low:high] - piece.first))
        return Batch(*self._batch(parts, placed=True))

    def batches(self, rows: int, rng: np.random.Generator) -> Iterator[Batch]:
        """All vectors once, mixed, ``rows`` at a time."""
        if self._kept is not None:
            yield from self._kept.batches(rows, rng)
            return
        waiting: list[tuple[np.ndarray, np.ndarray | None]] = []
        held = 0
        order = rng.permutation(len(self.pieces))
        for index in order:
            waiting.append(self._read(self.pieces[index]))
            held += len(waiting[-1][0])
            if held < max(POOL_ROWS, rows) and index != order[-1]:
                continue
            vectors, weights = self._batch(waiting)
            mixed = rng.permutation(held)
            whole = held if index == order[-1] else held // rows * rows
            for start in range(0, whole, rows):
                chosen = np.sort(mixed[start : start + rows])
                own = None if weights is None else self._place(weights[chosen])
                yield Batch(self._place(vectors[chosen]), own)
            rest = mixed[whole:]
            waiting = [(vectors[rest], None if weights is None else weights[rest])]
            held = len(rest)

    def _width(self) -> int:
        first = next(piece for piece in self.pieces if piece.rows)
        return self._read(first, np.zeros(1, int))[0].shape[1]

    def _batch(
        self, parts: list[tuple[np.ndarray, np.ndarray | None]], placed: bool = False
    ) -> tuple[Any, Any]:
        vectors = np.concatenate([part[0] for part in parts])
        weights = np.concatenate([part[1] for part in parts]) if self._weigh else None
        if placed:
            return self._place(vectors), None if weights is None else self._place(weights)
        return vectors, weights

    def _read(
        self, piece: Piece, rows: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        with open_table(piece.path) as file:
            table = file.read_row_group(piece.group, list(REGION_COLUMNS))
        columns = self._reader.columns(table if rows is None else table.take(pa.array(rows)))
        weights = columns.area.astype(np.float32) if self._weigh else None
        return self.model.transform(columns), weights


def _pieces(paths: list[Path]) -> list[Piece]:
    pieces = []
    first = 0
    for path in paths:
        with open_table(path) as file:
            groups = [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)]
        for group, rows in enumerate(groups):
            pieces.append(Piece(path, group, first, rows))
            first += rows
    return pieces
