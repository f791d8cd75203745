"""OUT in an object store: a local folder stands for the prefix while a command runs.

The store is what counts. When it is opened the prefix is listed once, and the folder made what the
store says; a folder that an earlier command left here spares what it has. While somebody writes
there, a lease in the store keeps others out.
"""

import os
import re
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import wraps
from inspect import signature
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from alps.engine.base.atomic import mirrored
from alps.engine.base.digests import fingerprint
from alps.engine.base.errors import AlpsError, RunFolderError, SettingsError, StoreError
from alps.engine.stores.address import HANDLERS, Address, is_address
from alps.engine.stores.client import Bucket, Stored
from alps.engine.stores.index import Index
from alps.engine.stores.lease import HeldLease, check_lease_of
from alps.engine.stores.mirror import FolderMirror, is_of_a_machine

LEASE = "journal/lease.json"
RUN = "run.json"
# What a run that was killed while it was planned leaves.
BEFORE_A_RUN = ("journal/", "segments/", "predicted/")
FETCHED_AT_ONCE = 8

T = TypeVar("T")


@dataclass(frozen=True)
class Place:
    """Where an OUT lies, in the store and on this machine; can be handed to other processes."""

    address: str
    folder: Path  # of the local one, its index and its locks

    @property
    def root(self) -> Path:
        """The local folder that stands for OUT."""
        return self.folder / "out"

    @property
    def until(self) -> Path:
        """A file that says how long the lease is held."""
        return self.folder / "until"


_open: dict[Path, Place] = {}


@contextmanager
def opened(
    out: str | Path,
    *,
    writes: bool,
    scratch: str | Path | None = None,
    only: tuple[str, ...] = (),
) -> Iterator[Path]:
    """The local folder of ``out``: itself, where it is a path.

    Args:
        out: a path, or an address below which a run folder lies, or is to lie.
        writes: hold it, so that nobody else writes there.
        only: rooms that are read, ``journal/`` say; files of others are there by name and size
            alone. Empty: all.
        scratch: where local folders of OUTs in stores lie; None: in the user's cache.

    Raises:
        StoreError: the store refuses or fails; RunFolderError: somebody else holds it, or what lies
            there is no run folder.
        SettingsError: the address can be none, or obstore is not installed.
    """
    if not is_address(out):
        yield Path(out)
        return
    address = Address.parse(str(out))
    if address.scheme not in HANDLERS:
        raise SettingsError(f"{address}: a web server cannot be written to; give s3://, gs:// …")
    place = _place(address, scratch)
    if place.root in _open:  # by a caller of this one
        yield place.root
        return
    with ExitStack() as stack:
        alone = stack.enter_context(ExitStack())
        is_alone = alone.enter_context(_alone(place))
        if writes and not is_alone:
            raise RunFolderError(
                f"another command of this machine works on {address}; wait for it, or give another "
                "OUT"
            )
        (place.folder / "address").write_text(place.address, encoding="utf-8")
        index = Index(place.folder / "index.sqlite")
        stack.callback(index.close)
        bucket = Bucket(address)
        guards: list[Callable[[], None]] = []

        def guard() -> None:
            for check in guards:
                check()

        mirror = FolderMirror(place.root, address, index, guard)
        stack.callback(mirror.close)
        if writes:
            lease = HeldLease(bucket, mirror.key(LEASE), _word_of(place), place.until, mirror.flush)
            stack.enter_context(lease)
            guards.append(lease.check)
        if is_alone:
            _fetch(place, mirror, bucket, only)
        if not writes:
            alone.close()  # whoever wants to write may come
        _open[place.root] = place
        stack.callback(_open.pop, place.root)
        with mirrored(place.root, mirror):
            try:
                yield place.root
            except BaseException as error:
                if isinstance(error, AlpsError):
                    error.args = tuple(shown(one) for one in error.args)
                with suppress(StoreError):  # the first error is the one to be told
                    mirror.flush(is_end=True)
                raise
            if writes:
                mirror.reconcile()
            else:
                mirror.flush(is_end=True)


def places() -> list[Place]:
    """The OUTs in stores that are open, for processes that work for this one."""
    return list(_open.values())


@contextmanager
def attached(place: Place) -> Iterator[None]:
    """Put what this process writes in an OUT that another one, on this machine, has opened."""
    index = Index(place.folder / "index.sqlite")
    mirror = FolderMirror(
        place.root,
        Address.parse(place.address),
        index,
        lambda: check_lease_of(place.until),
        is_waited_for=True,  # the holder notes in its journal what is told to be done
    )
    try:
        with mirrored(place.root, mirror):
            yield
            mirror.flush(is_end=True)
    finally:
        mirror.close()
        index.close()


@contextmanager
def following(folder: Path | None) -> Iterator[None]:
    """As ``attached``, given the local folder; nothing, where that stands for no OUT in a store."""
    marker = None if folder is None else folder.parent / "address"
    if marker is None or folder in _open or not marker.is_file():
        yield
        return
    with attached(Place(marker.read_text(encoding="utf-8"), marker.parent)):
        yield


def at_hand(function: Callable[..., T]) -> Callable[..., T]:
    """Let a function that writes a run folder, given as its ``out``, take an address for it too."""
    known = signature(function)

    @wraps(function)
    def call(*args: Any, **more: Any) -> T:
        bound = known.bind(*args, **more)
        with opened(bound.arguments["out"], writes=True) as root:
            bound.arguments["out"] = root
            return function(*bound.args, **bound.kwargs)

    return call


def shown(text: object) -> str:
    """A text or a path with the addresses of OUTs in stores instead of their local folders."""
    found = str(text)
    for place in _open.values():
        found = found.replace(str(place.root), place.address)
    return found


def address_of(folder: str | Path) -> Address | None:
    """The address that a local folder stands for, or is; None where it is a folder and no more."""
    if is_address(folder):
        return Address.parse(str(folder))
    for place in _open.values():
        if Path(folder).is_relative_to(place.root):
            return Address.parse(shown(folder))
    return None


def _place(address: Address, scratch: str | Path | None) -> Place:
    above = Path(os.path.abspath(scratch)) if scratch is not None else _usual_scratch()
    words = re.sub(r"[^A-Za-z0-9.-]+", "-", f"{address.bucket}-{address.key}").strip("-.")[-60:]
    return Place(str(address), above / f"{words}-{fingerprint(str(address))[:8]}")


def _usual_scratch() -> Path:
    """``$ALPS_HOME/stores`` where ALPS_HOME is set, else in the user's cache folder."""
    if home := os.environ.get("ALPS_HOME"):
        return Path(os.path.abspath(home)) / "stores"
    named = os.environ.get("XDG_CACHE_HOME", "")
    try:
        cache = Path(named) if os.path.isabs(named) else Path.home() / ".cache"
    except RuntimeError:
        raise SettingsError(
            "no home folder to work in; give --scratch, or set ALPS_HOME to a folder that may be "
            "written"
        ) from None
    return cache / "alps" / "stores"


@contextmanager
def _alone(place: Place) -> Iterator[bool]:
    """Whether no other process of this machine has the local folder open."""
    try:
        place.root.mkdir(parents=True, exist_ok=True)
        lock = FileLock(place.folder / "lock")
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    except OSError as error:
        raise RunFolderError(
            f"cannot write to {place.folder}: {error.strerror or error}; give another folder with "
            "--scratch"
        ) from error
    try:
        yield True
    finally:
        lock.release()


def _word_of(place: Place) -> str:
    """What the local folder is known by in leases: made once."""
    path = place.folder / "word"
    with suppress(OSError, UnicodeDecodeError):
        if word := path.read_text().strip():
            return word
    path.write_text(secrets.token_hex(8))
    return path.read_text()


def _fetch(place: Place, mirror: FolderMirror, bucket: Bucket, only: tuple[str, ...]) -> None:
    """Make the local folder what the store says; of rooms that are not in ``only`` the names."""
    index = mirror.index
    has_run = bucket.head(mirror.key(RUN)) is not None
    mark = index.next_mark()
    under_way: set[Future[None]] = set()
    start = mirror.key("")
    with ThreadPoolExecutor(FETCHED_AT_ONCE, thread_name_prefix="alps-fetch") as pool:
        for entry in bucket.objects(mirror.address.key):
            name = entry.key.removeprefix(start)
            if is_of_a_machine(name) or name == LEASE:
                continue
            if not has_run and not name.startswith(BEFORE_A_RUN):
                raise RunFolderError(
                    f"{place.address} is not empty and no run folder (it holds {name}); give a new "
                    "prefix as OUT"
                )
            if len(under_way) >= 4 * FETCHED_AT_ONCE:
                done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
            path = _inside(place.root, name)
            if index.etag(name, path) == entry.etag and entry.etag:
                index.mark_seen(name, mark)
            elif only and "/" in name and not name.startswith(only):
                index.forget(name)
                _reserve(path, entry.bytes)
            else:
                under_way.add(pool.submit(_fetch_one, bucket, entry, path, index, name, mark))
        for future in under_way:
            future.result()
    if only:
        return
    index.forget_unseen(mark)
    for found in place.root.rglob("*"):
        name = found.relative_to(place.root).as_posix()
        if not found.is_dir() and not index.has(name):
            found.unlink()


def _fetch_one(
    bucket: Bucket, entry: Stored, path: Path, index: Index, name: str, mark: int
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    etag = bucket.download(entry, part)
    os.replace(part, path)
    status = path.stat()
    index.note_as(name, etag, status.st_size, status.st_mtime_ns)
    index.mark_seen(name, mark)


def _reserve(path: Path, size: int) -> None:
    """A file of a size that takes no place, for whoever asks whether it is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        file.truncate(size)


def _inside(root: Path, name: str) -> Path:
    """Where an object's file lies. Raises RunFolderError for a key that leads out of the folder."""
    path = root / name
    is_inside = Path(os.path.realpath(path.parent)).is_relative_to(os.path.realpath(root))
    if ".." in name.split("/") or not is_inside:
        raise RunFolderError(f"the store has a key {name!r}, which is no file of a run; delete it")
    return path
