"""Progress with time left: a bar on a terminal, a plain line now and then elsewhere."""

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self, TextIO

from tqdm import tqdm

from alps.engine.base.stopping import raise_if_stopped

# Told of progress: the work in a word or two, what is done, and how much there is where known.
Watcher = Callable[[str, int, int | None], None]
SECONDS_BETWEEN_LINES = 10.0
# The rate behind "time left" looks back this many lines, about a minute: a slow first tile
# (warm-up, compilation) is forgotten and a change of pace is noticed.
LINES_LOOKED_BACK = 6


_watchers: list[Watcher] = []


@contextmanager
def watched(watcher: Watcher) -> Iterator[None]:
    """Let somebody else see meanwhile how far all pieces of work of this process are.

    It is called often, by the threads that do the work, and must not take long.
    """
    _watchers.append(watcher)
    try:
        yield
    finally:
        _watchers.remove(watcher)


_is_silent = False
_shown: "list[Progress]" = []  # those that are under way, the innermost last


@contextmanager
def silent() -> Iterator[None]:
    """Show no progress of this process: somebody else shows that of all."""
    global _is_silent
    before, _is_silent = _is_silent, True
    try:
        yield
    finally:
        _is_silent = before


def note(text: str) -> None:
    """Write a line of its own to stderr, above the bar of what is under way, if any."""
    for progress in _shown[-1:]:
        progress.note(text)
        return
    print(text, file=sys.stderr, flush=True)


class Progress:
    """Shows how far a piece of work is; may be advanced from several threads.

    Use it as a context manager. On a terminal it is a tqdm bar; otherwise a plain line with
    percentage and time left at most every `SECONDS_BETWEEN_LINES`, and one when the work ends,
    which also says where it stopped if an exception ended it. It writes to stderr, so that stdout
    stays free for results.
    """

    def __init__(
        self,
        total: int | None,
        unit: str,
        description: str,
        *,
        initial: int = 0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare to count.

        Args:
            total: how much there is to do; None where that is unknown.
            unit: what is counted, in the plural (``"tiles"``); ``"B"`` shows bytes as kB, MB, GB.
            description: the work in a word or two.
            initial: what an earlier run did already; it counts as done but not towards the rate.
            stream: where to write; None means stderr.
            clock: seconds that never go back; tests bring their own.
        """
        self.total = total
        self.unit = unit
        self.description = description
        self.done = initial
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._lock = threading.RLock()
        self._bar: tqdm | None = None
        self._samples: deque[tuple[float, int]] = deque(maxlen=LINES_LOOKED_BACK + 1)
        self._started = self._last_line = clock()

    def __enter__(self) -> Self:
        self._started = self._last_line = self._clock()
        self._samples.append((self._started, self.done))
        for watcher in _watchers:
            watcher(self.description, self.done, self.total)
        _shown.append(self)
        if not _is_silent and _is_terminal(self._stream):
            in_bytes = self.unit == "B"
            self._bar = tqdm(
                total=self.total,
                initial=self.done,
                desc=self.description,
                unit="B" if in_bytes else f" {self.unit}",
                unit_scale=in_bytes,
                file=self._stream,
                dynamic_ncols=True,
            )
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc_info: object) -> None:
        with self._lock:
            _shown.remove(self)
            if self._bar is not None:
                self._bar.close()
                self._bar = None
                return
            took = format_seconds(self._clock() - self._started)
            if kind is None:
                self._write(f"{self.description}: {self._amount()} in {took}")
            else:
                self._write(f"{self.description}: stopped at {self._amount()} after {took}")

    def advance(self, n: int = 1) -> None:
        """Count `n` more units as done; a signal that was lost on its way ends the work here."""
        raise_if_stopped()
        with self._lock:
            self.move_to(self.done + n)

    def move_to(self, done: int) -> None:
        """Set what is done; less than before means that work starts over."""
        with self._lock:
            step, self.done = done - self.done, done
            for watcher in _watchers:
                watcher(self.description, done, self.total)
            now = self._clock()
            if step < 0:
                # Time left comes from what was done since; the last line's time stays as it was,
                # so that work which starts over again and again does not fall silent.
                self._samples.clear()
                self._samples.append((now, done))
            if self._bar is not None:
                self._bar.update(step)
            elif now - self._last_line >= SECONDS_BETWEEN_LINES:
                self._write(self._line())
                self._samples.append((now, done))
                self._last_line = now

    def expect(self, total: int) -> None:
        """Set the total that was not known at the start."""
        with self._lock:
            self.total = total
            for watcher in _watchers:
                watcher(self.description, self.done, total)
            if self._bar is not None:
                self._bar.total = total
                self._bar.refresh()

    def note(self, text: str) -> None:
        """Write a line of its own, above the bar if there is one."""
        with self._lock:
            if self._bar is not None:
                self._bar.write(text, file=self._stream)
            else:
                self._write(text)

    def _write(self, text: str) -> None:
        if _is_silent:
            return
        self._stream.write(text + "\n")
        self._stream.flush()

    def _amount(self) -> str:
        scale, unit = _scale(self.total or self.done, self.unit)
        done = _number(self.done, scale)
        if self.total is None:
            return f"{done} {unit}"
        return f"{done} of {_number(self.total, scale)} {unit}"

    def _line(self) -> str:
        then, done_then = self._samples[0]
        rate = (self.done - done_then) / max(self._clock() - then, 1e-9)  # units a second
        speed, unit = _scale(rate, self.unit)
        parts = f"{self._amount()}, {rate / speed:.3g} {unit}/s"
        if self.total is None:
            return f"{self.description}: {parts}"
        percent = min(100, 100 * self.done // self.total) if self.total else 100
        if rate > 0:
            left = f"{format_seconds(max(0, self.total - self.done) / rate)} left"
        else:
            left = "time left unknown"
        return f"{self.description}: {percent} % ({parts}), {left}"


def format_seconds(seconds: float) -> str:
    """Write a duration as ``m:ss`` or ``h:mm:ss``, rounded to whole seconds."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def format_bytes(count: int) -> str:
    """Write a size with decimal prefixes: ``375.0 MB``."""
    scale, unit = _scale(count, "B")
    return f"{_number(count, scale)} {unit}"


def _is_terminal(stream: TextIO) -> bool:
    # A dumb terminal (Emacs, some CI consoles) shows each redraw of the bar as a new line, and
    # tqdm draws nothing in one that claims to have no columns or lines.
    if not stream.isatty() or os.environ.get("TERM") == "dumb":
        return False
    try:
        return min(os.get_terminal_size(stream.fileno())) > 0
    except OSError:  # no file behind it: whoever wrote the stream says that it is a terminal
        return True


def _scale(value: float, unit: str) -> tuple[int, str]:
    """Return the divisor and the unit's name that suit `value`."""
    if unit != "B":
        return 1, unit
    for power, prefix in ((9, "GB"), (6, "MB"), (3, "kB")):
        if value >= 10**power:
            return 10**power, prefix
    return 1, "B"


def _number(value: int, scale: int) -> str:
    return str(value) if scale == 1 else f"{value / scale:.1f}"
