"""A folder that appears whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from alps.engine.base.atomic import publish_folder, spare_name
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
    part, lock = (out.with_name(f".{out.name}.{end}") for end in ("part", "lock"))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock, timeout=0):
            _clean(out, part)
            part.mkdir()
            try:
                yield part
                publish_folder(part, out)
            finally:
                shutil.rmtree(part, ignore_errors=True)
    except Timeout:
        raise ArtefactError(f"{out}: another export is writing it; wait for it") from None
    except OSError as error:
        raise ArtefactError(
            f"cannot write {out}: {error.strerror or error}; check permissions and the space left"
        ) from error
    # Kept: whoever waits for a lock that is deleted holds another file than the next one.


def _clean(out: Path, part: Path) -> None:
    old = spare_name(out)
    shutil.rmtree(part, ignore_errors=True)
    if old.exists() and not out.exists():  # stopped between the two renames
        os.replace(old, out)
    shutil.rmtree(old, ignore_errors=True)
    if out.exists() and not out.is_dir():
        raise ArtefactError(f"{out}: a file; give a new folder as OUT")
    if out.is_dir() and any(out.iterdir()) and not (out / MANIFEST).is_file():
        raise ArtefactError(
            f"{out} is not empty and no exported model (it holds {next(out.iterdir()).name}); "
            "give a new or empty folder as OUT"
        )
