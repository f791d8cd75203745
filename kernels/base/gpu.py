"""Where arrays lie, and how those on a GPU are handed to Numba's CUDA kernels without a copy.

``is_on_gpu`` loads no CUDA library; the others do, at their first call.
"""

import sys
from importlib.util import find_spec
from typing import Any

import numpy as np


def usable_gpu() -> bool:
    """Whether compiled kernels can run on a GPU here; the simulator is none."""
    try:
        from alps.kernels.base.numba_cuda import cuda, numba_config

        return not numba_config.ENABLE_CUDASIM and bool(cuda.is_available())
    except ImportError:  # numba-cuda comes with the extras cuda12 and cuda13
        return False


def is_on_gpu(array: Any) -> bool:
    """Whether an array lies on a GPU (CuPy, CUDA tensors of torch, Numba's), or in its simulator.

    Loads no CUDA library.
    """
    if isinstance(array, np.ndarray):
        return False
    # Arrays of Numba's simulator have no interface to hand out: they are known by their type.
    return hasattr(array, "__cuda_array_interface__") or type(array).__name__ == "FakeCUDAArray"


def on_gpu(array: Any, dtype: np.dtype | type | None = None) -> Any:
    """The array as Numba's, on the GPU.

    Args:
        array: NumPy's, copied there; or CuPy's, torch's or Numba's on a GPU, which keep their
            memory and their dtype.
        dtype: to which an array of NumPy's is brought on the way.

    Raises:
        ImportError: the CUDA kernels' package is not installed.
    """
    from alps.kernels.base.numba_cuda import cuda

    if not is_on_gpu(array):
        return cuda.to_device(np.ascontiguousarray(array, dtype))
    if hasattr(array, "copy_to_host"):  # Numba's own; the simulator's have no interface
        return array
    return cuda.as_cuda_array(array)


def on_host(array: Any) -> np.ndarray:
    """The array as NumPy's, copied from the GPU if it lies there."""
    return on_gpu(array).copy_to_host() if is_on_gpu(array) else np.asarray(array)


def triton_missing() -> str | None:
    """Why Triton kernels cannot run here, in a few words with what to do; None where they can.

    Loads no part of Triton.
    """
    if sys.platform != "linux":
        return "Triton has no wheels for this system"
    if find_spec("triton") is None:
        return "Triton is not installed; pip install 'triton>=3.6,<4'"
    return None
