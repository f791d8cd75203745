"""Who may write below a prefix: an object that its holder renews, and that others take over only
when it was not renewed for long.

It is written conditionally, so that of two who want it one gets it. Clocks of machines may differ:
a lease that seems to have run out is watched first, unless that was very long ago.
"""

import json
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from alps.engine.base.errors import RunFolderError, StoreError
from alps.engine.base.records import BadRecordError, Count, parse_record
from alps.engine.stores.client import CONFLICT, Bucket

SECONDS = 60.0  # a lease lasts after it was renewed
RENEWED_EVERY = 15.0
MARGIN = 10.0  # before its end no more is written
LONG_AGO = timedelta(minutes=15)  # clocks are not that wrong
LOOK = 1.0  # seconds between two looks at a lease that is watched


@dataclass(frozen=True)
class Lease:
    """What the object says."""

    owner: str  # a word that only the holder knows
    place: str  # of the local folder: whoever has that for itself knows that its last user is gone
    host: str
    pid: Count
    since: str  # UTC, by the holder's clock
    until: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


class HeldLease:
    """A lease that this process holds, renewed by a thread until it is let go of.

    A context manager. Raises RunFolderError where somebody else holds it.

    Args:
        bucket: of the prefix.
        key: of the lease.
        place: the local folder's own word.
        until: a file that says to other processes of this machine how long the lease is held.
        meanwhile: called now and then by the thread that renews; what it raises comes again.
    """

    def __init__(
        self, bucket: Bucket, key: str, place: str, until: Path, meanwhile: Callable[[], None]
    ) -> None:
        self._bucket, self._key, self._place = bucket, key, place
        self._shown = bucket.shown(key)
        self._until, self._meanwhile = until, meanwhile
        self._owner = secrets.token_hex(8)
        self._since = _words(datetime.now(UTC))
        self._etag: str | None = None
        self._lost = ""
        self._end = 0.0
        self._is_over = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="alps-lease", daemon=True)

    def __enter__(self) -> "HeldLease":
        self._take()
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._is_over.set()
        self._thread.join()
        with suppress(OSError):
            self._until.unlink()
        if not self._lost and clock() < self._end:
            with suppress(StoreError):  # it runs out by itself
                self._bucket.delete(self._key)

    def check(self) -> None:
        """Raise StoreError unless the lease is held, and for long enough to write something."""
        if not self._lost and clock() > self._end - MARGIN:
            with suppress(StoreError):
                self._renew()
        if self._lost or clock() > self._end - MARGIN:
            by = self._lost or "nobody, but it could not be renewed"
            raise StoreError(
                f"this run does not hold its OUT any more ({self._shown} is now held by {by}) and "
                "writes nothing more there; what it had put is kept. Let the other one end, then "
                "give the same command again",
                kind=CONFLICT,
            )

    def _take(self) -> None:
        began = clock()
        found = self._bucket.get_with_etag(self._key)
        etag = None if found is None else self._free(*found)
        try:
            self._put(etag, began)
        except StoreError as error:
            if error.kind != CONFLICT or not self._is_ours():
                raise self._busy() if error.kind == CONFLICT else error from error
            self._held(began)

    def _free(self, content: bytes, etag: str) -> str:
        """The tag of a lease that may be taken over. Raises RunFolderError where it may not."""
        try:
            lease = parse_record(content, Lease)
            late = datetime.now(UTC) - datetime.fromisoformat(lease.until)
        except (BadRecordError, ValueError, TypeError):
            return etag  # nobody's
        if lease.place == self._place or late > LONG_AGO:
            return etag
        if late < timedelta(0):
            raise self._busy(lease)
        print(
            f"waiting {SECONDS:.0f} s to see whether {lease}, is at work: its lease of "
            f"{self._shown} ran out",
            file=sys.stderr,
            flush=True,
        )
        end = clock() + SECONDS
        while clock() < end:
            time.sleep(LOOK)
            again = self._bucket.get_with_etag(self._key)
            if again is None or again[1] != etag:
                raise self._busy()
        return etag

    def _put(self, etag: str | None, began: float) -> None:
        until = datetime.now(UTC) + timedelta(seconds=SECONDS)
        lease = Lease(
            self._owner, self._place, socket.gethostname(), os.getpid(), self._since, _words(until)
        )
        content = json.dumps(asdict(lease)).encode()
        self._etag = self._bucket.put_over(self._key, content, etag)
        self._held(began)

    def _held(self, began: float) -> None:
        self._end = began + SECONDS
        with suppress(OSError):
            part = self._until.with_name(f".{self._until.name}.part")
            part.write_text(str(self._end))
            os.replace(part, self._until)

    def _renew(self) -> None:
        with self._lock:
            began = clock()
            try:
                self._put(self._etag, began)
            except StoreError as error:
                if error.kind != CONFLICT:
                    raise
                if self._is_ours():  # the answer to an earlier put was lost
                    self._held(began)
                else:
                    self._lost = str(self._holder() or "a process that does not say who it is")
                    with suppress(OSError):
                        self._until.unlink()

    def _is_ours(self) -> bool:
        found = self._bucket.get_with_etag(self._key)
        if found is None:
            return False
        lease = _parsed(found[0])
        if lease is None or lease.owner != self._owner:
            return False
        self._etag = found[1]
        return True

    def _holder(self) -> Lease | None:
        found = self._bucket.get_with_etag(self._key)
        return None if found is None else _parsed(found[0])

    def _busy(self, lease: Lease | None = None) -> RunFolderError:
        lease = lease or self._holder()
        holder = lease or "a process that does not say who it is"
        mend = f"; where it is no more, its lease ends at {lease.until}" if lease else ""
        return RunFolderError(
            f"another run is writing to this OUT: {holder} (by {self._shown}); wait for it, or "
            f"give another OUT{mend}"
        )

    def _run(self) -> None:
        last = clock()
        while not self._is_over.wait(1.0):
            with suppress(StoreError):
                self._meanwhile()
            if clock() - last >= RENEWED_EVERY and not self._lost:
                with suppress(StoreError):  # it is tried again; in the end it runs out
                    self._renew()
                    last = clock()


def check_lease_of(until: Path) -> None:
    """As ``HeldLease.check``, in a process that works for the holder."""
    try:
        end = float(until.read_text())
    except (OSError, ValueError):
        end = 0.0
    if clock() > end - MARGIN:
        raise StoreError(
            "the run that this process works for does not hold its OUT any more, and nothing more "
            "is written there; give the same command again",
            kind=CONFLICT,
        )


def clock() -> float:
    """Seconds that go on while a machine sleeps, the same for all of its processes."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot is None else time.clock_gettime(boot)


def _parsed(content: bytes) -> Lease | None:
    try:
        return parse_record(content, Lease)
    except BadRecordError:
        return None


def _words(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
