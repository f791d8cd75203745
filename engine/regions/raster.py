"""Reads a scene's raster of regions, strip by strip, and shows a value of each region."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import rasterio
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.windows import Window

from alps.engine.base.errors import RunFolderError, SourceError
from alps.engine.images.gdal import open_dataset
from alps.engine.images.georeference import Georeference
from alps.engine.images.tiff import TILE
from alps.engine.regions.packing import NOWHERE

ACROSS = 4 * TILE  # pixels of a strip that are looked up at once


class RegionRaster:
    """An open raster of regions; ``open_regions`` makes one."""

    def __init__(self, path: Path, dataset: rasterio.DatasetReader) -> None:
        self._path, self._dataset = path, dataset

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the scene in pixels."""
        return self._dataset.width, self._dataset.height

    @property
    def place(self) -> Georeference:
        """Where the scene lies."""
        return Georeference.of(self._dataset)

    def strips(self) -> Iterator[tuple[int, np.ndarray]]:
        """Numbers of regions from top to bottom: (y, (h, width) uint32), NOWHERE in none."""
        for y, rows in self._tops():
            yield y, self.read(0, y, self.size[0], rows)

    def _tops(self) -> Iterator[tuple[int, int]]:
        """First row of each strip, and how many it has."""
        height = self.size[1]
        for y in range(0, height, TILE):
            yield y, min(TILE, height - y)

    def read(
        self, x: int, y: int, width: int, height: int, size: tuple[int, int] | None = None
    ) -> np.ndarray:
        """Numbers of regions of a rectangle, (height, width) uint32.

        size: (width, height) to pick so many pixels only, evenly.
        """
        shape = (height, width) if size is None else (size[1], size[0])
        place = Window(x, y, width, height)
        try:
            return self._dataset.read(
                1, window=place, out_shape=shape, resampling=Resampling.nearest
            )
        except RasterioError as error:
            raise _unreadable(self._path, error) from error

    def values(self, of_region: np.ndarray, nothing: float) -> Iterator[tuple[int, np.ndarray]]:
        """A value of each region in its place: (y, (h, width)), ``nothing`` where there is none.

        of_region: (R,) of any type, which the strips have too.
        """
        width = self.size[0]
        for y, rows in self._tops():
            found = np.empty((rows, width), of_region.dtype)
            for x in range(0, width, ACROSS):  # so that numbers of a wide strip are never all there
                shown = found[:, x : x + ACROSS]
                numbers = self.read(x, y, shown.shape[1], rows)
                inside = numbers != NOWHERE
                known = numbers[inside]
                if (known >= len(of_region)).any():
                    raise _unreadable(self._path, "it has regions that the tables do not know")
                shown[~inside] = nothing
                shown[inside] = of_region[known]
            yield y, found


@contextmanager
def open_regions(path: Path, size: tuple[int, int] | None = None) -> Iterator[RegionRaster]:
    """Open a raster of regions, of a scene of ``size`` (width, height) where that is known.

    Raises RunFolderError where that cannot be, or it is of another size.
    """
    try:
        dataset = open_dataset(path)
    except (SourceError, RasterioError) as error:
        raise _unreadable(path, error) from error
    with dataset:
        if size is not None and size != (dataset.width, dataset.height):
            found, wanted = f"{dataset.width} x {dataset.height}", f"{size[0]} x {size[1]}"
            raise _unreadable(path, f"it has {found} pixels, its source {wanted}")
        yield RegionRaster(path, dataset)


def _unreadable(path: Path, why: object) -> RunFolderError:
    return RunFolderError(
        f"cannot read {path}: {why}; delete the folder regions/ and give the command that made it "
        "again: scenes are cut anew"
    )
