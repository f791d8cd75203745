"""The regions of single sources, out of the tables of their groups."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

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

    def _class_table(self, names: Sequence[str]) -> pa.Table:
        table = read_table(self._folder.region_classes(self._group), list(names))
        if table.num_rows != sum(map(len, self._rows.values())):
            raise self._folder.damaged(
                self._folder.region_classes(self._group), "it is of other regions"
            )
        return table


def _rows_of(path: Path, source_index: int, columns: Sequence[str]) -> Iterator[pa.Table]:
    with open_table(path) as file:
        for number in range(file.num_row_groups):
            table = file.read_row_group(number, ["source_index", *columns])
            index = table.column("source_index").to_numpy()
            start, end = np.searchsorted(index, [source_index, source_index + 1])
            if end > start:
                yield table.slice(start, end - start).combine_chunks()
