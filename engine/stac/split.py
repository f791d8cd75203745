"""A JSON file of any size in parts: its features one by one, and what is around them.

The parts are parsed one by one, so that one that is wrong leaves the others alone. Streaming
parsers (ijson 3.6) were tried: a number out of range, or deep nesting, in one item ends all.
"""

import re
from collections.abc import Iterator
from typing import IO, NamedTuple

from alps.engine.base.errors import SourceError, printable

CHUNK = 1 << 20  # bytes that are read at once
MOST_OF_ITEM = 16 << 20  # bytes
MOST_OF_FRAME = 64 << 20  # of a document, its features aside
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\]"]', re.DOTALL)
_FEATURES = b'"features"'


class Part(NamedTuple):
    """A JSON object of a document. is_feature: of its list of features; else all but those."""

    text: bytes
    is_feature: bool


def parts_of(file: IO[bytes], path: str) -> Iterator[Part]:
    """The features of each object in a file, then that object without them.

    There may be several objects, one a line say. What is in the parts is not looked at.

    Raises SourceError where the file ends too early, or a part is too large.
    """
    return _Splitter(file, path).parts()


class _Splitter:
    def __init__(self, file: IO[bytes], path: str) -> None:
        self._file, self._path = file, path
        self._buffer = b""
        self._at = 0  # what is before was looked at
        self._depth = 0
        self._key = b""
        self._in_features = False
        self._begin: int | None = None  # of the feature, or the piece of the frame, that is open
        self._frame = bytearray()
        self._objects = 0

    def parts(self) -> Iterator[Part]:
        while chunk := self._file.read(CHUNK):
            self._forget()
            self._buffer += chunk
            yield from self._scan()
            self._refuse_large()
        if not self._objects and not self._depth:
            raise self._broken("it is no JSON object")
        if self._depth or self._buffer[self._at :].strip():
            raise self._broken("it ends too early, or is no JSON; get it again")

    def _scan(self) -> Iterator[Part]:
        for token in _TOKEN.finditer(self._buffer, self._at):
            text = token[0]
            if text == b'"':  # its end is not there yet
                self._at = token.start()
                return
            self._at = token.end()
            if text[:1] == b'"':
                if self._depth == 1:
                    self._key = text
            elif text in b"{[":
                self._open(text, token.start())
            else:
                yield from self._close(token.start())
        self._at = len(self._buffer)

    def _open(self, text: bytes, start: int) -> None:
        if self._depth == 0:
            if text != b"{":
                raise self._broken("it is no JSON object")
            self._begin = start
        elif self._in_features and self._depth == 2 and text == b"{":
            self._begin = start
        elif self._depth == 1 and text == b"[" and self._key == _FEATURES:
            self._frame += self._buffer[self._begin : start + 1]
            self._in_features, self._begin = True, None
        self._depth += 1

    def _close(self, start: int) -> Iterator[Part]:
        self._depth -= 1
        if self._depth < 0:
            raise self._broken("it is no JSON: something is closed that was not opened")
        if self._in_features and self._depth == 2 and self._begin is not None:
            yield Part(self._buffer[self._begin : start + 1], True)
            self._begin = None
        elif self._in_features and self._depth == 1:
            self._in_features, self._begin = False, start
        elif self._depth == 0:
            self._frame += self._buffer[self._begin : start + 1]
            yield Part(bytes(self._frame), False)
            self._frame.clear()
            self._objects += 1
            self._key, self._begin = b"", None

    def _forget(self) -> None:
        """Let go of what is done with."""
        done = self._at if self._begin is None else self._begin
        self._buffer = self._buffer[done:]
        self._at -= done
        self._begin = None if self._begin is None else 0

    def _refuse_large(self) -> None:
        most = MOST_OF_ITEM if self._in_features else MOST_OF_FRAME
        held = 0 if self._begin is None else len(self._buffer) - self._begin
        if held + (0 if self._in_features else len(self._frame)) > most + CHUNK:
            what = "an item" if self._in_features else "what is beside its features"
            raise self._broken(f"{what} has more than {most} bytes")

    def _broken(self, why: str) -> SourceError:
        return SourceError(f"Cannot read {printable(self._path)}: {why}.")
