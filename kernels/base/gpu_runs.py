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
def total_of(lengths: Any, begin: int, end: int) -> int:
    """Pixels in runs [begin, end)."""
    total = np.int64(0)
    for run in range(begin, end):
        total += lengths[run]
    return total


@cuda.jit(device=True)
def sum_before(sums: Any) -> int:
    """What the threads before this one have in sums (THREADS,) of the block's shared memory."""
    total = np.int64(0)
    for thread in range(cuda.threadIdx.x):
        total += sums[thread]
    return total
