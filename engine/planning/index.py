"""The sources of an archive, sorted by name, on the disk: a million of them take little memory."""

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Self

from alps.engine.base.errors import RunFolderError
from alps.engine.images.sources import Source, named_labels

AT_ONCE = 1 << 10  # rows that are looked at together
CACHE_KIB = 16 << 10
TABLES = """
create table sources (
    name text, path blob, is_local integer, width integer default 0,
    height integer default 0, tiles integer default 1, is_placed integer default 0,
    reason text default '', alike text, label text default '',
    primary key (name, path)
) without rowid;
create table texts (room text, text text, primary key (room, text)) without rowid;
"""


@dataclass(frozen=True)
class IndexedSource:
    """A source that was opened, or could not be (``reason``)."""

    source: Source
    width: int = 0
    height: int = 0
    tiles: int = 1  # windows, or the one row of a source that could not be opened
    is_placed: bool = False  # whether it lies somewhere on Earth
    reason: str = ""
    alike: str | None = None  # what those share that one stretch is fitted to


class SourceIndex:
    """A context manager; the file is there as long as it is open.

    Raises RunFolderError where the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Self:
        self._remove()
        with _writing(self._path):
            self._data = sqlite3.connect(self._path, isolation_level=None)
            # It is made anew by whoever needs it: nothing is lost with it.
            for setting in ("journal_mode=off", "synchronous=off", f"cache_size=-{CACHE_KIB}"):
                self._data.execute(f"pragma {setting}")
            self._data.executescript(TABLES)
            self._data.execute("begin")  # or each row would be written by itself
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._data.close()
        self._remove()

    def add(self, sources: Iterable[Source]) -> None:
        """Take up sources; one that is known already is passed over."""
        rows = ((one.name, *_stored(one.path)) for one in sources)
        with _writing(self._path):
            self._data.executemany(
                "insert or ignore into sources (name, path, is_local) values (?, ?, ?)", rows
            )

    def __len__(self) -> int:
        return int(self._one("select count(*) from sources"))

    @property
    def tiles(self) -> int:
        """Windows of all sources."""
        return int(self._one("select coalesce(sum(tiles), 0) from sources"))

    @property
    def readable(self) -> int:
        """How many sources could be opened."""
        return int(self._one("select count(*) from sources where reason = ''"))

    def note(self, opened: Iterable[IndexedSource]) -> None:
        """Keep what opening showed, as it comes."""
        with _writing(self._path):
            for one in opened:
                self._data.execute(
                    "update sources set width = ?, height = ?, tiles = ?, is_placed = ?, "
                    "reason = ?, alike = ? where name = ? and path = ?",
                    (one.width, one.height, one.tiles, one.is_placed, one.reason, one.alike,
                     one.source.name, _stored(one.source.path)[0]),
                )  # fmt: skip

    def name_labels(self, others: Iterable[str] = ()) -> None:
        """Choose the label map's name of each source; all must have been opened.

        others: names that are taken.
        """
        with _writing(self._path):
            self._data.execute("delete from texts")
            once, twice, folders, taken = (
                Texts(self, room) for room in ("once", "twice", "folders", "taken")
            )
            for label in others:
                twice.add(label.casefold())
                taken.add(label.casefold())
                for folder in PurePosixPath(label).parents:
                    folders.add(folder.as_posix().casefold())
            labels = named_labels(
                lambda: ((one.source.name, one.is_placed) for one in self.all()),
                *(once, twice, folders, taken),
            )
            for one, label in zip(self.all(), labels, strict=True):
                self._data.execute(
                    "update sources set label = ? where name = ? and path = ?",
                    (label, one.source.name, _stored(one.source.path)[0]),
                )

    def names(self) -> Iterator[str]:
        """Names of all sources, in their order."""
        query = "select name, path from sources where (name, path) > (?, ?) order by 1, 2 limit ?"
        last = "", b""
        while rows := self._rows(query, (*last, AT_ONCE)):
            yield from (name for name, _ in rows)
            last = rows[-1]

    def all(self) -> Iterator[IndexedSource]:
        """All sources by their names; others may be noted meanwhile."""
        query = (
            "select name, path, is_local, width, height, tiles, is_placed, reason, alike, label "
            "from sources where (name, path) > (?, ?) order by name, path limit ?"
        )
        last = "", b""
        while rows := self._rows(query, (*last, AT_ONCE)):
            for name, path, is_local, width, height, tiles, placed, reason, alike, label in rows:
                source = Source(_opened(path, is_local), name, label)
                yield IndexedSource(source, width, height, tiles, bool(placed), reason, alike)
            last = rows[-1][:2]

    def alike(self) -> dict[str, Sequence[str | Path]]:
        """Paths of sources that one stretch is fitted to, where there are several."""
        query = (
            "select alike, count(*) from sources where alike is not null group by alike "
            "having count(*) > 1 order by min(name)"
        )
        self._data.execute("create index if not exists by_alike on sources (alike, name)")
        return {alike: _Paths(self, alike, count) for alike, count in self._rows(query)}

    def path_of(self, alike: str, index: int) -> str | Path:
        """The path of one of the sources of ``alike``, counted from 0 by name."""
        query = "select path, is_local from sources where alike = ? order by name limit 1 offset ?"
        return _opened(*self._rows(query, (alike, index))[0])

    def _one(self, query: str) -> Any:
        return self._rows(query)[0][0]

    def _rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple]:
        with _writing(self._path):
            return self._data.execute(query, values).fetchall()

    def _remove(self) -> None:
        self._path.unlink(missing_ok=True)


class _Paths(Sequence[str | Path]):
    """Paths of sources that are alike."""

    def __init__(self, index: SourceIndex, alike: str, count: int) -> None:
        self._index, self._alike, self._count = index, alike, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, at: Any) -> Any:
        return self._index.path_of(self._alike, at)


class Texts:
    """A set of texts beside an index, on the disk."""

    def __init__(self, index: SourceIndex, room: str) -> None:
        """``room``: tells it from other sets."""
        self._data, self._room = index._data, room

    def add(self, text: str) -> None:
        """Take up a text."""
        self._data.execute("insert or ignore into texts values (?, ?)", (self._room, text))

    def __contains__(self, text: object) -> bool:
        query = "select 1 from texts where room = ? and text = ?"
        return self._data.execute(query, (self._room, text)).fetchone() is not None


class _writing:
    """Turns what SQLite raises into a RunFolderError."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, sqlite3.Error):
            raise RunFolderError(
                f"cannot write {self._path}: {error}; check permissions and the space left, then "
                "run the same command again"
            ) from error


def _stored(path: Path | str) -> tuple[bytes, bool]:
    """A path as it is kept: names of files may be no UTF-8."""
    if isinstance(path, str):
        return path.encode("utf-8", "surrogateescape"), False
    return os.fsencode(path), True


def _opened(path: bytes, is_local: int) -> str | Path:
    return Path(os.fsdecode(path)) if is_local else path.decode("utf-8", "surrogateescape")
