"""A folder that appears whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from alps.engine.base.errors import ArtefactError
from alps.engine.runtimes.artefact import MANIFEST


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Yield a folder beside ``out``, which takes its place when all went well.

    What an interrupted call left is removed first, and an artefact that it was about to replace
    is put back. Hidden names are never taken for artefacts.

    Raises:
        ArtefactError: ``out`` holds something else, cannot be written, or is being written.
    """
    out = out.absolute()
    part, old, lock = (out.with_name(f".{out.name}.{end}") for end in ("part", "old", "lock"))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock, timeout=0):
            _clean(out, part, old)
            part.mkdir()
            try:
                yield part
                _settle(part)
                _swap(part, out, old)
            finally:
                shutil.rmtree(part, ignore_errors=True)
    except Timeout:
        raise ArtefactError(f"{out}: another export is writing it; wait for it") from None
    except OSError as error:
        raise ArtefactError(
            f"cannot write {out}: {error.strerror or error}; check permissions and the space left"
        ) from error
    # Kept: whoever waits for a lock that is deleted holds another file than the next one.


def _clean(out: Path, part: Path, old: Path) -> None:
    shutil.rmtree(part, ignore_errors=True)
    if old.exists() and not out.exists():  # stopped between the two renames
        os.rename(old, out)
    shutil.rmtree(old, ignore_errors=True)
    if out.exists() and not out.is_dir():
        raise ArtefactError(f"{out}: a file; give a new folder as OUT")
    if out.is_dir() and any(out.iterdir()) and not (out / MANIFEST).is_file():
        raise ArtefactError(
            f"{out} is not empty and no exported model (it holds {next(out.iterdir()).name}); "
            "give a new or empty folder as OUT"
        )


def _settle(folder: Path) -> None:
    """Bring all that was written to the disk."""
    for path in [*sorted(folder.rglob("*")), folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _swap(part: Path, out: Path, old: Path) -> None:
    if out.exists():
        os.rename(out, old)
    os.rename(part, out)
    _settle_name(out.parent)
    shutil.rmtree(old, ignore_errors=True)


def _settle_name(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
