"""``njit`` as kernels use it: Numba's, with a cache that several processes may fill at once.

Numba numbers the files of a function's signatures by what its index says, and reads and writes that
index without a lock: of two processes that compile two signatures at once, one may later find the
other's code under its own, and runs it. Here there is no index: a file's name is a digest of all
that it was compiled for, so whoever writes it writes the same.
"""

import hashlib
import pickle
from collections.abc import Callable, Hashable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numba
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.core.serialize import dumps

F = TypeVar("F", bound=Callable[..., Any])


def njit(*, cache: bool = False, **options: Any) -> Callable[[F], F]:
    """As ``numba.njit``, by keywords alone."""

    def compiled(function: F) -> F:
        dispatcher: Any = numba.njit(**options)(function)
        if cache and dispatcher is not function:  # which it is where NUMBA_DISABLE_JIT is set
            dispatcher._cache = _Cache(function)
        found: F = dispatcher
        return found

    return compiled


class _Cache(FunctionCache):
    """What Numba looks compiled code up in, with files of ours."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        stamp = self._impl.locator.get_source_stamp()
        self._cache_file = Files(self.cache_path, self._impl.filename_base, stamp)


class Files(IndexDataCacheFile):
    """A file for each signature of a function.

    Args:
        folder: where they lie.
        start: of all of their names.
        stamp: of the function's source.
    """

    def __init__(self, folder: str, start: str, stamp: Hashable) -> None:
        super().__init__(folder, start, stamp)
        self._folder, self._start, self._of = Path(folder), start, (numba.__version__, stamp)

    def load(self, key: Hashable) -> Any:
        """What was saved under a key; None where there is nothing, or nothing whole."""
        try:
            known, data = pickle.loads(self._path(key).read_bytes())
        except Exception:  # not there, or cut short when a machine stopped: it is compiled anew
            return None
        return data if known == key else None

    def save(self, key: Hashable, data: object) -> None:
        """Keep data under a key; it is whole, or not there where the disk is full, say."""
        with suppress(OSError), self._open_for_write(str(self._path(key))) as file:
            file.write(dumps((key, data)))

    def flush(self) -> None:
        """Forget all: called before a function is compiled anew."""
        for path in self._folder.glob(f"{self._start}.*.nbc"):
            path.unlink(missing_ok=True)

    def _path(self, key: Hashable) -> Path:
        digest = hashlib.sha256(repr((self._of, key)).encode()).hexdigest()[:24]
        return self._folder / f"{self._start}.{digest}.nbc"
