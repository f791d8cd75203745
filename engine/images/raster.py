"""Reads windows of any image as 8-bit RGB and a mask of the pixels that hold data."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
import rasterio
import rasterio.windows
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.io import DatasetReader

from alps.engine.base.errors import SourceAwayError, SourceError
from alps.engine.images.facts.bands import choose_bands, colour_table, listed
from alps.engine.images.facts.description import Doubt, HeaderFacts, PixelFacts
from alps.engine.images.facts.orientation import UPRIGHT, Orientation, orientation_tag
from alps.engine.images.facts.validity import (
    NEAR,
    REACH,
    Fills,
    frayed,
    is_lossy,
    is_value,
    looks_like_a_mask,
    number,
)
from alps.engine.images.gdal import TRIES, errors_of, is_remote, open_dataset
from alps.engine.images.reading import Reading
from alps.engine.images.stretching import SATURATED, Limits, Sample, fit_limits, saturation
from alps.engine.images.windows import Window
from alps.kernels.stretch import stretch_to_uint8

# A scene's stretch is computed from at most this many pixels a side.
SAMPLE_SIDE = 1024
# Up to this many pixels all of the scene is read for it, every so many pixels one.
SAMPLE_WHOLE_BELOW = 64_000_000
SAMPLE_PATCHES = 32  # a side, of 32 x 32 pixels each, where a scene is larger
NOISE_PATCHES = 4  # a side, read whole where the sample is not

T = TypeVar("T")
Bands = tuple[np.ndarray, np.ndarray]  # pixels and where each band has data, both (B, ...)


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
    of a file with several images the first is read. Photographs that are stored sideways are
    turned as viewers turn them; what lies somewhere on Earth stays as it is stored.
    reading: what is said in place of the file's word. By default three bands that the file's
    descriptions, else its colours, name red, green and blue, else its first three, else its first
    as grey; an alpha band is a mask, unless its values are an image's, and a colour only where it
    is asked for by number. Palettes are expanded, CMYK becomes RGB. What a catalogue says of the
    file (``reading.said``) counts where the file says nothing.

    What a VRT or another file names is read only as far as ``reading.access`` allows: by default
    images below the file's own folder.

    8-bit bands are taken as they are. All others get one linear stretch a band, so that windows
    agree: by default from the 2nd to the 98th percentile of a sample of the whole scene.

    A pixel is invalid where a mask or alpha says so, and where each one of the selected bands is
    missing: nodata, masked, a fill value that nobody declared, NaN or infinite; in files that lossy
    compression changed, also where it is nearly nodata beside nodata. One missing band of three
    leaves the pixel valid, as in GDAL's data set mask; where there is none of these, black is
    valid.

    Never holds more than a window (and GDAL's block cache) in memory. Every failure to open or
    read raises SourceError with the file and the reason on one line.
    """

    def __init__(self, path: str | Path, reading: Reading | None = None) -> None:
        self.path = path
        self._reading = reading or Reading()
        self._said = self._reading.said_of(path)
        if self._said.reason:
            raise SourceError(self._said.reason)
        self._dataset = open_dataset(path, self._reading.access)
        try:
            with errors_of(path, "open"):
                self._read_header()
        except BaseException:
            self.close()
            raise

    @property
    def width(self) -> int:
        """Pixels a row."""
        return self._turn.size[0]

    @property
    def height(self) -> int:
        """Rows."""
        return self._turn.size[1]

    @property
    def crs(self) -> rasterio.CRS | None:
        """The coordinate reference system, None where there is none."""
        return self._place[0]

    @property
    def transform(self) -> rasterio.Affine:
        """Pixel to CRS coordinates; the identity where there is none."""
        return self._place[1]

    @property
    def gcps(self) -> tuple[list[rasterio.control.GroundControlPoint], rasterio.CRS | None]:
        """Ground control points and their CRS; an empty list where there are none."""
        return self._dataset.gcps

    @property
    def rpcs(self) -> rasterio.rpc.RPC | None:
        """Rational polynomial coefficients; None where there are none."""
        return self._dataset.rpcs

    @property
    def nodata(self) -> float | None:
        """The nodata value of the first band, as the file has it."""
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
        return bool(self.crs or self.gcps[0] or self.rpcs or not self.transform.is_identity)

    @property
    def resolution(self) -> tuple[float, float]:
        """Size of a pixel in units of the CRS."""
        if self.transform == self._dataset.transform:
            res: tuple[float, float] = self._dataset.res
            return res
        t = self.transform
        return math.hypot(t.a, t.d), math.hypot(t.b, t.e)

    @property
    def is_stretched(self) -> bool:
        """Whether values are brought to 8 bits by limits that a sample decides."""
        return self._colours is None and self._dtype != np.uint8

    @property
    def needs_sample(self) -> bool:
        """Whether reading any window depends on a sample of the scene."""
        return self.is_stretched or self._alpha is not None

    @cached_property
    def header(self) -> HeaderFacts:
        """What the header says, and what is made of it."""
        return HeaderFacts(
            self._dataset.driver,
            self.width,
            self.height,
            str(self._dtype),
            self.band_count,
            self._bands,
            self._choice.why,
            tuple(self._validity_words()) or ("all pixels",),
            self._place_words(),
            self._turn.code,
            (*self._choice.doubts, *self._header_doubts(), *self._said_doubts()),
            self._said.chosen,
        )

    def describe(self) -> PixelFacts:
        """What a sample of the pixels shows: how they are stretched, and how many are valid."""
        sample, fills = self._sample, self._fills
        valid = sample.valid.copy()
        for band, own in enumerate(fills):
            valid[band] &= ~is_value(sample.pixels[band], own.nodata)
        shown = valid.max(axis=0)
        doubts = [*self._alpha_doubts(), *self._fill_doubts()]
        if not shown.any():
            text = "no pixel is valid (--nodata none or --alpha ignore, where they should be)"
            doubts.append(Doubt("empty", text))
        limits = self._limits
        if limits is None:
            return PixelFacts(float(shown.mean()), "as they are", None, None, tuple(doubts))
        if self._stretch_words != "archive":  # a piece may well be darker than all the rest
            for share, colour in zip(
                saturation(sample, fills, limits), ("black", "white"), strict=True
            ):
                if share > SATURATED:
                    text = (
                        f"{share:.0%} of a band become {colour} by the stretch: say --nodata V "
                        "where that is no data, or --stretch LO,HI"
                    )
                    doubts.append(Doubt(f"saturated {colour}", text))
        return PixelFacts(
            float(shown.mean()), self._stretch_words, limits.low, limits.high, tuple(doubts)
        )

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
        limits = self._limits
        pixels, valid = self._read_stored(self._turn.stored(window))
        if self._colours is not None:
            colours = self._colours[pixels[0]]
            return self._tile(colours[..., :3], valid[0] & (colours[..., 3] > 0))
        if limits is not None:
            pixels = stretch_to_uint8(pixels, *limits.arrays())
        elif self._bits < 8:
            pixels = (pixels.astype(np.uint16) * 255 // (2**self._bits - 1)).astype(np.uint8)
        rgb = np.empty((*pixels.shape[1:], 3), np.uint8)
        rgb[...] = np.moveaxis(pixels, 0, -1)  # one band is repeated
        return self._tile(rgb, np.asarray(valid.any(axis=0)))

    def _tile(self, rgb: np.ndarray, valid: np.ndarray) -> Tile:
        return Tile(self._turn.shown(rgb), self._turn.shown(valid))

    def _read_header(self) -> None:
        dataset, how = self._dataset, self._reading.settings
        self._said.refuse_size(self.path, dataset.width, dataset.height)
        if not dataset.count:
            raise SourceError(f"{self.path}: holds no bands. Give one of the images inside it.")
        meanings = dataset.colorinterp
        alpha = [i + 1 for i, meaning in enumerate(meanings) if meaning is ColorInterp.alpha]
        self._choice = choose_bands(self.path, dataset, how.bands, self._said.band_names)
        self._bands = self._choice.bands
        self._alpha = next((band for band in alpha if band not in self._bands), None)
        if how.alpha == "ignore":
            self._alpha = None
        dtypes = [dataset.dtypes[band - 1] for band in self._bands]
        if any(name.startswith("complex") for name in dtypes):
            raise SourceError(
                f"{self.path}: bands {listed(self._bands)} are complex numbers. "
                "Convert them to amplitude first, or choose others with --bands."
            )
        if meanings[self._bands[0] - 1] is ColorInterp.cyan:
            raise SourceError(f"{self.path}: is stored as CMYK. Convert it to RGB first.")
        self._dtype = np.result_type(*dtypes)
        self._bits = int(dataset.tags(self._bands[0], ns="IMAGE_STRUCTURE").get("NBITS", 8))
        self._colours = None
        if len(self._bands) == 1 and meanings[self._bands[0] - 1] is ColorInterp.palette:
            self._colours = colour_table(dataset.colormap(self._bands[0]), self._dtype)
        self._is_lossy = self._dtype == np.uint8 and is_lossy(dataset)
        tag = orientation_tag(self.path, dataset)
        self._said_turn = tag
        # Maps are georeferenced as they are stored; what a camera noted of its own is for viewers.
        code = UPRIGHT if self.is_georeferenced else tag
        self._turn = Orientation(code, dataset.width, dataset.height)

    @cached_property
    def _place(self) -> tuple[rasterio.CRS | None, rasterio.Affine]:
        """Where the file says it lies, else its item."""
        crs, transform = self._dataset.crs, self._dataset.transform
        if crs or not self._said.crs or self._dataset.gcps[0] or self._dataset.rpcs:
            return crs, transform
        if transform.is_identity and self._said.transform:
            transform = rasterio.Affine(*self._said.transform)
        if transform.is_identity:
            return crs, transform
        with errors_of(self.path, "place"):
            is_code = "[" not in self._said.crs
            read = rasterio.CRS.from_user_input if is_code else rasterio.CRS.from_wkt
            return read(self._said.crs), transform

    def _said_nodata(self, band: int) -> float | None:
        """The nodata value of a band by the item, where neither the file nor the user says any."""
        is_said = self._reading.settings.nodata is None and bool(self._said.nodata)
        if not is_said or self._dataset.nodatavals[band - 1] is not None:
            return None
        return self._said.nodata_of(band, self._dataset.count)

    @property
    def _nodata(self) -> tuple[float, ...]:
        """Declared values of the first selected band, or those that were given in their place."""
        if self._reading.settings.nodata is not None:
            return self._reading.settings.nodata
        value = self._dataset.nodatavals[self._bands[0] - 1]
        if value is None:
            value = self._said_nodata(self._bands[0])
        return () if value is None or math.isnan(value) else (float(value),)

    @cached_property
    def _mask_band(self) -> int | None:
        """The band called alpha, where it is a mask."""
        if self._alpha is None or self._reading.settings.alpha == "use":
            return self._alpha
        scene = Window(0, 0, self._dataset.width, self._dataset.height)
        band = self._alpha
        parts = [
            self._read_one(band, window, shape).ravel() for window, shape in self._places(scene)
        ]
        return band if looks_like_a_mask(np.concatenate(parts)) else None

    def _read_stored(self, window: Window) -> Bands:
        """Pixels and validity of a window of the stored image, its frayed edges invalid."""
        scene = (self._dataset.width, self._dataset.height)
        values = [value for value in self._nodata if value == int(value) and 0 <= value <= 255]
        if not self._is_lossy or not values or self._colours is not None:
            pixels, valid = self._read_bands(window)
        else:
            left, top = max(window.x - REACH, 0), max(window.y - REACH, 0)
            right = min(window.x + window.width + REACH, scene[0])
            bottom = min(window.y + window.height + REACH, scene[1])
            pixels, valid = self._read_bands(Window(left, top, right - left, bottom - top))
            for value in values:
                empty = (pixels == int(value)).all(axis=0)
                valid[:, frayed(pixels, empty, value)] = False
            x, y = window.x - left, window.y - top
            inside = np.s_[:, y : y + window.height, x : x + window.width]
            pixels, valid = pixels[inside], valid[inside]
        for band, own in enumerate(self._fills):
            if own.nodata:
                valid[band] &= ~is_value(pixels[band], own.nodata)
        return pixels, valid

    def _read_bands(self, window: Window, shape: tuple[int, int] | None = None) -> Bands:
        """Return pixels (B, H, W) and where each band has data, (B, H, W) bool.

        ``shape`` (H, W) reads every so many pixels one instead of all.
        """
        shape = shape or (window.height, window.width)
        place = self._place_of(window)
        given = self._reading.settings.nodata

        def from_file(dataset: DatasetReader) -> Bands:
            pixels = dataset.read(
                self._bands, out_shape=(len(self._bands), *shape), out_dtype=self._dtype, **place
            )
            valid = np.ones(pixels.shape, bool)
            for index, band in enumerate(self._bands):
                flags = dataset.mask_flag_enums[band - 1]
                # Alpha is read below, once, and not at all where it was selected as a colour.
                if MaskFlags.all_valid in flags or MaskFlags.alpha in flags:
                    continue
                if given is None or MaskFlags.nodata not in flags:
                    valid[index] = dataset.read_masks(band, out_shape=shape, **place) > 0
            return pixels, valid

        pixels, valid = self._from_file(from_file)
        for index, band in enumerate(self._bands):
            if (empty := self._said_nodata(band)) is not None:
                valid[index] &= ~is_value(pixels[index], [empty])
        if self._mask_band is not None:
            alpha = self._read_one(self._mask_band, window, shape)
            valid &= alpha > (NEAR if self._is_lossy else 0)
        if given:
            valid &= ~is_value(pixels, given)
        if pixels.dtype.kind == "f":
            valid &= np.isfinite(pixels)
        return pixels, valid

    def _read_one(self, band: int, window: Window, shape: tuple[int, int]) -> np.ndarray:
        place = self._place_of(window)
        return self._from_file(lambda dataset: dataset.read(band, out_shape=shape, **place))

    def _from_file(self, read: Callable[[DatasetReader], T]) -> T:
        """What ``read`` gets from the file; one over the network is opened anew where it fails.

        A connection that broke leaves half a body, which GDAL keeps as long as the file is open.
        """
        left = TRIES if is_remote(self.path) else 1
        while True:
            left -= 1
            try:
                with errors_of(self.path, "read"):
                    return read(self._dataset)
            except SourceError as error:
                if not left or isinstance(error, SourceAwayError):
                    raise
            self._dataset.close()
            self._dataset = open_dataset(self.path, self._reading.access)

    def _place_of(self, window: Window) -> dict[str, object]:
        return {
            "window": rasterio.windows.Window(window.x, window.y, window.width, window.height),
            "resampling": Resampling.nearest,
        }

    @cached_property
    def _fills(self) -> list[Fills]:
        """Fill values of each band that neither the header nor the user names."""
        is_given = self._reading.settings.nodata is not None
        if self._dtype == np.uint8 or self._colours is not None or is_given:
            return [Fills()] * len(self._bands)
        return self._sample.fills()

    @cached_property
    def _limits(self) -> Limits | None:
        """What becomes black and white; None where values stay as they are."""
        if self._colours is not None:
            return None
        given = self._reading.settings.limits()
        if given is not None:
            self._stretch_words = "--stretch"
            return Limits((given[0],) * len(self._bands), (given[1],) * len(self._bands))
        if self._dtype == np.uint8:
            return None
        limits = self._reading.limits_of(self.path, self.header, self.resolution)
        if limits is not None:
            self._stretch_words = "archive"
            return limits
        self._stretch_words = "scene"
        return self._scene_limits()

    def _scene_limits(self) -> Limits:
        """What becomes black and white in each band, from a sample of the scene."""
        return fit_limits([self._sample], [self._fills])

    @property
    def sample(self) -> Sample:
        """Pixels drawn over the scene; the same ones each time."""
        return self._sample

    @property
    def fills(self) -> list[Fills]:
        """Fill values of each band that were found in the sample."""
        return self._fills

    @cached_property
    def _sample(self) -> Sample:
        scene = Window(0, 0, self._dataset.width, self._dataset.height)
        places = self._places(scene)
        parts = [self._read_bands(window, shape) for window, shape in places]
        if len(parts) > 1:
            sample, valid = (
                np.concatenate([part[i].reshape(len(self._bands), -1) for part in parts], axis=1)
                for i in (0, 1)
            )
            if valid.any(axis=1).all():
                return Sample(sample, valid, parts[:: max(1, len(parts) // NOISE_PATCHES**2)])
            places = [(scene, _decimated(scene))]
            parts = [self._read_bands(*places[0])]
        if places[0][1] == (scene.height, scene.width) or self._dtype == np.uint8:
            return Sample(*parts[0], parts)
        patches = [self._read_bands(patch) for patch in _patches(scene, NOISE_PATCHES)]
        return Sample(*parts[0], patches)

    def _places(self, scene: Window) -> list[tuple[Window, tuple[int, int]]]:
        """Windows that a sample is drawn from, and the rows and columns it has of each."""
        has_overviews = bool(self._dataset.overviews(self._bands[0]))
        if scene.width * scene.height > SAMPLE_WHOLE_BELOW and not has_overviews:
            # Every so many pixels one would decode every block of a file of 20 GB.
            return [(patch, (patch.height, patch.width)) for patch in _patches(scene)]
        return [(scene, _decimated(scene))]

    def _validity_words(self) -> Iterator[str]:
        settings = self._reading.settings
        flags = {flag for b in self._bands for flag in self._dataset.mask_flag_enums[b - 1]}
        if settings.nodata is not None:
            yield "--nodata " + (",".join(map(number, settings.nodata)) or "none")
        elif MaskFlags.nodata in flags:
            yield f"nodata {number(self._dataset.nodatavals[self._bands[0] - 1])}"
        elif (empty := self._said_nodata(self._bands[0])) is not None:
            yield f"nodata {number(empty)} (its item)"
        if MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags:
            yield "mask"
        if self._alpha is not None:
            yield f"band {self._alpha}, called alpha (--alpha {settings.alpha})"

    def _place_words(self) -> str:
        crs, gcps = self.crs, self.gcps[0]
        if gcps:
            return "ground control points"
        if crs is not None and not self.transform.is_identity:
            code = crs.to_epsg()
            return f"EPSG:{code}" if code else "a CRS without EPSG code"
        if self.rpcs is not None:
            return "RPCs"
        if not self.transform.is_identity:
            return "a transform without CRS"
        return "none" if crs is None else "a CRS without transform"

    def _header_doubts(self) -> Iterator[Doubt]:
        dataset = self._dataset
        pages = len(dataset.subdatasets)
        if not pages and dataset.driver in ("GIF", "BIGGIF"):
            pages = dataset.count
        if pages > 1:
            text = f"holds {pages} images (pages); the first is read, make files of the others"
            yield Doubt("pages", text)
        if self._said_turn != self._turn.code:
            text = (
                f"says it is stored sideways (EXIF {self._said_turn}) and where it lies: rows and "
                "columns are left as they are stored"
            )
            yield Doubt("orientation", text)

    def _said_doubts(self) -> Iterator[Doubt]:
        said, count = self._said, self._dataset.count
        if len(said.band_names) > count:
            text = (
                f"its item names {len(said.band_names)} bands, the file has {count}: no name counts"
            )
            yield Doubt("item bands", text)
        if len(said.nodata) > 1 and len(said.nodata) != count and said.nodata_of(1, count) is None:
            text = (
                f"its item has nodata values for {len(said.nodata)} bands, the file has {count}: "
                "none counts"
            )
            yield Doubt("item nodata", text)

    def _alpha_doubts(self) -> Iterator[Doubt]:
        if self._alpha is not None and self._mask_band is None:
            text = (
                f"band {self._alpha} is called alpha but has the values of an image: it masks "
                "nothing (--alpha use makes it a mask)"
            )
            yield Doubt("alpha", text)

    def _fill_doubts(self) -> Iterator[Doubt]:
        pixels, valid = self._sample.pixels, self._sample.valid
        for values, words in (
            ([own.nodata for own in self._fills], "no data, though the file does not say so "
             "(--nodata none keeps them)"),
            ([own.stray for own in self._fills], "left out of the stretch (--nodata V makes them "
             "no data)"),
        ):  # fmt: skip
            for value in sorted({value for own in values for value in own}):
                share = max(
                    float((is_value(pixels[band], [value]) & valid[band]).mean())
                    for band, own in enumerate(values)
                    if value in own
                )
                text = f"{share:.1%} of its pixels are {number(value)}: {words}"
                yield Doubt(f"fill {number(value)}", text)


def probe(path: str | Path) -> tuple[int, int]:
    """Return (width, height) in pixels from the file's header. Raises SourceError."""
    with RasterReader(path) as reader:
        return reader.width, reader.height


def _decimated(scene: Window) -> tuple[int, int]:
    """Rows and columns of a scene of which every so many pixels one is read."""
    shrink = max(1.0, max(scene.width, scene.height) / SAMPLE_SIDE)
    return math.ceil(scene.height / shrink), math.ceil(scene.width / shrink)


def _patches(scene: Window, count: int | None = None) -> Iterator[Window]:
    """Spread count x count small windows evenly over a large scene."""
    count = count or SAMPLE_PATCHES
    side = SAMPLE_SIDE // SAMPLE_PATCHES
    for row in range(count):
        y = row * max(scene.height - side, 0) // (count - 1)
        for column in range(count):
            x = column * max(scene.width - side, 0) // (count - 1)
            yield Window(x, y, min(side, scene.width), min(side, scene.height))
