"""BLAS inside the kernels' own threads."""

import scipy.linalg.cython_blas  # noqa: F401  (what np.dot calls in Numba; loaded to be limited)
from threadpoolctl import ThreadpoolController

_controller: ThreadpoolController | None = None


def one_blas_thread():  # noqa: ANN201  (threadpoolctl's own context manager)
    """Context in which each call of BLAS keeps to its thread; several threads call it at once."""
    global _controller
    if _controller is None:
        _controller = ThreadpoolController()
    return _controller.limit(limits=1, user_api="blas")
