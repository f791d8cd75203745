"""Fetches one file over HTTP: resumable, verified by SHA-256, under its name only when whole."""

import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import filelock
import requests

from alps.engine.base.digests import file_sha256
from alps.engine.base.errors import FetchError
from alps.engine.base.progress import Progress, format_bytes
from alps.engine.models.answer import Answer, InterruptedAnswer, Patience
from alps.engine.models.part_file import PartFile

# Bytes read at a time; as many can be lost where a connection breaks. A server that sends fewer in
# the time of ``read_timeout`` is too slow: of the defaults, about 1 kB a second.
CHUNK = 1 << 16
RETRIED_STATUS = {408, 425, 429, 500, 502, 503, 504}
# 18 digits: what is longer is no length, and Python refuses to make a number of some.
CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.IGNORECASE)
LENGTH = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True)
class RetryPolicy:
    """How long to insist when a server or the way to it fails, and how much to take. Times in
    seconds.
    """

    attempts: int = 5  # in a row without progress
    progress_bytes: int = 1 << 20  # as much in one attempt starts the count of attempts anew
    first_wait: float = 1.0  # doubled after each failure in a row
    longest_wait: float = 30.0
    connect_timeout: float = 15.0
    read_timeout: float = 60.0  # for each CHUNK of a body, not for all of it
    most_bytes: int = 20_000_000_000  # of a file whose size is not known
    lock_timeout: float = 3600.0  # for another process that fetches the same file
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True)
class Fetched:
    """A file that is as expected, and what it took to get it."""

    path: Path
    already_there: bool
    received_bytes: int


def fetch(
    url: str,
    target: Path,
    sha256: str | None,
    *,
    size_bytes: int | None = None,
    policy: RetryPolicy | None = None,
    check: Callable[[Path], object] | None = None,
) -> Fetched:
    """Download `url` to `target`; a file that is there with the right bytes is left as it is.

    Bytes arrive in ``<target>.part`` and stay there when a download ends early, so that the next
    call goes on from them. What the server says about lengths steers resuming; whether the file
    is whole and right is decided by its SHA-256 alone.

    Args:
        url: http or https; redirects are followed.
        target: the final file; its folder is created.
        sha256: 64 hexadecimal digits, either case; None where none is known, and ``check`` decides.
        size_bytes: the file's size where it is known; catches a login page before it is read.
        policy: patience; None means `RetryPolicy()`.
        check: called with a whole file without ``sha256`` before it counts.

    Raises:
        What ``check`` does.
        FetchError: the URL is no http(s) URL, the server refuses or keeps failing, the bytes are
            not those asked for, or the folder or disk cannot take them.
    """
    shown = _checked_url(url)
    sha256 = sha256 and sha256.lower()
    policy = policy or RetryPolicy()
    with _writing(target), _locked(target, policy):
        if target.is_dir():
            raise FetchError(f"{target}: a folder has the file's name; move it away")
        if target.exists():
            if sha256 is None and check is not None:
                check(target)
            if sha256 in (None, file_sha256(target)):
                return Fetched(target, already_there=True, received_bytes=0)
            print(f"{target}: not the file with SHA-256 {sha256}; fetching it", file=sys.stderr)
        with PartFile(target, shown, sha256) as part:
            download = _Download(url, shown, part, sha256, size_bytes, policy)
            download.run()
            part.publish(check if sha256 is None else None)
        return Fetched(target, already_there=False, received_bytes=download.received_bytes)


@dataclass
class _Download:
    """One file on its way from a server into a part file."""

    url: str
    shown: str  # the URL without credentials
    part: PartFile
    sha256: str | None
    size_bytes: int | None
    policy: RetryPolicy
    received_bytes: int = 0
    ranges_fail: bool = False

    def run(self) -> None:
        """Receive until the part's SHA-256 is right; raise `FetchError` if it cannot be."""
        if self.size_bytes is not None:
            self._require_space(self.size_bytes - self.part.size)
        name = self.part.target.name
        with Progress(self.size_bytes, "B", name, initial=self.part.size) as self.progress:
            furthest, failures = self.part.size, 0
            while not self.part.is_whole():
                try:
                    self._receive()
                except InterruptedAnswer as error:
                    if self.part.is_whole():
                        return
                    if self.part.size >= furthest + self.policy.progress_bytes:
                        furthest, failures = self.part.size, 0
                    failures += 1
                    self._wait_or_give_up(error, failures)
                else:
                    self._judge()

    def _wait_or_give_up(self, error: InterruptedAnswer, failures: int) -> None:
        if failures >= self.policy.attempts:
            kept = f" {format_bytes(self.part.size)} are kept." if self.part.size else ""
            raise FetchError(
                f"{self.shown}: gave up after {failures} attempts in a row: {error}.{kept} "
                "Run the same command again to go on."
            )
        wait = max(self.policy.first_wait * 2 ** (failures - 1), error.wait)
        wait = min(wait, self.policy.longest_wait)
        self.progress.note(
            f"{self.shown}: {error}; attempt {failures + 1} of {self.policy.attempts} in {wait:g} s"
        )
        self.policy.sleep(wait)

    def _judge(self) -> None:
        """Take the bytes, start over or give up, now that the server has sent all it has."""
        if self.part.is_whole():
            return
        if self.part.inherited:
            # A crash may have left blocks that never reached the disk: worth one fresh download.
            self.progress.note(
                f"{self.shown}: bytes kept from an earlier download do not belong to this file; "
                "starting over"
            )
            self._restart()
            return
        found, size = self.part.digest(), self.part.size
        self.part.remove()
        raise FetchError(
            f"{self.shown}: wrong bytes: expected SHA-256 {self.sha256}, found {found} "
            f"({format_bytes(size)}). The download was removed, so the next try starts anew; "
            "if it happens again, check the URL and the sum."
        )

    def _restart(self) -> None:
        self.part.restart()
        self.progress.move_to(0)

    def _receive(self) -> None:
        """Send one request and append what comes; return when the server has sent all of it."""
        # Bytes must arrive as they lie on the server, or ranges and lengths mean nothing.
        headers = {"Accept-Encoding": "identity"}
        asks_range = self.part.size > 0 and not self.ranges_fail
        if asks_range:
            headers |= self.part.range_headers()
        patience = Patience(self.policy.connect_timeout, self.policy.read_timeout, CHUNK)
        with Answer(self.url, self.shown, headers, patience) as answer:
            response = answer.begin()
            if response.status_code == 206 and asks_range:
                end = self._check_range(response)
            elif response.status_code == 200:
                end = self._start_over(response)
            else:
                raise self._refusal(response)
            if end is not None:
                self.progress.expect(end)
            for piece in answer.pieces():
                self._append(piece)
        if end is not None and self.part.size < end:
            raise InterruptedAnswer(
                f"the connection ended after {format_bytes(self.part.size)} of {format_bytes(end)}"
            )
        self.part.ended = True

    def _check_range(self, response: requests.Response) -> int | None:
        """Return the file's size if the partial content continues ours, else refuse it."""
        given = response.headers.get("Content-Range", "")
        match = CONTENT_RANGE.fullmatch(given.strip())
        total = int(match[3]) if match and match[3] != "*" else self.size_bytes
        if (
            match is None
            or _is_encoded(response)
            or int(match[1]) != self.part.size
            or (self.size_bytes is not None and total != self.size_bytes)
        ):
            self.ranges_fail = True
            raise InterruptedAnswer(
                f"the server sent the wrong range ({given or 'none named'} instead of bytes from "
                f"{self.part.size})"
            )
        if self.part.is_other_version(response.headers):
            self._restart()
            raise InterruptedAnswer("the file on the server has changed; starting over")
        return total

    def _start_over(self, response: requests.Response) -> int | None:
        """Return the length of a whole body, having made room for it."""
        length = response.headers.get("Content-Length", "")
        end = int(length) if LENGTH.fullmatch(length) else None
        if _is_encoded(response):
            end = None  # the length is that of the compressed bytes, and so would a range be
            self.ranges_fail = True
        if None not in (end, self.size_bytes) and end != self.size_bytes:
            # Before the part is touched: a login page shall not cost what was received so far.
            raise FetchError(
                f"{self.shown}: the server announces {end} bytes, but the file has "
                f"{self.size_bytes}: another file, or the page of a proxy or login. Check the "
                "URL; what was received before is kept."
            )
        if self.size_bytes is None and end is not None:
            if end > self.policy.most_bytes:
                raise FetchError(
                    f"{self.shown}: the server announces {format_bytes(end)}; this file may have "
                    f"{format_bytes(self.policy.most_bytes)}. Check the URL."
                )
            self._require_space(end)
        if self.part.size:
            self.progress.note(f"{self.shown}: the server sends the whole file; starting over")
            self._restart()
        self.part.remember(response.headers)
        return self.size_bytes if end is None else end

    def _append(self, chunk: bytes) -> None:
        self.part.append(chunk)
        self.received_bytes += len(chunk)
        self.progress.advance(len(chunk))
        limit = self.policy.most_bytes if self.size_bytes is None else self.size_bytes
        if self.part.size > limit:
            size = self.part.size
            self.part.remove()
            kind = "this file may have" if self.size_bytes is None else "of the file"
            raise FetchError(
                f"{self.shown}: the server sends more than the {limit} bytes {kind} (stopped at "
                f"{size}). The download was removed; check the URL."
            )

    def _refusal(self, response: requests.Response) -> Exception:
        status = f"the server answered {response.status_code} {response.reason or ''}".rstrip()
        if response.status_code == 416 and self.part.size:
            self._restart()
            return InterruptedAnswer(f"{status}: it has no more bytes than we; starting over")
        if response.status_code in RETRIED_STATUS:
            asked = response.headers.get("Retry-After", "")
            return InterruptedAnswer(status, float(asked) if LENGTH.fullmatch(asked) else 0.0)
        return FetchError(f"{self.shown}: {status}. Check the URL, or name another with --url.")

    def _require_space(self, needed: int) -> None:
        folder = self.part.target.parent
        free = shutil.disk_usage(folder).free
        if free < needed:
            raise FetchError(
                f"{folder}: {format_bytes(needed)} are needed and {format_bytes(free)} are free. "
                "Make room, or name another folder with --to."
            )


def _checked_url(url: str) -> str:
    """Return the URL without credentials and query, fit to be shown; refuse what is not http(s)."""
    try:
        parts = urlsplit(url)
        shown = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="")
        if parts.scheme in ("http", "https") and parts.hostname:
            return shown.geturl()
    except ValueError:  # brackets that do not match, say
        pass
    raise FetchError(f"{url!r}: not an http:// or https:// URL")


def _is_encoded(response: requests.Response) -> bool:
    return response.headers.get("Content-Encoding", "identity") != "identity"


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    """Make the folder; say of a disk or folder that fails which one, and what to do."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield
    except (OSError, NotImplementedError) as error:
        # NotImplementedError: a file system without locks
        why = getattr(error, "strerror", None) or str(error)
        raise FetchError(
            f"{target}: cannot be written: {why}. Mend that, or name another folder with --to; "
            "what was received so far stays in the .part file beside it."
        ) from error


@contextmanager
def _locked(target: Path, policy: RetryPolicy) -> Iterator[None]:
    """Wait for any other process that fetches the same file."""
    lock = filelock.FileLock(target.with_name(target.name + ".lock"))
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        print(f"{target.name}: another process is fetching it; waiting", file=sys.stderr)
        try:
            lock.acquire(timeout=policy.lock_timeout)
        except filelock.Timeout as error:
            raise FetchError(
                f"{target}: another process has been fetching it for {policy.lock_timeout:g} s. "
                "Wait for it or end it, then run the same command again."
            ) from error
    try:
        yield
    finally:
        lock.release()
