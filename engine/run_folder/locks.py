"""Who may write to a run folder: one run, or several machines that share its tiles.

The kernel lets go of a lock when its process dies; none goes stale.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from alps.engine.base.errors import RunFolderError
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.inside import refuse_links

# How long one machine waits for another to plan the run, which opens every source once.
PLANNING_SECONDS = 3600
WHOLE = (0, 1)


@contextmanager
def locked(folder: RunFolder, share: tuple[int, int] = WHOLE) -> Iterator[None]:
    """Hold the folder, which is made where it is not there, for this process.

    share: (i, n), this machine's of the shards. With n > 1 only that share is held, so that other
    machines can work on theirs; files that all of them write are written ``alone``.

    Raises RunFolderError where another run holds it, it cannot be written, or has links to outside.
    """
    refuse_links(folder.root)
    _make(folder)
    index, machines = share
    try:
        with _hold(folder, "lock" if machines == 1 else f"lock-{index + 1}-of-{machines}"):
            if machines == 1:
                for other in sorted(folder.journal.glob("lock-*-of-*")):
                    with _hold(folder, other.name):
                        pass
            yield
    except Timeout:
        raise RunFolderError(
            f"another run is writing to {folder.root}; wait for it, or give another OUT"
        ) from None


@contextmanager
def alone(folder: RunFolder, share: tuple[int, int]) -> Iterator[None]:
    """Hold a folder whose ``share`` is held as a whole, for a short time, after other machines."""
    if share[1] == 1:  # held anyway
        yield
        return
    try:
        with _hold(folder, "lock", wait=PLANNING_SECONDS):
            yield
    except Timeout:
        raise RunFolderError(
            f"another run holds {folder.root} as a whole; wait for it, or give another OUT"
        ) from None


@contextmanager
def _hold(folder: RunFolder, name: str, wait: float = 0) -> Iterator[None]:
    lock = FileLock(folder.journal / name)
    try:
        lock.acquire(timeout=wait)
    except Timeout:
        raise
    except OSError as error:
        raise _unwritable(folder.root, error) from error
    try:
        yield
    finally:
        lock.release()


def _make(folder: RunFolder) -> None:
    try:
        folder.journal.mkdir(parents=True, exist_ok=True)
        (folder.root / "segments").mkdir(exist_ok=True)
    except OSError as error:
        raise _unwritable(folder.root, error) from error


def _unwritable(root: Path, error: OSError) -> RunFolderError:
    return RunFolderError(
        f"cannot write to {root}: {error.strerror or error}; "
        "check the path, its permissions and the space left"
    )
