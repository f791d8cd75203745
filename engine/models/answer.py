"""One answer of a web server, with an end to everything: redirects, headers, a slow body, nonsense.

A thread asks and reads, and hands over what comes; whoever waits for it gives up when too little
does. Time limits of sockets are for each piece, however small: bytes that trickle keep them for
ever.
"""

import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from queue import Empty, Full, Queue
from typing import Any, Self
from urllib.parse import urljoin, urlsplit

import requests

from alps.engine.base.errors import FetchError

MOST_REDIRECTS = 10
REDIRECTS = {301, 302, 303, 307, 308}
PIECES_AHEAD = 2
# One of these; of several in a row a kilobyte can hold terabytes.
PACKED = {"", "identity", "gzip", "x-gzip", "deflate"}
LOOK_SECONDS = 0.2  # between two looks whether anybody still wants what was read


class InterruptedAnswer(Exception):
    """This attempt ended early; another may do better."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        """Say why, and how many seconds the server asks to be left alone."""
        super().__init__(reason)
        self.wait = wait


@dataclass(frozen=True)
class Patience:
    """What a server is waited for. Times in seconds.

    chunk_bytes: read at a time, and least of all within ``read_timeout``.
    """

    connect_timeout: float
    read_timeout: float
    chunk_bytes: int


class Answer:
    """Context manager: ``begin()`` gives status and headers, ``pieces()`` the body.

    Both raise InterruptedAnswer where another attempt may do better, else FetchError.
    """

    def __init__(
        self, url: str, shown: str, headers: Mapping[str, str], patience: Patience
    ) -> None:
        """Ask nothing yet; ``shown`` is the URL as a person may see it."""
        self._url, self._shown, self._headers = url, shown, dict(headers)
        self._patience = patience
        self._came: Queue[Any] = Queue(PIECES_AHEAD)
        self._left = threading.Event()

    def __enter__(self) -> Self:
        threading.Thread(target=self._read, name="alps-fetch", daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._left.set()

    def begin(self) -> requests.Response:
        """Status and headers; redirects were followed."""
        seconds = self._patience.connect_timeout + self._patience.read_timeout
        response: requests.Response = self._next(seconds, "the server did not answer in time")
        return response

    def pieces(self) -> Iterator[bytes]:
        """The body, unpacked where it was sent packed."""
        least, within = self._patience.chunk_bytes, self._patience.read_timeout
        slow = f"the server sent less than {least} bytes in {within:g} s"
        received, until = 0, time.monotonic() + within
        while True:
            piece = self._next(until - time.monotonic(), slow)
            if piece is None:
                return
            yield piece
            received += len(piece)
            now = time.monotonic()
            if received >= least:
                received, until = 0, now + within
            elif now > until:
                raise InterruptedAnswer(slow)

    def _next(self, seconds: float, late: str) -> Any:
        try:
            item = self._came.get(timeout=max(seconds, 0.001))
        except Empty:
            raise InterruptedAnswer(late) from None
        if isinstance(item, Exception):
            raise self._sorted(item) from item
        return item

    def _read(self) -> None:
        """What the thread does: put a response, its pieces and None; or an error."""
        try:
            with _Session() as session, self._follow(session) as response:
                packed = response.headers.get("Content-Encoding", "").strip().lower()
                if packed not in PACKED:
                    raise FetchError(
                        f"{self._shown}: the server sends it packed in a way that was not asked "
                        f"for ({packed[:40]}). Name another with --url."
                    )
                self._put(response)
                for piece in response.iter_content(self._patience.chunk_bytes):
                    if not self._put(piece):
                        return
                self._put(None)
        except Exception as error:  # told where it is waited for
            self._put(error)

    def _put(self, item: object) -> bool:
        """Whether somebody still waits for it."""
        while not self._left.is_set():
            try:
                self._came.put(item, timeout=LOOK_SECONDS)
                return True
            except Full:
                pass
        return False

    def _follow(self, session: requests.Session) -> requests.Response:
        url, timeout = self._url, (self._patience.connect_timeout, self._patience.read_timeout)
        for _ in range(MOST_REDIRECTS):
            response = session.get(url, headers=self._headers, stream=True, timeout=timeout)
            if response.status_code not in REDIRECTS or "Location" not in response.headers:
                return response
            # Its body is not read: that may have no end.
            response.close()
            url = self._moved(url, response.headers["Location"])
        raise FetchError(
            f"{self._shown}: the server redirects more than {MOST_REDIRECTS} times. Check the URL, "
            "or name another with --url."
        )

    def _moved(self, url: str, location: str) -> str:
        """Where a redirect leads to. Raises FetchError where that is no http(s) URL."""
        try:
            # Headers are Latin-1 to Python, and UTF-8 to most servers.
            target = urljoin(url, location.encode("latin-1").decode("utf-8"))
            was, now = urlsplit(url), urlsplit(target)
            if now.scheme in ("http", "https") and now.hostname and now.port != 0:
                secrets, at, _ = was.netloc.rpartition("@")
                same = (was.scheme, was.hostname, was.port) == (now.scheme, now.hostname, now.port)
                if same and at and "@" not in now.netloc:  # those of this server are for it alone
                    now = now._replace(netloc=f"{secrets}@{now.netloc}")
                return now.geturl()
        except ValueError:  # UnicodeError too
            pass
        shown = location.partition("?")[0].rpartition("@")[2][:100]
        raise FetchError(
            f"{self._shown}: the server redirects to {shown!r}, which is no http:// or https:// "
            "URL. Check the URL, or name another with --url."
        )

    def _sorted(self, error: Exception) -> Exception:
        """What goes wrong on the way: worth another attempt, or not."""
        if isinstance(error, FetchError):
            return error
        why = _root_cause(error)
        if isinstance(error, requests.exceptions.SSLError):
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                return FetchError(f"{self._shown}: its certificate is not trusted: {why}")
            return InterruptedAnswer(f"the connection failed: {why}")
        if isinstance(error, requests.Timeout):
            return InterruptedAnswer("the server did not answer in time")
        if isinstance(error, requests.ConnectionError | requests.exceptions.ChunkedEncodingError):
            return InterruptedAnswer(f"the connection failed: {why}")
        # Of requests, or what it lets through of the libraries below it.
        return FetchError(f"{self._shown}: cannot be fetched: {why}")


class _Session(requests.Session):
    """One that follows nothing by itself: it would read the bodies of redirects first."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        return None


def _root_cause(error: BaseException) -> str:
    """Return the innermost message: the outer ones repeat the URL, with its secrets, if any."""
    while True:
        inner = getattr(error, "reason", None) or (error.args[-1] if error.args else None)
        if not isinstance(inner, BaseException):
            return str(error).rpartition(": ")[2] or type(error).__name__
        error = inner
