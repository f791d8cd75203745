"""Threads for kernels that release the GIL.

Numba's own parallel loops are not used: two of its threading layers may not be entered from two
Python threads at once, and a pipeline does just that.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count as counter
from threading import Event, local

_limit: int | None = None


class _Inside(local):
    """Of a thread: whether it is at work on pieces of a ``spread``, and to how many it may."""

    pieces = False
    most: int | None = None


_inside = _Inside()
_pool: tuple[int, ThreadPoolExecutor] | None = None  # process id and pool: a fork has no threads


def threads() -> int:
    """How many threads kernels may use; the CPUs this process may run on unless set."""
    return _all_threads() if _inside.most is None else _inside.most


def _all_threads() -> int:
    """How many threads all kernels of the process may use."""
    if _limit is not None:
        return _limit
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def set_threads(number: int | None) -> None:
    """Use this many threads from now on; None: as many as there are CPUs.

    Raises:
        ValueError: the number is not positive.
    """
    global _limit, _pool
    if number is not None and number < 1:
        raise ValueError(f"{number} threads cannot run anything; give at least 1")
    _limit, _pool = number, None


@contextmanager
def at_most(number: int) -> Iterator[None]:
    """Kernels that this thread calls use so many threads: others have work of their own."""
    before, _inside.most = _inside.most, number
    try:
        yield
    finally:
        _inside.most = before


def spread(work: Callable[[int, int], None], count: int, grain: int = 1) -> None:
    """Call ``work(first, last)`` until [0, count) is done, from several threads at once.

    Args:
        work: must release the GIL for most of its time, and write to places of its own.
        count: number of items.
        grain: items handed out at a time; the last piece may be smaller.

    Called from within ``work`` it stays on that thread: the others are busy. Where no thread can be
    started, those that there are do all of it. After an exception in a piece no other is begun; it
    is raised here when those under way have ended.
    """
    pieces = -(-count // grain)
    workers = min(threads(), pieces) if not _inside.pieces else 1
    if workers <= 1:
        if count:
            work(0, count)
        return
    hand_out = counter()  # next() of it is atomic
    failed = Event()

    def until_done() -> None:
        _inside.pieces = True
        try:
            while (piece := next(hand_out)) < pieces and not failed.is_set():
                work(piece * grain, min(count, (piece + 1) * grain))
        except BaseException:
            failed.set()
            raise
        finally:
            _inside.pieces = False

    others = []
    try:
        for _ in range(workers - 1):
            others.append(_executor().submit(until_done))
    except RuntimeError:  # no thread can be started, for want of memory say: fewer do it too
        pass
    try:
        until_done()
    finally:
        # What has not begun finds nothing to do: waiting for it could wait for this very thread.
        failures = [other.exception() for other in others if not other.cancel()]
    for failure in failures:
        if failure is not None:
            raise failure


def _executor() -> ThreadPoolExecutor:
    global _pool
    if _pool is None or _pool[0] != os.getpid():
        _pool = os.getpid(), ThreadPoolExecutor(max(1, _all_threads() - 1), "alps-kernel")
    return _pool[1]
