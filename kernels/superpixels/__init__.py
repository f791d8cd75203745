"""Superpixels: an image cut into compact regions of similar colour, along its edges.

SLIC (Achanta et al., "SLIC Superpixels Compared to State-of-the-Art Superpixel Methods", TPAMI
2012) with fixed neighbourhoods, as gSLICr has it (Ren et al., 2015): seeds lie on a grid, and a
pixel is asked about the nine seeds around its own cell of the grid, pass after pass. A region may
fall into pieces; nothing here joins them.

All sums and distances are of whole numbers, so a CPU with any number of threads and a GPU give the
same regions, and so does every run.

Bytes moved, each pass: H x W x (6 + 1 + 4) read and H x W x 4 written to assign, H x W x (6 + 4)
read to move the seeds, which stay in a core's cache.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit

from alps.kernels.base import threads
from alps.kernels.base.gpu import is_on_gpu

PASSES = 5  # later ones hardly move an edge
COMPACTNESS = 10  # L*a*b* units that weigh as much as the distance between two seeds
SHIFT = 4  # colours and places are compared in sixteenths of a unit and of a pixel
COLOUR_SHIFT = 3  # from the 128ths of a unit that colours come in to these
WEIGHT_BITS = 16  # of the fraction of the weight of places against colours
GRAIN = 16  # rows handed to a thread at a time
NOWHERE = -1
FAR = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Seeds:
    """The grid on which regions begin."""

    rows: int
    columns: int
    weight: int  # of squared distance in the image against that in colour, 2^WEIGHT_BITS is 1

    @staticmethod
    def of(size: tuple[int, int], per_megapixel: float) -> "Seeds":
        """A grid over H x W pixels.

        Raises:
            ValueError: not a positive number of regions.
        """
        if not per_megapixel > 0:
            raise ValueError(f"{per_megapixel} superpixels a megapixel: must be above 0")
        side = max(1.0, (1e6 / per_megapixel) ** 0.5)
        weight = round((COMPACTNESS / side) ** 2 * (1 << WEIGHT_BITS))
        return Seeds(max(1, round(size[0] / side)), max(1, round(size[1] / side)), max(1, weight))


def superpixels(pixels: Any, valid: np.ndarray | None, per_megapixel: float) -> np.ndarray:
    """Number of the region that each pixel belongs to.

    Args:
        pixels: (H, W, 3) int16, L*a*b* in 128ths of a unit; on a GPU: computed there.
        valid: (H, W) bool, pixels that belong to a region; None: all.
        per_megapixel: about how many regions a million pixels are cut into.

    Returns (H, W) int32, NumPy: regions below ``Seeds.rows`` x ``Seeds.columns``, some of which
    may have no pixel; -1 where not valid.

    Raises:
        ValueError: the arrays are not of these shapes and dtypes.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.int16:
        raise ValueError(
            f"pixels must be (H, W, 3) int16, not {pixels.dtype} {tuple(pixels.shape)}"
        )
    size = tuple(pixels.shape[:2])
    if valid is None:
        valid = np.ones(size, bool)
    if valid.shape != size or valid.dtype != bool:
        raise ValueError(f"valid must be bool of {size}, not {valid.dtype} of {valid.shape}")
    seeds = Seeds.of(size, per_megapixel)
    regions = first_regions(size, valid, seeds)
    if regions.size == 0:
        return regions
    if is_on_gpu(pixels):
        from alps.kernels.superpixels.gpu import refine as on_gpu

        return on_gpu(pixels, regions, seeds)
    pixels = np.ascontiguousarray(pixels)
    middles = np.zeros((seeds.rows * seeds.columns, 5), np.int64)
    row_cell, column_cell = cells_of(size, seeds)
    for _ in range(PASSES):
        sums = np.zeros((len(middles), 6), np.int64)
        _add(pixels, regions, sums)
        middles = moved(sums, middles)

        def work(first: int, last: int, middles: np.ndarray = middles) -> None:
            _assign(
                pixels, regions, middles, row_cell, column_cell, seeds.weight,
                (seeds.rows, seeds.columns), first, last,
            )  # fmt: skip

        threads.spread(work, size[0], GRAIN)
    return regions


def reference_superpixels(
    pixels: np.ndarray, valid: np.ndarray, per_megapixel: float
) -> np.ndarray:
    """The same in NumPy: all seeds for all pixels, of which those not asked are out of reach."""
    size = pixels.shape[:2]
    seeds = Seeds.of(size, per_megapixel)
    regions = first_regions(size, valid, seeds)
    middles = np.zeros((seeds.rows * seeds.columns, 5), np.int64)
    places = np.stack(np.indices(size), axis=-1)
    row_cell, column_cell = cells_of(size, seeds)
    seed_row, seed_column = np.divmod(np.arange(len(middles)), seeds.columns)
    for _ in range(PASSES):
        sums = np.zeros((len(middles), 6), np.int64)
        for region in range(len(middles)):
            own = regions == region
            found = np.concatenate([pixels[own], places[own]], axis=1).sum(0, dtype=np.int64)
            sums[region] = [*found, own.sum()]
        middles = moved(sums, middles)
        scaled = np.concatenate(
            [pixels.astype(np.int64) >> COLOUR_SHIFT, places << SHIFT], axis=-1
        )[:, :, None]
        squared = (scaled - middles) ** 2  # (H, W, seeds, 5)
        distance = (squared[..., :3].sum(-1) << WEIGHT_BITS) + seeds.weight * squared[..., 3:].sum(
            -1
        )
        far = np.abs(row_cell[:, None, None] - seed_row) > 1
        far = far | (np.abs(column_cell[None, :, None] - seed_column) > 1)
        distance[far] = FAR
        regions = np.where(valid, distance.argmin(-1), NOWHERE).astype(np.int32)
    return regions


def first_regions(size: tuple[int, int], valid: np.ndarray, seeds: Seeds) -> np.ndarray:
    """The cells of the grid, (H, W) int32."""
    row_cell, column_cell = cells_of(size, seeds)
    return np.where(valid, row_cell[:, None] * seeds.columns + column_cell, NOWHERE).astype(
        np.int32
    )


def cells_of(size: tuple[int, int], seeds: Seeds) -> tuple[np.ndarray, np.ndarray]:
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


@njit(nogil=True, cache=True)
def _add(pixels: np.ndarray, regions: np.ndarray, sums: np.ndarray) -> None:
    """Add values, places and ones of pixels to sums (N, 6) int64 of their regions."""
    height, width = regions.shape
    for row in range(height):
        for column in range(width):
            region = regions[row, column]
            if region >= 0:
                mine = sums[region]
                mine[0] += pixels[row, column, 0]
                mine[1] += pixels[row, column, 1]
                mine[2] += pixels[row, column, 2]
                mine[3] += row
                mine[4] += column
                mine[5] += 1


@njit(nogil=True, cache=True)
def _assign(
    pixels: np.ndarray,
    regions: np.ndarray,
    middles: np.ndarray,
    row_cell: np.ndarray,
    column_cell: np.ndarray,
    weight: int,
    grid: tuple[int, int],
    first: int,
    last: int,
) -> None:
    """Give pixels of rows [first, last) to the nearest of the seeds around them."""
    for row in range(first, last):
        top, bottom = max(row_cell[row] - 1, 0), min(row_cell[row] + 2, grid[0])
        for column in range(regions.shape[1]):
            if regions[row, column] < 0:
                continue
            light = np.int64(pixels[row, column, 0]) >> COLOUR_SHIFT
            a = np.int64(pixels[row, column, 1]) >> COLOUR_SHIFT
            b = np.int64(pixels[row, column, 2]) >> COLOUR_SHIFT
            left, right = max(column_cell[column] - 1, 0), min(column_cell[column] + 2, grid[1])
            best, nearest = FAR, 0
            for i in range(top, bottom):
                for j in range(left, right):
                    seed = middles[i * grid[1] + j]
                    d0, d1, d2 = light - seed[0], a - seed[1], b - seed[2]
                    dy, dx = (row << SHIFT) - seed[3], (column << SHIFT) - seed[4]
                    colour = (d0 * d0 + d1 * d1 + d2 * d2) << WEIGHT_BITS
                    distance = colour + weight * (dy * dy + dx * dx)
                    if distance < best:
                        best, nearest = distance, i * grid[1] + j
            regions[row, column] = nearest
