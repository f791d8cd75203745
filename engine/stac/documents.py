"""Items of a file, in whichever form: alone, in a collection of items, linked to by a
catalogue, one a line, or rows of GeoParquet.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from alps.engine.base.errors import SourceError, printable
from alps.engine.base.records import BadRecordError, one_line, parse_record, regular_file
from alps.engine.stac.hrefs import document_at
from alps.engine.stac.item import Frame, Item, item_from, parse_item
from alps.engine.stac.split import parts_of
from alps.engine.stores.address import Address, is_address
from alps.engine.stores.client import Bucket

SUFFIXES = (".json", ".geojson", ".jsonl", ".ndjson", ".parquet", ".geoparquet")
CATALOGUES = ("Catalog", "Collection")
PARQUET = b"PAR1"
ROWS_AT_ONCE = 512
MOST_DOCUMENTS = 100_000  # catalogues in catalogues
NO_STAC = "it is no STAC: give an item, a collection of items, or a catalogue"


@dataclass(frozen=True)
class Found:
    """An item of a document, or what stands in the place of one and is none (``fault``).

    address: of the item, where it has a file of its own.
    """

    document: str
    number: int  # in its document, from 1
    item: Item | None = None
    fault: str = ""
    address: str = ""


def is_stac(src: str | Path) -> bool:
    """Whether SRC is a file that is read as STAC; whether it can be, is found by reading it."""
    if is_address(src):
        return Address.parse(str(src)).name.lower().endswith(SUFFIXES)
    path = os.fspath(src)
    if not os.path.isfile(path):
        return False
    if path.lower().endswith(SUFFIXES):
        return True
    try:
        with open(path, "rb") as file:
            head = file.read(64)
    except OSError:
        return False
    return head.startswith(PARQUET) or head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"{"


def items_of(src: str | Path) -> Iterator[Found]:
    """All items that a file holds or links to, in its order; memory is one of them.

    src: a path, or an address of one document, which is fetched. Documents that a file links to are
    read where they lie in its folder.

    Raises SourceError where the file is no STAC, or is damaged, StoreError where it cannot be
    fetched.
    """
    if is_address(src):
        yield from _of_address(Address.parse(str(src)))
        return
    first = os.path.abspath(src)
    if _is_parquet(first):
        yield from _of_parquet(first)
        return
    root = os.path.dirname(first)
    waiting, seen = [first], set[str]()
    while waiting:
        path = waiting.pop()
        links: list[str] = []
        try:
            yield from _of_json(path, links)
        except SourceError as error:
            if path == first:
                raise
            yield Found(path, 0, fault=str(error))
        if not links:
            continue
        real = os.path.realpath(path)
        if real in seen:  # catalogues may link in a circle
            continue
        seen.add(real)
        if len(seen) > MOST_DOCUMENTS:
            raise SourceError(f"{printable(first)}: more than {MOST_DOCUMENTS} catalogues")
        for number, href in enumerate(reversed(links)):
            try:
                waiting.append(document_at(path, href, root))
            except SourceError as error:
                yield Found(path, len(links) - number, fault=str(error))


def _of_address(address: Address) -> Iterator[Found]:
    """The items of a document in a store or on a web server."""
    with TemporaryDirectory(prefix="alps-") as work:
        file, links = os.path.join(work, address.name), list[str]()
        Bucket(address).fetch(address.key, Path(file))
        try:
            for found in _of_parquet(file) if _is_parquet(file) else _of_json(file, links):
                own = str(address) if found.address else ""
                yield replace(found, document=str(address), address=own)
        except SourceError as error:
            raise SourceError(str(error).replace(file, str(address))) from error
        if links:
            raise SourceError(
                f"{printable(str(address))} links to its items, and documents are not fetched one "
                "by one: save the catalogue as files, or all items in one file, and name that"
            )


def _is_parquet(path: str) -> bool:
    with _opened(path) as file:
        return file.read(len(PARQUET)) == PARQUET


def _of_json(path: str, links: list[str]) -> Iterator[Found]:
    """The items in a document; ``links`` takes up where others are.

    Raises SourceError.
    """
    number = 0
    with _opened(path) as file:
        _skip_mark(file)
        for part in parts_of(file, path):
            if part.is_feature:
                number += 1
                yield _item(path, number, part.text, "")
                continue
            frame = _frame(path, part.text)
            if frame.type == "Feature":
                number += 1
                yield _item(path, number, part.text, path if number == 1 else "")
            elif frame.type == "FeatureCollection":
                if any(link.rel == "next" for link in frame.links):
                    print(
                        f"warning: {printable(path)} is one page of an answer, the pages after it "
                        "(its link next) are not read: save all items in one file",
                        file=sys.stderr,
                    )
            elif frame.type in CATALOGUES:
                links += [one.href for one in frame.links if one.rel in ("item", "child")]
                number += len(links)
            else:
                raise SourceError(f"Cannot read {printable(path)}: {NO_STAC}.")
    if not number:
        raise SourceError(f"Cannot read {printable(path)}: it holds no items and links to none.")


def _item(path: str, number: int, text: bytes, address: str) -> Found:
    try:
        return Found(path, number, parse_item(text), address=address)
    except SourceError as error:
        if number == 1 and b'"assets"' not in text:
            what = "it is GeoJSON and no STAC, its features have no assets"
            raise SourceError(f"Cannot read {printable(path)}: {what}.") from error
        return Found(path, number, fault=str(error))


def _frame(path: str, text: bytes) -> Frame:
    try:
        return parse_record(text, Frame)
    except BadRecordError as error:
        raise SourceError(f"Cannot read {printable(path)}: {NO_STAC} ({error}).") from error


def _of_parquet(path: str) -> Iterator[Found]:
    """Rows of stac-geoparquet: properties are columns of their own."""
    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            columns = file.schema_arrow.names
            if lacking := {"id", "assets"} - set(columns):
                raise SourceError(
                    f"Cannot read {printable(path)}: it is no stac-geoparquet, which has a column "
                    f"{sorted(lacking)[0]}."
                )
            number = 0
            wanted = [name for name in columns if name not in ("geometry", "bbox")]
            for batch in file.iter_batches(ROWS_AT_ONCE, columns=wanted):
                for row in batch.to_pylist():
                    number += 1
                    yield _row(path, number, row)
            if not number:
                raise SourceError(f"Cannot read {printable(path)}: it holds no items.")
    except (OSError, pa.ArrowException) as error:
        raise SourceError(f"Cannot read {printable(path)}: {one_line(error)}.") from error


def _row(path: str, number: int, row: Mapping[str, Any]) -> Found:
    try:
        values = _without_nothing(row)
        own = {name: values.pop(name, None) for name in ("id", "assets", "collection", "links")}
        own = {name: value for name, value in own.items() if value is not None}
        own |= {"type": "Feature", "properties": values}
        return Found(path, number, item_from(own))
    except SourceError as error:
        return Found(path, number, fault=str(error))


def _without_nothing(value: Any) -> Any:
    """A row as the item that it was: an absent key is a null here, and times are no text."""
    if isinstance(value, Mapping):
        return {k: _without_nothing(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [_without_nothing(one) for one in value]
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).isoformat()
    return value


@contextmanager
def _opened(path: str) -> Iterator[IO[bytes]]:
    try:
        with regular_file(path) as file:
            yield file
    except (OSError, BadRecordError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SourceError(f"Cannot read {printable(path)}: {reason}.") from error


def _skip_mark(file: IO[bytes]) -> None:
    """Pass over a byte order mark."""
    if file.read(3) != b"\xef\xbb\xbf":
        file.seek(0)
