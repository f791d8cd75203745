"""Align: show each region's class in a label map of its source's size.

Needs neither SAM nor the images: regions have their raster, and that its source's place.

A region whose class is in doubt is left unlabelled. So is an island of valid pixels smaller than
the minimum mapping unit.
"""

import math
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa

from alps.engine.base.atomic import mirror_of, remove
from alps.engine.base.digests import fingerprint as digest_of
from alps.engine.base.errors import RunFolderError, SourceError
from alps.engine.base.failures import of_source
from alps.engine.base.progress import Progress
from alps.engine.clusters.features import lists
from alps.engine.clusters.fit import ClusterModel
from alps.engine.clusters.vectors import vectors_of
from alps.engine.images.tiff import whole_tiff
from alps.engine.labels import categories
from alps.engine.labels.agreement import agree, patches_of, patches_with_say
from alps.engine.labels.journal import Counted, PaintedJournal
from alps.engine.labels.palette import palette
from alps.engine.labels.patches import join_small_patches, pixels_of
from alps.engine.labels.writer import LabelMapWriter, label_dtype, unlabelled_value
from alps.engine.naming.names import Names, shown_classes
from alps.engine.regions.packing import NOWHERE
from alps.engine.regions.raster import RegionRaster, open_regions
from alps.engine.regions.tables import GroupTables
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.plan import Plan, PlannedTile
from alps.engine.run_folder.region_schemas import BORDER_SCHEMA
from alps.engine.run_folder.sums import FileSum, refuse_damaged, sums_of
from alps.engine.settings import PaintSettings
from alps.engine.workers.protocol import Alone, Crew, Tell, nothing_to_tell

AT_ONCE = 1 << 18  # regions that get their class at once


def paint_archive(
    folder: RunFolder,
    model: ClusterModel,
    fingerprint: str,
    settings: PaintSettings,
    names: Names | None = None,
    crew: Crew | None = None,
) -> dict[str, str]:
    """Paint every source that is not painted with these clusters yet, and write classes.json.

    Args:
        folder: a run folder whose regions have their classes.
        model: the clusters that the classes are of.
        fingerprint: of all that decides the labels; a label map made under another is redone.
        settings: what of the classes is shown.
        names: of the classes, where people gave any.
        crew: paints; the journal is kept here.

    Returns:
        Sources that have no label map although they could be opened when planned, with reasons.
    """
    plan = Plan.of(folder)
    job = PaintSources(folder.root, model, settings, names)
    with (
        Progress(plan.sources_count, "sources", "painting") as progress,
        Painter(folder, model, fingerprint, settings, names) as painter,
    ):

        def missing() -> Iterator[int]:
            for first in plan.firsts():
                if first.reason or painter.has(first):
                    progress.advance(1)
                else:
                    yield first.source_index

        for _, found in (crew or Alone()).carry_out(job, missing(), nothing_to_tell):
            painter.note(found)
            progress.advance(1)
        painter.write_classes()
    return painter.unpainted


@dataclass(frozen=True)
class PaintedSource:
    """A source that was painted, or could not be."""

    source: str
    source_index: int
    counted: Counted
    reason: str  # why there is no label map; empty where there is one
    files: tuple[FileSum, ...]  # the label map first


@dataclass(frozen=True)
class PaintSources:
    """Sources to paint, as a job of a crew; a result is what became of one."""

    root: Path
    model: ClusterModel
    settings: PaintSettings
    names: Names | None

    def run(self, numbers: Iterator[int], tell: Tell) -> Iterator[tuple[int, PaintedSource]]:
        """See ``Job``."""
        folder = RunFolder(self.root)
        plan = Plan.of(folder)
        painter = Painter(folder, self.model, "", self.settings, self.names)
        for number in numbers:
            rows = plan.rows_of_source(number)
            yield number, painter.made(plan.planned(rows.start, rows.stop))

    def words(self, number: int) -> str:
        """See ``Job``."""
        plan = Plan.of(RunFolder(self.root))
        return f"the label map of {plan.tile(plan.rows_of_source(number).start).source}"


def paint_fingerprint(clusters: str, settings: PaintSettings, names: Names) -> str:
    """Of all that decides label maps: the clusters' own, and how they are shown."""
    if names.classes:
        clusters = digest_of(clusters, names.sha256)
    return digest_of(clusters, settings.deciding())


def settled(folder: RunFolder, settings: PaintSettings) -> PaintSettings:
    """Settings in which it is said whether label maps are COGs: those in a store are."""
    if settings.cog is not None:
        return settings
    return replace(settings, cog=mirror_of(folder.root) is not None)


class Painter:
    """Paints sources, one whole label map at a time, and keeps a journal of them.

    Arguments as of ``paint_archive``. A context manager.
    """

    def __init__(
        self,
        folder: RunFolder,
        model: ClusterModel,
        fingerprint: str,
        settings: PaintSettings,
        names: Names | None = None,
    ) -> None:
        self._folder, self._model, self._settings = folder, model, settings
        self._plan = Plan.of(folder)
        self._clusters = model.classes
        self._is_named = bool(names and names.classes)
        self._as = shown_classes(names or Names(), palette(self._clusters))
        self._journal = PaintedJournal(folder, self._clusters, fingerprint)
        self._group: tuple[int, GroupTables] | None = None
        self.unpainted: dict[str, str] = {}

    def __enter__(self) -> Self:
        self._journal.__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._journal.__exit__(*exc_info)

    def has(self, tile: PlannedTile) -> bool:
        """Whether the source of a tile has its label map."""
        return self._journal.has(tile.source_index, self._files(tile))

    def refused(self, tile: PlannedTile) -> str:
        """Why the source of a tile could be opened but not painted; empty where that is not so."""
        return self._journal.refused.get(tile.source_index, "")

    def paint(self, tiles: list[PlannedTile]) -> None:
        """Write a source's label map, and its object map where asked for, given all of its tiles.

        Notes in ``unpainted`` why that cannot be; of a source that the plan could not open nothing.
        """
        if not tiles[0].reason:
            self.note(self.made(tiles))

    def made(self, tiles: list[PlannedTile]) -> PaintedSource:
        """Write what ``paint`` writes, the journal aside."""
        first = tiles[0]
        counted, reason, files = Counted.of(self._clusters), "", self._files(first)
        try:
            with of_source(first.source, "painting"):
                counted = self._paint(tiles)
        except SourceError as error:
            remove(self._folder.label(first.label))
            reason, files = str(error), []
        sums = sums_of(self._folder, files)
        return PaintedSource(first.source, first.source_index, counted, reason, sums)

    def note(self, found: PaintedSource) -> None:
        """Enter a source that was painted, or could not be, in the journal."""
        if found.reason:
            self.unpainted[found.source] = found.reason
            print(f"{found.source}: no label map: {found.reason}", file=sys.stderr)
        self._journal.add(found.source_index, found.counted, found.reason, found.files)

    def forget(self, tile: PlannedTile) -> None:
        """Let the source of a tile be painted again."""
        self._journal.forget(tile.source_index)

    def _paint(self, tiles: list[PlannedTile]) -> Counted:
        first, group = tiles[0], self._plan.group_of(tiles)
        path = self._folder.region_raster(first.label)
        if not path.exists():
            raise SourceError(
                f"{first.path} could not be cut into regions; mend or bring it back, and give the "
                "command that labelled it again"
            )
        refuse_damaged(path, group, self._folder)
        tables = self._tables(group)
        with open_regions(path, (first.source_width, first.source_height)) as raster:
            classes = self._shown(first, tables, raster)
            self._write_labels(first, raster, classes)
            if self._settings.objects:
                objects = tables.column(first.source_index, "object")
                self._write_objects(first, raster, np.where(classes < 0, -1, objects))
            areas = tables.columns_of(first.source_index, ["area"])
            return self._counted(classes, areas, math.prod(raster.size))

    def write_classes(self) -> None:
        """Write classes.json, of all label maps there are."""
        self._journal.write_classes(self._as)

    def _files(self, tile: PlannedTile) -> list[Path]:
        """What is painted of the source of a tile."""
        label = self._folder.label(tile.label)
        return [label] + [self._folder.object_map(tile.label)] * self._settings.objects

    def _tables(self, group: int) -> GroupTables:
        """Tables of a group, which its sources share."""
        if self._group is None or self._group[0] != group:
            self._group = None  # before the next ones are read
            self._group = group, GroupTables(self._folder, group, ())
        return self._group[1]

    def _shown(self, first: PlannedTile, tables: GroupTables, raster: RegionRaster) -> np.ndarray:
        """The class that each region of a source is shown in, (R,) int32, -1 none.

        Of a scene of millions of regions each column counts: none is held longer than it is asked.
        """
        source = first.source_index
        classes = tables.class_column(source, "cluster")
        if len(classes) and not 0 <= classes.min() <= classes.max() < self._clusters:
            raise RunFolderError(
                f"{first.source} has regions of classes {classes.min()}…{classes.max()}, not of "
                f"{self._clusters} clusters; run: alps cluster OUT"
            )
        if self._settings.min_margin > 0:
            classes[tables.class_column(source, "margin") < self._settings.min_margin] = -1

        def borders() -> Iterator[pa.Table]:
            return tables.borders_of(source)

        least = pixels_of(self._settings.min_patch, raster.place)
        classes = join_small_patches(classes, tables.column(source, "area"), borders, least)
        if self._settings.agreement > 0:
            self._let_agree(first, tables, classes)
        # The unlabelled, -1, take the last value.
        return np.append(self._as.values, np.int32(-1))[classes]

    def _let_agree(self, first: PlannedTile, tables: GroupTables, classes: np.ndarray) -> None:
        """Let patches without a visible border take one class; classes (R,) change in place."""
        source = first.source_index
        area = tables.column(source, "area")
        names, number = patches_with_say(classes, area, lambda: tables.borders_of(source))
        del area
        borders = (
            tuple(table.column(name).to_numpy() for name in BORDER_SCHEMA.names[1:])
            for table in tables.borders_of(source)
        )
        patches = patches_of(number, self._rows_of(first, tables), borders)
        agreed = agree(
            patches, classes[names], self._model.class_centroids, self._settings.agreement
        )
        for start in range(0, len(classes), AT_ONCE):
            some, own = (values[start : start + AT_ONCE] for values in (classes, number))
            some[own >= 0] = agreed[own[own >= 0]]

    def _rows_of(
        self, first: PlannedTile, tables: GroupTables
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Vectors (n, D), mean colours (n, 3) and pixels (n,) of a source's regions, in parts."""
        group = self._plan.group_of([first])
        vectors = vectors_of(self._folder, group, self._model.known_features())
        start = tables.rows_of(first.source_index).start
        for table in tables.columns_of(first.source_index, ["colour", "area"]):
            area = table.column("area").to_numpy()
            yield vectors.read(start, table.num_rows)[0], lists(table, "colour")[:, :3], area
            start += table.num_rows

    def _counted(self, classes: np.ndarray, areas: Iterable[pa.Table], pixels: int) -> Counted:
        """What a map of ``pixels`` shows of regions whose classes and areas these are."""
        counted, start = Counted.of(self._clusters), 0
        for table in areas:
            size = table.column("area").to_numpy()
            # The unlabelled come last.
            some = classes[start : start + len(size)] % np.int32(self._clusters + 1)
            start += len(size)
            counted.regions[:] += np.bincount(some, minlength=self._clusters + 1)[:-1]
            # Sums of whole numbers below 2^53, so exact.
            counted.pixels[:] += np.bincount(some, size, self._clusters + 1).astype(np.int64)
        counted.nodata[:] = pixels - counted.pixels.sum()
        counted.pixels[-1] += counted.nodata[0]
        return counted

    def _write_labels(self, first: PlannedTile, raster: RegionRaster, classes: np.ndarray) -> None:
        empty = unlabelled_value(self._clusters)
        values = np.where(classes < 0, empty, classes).astype(label_dtype(self._clusters))
        writer = LabelMapWriter(
            self._folder.label(first.label),
            *raster.size,
            self._as.colours,
            georeference=raster.place,
            cog=bool(self._settings.cog),
        )
        with writer:
            for y, strip in raster.values(values, empty):
                writer.write_rows(y, strip)
        categories.write(writer.path, self._as if self._is_named else None)

    def _write_objects(self, first: PlannedTile, raster: RegionRaster, objects: np.ndarray) -> None:
        values = objects.astype(np.uint32)  # -1 is NOWHERE
        path = self._folder.object_map(first.label)
        kind = np.dtype(np.uint32)
        with whole_tiff(path, raster.size, NOWHERE, kind, raster.place) as writer:
            for y, strip in raster.values(values, NOWHERE):
                writer.write(y, strip)
