"""Pooling on a GPU: shares to the bit as on a CPU, their products with the embedding in tiles.

Bytes moved: R x 4 of run lengths, twice; M x h x w x 16 of sums, which stay in the second-level
cache, and 4 out; for the means M x h x w x 4 once for 16 channels, C x h x w x 4 once for 16 masks.
"""

from typing import Any

import numpy as np

from alps.kernels.base.gpu import on_gpu
from alps.kernels.base.gpu_runs import THREADS, first_pixel, own_runs
from alps.kernels.base.numba_cuda import cuda
from alps.kernels.masks.runs import Runs, refuse
from alps.kernels.pool.rules import BITS, Grid, check_grid, refuse_empty

ONE = 1 << BITS
AREA = float(ONE) * float(ONE)
TILE = 16  # masks, channels and cells of the blocks that are multiplied
PADDED = TILE + 1  # without it a column of 16 channels would lie in two banks of shared memory


def cell_shares(runs: Runs, cells: tuple[int, int], grid: Grid) -> Any:
    """As ``alps.kernels.pool.cell_shares``: (M, h, w) float32 on the GPU."""
    masks, (down, across) = len(runs), cells
    shares = cuda.device_array((masks, down, across), np.float32)
    if masks * down * across == 0:
        return shares
    gain = cuda.device_array((masks, down + 2, across), np.int64)
    wrong = on_gpu(np.zeros(masks, np.int32))
    edges = [on_gpu(array) for array in (grid.rows, *grid.columns)]
    _add_runs[masks, THREADS](on_gpu(runs.lengths), on_gpu(runs.starts), *edges, gain, wrong)
    _add_down[-(-masks * across // THREADS), THREADS](gain, shares)
    refuse(np.flatnonzero(wrong.copy_to_host()).tolist(), runs.size)
    return shares


def pool_embeddings(embedding: Any, shares: Any) -> np.ndarray:
    """As ``alps.kernels.pool.pool_embeddings``; either may lie on the GPU."""
    embedding, shares = on_gpu(embedding), on_gpu(shares, np.float32)
    masks, channels = shares.shape[0], embedding.shape[0]
    check_grid(shares, embedding)
    if masks * channels == 0:
        return np.zeros((masks, channels), np.float32)
    means = cuda.device_array((masks, channels), np.float32)
    total = cuda.device_array(masks, np.float64)
    blocks = -(-channels // TILE), -(-masks // TILE)
    _average[blocks, (TILE, TILE)](shares, embedding, means, total)
    refuse_empty(total.copy_to_host())
    return means.copy_to_host()


@cuda.jit
def _add_runs(
    lengths: Any,
    starts: Any,
    rows: Any,
    column_starts: Any,
    column_cell: Any,
    column_width: Any,
    gain: Any,
    wrong: Any,
) -> None:
    """What each cell gains over the one above, (M, h + 2, w) int64; a block a mask."""
    mask, thread = cuda.blockIdx.x, cuda.threadIdx.x
    height, width = rows.size - 1, column_starts.size - 1
    for cell in range(thread, gain.shape[1] * gain.shape[2], THREADS):
        gain[mask, cell // gain.shape[2], cell % gain.shape[2]] = 0
    begin, end = own_runs(starts[mask], starts[mask + 1])
    sums = cuda.shared.array(THREADS, np.int64)
    pixel = first_pixel(lengths, begin, end, height * width, sums, wrong, mask)
    if wrong[mask]:
        return
    for run in range(begin, end):
        left = np.int64(lengths[run])
        ones = (run - starts[mask]) % 2 == 1 and left > 0
        column = pixel // height if ones else 0
        row = pixel - column * height
        pixel += left
        while ones and left > 0:
            stop = min(row + left, height)
            for piece in range(column_starts[column], column_starts[column + 1]):
                cell, part = column_cell[piece], column_width[piece]
                top, below = rows[row] >> BITS, rows[row] & (ONE - 1)
                # Sums of integers: in whatever order threads come, they are the same.
                cuda.atomic.add(gain, (mask, top, cell), (ONE - below) * part)
                cuda.atomic.add(gain, (mask, top + 1, cell), below * part)
                top, below = rows[stop] >> BITS, rows[stop] & (ONE - 1)
                cuda.atomic.add(gain, (mask, top, cell), -(ONE - below) * part)
                cuda.atomic.add(gain, (mask, top + 1, cell), -below * part)
            left -= stop - row
            row, column = 0, column + 1


@cuda.jit
def _add_down(gain: Any, shares: Any) -> None:
    """Sum down the columns of cells, a thread each."""
    masks, down, across = shares.shape
    column = cuda.grid(1)
    if column >= masks * across:
        return
    mask, cell = column // across, column % across
    total = np.int64(0)
    for top in range(down):
        total += gain[mask, top, cell]
        shares[mask, top, cell] = total / AREA


@cuda.jit
def _average(shares: Any, embedding: Any, means: Any, total: Any) -> None:
    """Weighted means (M, C) float32 and the sums of weights (M,) float64; a thread a mean."""
    masks, channels, across = shares.shape[0], embedding.shape[0], embedding.shape[2]
    cells = embedding.shape[1] * across
    x, y = cuda.threadIdx.x, cuda.threadIdx.y
    mask, channel = cuda.blockIdx.y * TILE + y, cuda.blockIdx.x * TILE + x
    weights = cuda.shared.array((TILE, TILE), np.float32)
    features = cuda.shared.array((TILE, PADDED), np.float32)
    loaded = cuda.blockIdx.x * TILE + y
    summed, weight = np.float64(0), np.float64(0)
    for first in range(0, cells, TILE):
        cell = first + x
        here, there = np.float32(0), np.float32(0)
        if cell < cells and mask < masks:
            here = shares[mask, cell // across, cell % across]
        if cell < cells and loaded < channels:
            there = np.float32(embedding[loaded, cell // across, cell % across])
        weights[y, x] = here
        features[y, x] = there
        cuda.syncthreads()
        # Few numbers in float32, many such sums in float64: as exact, and fast on any GPU.
        part, of = np.float32(0), np.float32(0)
        for k in range(TILE):
            part += weights[y, k] * features[x, k]
            of += weights[y, k]
        summed += part
        weight += of
        cuda.syncthreads()
    if mask < masks and channel < channels:
        means[mask, channel] = summed / weight if weight > 0 else 0
        if channel == 0:
            total[mask] = weight
