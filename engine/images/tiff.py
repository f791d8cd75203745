"""GeoTIFFs written strip by strip, and checked before they count."""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError
from rasterio.windows import Window

from alps.engine.base.atomic import whole
from alps.engine.base.errors import RunFolderError
from alps.engine.images.georeference import Georeference

TILE = 512  # a TIFF tile's side: strips of so many rows write no tile twice
ACROSS = 4 * TILE  # pixels of a strip that are read back at once


@dataclass(frozen=True)
class Bands:
    """What a TIFF says of its bands."""

    names: tuple[str, ...]
    scale: float = 1.0  # times which a value is what it stands for


class TiffWriter:
    """A tiled, deflated GeoTIFF through GDAL, which reports a full disk late, to its log alone.

    colours: (K, 3) uint8, a colour table; the nodata value is black in it. bands: what the bands
    are called, where there is more than one, or their values are shares.
    """

    def __init__(
        self,
        path: Path,
        size: tuple[int, int],
        nodata: int,
        dtype: np.dtype,
        place: Georeference,
        colours: np.ndarray | None = None,
        bands: Bands | None = None,
    ) -> None:
        """Open a file of ``size`` (width, height) for its rows."""
        self._path = path
        self._sums: list[tuple[Window, int]] = []  # CRC-32
        count, options = 1, dict[str, Any]()
        if bands is not None:
            count = len(bands.names)
            options["interleave"] = "band"
        if place.transform is not None:
            options["transform"] = place.transform
        if place.gcps:
            options["gcps"] = list(place.gcps)
        if place.rpcs is not None:
            options["rpcs"] = place.rpcs
        # Points without a CRS are a place all the same; rasterio wants one to write them.
        crs = rasterio.CRS() if place.gcps and place.crs is None else place.crs
        self._dataset = rasterio.open(
            path, "w", driver="GTiff", width=size[0], height=size[1], count=count, dtype=dtype,
            nodata=nodata, crs=crs, tiled=True, blockxsize=TILE, blockysize=TILE,
            compress="deflate", BIGTIFF="IF_SAFER", **options,
        )  # fmt: skip
        if colours is not None:
            table = {i: (*map(int, rgb), 255) for i, rgb in enumerate(colours)}
            self._dataset.write_colormap(1, table | {nodata: (0, 0, 0, 255)})
        if bands is not None:
            self._dataset.descriptions = bands.names
            self._dataset.scales = [bands.scale] * count

    def write(self, y: int, rows: np.ndarray, x: int = 0) -> None:
        """Write a rectangle from ``x`` and ``y`` on, (h, w), or (bands, h, w)."""
        rows = np.ascontiguousarray(rows)
        height, width = rows.shape[-2:]
        bands = 1 if rows.ndim == 2 else list(range(1, len(rows) + 1))
        self._dataset.write(rows, bands, window=Window(x, y, width, height))
        for left in range(0, width, ACROSS):  # so that a wide strip is never read back whole
            part = np.ascontiguousarray(rows[..., left : left + ACROSS])
            place = Window(x + left, y, part.shape[-1], height)
            self._sums.append((place, zlib.crc32(part.data)))

    def finish(self) -> None:
        """Close the file and read it back. Raises OSError where it is not what was written."""
        self._dataset.close()
        with rasterio.open(self._path) as written:
            for place, expected in self._sums:
                rows = written.read(window=place)
                if zlib.crc32(rows.data) != expected:
                    last = place.row_off + place.height - 1
                    raise OSError(f"rows {place.row_off} to {last} read back differently")

    def close(self) -> None:
        """Let go of the file, whole or not."""
        with suppress(RasterioError, CPLE_BaseError):
            self._dataset.close()


def copy_as_cog(path: Path, to: Path) -> None:
    """Copy a TIFF of whole numbers into a Cloud Optimized GeoTIFF with the same bytes each time.

    Overviews have the value that most pixels have: values are never mixed. Raises OSError where the
    copy reads back differently.
    """
    with rasterio.Env(GDAL_NUM_THREADS="1"):
        rasterio.shutil.copy(
            path, to, driver="COG", blocksize=TILE, compress="deflate", BIGTIFF="IF_SAFER",
            overview_resampling="mode", overviews="IGNORE_EXISTING",
        )  # fmt: skip
    with rasterio.open(path) as before, rasterio.open(to) as after:
        for y in range(0, before.height, TILE):
            rows = Window(0, y, before.width, min(TILE, before.height - y))
            if not np.array_equal(before.read(window=rows), after.read(window=rows)):
                raise OSError(f"rows from {y} on read back differently")


@contextmanager
def whole_tiff(
    path: Path,
    size: tuple[int, int],
    nodata: int,
    dtype: np.dtype,
    place: Georeference,
    bands: Bands | None = None,
) -> Iterator[TiffWriter]:
    """A GeoTIFF that appears under its name whole, or not at all; its folder is made."""
    with writing("raster", path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as part, writing("raster", path):
        writer = TiffWriter(part, size, nodata, dtype, place, bands=bands)
        try:
            yield writer
            writer.finish()
        finally:
            writer.close()


@contextmanager
def writing(what: str, path: Path) -> Iterator[None]:
    """Turn what GDAL and the system say of a file that is written into RunFolderError."""
    try:
        yield
    except (RasterioError, OSError, CPLE_BaseError) as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise RunFolderError(
            f"Cannot write the {what} {path}: {reason.rstrip('.')}. "
            "Check the disk's free space and the folder's permissions, then run again."
        ) from error
