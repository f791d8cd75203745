"""The patches of one scene's label map, or its objects: outlines in pixels, and what they are."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from rasterio.windows import Window

from alps.engine.base.errors import RunFolderError, SourceError
from alps.engine.images.gdal import errors_of, open_dataset
from alps.engine.images.georeference import Georeference
from alps.engine.images.tiff import TILE
from alps.engine.regions.packing import NOWHERE
from alps.engine.regions.raster import RegionRaster, open_regions
from alps.engine.regions.tables import GroupTables
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.plan import Plan, PlannedTile
from alps.engine.run_folder.sums import FileSum, refuse_changed, refuse_damaged
from alps.kernels.outlines import NOTHING, Outlines, OutlineTracer

UNSHOWN = 2**31 - 1  # the value of pixels without a class, where their outlines are wanted too
Strips = Iterator[tuple[int, np.ndarray]]  # first row, (h, width)


@dataclass(frozen=True)
class Scene:
    """What a scene shows: F patches of classes, or F objects of one patch or several.

    Attributes:
        outlines: of its patches, in pixels.
        of_patch: (P,) int64 which of the F each patch belongs to.
        classes: (F,) int32; NOTHING of what has no class, which is there where that was asked for.
        objects: (F,) int32 numbers of the objects; None where they are patches of classes.
        pixels: (F,) int64.
        margins: (F,) float64 mean of the margins of their pixels' regions; NaN where none has one.
        place: where the scene lies.
    """

    outlines: Outlines
    of_patch: np.ndarray
    classes: np.ndarray
    objects: np.ndarray | None
    pixels: np.ndarray
    margins: np.ndarray
    place: Georeference


class SceneReader:
    """Reads scenes of a run, one after the other; tables of a group are kept for its sources.

    Args:
        unlabelled: the value of pixels in label maps that have no class.
        objects: whether objects are wanted, and not patches of classes.
        filled: whether what has no class is to be among the patches too, so that nothing is
            between them.
    """

    def __init__(
        self, folder: RunFolder, unlabelled: int, objects: bool, filled: bool = False
    ) -> None:
        self._folder, self._unlabelled, self._objects = folder, unlabelled, objects
        self._plan = Plan.of(folder)
        self._empty = UNSHOWN if filled else NOTHING
        self._group: tuple[int, GroupTables | None] | None = None

    def read(self, tiles: list[PlannedTile], known: tuple[FileSum, ...]) -> Scene:
        """The scene of a source that has a label map.

        Args:
            tiles: of the source.
            known: what was written for it.

        Raises RunFolderError where a file is damaged, or tells nothing of objects.
        """
        first = tiles[0]
        for one in known:
            if one.file.startswith(("labels/", "objects/")):
                refuse_changed(self._folder, self._folder.root / one.file, one)
        path, size = self._folder.label(first.label), (first.source_width, first.source_height)
        with _open(path, size) as labels:
            place = Georeference.of(labels)
            group = self._plan.group_of(tiles)
            tables = self._tables(group)
            raster = self._folder.region_raster(first.label)
            if tables is not None and raster.exists():
                refuse_damaged(raster, group, self._folder)
                with open_regions(raster, size) as regions:
                    return self._with_regions(first, labels, regions, tables, place)
            if not self._objects:
                return self._patches(labels, None, place)
            return self._with_object_map(first, labels, place)

    def _with_regions(
        self,
        first: PlannedTile,
        labels: rasterio.DatasetReader,
        regions: RegionRaster,
        tables: GroupTables,
        place: Georeference,
    ) -> Scene:
        table = tables.of_source(first.source_index)
        margins = regions.values(table.column("margin").to_numpy(), np.nan)
        if not self._objects:
            return self._patches(labels, margins, place)
        numbers = regions.values(table.column("object").to_numpy(), NOTHING)
        return self._objects_of(labels, numbers, margins, place)

    def _with_object_map(
        self, first: PlannedTile, labels: rasterio.DatasetReader, place: Georeference
    ) -> Scene:
        path = self._folder.object_map(first.label)
        if not path.exists():
            raise RunFolderError(
                f"{self._folder.root} has neither regions nor a map of objects of {first.source}; "
                "give the command that labelled it once more, with --objects, into another OUT"
            )
        with _open(path, (labels.width, labels.height)) as objects:
            numbers = ((y, _signed(rows)) for y, rows in _strips(objects))
            return self._objects_of(labels, numbers, None, place)

    def _patches(
        self, labels: rasterio.DatasetReader, margins: Strips | None, place: Georeference
    ) -> Scene:
        tracer = OutlineTracer(labels.width)
        for _, rows in _strips(labels):
            shown = np.where(rows == self._unlabelled, np.int32(self._empty), rows.astype(np.int32))
            tracer.add(shown, None if margins is None else next(margins)[1])
        found = tracer.finish()
        own = np.arange(len(found))
        classes = np.where(found.values == UNSHOWN, np.int32(NOTHING), found.values)
        means = _means(found, own, len(own))
        return Scene(found, own, classes, None, found.pixels, means, place)

    def _objects_of(
        self,
        labels: rasterio.DatasetReader,
        numbers: Strips,
        margins: Strips | None,
        place: Georeference,
    ) -> Scene:
        tracer, counts = OutlineTracer(labels.width), []
        for (_, rows), (_, objects) in zip(_strips(labels), numbers, strict=True):
            has_none = (rows == self._unlabelled) | (objects < 0)
            shown = np.where(has_none, np.int32(self._empty), objects)
            tracer.add(shown, None if margins is None else next(margins)[1])
            counts.append(_runs_of(shown, rows))
        found = tracer.finish()
        names, of_patch = np.unique(found.values, return_inverse=True)
        pixels = np.zeros(len(names), np.int64)
        np.add.at(pixels, of_patch, found.pixels)
        classes = _most(np.concatenate(counts), names)
        classes[names == UNSHOWN] = NOTHING
        return Scene(
            found, of_patch, classes, names, pixels, _means(found, of_patch, len(names)), place
        )

    def _tables(self, group: int) -> GroupTables | None:
        """Tables of a group; None where a run did not keep them."""
        if self._group is None or self._group[0] != group:
            self._group = None  # before the next ones are read
            kept = self._folder.regions(group).exists()
            tables = None
            if kept and self._folder.region_classes(group).exists():
                columns = ["object"] if self._objects else []
                tables = GroupTables(self._folder, group, columns, ["margin"])
            self._group = group, tables
        return self._group[1]


def _runs_of(objects: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """How many pixels each object has of each class: (n, 3) int64 of object, class, pixels.

    Runs along rows are counted, for there are far fewer of them than pixels.
    """
    own, kinds = objects.ravel(), classes.ravel()
    begins = np.flatnonzero(np.r_[True, (own[1:] != own[:-1]) | (kinds[1:] != kinds[:-1])])
    lengths = np.diff(begins, append=own.size)
    own, kinds = own[begins].astype(np.int64), kinds[begins]
    mine = own >= 0
    keys, at = np.unique(own[mine] << 32 | kinds[mine], return_inverse=True)
    pixels = np.bincount(at, lengths[mine], len(keys)).astype(np.int64)
    return np.stack([keys >> 32, keys & 0xFFFFFFFF, pixels], axis=1)


def _most(counts: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """The class of most pixels of each object, the lowest of equals; counts as ``_runs_of``."""
    keys, at = np.unique(counts[:, 0] << 32 | counts[:, 1], return_inverse=True)
    pixels = np.bincount(at, counts[:, 2], len(keys))
    own, kinds = keys >> 32, (keys & 0xFFFFFFFF).astype(np.int32)
    order = np.lexsort((kinds, -pixels, own))
    best = order[np.searchsorted(own[order], objects)]
    return kinds[best]


def _means(found: Outlines, of_patch: np.ndarray, count: int) -> np.ndarray:
    sums = np.bincount(of_patch, found.sums, count)
    weighed = np.bincount(of_patch, found.weighed, count)
    return np.divide(sums, weighed, out=np.full(count, np.nan), where=weighed > 0)


@contextmanager
def _open(path: Path, size: tuple[int, int]) -> Iterator[rasterio.DatasetReader]:
    """A raster of the run folder, of ``size`` (width, height). Raises RunFolderError."""
    try:
        dataset = open_dataset(path)
    except SourceError as error:
        raise _unreadable(path, error) from error
    with dataset:
        if size != (dataset.width, dataset.height):
            found, wanted = f"{dataset.width} x {dataset.height}", f"{size[0]} x {size[1]}"
            raise _unreadable(path, f"it has {found} pixels, its source {wanted}")
        yield dataset


def _strips(dataset: rasterio.DatasetReader) -> Strips:
    for y in range(0, dataset.height, TILE):
        window = Window(0, y, dataset.width, min(TILE, dataset.height - y))
        try:
            with errors_of(dataset.name, "read"):
                rows = dataset.read(1, window=window)
        except SourceError as error:
            raise _unreadable(dataset.name, error) from error
        yield y, rows


def _signed(rows: np.ndarray) -> np.ndarray:
    """Numbers of objects as int32, NOTHING in none."""
    return np.where(rows == NOWHERE, NOTHING, rows.astype(np.int64)).astype(np.int32)


def _unreadable(path: object, why: object) -> RunFolderError:
    return RunFolderError(
        f"cannot read {path}: {why}; remove it and give the command that made it again"
    )
