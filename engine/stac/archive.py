"""A STAC file as an archive: its images, each under a name of its own, and what is said of them."""

import os
import re
import sqlite3
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from heapq import merge
from itertools import groupby
from operator import attrgetter
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import NamedTuple, Self

import msgspec

from alps.engine.base.atomic import whole
from alps.engine.base.digests import fingerprint
from alps.engine.base.errors import RunFolderError, SettingsError, SourceError, printable
from alps.engine.images.facts.said import NamedImage, Said, SaidTable, SaidWriter
from alps.engine.images.reading import Reading
from alps.engine.images.references import Access
from alps.engine.images.sources import IMAGE_SUFFIXES, Source, iter_sources
from alps.engine.settings import SourceSettings
from alps.engine.stac.assets import choose_asset
from alps.engine.stac.documents import Found, is_stac, items_of
from alps.engine.stac.hrefs import image_at
from alps.engine.stac.item import asset_value
from alps.engine.stac.said import said_by
from alps.engine.stores.address import Address, is_address

NO_ENDING = ".image"  # or the end of an id with dots would be taken for one
MOST_LETTERS = 120  # of a folder's name
# What some file systems have no names with, and what a terminal would obey.
_UNFIT = re.compile(r'[\x00-\x1f\x7f-\x9f/\\:*?"<>|\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]')
_TABLE = """
create table images (path text primary key, name text unique, said blob) without rowid
"""


def read_items(src: str | Path, access: Access, asset: str | None, file: Path) -> SaidTable:
    """Write what a STAC file says of its images into ``file``, a Parquet file.

    An item that cannot be used is an image too, with a reason; of one that comes twice the first
    counts. Images are called ``collection/id``. Memory is a few thousand items.

    Args:
        src: the STAC file.
        access: what its hrefs may lead to.
        asset: the key of the asset that is labelled; None: by its role.
        file: appears whole or not at all.

    Raises SourceError where ``src`` is no STAC or holds no items, RunFolderError where the file
    cannot be written.
    """
    with whole(file) as part, _Index(file.with_name(f".{file.name}.index")) as index:
        for found in items_of(src):
            index.add(*_image(found, access, asset))
        with SaidWriter(part) as writer:
            writer.write(index.rows())
    return SaidTable(file)


@dataclass(frozen=True)
class Archive:
    """What SRC names, and how it is read before any stretch is known.

    sources: in any order, once; some may come twice.
    said: what a catalogue says of them, where SRC is one.
    """

    sources: Iterable[Source]
    reading: Reading
    said: SaidTable | None = None


@contextmanager
def open_archive(
    src: str | Path,
    settings: SourceSettings,
    keep: Path | None = None,
    exclude: str | Path | None = None,
) -> Iterator[Archive]:
    """The images that ``src`` names: STAC, or what ``images.sources.iter_sources`` finds.

    Args:
        src: as users give it.
        settings: what is believed, and allowed.
        keep: where what items say is kept; None: it is gone with the context.
        exclude: a folder that is not searched.

    Raises SourceError where nothing is found, SettingsError for an asset of what is no STAC, and
    RunFolderError where the table cannot be written.
    """
    reading = Reading.of_archive(src, settings)
    if not is_stac(src):
        if settings.asset is not None:
            raise SettingsError(f"--asset {settings.asset}: {src} is no STAC, and has no assets")
        yield Archive(iter_sources(src, exclude=exclude), reading)
        return
    with TemporaryDirectory(prefix="alps-") as work:
        file = keep or Path(work, "items.parquet")
        said = read_items(src, reading.access, settings.asset, file)
        yield Archive(_sources(said), replace(reading, said=said), said)


def grown(archive: Archive, known: SaidTable, anew: Container[str], file: Path) -> Archive:
    """An archive of items that came to a run later; ``known``: what the run has of it.

    What the run knows of an image, and its name, stay. anew: paths of images of which it does not.
    file: takes what is said of all of them; appears whole or not at all.
    """
    if archive.said is None:
        raise SourceError("SRC was STAC when this run was planned, and is no more; put it back")
    new = archive.said

    def both() -> Iterator[_Row]:
        rows = merge(_marked(known, False), _marked(new, True), key=attrgetter("path"))
        for _, some in groupby(rows, attrgetter("path")):
            first, *more = some  # of the two the one that is known comes first
            if not more:
                yield first
            else:
                said = more[0].said if first.path in anew else first.said
                yield _Row(first.path, first.name, said, True)

    with whole(file) as part, SaidWriter(part) as writer:
        writer.write((NamedImage(row.path, row.name), row.said) for row in both())
    there = (_source(row.path, row.name) for row in both() if row.is_there)
    said = SaidTable(file)
    return Archive(there, replace(archive.reading, said=said), said)


class _Row(NamedTuple):
    """What is said of an image, and whether SRC still has it."""

    path: str
    name: str
    said: Said
    is_there: bool


def _marked(table: SaidTable, is_there: bool) -> Iterator[_Row]:
    for image, said in table.rows():
        yield _Row(*image, said, is_there)


def _source(path: str, name: str) -> Source:
    return Source(path if path.startswith("/vsi") else Path(path), name)


def _sources(said: SaidTable) -> Iterator[Source]:
    for path, name in said.images():
        yield _source(path, name)


class _Index:
    """Images by their paths, sorted on the disk: one may come again at any place."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __enter__(self) -> Self:
        self._file.unlink(missing_ok=True)  # of a run that was killed
        self._data = sqlite3.connect(self._file, isolation_level=None)
        # It is gone when the table is written: nothing is lost with it.
        for setting in ("journal_mode=off", "synchronous=off", "locking_mode=exclusive"):
            self._data.execute(f"pragma {setting}")
        self._data.execute(_TABLE)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._data.close()
        self._file.unlink(missing_ok=True)
        if isinstance(error, sqlite3.Error):
            raise RunFolderError(
                f"cannot write {self._file}: {error}; check permissions and the space left, then "
                "run the same command again"
            ) from error

    def add(self, image: NamedImage, said: Said) -> None:
        """Take up an image, under another name where its own is taken."""
        known = self._data.execute("select said from images where path = ?", image[:1]).fetchone()
        if known is not None:
            first = msgspec.msgpack.decode(known[0], type=Said)
            if (first.collection, first.id) == (said.collection, said.id):
                return
            reason = f"item {said.id}: its image {image.path} is that of item {first.id} already"
            path = f"{image.path}#{fingerprint(said.collection, said.id)}"
            image, said = NamedImage(path, image.name), _refused(said.id, said.address, reason)
        packed, name, number = msgspec.msgpack.encode(said), image.name, 0
        insert = "insert or ignore into images values (?, ?, ?)"
        while not self._data.execute(insert, (image.path, name, packed)).rowcount:
            name, number = _told_apart(image.name, f"{image.path}{number or ''}"), number + 1

    def rows(self) -> Iterator[tuple[NamedImage, Said]]:
        """All images in the order of their paths."""
        for path, name, said in self._data.execute("select * from images order by path"):
            yield NamedImage(path, name), msgspec.msgpack.decode(said, type=Said)


def _image(found: Found, access: Access, asset: str | None) -> tuple[NamedImage, Said]:
    """The image of an item, or why there is none."""
    item, place = found.item, f"{_opened_as(found.document)}#{found.number}"
    name = f"{_part(Path(found.document).stem)}/item {found.number}"
    reason = found.fault
    if item is not None:
        name = _part(item.id)
        if item.collection:
            name = f"{_part(item.collection, MOST_LETTERS)}/{name}"
        try:
            chosen = choose_asset(item, asset)
            said = said_by(item, chosen, found.address)
            href = asset_value(item, chosen.key, "href", str) or ""
            path = str(image_at(found.document, href, access))
            return NamedImage(path, name + _ending(path)), said
        except SourceError as error:
            reason = str(error)
    where = f"item {item.id if item else found.number} of {found.document}"
    refused = _refused(item.id if item else "", found.address, f"{where}: {reason}")
    return NamedImage(place, name + NO_ENDING), refused


def _opened_as(document: str) -> str:
    """A document as paths of images are kept: those of stores as GDAL has them."""
    return Address.parse(document).gdal if is_address(document) else document


def _refused(item: str, address: str, reason: str) -> Said:
    return Said(reason=printable(reason), id=item, address=address)


def _ending(path: str) -> str:
    ending = PurePosixPath(path.partition("?")[0]).suffix
    return ending if ending.lower() in IMAGE_SUFFIXES else NO_ENDING


def _part(text: str, most: int | None = None) -> str:
    """A text as the name of a file or a folder, which a person can still read."""
    name = _UNFIT.sub("_", text).strip()
    if name.startswith(".") or not name:
        name = f"_{name}"
    if most is not None and len(os.fsencode(name)) > most:
        short = os.fsencode(name)[: most - 9].decode("utf-8", "ignore")
        name = f"{short}~{fingerprint(text)[:8]}"
    return name


def _told_apart(name: str, path: str) -> str:
    ending = PurePosixPath(name).suffix
    return f"{name.removesuffix(ending)}~{fingerprint(path)[:8]}{ending}"
