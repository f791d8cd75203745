"""Who is at work in a run folder, by the signs of life that processes leave there."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from alps.engine.telemetry.heartbeat import RUN, Heartbeat, heartbeats, is_gone

# Its last sign is recent, or it was seen; it was not for a while, on another machine; there is no
# such process on this one any more; it said itself that it ends, and why.
ALIVE, SILENT, DEAD, ENDED = "alive", "silent", "dead", "ended"
BEATS_MISSED = 4  # so many in a row, and a process is silent
EARLY_SECONDS = 2.0  # so much a file may be of the future, by clocks that agree
# Clocks that are wrong are so by hours, a time zone say; what is silent for longer is not doubted.
SKEW_SECONDS = 24 * 3600.0
STEP_SECONDS = 0.5


@dataclass(frozen=True)
class Process:
    """A process of a run, as its last sign of life shows it."""

    beat: Heartbeat
    state: str  # ALIVE, SILENT, DEAD or ENDED
    age: float  # seconds since that sign, by the file server's clock as far as it is known

    @property
    def is_run(self) -> bool:
        """Whether it holds the run, or a share of it, and does not work for such a one."""
        return self.beat.role == RUN


@dataclass(frozen=True)
class Clock:
    """Time, and waiting; tests bring their own."""

    now: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep


def processes_of(journal: Path, clock: Clock, *, is_patient: bool = True) -> list[Process]:
    """All processes that left signs of life and took none of them back.

    The age of a sign is told by the file's time, which a file server gives, against this machine's
    clock. Where these two may disagree, one beat is waited for.

    Args:
        journal: of the run folder.
        clock: of this machine.
        is_patient: whether to wait at all.
    """
    found = _look(journal, clock)
    doubted = [one for one in found if one.state == SILENT and one.age < SKEW_SECONDS]
    # One sign that is neither old nor of the future: the clocks agree, and the others are old.
    agrees = any(-EARLY_SECONDS <= one.age <= _patience(one.beat) for one in found)
    if not (is_patient and doubted) or (agrees and all(one.age > 0 for one in doubted)):
        return found
    before = {_key(one): one.beat.beat for one in doubted}
    end = clock.now() + max(one.beat.every for one in doubted) + 2 * STEP_SECONDS
    while clock.now() < end:
        clock.sleep(STEP_SECONDS)
        found = _look(journal, clock)
        if moved := {_key(o) for o in found if before.get(_key(o), o.beat.beat) != o.beat.beat}:
            return [Process(o.beat, ALIVE, 0.0) if _key(o) in moved else o for o in found]
    return found


def _look(journal: Path, clock: Clock) -> list[Process]:
    found = []
    for path, beat in heartbeats(journal):
        with suppress(OSError):
            age = clock.now() - os.stat(path).st_mtime
            found.append(Process(beat, _state(beat, age), age))
    return found


def _state(beat: Heartbeat, age: float) -> str:
    if beat.ended:
        return ENDED
    gone = is_gone(beat)
    if gone is not None:
        return DEAD if gone else ALIVE
    return ALIVE if -EARLY_SECONDS <= age <= _patience(beat) else SILENT


def _patience(beat: Heartbeat) -> float:
    return BEATS_MISSED * beat.every


def _key(process: Process) -> tuple[str, int, str]:
    return process.beat.host, process.beat.pid, process.beat.started
