"""CUDA versions of the kernels, in Numba; each is loaded when an array lies on a GPU."""

from typing import Any

import numpy as np


def is_on_gpu(array: Any) -> bool:
    """Whether an array lies on a GPU (CuPy, CUDA tensors of torch, Numba's), or in its simulator.

    Loads no CUDA library.
    """
    if isinstance(array, np.ndarray):
        return False
    # Arrays of Numba's simulator have no interface to hand out: they are known by their type.
    return hasattr(array, "__cuda_array_interface__") or type(array).__name__ == "FakeCUDAArray"
