"""A local folder that is also a prefix of an object store: what is done in it is done there too.

The order of what counts is kept: a file of a journal, and any at the top of the folder, is put only
when all that was put before it is in the store. Journals that lines are added to are put whole, at
most every few seconds: lines that are lost with a machine stand for work that is done again, with
the same bytes.
"""

import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from alps.engine.base.errors import StoreError
from alps.engine.stores.address import Address
from alps.engine.stores.client import Bucket
from alps.engine.stores.index import Index

THREADS = 8
MOST_WAITING = 24  # puts that are under way or wait
MOST_BYTES = 8 << 20  # of a file that is put meanwhile; larger ones are waited for
JOURNAL_SECONDS = 5.0  # between two puts of a journal that grows
# Rooms of files that count only when a later one says that they are there.
FREE = (
    "labels/", "segments/", "regions/rasters/", "objects/", "vectors/", "predicted/", "confidence/",
    "probabilities/",
)  # fmt: skip
GROWING = ("journal/sums-", "journal/painted.jsonl")
# What belongs to one machine alone: locks, and what is being written or replaced.
OF_A_MACHINE = re.compile(r"journal/(lock|holder-of-).*|(.*/)?\.[^/]*\.(part|old|cog|tmp)(/.*)?")
# Files that processes at work write anew, again and again, and how often others are to see them.
SIGNS, SIGN_SECONDS = "journal/alive-*.json", 15.0


class _Put(NamedTuple):
    """A file on its way."""

    future: Future[None]
    job: Callable[[], None]


class FolderMirror:
    """Follows a folder, as ``atomic.Mirror``. Every call raises StoreError where the store fails.

    guard: raises StoreError where this process may not write there any more. is_waited_for: a file
    is in the store when ``put`` returns, also one that does not count yet.
    """

    def __init__(
        self,
        root: Path,
        address: Address,
        index: Index,
        guard: Callable[[], None],
        *,
        is_waited_for: bool = False,
    ) -> None:
        self._most_bytes = -1 if is_waited_for else MOST_BYTES
        self.root, self.address, self.index = root, address, index
        self._bucket, self._guard = Bucket(address), guard
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="alps-store")
        self._waiting: dict[str, _Put] = {}
        self._grown: set[Path] = set()  # journals with lines that are not in the store
        self._put_at: dict[Path, float] = {}  # when journals were put last
        self._signs_at = time.monotonic()
        self._lock = threading.RLock()  # of these three
        self._order = threading.RLock()  # of puts whose order counts

    def put(self, content: Path, path: Path) -> None:
        """Put a file under the name that it is about to have."""
        self._guard()
        name, status = self._name(path), content.stat()
        stamp = status.st_size, status.st_mtime_ns
        if not name.startswith(FREE):
            with self._order:
                self.settle()
                self.index.note_as(name, self._bucket.put(self.key(name), content), *stamp)
            with self._lock:
                self._grown.discard(path)
        elif status.st_size > self._most_bytes:
            self.index.note_as(name, self._bucket.put(self.key(name), content), *stamp)
        else:
            data = content.read_bytes()
            self._submit(
                name,
                lambda: self.index.note_as(name, self._bucket.put(self.key(name), data), *stamp),
            )

    def appended(self, path: Path) -> None:
        """Put a journal that grew, or remember to."""
        with self._lock:
            self._grown.add(path)
            last = self._put_at.get(path)
        is_quick = self._name(path).startswith(GROWING)
        if not is_quick or last is None or time.monotonic() - last >= JOURNAL_SECONDS:
            self._put_journal(path)

    def removed(self, path: Path) -> None:
        """Delete a file, or all files below a folder."""
        self._guard()
        name = self._name(path)
        with self._order:
            self.settle()
            with self._lock:
                self._grown = {one for one in self._grown if not one.is_relative_to(path)}
            names = self.index.names_below(name)
            names += [name] if self.index.has(name) else []
            for start in range(0, len(names), 500):
                some = names[start : start + 500]
                self._bucket.delete(*map(self.key, some))
                for one in some:
                    self.index.forget(one)

    def settle(self) -> None:
        """Wait until all that was put is in the store; what failed is put again."""
        with self._lock:
            waiting = list(self._waiting.items())
        for name, put in waiting:
            try:
                put.future.result()
            except StoreError:
                put.job()
            with self._lock:
                if self._waiting.get(name) is put:
                    del self._waiting[name]

    def flush(self, *, is_end: bool = False) -> None:
        """Put the journals whose time has come, and signs of life; at the end all of them, and wait
        for all else.
        """
        with self._lock:
            now = time.monotonic()
            old = {one for one, at in self._put_at.items() if now - at > JOURNAL_SECONDS}
            due = set(self._grown if is_end else self._grown & old)
            for one in old - self._grown:
                del self._put_at[one]
        for path in due:
            self._put_journal(path)
        if is_end or now - self._signs_at > SIGN_SECONDS:
            self._signs_at = now
            for path in self.root.glob(SIGNS):
                with suppress(FileNotFoundError):
                    if self.index.etag(self._name(path), path) is None:
                        self.put(path, path)
        if is_end:
            self.settle()

    def reconcile(self) -> None:
        """Put whatever in the folder is not in the store as it is, and delete there what is gone.

        For what is written by other means than those that tell. Whatever says that others are
        there comes after them.
        """
        self.flush(is_end=True)
        for free in (True, False):
            for path in self._files():
                name = self._name(path)
                if name.startswith(FREE) is free and self.index.etag(name, path) is None:
                    self.put(path, path)
        for name in self.index.names():
            if not (self.root / name).is_file():
                self.removed(self.root / name)
        self.settle()

    def close(self) -> None:
        """End the threads; what still waits is let go of."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def key(self, name: str) -> str:
        """Of an object, by the name of its file."""
        return f"{self.address.key}/{name}" if self.address.key else name

    def _put_journal(self, path: Path) -> None:
        self._guard()
        with self._order:
            with self._lock:
                if path not in self._grown:
                    return
                self._grown.discard(path)
                self._put_at[path] = time.monotonic()
            try:
                # Read before the rest is waited for: its lines are of files that were put earlier.
                with suppress(FileNotFoundError):
                    status = path.stat()
                    data = path.read_bytes()[: status.st_size]
                    self.settle()
                    name = self._name(path)
                    etag = self._bucket.put(self.key(name), data)
                    self.index.note_as(name, etag, status.st_size, status.st_mtime_ns)
            except BaseException:
                with self._lock:
                    self._grown.add(path)
                raise

    def _submit(self, name: str, job: Callable[[], None]) -> None:
        with self._lock:
            earlier = self._waiting.get(name)
        if earlier is not None:  # two versions of a file keep their order
            wait([earlier.future])
        while True:
            with self._lock:
                under_way = [put.future for put in self._waiting.values() if not put.future.done()]
                if len(under_way) < MOST_WAITING:
                    self._waiting[name] = _Put(self._pool.submit(job), job)
                    break
            wait(under_way, return_when=FIRST_COMPLETED)
        with self._lock:
            done = {one: put for one, put in self._waiting.items() if put.future.done()}
            for one, put in done.items():
                if put.future.exception() is None:
                    del self._waiting[one]
        if len(done) > MOST_WAITING:  # that many failed
            self.settle()

    def _files(self) -> Iterator[Path]:
        for path in self.root.rglob("*"):
            if path.is_file() and not is_of_a_machine(self._name(path)):
                yield path

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


def is_of_a_machine(name: str) -> bool:
    """Whether a file, by its name below the folder, is no part of what is in the store."""
    return OF_A_MACHINE.fullmatch(name) is not None
