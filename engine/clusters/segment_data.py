"""The vectors of a run folder's segments, read from Parquet as they are asked for.

A piece is a row group, or a part of a large one. Batches are drawn from a pool of pieces in random
order, rows of different pieces mixed, so that no batch is one shard's kind of land. Memory is the
pool and a piece, whatever the archive's size; small archives are kept.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from alps.engine.clusters.data import Batch, MemoryVectors
from alps.engine.clusters.features import (
    FEATURE_COLUMNS,
    FeatureModel,
    SegmentColumns,
    fit_features,
    refuse_older,
    refuse_unusable,
    segment_columns,
)
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.plan import shard_count
from alps.engine.run_folder.tables import open_table, read_table
from alps.engine.settings import ClusterSettings

PIECE_ROWS = 1 << 16
POOL_ROWS = 1 << 16  # mixed before they are cut into batches
KEEP_BYTES = 1 << 28  # vectors up to this size stay in memory


@dataclass(frozen=True)
class Piece:
    """Some rows of a file of segments/."""

    path: Path
    group: int  # row group
    skipped: int  # rows of the group before the piece
    first: int  # the first row's index among all of the run
    rows: int


class RunVectors:
    """The vectors of a run folder's segments, as ``alps.engine.clusters.data.Vectors``.

    model: makes vectors of segments. place: puts an array where it is worked on, on a GPU say.
    Reading raises RunFolderError for what is damaged, or holds numbers that are none.
    """

    def __init__(
        self,
        folder: RunFolder,
        settings: ClusterSettings,
        place: Callable[[np.ndarray], Any] = np.asarray,
    ) -> None:
        plan = read_table(folder.plan, ["tile_id", "width", "height"])
        self.sides = longer_sides(plan)
        self.paths = [folder.segments(shard) for shard in range(shard_count(plan))]
        self.pieces = _pieces(self.paths)
        self.count = sum(piece.rows for piece in self.pieces)
        self._weigh, self._place = settings.weight_by_area, place
        for path in self.paths:
            refuse_older(path)
        self.model: FeatureModel = fit_features(map(self._columns, self.pieces), settings)
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
        return self._read(next(p for p in self.pieces if p.rows), np.zeros(1, int))[0].shape[1]

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
        columns = self._columns(piece)
        if rows is not None:
            columns = columns.take(rows)
        weights = columns.area.astype(np.float32) if self._weigh else None
        return self.model.transform(columns), weights

    def _columns(self, piece: Piece) -> SegmentColumns:
        with open_table(piece.path) as file:
            whole = file.metadata.row_group(piece.group).num_rows
            if piece.rows == whole:
                table = file.read_row_group(piece.group, list(FEATURE_COLUMNS))
            else:
                batches = file.iter_batches(PIECE_ROWS, [piece.group], list(FEATURE_COLUMNS))
                number = piece.skipped // PIECE_ROWS
                batch = next(batch for i, batch in enumerate(batches) if i == number)
                table = pa.Table.from_batches([batch])
        columns = segment_columns(table, self.sides)
        refuse_unusable(columns, piece.path)
        return columns


def longer_sides(plan: pa.Table) -> np.ndarray:
    """Longer side of each tile (T,), which the network's input is scaled to; ids count from 0."""
    return np.maximum(*(plan.column(name).to_numpy() for name in ("width", "height")))


def _pieces(paths: list[Path]) -> list[Piece]:
    pieces = []
    first = 0
    for path in paths:
        with open_table(path) as file:
            groups = [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)]
        for group, rows in enumerate(groups):
            for skipped in range(0, rows, PIECE_ROWS):
                size = min(PIECE_ROWS, rows - skipped)
                pieces.append(Piece(path, group, skipped, first, size))
                first += size
    return pieces
