"""Who may write to a run folder: one run, or several machines that share its tiles.

The kernel lets go of a lock when its process dies; none goes stale.
"""

import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from alps.engine.base.atomic import mirror_of
from alps.engine.base.errors import RunFolderError, SettingsError
from alps.engine.base.progress import format_seconds
from alps.engine.base.records import BadRecordError, Count, parse_record, read_small
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.inside import refuse_links
from alps.engine.telemetry.heartbeat import beating

# How long one machine waits for another to plan the run, which opens every source once.
PLANNING_SECONDS = 3600
PATIENCE = 0.5  # seconds: others look for a moment whether a lock is held
WHOLE = (0, 1)
NAMING = "lock-naming"


@dataclass(frozen=True)
class Holder:
    """Who holds a lock."""

    host: str
    pid: Count
    since: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


@contextmanager
def locked(
    folder: RunFolder, share: tuple[int, int] = WHOLE, room: str = "segments"
) -> Iterator[None]:
    """Hold the folder, which is made where it is not there, for this process.

    share: (i, n), this machine's of the shards. With n > 1 only that share is held, so that other
    machines can work on theirs; files that all of them write are written ``alone``. room: the
    folder inside it for what is made of each shard.

    Raises RunFolderError where another run holds it, it cannot be written, or has links to outside.
    """
    refuse_links(folder.root)
    machines = share[1]
    if machines > 1 and mirror_of(folder.root) is not None:
        raise SettingsError(
            "--shard is for an OUT that all machines see as a folder, and one in a store is held "
            "by one run at a time: leave --shard out, or give a folder"
        )
    _make(folder, room)
    name = "lock" if machines == 1 else _name_of(share)
    with _hold(folder, name):
        if machines == 1:
            for other in _shares_at_work(folder):
                raise _busy(folder, other)
        with beating(folder.journal, share):
            yield


@contextmanager
def alone_naming(folder: RunFolder) -> Iterator[None]:
    """Be the one process that shows the classes of a folder to people; others may write to it.

    Raises RunFolderError where another does, or it has links to outside.
    """
    refuse_links(folder.root)
    with _hold(folder, NAMING):
        yield


@contextmanager
def alone(folder: RunFolder, share: tuple[int, int]) -> Iterator[None]:
    """Hold a folder whose ``share`` is held as a whole, for a short time, after other machines.

    Where somebody else holds it, it is said on stderr for whom this process waits.
    """
    if share[1] == 1:  # held anyway
        yield
        return
    with _hold(folder, "lock", wait=PLANNING_SECONDS):
        yield


def settle_shares(folder: RunFolder, share: tuple[int, int]) -> None:
    """Note in run.json into how many shares the shards are divided; held ``alone``.

    Raises RunFolderError where others are at work on shares of another number: shards would be
    written by two at once.
    """
    machines = share[1]
    if machines == 1:
        return
    for other in _shares_at_work(folder, but=machines):
        number = other.rpartition("-")[2]
        raise RunFolderError(
            f"{folder.root} is being segmented in {number} shares ({_holder(folder, other)}), "
            f"and --shard {share[0] + 1}/{machines} would write some of the same shards; give "
            f"--shard i/{number}, or wait until those are done"
        )
    before = folder.read_run().get("machines")
    if before != machines:
        if before is not None:
            print(f"{folder.root}: {machines} shares from now on, {before} before", file=sys.stderr)
        folder.update_run(machines=machines)


def _shares_at_work(folder: RunFolder, but: int | None = None) -> Iterator[str]:
    """Names of the locks of shares that are held, those ``but`` of a number left alone."""
    for path in sorted(folder.journal.glob("lock-*-of-*")):
        if path.name.endswith(f"-of-{but}"):
            continue
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            yield path.name
        except OSError as error:
            raise _unwritable(folder.root, error) from error
        else:
            lock.release()


@contextmanager
def _hold(folder: RunFolder, name: str, wait: float = 0) -> Iterator[None]:
    lock = FileLock(folder.journal / name)
    try:
        lock.acquire(timeout=PATIENCE)
    except Timeout:
        if not wait:
            raise _busy(folder, name) from None
        _wait(folder, name, lock, wait)
    except OSError as error:
        raise _unwritable(folder.root, error) from error
    note = _note_of(folder, name)
    try:
        with suppress(OSError):  # for people alone
            since = datetime.now(UTC).isoformat(timespec="seconds")
            note.write_text(json.dumps(vars(Holder(socket.gethostname(), os.getpid(), since))))
        yield
    finally:
        with suppress(OSError):
            note.unlink()
        lock.release()


def _wait(folder: RunFolder, name: str, lock: FileLock, most: float) -> None:
    print(
        f"waiting for {_holder(folder, name)}, which holds {folder.root} "
        f"(for {format_seconds(most)} at most)",
        file=sys.stderr,
        flush=True,
    )
    try:
        lock.acquire(timeout=most)
    except Timeout:
        raise RunFolderError(
            f"another run holds {folder.root} as a whole: {_holder(folder, name)}; wait for it, or "
            "give another OUT"
        ) from None
    except OSError as error:
        raise _unwritable(folder.root, error) from error


def _busy(folder: RunFolder, name: str) -> RunFolderError:
    if name == NAMING:
        return RunFolderError(
            f"a page for naming {folder.root} is open already: {_holder(folder, name)}; use that "
            "one, or end it with Ctrl-C where it was started"
        )
    return RunFolderError(
        f"another run is writing to {folder.root}: {_holder(folder, name)}; wait for it, or give "
        "another OUT"
    )


def _holder(folder: RunFolder, name: str) -> str:
    """Who holds a lock, in words; what a killed process left tells of that one."""
    try:
        return str(parse_record(read_small(_note_of(folder, name)), Holder))
    except (OSError, BadRecordError):
        return "a process that did not say who it is"


def _note_of(folder: RunFolder, name: str) -> Path:
    return folder.journal / f"holder-of-{name}.json"


def _name_of(share: tuple[int, int]) -> str:
    return f"lock-{share[0] + 1}-of-{share[1]}"


def _make(folder: RunFolder, room: str) -> None:
    try:
        folder.journal.mkdir(parents=True, exist_ok=True)
        (folder.root / room).mkdir(exist_ok=True)
    except OSError as error:
        raise _unwritable(folder.root, error) from error


def _unwritable(root: Path, error: OSError) -> RunFolderError:
    return RunFolderError(
        f"cannot write to {root}: {error.strerror or error}; "
        "check the path, its permissions and the space left"
    )
