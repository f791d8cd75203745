"""BLAS inside the kernels' own threads."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

import scipy.linalg.cython_blas  # noqa: F401  (what np.dot calls in Numba; loaded to be limited)
from threadpoolctl import ThreadpoolController

# The limit is the process's, not a thread's: whoever comes first sets it, and whoever leaves last
# takes it back. Were each to restore what it found, one that came while another was inside would
# restore the limit itself, for good.
_lock = Lock()
_inside = 0
_before: list[tuple[Any, int]] = []  # the libraries, and how many threads each had
_controller: ThreadpoolController | None = None


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Context in which each call of BLAS keeps to its thread; several threads call it at once."""
    global _controller, _inside
    with _lock:
        if _controller is None:
            _controller = ThreadpoolController().select(user_api="blas")
        if _inside == 0:
            _before[:] = [(library, library.num_threads) for library in _controller.lib_controllers]
            for library, _ in _before:
                _limit(library, 1)
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                for library, number in _before:
                    _limit(library, number)


def _limit(library: Any, number: int) -> None:
    """Let a library of threadpoolctl's use so many threads, whichever thread of ours asks."""
    # From 3.8 on it listens to the thread that first set a limit and to no other, in silence: ours
    # need not be that one, nor is the one that leaves last the one that came first.
    release = getattr(library, "clear_controlling_thread", None)
    if release is not None:
        release(force=True)
    library.set_num_threads(number)
    if release is not None:
        release(force=True)
