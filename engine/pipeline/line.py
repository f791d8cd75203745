"""A line of stages that overlap in time: wall time is the slowest stage's, not the sum of all.

Items enter in order and leave in order, whichever of a stage's threads is done first. What waits
between two stages is bounded, so memory is a few items, whatever their number.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, Self

from alps.engine.base.stopping import raise_if_stopped

LOOK_SECONDS = 0.1  # whoever waits looks so often whether what it waits for will never come


class Over(BaseException):
    """Raised in a thread of a line that has ended: nobody waits for what it makes."""


@dataclass(frozen=True)
class Stage:
    """What is done with each item; several threads do it with items of their own."""

    name: str
    work: Callable[[Any], Any]  # must not change what other threads use
    threads: int = 1
    ahead: int = 1  # results that may wait for the next stage, beside those that are being made


@dataclass(frozen=True)
class Slots:
    """Room for so many items from the beginning of one stage to the end of another."""

    first: str
    last: str
    count: int


@dataclass
class _Link:
    """What waits for a stage."""

    waiting: dict[int, Any] = field(default_factory=dict)  # by number; not always in order
    taken: int = 0  # how many the stage has taken: the number of the next one


class _Here(threading.local):
    """The line that this thread works for."""

    line: "Line | None" = None


_here = _Here()


def raise_if_over() -> None:
    """Raise Over where this thread works for a line that has ended; for work that takes long."""
    line = _here.line
    if line is not None and line.has_ended:
        raise Over


class Line:
    """Stages, one after the other, each with threads of its own. A context manager.

    Iterating gives the last stage's results, in the order of ``items``. An exception in ``items``
    or a stage ends the line at once: nothing new is begun, and it is raised where the line is
    iterated. At the end of the context all threads have ended, whatever came of it.

    Args:
        items: iterated by a thread of its own, as far ahead as there is room.
        stages: at least one.
        slots: further bounds; a device has room for two batches, say.
    """

    def __init__(
        self, items: Iterable[Any], stages: Sequence[Stage], slots: Sequence[Slots] = ()
    ) -> None:
        self._items, self._stages = items, stages
        place = {stage.name: number for number, stage in enumerate(stages)}
        self._slots = [(place[one.first], place[one.last], one.count) for one in slots]
        self._links = [_Link() for _ in range(len(stages) + 1)]
        self._made = [0] * len(stages)  # how many results each stage has made
        self._fed = 0  # items that have entered
        self._total: int | None = None  # of them, once it is known
        self._failure: BaseException | None = None
        self.has_ended = False
        # The main thread takes the lock itself, and never waits for the condition: a signal that
        # is raised inside of Python's own code for conditions would leave the lock taken.
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._news: SimpleQueue[None] = SimpleQueue()  # for whoever iterates
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        try:
            self._start("feed", self._feed)
            for number, stage in enumerate(self._stages):
                for _ in range(stage.threads):
                    self._start(stage.name, self._run, number)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        with self._lock:
            self.has_ended = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def __iter__(self) -> Iterator[Any]:
        link = self._links[-1]
        while link.taken != self._total or link.waiting:
            raise_if_stopped()
            raise_if_over()  # of another line, that this one feeds
            with self._lock:
                if self._failure is not None:
                    raise self._failure
                is_there = link.taken in link.waiting
                if is_there:
                    result = link.waiting.pop(link.taken)
                    link.taken += 1
                    self._changed.notify_all()
            if is_there:
                yield result
                del result  # while the next one is waited for
            elif link.taken != self._total:
                with suppress(Empty):
                    self._news.get(timeout=LOOK_SECONDS)

    def _start(self, name: str, work: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(
            target=self._guarded, args=(work, *arguments), name=f"alps-{name}"
        )
        thread.start()
        self._threads.append(thread)

    def _guarded(self, work: Callable[..., None], *arguments: Any) -> None:
        _here.line = self
        try:
            work(*arguments)
        except Over:
            pass
        except BaseException as error:
            with self._lock:
                if self._failure is None:
                    self._failure = error
                self.has_ended = True
                self._changed.notify_all()
        finally:
            self._news.put(None)

    def _feed(self) -> None:
        link = self._links[0]
        for item in self._items:
            with self._lock:
                self._wait(lambda: self._fed - link.taken < self._stages[0].threads)
                link.waiting[self._fed] = item
                self._fed += 1
                self._changed.notify_all()
        with self._lock:
            self._total = self._fed
            self._changed.notify_all()

    def _run(self, stage: int) -> None:
        source, target = self._links[stage], self._links[stage + 1]
        while True:
            with self._lock:
                self._wait(lambda: self._may_take(stage) or source.taken == self._total)
                if source.taken == self._total:
                    return
                number = source.taken
                item = source.waiting.pop(number)
                source.taken += 1
                self._changed.notify_all()
            result = self._stages[stage].work(item)
            del item  # what is large goes when it is not needed, not when the next one comes
            with self._lock:
                self._made[stage] += 1
                target.waiting[number] = result
                del result
                self._changed.notify_all()
            self._news.put(None)

    def _may_take(self, stage: int) -> bool:
        """Whether the next item is there for a stage, and room for it and its result."""
        source, target, own = self._links[stage], self._links[stage + 1], self._stages[stage]
        return (
            source.taken in source.waiting
            and source.taken - target.taken < own.threads + own.ahead
            and all(
                source.taken - self._made[last] < count
                for first, last, count in self._slots
                if first == stage
            )
        )

    def _wait(self, is_so: Callable[[], bool]) -> None:
        """Wait, with the lock held, until something is so. Raises Over."""
        while not self.has_ended and not is_so():
            self._changed.wait()
        if self.has_ended:
            raise Over
