"""The regions of single sources, out of the tables of their groups."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa

from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.region_schemas import BORDER_SCHEMA
from alps.engine.run_folder.tables import open_table, read_table


class GroupTables:
    """Some columns of a group's regions and of their classes, source by source.

    folder: whose group is cut, and clustered where classes are asked for.
    """

    def __init__(
        self, folder: RunFolder, group: int, columns: Sequence[str], classes: Sequence[str] = ()
    ) -> None:
        self._folder, self._group = folder, group
        self._regions = read_table(folder.regions(group), ["source_index", *columns])
        self._index = self._regions.column("source_index").to_numpy()
        for name, values in self._class_columns(classes):
            self._regions = self._regions.append_column(name, values)

    def of_source(self, source_index: int) -> pa.Table:
        """The regions of one source, in the order of their numbers."""
        start, end = np.searchsorted(self._index, [source_index, source_index + 1])
        return self._regions.slice(start, end - start)

    def borders_of(self, source_index: int) -> Iterator[pa.Table]:
        """Which regions of a source touch, table by table."""
        return _rows_of(self._folder.borders(self._group), source_index, BORDER_SCHEMA.names[1:])

    def rows_of(
        self, source_index: int, columns: Sequence[str], beside: Path | None = None
    ) -> Iterator[pa.Table]:
        """Other columns of a source's regions, table by table in the order of their numbers, and
        all of a file whose rows are the regions' too.
        """
        return _rows_of(self._folder.regions(self._group), source_index, columns, beside)

    def _class_columns(self, names: Sequence[str]) -> list[tuple[str, pa.ChunkedArray]]:
        if not names:
            return []
        table = read_table(self._folder.region_classes(self._group), list(names))
        if table.num_rows != self._regions.num_rows:
            raise self._folder.damaged(
                self._folder.region_classes(self._group), "it is of other regions"
            )
        return [(name, table.column(name)) for name in names]


def _rows_of(
    path: Path, source_index: int, columns: Sequence[str], beside: Path | None = None
) -> Iterator[pa.Table]:
    with ExitStack() as stack:
        file = stack.enter_context(open_table(path))
        other = beside and stack.enter_context(open_table(beside))
        for number in range(file.num_row_groups):
            table = file.read_row_group(number, ["source_index", *columns])
            index = table.column("source_index").to_numpy()
            start, end = np.searchsorted(index, [source_index, source_index + 1])
            if end == start:
                continue
            if other:
                more = other.read_row_group(number)
                for name in more.column_names:
                    table = table.append_column(name, more.column(name))
            yield table.slice(start, end - start).combine_chunks()
