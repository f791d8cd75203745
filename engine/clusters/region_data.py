"""The vectors of a run folder's regions: written to Parquet, and read as they are asked for.

A piece is a row group. Batches are drawn from a pool of pieces in random order, rows of different
pieces mixed, so that no batch is one shard's kind of land. Memory is the pool and a piece, whatever
the archive's size; small archives are kept.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alps.engine.base.progress import Progress
from alps.engine.clusters.data import Batch, MemoryVectors
from alps.engine.clusters.features import (
    SEGMENT_COLUMNS,
    FeatureFit,
    FeatureModel,
    lists,
    refuse_older,
)
from alps.engine.clusters.region_reader import RegionReader
from alps.engine.clusters.vectors import read_vectors, write_vectors
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.plan import groups_of, shard_count, tiles_of_shard
from alps.engine.run_folder.tables import open_table, read_table
from alps.engine.settings import ClusterSettings

POOL_ROWS = 1 << 16  # mixed before they are cut into batches
KEEP_BYTES = 1 << 26  # vectors up to this size stay in memory


@dataclass(frozen=True)
class Piece:
    """A row group of a file of regions, and of that of their vectors."""

    regions: Path
    vectors: Path
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
        self.pieces = _pieces(folder, self.groups)
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
            with open_table(piece.regions) as file:
                fit.add_colours(lists(file.read_row_group(piece.group, ["colour"]), "colour"))
        self.model: FeatureModel = fit.solve()
        with Progress(len(self.groups), "groups", "describing regions") as progress:
            for group in self.groups:
                write_vectors(folder, group, self.model, self._reader)
                progress.advance(1)
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
        chosen = slice(None) if rows is None else rows
        with open_table(piece.vectors) as file:
            vectors = read_vectors(file, piece.group)[chosen]
        if not self._weigh:
            return vectors, None
        with open_table(piece.regions) as file:
            area = file.read_row_group(piece.group, ["area"]).column(0).to_numpy()
        return vectors, area[chosen].astype(np.float32)


def _pieces(folder: RunFolder, of_groups: list[int]) -> list[Piece]:
    pieces = []
    first = 0
    for of_group in of_groups:
        path, vectors = folder.regions(of_group), folder.region_vectors(of_group)
        with open_table(path) as file:
            groups = [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)]
        for group, rows in enumerate(groups):
            pieces.append(Piece(path, vectors, group, first, rows))
            first += rows
    return pieces
