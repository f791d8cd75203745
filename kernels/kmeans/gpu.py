"""The pass of k-means on a GPU: products in tiles, and sums while the vectors are still in cache.

A block of threads takes its tiles of vectors one after the other. Each tile meets all centroids in
shared memory; its vectors are then sorted by their cluster, so that a thread, which owns channels,
sums a cluster's in a register and writes once for each cluster of the tile, into sums that are the
block's own. Those of all blocks are added in order: the result is the same on any GPU, each time.

Bytes moved: N x C x 2 (float16) or 4 read once from memory, and again from the caches for each 64
centroids; N x 12 written; BLOCKS x K x C x 8 of sums, twice.
"""

from typing import Any

import numpy as np

from alps.kernels.base.gpu import on_gpu
from alps.kernels.base.numba_cuda import cuda
from alps.kernels.kmeans.rules import Assignment, origin_of

SIDE = 4  # vectors, and centroids, whose products a thread holds in registers
ACROSS = 16  # threads of a block in each direction
TILE = SIDE * ACROSS  # vectors, and centroids, of a tile
DEPTH = 16  # channels in shared memory at a time
PADDED = TILE + 1
THREADS = ACROSS * ACROSS
SHARES = THREADS // TILE  # threads that measure the distances of one vector
# Shapes of shared memory: a compiled kernel takes names and numbers there, nothing to be computed.
NEAREST, PARTS = 2 * ACROSS, 2 * SHARES
BLOCKS = 264  # two for each multiprocessor of a large GPU
SUM_BYTES = 1 << 29  # of the blocks' sums: with very many centroids there are fewer blocks
EXTRA = 2  # columns of the sums after the channels: weights, and weighted squared distances


def assign(vectors: Any, centroids: np.ndarray, weights: Any) -> Assignment:
    """As ``alps.kernels.kmeans.assign``, of vectors (N, C) on a GPU; arguments are checked."""
    vectors = on_gpu(vectors)
    count, channels = vectors.shape
    clusters = len(centroids)
    middle, moved, lengths = origin_of(centroids)
    own = on_gpu(np.zeros(0, np.float32) if weights is None else weights, np.float32)
    labels = cuda.device_array(count, np.int32)
    nearest, second = (cuda.device_array(count, np.float32) for _ in range(2))
    total = np.zeros((clusters, channels + EXTRA))
    number = np.zeros(clusters, np.int64)
    if count:
        bytes_each = total.nbytes
        blocks = max(1, min(-(-count // TILE), BLOCKS, SUM_BYTES // bytes_each))
        sums = on_gpu(np.zeros((blocks, *total.shape)))
        counts, summed = on_gpu(number), on_gpu(total)
        _pass[blocks, (ACROSS, ACROSS)](
            vectors,
            own,
            *(on_gpu(array) for array in (centroids, middle, moved, lengths)),
            labels,
            nearest,
            second,
            sums,
            counts,
        )
        _reduce[-(-total.size // THREADS), THREADS](sums, summed)
        total, number = summed.copy_to_host(), counts.copy_to_host()
    return Assignment(
        labels,
        nearest,
        second,
        total[:, :channels].copy(),
        number,
        total[:, channels].copy(),
        float(total[:, channels + 1].sum()),
    )


@cuda.jit
def _pass(
    vectors: Any,
    weights: Any,
    centroids: Any,
    middle: Any,
    moved: Any,
    lengths: Any,
    labels: Any,
    nearest: Any,
    second: Any,
    sums: Any,
    counts: Any,
) -> None:
    """All tiles of a block: labels, distances, and the block's sums (blocks, K, C + EXTRA)."""
    x, y = cuda.threadIdx.x, cuda.threadIdx.y
    thread = y * ACROSS + x
    count, channels = vectors.shape
    clusters = centroids.shape[0]
    here = cuda.shared.array((DEPTH, PADDED), np.float32)
    there = cuda.shared.array((DEPTH, PADDED), np.float32)
    values = cuda.shared.array((TILE, NEAREST), np.float32)
    ids = cuda.shared.array((TILE, NEAREST), np.int32)
    parts = cuda.shared.array((TILE, PARTS), np.float32)
    pair = cuda.shared.array((TILE, 2), np.int32)
    order = cuda.shared.array(TILE, np.int32)
    dots = cuda.local.array((SIDE, SIDE), np.float32)
    value = cuda.local.array((SIDE, 2), np.float32)
    which = cuda.local.array((SIDE, 2), np.int32)
    tiles = (count + TILE - 1) // TILE
    # Neighbouring tiles, so that the order of sums is that of the vectors.
    begin = cuda.blockIdx.x * tiles // cuda.gridDim.x
    end = (cuda.blockIdx.x + 1) * tiles // cuda.gridDim.x
    for tile in range(begin, end):
        first = tile * TILE
        for i in range(SIDE):
            for rank in range(2):
                value[i, rank] = np.float32(np.inf)
                which[i, rank] = -1
        for centre in range(0, clusters, TILE):
            for i in range(SIDE):
                for j in range(SIDE):
                    dots[i, j] = np.float32(0)
            for depth in range(0, channels, DEPTH):
                for place in range(thread, TILE * DEPTH, THREADS):
                    d, row = place % DEPTH, place // DEPTH
                    a, b = np.float32(0), np.float32(0)
                    if depth + d < channels and first + row < count:
                        a = np.float32(vectors[first + row, depth + d]) - middle[depth + d]
                    if depth + d < channels and centre + row < clusters:
                        b = moved[centre + row, depth + d]
                    here[d, row] = a
                    there[d, row] = b
                cuda.syncthreads()
                for d in range(DEPTH):
                    for i in range(SIDE):
                        for j in range(SIDE):
                            dots[i, j] += here[d, y + ACROSS * i] * there[d, x + ACROSS * j]
                cuda.syncthreads()
            for j in range(SIDE):
                k = centre + x + ACROSS * j
                if k < clusters:
                    for i in range(SIDE):
                        distance = lengths[k] - dots[i, j]
                        if distance < value[i, 0]:
                            value[i, 1], which[i, 1] = value[i, 0], which[i, 0]
                            value[i, 0], which[i, 0] = distance, k
                        elif distance < value[i, 1]:
                            value[i, 1], which[i, 1] = distance, k
        for i in range(SIDE):
            for rank in range(2):
                values[y + ACROSS * i, 2 * x + rank] = value[i, rank]
                ids[y + ACROSS * i, 2 * x + rank] = which[i, rank]
        cuda.syncthreads()
        if thread < TILE:
            _two_least(values, ids, thread, pair)
        cuda.syncthreads()
        row, share = thread // SHARES, thread % SHARES
        if first + row < count:
            for rank in range(2):
                total = np.float32(0)
                k = pair[row, rank]
                if k >= 0:
                    for c in range(share, channels, SHARES):
                        difference = np.float32(vectors[first + row, c]) - centroids[k, c]
                        total += difference * difference
                parts[row, rank * SHARES + share] = total
        cuda.syncthreads()
        if thread < TILE and first + thread < count:
            _settle(parts, pair, thread, first, labels, nearest, second, counts)
        cuda.syncthreads()
        rows = min(TILE, count - first)
        if thread < rows:
            place, mine = 0, pair[thread, 0]
            for other in range(rows):
                label = pair[other, 0]
                if label < mine or (label == mine and other < thread):
                    place += 1
            order[place] = thread
        cuda.syncthreads()
        for c in range(thread, channels + EXTRA, THREADS):
            _add(vectors, weights, nearest, first, rows, c, order, pair, sums)
        cuda.syncthreads()


@cuda.jit(device=True)
def _two_least(values: Any, ids: Any, row: int, pair: Any) -> None:
    """The ids of a vector's two least values in shared memory; of equals the lowest."""
    least, following = np.float32(np.inf), np.float32(np.inf)
    first, other = np.int32(-1), np.int32(-1)
    for place in range(values.shape[1]):
        value, k = values[row, place], ids[row, place]
        if k >= 0:
            if first < 0 or value < least or (value == least and k < first):
                following, other = least, first
                least, first = value, k
            elif other < 0 or value < following or (value == following and k < other):
                following, other = value, k
    pair[row, 0], pair[row, 1] = first, other


@cuda.jit(device=True)
def _settle(
    parts: Any,
    pair: Any,
    row: int,
    first: int,
    labels: Any,
    nearest: Any,
    second: Any,
    counts: Any,
) -> None:
    """Of a vector's two nearest, measured directly, the nearer one is its label."""
    near, far = np.float32(0), np.float32(0)
    for share in range(SHARES):
        near += parts[row, share]
        far += parts[row, SHARES + share]
    label, other = pair[row, 0], pair[row, 1]
    if label < 0:  # NaN is nearest to none; it shows in the sums
        label, near = np.int32(0), np.float32(np.nan)
    if other < 0:
        far = np.float32(np.inf)
    elif far < near or (far == near and other < label):
        near, far = far, near
        label = other
    pair[row, 0] = label
    labels[first + row], nearest[first + row], second[first + row] = label, near, far
    cuda.atomic.add(counts, label, 1)


@cuda.jit(device=True)
def _add(
    vectors: Any,
    weights: Any,
    nearest: Any,
    first: int,
    rows: int,
    c: int,
    order: Any,
    pair: Any,
    sums: Any,
) -> None:
    """Add a column of a tile to the block's sums, cluster by cluster; no other thread has it."""
    channels = vectors.shape[1]
    total = np.float64(0)
    for place in range(rows):
        row = order[place]
        value = np.float64(1)
        if c < channels:
            value = np.float64(np.float32(vectors[first + row, c]))
        elif c > channels:
            value = np.float64(nearest[first + row])
        if weights.size:
            value *= weights[first + row]
        total += value
        label = pair[row, 0]
        if place + 1 == rows or pair[order[place + 1], 0] != label:
            # Atomic only so as not to wait for it: nobody else adds here.
            cuda.atomic.add(sums, (cuda.blockIdx.x, label, c), total)
            total = np.float64(0)


@cuda.jit
def _reduce(sums: Any, total: Any) -> None:
    """Sums of blocks (B, K, C + EXTRA), added in order."""
    place = cuda.grid(1)
    if place >= total.size:
        return
    k, c = place // total.shape[1], place % total.shape[1]
    added = np.float64(0)
    for block in range(sums.shape[0]):
        added += sums[block, k, c]
    total[k, c] = added
