"""Mean embedding of each mask: masks aligned to the embedding's grid by exact area.

No mask is unpacked. A run of a column covers an interval of rows, which shows in the grid at its
two ends only: what a cell gains there, all cells below keep, until the other end takes it away.
So a run costs eight additions however long it is, and one sum down the rows gives the shares.

Lengths are whole multiples of 2^-30 of a cell and are summed as integers: nothing is left over
where a run ends, cells under no mask are 0 and cells under a whole mask are 1 to the last bit, and
the order in which threads of a GPU add does not show. ``gpu`` has the shares of masks that stay
there.
"""

import numpy as np

from alps.kernels.masks.runs import Runs
from alps.kernels.pool import cpu
from alps.kernels.pool.reference import reference_cell_shares, reference_pool_embeddings
from alps.kernels.pool.rules import grid_of

__all__ = ["cell_shares", "pool_embeddings", "reference_cell_shares", "reference_pool_embeddings"]


def cell_shares(
    runs: Runs,
    cells: tuple[int, int],
    scale: float | tuple[float, float],
    origin: tuple[int, int] = (0, 0),
) -> np.ndarray:
    """Return which share of each cell's area a mask covers.

    Args:
        runs: M masks of (H, W).
        cells: (h, w), rows and columns of the grid; it may reach beyond the masks (padding is
            uncovered) and is cut off where the masks reach beyond it.
        scale: pixels a cell, one number or (down, across); need not be whole, nor above 1.
        origin: row and column of the image pixel at which the grid begins, that of a crop say;
            pixels before it are left out.

    Returns (M, h, w) float32 in 0…1. A pixel that lies in several
    cells counts in each with the part of its area in it, so a mask smaller than a cell still has
    a share.

    Raises:
        ValueError: the runs of a mask do not add up to H x W, or the scale is not positive.
    """
    down, across = (float(s) for s in np.broadcast_to(scale, 2))
    if not (down > 0 and across > 0):
        raise ValueError(f"a cell of {down} x {across} pixels has no area")
    grid = grid_of(runs.size, tuple(cells), (down, across), tuple(origin))
    return cpu.cell_shares(runs, cells, grid)


def pool_embeddings(embedding: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Return the mean embedding of each mask, weighted by its shares.

    Args:
        embedding: (C, h, w) float16 or float32.
        shares: (M, h, w), not negative.

    Returns (M, C) float32, NumPy; the same whatever number of threads computes it. Summed in
    float64.

    Raises:
        ValueError: a mask covers no cell; it has no mean, and zeros would look like one. Or the
            shares are of another grid.
    """
    return cpu.pool_embeddings(embedding, shares)
