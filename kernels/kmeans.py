"""One pass of k-means: assign every vector and sum what each centroid received.

Bytes moved per call: N x C x 4 read (plus K x C x 4 of centroids per block), N x 12 written.
"""

from dataclasses import dataclass

import numpy as np

# Rows whose distances are alive at once; 8192 x K=46 floats is 1.5 MB, within a core's cache.
BLOCK_ROWS = 8192


@dataclass(frozen=True)
class Assignment:
    """What one pass over N vectors yields."""

    labels: np.ndarray  # (N,) int32, the nearest centroid, the lowest id of equals
    nearest: np.ndarray  # (N,) float32 squared distance to it
    second: np.ndarray  # (N,) float32 squared distance to the next; inf where K is 1


def assign(vectors: np.ndarray, centroids: np.ndarray) -> Assignment:
    """Nearest and second nearest centroid of every vector.

    Args:
        vectors: (N, C) float32, finite
        centroids: (K, C) float32, finite
    """
    count, clusters = len(vectors), len(centroids)
    labels = np.empty(count, dtype=np.int32)
    nearest = np.empty(count, dtype=np.float32)
    second = np.full(count, np.inf, dtype=np.float32)
    # |x|² - 2 x·c + |c|² finds the two nearest fast, but loses digits where vectors lie far from
    # the origin or on a centroid: so the origin moves, and those two are measured directly.
    middle = centroids.mean(0)
    moved = centroids - middle
    lengths = (moved**2).sum(1)
    for start in range(0, count, BLOCK_ROWS):
        block = vectors[start : start + BLOCK_ROWS]
        rows = slice(start, start + len(block))
        distance = lengths - 2 * ((block - middle) @ moved.T)  # less |x|², which all share
        first = distance.argmin(1)
        labels[rows] = first
        nearest[rows] = near = _squared_distance(block, centroids[first])
        if clusters > 1:
            distance[np.arange(len(block)), first] = np.inf
            other = distance.argmin(1)
            far = _squared_distance(block, centroids[other])
            swap = (far < near) | ((far == near) & (other < first))
            labels[rows] = np.where(swap, other, first)
            nearest[rows], second[rows] = np.minimum(near, far), np.maximum(near, far)
    return Assignment(labels, nearest, second)


def _squared_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Row by row, (N, C) and (N, C) -> (N,)."""
    difference = a - b
    return np.einsum("nc,nc->n", difference, difference)


def partial_sums(
    vectors: np.ndarray, labels: np.ndarray, clusters: int
) -> tuple[np.ndarray, np.ndarray]:
    """Sum and number of the vectors of each cluster, (K, C) float64 and (K,) int64."""
    counts = np.bincount(labels, minlength=clusters)
    order = np.argsort(labels, kind="stable")
    filled = np.flatnonzero(counts)
    starts = np.concatenate([[0], np.cumsum(counts[filled])[:-1]]).astype(np.intp)
    sums = np.zeros((clusters, vectors.shape[1]), dtype=np.float64)
    if len(vectors):
        sums[filled] = np.add.reduceat(vectors[order].astype(np.float64), starts, axis=0)
    return sums, counts.astype(np.int64)
