"""A source of a run as arrays: its pixels, its label map, its regions."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio
from rasterio.windows import Window as RasterWindow

from alps.engine.base.errors import RunFolderError, SettingsError, SourceError
from alps.engine.base.html import Markup, shown
from alps.engine.images.gdal import errors_of, open_dataset
from alps.engine.images.georeference import Georeference
from alps.engine.images.raster import RasterReader, Tile
from alps.engine.images.reading import Reading
from alps.engine.images.windows import Window
from alps.engine.labels.classes import Classes
from alps.engine.regions.raster import open_regions
from alps.engine.report import pictures
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.painted import painted_lines
from alps.engine.run_folder.plan import PlannedTile, check_size
from alps.engine.run_folder.sums import FileSum, refuse_changed

THUMBNAIL_SIDE = 360  # pixels of a label map's longer side, in a notebook
THUMBNAIL_BYTES = 60_000


@dataclass(frozen=True, eq=False)
class LabelMap:
    """The classes of a source's pixels, or of a part of it, and where on Earth they lie."""

    source: str
    pixels: np.ndarray  # (H, W) uint8 or uint16: ids of classes
    unlabelled: int  # what stands for no class: 255 or 65535
    colours: np.ndarray  # (K, 3) uint8, by id
    georeference: Georeference
    profile: dict[str, Any]  # of rasterio: what writes another GeoTIFF of these pixels' grid

    def picture(self) -> np.ndarray:
        """Its colours, (H, W, 4) uint8: see-through where there is no class."""
        return pictures.labels_picture(self.pixels, self.colours, self.unlabelled)

    def __repr__(self) -> str:
        height, width = self.pixels.shape
        return f"LabelMap({self.source!r}, {width} x {height} pixels of {self.pixels.dtype})"

    def _repr_html_(self) -> str:
        height, width = self.pixels.shape
        size = pictures.shown_size(Window(0, 0, width, height), THUMBNAIL_SIDE)
        small = pictures.labels_picture(
            pictures.nearest(self.pixels, size), self.colours, self.unlabelled
        )
        return Markup('<figure><img src="{}" alt=""><figcaption>{}, {} × {}</figcaption>').format(
            pictures.colours_uri(small, THUMBNAIL_BYTES), shown(self.source), width, height
        ) + Markup("</figure>")


def part_of(planned: PlannedTile, box: tuple[int, int, int, int] | None) -> Window:
    """The window of a source that ``box`` (x, y, width, height) stands for; None: all of it.

    Raises SettingsError for one that does not lie in it, SourceError for a source without pixels.
    """
    if planned.reason:
        raise SourceError(f"{planned.source} was not read: {planned.reason}")
    size = planned.source_width, planned.source_height
    if box is None:
        return Window(0, 0, *size)
    window = Window(*(int(number) for number in box))
    starts, ends = (window.x, window.y), (window.x + window.width, window.y + window.height)
    axes = zip(starts, ends, size, strict=True)
    if not all(0 <= start < end <= most for start, end, most in axes):
        raise SettingsError(
            f"box {tuple(box)} (x, y, width, height) does not lie in {planned.source} of "
            f"{size[0]} x {size[1]} pixels"
        )
    return window


def read_image(planned: PlannedTile, window: Window, reading: Reading) -> Tile:
    """Pixels of a source as the run read them. Raises SourceError where it is gone or changed."""
    with RasterReader(planned.path, reading) as reader:
        check_size(reader, planned)
        return reader.read(window)


def read_label_map(
    folder: RunFolder, planned: PlannedTile, window: Window, classes: Classes
) -> LabelMap:
    """Part of a source's label map.

    Raises RunFolderError where it is damaged, SourceError where the source could not be painted.
    """
    path = folder.label(planned.label)
    painted = _painted(folder).get(planned.source_index, Painted())
    if painted.reason:
        raise SourceError(f"{planned.source} has no label map: {painted.reason}")
    if not path.is_file():
        raise RunFolderError(f"{path} is not there; run: alps paint {folder.root}")
    if painted.label_map is not None:
        refuse_changed(folder, path, painted.label_map)
    try:
        with errors_of(path, "read"), open_dataset(path) as file:
            size = file.width, file.height
            if size != (planned.source_width, planned.source_height):
                raise folder.damaged(path, f"it has {size[0]} x {size[1]} pixels")
            place = RasterWindow(window.x, window.y, window.width, window.height)
            pixels = file.read(1, window=place)
            where = Georeference.of(file).seen_from(window.x, window.y)
            profile = dict(file.profile)
    except SourceError as error:
        raise folder.damaged(path, str(error.__cause__ or error).rstrip(".")) from error
    profile |= {
        "width": window.width,
        "height": window.height,
        "transform": where.transform or rasterio.Affine.identity(),
    }
    return LabelMap(planned.source, pixels, classes.unlabelled, classes.colours(), where, profile)


def read_region_map(folder: RunFolder, planned: PlannedTile, window: Window) -> np.ndarray:
    """Numbers of regions in part of a source, (H, W) uint32. Raises RunFolderError."""
    size = planned.source_width, planned.source_height
    with open_regions(folder.region_raster(planned.label), size) as raster:
        return raster.read(window.x, window.y, window.width, window.height)


class Painted(NamedTuple):
    """What is noted of a source that was painted."""

    reason: str = ""  # why it has no label map
    label_map: FileSum | None = None  # None in lines of older versions


def _painted(folder: RunFolder) -> dict[int, Painted]:
    """By the index of the source; read anew where the journal has grown."""
    try:
        status = folder.painted.stat()
    except OSError:
        return {}
    return _painted_in(folder.painted, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=2)
def _painted_in(path: Path, size: int, changed_ns: int) -> dict[int, Painted]:
    return {
        line.source_index: Painted(line.reason, line.files[0] if line.files else None)
        for line in painted_lines(path)
        if line is not None
    }
