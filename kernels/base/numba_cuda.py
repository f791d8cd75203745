"""Numba's CUDA target, set up once; every CUDA kernel takes ``cuda`` from here."""

from typing import Any

import numpy as np

try:
    import numba.cuda
except ImportError as error:  # numba-cuda replaces a target that newer Numba has no more
    raise ImportError(
        "arrays on a GPU need Numba's CUDA target: pip install 'alps-engine[cuda12]' or "
        "'alps-engine[cuda13]', whichever fits the driver"
    ) from error

numba_config: Any = numba.config
cuda: Any = numba.cuda  # the simulator, a GPU's target and its stubs differ in what they declare

# A tile's few masks are few blocks; each place where that is so would be warned of once.
numba_config.CUDA_LOW_OCCUPANCY_WARNINGS = 0
# numba-cuda up to 0.30 compiles nothing without this name, which NumPy 2.5 gave up.
if not hasattr(np, "row_stack"):
    np.row_stack = np.vstack


def in_simulator(array: np.ndarray) -> Any:
    """An array of NumPy's, of any strides, as the simulator's kernels take it: in place."""
    from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray

    return FakeCUDAArray(array)
