"""The vectors of a run folder's regions: written, and read as they are asked for.

A piece is a few hundred vectors, of one place. Batches are drawn from a pool of pieces in random
order, rows of different pieces mixed: were a batch of a few places alone, centroids would run after
them. Memory is the pool, whatever the archive's size; small archives are kept.
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
from alps.engine.clusters.vectors import VectorFile, write_vectors
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.plan import Plan
from alps.engine.run_folder.tables import open_table
from alps.engine.settings import ClusterSettings
from alps.engine.workers.protocol import Alone, Crew, Tell, nothing_to_tell

PIECE_ROWS = 1 << 8
FIT_TILES = 1 << 17  # whose segments say what embeddings are like; beyond, these are spread
READ_ROWS = 1 << 14  # where all are read in order
POOL_ROWS = 1 << 17  # mixed before they are cut into batches
KEEP_BYTES = 1 << 26  # vectors up to this size stay in memory


@dataclass(frozen=True)
class WriteVectors:
    """The vectors of groups, as a job of a crew."""

    root: Path
    features: FeatureModel

    def run(self, numbers: Iterator[int], tell: Tell) -> Iterator[tuple[int, None]]:
        """See ``Job``."""
        folder = RunFolder(self.root)
        reader = RegionReader(folder)
        for group in numbers:
            write_vectors(folder, group, self.features, reader)
            yield group, None

    def words(self, number: int) -> str:
        """See ``Job``."""
        return f"regions of group {number}"


class RunRegions:
    """The vectors of a run folder's regions, as ``alps.engine.clusters.data.Vectors``.

    model: makes vectors of regions. place: puts an array where it is worked on, on a GPU say.
    crew: writes the vectors.
    Reading raises RunFolderError for what is damaged, or holds numbers that are none.
    """

    def __init__(
        self,
        folder: RunFolder,
        settings: ClusterSettings,
        place: Callable[[np.ndarray], Any] = np.asarray,
        crew: Crew | None = None,
    ) -> None:
        plan = Plan.of(folder)
        self.groups = plan.group_numbers()
        self._reader = RegionReader(folder)
        self._weigh, self._place = settings.weight_by_area, place
        fit = FeatureFit(settings)
        for shard in shards_to_fit(plan):
            refuse_older(folder.segments(shard), SEGMENT_COLUMNS)
            for tile in plan.ids_of(shard):
                segments = self._reader.of_tile(tile)
                if len(segments.area):
                    fit.add_segments(segments)
        for group in self.groups:
            with open_table(folder.regions(group)) as file:
                for number in range(file.num_row_groups):
                    fit.add_colours(lists(file.read_row_group(number, ["colour"]), "colour"))
        self.model: FeatureModel = fit.solve()
        job = WriteVectors(folder.root, self.model)
        with Progress(len(self.groups), "groups", "describing regions") as progress:
            for _ in (crew or Alone()).carry_out(job, self.groups, nothing_to_tell):
                progress.advance(1)
        self._files = [VectorFile(folder.region_vectors(group)) for group in self.groups]
        counts = np.array([file.count for file in self._files], np.int64)
        self._ends = np.cumsum(counts)  # of each file's rows among all of the run
        self._piece_ends = np.cumsum(-(-counts // PIECE_ROWS))
        self.count = int(counts.sum())
        self._kept: MemoryVectors | None = None
        if self.count and self._files[0].width * 4 * self.count <= KEEP_BYTES:
            every = self._room(self.count)
            for file, end in zip(self._files, self._ends.tolist(), strict=True):
                for start in range(0, file.count, READ_ROWS):
                    number = min(READ_ROWS, file.count - start)
                    every.fill(end - file.count + start, *file.read(start, number))
            self._kept = MemoryVectors(*self._placed(every))

    def take(self, rows: np.ndarray) -> Batch:
        """The vectors of these indices, which ascend; one pass over the files they lie in."""
        if self._kept is not None:
            return self._kept.take(rows)
        taken = self._room(len(rows))
        for file, end in zip(self._files, self._ends.tolist(), strict=True):
            for start in range(end - file.count, end, READ_ROWS):
                last = min(start + READ_ROWS, end)
                low, high = np.searchsorted(rows, [start, last])
                if high > low:
                    vectors, area = file.read(start - end + file.count, last - start)
                    own = rows[low:high] - start
                    taken.fill(low, vectors[own], area[own])
        return Batch(*self._placed(taken))

    def batches(self, rows: int, rng: np.random.Generator) -> Iterator[Batch]:
        """All vectors once, mixed, ``rows`` at a time."""
        if self._kept is not None:
            yield from self._kept.batches(rows, rng)
            return
        full = max(POOL_ROWS, rows)
        pool, held = self._room(full + PIECE_ROWS), 0
        order = rng.permutation(self._piece_ends[-1])
        for index in order:
            vectors, area = self._piece(index)
            pool.fill(held, vectors, area)
            held += len(vectors)
            if held < full and index != order[-1]:
                continue
            mixed = rng.permutation(held)
            whole = held if index == order[-1] else held // rows * rows
            for start in range(0, whole, rows):
                yield Batch(*self._placed(pool.taken(np.sort(mixed[start : start + rows]))))
            rest = pool.taken(mixed[whole:])
            held = len(rest)
            pool.fill(0, rest.vectors, rest.weights)

    def _piece(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        which = int(np.searchsorted(self._piece_ends, index, side="right"))
        file = self._files[which]
        before = int(self._piece_ends[which - 1]) if which else 0
        start = (int(index) - before) * PIECE_ROWS
        return file.read(start, min(PIECE_ROWS, file.count - start))

    def _room(self, count: int) -> "_Room":
        width = self._files[0].width if self._files else 0
        weights = np.empty(count, np.float32) if self._weigh else None
        return _Room(np.empty((count, width), np.float32), weights)

    def _placed(self, room: "_Room") -> tuple[Any, Any]:
        weights = None if room.weights is None else self._place(room.weights)
        return self._place(room.vectors), weights


@dataclass(frozen=True)
class _Room:
    """Vectors that are read into one array: parts put together would be there twice."""

    vectors: np.ndarray  # (n, D) float32
    weights: np.ndarray | None  # (n,) float32

    def __len__(self) -> int:
        return len(self.vectors)

    def fill(self, start: int, vectors: np.ndarray, weights: np.ndarray | None) -> None:
        """Put some at ``start``; weights, where they do not count, are left out."""
        self.vectors[start : start + len(vectors)] = vectors
        if self.weights is not None:
            self.weights[start : start + len(vectors)] = weights

    def taken(self, rows: np.ndarray) -> "_Room":
        """A copy of the rows at indices."""
        return _Room(self.vectors[rows], None if self.weights is None else self.weights[rows])


def shards_to_fit(plan: Plan) -> list[int]:
    """The shards whose segments features are fitted to: all, or of many some all over the run."""
    count = min(plan.shards, max(1, FIT_TILES // plan.shard_tiles))
    return [number * plan.shards // count for number in range(count)]
