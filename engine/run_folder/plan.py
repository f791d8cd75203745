"""The plan of a run: every window of every source, fixed before the first one is read.

It is read block by block, so that memory does not grow with the archive.
"""

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from operator import attrgetter
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa

from alps.engine.base.errors import RunFolderError, SourceError
from alps.engine.images.raster import RasterReader
from alps.engine.images.windows import Window
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.schemas import PLAN_SCHEMA
from alps.engine.run_folder.tables import BLOCK_ROWS, SIDES, open_table, refuse_places, write_tables

# Tiles that are committed together. A killed run loses at most this much work.
SHARD_TILES = 32
# Shards of more tiles keep an archive's files countable: from so many shards on they are twice as
# large, up to a size of which the segments still fit in memory.
MOST_SHARDS, LARGEST_SHARD = 4096, 256
SHARD_KEY = b"shard_tiles"  # in the plan's metadata, where they are larger
AT_ONCE = 1 << 10  # rows that are made into tiles together
KEPT = 2  # blocks in memory: a source may lie in two
# Where windows lie in their sources.
EXTENT_COLUMNS = (
    "source_index", "x", "y", "width", "height", "source_width", "source_height", "reason",
)  # fmt: skip


# Of a source that could not be opened at first: it has another number, and its windows, there.
MOVED = "could be opened later: it is source "


@dataclass(frozen=True)
class PlannedTile:
    """One window of one source, or a source that could not be opened (``reason``)."""

    tile_id: int
    source_index: int
    source: str
    path: str
    label: str
    source_width: int
    source_height: int
    x: int
    y: int
    width: int
    height: int
    reason: str

    @property
    def window(self) -> Window:
        """Where it lies in its source."""
        return Window(self.x, self.y, self.width, self.height)

    @property
    def is_moved(self) -> bool:
        """Whether its source has another number by now, under which it could be opened."""
        return self.reason.startswith(MOVED)

    def row(self) -> dict:
        """The columns that the plan shares with tiles.parquet."""
        return {name: getattr(self, name) for name in PLAN_SCHEMA.names if name != "reason"}


@dataclass(frozen=True)
class Group:
    """Sources that begin in one shard; they are cut, classed and kept together."""

    number: int  # of that shard
    sources: list[list[PlannedTile]]  # the tiles of each


class Plan:
    """The tiles of a run by their numbers, sources one after the other, read block by block.

    Raises RunFolderError where it cannot be read, or is not what was written.
    """

    def __init__(self, kept: Path | pa.Table) -> None:
        """``kept``: the file, or a table with PLAN_SCHEMA."""
        self._kept = kept
        self._blocks: OrderedDict[int, pa.Table] = OrderedDict()
        if isinstance(kept, pa.Table):
            self._ends, metadata = np.array([len(kept)], np.int64), kept.schema.metadata
            self._lasts = [_last_source(kept)]
        else:
            with open_table(kept, PLAN_SCHEMA.names) as file:
                about, metadata = file.metadata, file.schema_arrow.metadata
                groups = [about.row_group(index) for index in range(about.num_row_groups)]
                column = file.schema_arrow.get_field_index("source_index")
                known = [group.column(column).statistics for group in groups]
                # The last source of each block, so that one is found without reading others.
                self._lasts = [
                    _last_source(file.read_row_group(number, ["source_index"]))
                    if found is None or not found.has_min_max
                    else int(found.max)
                    for number, found in enumerate(known)
                ]
            self._ends = np.cumsum([group.num_rows for group in groups], dtype=np.int64)
        self.tiles = int(self._ends[-1]) if len(self._ends) else 0
        self.shard_tiles = _shard_tiles(kept, metadata or {})

    @classmethod
    def of(cls, folder: RunFolder) -> Self:
        """That of a run."""
        return cls(folder.plan)

    @property
    def shards(self) -> int:
        """How many shards it falls into."""
        return -(-self.tiles // self.shard_tiles)

    @property
    def sources_count(self) -> int:
        """How many sources it is of; they are numbered through."""
        return self._lasts[-1] + 1 if self.tiles else 0

    def shard_of(self, tile_id: int) -> int:
        """The shard in which a tile is committed."""
        return tile_id // self.shard_tiles

    def ids_of(self, shard: int) -> range:
        """The tiles that are committed together as ``shard``."""
        return range(shard * self.shard_tiles, min((shard + 1) * self.shard_tiles, self.tiles))

    def shards_of(self, first: int, end: int) -> range:
        """The shards in which tiles ``first`` to ``end`` - 1 lie; there is at least one."""
        return range(first // self.shard_tiles, (end - 1) // self.shard_tiles + 1)

    def tiles_of(self, shard: int) -> list[PlannedTile]:
        """The tiles that are committed together as ``shard``."""
        ids = self.ids_of(shard)
        return self.planned(ids.start, ids.stop)

    def tile(self, tile_id: int) -> PlannedTile:
        """One tile."""
        return self.planned(tile_id, tile_id + 1)[0]

    def planned(self, first: int, end: int) -> list[PlannedTile]:
        """Tiles ``first`` to ``end`` - 1."""
        return _planned(self.rows(first, end))

    def rows(self, first: int, end: int, columns: Sequence[str] = ()) -> pa.Table:
        """Rows ``first`` to ``end`` - 1; columns: those that are wanted, all by default."""
        parts = []
        number = int(np.searchsorted(self._ends, first, side="right"))
        while first < min(end, self.tiles):
            start = int(self._ends[number - 1]) if number else 0
            last = min(end, int(self._ends[number]))
            parts.append(self._block(number).slice(first - start, last - first))
            first, number = last, number + 1
        table = pa.concat_tables(parts or [PLAN_SCHEMA.empty_table()])
        return table.select(list(columns)) if columns else table

    def blocks(self, columns: Sequence[str] = ()) -> Iterator[pa.Table]:
        """All rows, some thousands at a time."""
        for start in range(0, self.tiles, BLOCK_ROWS):
            yield self.rows(start, start + BLOCK_ROWS, columns)

    def column(self, name: str) -> np.ndarray:
        """A column of numbers of all tiles: this alone grows with the archive."""
        parts = [block.column(0).to_numpy() for block in self.blocks([name])]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)

    def sources(self) -> Iterator[list[PlannedTile]]:
        """The tiles of each source in turn."""
        for _, tiles in groupby(self._all(), attrgetter("source_index")):
            yield list(tiles)

    def firsts(self) -> Iterator[PlannedTile]:
        """The first tile of each source in turn."""
        for block, starts in self._starts():
            for start in range(0, len(starts), AT_ONCE):
                yield from _planned(block.take(pa.array(starts[start : start + AT_ONCE])))

    def groups(self) -> Iterator[Group]:
        """Groups of sources in turn; some shards begin none."""
        for number, sources in groupby(self.sources(), self.group_of):
            yield Group(number, list(sources))

    def group_numbers(self) -> list[int]:
        """The shards in which sources begin."""
        found = [
            np.unique(block.column("tile_id").to_numpy()[starts] // self.shard_tiles)
            for block, starts in self._starts()
        ]
        return np.unique(np.concatenate(found)).tolist() if found else []

    def group(self, number: int) -> Group:
        """The sources that begin in a shard."""
        ids = self.ids_of(number)
        index = self.rows(ids.start, ids.stop, ["source_index"]).column(0).to_numpy()
        before = self.tile(ids.start - 1).source_index if ids.start else -1
        own = index[index != before]
        if not len(own):
            return Group(number, [])
        first = ids.start + int(np.argmax(index != before))
        rows = self.rows_of_source(int(own[-1]))
        part = Plan(self.rows(first, rows.stop))
        return Group(number, list(part.sources()))

    def group_of(self, tiles: Sequence[PlannedTile]) -> int:
        """The group of a source, given its tiles: the shard in which it begins."""
        return self.shard_of(tiles[0].tile_id)

    def rows_of_source(self, source_index: int) -> range:
        """The tiles of a source; none where there is no such source."""
        low, high = (self._first_at_least(source_index + step) for step in (0, 1))
        return range(low, high)

    def tiles_of_source(self, source_index: int) -> list[PlannedTile]:
        """The tiles of a source, in their order."""
        rows = self.rows_of_source(source_index)
        return self.planned(rows.start, rows.stop)

    def _first_at_least(self, source_index: int) -> int:
        """The first tile of a source of this number or a higher one."""
        number = bisect_left(self._lasts, source_index)
        if number == len(self._ends):
            return self.tiles
        start = int(self._ends[number - 1]) if number else 0
        index = self._block(number).column("source_index").to_numpy()
        return start + int(np.searchsorted(index, source_index))

    def _starts(self) -> Iterator[tuple[pa.Table, np.ndarray]]:
        """Blocks of the plan, each with its rows in which a source begins."""
        before = -1
        for block in self.blocks():
            index = block.column("source_index").to_numpy()
            yield block, np.flatnonzero(np.diff(index, prepend=before))
            before = int(index[-1])

    def _all(self) -> Iterator[PlannedTile]:
        for start in range(0, self.tiles, AT_ONCE):
            yield from self.planned(start, start + AT_ONCE)

    def _block(self, number: int) -> pa.Table:
        if isinstance(self._kept, pa.Table):
            return self._kept
        if number not in self._blocks:
            with open_table(self._kept, PLAN_SCHEMA.names) as file:
                table = file.read_row_group(number, PLAN_SCHEMA.names)
                table.validate(full=True)  # lengths, offsets, UTF-8
            start = int(self._ends[number - 1]) if number else 0
            refuse_places(self._kept, table, start)
            if (np.diff(table["source_index"].to_numpy()) < 0).any():
                raise RunFolderError(
                    f"cannot read {self._kept}: its sources are not in order; alps verify OUT "
                    "--repair makes it again"
                )
            while len(self._blocks) >= KEPT:
                self._blocks.popitem(last=False)
            self._blocks[number] = table
        self._blocks.move_to_end(number)
        return self._blocks[number]


def shard_tiles_for(tiles: int) -> int:
    """Tiles of a shard, for a run of so many."""
    size = SHARD_TILES
    while tiles > MOST_SHARDS * size and size < LARGEST_SHARD:
        size *= 2
    return size


def write_plan(path: Path, tables: Iterable[pa.Table], shard_tiles: int | None = None) -> None:
    """Write a plan whole or not at all, block by block; the same rows give the same bytes.

    tables: with PLAN_SCHEMA, rows in order. shard_tiles: tiles of a shard; None: SHARD_TILES.
    """
    write_tables(chain([PLAN_SCHEMA.empty_table()], tables), path, plan_metadata(shard_tiles))


def plan_metadata(shard_tiles: int | None) -> dict[bytes, str] | None:
    """What a plan's file says beside its rows."""
    return None if shard_tiles in (None, SHARD_TILES) else {SHARD_KEY: str(shard_tiles)}


def check_size(reader: RasterReader, planned: PlannedTile) -> None:
    """Raise SourceError where a source is no longer of the size it was planned with."""
    if (reader.width, reader.height) != (planned.source_width, planned.source_height):
        raise SourceError(
            f"{planned.path} is now {reader.width} x {reader.height} pixels, but the run was "
            f"planned for {planned.source_width} x {planned.source_height}; give it another OUT"
        )


def refuse_partial(plan: Plan) -> None:
    """Raise RunFolderError for a plan whose windows leave out a part of a source."""
    waiting = PLAN_SCHEMA.empty_table().select(EXTENT_COLUMNS)
    for block in plan.blocks(EXTENT_COLUMNS):
        rows = pa.concat_tables([waiting, block])
        index = rows.column("source_index").to_numpy()
        # The last source may go on in the next block.
        whole_rows = int(np.searchsorted(index, index[-1]))
        _refuse_partial(rows.slice(0, whole_rows))
        waiting = rows.slice(whole_rows)
    _refuse_partial(waiting)


def _refuse_partial(rows: pa.Table) -> None:
    values = {name: rows.column(name).to_numpy().astype(np.int64) for name in EXTENT_COLUMNS[:-1]}
    index = values["source_index"]
    starts = np.flatnonzero(np.diff(index, prepend=-1))
    partial = np.zeros(len(starts), bool)
    for first, length, most in SIDES:
        if len(starts):
            ends = np.maximum.reduceat(values[first] + values[length], starts)
            partial |= np.minimum.reduceat(values[first], starts) > 0
            partial |= ends != values[most][starts]
    for start in starts[partial].tolist():
        if not rows.column("reason")[start].as_py():
            raise RunFolderError(
                f"the plan of this run has not all windows of source {index[start]}; alps verify "
                "OUT --repair makes it again"
            )


def _last_source(rows: pa.Table) -> int:
    return int(rows["source_index"][-1].as_py()) if len(rows) else -1


def _planned(rows: pa.Table) -> list[PlannedTile]:
    return [PlannedTile(**row) for row in rows.to_pylist()]


def _shard_tiles(kept: Path | pa.Table, metadata: dict[bytes, bytes]) -> int:
    text = metadata.get(SHARD_KEY)
    if text is None:
        return SHARD_TILES
    if not text.isdigit() or not SHARD_TILES <= int(text) <= LARGEST_SHARD:
        raise RunFolderError(
            f"cannot read {kept}: it says that shards have {text.decode('ascii', 'replace')} "
            "tiles; alps verify OUT --repair makes it again"
        )
    return int(text)
