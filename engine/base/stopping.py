"""Ctrl-C, SIGTERM and SIGHUP end a command in order: what is open is closed, and the exit code is
128 + the signal's number, as shells count.

Python raises KeyboardInterrupt wherever the main thread happens to be. In some places it is lost:
Numba calls back into Python to box what a kernel returns and does not look for an exception
(SystemError instead), what is raised in a finaliser or in a callback from C is printed and
forgotten, and a library of C++ that looks into Python while it is imported, as torch does, ends the
process with a fault of memory. So a signal is noted first; it is raised where it can be, and noted
it is asked for wherever work is counted.
"""

import _thread
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

# Numba's compiled code calls this file and takes no exception from it; Python's own runs imports.
DEAF = (os.path.join("numba", "core", "serialize.py"), "<frozen importlib._bootstrap>")
AGAIN_SECONDS = 0.01
# `timeout` and batch systems send a signal twice, to the process and to its group; a person who
# has waited this long and presses again wants the end at once.
PATIENCE_SECONDS = 1.0
WORDS = {"SIGINT": "interrupted", "SIGTERM": "terminated", "SIGHUP": "hung up"}


class Stopped(BaseException):
    """Raised in the main thread by a signal that ends the command; no error, so no Exception."""


class Stopping:
    """The signals that end a command, and which of them came."""

    def __init__(self, names: Sequence[str]) -> None:
        """Listen to signals; those that are ignored (nohup) stay ignored."""
        self._process = os.getpid()
        self._came = 0.0  # when, on the monotonic clock
        self._is_raised = False
        self._is_over = False
        self.received: signal.Signals | None = None
        for name in names:
            number = getattr(signal, name, None)  # not every system has all of them
            if number is not None and signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._on_signal)

    @property
    def exit_code(self) -> int:
        """128 + the number of the signal that came; 0 where none did."""
        return 0 if self.received is None else 128 + self.received

    @property
    def text(self) -> str:
        """What a person should know of it."""
        word = WORDS["SIGINT" if self.received is None else self.received.name]
        return f"{word}; run the same command again to go on"

    def over(self) -> None:
        """The command is done: a signal that comes now ends the process without a word."""
        self._is_over = True

    def check(self) -> None:
        """Raise Stopped where a signal came; only the main thread stops for it."""
        if self.received and threading.current_thread() is threading.main_thread():
            self._is_raised = True
            raise Stopped

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a fork inherits the handler, and is none of ours
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
            return
        if self._is_over:
            os._exit(128 + number)
        if self.received is None:
            self.received = signal.Signals(number)
            self._came = time.monotonic()
        elif self._is_raised:
            if time.monotonic() - self._came > PATIENCE_SECONDS:
                # Safe at any moment: no file has its name before it is whole.
                os.write(2, f"\nalps: {self.text}\n".encode())
                os._exit(self.exit_code)
            return
        if _is_deaf(frame):
            # Not a threading.Thread: its start would be waited for, here.
            _thread.start_new_thread(self._send_again, ())
            return
        self._is_raised = True
        raise Stopped

    def _send_again(self) -> None:
        time.sleep(AGAIN_SECONDS)
        if self.received is None:
            return
        if sys.platform == "win32":  # where os.kill ends a process without asking it
            signal.raise_signal(self.received)
        else:  # whichever thread waits for the system is woken
            os.kill(self._process, self.received)


_now: Stopping | None = None


def listen(*, at_once: bool = False) -> Stopping:
    """From here on signals end this program as Stopping says; call it in the main thread.

    at_once: only Ctrl-C ends it in order, the others do as if nobody listened.
    """
    global _now
    _now = Stopping(["SIGINT"] if at_once else ["SIGINT", "SIGTERM", "SIGHUP"])
    return _now


def raise_if_stopped() -> None:
    """Raise Stopped where a signal came and was lost on its way; for where work is counted."""
    if _now is not None:
        _now.check()


@contextmanager
def children_without_ctrl_c() -> Iterator[None]:
    """Processes that are started here do not hear Ctrl-C, which a terminal sends to all of them:
    their parent decides, and says what there is to say. One that comes meanwhile is not lost.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _is_deaf(frame: FrameType | None) -> bool:
    """Whether an exception raised in ``frame`` would be lost."""
    while frame is not None:
        if frame.f_code.co_filename.endswith(DEAF):
            return True
        frame = frame.f_back
    return False
