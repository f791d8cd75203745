"""Photographs that are stored sideways: the orientation of EXIF and TIFF, tag 274."""

import os
import struct
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from rasterio.io import DatasetReader

from alps.engine.images.windows import Window

TAG = 0x0112
UPRIGHT = 1
SIGNATURE = 8  # bytes that a PNG begins with
TEXTS = (b"tEXt", b"zTXt", b"iTXt")
NAMES = (b"Raw profile type exif", b"XML:com.adobe.xmp")
LONGEST_NAME = 80  # bytes of a text's name with the zero behind it


@dataclass(frozen=True)
class Orientation:
    """How stored rows and columns become those that viewers show.

    code: 1 to 8 as EXIF 2.3 has it: 2 to 4 mirror and turn by half, 5 to 8 swap rows and columns.
    width, height: of the stored image.
    """

    code: int
    width: int
    height: int

    @property
    def size(self) -> tuple[int, int]:
        """Width and height as shown."""
        return (self.height, self.width) if self.code >= 5 else (self.width, self.height)

    def stored(self, window: Window) -> Window:
        """Where a window of the shown image is stored."""
        x, y, w, h = window.x, window.y, window.width, window.height
        if self.code >= 5:  # first as if only rows and columns were swapped
            x, y, w, h = y, x, h, w
        if self.code in (2, 3, 7, 8):  # stored columns run the other way
            x = self.width - x - w
        if self.code in (3, 4, 6, 7):  # stored rows do
            y = self.height - y - h
        return Window(x, y, w, h)

    def shown(self, pixels: np.ndarray) -> np.ndarray:
        """Stored pixels (H, W, ...) as viewers show them."""
        if self.code in (2, 3, 7, 8):
            pixels = pixels[:, ::-1]
        if self.code in (3, 4, 6, 7):
            pixels = pixels[::-1]
        if self.code >= 5:
            pixels = pixels.swapaxes(0, 1)
        return np.ascontiguousarray(pixels)


def orientation_tag(path: str | Path, dataset: DatasetReader) -> int:
    """The code in a file's header, 1 where there is none."""
    said = dataset.tags().get("EXIF_Orientation")
    if said is not None:
        code = int(said) if said.strip().isdigit() else UPRIGHT
    elif dataset.driver in ("PNG", "WEBP", "GTiff") and not str(path).startswith("/vsi"):
        # GDAL does not tell of it in these. Pillow decodes all of a PNG before it tells, since what
        # says it may come last.
        code = _by_pillow(path) if dataset.driver != "PNG" or _may_say(path) else UPRIGHT
    else:
        code = UPRIGHT
    return code if 1 <= code <= 8 else UPRIGHT


def _may_say(path: str | Path) -> bool:
    """Whether a chunk of a PNG may hold an orientation; others are passed over unread."""
    with suppress(OSError), open(path, "rb") as file:
        file.seek(SIGNATURE)
        while len(header := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", header)
            if kind == b"eXIf":
                return True
            start = file.read(min(length, LONGEST_NAME)) if kind in TEXTS else b""
            if start.partition(b"\0")[0] in NAMES:
                return True
            file.seek(length + 4 - len(start), os.SEEK_CUR)
    return False


def _by_pillow(path: str | Path) -> int:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of size
            with Image.open(path) as image:
                return int(image.getexif().get(TAG, UPRIGHT))
    except Exception:  # Pillow knows few kinds of TIFF, and raises many kinds of errors for others
        return UPRIGHT
