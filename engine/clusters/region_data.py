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
            parts = [self._read(file, 0, file.count) for file in self._files]
            self._kept = MemoryVectors(*self._batch(parts, placed=True))

    def take(self, rows: np.ndarray) -> Batch:
        """The vectors of these indices, which ascend; one pass over the files they lie in."""
        if self._kept is not None:
            return self._kept.take(rows)
        parts = []
        for file, end in zip(self._files, self._ends.tolist(), strict=True):
            for start in range(end - file.count, end, READ_ROWS):
                last = min(start + READ_ROWS, end)
                low, high = np.searchsorted(rows, [start, last])
                if high > low:
                    vectors, weights = self._read(file, start - end + file.count, last - start)
                    own = rows[low:high] - start
                    parts.append((vectors[own], None if weights is None else weights[own]))
        return Batch(*self._batch(parts, placed=True))

    def batches(self, rows: int, rng: np.random.Generator) -> Iterator[Batch]:
        """All vectors once, mixed, ``rows`` at a time."""
        if self._kept is not None:
            yield from self._kept.batches(rows, rng)
            return
        waiting: list[tuple[np.ndarray, np.ndarray | None]] = []
        held = 0
        order = rng.permutation(self._piece_ends[-1])
        for index in order:
            waiting.append(self._piece(index))
            held += len(waiting[-1][0])
            if held < max(POOL_ROWS, rows) and index != order[-1]:
                continue
            vectors, weights = self._batch(waiting)
            waiting = []
            mixed = rng.permutation(held)
            whole = held if index == order[-1] else held // rows * rows
            for start in range(0, whole, rows):
                chosen = np.sort(mixed[start : start + rows])
                own = None if weights is None else self._place(weights[chosen])
                yield Batch(self._place(vectors[chosen]), own)
            rest = mixed[whole:]
            waiting = [(vectors[rest], None if weights is None else weights[rest])]
            held = len(rest)

    def _piece(self, index: int) -> tuple[np.ndarray, np.ndarray | None]:
        which = int(np.searchsorted(self._piece_ends, index, side="right"))
        file = self._files[which]
        before = int(self._piece_ends[which - 1]) if which else 0
        start = (int(index) - before) * PIECE_ROWS
        return self._read(file, start, min(PIECE_ROWS, file.count - start))

    def _batch(
        self, parts: list[tuple[np.ndarray, np.ndarray | None]], placed: bool = False
    ) -> tuple[Any, Any]:
        vectors = np.concatenate([part[0] for part in parts])
        weights = np.concatenate([part[1] for part in parts]) if self._weigh else None
        if placed:
            return self._place(vectors), None if weights is None else self._place(weights)
        return vectors, weights

    def _read(
        self, file: VectorFile, start: int, count: int
    ) -> tuple[np.ndarray, np.ndarray | None]:
        vectors, area = file.read(start, count)
        return vectors, area if self._weigh else None


def shards_to_fit(plan: Plan) -> list[int]:
    """The shards whose segments features are fitted to: all, or of many some all over the run."""
    count = min(plan.shards, max(1, FIT_TILES // plan.shard_tiles))
    return [number * plan.shards // count for number in range(count)]
