"""Superpixels on a GPU, to the bit those of a CPU: a thread a pixel.

Bytes moved: as on a CPU; seeds are moved on the host, N x 48 bytes there and N x 40 back a pass.
"""

from typing import Any

import numpy as np

from alps.kernels.base.gpu import on_gpu
from alps.kernels.base.numba_cuda import cuda
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

THREADS = (16, 16)


def refine(pixels: Any, regions: np.ndarray, seeds: Seeds) -> np.ndarray:
    """The passes, as ``cpu.refine``.

    pixels: (H, W, 3) int16. regions: (H, W) int32 cells of the grid, -1 where not valid.
    """
    height, width = regions.shape
    blocks = -(-width // THREADS[0]), -(-height // THREADS[1])
    pixels, found = on_gpu(pixels), on_gpu(regions)
    row_cell, column_cell = (on_gpu(cells) for cells in cells_of(seeds))
    middles = np.zeros((seeds.rows * seeds.columns, 5), np.int64)
    for _ in range(PASSES):
        sums = on_gpu(np.zeros((len(middles), 6), np.int64))
        _add[blocks, THREADS](pixels, found, sums)
        middles = moved(sums.copy_to_host(), middles)
        _assign[blocks, THREADS](
            pixels, found, on_gpu(middles), row_cell, column_cell,
            np.int64(seeds.weight), seeds.rows, seeds.columns,
        )  # fmt: skip
    return found.copy_to_host()


@cuda.jit
def _add(pixels: Any, regions: Any, sums: Any) -> None:
    """Values, places and ones of pixels into sums (N, 6) of their regions."""
    column, row = cuda.grid(2)
    if row >= regions.shape[0] or column >= regions.shape[1] or regions[row, column] < 0:
        return
    region = regions[row, column]
    # Whole numbers: in whatever order threads come, the sums are the same.
    for channel in range(3):
        cuda.atomic.add(sums, (region, channel), np.int64(pixels[row, column, channel]))
    cuda.atomic.add(sums, (region, 3), np.int64(row))
    cuda.atomic.add(sums, (region, 4), np.int64(column))
    cuda.atomic.add(sums, (region, 5), np.int64(1))


@cuda.jit
def _assign(
    pixels: Any,
    regions: Any,
    middles: Any,
    row_cell: Any,
    column_cell: Any,
    weight: int,
    rows: int,
    columns: int,
) -> None:
    """Each pixel to the nearest of the seeds around it."""
    column, row = cuda.grid(2)
    if row >= regions.shape[0] or column >= regions.shape[1] or regions[row, column] < 0:
        return
    best, nearest = np.int64(FAR), np.int32(0)
    for i in range(max(row_cell[row] - 1, 0), min(row_cell[row] + 2, rows)):
        for j in range(max(column_cell[column] - 1, 0), min(column_cell[column] + 2, columns)):
            seed = i * columns + j
            colour = np.int64(0)
            for channel in range(3):
                value = np.int64(pixels[row, column, channel]) >> COLOUR_SHIFT
                colour += (value - middles[seed, channel]) * (value - middles[seed, channel])
            down = np.int64(row << SHIFT) - middles[seed, 3]
            across = np.int64(column << SHIFT) - middles[seed, 4]
            distance = (colour << WEIGHT_BITS) + weight * (down * down + across * across)
            if distance < best:
                best, nearest = distance, np.int32(seed)
    regions[row, column] = nearest
