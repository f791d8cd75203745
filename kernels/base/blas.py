"""BLAS inside the kernels' own threads."""

import mmap
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

import scipy.linalg.cython_blas  # noqa: F401  (what np.dot calls in Numba; loaded to be limited)
from threadpoolctl import ThreadpoolController

from alps.kernels.base.threads import threads

BUFFER = 64 << 20  # bytes of address space that OpenBLAS takes for each thread that calls it

# The limit is the process's, not a thread's: whoever comes first sets it, and whoever leaves last
# takes it back. Were each to restore what it found, one that came while another was inside would
# restore the limit itself, for good.
_lock = Lock()
_inside = 0
_before: list[tuple[Any, int]] = []  # the libraries, and how many threads each had
_controller: ThreadpoolController | None = None


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Context in which each call of BLAS keeps to its thread; several threads call it at once.

    Raises MemoryError where its buffers would not fit into a limited address space.
    """
    global _controller, _inside
    refuse_without_room((threads() + 1) * BUFFER)
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


def refuse_without_room(needed: int) -> None:
    """Raise MemoryError where fewer bytes are left of a limited address space (``ulimit -v``).

    OpenBLAS asks for its buffers again and again, for minutes, and then ends the process.
    """
    limit = _address_space()
    if limit is None:
        return
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * mmap.PAGESIZE
    if used + needed > limit:
        raise MemoryError(
            f"{(limit - used) >> 20} MB are left of the address space of {limit >> 20} MB that "
            f"ulimit -v allows, and BLAS may need {needed >> 20}"
        )


def _address_space() -> int | None:
    """Bytes that the process may map; None where there is no limit, or none to be known."""
    if not sys.platform.startswith("linux"):
        return None
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


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
