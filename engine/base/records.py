"""Records in JSON, read by a schema: types, ranges and sizes are checked before a value is used.

A schema is a dataclass or another type that msgspec knows; a field's range stands beside its type.
Keys that it does not name are let pass: files of other versions have others.
"""

import json
import math
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated, Any, NoReturn, TypeVar

import msgspec
from msgspec import Meta

from alps.engine.base.errors import AlpsError

T = TypeVar("T")
MOST_BYTES = 64 << 20  # of a record; what is larger is none
MOST_WORDS = 300  # letters of what is said about one
Count = Annotated[int, Meta(ge=0, lt=1 << 62)]
Side = Annotated[int, Meta(ge=1, lt=1 << 31)]  # of an image, in pixels
Name = Annotated[str, Meta(min_length=1, max_length=4096)]
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class BadRecordError(ValueError):
    """A text is not the record that it should be; the message says where, in one line."""


def read_record(
    path: Path,
    kind: type[T],
    error: Callable[[str], AlpsError],
    mend: str,
    most_bytes: int = MOST_BYTES,
) -> T:
    """Read a file of one JSON value.

    Args:
        path: a regular file.
        kind: the schema.
        error: the kind of error that is raised where it cannot be read.
        mend: what to do then, the end of that error's line.
        most_bytes: a larger file is refused unread.

    Raises FileNotFoundError, which callers put better, and else what ``error`` makes.
    """
    try:
        return parse_record(read_small(path, most_bytes), kind)
    except FileNotFoundError:
        raise
    except (OSError, BadRecordError) as found:
        why = getattr(found, "strerror", None) or found
        raise error(f"cannot read {path}: {why}; {mend}") from found


def read_small(path: Path, most_bytes: int = MOST_BYTES) -> bytes:
    """All of a regular file. Raises BadRecordError where it is none, or too large; OSError."""
    with regular_file(path) as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise BadRecordError(f"it is larger than {most_bytes} bytes")
    return content


def open_at_once(path: str | Path) -> int:
    """A descriptor to read a file by; a pipe is not waited for without end. Raises OSError."""
    # Windows has no such pipes, and changes line ends unless it is told not to.
    return os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))


@contextmanager
def regular_file(path: str | Path) -> Iterator[IO[bytes]]:
    """A file that is open for reading. Raises BadRecordError where it is none; OSError."""
    handle = open_at_once(path)
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise BadRecordError("it is no file")
        yield file


def parse_record(text: str | bytes, kind: type[T]) -> T:
    """A JSON text as ``kind``. Raises BadRecordError."""
    try:
        if isinstance(text, bytes):
            text = text.decode()
        values = json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except RecursionError:
        raise BadRecordError("it is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise BadRecordError(f"byte {error.start} is not UTF-8") from error
    except ValueError as error:
        raise BadRecordError(one_line(error)) from error
    return as_record(values, kind)


def as_record(values: Any, kind: type[T]) -> T:
    """Plain values as ``kind``. Raises BadRecordError."""
    try:
        return msgspec.convert(values, kind)
    except (msgspec.ValidationError, RecursionError, OverflowError) as error:
        raise BadRecordError(one_line(error)) from error


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no number that can be used")
    return value


def one_line(error: Exception) -> str:
    """What an error says, fit for a line of ours."""
    return " ".join(str(error).split()).replace("`", "")[:MOST_WORDS]
