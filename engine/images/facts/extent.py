"""Whether a file can hold the pixels its header says: one flipped bit makes them billions."""

import struct
from dataclasses import dataclass

from rasterio.io import DatasetReader

# Pixels a byte that no format goes beyond. A TIFF's empty tiles take 16 bytes each, of any size.
MOST_A_BYTE = 1 << 16
MOST_A_BYTE_IN_TILES = 1 << 22
NO_LIMIT = (1 << 32) - 1  # rows a strip, where a TIFF does not say
TYPES = {3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}


def lacks_pixels(dataset: DatasetReader, path: str, size: float) -> bool:
    """Whether a raster at ``path``, in ``size`` bytes, cannot have the pixels its header says."""
    pixels = dataset.width * dataset.height
    try:
        header = _tiff_header(path) if dataset.driver == "GTiff" else None
    except OSError:  # away since it was opened; whoever reads it says so
        header = None
    if header is None or not header.is_tiled:
        return pixels > MOST_A_BYTE * size or (header is not None and header.lacks_blocks)
    return pixels > MOST_A_BYTE_IN_TILES * size or header.lacks_blocks


@dataclass(frozen=True)
class _Tag:
    count: int  # of values; nought where they do not fit into the file
    value: int  # the first, where all are in the entry itself


@dataclass(frozen=True)
class _TiffHeader:
    """The entries of a TIFF's first image, by tag."""

    tags: dict[int, _Tag]

    @property
    def is_tiled(self) -> bool:
        """Whether it is in tiles, not in strips."""
        return 324 in self.tags

    @property
    def lacks_blocks(self) -> bool:
        """Whether its list of strips or tiles is shorter than its size asks for.

        GDAL fills up the list, and reads pixels that are nowhere as zeros.
        """
        width, height = self._value(256, 0), self._value(257, 0)
        if self.is_tiled:
            across, down = self._value(322, 0), self._value(323, 0)
            listed = self.tags[324].count
        else:
            across, down = width, min(self._value(278, NO_LIMIT), height)
            listed = self.tags[273].count if 273 in self.tags else 0
        if not (across and down):
            return True
        planes = self._value(277, 1) if self._value(284, 1) == 2 else 1
        return listed < -(-width // across) * -(-height // down) * planes

    def _value(self, tag: int, default: int) -> int:
        return self.tags[tag].value if tag in self.tags else default


def _tiff_header(path: str) -> _TiffHeader | None:
    """Read the first directory (TIFF 6.0, section 2, and BigTIFF); None where that cannot be."""
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        head = file.read(16)
        order = {b"II": "<", b"MM": ">"}.get(head[:2])
        if order is None or len(head) < 16:
            return None
        is_big = struct.unpack(order + "H", head[2:4])[0] == 43
        place, counter, entry = ("Q", "Q", "HHQ8s") if is_big else ("I", "H", "HHI4s")
        at = 8 if is_big else 4
        (first,) = struct.unpack_from(order + place, head, at)
        file.seek(min(first, size))
        counted = file.read(struct.calcsize(order + counter))
        if len(counted) < struct.calcsize(order + counter):
            return None
        (count,) = struct.unpack(order + counter, counted)
        entries = file.read(struct.calcsize(order + entry) * min(count, 1 << 16))
    length = struct.calcsize(order + entry)
    tags: dict[int, _Tag] = {}
    for number in range(len(entries) // length):
        tag, kind, values, data = struct.unpack_from(order + entry, entries, number * length)
        form = order + TYPES.get(kind, "B")
        fits = values * struct.calcsize(form) <= size
        tags.setdefault(tag, _Tag(values if fits else 0, struct.unpack_from(form, data)[0]))
    return _TiffHeader(tags)
