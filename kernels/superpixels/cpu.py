"""Superpixels on a CPU: threads share out the rows of a pass.

Bytes moved, each pass: H x W x (6 + 4) read to move the seeds, which stay in a core's cache;
H x W x (6 + 4) read and H x W x 4 written to assign.
"""

import numpy as np

from alps.kernels.base import threads
from alps.kernels.base.compiled import njit
from alps.kernels.superpixels.rules import (
    COLOUR_SHIFT,
    PASSES,
    SHIFT,
    WEIGHT_BITS,
    Seeds,
    cells_of,
    moved,
)

UNIT = float(1 << WEIGHT_BITS)
GRAIN = 32  # rows handed to a thread at a time


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
    """Give pixels of rows [first, last) to the nearest of the seeds around them.

    The pixels of a cell have the same seeds around them, so they are laid end to end. Distances are
    whole numbers below 2^53, exact in float64, which processors multiply several at a time.
    """
    width = regions.shape[1]
    values = np.empty((5, (last - first) * width))  # colour and place of a cell's pixels
    best, nearest = np.empty(values.shape[1]), np.empty(values.shape[1])
    row = first
    while row < last:
        bottom = _end_of_cell(row_cell, row, last)
        column = 0
        while column < width:
            right = _end_of_cell(column_cell, column, width)
            count = 0
            for y in range(row, bottom):
                for x in range(column, right):
                    for k in range(3):
                        values[k, count] = pixels[y, x, k] >> COLOUR_SHIFT
                    values[3, count], values[4, count] = y << SHIFT, x << SHIFT
                    count += 1
            light, a, b = values[0, :count], values[1, :count], values[2, :count]
            down, across = values[3, :count], values[4, :count]
            own, near = best[:count], nearest[:count]
            own[:] = np.inf
            for i in range(max(row_cell[row] - 1, 0), min(row_cell[row] + 2, grid[0])):
                for j in range(
                    max(column_cell[column] - 1, 0), min(column_cell[column] + 2, grid[1])
                ):
                    seed = i * grid[1] + j
                    _look_at(light, a, b, down, across, seed, middles[seed], weight, own, near)
            count = 0
            for y in range(row, bottom):
                for x in range(column, right):
                    if regions[y, x] >= 0:
                        regions[y, x] = near[count]
                    count += 1
            column = right
        row = bottom


@njit(nogil=True, cache=True)
def _end_of_cell(cells: np.ndarray, begin: int, most: int) -> int:
    """Behind the last of the rows, or columns, that lie in one cell with ``begin``."""
    end = begin + 1
    while end < most and cells[end] == cells[begin]:
        end += 1
    return end


@njit(nogil=True, cache=True)
def _look_at(
    light: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    down: np.ndarray,
    across: np.ndarray,
    number: int,
    seed: np.ndarray,
    weight: int,
    best: np.ndarray,
    nearest: np.ndarray,
) -> None:
    """Take a seed for those pixels that it is nearer to than ``best``."""
    s0, s1, s2, s3, s4 = (float(seed[0]), float(seed[1]), float(seed[2]), float(seed[3]),
                          float(seed[4]))  # fmt: skip
    by, own = float(weight), float(number)
    for k in range(best.size):
        d0, d1, d2 = light[k] - s0, a[k] - s1, b[k] - s2
        dy, dx = down[k] - s3, across[k] - s4
        colour = d0 * d0 + d1 * d1 + d2 * d2
        distance = colour * UNIT + by * (dy * dy + dx * dx)
        is_nearer = distance < best[k]
        best[k] = distance if is_nearer else best[k]
        nearest[k] = own if is_nearer else nearest[k]
