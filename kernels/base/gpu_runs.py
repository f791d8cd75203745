"""How a block of threads shares out the runs of a mask.

Each thread takes some consecutive runs. Where they begin in the mask is known once every thread
has added up the lengths of its own: no list of places is stored.
"""

from typing import Any

import numpy as np

from alps.kernels.base.numba_cuda import cuda

THREADS = 64  # a block; a mask has some hundred runs


@cuda.jit(device=True)
def own_runs(first: int, last: int) -> tuple[int, int]:
    """Of runs [first, last) those of this thread, as [begin, end)."""
    each = (last - first + THREADS - 1) // THREADS
    begin = min(first + cuda.threadIdx.x * each, last)
    return begin, min(begin + each, last)


@cuda.jit(device=True)
def total_of(lengths: Any, begin: int, end: int) -> np.int64:
    """Pixels in runs [begin, end)."""
    total = np.int64(0)
    for run in range(begin, end):
        total += lengths[run]
    return total


@cuda.jit(device=True)
def sum_before(sums: Any) -> np.int64:
    """What the threads before this one have in sums (THREADS,) of the block's shared memory."""
    total = np.int64(0)
    for thread in range(cuda.threadIdx.x):
        total += sums[thread]
    return total


@cuda.jit(device=True)
def first_pixel(
    lengths: Any, begin: int, end: int, pixels: int, sums: Any, wrong: Any, mask: int
) -> np.int64:
    """Where in its mask this thread's runs [begin, end) begin; all threads of a block call it.

    sums: (THREADS,) int64, the block's shared memory. wrong: (M,) int32 zeros, of this mask 1
    afterwards, for all threads to see, where a run is negative or all do not add up to ``pixels``.
    """
    thread = cuda.threadIdx.x
    sums[thread] = total_of(lengths, begin, end)
    for run in range(begin, end):
        if lengths[run] < 0:
            wrong[mask] = 1
    cuda.syncthreads()
    first = sum_before(sums)
    if thread == THREADS - 1 and first + sums[thread] != pixels:
        wrong[mask] = 1
    cuda.syncthreads()
    return first
