"""Files on the disk before GDAL sees them: what is no image, and what lies beside one."""

import os
import stat
import time
from functools import lru_cache
from pathlib import Path

from alps.engine.base.errors import SourceAwayError, SourceError, printable
from alps.engine.images.references import is_service, read_head

# What the makers of scenes deliver beside them has names of all kinds.
METADATA = (".xml", ".txt", ".imd", ".rpb", ".pvl", ".eph", ".pass")
STATISTICS = ".aux.xml"  # GDAL's own, which has its image's name
OVERVIEWS_AND_MASKS = (".ovr", ".msk")  # GDAL opens them with any driver
# Times of files are as coarse on many systems: another change may bear the same one.
TICK_NS = 50_000_000


def check_file(path: str | Path) -> None:
    """Say plainly what GDAL would say badly, or wait for. Raises SourceError."""
    shown = printable(path)
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SourceAwayError(f"Cannot open {shown}: {reason}. Check the path.") from error
    if stat.S_ISDIR(status.st_mode):
        raise SourceError(
            f"Cannot open {shown}: it is a folder, not an image (or may not be read)."
        )
    if not stat.S_ISREG(status.st_mode):
        raise SourceError(f"Cannot open {shown}: it is a pipe or a device, not a file.")
    if status.st_size == 0:
        raise SourceError(f"Cannot open {shown}: the file is empty (0 bytes). Copy it again.")


def check_there(path: str | Path) -> None:
    """Raise SourceAwayError for a file that is away, or on a disk that does not answer.

    What cannot be read for another reason is damaged, and stays so.
    """
    check_file(path)
    try:
        with open(path, "rb") as file:
            file.seek(-1, os.SEEK_END)
            file.read(1)
    except OSError as error:
        raise SourceAwayError(
            f"Cannot read {printable(path)}: {error.strerror or error}. Is its disk well?"
        ) from error


def check_beside(path: str) -> None:
    """Raise SourceError for a file beside an image that GDAL would open for it, and should not."""
    folder, name = os.path.split(path)
    stem = os.path.splitext(name)[0]
    for pipe in _pipes(folder, _changed(folder)):
        low = pipe.lower()
        is_anyones = low.endswith(METADATA) and not low.endswith(STATISTICS)
        if pipe.startswith(stem) or is_anyones:
            raise SourceError(
                f"Cannot open {printable(path)}: {printable(pipe)} beside it is a pipe, which may "
                "never say anything. Remove it."
            )
    for ending in OVERVIEWS_AND_MASKS:
        beside = path + ending
        if os.path.isfile(beside) and is_service(read_head(beside)):
            raise SourceError(
                f"Cannot open {printable(path)}: {printable(name + ending)} beside it is no image. "
                "Remove it."
            )


def _changed(folder: str) -> int:
    """When a folder last got or lost a file: a moment ago means now; 0 where it cannot be told."""
    try:
        changed, now = os.stat(folder or ".").st_mtime_ns, time.time_ns()
    except OSError:
        return 0
    return changed if now - changed > TICK_NS else now


@lru_cache(maxsize=256)
def _pipes(folder: str, changed: int) -> tuple[str, ...]:
    """Names of a folder's pipes; it is listed once while it stays as it is, however many images it
    has.
    """
    try:
        with os.scandir(folder or ".") as entries:
            return tuple(entry.name for entry in entries if _is_pipe(entry))
    except OSError:  # may not be listed; what it holds can be opened all the same
        return ()


def _is_pipe(entry: os.DirEntry[str]) -> bool:
    try:
        if entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False):
            return False  # known from the listing
        return stat.S_ISFIFO(os.stat(entry.path).st_mode)
    except OSError:  # a link to nowhere
        return False
