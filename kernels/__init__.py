"""Numeric kernels: arrays in, arrays out. Knows no files, no models, no torch modules."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path


def can_write(folder: Path) -> bool:
    """Whether a folder is there and writable, or could be made."""
    for existing in (folder, *folder.parents):
        if existing.exists():
            return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
    return False


def provide_cache(places: Iterable[Path]) -> None:
    """Let Numba keep compiled code in a passing folder where it finds no lasting one.

    It looks into ``places``, and refuses to import code that wants a cache where none can be
    written: in a container whose user owns no folder, say.
    """
    if "NUMBA_CACHE_DIR" in os.environ or any(can_write(place) for place in places):
        return
    folder = tempfile.mkdtemp(prefix="alps-kernels-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["NUMBA_CACHE_DIR"] = folder


provide_cache(
    [
        Path(__file__).parent / "__pycache__",
        Path(os.environ.get("XDG_CACHE_HOME") or Path(os.path.expanduser("~"), ".cache")) / "numba",
    ]
)
