"""The regions of single sources, out of the tables of their groups."""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.region_schemas import BORDER_SCHEMA
from alps.engine.run_folder.tables import open_table, read_table, rows_by_source

KEPT_BYTES = 16 << 20  # of each table: many small sources lie in one row group


class GroupTables:
    """Some columns of a group's regions and of their classes, source by source.

    folder: whose group is cut, and clustered where classes are asked for.

    Several threads may ask at once.
    """

    def __init__(
        self, folder: RunFolder, group: int, columns: Sequence[str], classes: Sequence[str] = ()
    ) -> None:
        self._folder, self._group = folder, group
        self._rows = rows_by_source(folder.regions(group))
        self._tables = [read_table(folder.regions(group), list(columns))] if columns else []
        if classes:
            self._tables.append(self._class_table(classes))
        self._regions = _Table(folder.regions(group))
        self._borders = _Table(folder.borders(group))
        self._classes = _Table(folder.region_classes(group))
        self._border_rows: dict[int, range] | None = None  # not read before they are asked for

    def rows_of(self, source_index: int) -> range:
        """The rows of a source's regions in the group's tables."""
        return self._rows.get(source_index, range(0))

    def of_source(self, source_index: int) -> pa.Table:
        """The regions of one source, in the order of their numbers."""
        rows = self.rows_of(source_index)
        parts = [table.slice(rows.start, len(rows)) for table in self._tables]
        return pa.table({name: part[name] for part in parts for name in part.column_names})

    def borders_of(self, source_index: int) -> Iterator[pa.Table]:
        """Which regions of a source touch, table by table."""
        if self._border_rows is None:
            self._border_rows = rows_by_source(self._folder.borders(self._group))
        rows = self._border_rows.get(source_index, range(0))
        return self._borders.rows(rows, BORDER_SCHEMA.names[1:])

    def columns_of(self, source_index: int, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Other columns of a source's regions, table by table in the order of their numbers."""
        return self._regions.rows(self.rows_of(source_index), columns)

    def column(self, source_index: int, name: str) -> np.ndarray:
        """A column of numbers of a source's regions, (R,); nothing else of the table is held."""
        rows, parts = self.rows_of(source_index), self.columns_of(source_index, [name])
        return _filled(len(rows), (part.column(name).to_numpy() for part in parts))

    def class_column(self, source_index: int, name: str) -> np.ndarray:
        """A column of the classes of a source's regions, (R,), likewise.

        Raises RunFolderError where the group's classes are of other regions.
        """
        self._refuse_others(self._classes.count([name]))
        rows = self.rows_of(source_index)
        parts = self._classes.rows(rows, [name])
        return _filled(len(rows), (part.column(name).to_numpy() for part in parts))

    def _class_table(self, names: Sequence[str]) -> pa.Table:
        table = read_table(self._folder.region_classes(self._group), list(names))
        self._refuse_others(table.num_rows)
        return table

    def _refuse_others(self, rows: int) -> None:
        if rows != sum(map(len, self._rows.values())):
            path = self._folder.region_classes(self._group)
            raise self._folder.damaged(path, "it is of other regions")


class _Table:
    """A table of which some rows are read at a time; the row groups read last are kept, unless
    they are large.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ends: np.ndarray | None = None  # (G,) rows up to the end of each row group
        self._kept: OrderedDict[tuple[int, tuple[str, ...]], pa.Table] = OrderedDict()
        self._lock = threading.Lock()

    def count(self, columns: Sequence[str]) -> int:
        """How many rows it has. Raises RunFolderError where it lacks a column."""
        ends = self._ends_of_groups(columns)
        return int(ends[-1]) if len(ends) else 0

    def rows(self, rows: range, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Some rows, row group by row group. Raises RunFolderError where it cannot be read."""
        ends = self._ends_of_groups(columns)
        first, last = np.searchsorted(ends, [rows.start, rows.stop - 1], side="right")
        for number in range(first, min(last + 1, len(ends)) if rows else first):
            begin = int(ends[number - 1]) if number else 0
            start, stop = max(rows.start - begin, 0), min(rows.stop, int(ends[number])) - begin
            yield self._row_group(number, tuple(columns)).slice(start, stop - start)

    def _ends_of_groups(self, columns: Sequence[str]) -> np.ndarray:
        with self._lock:
            if self._ends is None:
                with open_table(self._path, columns) as file:
                    about = file.metadata
                    counts = [about.row_group(i).num_rows for i in range(file.num_row_groups)]
                self._ends = np.cumsum(counts, dtype=np.int64)
            return self._ends

    def _row_group(self, number: int, columns: tuple[str, ...]) -> pa.Table:
        key = number, columns
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            with open_table(self._path, columns) as file:
                table = file.read_row_group(number, list(columns)).combine_chunks()
            if table.nbytes <= KEPT_BYTES // 4:
                self._kept[key] = table
                while sum(kept.nbytes for kept in self._kept.values()) > KEPT_BYTES:
                    self._kept.popitem(last=False)
            return table


def _filled(count: int, parts: Iterable[np.ndarray]) -> np.ndarray:
    """Parts of ``count`` values in all as one; no two copies of them are held."""
    found, start = np.zeros(0, np.int32), 0
    for part in parts:
        if not start:
            found = np.empty(count, part.dtype)
        found[start : start + len(part)] = part
        start += len(part)
    return found
