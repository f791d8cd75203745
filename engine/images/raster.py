"""Reads windows of any image as 8-bit RGB and a mask of the pixels that hold data."""

import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import rasterio
import rasterio.windows
from rasterio._err import CPLE_BaseError  # raised as it is by some calls; nothing public has it
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader
from rasterio.session import DummySession

from alps.engine.base.errors import SourceError
from alps.engine.images.sources import printable
from alps.engine.images.windows import Window
from alps.kernels.stretch import stretch_limits, stretch_to_uint8

# GDAL opens text, XML and web services as rasters too; of those a renamed file must be refused.
DRIVERS = (
    "GTiff", "PNG", "JPEG", "GIF", "BIGGIF", "BMP", "WEBP", "JP2OpenJPEG", "VRT", "HFA", "NITF",
    "ENVI",
)  # fmt: skip
GDAL_OPTIONS = {
    # A truncated JPEG gives grey pixels and no more than a warning otherwise.
    "GDAL_ERROR_ON_LIBJPEG_WARNING": "TRUE",
    # GDAL 3.10's shortcut for whole PNGs returns uninitialised memory for a truncated file.
    "GDAL_PNG_WHOLE_IMAGE_OPTIM": "NO",
    # Opening one file of a folder of a million must not list the folder.
    "GDAL_DISABLE_READDIR_ON_OPEN": "TRUE",
    # A server that fell silent is a failed tile, not a run that waits for ever.
    "GDAL_HTTP_CONNECTTIMEOUT": "30",
    "GDAL_HTTP_LOW_SPEED_TIME": "60",
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1000",
}
# A scene's stretch is computed from at most this many pixels a side.
SAMPLE_SIDE = 1024
# Up to this many pixels all of the scene is read for it, every so many pixels one.
SAMPLE_WHOLE_BELOW = 64_000_000
SAMPLE_PATCHES = 32  # a side, of 32 x 32 pixels each, where a scene is larger

# Most PNG and JPEG have no place on Earth, and that is nothing to warn of.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)


@dataclass(frozen=True)
class Tile:
    """The pixels of one window."""

    rgb: np.ndarray  # (H, W, 3) uint8; whatever the file holds where not valid
    valid: np.ndarray  # (H, W) bool


class RasterView:
    """A window of an open image, read as if it were an image of its own."""

    def __init__(self, reader: "RasterReader", window: Window) -> None:
        self._reader, self._window = reader, window
        self.width, self.height = window.width, window.height

    def read(self, window: Window) -> Tile:
        """As ``RasterReader.read``, from the window's corner on."""
        x, y = self._window.x + window.x, self._window.y + window.y
        return self._reader.read(Window(x, y, window.width, window.height))


class RasterReader:
    """An open image. Use it as a context manager, and in one thread at a time.

    path: a file that GDAL can read (GeoTIFF, PNG, JPEG, JPEG 2000, WebP, GIF, BMP, VRT, ...);
    of a file with several images the first is read; EXIF rotation is ignored.
    bands: one or three 1-based band numbers, (4, 3, 2) say. By default the bands that the file
    calls red, green and blue, else its first three, else its first as grey; never an alpha band,
    unless it is asked for by number, because some writers call a fourth band alpha that is
    near infrared. Palettes are expanded, CMYK becomes RGB.

    8-bit bands are taken as they are. All others get one linear stretch a band, from the 2nd to
    the 98th percentile of a sample of the whole scene, so that windows agree.

    A pixel is invalid where alpha is 0, and where each one of the selected bands is missing:
    nodata, masked, NaN or infinite. One missing band of three leaves the pixel valid, as in
    GDAL's data set mask; where there is neither nodata nor mask nor alpha, black is valid.

    Never holds more than a window (and GDAL's block cache) in memory. Every failure to open or
    read raises SourceError with the file and the reason on one line.
    """

    def __init__(self, path: str | Path, bands: tuple[int, ...] | None = None) -> None:
        self.path = path
        _check_file(path)
        with _errors_of(path, "open"):
            # rasterio.open() would take a single driver only.
            self._dataset = DatasetReader(os.fspath(path), driver=list(DRIVERS), sharing=False)
        try:
            with _errors_of(path, "open"):
                self._choose_bands(bands)
        except BaseException:
            self.close()
            raise
        self._limits: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def width(self) -> int:
        """Pixels a row."""
        return self._dataset.width

    @property
    def height(self) -> int:
        """Rows."""
        return self._dataset.height

    @property
    def crs(self) -> rasterio.CRS | None:
        """The coordinate reference system, None where there is none."""
        return self._dataset.crs

    @property
    def transform(self) -> rasterio.Affine:
        """Pixel to CRS coordinates; the identity where there is none."""
        return self._dataset.transform

    @property
    def gcps(self) -> tuple[list[rasterio.control.GroundControlPoint], rasterio.CRS | None]:
        """Ground control points and their CRS; an empty list where there are none."""
        return self._dataset.gcps

    @property
    def nodata(self) -> float | None:
        """The nodata value of the first band."""
        return self._dataset.nodata

    @property
    def dtype(self) -> np.dtype:
        """What the selected bands are stored as."""
        return self._dtype

    @property
    def band_count(self) -> int:
        """Bands in the file, alpha included."""
        return self._dataset.count

    @property
    def is_georeferenced(self) -> bool:
        """Whether the file says where on Earth it lies."""
        return bool(self.crs or self.gcps[0] or not self.transform.is_identity)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; the properties and read() work no more."""
        self._dataset.close()

    def read(self, window: Window) -> Tile:
        """Return the pixels of ``window``, which must lie inside the image (else ValueError)."""
        right, bottom = window.x + window.width, window.y + window.height
        inside = 0 <= window.x < right <= self.width and 0 <= window.y < bottom <= self.height
        if not inside:
            raise ValueError(f"{window} is not inside {self.width} x {self.height} pixels")
        if self._stretched and self._limits is None:
            self._limits = self._scene_limits()
        pixels, valid = self._read_bands(window)
        if self._colours is not None:
            colours = self._colours[pixels[0]]
            return Tile(colours[..., :3].copy(), valid[0] & (colours[..., 3] > 0))
        if self._stretched:
            assert self._limits is not None  # set above
            low, high = self._limits
            pixels = stretch_to_uint8(pixels, low, high)
        elif self._bits < 8:
            pixels = (pixels.astype(np.uint16) * 255 // (2**self._bits - 1)).astype(np.uint8)
        rgb = np.empty((window.height, window.width, 3), np.uint8)
        rgb[...] = np.moveaxis(pixels, 0, -1)  # one band is repeated
        return Tile(rgb, np.asarray(valid.any(axis=0)))

    def _choose_bands(self, bands: tuple[int, ...] | None) -> None:
        dataset = self._dataset
        meanings = dataset.colorinterp
        alpha = [i + 1 for i, meaning in enumerate(meanings) if meaning is ColorInterp.alpha]
        self._bands = _default_bands(meanings) if bands is None else tuple(bands)
        _check_bands(self.path, self._bands, dataset.count)
        self._alpha = next((band for band in alpha if band not in self._bands), None)
        dtypes = [dataset.dtypes[band - 1] for band in self._bands]
        if any(name.startswith("complex") for name in dtypes):
            raise SourceError(
                f"{self.path}: bands {_listed(self._bands)} are complex numbers. "
                "Convert them to amplitude first, or choose others with --bands."
            )
        if meanings[self._bands[0] - 1] is ColorInterp.cyan:
            raise SourceError(f"{self.path}: is stored as CMYK. Convert it to RGB first.")
        self._dtype = np.result_type(*dtypes)
        self._bits = int(dataset.tags(self._bands[0], ns="IMAGE_STRUCTURE").get("NBITS", 8))
        self._colours = None
        if len(self._bands) == 1 and meanings[self._bands[0] - 1] is ColorInterp.palette:
            self._colours = _colour_table(dataset.colormap(self._bands[0]), self._dtype)
        self._stretched = self._colours is None and self._dtype != np.uint8

    def _read_bands(
        self, window: Window, shape: tuple[int, int] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return pixels (B, H, W) and where each band has data, (B, H, W) bool.

        ``shape`` (H, W) reads every so many pixels one instead of all.
        """
        shape = shape or (window.height, window.width)
        place = {
            "window": rasterio.windows.Window(window.x, window.y, window.width, window.height),
            "resampling": Resampling.nearest,
        }
        with _errors_of(self.path, "read"):
            pixels = self._dataset.read(
                self._bands, out_shape=(len(self._bands), *shape), out_dtype=self._dtype, **place
            )
            valid = np.ones(pixels.shape, bool)
            for index, band in enumerate(self._bands):
                flags = self._dataset.mask_flag_enums[band - 1]
                # Alpha is read below, once, and not at all where it was selected as a colour.
                if MaskFlags.all_valid not in flags and MaskFlags.alpha not in flags:
                    valid[index] = self._dataset.read_masks(band, out_shape=shape, **place) > 0
            if self._alpha is not None:
                valid &= self._dataset.read(self._alpha, out_shape=shape, **place) > 0
        if pixels.dtype.kind == "f":
            valid &= np.isfinite(pixels)
        return pixels, valid

    def _scene_limits(self) -> tuple[np.ndarray, np.ndarray]:
        """Return what becomes black and white in each band, from a sample of the scene."""
        scene = Window(0, 0, self.width, self.height)
        has_overviews = bool(self._dataset.overviews(self._bands[0]))
        if self.width * self.height > SAMPLE_WHOLE_BELOW and not has_overviews:
            # Every so many pixels one would decode every block of a file of 20 GB.
            patches = [self._read_bands(patch) for patch in _patches(scene)]
            sample, valid = (
                np.concatenate([part[i].reshape(len(self._bands), -1) for part in patches], axis=1)
                for i in (0, 1)
            )
            if valid.any(axis=1).all():
                return stretch_limits(sample, valid)
        shrink = max(1.0, max(self.width, self.height) / SAMPLE_SIDE)
        shape = (math.ceil(self.height / shrink), math.ceil(self.width / shrink))
        return stretch_limits(*self._read_bands(scene, shape))


def probe(path: str | Path) -> tuple[int, int]:
    """Return (width, height) in pixels from the file's header. Raises SourceError."""
    with RasterReader(path) as reader:
        return reader.width, reader.height


def _default_bands(meanings: tuple[ColorInterp, ...]) -> tuple[int, ...]:
    if meanings[0] is ColorInterp.palette:
        return (1,)  # an animated GIF has a palette band a frame
    colours = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
    if all(meanings.count(colour) == 1 for colour in colours):
        return tuple(meanings.index(colour) + 1 for colour in colours)
    opaque = [i + 1 for i, meaning in enumerate(meanings) if meaning is not ColorInterp.alpha]
    # A file of nothing but alpha is a picture of that alpha.
    return tuple(opaque[:3] if len(opaque) >= 3 else opaque[:1] or [1])


def _check_bands(path: str | Path, bands: tuple[int, ...], count: int) -> None:
    if len(bands) not in (1, 3):
        raise SourceError(
            f"{path}: --bands {_listed(bands)} selects {len(bands)} bands. Select 1 (grey) or 3."
        )
    if not all(1 <= band <= count for band in bands):
        raise SourceError(
            f"{path}: --bands {_listed(bands)} does not fit: the file has {count} "
            f"band{'s' if count > 1 else ''}, counted from 1."
        )


def _listed(bands: tuple[int, ...]) -> str:
    return ",".join(str(band) for band in bands)


def _colour_table(colours: dict[int, tuple[int, ...]], dtype: np.dtype) -> np.ndarray:
    """Return (256 or 65536, 4) uint8 RGBA, indexed by pixel; colours that are missing: black."""
    table = np.zeros((np.iinfo(dtype).max + 1, 4), np.uint8)
    table[:, 3] = 255
    for index, rgba in colours.items():
        if index < len(table):
            table[index] = rgba
    return table


def _patches(scene: Window) -> Iterator[Window]:
    """Spread SAMPLE_PATCHES x SAMPLE_PATCHES small windows evenly over a large scene."""
    side = SAMPLE_SIDE // SAMPLE_PATCHES
    for row in range(SAMPLE_PATCHES):
        y = row * max(scene.height - side, 0) // (SAMPLE_PATCHES - 1)
        for column in range(SAMPLE_PATCHES):
            x = column * max(scene.width - side, 0) // (SAMPLE_PATCHES - 1)
            yield Window(x, y, min(side, scene.width), min(side, scene.height))


def _check_file(path: str | Path) -> None:
    """Say plainly what GDAL would say badly."""
    if str(path).startswith("/vsi"):
        return
    shown = printable(path)
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SourceError(f"Cannot open {shown}: {reason}. Check the path.") from error
    if os.path.isdir(path):
        raise SourceError(
            f"Cannot open {shown}: it is a folder, not an image (or may not be read)."
        )
    if status.st_size == 0:
        raise SourceError(f"Cannot open {shown}: the file is empty (0 bytes). Copy it again.")


@contextmanager
def _errors_of(path: str | Path, verb: str) -> Iterator[None]:
    """Run GDAL with our options; turn what it raises into a SourceError."""
    try:
        # GDAL finds S3 credentials in the environment itself; rasterio would ask for boto3.
        with rasterio.Env(DummySession(), **GDAL_OPTIONS):
            yield
    except SourceError:
        raise
    except (RasterioError, CPLE_BaseError, OSError, ValueError, MemoryError) as error:
        # rasterio's own text is "See previous exception"; the reason is in the cause.
        reason = " ".join(str(error.__cause__ or error).split()) or type(error).__name__
        reason = printable(reason.replace(str(path), Path(path).name))
        mend = "Is it an image, and whole?" if verb == "open" else "Copy or convert it again."
        raise SourceError(
            f"Cannot {verb} {printable(path)}: {reason.rstrip('.')}. {mend}"
        ) from error
