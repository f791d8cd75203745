"""Shares of cells on a GPU, to the bit as on a CPU, of the masks of several tiles at once.

A thread walks down a column of a mask's bits; each change adds to the cells what ``cpu`` adds at
the ends of a run. The means are a product of matrices, which whoever has one multiplies.

Bytes moved: M x H x W / 8 of bits; M x h x w x 16 of sums, in the second-level cache, and 4 out.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from alps.kernels.base.gpu import on_gpu
from alps.kernels.base.numba_cuda import cuda
from alps.kernels.masks.gpu import threads_of
from alps.kernels.masks.words import WORD
from alps.kernels.pool.rules import BITS, Grid

ONE = 1 << BITS
AREA = float(ONE) * float(ONE)
THREADS = 64


@dataclass(frozen=True)
class TileGrids:
    """Where pixels of B tiles lie on their grids of cells; as ``rules.Grid``, side by side."""

    rows: Any  # (B, H + 1) int64
    starts: Any  # (B, W + 1) int32
    cell: Any  # (B, P) int32
    width: Any  # (B, P) int64

    @staticmethod
    def of(grids: list[Grid]) -> "TileGrids":
        """In NumPy."""
        columns = list(zip(*(grid.columns for grid in grids), strict=True))
        return TileGrids(*map(_side_by_side, [[grid.rows for grid in grids], *columns]))

    def on_gpu(self) -> "TileGrids":
        """The same there."""
        return TileGrids(*(on_gpu(a) for a in (self.rows, self.starts, self.cell, self.width)))


def _side_by_side(arrays: Any) -> np.ndarray:
    found = np.zeros((len(arrays), max(1, *map(len, arrays))), arrays[0].dtype)
    for place, array in zip(found, arrays, strict=True):
        place[: len(array)] = array
    return found


def cell_shares(
    bits: Any, used: Any, sizes: Any, grids: TileGrids, gain: Any, shares: Any, stream: Any = 0
) -> None:
    """Which share of each cell's area a mask covers; as ``alps.kernels.pool.cell_shares``.

    Args:
        bits: (B, M, words, W) uint32, zeros outside of a tile's own size.
        used: (B, M) int32, above 0: a mask.
        sizes: (B, 2 or more) int32, height and width of each tile.
        grids: of the tiles.
        gain: (B, M, h + 2, w) int64 zeros, for what lies between.
        shares: (B, M, h, w) float32, to be filled; zeros where there is no mask.
        stream: in which it is done.
    """
    tiles, masks, _, width = bits.shape
    threads = threads_of(width)
    _add_edges[(-(-width // threads), masks, tiles), threads, stream](
        bits, used, sizes, grids.rows, grids.starts, grids.cell, grids.width, gain
    )
    _add_down[(-(-shares.shape[3] // THREADS), masks, tiles), THREADS, stream](gain, used, shares)


@cuda.jit(device=True)
def _add_edge(gain: Any, tile: int, mask: int, edge: np.int64, cell: int, part: np.int64) -> None:
    """What the cells of a column gain at an edge ``part`` wide; integers, in whatever order."""
    top, below = edge >> BITS, edge & (ONE - 1)
    cuda.atomic.add(gain, (tile, mask, top, cell), (ONE - below) * part)
    cuda.atomic.add(gain, (tile, mask, top + 1, cell), below * part)


@cuda.jit
def _add_edges(
    bits: Any,
    used: Any,
    sizes: Any,
    rows: Any,
    starts: Any,
    cell: Any,
    width: Any,
    gain: Any,
) -> None:
    """What each cell gains over the one above, (B, M, h + 2, w) int64; a thread a column."""
    x, mask, tile = cuda.grid(1), cuda.blockIdx.y, cuda.blockIdx.z
    if x >= sizes[tile, 1] or used[tile, mask] <= 0:
        return
    height = sizes[tile, 0]
    before, sign = np.int64(0), np.int64(1)
    for word in range((height + WORD - 1) // WORD):
        here = np.int64(bits[tile, mask, word, x])
        changes = (here ^ ((here << 1) | before)) & ((np.int64(1) << WORD) - 1)
        before = here >> (WORD - 1)
        while changes:
            y = word * WORD + cuda.popc((changes & -changes) - 1)
            changes &= changes - 1
            for piece in range(starts[tile, x], starts[tile, x + 1]):
                part = sign * width[tile, piece]
                _add_edge(gain, tile, mask, rows[tile, min(y, height)], cell[tile, piece], part)
            sign = -sign
    if sign < 0:  # the mask reaches the last row, which fills its word
        for piece in range(starts[tile, x], starts[tile, x + 1]):
            _add_edge(gain, tile, mask, rows[tile, height], cell[tile, piece], -width[tile, piece])


@cuda.jit
def _add_down(gain: Any, used: Any, shares: Any) -> None:
    """Sum down the columns of cells, a thread each."""
    column, mask, tile = cuda.grid(1), cuda.blockIdx.y, cuda.blockIdx.z
    if column >= shares.shape[3]:
        return
    total = np.int64(0)
    is_mask = used[tile, mask] > 0
    for row in range(shares.shape[2]):
        if is_mask:
            total += gain[tile, mask, row, column]
        shares[tile, mask, row, column] = total / AREA
