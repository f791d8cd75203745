"""Nothing outside OUT is written, moved or removed, whatever a run folder says that somebody sent.

Names of label maps are read from files, and folders can be links; both could lead elsewhere.
"""

import os
from pathlib import Path, PurePosixPath

from alps.engine.base.errors import RunFolderError


def path_inside(root: Path, room: str, name: str) -> Path:
    """``root``/``room``/``name``, where a file said the name.

    Raises RunFolderError where that does not lie below ``root``/``room``, by its name or by a link.
    """
    parts = PurePosixPath(name).parts
    if not parts or parts[0] == "/" or ".." in parts or "\0" in name:
        raise RunFolderError(
            f"{root} says that a file of it is called {name!r}, which lies outside {root / room}; "
            "the folder was tampered with: label SRC into another OUT"
        )
    path = root / room / name
    # The last part may be a link: files are replaced, never written through.
    if not _leads_inside(path.parent, root):
        raise _linked(root, path.parent)
    return path


def refuse_links(root: Path) -> None:
    """Raise RunFolderError where a file or folder that a run writes is a link to outside."""
    try:
        top = [path for path in root.iterdir() if path.is_symlink()]
        journal = [path for path in (root / "journal").glob("*") if path.is_symlink()]
    except OSError:  # not there, or may not be listed: whoever writes says so
        return
    for path in (*top, *journal):
        if not _leads_inside(path, root):
            raise _linked(root, path)


def _leads_inside(path: Path, root: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))


def _linked(root: Path, path: Path) -> RunFolderError:
    return RunFolderError(
        f"{path} is a link that leads out of {root}, and nothing is written there; put a real "
        "folder or file in its place"
    )
