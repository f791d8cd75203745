"""Segments and regions of a run as Arrow tables, with the names of their sources beside them.

Both come a file at a time, in the order of the run; memory is one file, and the plan.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from alps.engine.base.errors import RunFolderError, SettingsError
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.plan import Plan
from alps.engine.run_folder.region_schemas import OBJECT_SCHEMA, REGION_SCHEMA
from alps.engine.run_folder.schemas import CLASS_SCHEMA, TILE_SCHEMA, segment_schema
from alps.engine.run_folder.tables import read_table

# Of a segment's tile: the name here, and in the plan.
OF_TILE = {
    "source": "source",
    "tile_x": "x",
    "tile_y": "y",
    "tile_width": "width",
    "tile_height": "height",
}
SEGMENT_COLUMNS = (*OF_TILE, *segment_schema(1).names, "object")
REGION_COLUMNS = ("source", "region", *REGION_SCHEMA.names, *CLASS_SCHEMA.names)
TILE_COLUMNS = tuple(TILE_SCHEMA.names)


def chosen(columns: Sequence[str] | None, known: Sequence[str]) -> list[str]:
    """The columns that are asked for; None: all. Raises SettingsError for one that is not known."""
    if isinstance(columns, str):
        raise SettingsError(f"columns are given as a list: [{columns!r}]")
    for name in columns or ():
        if name not in known:
            raise SettingsError(f"there is no column {name!r}; there are {', '.join(known)}")
    return list(known if columns is None else dict.fromkeys(columns))


def segments_by_shard(folder: RunFolder, columns: Sequence[str]) -> Iterator[pa.Table]:
    """The segments of each shard of tiles in turn; columns: some of SEGMENT_COLUMNS.

    Raises RunFolderError where a file is damaged or not there.
    """
    plan = Plan.of(folder)
    stored = [name for name in segment_schema(1).names if name in columns]
    read = list(dict.fromkeys(["tile_id", "segment_id", *stored]))
    objects = _Objects(folder, plan)
    for shard in range(plan.shards):
        table = read_table(folder.segments(shard), read)
        rows = plan.ids_of(shard)
        tile = table.column("tile_id").to_numpy() - rows.start
        if len(tile) and not (tile.min() >= 0 and tile.max() < len(rows)):
            raise folder.damaged(folder.segments(shard), "it has segments of other tiles")
        tiles = plan.rows(rows.start, rows.stop).take(pa.array(tile))
        found = {name: table.column(name) for name in read}
        found |= {name: tiles.column(of_plan) for name, of_plan in OF_TILE.items()}
        if "object" in columns:
            found["object"] = objects.of(shard, rows, table)
        yield pa.table({name: found[name] for name in columns})


def regions_by_group(folder: RunFolder, columns: Sequence[str]) -> Iterator[pa.Table]:
    """The regions of each group of sources in turn; columns: some of REGION_COLUMNS.

    Raises RunFolderError where a file is damaged or not there.
    """
    plan = Plan.of(folder)
    stored = [name for name in REGION_SCHEMA.names if name in columns]
    classes = [name for name in CLASS_SCHEMA.names if name in columns]
    for group in plan.group_numbers():
        firsts = (tiles[0] for tiles in plan.group(group).sources)
        names = {first.source_index: first.source for first in firsts}
        path = _cut(folder, folder.regions(group))
        table = read_table(path, list(dict.fromkeys(["source_index", *stored])))
        index = table.column("source_index").to_numpy()
        if not set(np.unique(index).tolist()) <= names.keys():
            raise folder.damaged(path, "it has regions of other sources")
        found = {name: table.column(name) for name in table.column_names}
        own_names = pa.array([names[one] for one in index.tolist()], pa.string())
        found |= {"source": own_names, "region": pa.array(_numbers(index))}
        if classes:
            own = read_table(folder.region_classes(group), classes)
            if len(own) != len(table):
                raise folder.damaged(
                    folder.region_classes(group), f"it is of other regions than {path}"
                )
            found |= {name: own.column(name) for name in classes}
        yield pa.table({name: found[name] for name in columns})


class _Objects:
    """The object of each segment of a shard, out of the tables of its sources' groups."""

    def __init__(self, folder: RunFolder, plan: Plan) -> None:
        self._folder, self._plan = folder, plan
        # A shard's first source may have begun in another group; its others begin here.
        self._read = lru_cache(maxsize=2)(
            lambda group: read_table(_cut(folder, folder.objects(group)))
        )

    def of(self, shard: int, rows: range, segments: pa.Table) -> pa.ChunkedArray:
        """Of the segments of a shard's tiles, in their order."""
        index = self._plan.rows(rows.start, rows.stop, ["source_index"]).column(0).to_numpy()
        starts = (self._plan.rows_of_source(source).start for source in np.unique(index).tolist())
        groups = sorted({self._plan.shard_of(start) for start in starts})
        tables = [self._of_rows(group, rows) for group in groups]
        found = pa.concat_tables(tables) if tables else OBJECT_SCHEMA.empty_table()
        for name in ("tile_id", "segment_id"):
            if not found.column(name).equals(segments.column(name)):
                raise self._folder.damaged(
                    self._folder.objects(groups[-1]),
                    f"it is of other segments than {self._folder.segments(shard)}",
                )
        return found.column("object")

    def _of_rows(self, group: int, rows: range) -> pa.Table:
        table = self._read(group)
        tile = table.column("tile_id")
        own = pc.and_(pc.greater_equal(tile, rows.start), pc.less(tile, rows.stop))
        return table.filter(own)


def _numbers(source_index: np.ndarray) -> np.ndarray:
    """Numbers from 0 within each source, whose rows lie together."""
    rows = np.arange(len(source_index))
    is_first = np.diff(source_index, prepend=-1) != 0
    starts = np.maximum.accumulate(np.where(is_first, rows, 0)) if len(rows) else rows
    return (rows - starts).astype(np.int32)


def _cut(folder: RunFolder, path: Path) -> Path:
    """The path of a file of regions. Raises RunFolderError where no regions were cut yet."""
    if not path.exists():
        raise RunFolderError(
            f"{folder.root} has no {path.relative_to(folder.root).as_posix()}: its regions are not "
            f"cut yet; run: alps cluster {folder.root}"
        )
    return path
