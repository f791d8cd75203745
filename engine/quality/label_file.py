"""Opens files of labels so that their pixels are those of the image they belong to.

Where both say where they lie, labels are laid on the image by CRS and transform, each pixel of the
image taking the label that lies nearest; else pixels are paired by their numbers.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform as transform_points
from rasterio.windows import Window

from alps.engine.base.errors import SourceError
from alps.engine.images.facts.orientation import UPRIGHT, orientation_tag
from alps.engine.images.gdal import GDAL_OPTIONS, open_dataset
from alps.engine.images.georeference import Georeference
from alps.engine.images.raster import RasterReader

GDAL_ERRORS = (RasterioError, CPLE_BaseError)  # some calls raise the second as it is
SAME = 0.5  # of a pixel: corners that are nearer agree
EXACT = 0.001  # of a pixel, how far an approximated warp may be off; GDAL refuses 0
# Without a CRS on either side places are compared as numbers; a warp wants some CRS.
ANY_PLANE = "EPSG:3857"


@dataclass(frozen=True)
class Grid:
    """The pixels of an image, and where they lie."""

    name: str
    width: int
    height: int
    place: Georeference

    @classmethod
    def of(cls, image: RasterReader | rasterio.DatasetReader) -> Self:
        """That of an open file."""
        name = str(image.path if isinstance(image, RasterReader) else image.name)
        return cls(name, image.width, image.height, Georeference.of(image))


def open_image(path: Path) -> rasterio.DatasetReader:
    """Open a file of labels as it is stored. Raises SourceError."""
    try:
        with warnings.catch_warnings(), rasterio.Env(**GDAL_OPTIONS):
            # Most label images lie nowhere.
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            return open_dataset(path)
    except (SourceError, *GDAL_ERRORS) as error:
        raise SourceError(f"{path} cannot be opened as an image: {error}; replace it") from error


def read_bands(
    dataset: rasterio.DatasetReader | WarpedVRT, bands: int | list[int], window: Window
) -> np.ndarray:
    """Pixels of a window as they are stored. Raises SourceError for a damaged file."""
    try:
        with rasterio.Env(**GDAL_OPTIONS):  # or what a cut PNG lacks is read as zeros: class 0
            return dataset.read(bands, window=window)
    except GDAL_ERRORS as error:
        reason = error.__cause__ or error  # rasterio's own text is "See previous exception"
        raise SourceError(f"{dataset.name} is damaged: {reason}; copy it again") from error


class LabelFile:
    """An open file of labels; a context manager. Its pixels are those of ``onto``.

    Raises SourceError for a file that cannot be read, that is stored sideways, or that lies
    elsewhere than ``onto``.
    """

    def __init__(self, path: Path, onto: Grid | None = None) -> None:
        self.path = path
        self.file = open_image(path)
        self._warped: WarpedVRT | None = None
        try:
            place = Georeference.of(self.file)
            turned = orientation_tag(path, self.file)
            if turned != UPRIGHT and not place.is_known:
                raise SourceError(
                    f"{path} is stored sideways (EXIF orientation {turned}), which labels must not "
                    "be; save it as it is shown"
                )
            if onto is not None and self._lies_otherwise(place, onto):
                self._warped = self._laid_on(place, onto)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self._warped is not None:
            self._warped.close()
        self.file.close()

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels: the image's, where labels are laid on it by their place."""
        seen = self._warped or self.file
        return seen.width, seen.height

    def read(self, bands: list[int], window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Stored values (B, h, w) of a window, and where the file reaches: (h, w) bool."""
        if self._warped is None:
            pixels = read_bands(self.file, bands, window)
            return pixels, np.ones(pixels.shape[1:], bool)
        pixels = read_bands(self._warped, [*bands, self._warped.count], window)
        return pixels[:-1], pixels[-1] > 0

    def _lies_otherwise(self, mine: Georeference, onto: Grid) -> bool:
        """Whether labels must be warped; raises SourceError where they do not meet the image."""
        theirs = onto.place
        curved = [bool(one.gcps or one.rpcs) and one.transform is None for one in (mine, theirs)]
        if any(curved):
            other = theirs if curved[0] else mine
            if not all(curved) and other.crs is not None and other.transform is not None:
                raise SourceError(
                    f"{self.path} and {onto.name} say in two ways where they lie (control points "
                    "or RPCs, and a transform), so labels cannot be laid on the image; warp one "
                    "to the other's grid"
                )
            return False
        if not _is_place(mine) or not _is_place(theirs):
            return False
        wide, high = onto.width, onto.height
        corners = np.array([(0, 0), (wide, 0), (0, high), (wide, high), (wide / 2, high / 2)])
        seen = self._seen_from(corners, mine, onto)
        size = np.array([self.file.width, self.file.height])
        if (size == [wide, high]).all() and np.abs(seen - corners).max() <= SAME:
            return False
        if (seen.max(axis=0) <= 0).any() or (seen.min(axis=0) >= size).any():
            raise self._elsewhere(mine, onto)
        return True

    def _seen_from(self, points: np.ndarray, mine: Georeference, onto: Grid) -> np.ndarray:
        """Pixels of the image, (n, 2), in pixels of the labels."""
        assert mine.transform is not None and onto.place.transform is not None  # places
        x, y = _apply(onto.place.transform, points)
        if mine.crs is not None and onto.place.crs is not None and mine.crs != onto.place.crs:
            try:
                with rasterio.Env(**GDAL_OPTIONS):
                    moved = transform_points(onto.place.crs, mine.crs, x, y)
            except GDAL_ERRORS as error:
                raise self._elsewhere(mine, onto) from error
            x, y = (np.array(axis, np.float64) for axis in moved[:2])
        seen = np.stack(_apply(~mine.transform, np.stack([x, y], axis=1)), axis=1)
        if not np.isfinite(seen).all():
            raise self._elsewhere(mine, onto)
        return seen

    def _laid_on(self, mine: Georeference, onto: Grid) -> WarpedVRT:
        theirs = onto.place
        crs = mine.crs or theirs.crs or rasterio.CRS.from_string(ANY_PLANE)
        has_alpha = ColorInterp.alpha in self.file.colorinterp
        with rasterio.Env(**GDAL_OPTIONS):
            return WarpedVRT(
                self.file,
                src_crs=crs,
                crs=theirs.crs or crs,
                transform=theirs.transform,
                width=onto.width,
                height=onto.height,
                resampling=Resampling.nearest,
                src_nodata=None,  # what a header calls nodata may be a class
                nodata=None,
                add_alpha=not has_alpha,
                tolerance=EXACT,
            )

    def _elsewhere(self, mine: Georeference, onto: Grid) -> SourceError:
        own = Grid(str(self.path), self.file.width, self.file.height, mine)
        return SourceError(
            f"{self.path} lies elsewhere than {onto.name}: {_extent(own)}, the image "
            f"{_extent(onto)}; give the labels of this image, or mend what either file says"
        )


def _apply(transform: rasterio.Affine, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points (n, 2) through a transform: x and y."""
    x, y = points[:, 0], points[:, 1]
    return (
        transform.a * x + transform.b * y + transform.c,
        transform.d * x + transform.e * y + transform.f,
    )


def _is_place(said: Georeference) -> bool:
    """Whether a transform means somewhere: writers without a CRS may flip rows, and no more."""
    if said.transform is None:
        return False
    counts_pixels = abs(said.transform.a) == abs(said.transform.e) == 1 and said.transform.c == 0
    return said.crs is not None or not counts_pixels


def _extent(grid: Grid) -> str:
    transform = grid.place.transform
    assert transform is not None  # extents are of places
    corners = np.array([(0, 0), (grid.width, 0), (0, grid.height), (grid.width, grid.height)])
    x, y = _apply(transform, corners.astype(np.float64))
    crs = grid.place.crs
    name = "no CRS" if crs is None else f"EPSG:{crs.to_epsg()}" if crs.to_epsg() else "its CRS"
    return f"x {x.min():.10g} to {x.max():.10g}, y {y.min():.10g} to {y.max():.10g} in {name}"
