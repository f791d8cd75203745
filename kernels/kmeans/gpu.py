"""The pass of k-means on a GPU: of float16 in one kernel of ``fused``; else products by cuBLAS, and
what follows in one kernel after them.

The latter is for float32, for centroids that are many or far from the origin, and where Triton is
not. Some vectors at a time are multiplied with all centroids by PyTorch. Of float16 the tensor
cores multiply: each centroid is two float16 whose sum is itself to 22 bits. Where the middle of the
centroids lies far from the origin, and of float32, vectors are moved there first, and products are
float32's: with all of their bits, if PyTorch is not set to round them.

Then a block of threads takes its tiles of vectors one after the other. The two nearest of each are
measured directly; the vectors are sorted by their cluster, so that a thread, which owns channels,
sums a cluster's in a register and writes once for each cluster of the tile, into sums that are the
block's own. Those of all blocks are added in order: the same vectors give the same sums each time.

Bytes moved: N x C x 2 (float16) or 4 read twice; N x K x 8 (float16) or 4 of products written and
read; N x 12 written; BLOCKS x K x C x 8 of sums, twice.
"""

import logging
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import numpy as np

from alps.kernels.base.gpu import on_gpu, on_host, triton_missing, usable_gpu
from alps.kernels.base.numba_cuda import cuda
from alps.kernels.kmeans.reference import reference_assign
from alps.kernels.kmeans.rules import Assignment, origin_of

_log = logging.getLogger(__name__)

TILE = 64  # vectors of a tile
THREADS = 256
SHARES = THREADS // TILE  # threads that measure the distances of one vector
# Shapes of shared memory: a compiled kernel takes names and numbers there, nothing to be computed.
PARTS = 2 * SHARES
ROWS = 1 << 18  # vectors multiplied at a time; fewer would stay in the cache, and wait for the host
BLOCKS = 264  # two for each multiprocessor of a large GPU
SUM_BYTES = 1 << 29  # of the blocks' sums: with very many centroids there are fewer blocks
EXTRA = 2  # columns of the sums after the channels: weights, and weighted squared distances
NEAR = 16  # squared distance of the middle from the origin, in those of centroids from the middle
TRIED, FORGIVEN = 256, 1e-4  # vectors of a trial, and what it may be off by
SCALED = 12  # bits of the largest number of the halves: far from float16's least and most


def assign(vectors: Any, centroids: np.ndarray, weights: Any) -> Assignment:
    """As ``alps.kernels.kmeans.assign``, of vectors (N, C) on a GPU; arguments are checked."""
    vectors = on_gpu(vectors)
    count, channels = vectors.shape
    clusters = len(centroids)
    if count and is_fused(vectors, centroids) and is_right(*centroids.shape, weights is not None):
        return _fused(vectors, centroids, weights)
    own = on_gpu(np.zeros(0, np.float32) if weights is None else weights, np.float32)
    labels = cuda.device_array(count, np.int32)
    nearest, second = (cuda.device_array(count, np.float32) for _ in range(2))
    total = np.zeros((clusters, channels + EXTRA))
    number = np.zeros(clusters, np.int64)
    if count:
        bytes_each = total.nbytes
        blocks = max(1, min(-(-min(count, ROWS) // TILE), BLOCKS, SUM_BYTES // bytes_each))
        sums = on_gpu(np.zeros((blocks, *total.shape)))
        counts, summed, there = on_gpu(number), on_gpu(total), on_gpu(centroids)
        with Products.stream():
            products = Products(vectors, centroids)
            offsets = on_gpu(products.offsets)
            for first in range(0, count, ROWS):
                last = min(count, first + ROWS)
                _pass[blocks, THREADS](
                    vectors, own, there, offsets, products.of(first, last), first, last,
                    labels, nearest, second, sums, counts,
                )  # fmt: skip
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


def is_fused(vectors: Any, centroids: np.ndarray) -> bool:
    """Whether one kernel does it all: of float16, which need no other origin, in C order."""
    if vectors.dtype != np.float16 or not usable_gpu() or triton_missing() is not None:
        return False
    from alps.kernels.kmeans.fused import fits

    in_order = vectors.strides == (2 * vectors.shape[1], 2)
    return in_order and fits(*centroids.shape) and not is_far(centroids)


@cache
def is_right(clusters: int, channels: int, weighted: bool) -> bool:
    """Whether the one kernel, tried on noise of this shape, gives what NumPy does; if not, a line
    in the log says why, and whoever asks goes the other way.
    """
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(TRIED, channels)).astype(np.float16)
    centroids = rng.normal(size=(clusters, channels)).astype(np.float32)
    weights = rng.gamma(1, size=TRIED).astype(np.float32) if weighted else None
    right = reference_assign(vectors, centroids, weights)
    try:
        found = _fused(on_gpu(vectors), centroids, weights)
        apart = right.second - right.nearest > FORGIVEN * right.second
        faults = {
            "labels": (on_host(found.labels) != right.labels)[apart].mean(),
            "distances": _off(on_host(found.nearest), right.nearest),
            "inertia": _off(found.inertia, right.inertia),
        }
        if apart.all():  # else a label may be another's, and so may a sum
            faults |= {"sums": _off(found.sums, right.sums)}
        reason = "; ".join(
            f"its {k} were off by {v:.1e}" for k, v in faults.items() if v > FORGIVEN
        )
    except Exception as error:  # whatever Triton, its compiler or the driver say
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    if reason:
        _log.warning("a pass of k-means is multiplied by cuBLAS, which is slower: %s", reason)
    return not reason


def _off(found: Any, right: Any) -> float:
    """The greatest difference, of the greatest value; infinite where it is no number."""
    off = float(np.abs(np.asarray(found) - right).max() / max(np.abs(right).max(), 1e-30))
    return off if np.isfinite(off) else np.inf


def is_far(centroids: np.ndarray) -> bool:
    """Whether the middle of centroids lies so far from the origin that float16 is no measure."""
    middle, _, lengths = origin_of(centroids)
    return float(middle @ middle) > NEAR * float((2 * lengths).mean())


def near_factors(centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centroids (K, C) as halves (2 K, C) float16, and what their products are taken from, (K,)
    float32; both scaled by a power of two, which rounds nothing.
    """
    middle, moved, lengths = origin_of(centroids)
    largest = max(float(np.abs(moved).max()), 1e-30)
    scale = 2.0 ** (SCALED - np.ceil(np.log2(largest)))
    offsets = lengths + moved.astype(np.float64) @ middle
    return halves(moved, scale), (offsets * scale).astype(np.float32)


def _fused(vectors: Any, centroids: np.ndarray, weights: Any) -> Assignment:
    from alps.kernels.kmeans.fused import assign_tensors

    own = None if weights is None else _tensor(on_gpu(weights, np.float32)).contiguous()
    with Products.stream():
        there = _tensor(vectors)
        factors, offsets = near_factors(centroids)
        table, taken_from, plain = (
            _tensor_of(array, there.device) for array in (factors, offsets, centroids)
        )
        found = assign_tensors(there, table, taken_from, plain, own)
        sums, counts, mass = (
            one.cpu().numpy() for one in (found.sums, found.counts, found.weights)
        )
        inertia = float(found.inertia)
    labels, nearest, second = map(on_gpu, (found.labels, found.nearest, found.second))
    return Assignment(labels, nearest, second, sums, counts, mass, inertia)


class Products:
    """What tells how near centroids (K, C) are to vectors (N, C): an offset less a product.

    Args:
        vectors: float16 or float32, Numba's on the GPU.
        centroids: float32, NumPy's.
    """

    def __init__(self, vectors: Any, centroids: np.ndarray) -> None:
        self._vectors = _tensor(vectors)
        self._halves = vectors.dtype == np.float16 and not is_far(centroids)
        if self._halves:
            factors, self.offsets = near_factors(centroids)
        else:
            middle, factors, self.offsets = origin_of(centroids)
            self._middle = _tensor_of(middle, self._vectors.device)
        self._factors = _tensor_of(factors, self._vectors.device)

    @staticmethod
    def stream() -> AbstractContextManager[Any]:
        """In which PyTorch's products come in turn with Numba's kernels: the default one."""
        import torch

        if not torch.cuda.is_available():
            return nullcontext()
        return torch.cuda.stream(torch.cuda.default_stream())

    def of(self, first: int, last: int) -> Any:
        """Of vectors first to last with all centroids, for a kernel: (n, K or 2 K) float32; a
        product is the sum of the two in columns k and K + k.
        """
        import torch

        some = self._vectors[first:last]
        if not self._halves:
            products = torch.mm(some.float() - self._middle, self._factors.T)
        elif some.device.type == "cuda":
            products = torch.mm(some, self._factors.T, out_dtype=torch.float32)
        else:  # the simulator's: float16 multiplied exactly, summed in float32
            products = some.float() @ self._factors.float().T
        return products.numpy() if some.device.type == "cpu" else on_gpu(products)


def halves(values: np.ndarray, scale: float) -> np.ndarray:
    """Values (K, C) float32, scaled, as sums of two float16: (2 K, C), the greater ones first."""
    scaled = values.astype(np.float64) * scale
    high = scaled.astype(np.float16)
    low = (scaled - high.astype(np.float64)).astype(np.float16)
    return np.concatenate([high, low])


def _tensor(array: Any) -> Any:
    """Numba's array as PyTorch's: the same memory, the simulator's aside."""
    import torch

    if hasattr(array, "__cuda_array_interface__"):
        return torch.as_tensor(array, device="cuda")
    return torch.from_numpy(on_host(array))


def _tensor_of(array: np.ndarray, device: Any) -> Any:
    import torch

    return torch.from_numpy(np.ascontiguousarray(array)).to(device)


@cuda.jit
def _pass(
    vectors: Any,
    weights: Any,
    centroids: Any,
    offsets: Any,
    products: Any,
    begin: int,
    end: int,
    labels: Any,
    nearest: Any,
    second: Any,
    sums: Any,
    counts: Any,
) -> None:
    """Vectors begin to end, tile by tile: labels, distances, and the block's sums (blocks, K, C +
    EXTRA), which are added to.
    """
    thread = cuda.threadIdx.x
    channels, clusters = centroids.shape[1], centroids.shape[0]
    values = cuda.shared.array((TILE, PARTS), np.float32)
    ids = cuda.shared.array((TILE, PARTS), np.int32)
    parts = cuda.shared.array((TILE, PARTS), np.float32)
    pair = cuda.shared.array((TILE, 2), np.int32)
    order = cuda.shared.array(TILE, np.int32)
    row, share = thread // SHARES, thread % SHARES
    tiles = (end - begin + TILE - 1) // TILE
    # Neighbouring tiles, so that the order of sums is that of the vectors.
    first_tile = cuda.blockIdx.x * tiles // cuda.gridDim.x
    last_tile = (cuda.blockIdx.x + 1) * tiles // cuda.gridDim.x
    for tile in range(first_tile, last_tile):
        first = begin + tile * TILE
        rows = min(TILE, end - first)
        least, following = np.float32(np.inf), np.float32(np.inf)
        which, other = np.int32(-1), np.int32(-1)
        if row < rows:
            for k in range(share, clusters, SHARES):
                product = products[first - begin + row, k]
                if products.shape[1] > clusters:
                    product += products[first - begin + row, clusters + k]
                distance = offsets[k] - product
                if distance < least:
                    following, other = least, which
                    least, which = distance, np.int32(k)
                elif distance < following:
                    following, other = distance, np.int32(k)
        values[row, 2 * share], values[row, 2 * share + 1] = least, following
        ids[row, 2 * share], ids[row, 2 * share + 1] = which, other
        cuda.syncthreads()
        if thread < TILE:
            _two_least(values, ids, thread, pair)
        cuda.syncthreads()
        if row < rows:
            for rank in range(2):
                total = np.float32(0)
                k = pair[row, rank]
                if k >= 0:
                    for c in range(share, channels, SHARES):
                        difference = np.float32(vectors[first + row, c]) - centroids[k, c]
                        total += difference * difference
                parts[row, rank * SHARES + share] = total
        cuda.syncthreads()
        if thread < rows:
            _settle(parts, pair, thread, first, labels, nearest, second, counts)
        cuda.syncthreads()
        if thread < rows:
            place, mine = 0, pair[thread, 0]
            for one in range(rows):
                label = pair[one, 0]
                if label < mine or (label == mine and one < thread):
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
