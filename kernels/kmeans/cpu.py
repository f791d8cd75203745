"""A pass of k-means on a CPU.

A block of vectors is brought into a core's cache, converted, multiplied with all centroids by
BLAS, and while its distances and its vectors are still there, compared and summed. Vectors are cut
into pieces by their number alone; the sums of pieces are added in their order, so the result does
not depend on the number of threads.

Bytes moved: N x C x 2 (float16) or 4 read, N x 12 written; pieces x K x C x 16 for sums. Work:
N x K x C multiply-adds in the products, and some 5 N x C operations besides.
"""

import numpy as np

from alps.kernels.base.blas import one_blas_thread
from alps.kernels.base.compiled import njit
from alps.kernels.base.intrinsics import as_float
from alps.kernels.base.math import FAST
from alps.kernels.base.threads import spread
from alps.kernels.kmeans.rules import Assignment, origin_of

# Vectors whose values and distances are alive at once in a thread; at C = 256 and K = 46 that is
# 0.3 MB, within a core's second-level cache.
BLOCK = 128
PIECES = 64  # at most; each has sums of its own
PIECE_ROWS = 4 * BLOCK  # at least


def assign(vectors: np.ndarray, centroids: np.ndarray, weights: np.ndarray | None) -> Assignment:
    """As ``alps.kernels.kmeans.assign``, of arguments that are checked."""
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


def piece_rows(count: int, clusters: int) -> int:
    """Vectors a piece: so many that the sums of all pieces take no more room than the vectors."""
    return max(PIECE_ROWS, 4 * clusters, -(-count // PIECES))


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


@njit(nogil=True, forceinline=True, fastmath=FAST, error_model="numpy")
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
    inertia = np.float64(0.0)
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


@njit(nogil=True, forceinline=True, fastmath=FAST, error_model="numpy")
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


@njit(nogil=True, forceinline=True, fastmath=FAST, error_model="numpy")
def _squared_distance(a: np.ndarray, b: np.ndarray) -> np.float32:
    total = np.float32(0.0)
    for c in range(len(a)):
        difference = a[c] - b[c]
        total += difference * difference
    return total
