"""Sums of the vectors beside each region: what its neighbours are.

Bytes moved: B x (8 + 4) of pairs and weights, and for each of them 2 x 4 D read and 4 x 4 D read
and written of sums, most of which stay in a core's cache: neighbours are neighbours in the table.
"""

import numpy as np

from alps.kernels.base.compiled import njit


def add_neighbours(
    vectors: np.ndarray,
    pairs: tuple[np.ndarray, np.ndarray],
    weights: np.ndarray,
    sums: np.ndarray,
    total: np.ndarray,
) -> None:
    """Add to the sums of both regions of a pair the other's vector, times the pair's weight.

    Args:
        vectors: (n, d) float32.
        pairs: rows (B,) and (B,) int64 of regions that touch.
        weights: (B,) float32.
        sums: (n, d) float32, added to in the order of the pairs.
        total: (n,) float32, likewise, of the weights.
    """
    _add(np.ascontiguousarray(vectors), *pairs, weights, sums, total)


def reference_add_neighbours(
    vectors: np.ndarray,
    pairs: tuple[np.ndarray, np.ndarray],
    weights: np.ndarray,
    sums: np.ndarray,
    total: np.ndarray,
) -> None:
    """As ``add_neighbours``, in NumPy."""
    for here, there in (pairs, pairs[::-1]):
        np.add.at(sums, here, weights[:, None] * vectors[there])
        np.add.at(total, here, weights)


@njit(nogil=True, cache=True)
def _add(
    vectors: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    weights: np.ndarray,
    sums: np.ndarray,
    total: np.ndarray,
) -> None:
    for pair in range(weights.size):
        a, b, weight = first[pair], second[pair], weights[pair]
        total[a] += weight
        total[b] += weight
        for k in range(vectors.shape[1]):
            sums[a, k] += weight * vectors[b, k]
            sums[b, k] += weight * vectors[a, k]
