"""Checksums of what a run has written, and the question whether it still is what was written.

journal/sums-NNNNN.jsonl has a line for each file of that shard, and of the group of sources that
begins in it; journal/sums.jsonl for the rest. The last line of a file counts. Label maps have
theirs in journal/painted.jsonl. Files of older versions have none, and are taken as they are.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from alps.engine.base.atomic import whole
from alps.engine.base.digests import file_sha256
from alps.engine.base.errors import RunFolderError
from alps.engine.base.lines import append_line, open_journal, read_lines
from alps.engine.base.records import Count, Name, Sha256
from alps.engine.run_folder.folder import RunFolder

CHECKED_MOST = 1 << 16  # files that are remembered as checked by this process
_NUMBERED = re.compile(r".*-(\d{5,9})\.(?:parquet|npy)")
_checked: dict[Path, tuple[int, int]] = {}


@dataclass(frozen=True)
class FileSum:
    """What a file was when it was written."""

    file: Name  # its path below OUT, with slashes
    bytes: Count
    sha256: Sha256


def sum_of(folder: RunFolder, path: Path) -> FileSum:
    """Of a file as it is now. Raises OSError."""
    name = path.relative_to(folder.root).as_posix()
    return FileSum(name, path.stat().st_size, file_sha256(path))


def sums_of(folder: RunFolder, paths: Iterable[Path]) -> tuple[FileSum, ...]:
    """Of files that were just written. Raises RunFolderError where one cannot be read."""
    try:
        return tuple(sum_of(folder, path) for path in paths)
    except OSError as error:
        raise RunFolderError(
            f"cannot read what was just written to {folder.root}: {error.strerror or error}; check "
            "the disk, then run the same command again"
        ) from error


def record(folder: RunFolder, path: Path, number: int | None = None) -> None:
    """Note a file that has just got its name.

    number: of its shard or group; None: that in its own name, if any.

    Raises RunFolderError where the journal cannot be written.
    """
    try:
        found = sum_of(folder, path)
        with open_journal(folder.sums(_number(path, number))) as file:
            append_line(file, vars(found))
        _remember(path)
    except OSError as error:
        raise RunFolderError(
            f"cannot write to {folder.journal}: {error.strerror or error}; check permissions and "
            "the space left, then run the same command again"
        ) from error


def known_sums(folder: RunFolder, number: int | None) -> dict[str, FileSum]:
    """What a journal says of its files, by their names."""
    path = folder.sums(number)
    try:
        status = path.stat()
    except OSError:
        return {}
    return _sums_in(path, status.st_size, status.st_mtime_ns)


def is_whole(folder: RunFolder, path: Path, number: int | None = None) -> bool:
    """Whether a file is there with all of its bytes; its content is checked when it is read."""
    try:
        size = path.stat().st_size
    except OSError:
        return False
    known = _known(folder, path, number)
    return size > 0 if known is None else size == known.bytes


def is_right(folder: RunFolder, path: Path, number: int | None = None) -> bool:
    """Whether a file is there and what was written, by its SHA-256."""
    try:
        refuse_damaged(path, number, folder)
    except RunFolderError:
        return False
    return path.exists()


def refuse_damaged(path: Path, number: int | None = None, folder: RunFolder | None = None) -> bool:
    """Raise RunFolderError for a file that is not what was written; once a process it is hashed.

    Returns whether it has a checksum.

    Args:
        path: of a file; one that is not there is left to whoever reads it.
        number: of its shard or group; None: that in its own name, if any.
        folder: that it lies in; None: the one that it seems to lie in.
    """
    folder = folder or folder_of(path)
    known = None if folder is None else _known(folder, path, number)
    if folder is None or known is None:
        return False
    refuse_changed(folder, path, known)
    return True


def refuse_changed(folder: RunFolder, path: Path, known: FileSum) -> None:
    """Raise RunFolderError for a file that is there and is not what ``known`` says of it."""
    try:
        status = path.stat()
        stamp = status.st_size, status.st_mtime_ns
        if _checked.get(path) == stamp:
            return
        if status.st_size != known.bytes:
            raise folder.damaged(path, f"it has {status.st_size} bytes, not {known.bytes}")
        if file_sha256(path) != known.sha256:
            raise folder.damaged(path, "its SHA-256 is not that of what was written")
    except FileNotFoundError:
        return
    except OSError as error:
        raise folder.damaged(path, error.strerror or str(error)) from error
    _remember(path)


def folder_of(path: Path) -> RunFolder | None:
    """The run folder in which a table lies; None where it is in none."""
    for root in path.parents[:2]:
        if (root / "journal").is_dir():
            return RunFolder(root)
    return None


def forget_sums(folder: RunFolder, number: int | None, below: str) -> None:
    """Leave files out of a journal whose names begin with ``below``; they are made anew."""
    known = known_sums(folder, number)
    kept = [found for name, found in known.items() if not name.startswith(below)]
    if len(kept) == len(known):
        return
    with whole(folder.sums(number)) as part, open(part, "wb") as file:
        for found in kept:
            append_line(file, vars(found))


def _known(folder: RunFolder, path: Path, number: int | None) -> FileSum | None:
    try:
        name = path.relative_to(folder.root).as_posix()
    except ValueError:
        return None
    return known_sums(folder, _number(path, number)).get(name)


def _number(path: Path, number: int | None) -> int | None:
    if number is not None:
        return number
    found = _NUMBERED.fullmatch(path.name)
    return int(found[1]) if found else None


def _remember(path: Path) -> None:
    if len(_checked) >= CHECKED_MOST:
        _checked.clear()
    status = path.stat()
    _checked[path] = status.st_size, status.st_mtime_ns


@lru_cache(maxsize=256)
def _sums_in(path: Path, size: int, changed_ns: int) -> dict[str, FileSum]:
    try:
        return {found.file: found for found in read_lines(path, FileSum) if found is not None}
    except OSError as error:
        raise RunFolderError(f"cannot read {path}: {error.strerror or error}") from error
