"""Superpixels on a GPU, to the bit those of a CPU: a thread a pixel, all passes without the host.

A pass assigns pixels and adds them up at once. Seeds that a block of threads can give its pixels to
are few: sums lie in its shared memory, and each seed is added to the image's once a block.

Bytes moved, each pass: H x W x (6 + 4) read, H x W x 4 written; 48 a block and seed added, in the
second-level cache. Before and after: H x W x (6 + 1) there, H x W x 4 back.
"""

from typing import Any

import numpy as np

from alps.kernels.base.gpu import on_gpu, on_host
from alps.kernels.base.numba_cuda import cuda
from alps.kernels.superpixels.rules import (
    COLOUR_SHIFT,
    FAR,
    NOWHERE,
    PASSES,
    SHIFT,
    WEIGHT_BITS,
    Seeds,
    cells_of,
)

SIDE = 16  # pixels of a block of threads in each direction
LOCAL = SIDE + 2  # cells that its pixels touch, and one beyond each, in each direction
SUMS = 6  # of colours, of rows, of columns, and pixels
_SHARED = LOCAL * LOCAL * SUMS
THREADS = 128


def refine(pixels: Any, valid: np.ndarray, seeds: Seeds) -> np.ndarray:
    """The passes, as ``cpu.refine``, from the cells of the grid on: (H, W) int32, NumPy.

    pixels: (H, W, 3) int16. valid: (H, W) bool.
    """
    height, width = valid.shape
    count = seeds.rows * seeds.columns
    blocks = -(-width // SIDE), -(-height // SIDE)
    pixels, valid = on_gpu(pixels), on_gpu(valid)
    cells = [on_gpu(axis) for axis in cells_of(seeds)]
    found = cuda.device_array((height, width), np.int32)
    middles, sums = (
        on_gpu(np.zeros((count, 5), np.int64)),
        on_gpu(np.zeros((count, SUMS), np.int64)),
    )
    grid = np.int64(seeds.weight), seeds.rows, seeds.columns
    for number in range(PASSES + 1):  # the first gives each pixel its own cell
        if number > 0:
            _move[-(-count // THREADS), THREADS](sums, middles)
        _assign[blocks, (SIDE, SIDE)](
            pixels, valid, middles, *cells, *grid, number == 0, number < PASSES, found, sums
        )
    return on_host(found)


@cuda.jit
def _move(sums: Any, middles: Any) -> None:
    """Seeds to the middle of their pixels, as ``rules.moved``; sums are zeros then."""
    seed = cuda.grid(1)
    if seed >= middles.shape[0]:
        return
    count = sums[seed, SUMS - 1]
    for i in range(SUMS - 1):
        if count > 0:
            total = sums[seed, i]
            middles[seed, i] = (
                total // (count << COLOUR_SHIFT) if i < 3 else (total << SHIFT) // count
            )
        sums[seed, i] = 0
    sums[seed, SUMS - 1] = 0


@cuda.jit(device=True)
def _nearest(
    pixels: Any,
    middles: Any,
    row: int,
    column: int,
    cell: tuple[int, int],
    weight: int,
    rows: int,
    columns: int,
) -> int:
    """Of the seeds around a pixel's cell the nearest."""
    best, nearest = np.int64(FAR), 0
    light = np.int64(pixels[row, column, 0]) >> COLOUR_SHIFT
    a = np.int64(pixels[row, column, 1]) >> COLOUR_SHIFT
    b = np.int64(pixels[row, column, 2]) >> COLOUR_SHIFT
    for i in range(max(cell[0] - 1, 0), min(cell[0] + 2, rows)):
        for j in range(max(cell[1] - 1, 0), min(cell[1] + 2, columns)):
            seed = i * columns + j
            d0, d1, d2 = light - middles[seed, 0], a - middles[seed, 1], b - middles[seed, 2]
            down = np.int64(row << SHIFT) - middles[seed, 3]
            across = np.int64(column << SHIFT) - middles[seed, 4]
            distance = ((d0 * d0 + d1 * d1 + d2 * d2) << WEIGHT_BITS) + weight * (
                down * down + across * across
            )
            if distance < best:
                best, nearest = distance, seed
    return nearest


@cuda.jit
def _assign(
    pixels: Any,
    valid: Any,
    middles: Any,
    row_cell: Any,
    column_cell: Any,
    weight: int,
    rows: int,
    columns: int,
    is_first: bool,
    adds: bool,
    found: Any,
    sums: Any,
) -> None:
    """Each pixel to the nearest of the seeds around it, or at first to its cell's; then, unless
    nobody moves the seeds any more, what it is into that seed's sums.
    """
    x, y = cuda.threadIdx.x, cuda.threadIdx.y
    column, row = cuda.grid(2)
    height, width = found.shape
    own = cuda.shared.array(_SHARED, np.int32)
    thread = y * SIDE + x
    for place in range(thread, _SHARED, SIDE * SIDE):
        own[place] = 0
    cuda.syncthreads()
    first_row, first_column = row - y, column - x
    top, left = row_cell[first_row] - 1, column_cell[first_column] - 1
    if row < height and column < width:
        seed = NOWHERE
        if valid[row, column]:
            cell = row_cell[row], column_cell[column]
            seed = cell[0] * columns + cell[1]
            if not is_first:
                seed = _nearest(pixels, middles, row, column, cell, weight, rows, columns)
            if adds:
                place = ((seed // columns - top) * LOCAL + seed % columns - left) * SUMS
                for channel in range(3):
                    cuda.atomic.add(own, place + channel, np.int32(pixels[row, column, channel]))
                cuda.atomic.add(own, place + 3, np.int32(y))
                cuda.atomic.add(own, place + 4, np.int32(x))
                cuda.atomic.add(own, place + 5, np.int32(1))
        found[row, column] = seed
    if not adds:
        return
    cuda.syncthreads()
    # Whole numbers: in whatever order blocks come, the sums are the same.
    for local in range(thread, LOCAL * LOCAL, SIDE * SIDE):
        count = np.int64(own[local * SUMS + 5])
        if count > 0:
            seed = (local // LOCAL + top) * columns + local % LOCAL + left
            for channel in range(3):
                cuda.atomic.add(sums, (seed, channel), np.int64(own[local * SUMS + channel]))
            cuda.atomic.add(sums, (seed, 3), own[local * SUMS + 3] + count * first_row)
            cuda.atomic.add(sums, (seed, 4), own[local * SUMS + 4] + count * first_column)
            cuda.atomic.add(sums, (seed, 5), count)
