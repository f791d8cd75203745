"""Rows of a matrix on a GPU, by index. Bytes moved: those rows, read and written once."""

from typing import Any

import numpy as np

from alps.kernels.base.gpu import on_gpu
from alps.kernels.base.numba_cuda import cuda

THREADS = 128


def take_rows(array: Any, rows: np.ndarray) -> Any:
    """``array[rows]`` of an array (N,) or (N, C) on a GPU, as Numba's, in a place of its own."""
    array = on_gpu(array)
    taken = cuda.device_array((len(rows), *array.shape[1:]), array.dtype)
    if taken.size:
        copy = _copy_values if len(array.shape) == 1 else _copy_rows
        blocks = len(rows) if len(array.shape) == 2 else -(-len(rows) // THREADS)
        copy[blocks, THREADS](array, on_gpu(rows, np.int64), taken)
    return taken


@cuda.jit
def _copy_rows(array: Any, rows: Any, taken: Any) -> None:
    """A block a row."""
    place = cuda.blockIdx.x
    for c in range(cuda.threadIdx.x, taken.shape[1], THREADS):
        taken[place, c] = array[rows[place], c]


@cuda.jit
def _copy_values(array: Any, rows: Any, taken: Any) -> None:
    place = cuda.grid(1)
    if place < taken.size:
        taken[place] = array[rows[place]]
