"""One pass of k-means: the two nearest centroids of every vector, and what each centroid received.

Both in one pass: a block of vectors is brought into a core's cache, converted, multiplied with all
centroids by BLAS, and while its distances and its vectors are still there, compared and summed.

|c|² / 2 - x·c finds the two nearest fast, but loses digits where vectors lie far from the
origin or on a centroid: so the origin moves to the middle of the centroids, and the distances to
those two are measured once more, directly. Vectors are cut into pieces by their number alone; the
sums of pieces are added in their order, so the result does not depend on the number of threads.

Bytes moved: N x C x 2 (float16) or 4 read, N x 12 written; pieces x K x C x 16 for sums. Work:
N x K x C multiply-adds in the products, and some 5 N x C operations besides.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit

from alps.kernels.base.blas import one_blas_thread
from alps.kernels.base.gpu import is_on_gpu
from alps.kernels.base.intrinsics import as_float
from alps.kernels.base.math import FAST
from alps.kernels.base.threads import spread

# Vectors whose values and distances are alive at once in a thread; at C = 256 and K = 46 that is
# 0.3 MB, within a core's second-level cache.
BLOCK = 128
PIECES = 64  # at most; each has sums of its own
PIECE_ROWS = 4 * BLOCK  # at least


@dataclass(frozen=True)
class Assignment:
    """What one pass over N vectors yields. Arrays of N lie where the vectors lie."""

    labels: Any  # (N,) int32, the nearest centroid, the lowest id of equals
    nearest: Any  # (N,) float32 squared distance to it
    second: Any  # (N,) float32 squared distance to the next; inf where K is 1
    sums: np.ndarray  # (K, C) float64, of each centroid's vectors, times their weights
    counts: np.ndarray  # (K,) int64, number of vectors
    weights: np.ndarray  # (K,) float64, sum of weights; the counts where there are none
    inertia: float  # sum of ``nearest`` times weights


def assign(vectors: Any, centroids: np.ndarray, weights: Any = None) -> Assignment:
    """Assign every vector to its nearest centroid, and sum the vectors of each.

    Args:
        vectors: (N, C) float16 or float32; NumPy: computed on the CPU, on a GPU: there.
        centroids: (K, C) float32, K >= 1.
        weights: (N,) float32, not negative: how much a vector counts in sums and inertia.

    Raises:
        ValueError: shapes or dtypes do not fit; or vectors, weights or centroids hold NaN,
            infinity, or values whose squares leave float32.
    """
    centroids = np.ascontiguousarray(centroids, np.float32)
    _check(vectors, centroids, weights)
    if is_on_gpu(vectors):
        from alps.kernels.kmeans.gpu import assign as on_gpu

        found = on_gpu(vectors, centroids, weights)
    else:
        found = _assign(np.asarray(vectors), centroids, weights)
    if not np.isfinite(found.inertia):
        raise ValueError("vectors, weights or centroids hold NaN, infinity or huge values")
    return found


def reference_assign(
    vectors: np.ndarray, centroids: np.ndarray, weights: np.ndarray | None = None
) -> Assignment:
    """The same in float64, all distances at once."""
    _check(vectors, centroids, weights)
    vectors = vectors.astype(np.float64)
    own = np.ones(len(vectors)) if weights is None else weights.astype(np.float64)
    distance = ((vectors[:, None] - centroids.astype(np.float64)) ** 2).sum(2)  # (N, K)
    labels = distance.argmin(1)
    nearest = distance.min(1)
    distance[np.arange(len(vectors)), labels] = np.inf
    inertia = float((own * nearest).sum())
    if not np.isfinite(inertia):
        raise ValueError("vectors, weights or centroids hold NaN, infinity or huge values")
    mine = labels[:, None] == np.arange(len(centroids))  # (N, K)
    return Assignment(
        labels.astype(np.int32),
        nearest.astype(np.float32),
        distance.min(1, initial=np.inf).astype(np.float32),
        mine.T @ (own[:, None] * vectors),
        mine.sum(0),
        mine.T @ own,
        inertia,
    )


def _check(vectors: Any, centroids: np.ndarray, weights: Any) -> None:
    """Raise ValueError for arguments that do not go together."""
    if len(vectors.shape) != 2 or centroids.ndim != 2 or not len(centroids):
        raise ValueError(
            f"vectors {tuple(vectors.shape)} and centroids {centroids.shape} must be matrices, "
            "with at least one centroid"
        )
    if vectors.shape[1] != centroids.shape[1]:
        raise ValueError(
            f"vectors of {vectors.shape[1]} channels and centroids of {centroids.shape[1]}"
        )
    if vectors.dtype not in (np.float16, np.float32):
        raise ValueError(f"vectors are {vectors.dtype}; float16 or float32 is wanted")
    if not np.isfinite(centroids).all():
        raise ValueError("centroids hold NaN, infinity or huge values")
    if weights is not None and tuple(weights.shape) != (vectors.shape[0],):
        raise ValueError(f"{tuple(weights.shape)} weights for {vectors.shape[0]} vectors")


def origin_of(centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Middle (C,) of centroids, the centroids as seen from there (K, C), and |c|² / 2 (K,)."""
    middle = centroids.mean(0, dtype=np.float64).astype(np.float32)
    moved = centroids - middle
    return middle, moved, np.einsum("kc,kc->k", moved, moved) / 2


def piece_rows(count: int, clusters: int) -> int:
    """Vectors a piece: so many that the sums of all pieces take no more room than the vectors."""
    return max(PIECE_ROWS, 4 * clusters, -(-count // PIECES))


def _assign(vectors: np.ndarray, centroids: np.ndarray, weights: np.ndarray | None) -> Assignment:
    count, channels = vectors.shape
    clusters = len(centroids)
    vectors = np.ascontiguousarray(vectors)
    own = np.zeros(0, np.float32) if weights is None else np.ascontiguousarray(weights, np.float32)
    labels = np.empty(count, np.int32)
    nearest, second = np.empty(count, np.float32), np.empty(count, np.float32)
    rows = piece_rows(count, clusters)
    pieces = -(-count // rows)
    sums = np.zeros((pieces, clusters, channels))
    counts = np.zeros((pieces, clusters), np.int64)
    received = np.zeros((pieces, clusters))
    inertia = np.zeros(pieces)
    middle, moved, lengths = origin_of(centroids)
    data = vectors.view(np.uint16) if vectors.dtype == np.float16 else vectors

    def some(first: int, last: int) -> None:
        for piece in range(first, last):
            part = slice(piece * rows, min(count, (piece + 1) * rows))
            inertia[piece] = _piece(
                data[part],
                centroids,
                middle,
                moved,
                lengths,
                own[part],
                labels[part],
                nearest[part],
                second[part],
                sums[piece],
                counts[piece],
                received[piece],
            )

    with one_blas_thread():
        spread(some, pieces)
    total = np.zeros((clusters, channels))
    for piece in sums:  # in order: np.sum may group them otherwise
        total += piece
    number = counts.sum(0)
    mass = number.astype(np.float64) if weights is None else _in_order(received)
    return Assignment(labels, nearest, second, total, number, mass, float(_in_order(inertia)))


def _in_order(parts: np.ndarray) -> np.ndarray:
    total = np.zeros(parts.shape[1:])
    for part in parts:
        total = total + part
    return total


@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def _piece(
    vectors: np.ndarray,
    centroids: np.ndarray,
    middle: np.ndarray,
    moved: np.ndarray,
    lengths: np.ndarray,
    weights: np.ndarray,
    labels: np.ndarray,
    nearest: np.ndarray,
    second: np.ndarray,
    sums: np.ndarray,
    counts: np.ndarray,
    received: np.ndarray,
) -> float:
    """Vectors (n, C), float32 or the bits of float16 as uint16; returns their inertia."""
    count, channels = vectors.shape
    block = np.empty((min(BLOCK, count), channels), np.float32)
    seen = np.empty_like(block)
    dots = np.empty((len(centroids), len(block)), np.float32)
    inertia = 0.0
    for start in range(0, count, BLOCK):
        stop = min(count, start + BLOCK)
        if stop - start < len(block):
            block = np.empty((stop - start, channels), np.float32)
            seen = np.empty_like(block)
            dots = np.empty((len(centroids), stop - start), np.float32)
        for i in range(stop - start):
            row, here, there = vectors[start + i], block[i], seen[i]
            for c in range(channels):
                value = as_float(row[c])
                here[c] = value
                there[c] = value - middle[c]
        inertia += _block(
            block,
            seen,
            centroids,
            moved,
            lengths,
            weights[start:stop],
            dots,
            labels[start:stop],
            nearest[start:stop],
            second[start:stop],
            sums,
            counts,
            received,
        )
    return inertia


@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def _block(
    block: np.ndarray,
    seen: np.ndarray,
    centroids: np.ndarray,
    moved: np.ndarray,
    lengths: np.ndarray,
    weights: np.ndarray,
    dots: np.ndarray,
    labels: np.ndarray,
    nearest: np.ndarray,
    second: np.ndarray,
    sums: np.ndarray,
    counts: np.ndarray,
    received: np.ndarray,
) -> float:
    """Vectors (b, C), and as seen from the middle; with room for dots (K, b). Returns inertia."""
    np.dot(moved, seen.T, dots)
    other = np.empty(len(block), np.int32)
    _two_least(dots, lengths, labels, nearest, other, second)
    inertia = 0.0
    for i in range(len(block)):
        vector, first, next_ = block[i], labels[i], other[i]
        near = _squared_distance(vector, centroids[first])
        far = np.float32(np.inf)
        if len(centroids) > 1:
            far = _squared_distance(vector, centroids[next_])
            if far < near or (far == near and next_ < first):
                near, far = far, near
                first = next_
        labels[i], nearest[i], second[i] = first, near, far
        counts[first] += 1
        mine = sums[first]
        if len(weights):
            weight = weights[i]
            received[first] += weight
            inertia += np.float64(weight) * near
            for c in range(len(vector)):
                mine[c] += np.float64(weight) * vector[c]
        else:
            inertia += near
            for c in range(len(vector)):
                mine[c] += vector[c]
    return inertia


@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def _two_least(
    dots: np.ndarray,
    lengths: np.ndarray,
    first: np.ndarray,
    least: np.ndarray,
    second: np.ndarray,
    next_least: np.ndarray,
) -> None:
    """Of each column of |c|² / 2 - dots (K, b) the two least values and their rows."""
    clusters, count = dots.shape
    first[:] = 0
    second[:] = min(1, clusters - 1)
    least[:] = np.float32(3e38)
    next_least[:] = np.float32(3e38)
    for k in range(clusters):
        row, length = dots[k], lengths[k]
        for i in range(count):
            value = length - row[i]
            is_least = value < least[i]
            is_next = value < next_least[i]
            second[i] = first[i] if is_least else (k if is_next else second[i])
            next_least[i] = least[i] if is_least else (value if is_next else next_least[i])
            first[i] = k if is_least else first[i]
            least[i] = value if is_least else least[i]


@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def _squared_distance(a: np.ndarray, b: np.ndarray) -> np.float32:
    total = np.float32(0.0)
    for c in range(len(a)):
        difference = a[c] - b[c]
        total += difference * difference
    return total
