"""Parquet files of a run folder: written whole, read whole or in parts."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from alps.engine.base.atomic import whole
from alps.engine.base.errors import RunFolderError
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.sums import folder_of, record, refuse_damaged


def write_table(table: pa.Table, path: Path) -> None:
    """Write a Parquet file whole or not at all; the same table gives the same bytes."""
    with whole(path) as part:
        pq.write_table(table, part, compression="zstd")
    note_table(path)


def note_table(path: Path) -> None:
    """Keep the checksum of a table that has just got its name, where it lies in a run folder."""
    if folder := folder_of(path):
        record(folder, path)


@contextmanager
def open_table(path: Path) -> Iterator[pq.ParquetFile]:
    """A Parquet file of the run folder, to be read in parts; memory is what is asked for.

    Raises RunFolderError where it cannot be read, or is not what was written.
    """
    refuse_damaged(path)
    try:
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:
            yield file
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error


def read_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Read a Parquet file of the run folder. Errors as ``open_table``'s."""
    refuse_damaged(path)
    try:
        # One file is one table; partitioning="hive" would read names of folders as columns.
        table = pq.read_table(path, columns=columns, partitioning=None)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error
    if lacking := sorted(set(columns or ()) - set(table.column_names)):
        raise _unreadable(path, f"it has no column {lacking[0]}")
    return table


def rows_by_source(path: Path) -> dict[int, range]:
    """The rows of each source in a table that has them source by source; memory is a row group."""
    found: dict[int, range] = {}
    first = 0
    with open_table(path) as file:
        for number in range(file.num_row_groups):
            index = file.read_row_group(number, ["source_index"]).column(0).to_numpy()
            for name, count in zip(*np.unique(index, return_counts=True), strict=True):
                rows = found.get(int(name), range(first, first))
                found[int(name)] = range(rows.start, first + int(count))
                first += int(count)
    return found


def _unreadable(path: Path, why: Exception | str) -> RunFolderError:
    mend = (folder_of(path) or RunFolder(path.parent)).how_made_again(path)
    return RunFolderError(f"cannot read {path}: {' '.join(str(why).split())}; {mend}")
