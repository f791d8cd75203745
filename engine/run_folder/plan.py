"""The plan of a run: every window of every source, fixed before the first one is read."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from alps.engine.base.errors import RunFolderError, SourceError, printable
from alps.engine.base.failures import of_source
from alps.engine.base.progress import Progress
from alps.engine.images.archive import Survey
from alps.engine.images.raster import RasterReader
from alps.engine.images.reading import Reading
from alps.engine.images.sources import Source, label_names
from alps.engine.images.windows import Window, count_windows, plan_windows
from alps.engine.run_folder.schemas import PLAN_SCHEMA
from alps.engine.settings import FilledSourceSettings

# Tiles that are committed together. A killed run loses at most this much work.
SHARD_TILES = 32
# Where windows lie in their sources.
EXTENT_COLUMNS = (
    "source_index", "x", "y", "width", "height", "source_width", "source_height", "reason",
)  # fmt: skip
MOST_WINDOWS = 1_000_000  # of one source: a plan is made in memory


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

    def row(self) -> dict:
        """The columns that the plan shares with tiles.parquet."""
        return {name: getattr(self, name) for name in PLAN_SCHEMA.names if name != "reason"}


def make_plan(
    sources: list[Source], settings: FilledSourceSettings, survey: Survey | None = None
) -> pa.Table:
    """Open every source once for its size; one that cannot be opened is a row with a reason.

    survey: takes note of what the sources say, and knows how they are read.
    """
    reading = survey.reading if survey is not None else Reading(settings)
    placed: set[str] = set()  # names of what lies somewhere on Earth
    columns: dict[str, list] = {name: [] for name in PLAN_SCHEMA.names}
    with Progress(len(sources), "sources", "looking at sources") as progress:
        for index, source in enumerate(sources):
            reason, width, height = "", 0, 0
            windows = [Window(0, 0, 0, 0)]
            # Absolute: the report reads tiles again, from another working directory perhaps.
            opened = source.path if isinstance(source.path, str) else source.path.absolute()
            path = str(opened).encode("utf-8", "backslashreplace").decode()
            try:
                if path != str(opened):
                    raise SourceError(f"{path}: the file name is not UTF-8; rename it")
                with (
                    of_source(printable(source.name), "opening"),
                    RasterReader(source.path, reading) as reader,
                ):
                    width, height = reader.width, reader.height
                    if reader.is_georeferenced:
                        placed.add(source.name)
                    if survey is not None:
                        survey.add(printable(source.name), reader)
                    windows = windows_of(source, (width, height), settings)
            except SourceError as error:
                reason = str(error)
            for window in windows:
                row = (
                    len(columns["tile_id"]), index, printable(source.name), path,
                    source.label_name, width, height, window.x, window.y, window.width,
                    window.height, reason,
                )  # fmt: skip
                for name, value in zip(PLAN_SCHEMA.names, row, strict=True):
                    columns[name].append(value)
            progress.advance(1)
    # Only now is it known which of them are GeoTIFF.
    names = label_names((source.name for source in sources), placed)
    columns["label"] = [names[index] for index in columns["source_index"]]
    return pa.table(columns, schema=PLAN_SCHEMA)


def windows_of(
    source: Source, size: tuple[int, int], settings: FilledSourceSettings
) -> list[Window]:
    """The windows of a source of ``size`` (width, height). Raises SourceError for too many."""
    tiling = settings.tile, settings.overlap
    if (count := count_windows(*size, *tiling)) > MOST_WINDOWS:
        raise SourceError(
            f"{printable(source.path)} is {size[0]} x {size[1]} pixels, {count} windows; at most "
            f"{MOST_WINDOWS} are planned for one source: cut it in pieces, or give a larger --tile"
        )
    return plan_windows(*size, *tiling)


def check_size(reader: RasterReader, planned: PlannedTile) -> None:
    """Raise SourceError where a source is no longer of the size it was planned with."""
    if (reader.width, reader.height) != (planned.source_width, planned.source_height):
        raise SourceError(
            f"{planned.path} is now {reader.width} x {reader.height} pixels, but the run was "
            f"planned for {planned.source_width} x {planned.source_height}; give it another OUT"
        )


def shard_count(plan: pa.Table) -> int:
    """Number of shards the plan falls into."""
    return -(-plan.num_rows // SHARD_TILES)


def refuse_partial(plan: pa.Table) -> None:
    """Raise RunFolderError for a plan whose windows leave out a part of a source.

    plan: with EXTENT_COLUMNS.
    """
    values = {name: plan.column(name).to_numpy().astype(np.int64) for name in EXTENT_COLUMNS[:-1]}
    index = values["source_index"]
    starts = np.flatnonzero(np.diff(index, prepend=-1))
    partial = np.zeros(len(starts), bool)
    for first, length, most in (("x", "width", "source_width"), ("y", "height", "source_height")):
        if len(starts):
            ends = np.maximum.reduceat(values[first] + values[length], starts)
            partial |= np.minimum.reduceat(values[first], starts) > 0
            partial |= ends != values[most][starts]
    for start in starts[partial].tolist():
        if not plan.column("reason")[start].as_py():
            raise RunFolderError(
                f"the plan of this run has not all windows of source {index[start]}; alps verify "
                "OUT --repair makes it again"
            )


def shard_of(tile_id: int) -> int:
    """The shard in which a tile is committed."""
    return tile_id // SHARD_TILES


def rows_of_shard(plan: pa.Table, shard: int) -> range:
    """The rows of the plan that are committed together as ``shard``."""
    return range(shard * SHARD_TILES, min((shard + 1) * SHARD_TILES, plan.num_rows))


def shards_of_rows(first: int, end: int) -> range:
    """The shards in which rows ``first`` to ``end`` - 1 of a plan lie; there is at least one."""
    return range(first // SHARD_TILES, (end - 1) // SHARD_TILES + 1)


def tiles_of_shard(plan: pa.Table, shard: int) -> list[PlannedTile]:
    """The tiles that are committed together as ``shard``."""
    rows = plan.slice(shard * SHARD_TILES, SHARD_TILES).to_pylist()
    return [PlannedTile(**row) for row in rows]


def group_of(tiles: list[PlannedTile]) -> int:
    """The group of a source, given its tiles: the shard in which it begins."""
    return shard_of(tiles[0].tile_id)


def groups_of(plan: pa.Table) -> Iterator[tuple[int, list[list[PlannedTile]]]]:
    """Groups of sources in turn, each with the tiles of its sources; some shards begin none."""
    group: int | None = None
    sources: list[list[PlannedTile]] = []
    for tiles in sources_of(plan):
        if group is not None and group_of(tiles) != group:
            yield group, sources
            sources = []
        group = group_of(tiles)
        sources.append(tiles)
    if group is not None:
        yield group, sources


def sources_of(plan: pa.Table) -> Iterator[list[PlannedTile]]:
    """The tiles of each source in turn; the plan keeps them together."""
    index = plan.column("source_index").to_numpy()
    start = 0
    while start < len(index):
        end = start
        while end < len(index) and index[end] == index[start]:
            end += 1
        yield [PlannedTile(**row) for row in plan.slice(start, end - start).to_pylist()]
        start = end
