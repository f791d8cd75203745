"""Vectors to be clustered, wherever they lie: one small protocol, so that one loop fits them all.

Here are those in memory, of this machine or of its GPU; ``region_data`` has those of a run folder.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from alps.kernels.base.gpu import is_on_gpu


@dataclass(frozen=True)
class Batch:
    """Some vectors; both arrays lie in one place, in memory or on a GPU."""

    vectors: Any  # (n, D) float16 or float32
    weights: Any = None  # (n,) float32, how much each counts; None: all alike

    def __len__(self) -> int:
        return int(self.vectors.shape[0])

    def on_host(self) -> tuple[np.ndarray, np.ndarray]:
        """Vectors (n, D) float32 and weights (n,) float64, as NumPy's."""
        vectors = to_host(self.vectors)
        if self.weights is None:
            return vectors.astype(np.float32), np.ones(len(vectors))
        return vectors.astype(np.float32), to_host(self.weights).astype(np.float64)


class Vectors(Protocol):
    """What fitting asks of an archive."""

    @property
    def count(self) -> int:
        """How many vectors there are."""
        ...

    def take(self, rows: np.ndarray) -> Batch:
        """The vectors of these indices, which ascend."""
        ...

    def batches(self, rows: int, rng: np.random.Generator) -> Iterator[Batch]:
        """All vectors once, in an order drawn by ``rng``, ``rows`` at a time, the last fewer."""
        ...


class MemoryVectors:
    """Vectors in one array, of NumPy, or on a GPU (CuPy's, torch's, Numba's).

    vectors: (N, D) float16 or float32. weights: (N,), in the same place.
    """

    def __init__(self, vectors: Any, weights: Any = None) -> None:
        self._on_gpu = is_on_gpu(vectors)
        if not self._on_gpu:
            vectors = np.ascontiguousarray(vectors)
            weights = None if weights is None else np.asarray(weights, np.float32)
        self.vectors, self.weights = vectors, weights

    @property
    def count(self) -> int:
        """Number of vectors."""
        return int(self.vectors.shape[0])

    def take(self, rows: np.ndarray) -> Batch:
        """The vectors of these indices."""
        return Batch(self._rows(self.vectors, rows), self._rows(self.weights, rows))

    def batches(self, rows: int, rng: np.random.Generator) -> Iterator[Batch]:
        """All vectors once, in random order."""
        order = rng.permutation(self.count)
        for start in range(0, self.count, rows):
            # Ascending within a batch: memory is read from front to back.
            yield self.take(np.sort(order[start : start + rows]))

    def _rows(self, array: Any, rows: np.ndarray) -> Any:
        if array is None:
            return None
        if len(rows) == self.count:  # ascending, so all of them as they are
            return array
        if self._on_gpu:
            from alps.kernels.base.gpu_rows import take_rows

            return take_rows(array, rows)
        return np.take(array, rows, axis=0)


def to_host(array: Any) -> np.ndarray:
    """An array of this machine or of its GPU, as NumPy's."""
    if isinstance(array, np.ndarray):
        return array
    from alps.kernels.base.gpu import on_host

    return on_host(array)
