"""What superpixels are on every device: constants, the grid of seeds, checks of arguments."""

from dataclasses import dataclass
from typing import Any

import numpy as np

PASSES = 5  # later ones hardly move an edge
COMPACTNESS = 10  # L*a*b* units that weigh as much as the distance between two seeds
SHIFT = 4  # colours and places are compared in sixteenths of a unit and of a pixel
COLOUR_SHIFT = 3  # from the 128ths of a unit that colours come in to these
WEIGHT_BITS = 16  # of the fraction of the weight of places against colours
NOWHERE = -1
FAR = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Seeds:
    """The grid on which regions begin."""

    side: int  # of a cell, pixels
    origin: tuple[int, int]  # row and column of the scene in which the pixels begin
    size: tuple[int, int]  # H, W of the pixels
    weight: int  # of squared distance in the image against that in colour, 2^WEIGHT_BITS is 1

    @staticmethod
    def of(
        size: tuple[int, ...], per_megapixel: float, origin: tuple[int, int] = (0, 0)
    ) -> "Seeds":
        """A grid over H x W pixels of a scene, whose cells begin at the scene's first pixel.

        Raises:
            ValueError: not a positive number of regions.
        """
        side = side_of(per_megapixel)
        weight = max(1, round((COMPACTNESS / side) ** 2 * (1 << WEIGHT_BITS)))
        return Seeds(side, origin, (size[0], size[1]), weight)

    @property
    def rows(self) -> int:
        """Rows of cells that the pixels touch."""
        return self._cells(0)

    @property
    def columns(self) -> int:
        """Columns of cells that the pixels touch."""
        return self._cells(1)

    def _cells(self, axis: int) -> int:
        first, last = self.origin[axis], self.origin[axis] + max(self.size[axis], 1) - 1
        return last // self.side - first // self.side + 1


def side_of(per_megapixel: float) -> int:
    """Side of a cell in pixels. Raises ValueError: not a positive number of regions."""
    if not per_megapixel > 0:
        raise ValueError(f"{per_megapixel} superpixels a megapixel: must be above 0")
    return max(1, round((1e6 / per_megapixel) ** 0.5))


def reach(side: int) -> int:
    """How far away, in pixels, what decides a pixel's region may lie.

    A pixel hangs on the seeds of the nine cells around it, and they, pass after pass, on the
    pixels of the nine around theirs.
    """
    return (2 * PASSES + 1) * side


def checked_valid(pixels: Any, valid: np.ndarray | None) -> np.ndarray:
    """The pixels (H, W) bool that belong to a region: ``valid``, or all where it is None.

    Raises:
        ValueError: the arguments are not of the shapes and dtypes of ``superpixels``.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.int16:
        raise ValueError(
            f"pixels must be (H, W, 3) int16, not {pixels.dtype} {tuple(pixels.shape)}"
        )
    size = tuple(pixels.shape[:2])
    if valid is None:
        return np.ones(size, bool)
    if valid.shape != size or valid.dtype != bool:
        raise ValueError(f"valid must be bool of {size}, not {valid.dtype} of {valid.shape}")
    return valid


def first_regions(valid: np.ndarray, seeds: Seeds) -> np.ndarray:
    """The cells of the grid, (H, W) int32; -1 where not valid."""
    row_cell, column_cell = cells_of(seeds)
    return np.where(valid, row_cell[:, None] * seeds.columns + column_cell, NOWHERE).astype(
        np.int32
    )


def cells_of(seeds: Seeds) -> tuple[np.ndarray, np.ndarray]:
    """Row of cells of each row of pixels (H,), and column of each column (W,): int32, from 0."""
    (top, left), (height, width) = seeds.origin, seeds.size
    rows = (top + np.arange(height)) // seeds.side - top // seeds.side
    columns = (left + np.arange(width)) // seeds.side - left // seeds.side
    return rows.astype(np.int32), columns.astype(np.int32)


def moved(sums: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Middles of regions (N, 5) int64: colour and row and column, in sixteenths.

    sums: (N, 6) int64 of the values and of ones; a region without pixels stays where it was.
    """
    count = sums[:, 5:]
    known = np.maximum(count, 1)
    colour, place = sums[:, :3] // (known << COLOUR_SHIFT), (sums[:, 3:5] << SHIFT) // known
    mean = np.concatenate([colour, place], axis=1)
    return np.where(count > 0, mean, before)
