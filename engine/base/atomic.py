"""Files that are whole or not there: written beside their name, synced, renamed.

A folder may have a mirror elsewhere, which learns of each file before it gets its name.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from alps.engine.base.errors import RunFolderError


class Mirror(Protocol):
    """Where the files of a folder are kept too. Its calls may come from several threads."""

    def put(self, content: Path, path: Path) -> None:
        """Take a written file, that is about to be called ``path``."""
        ...

    def appended(self, path: Path) -> None:
        """Take note that lines were added to a file."""
        ...

    def removed(self, path: Path) -> None:
        """Take note that a file, or a folder with all that is in it, is about to be deleted."""
        ...


_mirrors: dict[Path, Mirror] = {}


@contextmanager
def mirrored(root: Path, mirror: Mirror) -> Iterator[None]:
    """Let ``mirror`` follow what is done with files below ``root`` by the functions here."""
    _mirrors[root] = mirror
    try:
        yield
    finally:
        del _mirrors[root]


def mirror_of(path: Path) -> Mirror | None:
    """The mirror of the folder that a file lies in; None where that has none.

    Nor has a file in a folder with a dot, which is written there and gets its name as a whole.
    """
    for root, mirror in _mirrors.items():
        if path.is_relative_to(root):
            inside = path.relative_to(root).parent.parts
            return None if any(part.startswith(".") for part in inside) else mirror
    return None


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path; what was written there gets its name when all went well."""
    part = path.with_name(f".{path.name}.part")
    try:
        clear(part)
        yield part
        publish(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise RunFolderError(
            f"cannot write {path}: {error.strerror or error}; "
            "check permissions and the space left, then run the same command again"
        ) from error
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def clear(part: Path) -> None:
    """Remove what a killed process left, or a link in its place: no file is written through it."""
    part.unlink(missing_ok=True)


def publish(part: Path, path: Path) -> None:
    """Give a written file, on the same file system, its name; it lasts through a power cut."""
    with open(part, "rb+") as file:
        os.fsync(file.fileno())
    if mirror := mirror_of(path):
        mirror.put(part, path)
    os.replace(part, path)
    sync_folder(path.parent)


def move(path: Path, target: Path) -> None:
    """Give a file another name in its folder, in the place of one that has it."""
    if mirror := mirror_of(path):
        mirror.put(path, target)
        mirror.removed(path)
    os.replace(path, target)
    sync_folder(target.parent)


def publish_folder(part: Path, path: Path) -> None:
    """Give a written folder its name, as ``place_folder``; it lasts through a power cut."""
    for found in sorted(part.rglob("*")):
        if found.is_dir():
            sync_folder(found)
        else:
            with open(found, "rb+") as file:
                os.fsync(file.fileno())
    place_folder(part, path)


def place_folder(part: Path, path: Path) -> None:
    """Give a folder whose files are synced its name; one that has it makes room until that is done.

    Both are on one file system. A process that is killed in between leaves the older one as
    ``spare_name(path)``.
    """
    sync_folder(part)
    spare = spare_name(path)
    shutil.rmtree(spare, ignore_errors=True)
    if path.exists():
        os.replace(path, spare)
    os.replace(part, path)
    sync_folder(path.parent)
    if mirror := mirror_of(path):
        if spare.exists():
            mirror.removed(path)
        # What leads to the others comes last.
        for found in sorted(path.rglob("*"), key=lambda found: (-len(found.parts), found)):
            if found.is_file():
                mirror.put(found, found)
    shutil.rmtree(spare, ignore_errors=True)


def spare_name(path: Path) -> Path:
    """Where a folder lies while another takes its name."""
    return path.with_name(f".{path.name}.old")


def remove(path: Path) -> None:
    """Delete a file, where there is one. Raises RunFolderError where that cannot be."""
    if mirror := mirror_of(path):
        mirror.removed(path)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ENOTDIR):  # where nothing can be
            return
        raise RunFolderError(
            f"cannot remove {path}: {error.strerror or error}; check its permissions, or remove it "
            "by hand where it is a folder"
        ) from error


def remove_folder(path: Path) -> None:
    """Delete a folder with all that is in it, as far as that can be."""
    if mirror := mirror_of(path):
        mirror.removed(path)
    shutil.rmtree(path, ignore_errors=True)


def move_folder(path: Path, to: Path) -> None:
    """Give a folder another name on its file system, which lasts through a power cut."""
    if mirror := mirror_of(to):
        for found in sorted(path.rglob("*")):
            if found.is_file():
                mirror.put(found, to / found.relative_to(path))
        mirror.removed(path)
    os.rename(path, to)
    sync_folder(to.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename last through a power cut; some file systems know no such thing."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write a small file whole or not at all."""
    with whole(path) as part:
        part.write_text(text, encoding="utf-8")
