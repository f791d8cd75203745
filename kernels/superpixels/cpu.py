"""Superpixels on a CPU: threads share out the rows of a pass.

Bytes moved, each pass: H x W x (6 + 4) read to move the seeds, which stay in a core's cache;
H x W x (6 + 4) read and H x W x 4 written to assign.
"""

import numpy as np

from alps.kernels.base import threads
from alps.kernels.base.compiled import njit
from alps.kernels.superpixels.rules import (
    COLOUR_SHIFT,
    FAR,
    PASSES,
    SHIFT,
    WEIGHT_BITS,
    Seeds,
    cells_of,
    moved,
)

GRAIN = 16  # rows handed to a thread at a time


def refine(pixels: np.ndarray, regions: np.ndarray, seeds: Seeds) -> np.ndarray:
    """The passes: regions (H, W) int32, the cells of the grid at first, overwritten and returned.

    pixels: (H, W, 3) int16.
    """
    pixels = np.ascontiguousarray(pixels)
    middles = np.zeros((seeds.rows * seeds.columns, 5), np.int64)
    row_cell, column_cell = cells_of(seeds)
    for _ in range(PASSES):
        sums = np.zeros((len(middles), 6), np.int64)
        _add(pixels, regions, sums)
        middles = moved(sums, middles)

        def work(first: int, last: int, middles: np.ndarray = middles) -> None:
            _assign(
                pixels, regions, middles, row_cell, column_cell, seeds.weight,
                (seeds.rows, seeds.columns), first, last,
            )  # fmt: skip

        threads.spread(work, len(regions), GRAIN)
    return regions


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
