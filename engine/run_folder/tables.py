"""Parquet files of a run folder: written whole, read whole or in parts.

What is read may come from elsewhere, its checksum with it: types, absent values and the numbers
that others are counted by are looked at first.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from alps.engine.base.atomic import whole
from alps.engine.base.errors import RunFolderError
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.region_schemas import BORDER_SCHEMA, OBJECT_SCHEMA, REGION_SCHEMA
from alps.engine.run_folder.schemas import (
    CLASS_SCHEMA,
    PLAN_SCHEMA,
    PREDICTED_SCHEMA,
    TILE_SCHEMA,
    segment_schema,
)
from alps.engine.run_folder.sums import folder_of, record, refuse_damaged

BLOCK_ROWS = 1 << 14  # of a table that is written in parts
READING = (OSError, pa.ArrowException, UnicodeDecodeError)
# Of the tables in a run folder, by folder and name.
SCHEMAS: tuple[tuple[str, pa.Schema], ...] = (
    (r"journal/plan\.parquet", PLAN_SCHEMA),
    (r"(journal/(tiles|kept)-\d+|.*/tiles)\.parquet", TILE_SCHEMA),
    (r"segments/part-\d+\.parquet", segment_schema(1)),
    (r"regions/part-\d+\.parquet", REGION_SCHEMA),
    (r"regions/borders-\d+\.parquet", BORDER_SCHEMA),
    (r"regions/objects-\d+\.parquet", OBJECT_SCHEMA),
    (r"predicted/part-\d+\.parquet", PREDICTED_SCHEMA),
    (r"clusters/part-\d+\.parquet", CLASS_SCHEMA),
)
# Windows, as others are counted and cut by them.
SIDES = (("x", "width", "source_width"), ("y", "height", "source_height"))


def write_table(table: pa.Table, path: Path) -> None:
    """Write a Parquet file whole or not at all; the same table gives the same bytes."""
    with whole(path) as part:
        pq.write_table(table, part, compression="zstd")
    note_table(path)


def write_tables(
    tables: Iterable[pa.Table], path: Path, metadata: dict[bytes, str] | None = None
) -> None:
    """Write tables of one kind as one, one after the other; memory is a block of rows.

    Raises RunFolderError where their columns differ.
    """
    with whole(path) as part:
        write_blocks(tables, part, metadata)
    note_table(path)


def write_blocks(
    tables: Iterable[pa.Table], part: Path, metadata: dict[bytes, str] | None = None
) -> None:
    """Write tables as ``write_tables`` into a file that has no name yet."""
    with ExitStack() as stack:
        writer: pq.ParquetWriter | None = None
        for rows in in_blocks(tables):
            rows = rows.replace_schema_metadata(metadata)
            if writer is None:
                writer = pq.ParquetWriter(part, rows.schema, compression="zstd")
                stack.enter_context(writer)
            writer.write_table(rows)


def in_blocks(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The rows of tables, BLOCK_ROWS at a time, the last fewer; one table of none without any."""
    waiting: list[pa.Table] = []
    held, is_first = 0, True
    for table in tables:
        waiting.append(table)
        held += len(table)
        while held >= BLOCK_ROWS:
            rows = joined(waiting)
            yield rows.slice(0, BLOCK_ROWS)
            waiting, held, is_first = [rows.slice(BLOCK_ROWS)], held - BLOCK_ROWS, False
    if waiting and (held or is_first):
        yield joined(waiting)


def note_table(path: Path) -> None:
    """Keep the checksum of a table that has just got its name, where it lies in a run folder."""
    if folder := folder_of(path):
        record(folder, path)


@contextmanager
def open_table(path: Path, columns: Sequence[str] = ()) -> Iterator[pq.ParquetFile]:
    """A Parquet file of the run folder, to be read in parts; memory is what is asked for.

    columns: that must be there.

    Raises RunFolderError where it cannot be read, or is not what was written.
    """
    refuse_damaged(path)
    try:
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:
            if lacking := sorted(set(columns) - set(file.schema_arrow.names)):
                raise _unreadable(path, f"it has no column {lacking[0]}")
            _refuse_strange(path, file.schema_arrow)
            _refuse_absent(path, file.metadata)
            yield file
    except READING as error:
        raise _unreadable(path, error) from error
    except KeyError as error:
        if "does not exist in schema" not in str(error):
            raise
        raise _unreadable(path, error.args[0]) from error


def read_table(
    path: Path, columns: list[str] | None = None, where: tuple[str, Sequence[int]] | None = None
) -> pa.Table:
    """Read a Parquet file of the run folder. Errors as ``open_table``'s.

    where: a column, and its values in the rows that are wanted; None: all.
    """
    is_vouched_for = refuse_damaged(path)
    filters = [(where[0], "in", where[1])] if where else None
    try:
        # One file is one table; partitioning="hive" would read names of folders as columns.
        table = pq.read_table(path, columns=columns, filters=filters, partitioning=None)
        if not is_vouched_for:
            table.validate(full=True)  # lengths, offsets, UTF-8
    except READING as error:
        raise _unreadable(path, error) from error
    known = _schema_of(path)
    needed = columns or (known.names if known in (PLAN_SCHEMA, OBJECT_SCHEMA) else ())
    if lacking := sorted(set(needed) - set(table.column_names)):
        raise _unreadable(path, f"it has no column {lacking[0]}")
    _refuse_strange(path, table.schema)
    for name in table.column_names:
        if table.column(name).null_count:
            raise _unreadable(path, f"its column {name} lacks values")
    refuse_places(path, table, None if where else 0)
    return table


def table_blocks(path: Path, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Some columns of a Parquet file of the run folder, a row group at a time; errors likewise."""
    with open_table(path, columns) as file:
        start = 0
        for number in range(file.num_row_groups):
            table = file.read_row_group(number, list(columns))
            table.validate(full=True)
            refuse_places(path, table, start)
            yield table
            start += len(table)


def joined(tables: Sequence[pa.Table]) -> pa.Table:
    """Tables of one kind, one after the other. Raises RunFolderError where columns differ."""
    try:
        return pa.concat_tables(tables)
    except pa.ArrowInvalid as error:
        raise RunFolderError(
            "tables of this run that should have the same columns have not; alps verify OUT "
            "--repair finds what is damaged"
        ) from error


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


def _schema_of(path: Path) -> pa.Schema:
    """What a run writes under a name; no fields for what is none of its tables."""
    name, nothing = f"{path.parent.name}/{path.name}", pa.schema([])
    return next((known for pattern, known in SCHEMAS if re.fullmatch(pattern, name)), nothing)


def _refuse_strange(path: Path, found: pa.Schema) -> None:
    """Raise RunFolderError for a column that is of another type than what a run writes."""
    schema = _schema_of(path)
    for field in found:
        at = schema.get_field_index(field.name)
        if at < 0:  # of another version, and read by nobody
            continue
        wanted, kind = schema.field(at).type, field.type
        if pa.types.is_fixed_size_list(wanted) and pa.types.is_fixed_size_list(kind):
            wanted, kind = wanted.value_type, kind.value_type  # the model's number of values
        if kind != wanted:
            raise _unreadable(path, f"its column {field.name} is {kind}, not {wanted}")


def _refuse_absent(path: Path, about: pq.FileMetaData) -> None:
    """Raise RunFolderError where a row group says that values of a plain column are absent."""
    for group in range(about.num_row_groups):
        rows = about.row_group(group)
        for number in range(rows.num_columns):
            column = rows.column(number)
            counts = column.statistics
            plain = "." not in column.path_in_schema  # an empty list counts as absent
            if plain and counts is not None and counts.has_null_count and counts.null_count:
                raise _unreadable(path, f"its column {column.path_in_schema} lacks values")


def refuse_places(path: Path, table: pa.Table, start: int | None = 0) -> None:
    """Raise RunFolderError for tiles that lie outside their sources, or are not numbered through.

    start: row of the file in which the table begins; None: it is some of its rows.
    """
    if "source_width" not in table.column_names:
        return
    values = {
        name: table.column(name).to_numpy().astype(np.int64)
        for name in ("tile_id", "source_index", *(name for side in SIDES for name in side))
        if name in table.column_names
    }
    for name, found in values.items():
        if (found < 0).any():
            raise _unreadable(path, f"its column {name} holds {found.min()}")
    for first, length, most in SIDES:
        if {first, length, most} <= values.keys() and (
            (values[first] + values[length] > values[most]).any()
        ):
            raise _unreadable(path, f"a tile lies outside its source, by {first} and {length}")
    tiles = values.get("tile_id", np.zeros(0, np.int64))
    if start is None or not len(tiles):
        return
    # Tables of shards begin anywhere.
    begin = start or tiles[0]
    if (tiles != begin + np.arange(len(tiles))).any():
        raise _unreadable(path, "its tiles are not numbered one after the other")


def _unreadable(path: Path, why: Exception | str) -> RunFolderError:
    mend = (folder_of(path) or RunFolder(path.parent)).how_made_again(path)
    return RunFolderError(f"cannot read {path}: {' '.join(str(why).split())}; {mend}")
