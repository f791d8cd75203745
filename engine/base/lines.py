"""Journals: files of a JSON object a line, to which lines are added.

A line ends with a checksum of itself. What was torn by a kill, damaged, or is not UTF-8 counts as
not there: what it stood for is done again.
"""

import errno
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, TypeVar

from alps.engine.base.atomic import mirror_of
from alps.engine.base.records import BadRecordError, parse_record

T = TypeVar("T")
MOST_LINE = 1 << 24  # bytes; counts of 65,535 classes need a tenth of it
_SUM = re.compile(rb'(.*), "sum": "([0-9a-f]{16})"}\n?', re.DOTALL)


def open_journal(path: Path) -> IO[bytes]:
    """A journal to which ``append_line`` adds; a last line that was torn is ended."""
    _refuse_no_file(path)
    file = open(path, "ab+")  # noqa: SIM115 - handed on
    if file.tell():
        file.seek(-1, 2)
        if file.read(1) != b"\n":
            file.write(b"\n")
    return file


def append_line(file: IO[bytes], values: Mapping[str, Any]) -> None:
    """Add a line, which is on its way to the disk from then on."""
    body = json.dumps(values)[:-1].encode()
    file.write(body + f', "sum": "{_digest(body)}"}}\n'.encode())
    file.flush()
    path = Path(file.name)
    if mirror := mirror_of(path):
        mirror.appended(path)


def read_lines(path: Path, kind: type[T]) -> Iterator[T | None]:
    """Each line as ``kind``, a schema; None for one that is damaged. None at all without a file.

    Lines of older versions have no checksum and are taken as they are. Raises OSError.
    """
    if not path.exists():
        return
    _refuse_no_file(path)
    with open(path, "rb") as file:
        while text := file.readline(MOST_LINE):
            yield _parsed(text, kind)


def _refuse_no_file(path: Path) -> None:
    """Raise OSError for a pipe, which would be waited for without end, and the like."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no file; remove it")


def _parsed(text: bytes, kind: type[T]) -> T | None:
    found = _SUM.fullmatch(text)
    if found and _digest(found[1]) != found[2].decode():
        return None
    try:
        return parse_record(text, kind)
    except BadRecordError:
        return None


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:16]
