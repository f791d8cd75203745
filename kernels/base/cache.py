"""Where Numba keeps compiled code: a folder of its own for each state of the kernels' sources.

Numba compares a function's own file with what it was compiled from, and not those whose functions
it calls: after an edit of a helper, or a `git pull`, it would go on with the old one. So the
folder's name is a digest of all of ``kernels/``.
"""

import atexit
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

KERNELS = Path(__file__).parents[1]
VARIABLE = "NUMBA_CACHE_DIR"  # Numba reads it when it is first imported


def lasting_places() -> list[Path]:
    """Folders for compiled code, the first that can be written is taken: beside the sources, or
    the user's cache.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path(os.path.expanduser("~"), ".cache"))
    return [KERNELS / "__pycache__", cache / "alps"]


def source_digest(folder: Path = KERNELS) -> str:
    """Of all Python files in a folder, their names and bytes: 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(folder).as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]


def can_write(folder: Path) -> bool:
    """Whether a folder is there and writable, or could be made."""
    for existing in (folder, *folder.parents):
        if existing.exists():
            return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
    return False


def provide_cache(places: Iterable[Path] | None = None) -> Path:
    """Name Numba the folder in which it keeps compiled code, and return it.

    It lies in what NUMBA_CACHE_DIR names, else in the first of ``places`` that can be written
    (None: ``lasting_places()``), else in a passing one: in a container whose user owns no folder,
    Numba refuses to import code that wants a cache.
    """
    name = f"kernels-{source_digest()}"
    chosen: str | Path | None = os.environ.get(VARIABLE)
    if not chosen:
        places = lasting_places() if places is None else places
        chosen = next((place for place in places if can_write(place)), None)
    if chosen is None:
        chosen = tempfile.mkdtemp(prefix="alps-kernels-")
        atexit.register(shutil.rmtree, chosen, ignore_errors=True)
    # It is named already where the process that started this one did so.
    folder = Path(chosen) if Path(chosen).name == name else Path(chosen, name)
    os.environ[VARIABLE] = str(folder)
    numba_config: Any = sys.modules.get("numba.core.config")
    if numba_config is not None:  # imported before us, it has read the variable
        numba_config.CACHE_DIR = str(folder)
    return folder
