"""Regions: every source of the plan cut into what is classed and painted, group by group.

A group is the sources that begin in one shard. Its files appear whole, its table of regions last:
from then on it is done.
"""

import sys
from collections.abc import Collection, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from alps.engine.base.atomic import remove_folder, whole
from alps.engine.base.errors import SourceError
from alps.engine.base.failures import of_source
from alps.engine.base.progress import Progress
from alps.engine.images.reading import Reading
from alps.engine.images.sources import root_of
from alps.engine.images.tiff import whole_tiff
from alps.engine.planning.extend import forget_group
from alps.engine.regions.build import RegionRows
from alps.engine.regions.packing import NOWHERE
from alps.engine.regions.scenes import Result, Scene, cut_by_threads, or_raise
from alps.engine.regions.windows import COLUMNS, SourceWindows
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.items import reading_of
from alps.engine.run_folder.plan import Group, Plan
from alps.engine.run_folder.region_schemas import BORDER_SCHEMA, OBJECT_SCHEMA, REGION_SCHEMA
from alps.engine.run_folder.segment_store import SegmentStore
from alps.engine.run_folder.sums import forget_sums, is_whole, known_sums, record
from alps.engine.run_folder.tables import note_table, open_table
from alps.engine.stages.absences import Absences, can_be_read
from alps.engine.workers.protocol import Alone, Crew, Tell, nothing_to_tell
from alps.kernels.base.gpu import usable_gpu

RASTERS = "regions/rasters/"
ROW_GROUP = 1 << 16  # rows of a table that are written at once, at least


@dataclass(frozen=True)
class CutSettings:
    """What of a run's settings decides its regions."""

    reading: Reading | None
    superpixels: float
    absences: Absences = field(default_factory=Absences)
    on_gpu: bool = False  # where there is one that kernels can use; regions are the same

    @classmethod
    def of_run(cls, folder: RunFolder, run: dict[str, Any], on_gpu: bool = False) -> Self:
        """Those in run.json."""
        absences = Absences(root_of(run["source"]) if "source" in run else None)
        superpixels = run["settings"]["segment"]["superpixels"]
        return cls(reading_of(folder, run), superpixels, absences, on_gpu)


def uncut_again(folder: RunFolder, reading: Reading | None, retry: bool = False) -> list[int]:
    """Groups with a source that was away when it was cut, and can be read now.

    retry: or cannot.
    """
    return [
        group.number
        for group in Plan.of(folder).groups()
        if is_cut(folder, group.number)
        and any(
            not tiles[0].reason
            and not folder.region_raster(tiles[0].label).exists()
            and (retry or can_be_read(tiles[0], reading))
            for tiles in group.sources
        )
    ]


def groups_to_cut(folder: RunFolder) -> list[int]:
    """Groups of sources without regions."""
    return [group for group in Plan.of(folder).group_numbers() if not is_cut(folder, group)]


def is_cut(folder: RunFolder, group: int) -> bool:
    """Whether a group has its regions, and each of their files is there with all of its bytes."""
    paths = [folder.regions(group), folder.borders(group), folder.objects(group)]
    known = known_sums(folder, group)
    rasters = (folder.root / name for name in known if name.startswith(RASTERS))
    return all(is_whole(folder, path, group) for path in (*paths, *rasters))


def cut_archive(folder: RunFolder, settings: CutSettings, crew: Crew | None = None) -> None:
    """Cut all groups of sources that have no regions yet; all shards must be segmented."""
    groups, job = groups_to_cut(folder), CutGroups(folder.root, settings)
    with Progress(len(groups), "groups", "cutting") as progress:
        for _ in (crew or Alone()).carry_out(job, groups, nothing_to_tell):
            progress.advance(1)


@dataclass(frozen=True)
class CutGroups:
    """Groups to cut, as a job of a crew."""

    root: Path
    settings: CutSettings

    def run(self, numbers: Iterator[int], tell: Tell) -> Iterator[tuple[int, None]]:
        """See ``Job``."""
        folder = RunFolder(self.root)
        plan, store = Plan.of(folder), SegmentStore(folder, COLUMNS)
        for number in numbers:
            cut_group(folder, plan.group(number), store, self.settings)
            yield number, None

    def words(self, number: int) -> str:
        """See ``Job``."""
        return f"sources of group {number}"


def forget_regions(folder: RunFolder) -> None:
    """Delete all regions and their classes: segments that they were made of are not there."""
    for name in ("regions", "vectors", "clusters"):
        remove_folder(folder.root / name)


def forget_groups(folder: RunFolder, plan: Plan, again: Collection[int]) -> None:
    """Delete regions, and their classes, of sources of which tiles are segmented ``again``, or are
    missing; those of all others stay.
    """
    groups = {plan.shard_of(plan.rows_of_source(plan.tile(tile).source_index)[0]) for tile in again}
    for shard in range(plan.shards):
        if not is_whole(folder, folder.shard_tiles(shard)):
            ids = plan.ids_of(shard)
            index = np.unique(plan.rows(ids.start, ids.stop, ["source_index"])[0].to_numpy())
            groups.update(plan.shard_of(plan.rows_of_source(int(source))[0]) for source in index)
    for group in groups:
        forget_group(folder, group)


def regions_cut(folder: RunFolder) -> int:
    """How many regions a run has."""
    total = 0
    for group in Plan.of(folder).group_numbers():
        with open_table(folder.regions(group)) as file:
            total += file.metadata.num_rows
    return total


def cut_group(
    folder: RunFolder, sources: Group, store: SegmentStore, settings: CutSettings
) -> None:
    """Cut the sources of a group; one that cannot be read has no regions.

    Raises SourceAwayError where image after image is away.
    """
    group = sources.number
    folder.regions(group).parent.mkdir(parents=True, exist_ok=True)
    forget_sums(folder, group, RASTERS)  # of sources that cannot be read any more, perhaps
    with ExitStack() as stack:
        # Whole in the opposite order: the regions come last.
        regions, borders, objects = (
            stack.enter_context(_table(path, schema))
            for path, schema in (
                (folder.regions(group), REGION_SCHEMA),
                (folder.borders(group), BORDER_SCHEMA),
                (folder.objects(group), OBJECT_SCHEMA),
            )
        )
        tables = _Tables(regions, borders, objects)
        on_gpu = settings.on_gpu and usable_gpu()
        scenes = [
            Scene(tiles, store, settings.reading, settings.superpixels, on_gpu)
            for tiles in sources.sources
            if not tiles[0].reason
        ]
        # Closed, its threads have ended, whatever is raised here.
        cut = stack.enter_context(closing(cut_by_threads(scenes)))
        for scene, results in cut:
            failure = None
            try:
                with of_source(scene.name, "cutting"):
                    _write(folder, scene, results, tables)
                    record(folder, folder.region_raster(scene.tiles[0].label), group)
            except SourceError as error:  # it was readable when it was segmented
                failure = error
                print(f"{scene.name}: not cut into regions: {error}", file=sys.stderr)
            settings.absences.note(scene.name, failure)
        tables.flush()
    for path in (folder.objects(group), folder.borders(group), folder.regions(group)):
        note_table(path)


def _write(folder: RunFolder, scene: Scene, results: Iterator[Result], tables: "_Tables") -> None:
    """Write what a scene came to. Raises SourceError where it failed."""
    joined = or_raise(next(results))
    assert isinstance(joined, np.ndarray)
    tables.objects.add(_object_table(scene.windows, joined))
    raster, size = folder.region_raster(scene.tiles[0].label), (scene.width, scene.height)
    with whole_tiff(raster, size, NOWHERE, np.dtype(np.uint32), scene.place) as writer:
        for rows in scene.rows(joined, results):
            for piece in rows.raster:
                writer.write(piece.y, piece.numbers, piece.x)
            tables.add(rows)
            del rows  # before the next are made


def _object_table(source: SourceWindows, objects: np.ndarray) -> pa.Table:
    window, local = source.locate(np.arange(len(objects)))
    tile_ids = np.array([tile.tile_id for tile in source.tiles], np.int64)
    return pa.table(
        {
            "tile_id": tile_ids[window] if len(objects) else np.zeros(0, np.int64),
            "segment_id": local.astype(np.int32),
            "object": objects,
        },
        schema=OBJECT_SCHEMA,
    )


class _Buffered:
    """A table written in row groups; the same rows give the same bytes."""

    def __init__(self, writer: pq.ParquetWriter, schema: pa.Schema) -> None:
        self._writer, self._schema = writer, schema
        self._waiting: list[pa.Table] = []

    @property
    def is_full(self) -> bool:
        """Whether a row group waits."""
        return sum(one.num_rows for one in self._waiting) >= ROW_GROUP

    def add(self, table: pa.Table) -> None:
        self._waiting.append(table)

    def flush(self) -> None:
        table = pa.concat_tables([self._schema.empty_table(), *self._waiting])
        self._writer.write_table(table.combine_chunks())
        self._waiting = []


@dataclass(frozen=True)
class _Tables:
    """The tables of a group, while they are written.

    Regions that touch lie in one row group or in two that follow each other, and their border in
    the later one of its own table: so both are flushed together.
    """

    regions: _Buffered
    borders: _Buffered
    objects: _Buffered

    def add(self, rows: RegionRows) -> None:
        self.regions.add(rows.regions)
        self.borders.add(rows.borders)
        if self.regions.is_full:
            self.flush()

    def flush(self) -> None:
        for table in (self.regions, self.borders, self.objects):
            table.flush()


@contextmanager
def _table(path: Path, schema: pa.Schema) -> Iterator[_Buffered]:
    """A Parquet file that is whole or not there, to which tables are added."""
    with whole(path) as part, pq.ParquetWriter(part, schema, compression="zstd") as writer:
        yield _Buffered(writer, schema)
