"""Signs of life: a small file in a run's journal that each process at work writes anew, again and
again, so that others see how far it is without asking it.

It is gone after a good end. What stays tells how a process ended, or that it was killed; whoever
takes its place takes over what it had counted.
"""

import json
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from alps.engine.base.errors import AlpsError
from alps.engine.base.progress import watched
from alps.engine.base.records import BadRecordError, Count, parse_record, read_small
from alps.engine.telemetry.record import OTHER_REASONS, recorder

PATTERN = "alive-*.json"
EVERY_SECONDS = 5.0
MOST_BYTES = 1 << 16  # of a heartbeat
MOST_REASONS = 10
MOST_LETTERS = 300  # of a reason
# What a process is: one that holds a run, or a share of it, or one that works for such a one.
RUN, WORKER = "run", "worker"


@dataclass(frozen=True)
class Heartbeat:
    """A process at work in a run folder. Unknown keys are let pass; absent ones have a default."""

    host: str
    pid: Count
    role: str = RUN
    parent: Count = 0  # process that a worker works for
    share: tuple[Count, Count] = (1, 1)  # i of n
    command: str = ""  # as it was given
    folder: str = ""  # in which it was given
    place: str = ""  # where a number of a process means the same: start of the system, namespace
    born: str = ""  # when the system started it, by its own count
    started: str = ""  # UTC, by its own clock
    updated: str = ""
    beat: Count = 0
    every: float = EVERY_SECONDS
    stage: str = ""
    work: str = ""
    done: Count = 0
    total: Count | None = None
    rate: float | None = None  # of ``work`` a second
    silent: float = 0.0  # seconds since it went on
    tiles: dict[str, int] = field(default_factory=dict)  # by status, whose shards are on the disk
    pending: dict[str, int] = field(default_factory=dict)  # made, and not on the disk yet
    failed: dict[str, int] = field(default_factory=dict)  # of ``tiles``, by reason
    pending_failed: dict[str, int] = field(default_factory=dict)  # of ``pending``
    made: dict[str, int] = field(default_factory=dict)  # by this process alone, by status
    tile_seconds: dict[str, float] = field(default_factory=dict)
    memory_bytes: Count | None = None  # resident
    ended: str = ""  # why, where it was not in good order


@contextmanager
def beating(
    journal: Path, share: tuple[int, int] = (0, 1), role: str = RUN, parent: int = 0
) -> Iterator[None]:
    """Show in ``journal`` that this process is at work there, as long as it is.

    Args:
        journal: of the run folder.
        share: (i, n), of its shards; what earlier processes left of that share is taken over.
        role: RUN for whoever holds the run or a share of it, WORKER for who works for that one.
        parent: process id that a worker works for.
    """
    heart = _Heart(journal, share, role, parent)
    with watched(recorder.see):
        heart.start()
        try:
            yield
        except BaseException as error:
            heart.stop(_words(error))
            raise
        else:
            heart.stop()


def heartbeats(journal: Path) -> list[tuple[Path, Heartbeat]]:
    """All that can be read in a journal, by name; files may come and go meanwhile."""
    found = []
    with suppress(OSError), os.scandir(journal) as entries:
        names = sorted(one.name for one in entries if one.name.startswith("alive-"))
        for name in names:
            if not name.endswith(".json"):
                continue
            with suppress(OSError, BadRecordError):
                text = read_small(journal / name, MOST_BYTES)
                found.append((journal / name, parse_record(text, Heartbeat)))
    return found


def is_gone(beat: Heartbeat) -> bool | None:
    """Whether the process of a heartbeat is no more; None where that cannot be seen from here."""
    if not beat.place or beat.place != _place():
        return None
    return _born(beat.pid) != beat.born


class _Heart:
    """The thread behind ``beating``."""

    def __init__(self, journal: Path, share: tuple[int, int], role: str, parent: int) -> None:
        host = socket.gethostname()
        name = re.sub(r"[^A-Za-z0-9.-]", "_", host)[:64]
        self._path = journal / f"alive-{name}-{os.getpid()}.json"
        self._same = (share[0] + 1, share[1])
        self._known = Heartbeat(
            host,
            os.getpid(),
            role,
            parent,
            self._same,
            recorder.command,
            os.getcwd() if recorder.command else "",
            _place(),
            _born(os.getpid()),
            _now(),
        )
        self._beat = 0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="alps-heartbeat", daemon=True)

    def start(self) -> None:
        recorder.begin()
        if self._known.role == RUN:
            self._take_over()
        self._write()
        self._thread.start()

    def stop(self, why: str = "") -> None:
        """why: it ends; empty: all is well, and nothing is left to be told."""
        self._is_over.set()
        self._thread.join()
        snapshot = recorder.snapshot()
        if why and (snapshot.stage_seconds or snapshot.tiles):
            self._write(why)
        else:
            _remove(self._path)

    def _run(self) -> None:
        while not self._is_over.wait(EVERY_SECONDS):
            self._write()

    def _write(self, ended: str = "") -> None:
        now = recorder.snapshot()
        self._beat += 1
        values = asdict(self._known) | {
            "updated": _now(),
            "beat": self._beat,
            "every": EVERY_SECONDS,
            "stage": now.stage,
            "work": now.work,
            "done": now.done,
            "total": now.total,
            "rate": now.rate,
            "silent": round(now.silent, 3),
            "tiles": now.tiles,
            "pending": now.pending,
            "failed": commonest(now.failed),
            "pending_failed": commonest(now.pending_failed),
            "made": now.made,
            "tile_seconds": {name: round(value, 3) for name, value in now.tile_seconds.items()},
            "memory_bytes": memory_bytes(),
            "ended": ended,
        }
        part = self._path.with_name(f".{self._path.name}.part")
        # Not synced, and no error: it is for people alone, and comes again.
        with suppress(OSError):
            part.write_text(json.dumps(values) + "\n", encoding="utf-8")
            part.replace(self._path)

    def _take_over(self) -> None:
        """Count what earlier processes of this share made, and remove their signs of life.

        This process holds the share, so none of them is at work.
        """
        for path, beat in heartbeats(self._path.parent):
            if beat.share != self._same and self._same[1] > 1:
                continue
            recorder.take_over(beat.tiles, beat.failed)
            _remove(path)


def commonest(failed: dict[str, int], most: int = MOST_REASONS) -> dict[str, int]:
    """The commonest reasons, shortened, and how many others there were."""
    ordered = sorted(failed.items(), key=lambda one: (one[0] == OTHER_REASONS, -one[1], one[0]))
    found: dict[str, int] = {}
    for at, (reason, count) in enumerate(ordered):
        short = reason if len(reason) <= MOST_LETTERS else reason[:MOST_LETTERS].rstrip() + " …"
        name = short if at < most else OTHER_REASONS
        found[name] = found.get(name, 0) + count
    return found


def memory_bytes() -> int | None:
    """What this process has in memory; None where the system does not say."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


def _words(error: BaseException) -> str:
    if isinstance(error, AlpsError):
        text = " ".join(str(error).split())
        return text if len(text) <= MOST_LETTERS else text[:MOST_LETTERS].rstrip() + " …"
    if not isinstance(error, Exception):  # a signal
        return "interrupted"
    return f"a fault of this program: {type(error).__name__}"


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


def _now() -> str:
    return datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="seconds")


def _place() -> str:
    """Where numbers of processes mean the same as here; empty where that cannot be known."""
    if sys.platform == "win32":
        return ""
    if not sys.platform.startswith("linux"):
        return socket.gethostname()
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return ""


def _born(pid: int) -> str:
    """When the system started a process; empty where there is none of that number.

    Elsewhere than on Linux only whether there is one, on Windows not even that.
    """
    if sys.platform.startswith("linux"):
        try:
            text = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return ""
        fields = text.rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]  # state, and field 22 of proc(5)
    if sys.platform == "win32":  # where signal 0 is Ctrl-C, which would be sent
        return ""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except OSError:
        pass
    return "there"
