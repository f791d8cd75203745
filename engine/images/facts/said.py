"""What others than the file say of it: a catalogue's entry, kept by the file's path.

The table is read a row group at a time, by the least and the largest path of each: memory does not
grow with the archive.
"""

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from alps.engine.base.errors import RunFolderError, SourceError

if TYPE_CHECKING:  # images are read without it, and `alps --help` is quicker
    import pyarrow as pa
    import pyarrow.parquet as pq

ROWS = 1024  # of a row group: what one look-up reads
GROUPS_KEPT = 32  # row groups in memory, of all tables together


@cache
def _schema() -> "pa.Schema":
    """Of the table."""
    import pyarrow as pa

    return pa.schema(
        [
            ("path", pa.string()),  # as the plan has it; the rows are in its order
            ("name", pa.string()),
            ("reason", pa.string()),
            ("id", pa.string()),
            ("collection", pa.string()),
            ("address", pa.string()),
            ("asset", pa.string()),
            ("chosen_by", pa.string()),
            ("date", pa.int32()),
            ("datetime", pa.string()),
            ("start_datetime", pa.string()),
            ("end_datetime", pa.string()),
            ("band_names", pa.list_(pa.string())),
            ("nodata", pa.list_(pa.float64())),
            ("width", pa.int64()),
            ("height", pa.int64()),
            ("crs", pa.string()),
            ("transform", pa.list_(pa.float64())),
        ]
    )


@dataclass(frozen=True)
class Said:
    """What a catalogue says of one image; what it does not say is empty."""

    reason: str = ""  # why the image cannot be read by what is said of it
    id: str = ""  # of the catalogue's item
    collection: str = ""
    address: str = ""  # where the item itself is, where that is known
    asset: str = ""  # its key
    chosen_by: str = ""  # the rule by which this asset was taken
    date: int = 0  # as of ``dates``
    datetime: str = ""  # RFC 3339, as the item has it
    start_datetime: str = ""
    end_datetime: str = ""
    band_names: tuple[str, ...] = ()
    nodata: tuple[float, ...] = ()  # of each band, NaN for none
    width: int = 0  # pixels
    height: int = 0
    crs: str = ""  # AUTHORITY:CODE or WKT
    transform: tuple[float, ...] = ()  # a, b, c, d, e, f of an affine transform

    @property
    def chosen(self) -> str:
        """The asset and the rule, in words; empty where there is none."""
        return f"{self.asset} ({self.chosen_by})" if self.asset else ""

    def nodata_of(self, band: int, count: int) -> float | None:
        """The nodata value of a band, counted from 1, of a file of ``count`` bands."""
        values = self.nodata if len(self.nodata) == count else ()
        if not values and len(set(self.nodata)) == 1:  # one for all, however many it speaks of
            values = self.nodata[:1] * count
        if not values or math.isnan(values[band - 1]):
            return None
        return values[band - 1]

    def refuse_size(self, path: str | Path, width: int, height: int) -> None:
        """Raise SourceError where the file has not as many pixels as is said."""
        if self.width and (self.width, self.height) != (width, height):
            raise SourceError(
                f"{path}: its item {self.id} says {self.width} x {self.height} pixels (proj:shape),"
                f" the file has {width} x {height}. Mend the item, or choose another --asset."
            )


NOTHING = Said()
_COLUMNS = [item.name for item in fields(Said)]


class NamedImage(NamedTuple):
    """An image of a catalogue."""

    path: str
    name: str  # below the archive; unique in it


@dataclass(frozen=True)
class SaidTable:
    """What is said of the images of an archive, in a Parquet file.

    Every look-up raises RunFolderError where the file cannot be read.
    """

    file: Path

    def of(self, path: str | Path) -> Said:
        """Of one image; nothing where it is not in the table."""
        text = str(path)
        number = self._group_of(text)
        if number < 0:
            return NOTHING
        table = _group(self.file, _stamp(self.file), number)
        low, high = 0, len(table)
        paths = table.column("path")
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if paths[middle].as_py() >= text else (middle + 1, high)
        if low == len(table) or paths[low].as_py() != text:
            return NOTHING
        (row,) = table.slice(low, 1).select(_COLUMNS).to_pylist()
        return Said(**{name: _plain(value) for name, value in row.items()})

    def dates(self, paths: Sequence[str]) -> list[int]:
        """The date of each of these images, 0 where none is said."""
        wanted: dict[int, set[str]] = {}
        for path in paths:
            wanted.setdefault(self._group_of(path), set()).add(path)
        found: dict[str, int] = {}
        for number, own in wanted.items():
            if number >= 0:
                for path, date in self._column(number, "date"):
                    if path in own:
                        found[path] = date
        return [found.get(path, 0) for path in paths]

    def __len__(self) -> int:
        return int(_footer(self.file, _stamp(self.file)).num_rows)

    def images(self) -> Iterator[NamedImage]:
        """All images in the order of their paths."""
        for number in range(len(_firsts(self.file, _stamp(self.file)))):
            for path, name in self._column(number, "name"):
                yield NamedImage(path, name)

    def rows(self) -> Iterator[tuple[NamedImage, Said]]:
        """All that is said, in the order of paths."""
        stamp = _stamp(self.file)
        for number in range(len(_firsts(self.file, stamp))):
            for row in _read(self.file, stamp, number, None).to_pylist():
                image = NamedImage(row["path"], row["name"])
                yield image, Said(**{name: _plain(row[name]) for name in _COLUMNS})

    def _column(self, number: int, name: str) -> Iterator[tuple[str, Any]]:
        table = _read(self.file, _stamp(self.file), number, ["path", name])
        return zip(table["path"].to_pylist(), table[name].to_pylist(), strict=True)

    def _group_of(self, path: str) -> int:
        return bisect_right(_firsts(self.file, _stamp(self.file)), path) - 1


class SaidWriter:
    """Writes such a file; a context manager. The file must not be there."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __enter__(self) -> "SaidWriter":
        import pyarrow.parquet as pq

        # Statistics of paths alone: of a million images the file's footer is read for each of them.
        self._writer = pq.ParquetWriter(
            self._file, _schema(), compression="zstd", write_statistics=["path"]
        )
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._writer.close()

    def write(self, rows: Iterable[tuple[NamedImage, Said]]) -> int:
        """Write all rows, in the order of their paths, each of which comes once; how many."""
        count = 0
        waiting: list[dict[str, Any]] = []
        for image, said in rows:
            waiting.append({**image._asdict(), **{name: getattr(said, name) for name in _COLUMNS}})
            count += 1
            if len(waiting) == ROWS:
                self._flush(waiting)
        if waiting or not count:
            self._flush(waiting)
        return count

    def _flush(self, rows: list[dict[str, Any]]) -> None:
        import pyarrow as pa

        self._writer.write_table(pa.Table.from_pylist(rows, schema=_schema()))
        rows.clear()


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _stamp(file: Path) -> tuple[int, int]:
    """What tells the file from another of its name."""
    with _reading(file):
        status = file.stat()
        return status.st_mtime_ns, status.st_size


@lru_cache(maxsize=2)
def _footer(file: Path, stamp: tuple[int, int]) -> "pq.FileMetaData":
    """What the file says of its row groups, which of many of them takes longer than one of them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with _reading(file):
        about = pq.read_metadata(file)
        if about.schema.to_arrow_schema() != _schema():
            raise pa.ArrowInvalid("its columns are others")
        return about


@lru_cache(maxsize=2)
def _firsts(file: Path, stamp: tuple[int, int]) -> list[str]:
    """The first path of each row group."""
    about = _footer(file, stamp)
    groups = [about.row_group(number).column(0) for number in range(about.num_row_groups)]
    return [group.statistics.min for group in groups if group.num_values]


@lru_cache(maxsize=GROUPS_KEPT)
def _group(file: Path, stamp: tuple[int, int], number: int) -> "pa.Table":
    return _read(file, stamp, number, None)


def _read(file: Path, stamp: tuple[int, int], number: int, columns: list[str] | None) -> "pa.Table":
    import pyarrow.parquet as pq

    with (
        _reading(file),
        pq.ParquetFile(file, metadata=_footer(file, stamp), pre_buffer=False) as opened,
    ):
        return opened.read_row_group(number, columns, use_threads=False).combine_chunks()


class _reading:
    """Turns what reading the file raises into a RunFolderError."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            return
        import pyarrow as pa

        if isinstance(error, (OSError, pa.ArrowException)):
            raise RunFolderError(
                f"cannot read {self._file}, which has what the catalogue said of the images: "
                f"{' '.join(str(error).split())}; put back a copy, or give another OUT"
            ) from error
