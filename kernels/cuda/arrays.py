"""Hand arrays over to Numba's CUDA kernels, without a copy where they are on the GPU already."""

from typing import Any

import numpy as np
from numba import config, cuda

from alps.kernels.cuda import is_on_gpu

# A tile's few masks are few blocks; each place where that is so would be warned of once.
config.CUDA_LOW_OCCUPANCY_WARNINGS = 0
# numba-cuda up to 0.30 compiles nothing without this name, which NumPy 2.5 gave up.
if not hasattr(np, "row_stack"):
    np.row_stack = np.vstack


def on_gpu(array: Any, dtype: np.dtype | type | None = None) -> Any:
    """The array as Numba's, on the GPU.

    Args:
        array: NumPy's, copied there; or CuPy's, torch's or Numba's on a GPU, which keep their
            memory and their dtype.
        dtype: to which an array of NumPy's is brought on the way.
    """
    if not is_on_gpu(array):
        return cuda.to_device(np.ascontiguousarray(array, dtype))
    if hasattr(array, "copy_to_host"):  # Numba's own; the simulator's have no interface
        return array
    return cuda.as_cuda_array(array)


def on_host(array: Any) -> np.ndarray:
    """The array as NumPy's, copied from the GPU if it lies there."""
    return on_gpu(array).copy_to_host() if is_on_gpu(array) else np.asarray(array)
