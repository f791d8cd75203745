"""A download on its way: the bytes so far, their SHA-256, and what is needed to go on."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

from alps.engine.base.atomic import publish
from alps.engine.base.records import BadRecordError, parse_record, read_small

READ_BYTES = 1 << 20


class PartFile:
    """``<target>.part`` with a running SHA-256, and a small JSON file beside it.

    The JSON file holds what tells whether the server still has the same file: its ETag and
    Last-Modified, the URL they came from, and the SHA-256 that the part is meant to reach.
    """

    def __init__(self, target: Path, url: str, sha256: str | None) -> None:
        """Name the final file, where its bytes come from, and their SHA-256 in lower case.

        Without one the part is whole when the server has sent all it has.
        """
        self.target = target
        self._path = target.with_name(target.name + ".part")
        self._notes_path = target.with_name(target.name + ".part.json")
        self._about = {"url": url, "sha256": sha256}
        self.etag: str | None = None
        self.last_modified: str | None = None
        self.size = 0
        self.inherited = False  # begins with bytes of an earlier call
        self.ended = False  # the server has sent all it has

    def __enter__(self) -> Self:
        """Open the part and take over what an earlier call left, if it serves this file."""
        self._file = self._path.open("ab+")
        self._digest = hashlib.sha256()
        try:
            self._take_over()
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._file.close()

    def _take_over(self) -> None:
        try:
            notes = parse_record(read_small(self._notes_path), dict[str, str | None])
        except (FileNotFoundError, BadRecordError):
            notes = {}  # none, or cut short by a crash
        about = self._about
        if notes.get("sha256", about["sha256"]) != about["sha256"] or (
            about["sha256"] is None and notes.get("url") != about["url"]
        ):
            self.restart()  # the part is on its way to another file, or may be
            return
        # Another mirror's ETag says nothing here, but its bytes are those we want all the same.
        if notes.get("url") == self._about["url"]:
            self.etag, self.last_modified = notes.get("etag"), notes.get("last_modified")
        self._file.seek(0)
        while chunk := self._file.read(READ_BYTES):
            self._digest.update(chunk)
            self.size += len(chunk)
        self.inherited = self.size > 0

    def digest(self) -> str:
        """Return the SHA-256 of the bytes so far, as hexadecimal digits."""
        return self._digest.hexdigest()

    def is_whole(self) -> bool:
        """Whether the bytes so far are all of the file, and right as far as its SHA-256 says."""
        wanted = self._about["sha256"]
        return self.ended if wanted is None else self.digest() == wanted

    def restart(self) -> None:
        """Throw away the bytes so far."""
        self._file.truncate(0)
        self._digest = hashlib.sha256()
        self.size = 0
        self.inherited = False

    def remember(self, headers: Mapping[str, str]) -> None:
        """Keep what identifies the server's version of the file, for the next Range request."""
        self.etag, self.last_modified = headers.get("ETag"), headers.get("Last-Modified")
        notes = self._about | {"etag": self.etag, "last_modified": self.last_modified}
        self._notes_path.write_text(json.dumps(notes), encoding="utf-8")

    def append(self, chunk: bytes) -> None:
        """Add bytes at the end."""
        self._file.write(chunk)
        self._digest.update(chunk)
        self.size += len(chunk)

    def publish(self, check: Callable[[Path], object] | None = None) -> None:
        """Give the file its final name, durably.

        check: called first with the file, under a name with the same ending; the file is removed
            where it raises.
        """
        self._file.close()
        whole = self._path
        if check is not None:
            whole = self.target.with_name(f".unverified-{self.target.name}")
            self._path.replace(whole)
            try:
                check(whole)
            except BaseException:
                whole.unlink(missing_ok=True)
                self._notes_path.unlink(missing_ok=True)
                raise
        publish(whole, self.target)
        self._notes_path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Delete the part and what is noted about it."""
        self._file.close()
        self._path.unlink(missing_ok=True)
        self._notes_path.unlink(missing_ok=True)

    def is_other_version(self, headers: Mapping[str, str]) -> bool:
        """Whether a response is of another version of the file than the bytes so far."""
        now = (headers.get("ETag"), headers.get("Last-Modified"))
        pairs = zip((self.etag, self.last_modified), now, strict=True)
        return any(ours and theirs and ours != theirs for ours, theirs in pairs)

    def range_headers(self) -> dict[str, str]:
        """Headers that ask for the rest, or for all of it if the file has changed since."""
        headers = {"Range": f"bytes={self.size}-"}
        # A weak ETag may not stand in If-Range (RFC 9110, section 13.1.5).
        strong = self.etag if self.etag and not self.etag.startswith("W/") else None
        if validator := strong or self.last_modified:
            headers["If-Range"] = validator
        return headers
