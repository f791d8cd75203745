"""The regions of single sources, out of the tables of their groups."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.region_schemas import BORDER_SCHEMA
from alps.engine.run_folder.tables import open_table, read_table, rows_by_source


class GroupTables:
    """Some columns of a group's regions and of their classes, source by source.

    folder: whose group is cut, and clustered where classes are asked for.
    """

    def __init__(
        self, folder: RunFolder, group: int, columns: Sequence[str], classes: Sequence[str] = ()
    ) -> None:
        self._folder, self._group = folder, group
        self._rows = rows_by_source(folder.regions(group))
        self._tables = [read_table(folder.regions(group), list(columns))] if columns else []
        if classes:
            self._tables.append(self._class_table(classes))

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
        return _rows_of(self._folder.borders(self._group), source_index, BORDER_SCHEMA.names[1:])

    def columns_of(self, source_index: int, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Other columns of a source's regions, table by table in the order of their numbers."""
        return _rows_of(self._folder.regions(self._group), source_index, columns)

    def column(self, source_index: int, name: str) -> np.ndarray:
        """A column of numbers of a source's regions, (R,); nothing else of the table is held."""
        rows, parts = self.rows_of(source_index), self.columns_of(source_index, [name])
        return _filled(len(rows), (part.column(name).to_numpy() for part in parts))

    def class_column(self, source_index: int, name: str) -> np.ndarray:
        """A column of the classes of a source's regions, (R,), likewise.

        Raises RunFolderError where the group's classes are of other regions.
        """
        rows, path = self.rows_of(source_index), self._folder.region_classes(self._group)
        with open_table(path, [name]) as file:
            self._refuse_others(file.metadata.num_rows)
            return _filled(len(rows), _between(file, rows, name))

    def _class_table(self, names: Sequence[str]) -> pa.Table:
        table = read_table(self._folder.region_classes(self._group), list(names))
        self._refuse_others(table.num_rows)
        return table

    def _refuse_others(self, rows: int) -> None:
        if rows != sum(map(len, self._rows.values())):
            path = self._folder.region_classes(self._group)
            raise self._folder.damaged(path, "it is of other regions")


def _filled(count: int, parts: Iterable[np.ndarray]) -> np.ndarray:
    """Parts of ``count`` values in all as one; no two copies of them are held."""
    found, start = np.zeros(0, np.int32), 0
    for part in parts:
        if not start:
            found = np.empty(count, part.dtype)
        found[start : start + len(part)] = part
        start += len(part)
    return found


def _between(file: pq.ParquetFile, rows: range, name: str) -> Iterator[np.ndarray]:
    """Some rows of a column, row group by row group."""
    first = 0
    for number in range(file.num_row_groups):
        end = first + file.metadata.row_group(number).num_rows
        if first < rows.stop and end > rows.start:
            values = file.read_row_group(number, [name]).column(0).to_numpy()
            yield values[max(rows.start - first, 0) : rows.stop - first]
        first = end


def _rows_of(path: Path, source_index: int, columns: Sequence[str]) -> Iterator[pa.Table]:
    with open_table(path) as file:
        for number in range(file.num_row_groups):
            table = file.read_row_group(number, ["source_index", *columns])
            index = table.column("source_index").to_numpy()
            start, end = np.searchsorted(index, [source_index, source_index + 1])
            if end > start:
                yield table.slice(start, end - start).combine_chunks()
