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

    rows: int
    columns: int
    weight: int  # of squared distance in the image against that in colour, 2^WEIGHT_BITS is 1

    @staticmethod
    def of(size: tuple[int, ...], per_megapixel: float) -> "Seeds":
        """A grid over H x W pixels.

        Raises:
            ValueError: not a positive number of regions.
        """
        if not per_megapixel > 0:
            raise ValueError(f"{per_megapixel} superpixels a megapixel: must be above 0")
        side = max(1.0, (1e6 / per_megapixel) ** 0.5)
        weight = round((COMPACTNESS / side) ** 2 * (1 << WEIGHT_BITS))
        return Seeds(max(1, round(size[0] / side)), max(1, round(size[1] / side)), max(1, weight))


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
    row_cell, column_cell = cells_of(valid.shape, seeds)
    return np.where(valid, row_cell[:, None] * seeds.columns + column_cell, NOWHERE).astype(
        np.int32
    )


def cells_of(size: tuple[int, ...], seeds: Seeds) -> tuple[np.ndarray, np.ndarray]:
    """Row of cells of each row of pixels (H,), and column of each column (W,): int32."""
    rows = np.arange(size[0]) * seeds.rows // max(size[0], 1)
    columns = np.arange(size[1]) * seeds.columns // max(size[1], 1)
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
