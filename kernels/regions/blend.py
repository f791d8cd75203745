"""Means of vectors by shares: what a region is, of what windows saw there.

Bytes moved: E x (12 + 4 d) read, n x 4 d written.
"""

from itertools import pairwise

import numpy as np

from alps.kernels.base.compiled import njit


def blend(
    vectors: np.ndarray, starts: np.ndarray, entry: np.ndarray, share: np.ndarray
) -> np.ndarray:
    """Sums of vectors weighted by shares, row by row.

    Args:
        vectors: (m, d) float32.
        starts: (n + 1,) int64; row i has the entries from starts[i] up to starts[i + 1].
        entry: (E,) int64 rows of ``vectors``.
        share: (E,) float32.

    Returns (n, d) float32. Entries are added in their order: a row is to the bit the same in
    whatever company.
    """
    found = np.zeros((len(starts) - 1, vectors.shape[1]), np.float32)
    _blend(np.ascontiguousarray(vectors), starts, entry, share, found)
    return found


def reference_blend(
    vectors: np.ndarray, starts: np.ndarray, entry: np.ndarray, share: np.ndarray
) -> np.ndarray:
    """As ``blend``, in NumPy and float64."""
    rows = [slice(*pair) for pair in pairwise(starts)]
    found = [share[row].astype(np.float64) @ vectors[entry[row]].astype(np.float64) for row in rows]
    return np.array(found).reshape(len(rows), vectors.shape[1])


@njit(nogil=True, cache=True)
def _blend(
    vectors: np.ndarray,
    starts: np.ndarray,
    entry: np.ndarray,
    share: np.ndarray,
    found: np.ndarray,
) -> None:
    for row in range(found.shape[0]):
        for at in range(starts[row], starts[row + 1]):
            for k in range(vectors.shape[1]):
                found[row, k] += share[at] * vectors[entry[at], k]
