"""Writes a label map strip by strip: a palette PNG, or a GeoTIFF that lies where its source does.

A map appears under its name whole, or not at all; the same labels give the same bytes, however
they were cut into strips. Memory is bounded by one band of 512 rows, whatever the map's size.
"""

import os
import struct
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Protocol, Self

import numpy as np

from alps.engine.base.atomic import clear, publish
from alps.engine.base.errors import SettingsError
from alps.engine.images.georeference import Georeference
from alps.engine.images.raster import RasterReader
from alps.engine.images.tiff import TILE, TiffWriter, copy_as_cog, writing
from alps.engine.labels import palette as palettes

UNLABELLED = 255  # what mmseg, torchgeo and ignore_index expect
UNLABELLED_WIDE = 65535  # where ids need 16 bits
BAND_ROWS = TILE  # rows a write: no tile of a TIFF is ever written twice


def label_dtype(classes: int) -> np.dtype:
    """Return uint8 for up to 255 classes, uint16 for up to 65535. Raises SettingsError."""
    if not 1 <= classes <= UNLABELLED_WIDE:
        raise SettingsError(f"--clusters {classes}: must be from 1 to {UNLABELLED_WIDE}")
    return np.dtype(np.uint8 if classes <= UNLABELLED else np.uint16)


def unlabelled_value(classes: int) -> int:
    """Return the value of pixels with no class: 255, or 65535 where ids need 16 bits."""
    return UNLABELLED if label_dtype(classes) == np.uint8 else UNLABELLED_WIDE


class LabelMapWriter:
    """A context manager; leaving it without an error puts the map under its name.

    path: ends in .png or .tif; its folder is made. palette: (K, 3) uint8, a colour a class.
    With K <= 255 a PNG is of palette type and a TIFF has a colour table, unlabelled (255) black;
    with more, both are plain 16-bit grey and unlabelled is 65535. A TIFF declares unlabelled as
    nodata, is tiled and deflated, and carries ``georeference``. cog: a TIFF is a Cloud Optimized
    GeoTIFF, whose overviews show the class that most pixels have.

    Raises RunFolderError where the file cannot be written, also where GDAL only half says so:
    a TIFF is read back before it gets its name.
    """

    def __init__(
        self,
        path: str | Path,
        width: int,
        height: int,
        palette: np.ndarray,
        *,
        georeference: Georeference | None = None,
        cog: bool = False,
    ) -> None:
        self.path = Path(path)
        self._is_cog = cog and self.path.suffix == ".tif"
        self.width, self.height, self.classes = width, height, len(palette)
        self._dtype = label_dtype(self.classes)
        self._unlabelled = unlabelled_value(self.classes)
        self._palette = np.asarray(palette, np.uint8)
        self._georeference = georeference or Georeference()
        # A fixed name, so that what a killed run leaves is overwritten by the next.
        self._part = self.path.with_name(f".{self.path.name}.part")
        if self.path.suffix not in (".png", ".tif"):
            raise ValueError(f"{path}: a label map is a .png or a .tif")
        if width < 1 or height < 1:
            raise ValueError(f"a label map of {width} x {height} pixels")

    @classmethod
    def like(
        cls, reader: RasterReader, path: str | Path, classes: int, palette: np.ndarray | None = None
    ) -> Self:
        """Open a map with the size and the place of ``reader``'s image.

        ``palette``: (classes, 3) uint8; the engine's own colours by default.
        """
        if palette is None:
            palette = palettes.palette(classes)
        if len(palette) != classes:
            raise ValueError(f"a palette of {len(palette)} colours for {classes} classes")
        place = Georeference.of(reader)
        return cls(path, reader.width, reader.height, palette, georeference=place)

    def __enter__(self) -> Self:
        self._band = np.empty((min(BAND_ROWS, self.height), self.width), self._dtype)
        self._rows = 0  # received so far
        try:
            with writing("label map", self.path):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                clear(self._part)
                self._sink: _Sink = self._open()
        except BaseException:
            self._remove_part()
            raise
        return self

    def _open(self) -> "_Sink":
        if self.path.suffix == ".png":
            return _PngSink(self._part, self)
        colours = self._palette if self._dtype == np.uint8 else None
        size = (self.width, self.height)
        return TiffWriter(
            self._part, size, self._unlabelled, self._dtype, self._georeference, colours
        )

    def write_rows(self, y: int, labels: np.ndarray) -> None:
        """Append rows y ... y + h - 1, which must follow those written before.

        labels: (h, width), any integer dtype, class ids or the unlabelled value.
        """
        if y != self._rows or labels.ndim != 2 or labels.shape[1] != self.width:
            raise ValueError(
                f"{self.path}: got {labels.shape} at row {y}, expected (h, {self.width}) "
                f"at row {self._rows}"
            )
        if y + len(labels) > self.height:
            raise ValueError(f"{self.path}: row {y + len(labels)} of {self.height}")
        if labels.size and not self._known(labels):
            raise ValueError(f"{self.path}: a label that is no class of {self.classes}")
        done = 0
        while done < len(labels):
            start = self._rows % BAND_ROWS
            taken = min(BAND_ROWS - start, len(labels) - done)
            self._band[start : start + taken] = labels[done : done + taken]
            done += taken
            self._rows += taken
            if start + taken == BAND_ROWS or self._rows == self.height:
                with writing("label map", self.path):
                    self._sink.write(self._rows - start - taken, self._band[: start + taken])

    def __exit__(self, kind: type[BaseException] | None, *exc_info: object) -> None:
        try:
            if kind is None:
                self._commit()
        finally:
            self._sink.close()
            self._remove_part()

    def _commit(self) -> None:
        if self._rows != self.height:
            raise ValueError(f"{self.path}: {self._rows} of {self.height} rows were written")
        with writing("label map", self.path):
            self._sink.finish()
            if self._is_cog:
                self._write_cog()
            publish(self._part, self.path)

    def _write_cog(self) -> None:
        """Copy what was written; pixels are compared once more."""
        whole_part = self._part.with_name(f".{self.path.name}.cog")
        try:
            copy_as_cog(self._part, whole_part)
            os.replace(whole_part, self._part)
        finally:
            for left in (whole_part, whole_part.with_name(f"{whole_part.name}.ovr.tmp")):
                left.unlink(missing_ok=True)

    def _remove_part(self) -> None:
        with suppress(OSError):  # a folder that may not be written: said already
            self._part.unlink(missing_ok=True)

    def _known(self, labels: np.ndarray) -> bool:
        if labels.min() < 0:
            return False
        if labels.max() < self.classes:
            return True
        return bool(((labels < self.classes) | (labels == self._unlabelled)).all())


class _Sink(Protocol):
    def write(self, y: int, rows: np.ndarray) -> None: ...
    def finish(self) -> None: ...
    def close(self) -> None: ...


class _PngSink:
    """PNG (specification, third edition) as a stream, because Pillow wants the map in memory.

    Rows are not filtered: filters are made for photographs and spoil runs of equal labels.
    """

    def __init__(self, path: Path, about: LabelMapWriter) -> None:
        self._file = path.open("wb")
        self._deflate = zlib.compressobj(6)
        is_palette = about._dtype == np.uint8
        depth, colour_type = (8, 3) if is_palette else (16, 0)
        self._file.write(b"\x89PNG\r\n\x1a\n")
        header = struct.pack(">IIBBBBB", about.width, about.height, depth, colour_type, 0, 0, 0)
        self._chunk(b"IHDR", header)
        if is_palette:
            colours = np.zeros((UNLABELLED + 1, 3), np.uint8)
            colours[: about.classes] = about._palette
            self._chunk(b"PLTE", colours.tobytes())

    def write(self, y: int, rows: np.ndarray) -> None:
        samples = rows.astype(rows.dtype.newbyteorder(">")).view(np.uint8)
        lines = np.zeros((len(rows), 1 + samples.shape[1]), np.uint8)  # a filter byte a row: none
        lines[:, 1:] = samples
        self._chunk(b"IDAT", self._deflate.compress(lines.data))

    def finish(self) -> None:
        self._chunk(b"IDAT", self._deflate.flush())
        self._chunk(b"IEND", b"")
        self._file.close()

    def close(self) -> None:
        with suppress(OSError):
            self._file.close()

    def _chunk(self, kind: bytes, data: bytes) -> None:
        if data or kind == b"IEND":
            self._file.write(struct.pack(">I", len(data)) + kind)
            self._file.write(data)
            self._file.write(struct.pack(">I", zlib.crc32(data, zlib.crc32(kind))))
