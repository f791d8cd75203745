"""Parquet files of a run folder: written whole, read whole or in parts."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from alps.engine.base.atomic import whole
from alps.engine.base.errors import RunFolderError


def write_table(table: pa.Table, path: Path) -> None:
    """Write a Parquet file whole or not at all; the same table gives the same bytes."""
    with whole(path) as part:
        pq.write_table(table, part, compression="zstd")


@contextmanager
def open_table(path: Path) -> Iterator[pq.ParquetFile]:
    """A Parquet file of the run folder, to be read in parts; memory is what is asked for."""
    try:
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:
            yield file
    except (OSError, pa.ArrowInvalid) as error:
        raise _unreadable(path, error) from error


def read_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Read a Parquet file of the run folder."""
    try:
        # One file is one table; partitioning="hive" would read names of folders as columns.
        return pq.read_table(path, columns=columns, partitioning=None)
    except (OSError, pa.ArrowInvalid) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> RunFolderError:
    return RunFolderError(
        f"cannot read {path}: {error}; if it is one of segments/, delete it and give the "
        "command that made it again: its tiles are segmented anew"
    )
