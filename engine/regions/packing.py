"""A scene's raster on its way to the disk: numbers of regions, packed until a row of blocks has
them, and given out in tiles of the file.

A block's pixels are kept as places in the list of its regions, deflated to some hundredth: a row
of blocks as wide as the scene takes little, and no tile of the file is written twice.
"""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from alps.engine.images.tiff import TILE
from alps.engine.images.windows import Window

NOWHERE = np.iinfo(np.uint32).max  # in the raster: pixels in no region


@dataclass(frozen=True)
class Piece:
    """A tile of a scene's raster, or what of one lies within the scene."""

    x: int
    y: int
    numbers: np.ndarray  # (h, w) uint32 region of each pixel, NOWHERE in none


@dataclass
class _Packed:
    """The pixels of a block's core."""

    core: Window
    places: bytes  # deflated (h, w) of ``kind``, in ``regions``; its length in none
    kind: np.dtype
    regions: np.ndarray  # (M,) int64 keys, later (M,) uint32 numbers

    @classmethod
    def of(cls, core: Window, regions: np.ndarray, keys: np.ndarray) -> "_Packed":
        """Of regions (h, w) int32, -1 none, whose keys (N,) int64 these are."""
        there = np.zeros(len(keys) + 1, bool)
        there[regions] = True
        there[-1] = False
        own = np.flatnonzero(there)
        kind = np.dtype(np.uint16 if len(own) <= np.iinfo(np.uint16).max else np.uint32)
        place = np.full(len(keys) + 1, len(own), kind)
        place[own] = np.arange(len(own))
        packed = zlib.compress(place[regions].data, 1)
        return cls(core, packed, kind, keys[own])

    def numbers(self) -> np.ndarray:
        """(h, w) uint32."""
        shape = self.core.height, self.core.width
        places = np.frombuffer(zlib.decompress(self.places), self.kind).reshape(shape)
        return np.append(self.regions, NOWHERE).astype(np.uint32)[places]


class PackedRaster:
    """The blocks of a scene of ``size`` (width, height), row by row, of which tiles are made."""

    def __init__(self, size: tuple[int, int]) -> None:
        self._width, self._height = size
        self._new: list[_Packed] = []
        self._blocks: list[_Packed] = []  # with numbers, from left to right in each row
        self._y = 0  # where the next row of tiles begins

    def add(self, core: Window, regions: np.ndarray, keys: np.ndarray) -> None:
        """Keep the pixels of a block's ``core``.

        regions: (h, w) int32, -1 none. keys: (N,) int64 of each, of which only those are looked at
        that have pixels there.
        """
        self._new.append(_Packed.of(core, regions, keys))

    def tiles(self, numbers_of: Callable[[np.ndarray], np.ndarray]) -> Iterator[Piece]:
        """The tiles that are known now, row by row; to be taken before the next block is added.

        numbers_of: gives numbers of regions by their keys (M,), of blocks added since.
        """
        for block in self._new:
            block.regions = numbers_of(block.regions)
        self._blocks += self._new
        self._new = []
        bottom = self._blocks[-1].core.y + self._blocks[-1].core.height
        while self._y < bottom and min(self._y + TILE, self._height) <= bottom:
            yield from self._row(min(TILE, self._height - self._y))
            self._y += TILE
        self._blocks = [one for one in self._blocks if one.core.y + one.core.height > self._y]

    def _row(self, rows: int) -> Iterator[Piece]:
        top, bottom = self._y, self._y + rows
        near = [
            one
            for one in self._blocks
            if one.core.y < bottom and one.core.y + one.core.height > top
        ]
        opened: dict[int, np.ndarray] = {}  # of those that the tile lies in
        for left in range(0, self._width, TILE):
            right = min(left + TILE, self._width)
            numbers = np.empty((rows, right - left), np.uint32)
            before, opened = opened, {}
            for index, one in enumerate(near):
                core = one.core
                if core.x >= right or core.x + core.width <= left:
                    continue
                opened[index] = before[index] if index in before else one.numbers()
                y0, y1 = max(core.y, top), min(core.y + core.height, bottom)
                x0, x1 = max(core.x, left), min(core.x + core.width, right)
                numbers[y0 - top : y1 - top, x0 - left : x1 - left] = opened[index][
                    y0 - core.y : y1 - core.y, x0 - core.x : x1 - core.x
                ]
            yield Piece(left, top, numbers)
