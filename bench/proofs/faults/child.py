"""One command of ALPS in a process of its own that begins where all is imported.

A fork of a program that has imported the package, and computed nothing, costs milliseconds where a
new interpreter costs seconds: thousands of commands fit into an hour.
"""

import os
import resource
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from alps.engine.cli import main as program

# What commands import when they are called, imported once, before the first fork.
PRELOADED = (
    "alps.engine.clusters.assign",
    "alps.engine.demo.run",
    "alps.engine.report",
    "alps.engine.stages.fit_clusters",
    "alps.engine.stages.inspection",
    "alps.engine.stages.single",
)
for _name in PRELOADED:
    import_module(_name)

LOOK_SECONDS = 0.02  # between two looks whether a command has ended
MEMORY = 12 << 30  # bytes of address space: a runaway ends here, and not the machine


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    code: its exit code, minus a signal's number; None where it had to be killed.
    """

    arguments: tuple[str, ...]
    code: int | None
    said: str  # stdout and stderr together
    seconds: float

    @property
    def last_line(self) -> str:
        """What it said last."""
        return next((line for line in reversed(self.said.splitlines()) if line.strip()), "")


@dataclass(frozen=True)
class Limits:
    """What a command may take, and what is done to it."""

    seconds: float = 60.0
    memory: int = MEMORY
    # Seconds after the start, and signals, in order of time.
    signals: Sequence[tuple[float, int]] = ()


def run_alps(arguments: Sequence[str | Path], log: Path, limits: Limits | None = None) -> Ended:
    """Run ``alps ARGUMENTS``; what it says goes to the file ``log``."""
    limits = limits or Limits()
    given = tuple(str(argument) for argument in arguments)
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        _be_alps(given, log, limits.memory)
    status = _wait(child, began, limits)
    code = None if status is None else os.waitstatus_to_exitcode(status)
    said = log.read_text(encoding="utf-8", errors="replace")
    return Ended(given, code, said, time.monotonic() - began)


def _wait(child: int, began: float, limits: Limits) -> int | None:
    """The status a child ended with; None where its time was over."""
    signals = list(limits.signals)
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return status
        now = time.monotonic() - began
        while signals and signals[0][0] <= now:
            os.kill(child, signals.pop(0)[1])
        if now > limits.seconds:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(LOOK_SECONDS if not signals else min(LOOK_SECONDS, 0.002))


def _be_alps(arguments: tuple[str, ...], log: Path, memory: int) -> None:
    """Be the program, in a child; never returns."""
    code = 70
    try:
        os.setsid()
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        for stream in (1, 2):
            os.dup2(handle, stream)
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        sys.argv = ["alps", *arguments]
        program.main()
    except SystemExit as done:
        code = done.code if isinstance(done.code, int) else int(done.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
