"""Pooling on a CPU: threads share out the masks.

Bytes moved by ``cell_shares``: R x 4 (run lengths) + M x h x w x 4 out; the sums, h x w x 8, stay
in a core's cache. By ``pool_embeddings``: M x h x w x 4 + C x h x w x 4 in, as much for turning
the embedding, and M x C x 4 out.
"""

from typing import Any

import cv2
import numpy as np

from alps.kernels.base import threads
from alps.kernels.base.compiled import njit
from alps.kernels.masks.runs import Runs, refuse
from alps.kernels.pool.rules import BITS, Grid, check_grid, refuse_empty

GRAIN = 4  # masks handed to a thread at a time


def cell_shares(runs: Runs, cells: tuple[int, int], grid: Grid) -> np.ndarray:
    """As ``alps.kernels.pool.cell_shares``: (M, h, w) float32."""
    shares = np.empty((len(runs), *cells), np.float32)
    wrong: list[int] = []

    def work(first: int, last: int) -> None:
        bad = _shares(
            runs.lengths,
            runs.starts[first : last + 1],
            grid.rows,
            *grid.columns,
            shares[first:last],
        )
        if bad >= 0:
            wrong.append(first + bad)

    threads.spread(work, len(runs), GRAIN)
    refuse(wrong, runs.size)
    return shares


def pool_embeddings(embedding: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """As ``alps.kernels.pool.pool_embeddings``."""
    check_grid(shares, embedding)
    weights = np.ascontiguousarray(shares.reshape(len(shares), embedding[0].size), np.float32)
    flat = embedding.reshape(len(embedding), -1).astype(np.float32, copy=False)
    # A cell's channels side by side: a mask reads those of its own cells, some hundredths of all.
    features: np.ndarray = cv2.transpose(flat) if flat.size else flat.T.copy()  # (h w, C)
    means = np.empty((len(weights), len(embedding)), np.float32)
    total = np.empty(len(weights))

    def work(first: int, last: int) -> None:
        _average(weights[first:last], features, means[first:last], total[first:last])

    threads.spread(work, len(weights), 2 * GRAIN)
    refuse_empty(total)
    return means


@njit(nogil=True, cache=True)
def _shares(
    lengths: np.ndarray,
    starts: np.ndarray,
    rows: np.ndarray,
    column_starts: np.ndarray,
    column_cell: np.ndarray,
    column_width: np.ndarray,
    shares: np.ndarray,
) -> int:
    """Fill shares (m, h, w); return the first mask with wrong runs, -1 if there is none."""
    count, down, across = shares.shape
    height, width = len(rows) - 1, len(column_starts) - 1
    one = np.int64(1) << BITS
    area = np.float64(one) * np.float64(one)
    # Two rows more than cells: an interval that ends with the grid changes what follows it.
    gain = np.empty((down + 2, across), np.int64)
    for mask in range(count):
        gain[:] = 0
        row, column = 0, 0
        for run in range(starts[mask], starts[mask + 1]):
            left: Any = np.int64(lengths[run])
            if left < 0 or left > (width - column) * height - row:
                return mask
            ones = (run - starts[mask]) & 1
            # Piece by piece, none longer than a column: no division, and as many pieces as there
            # are runs and columns.
            while left > 0:
                end = min(row + left, height)
                if ones:
                    for piece in range(column_starts[column], column_starts[column + 1]):
                        cell, part = column_cell[piece], column_width[piece]
                        top, below = rows[row] >> BITS, rows[row] & (one - 1)
                        gain[top, cell] += (one - below) * part
                        gain[top + 1, cell] += below * part
                        top, below = rows[end] >> BITS, rows[end] & (one - 1)
                        gain[top, cell] -= (one - below) * part
                        gain[top + 1, cell] -= below * part
                left -= end - row
                row = end
                if row == height:
                    row, column = 0, column + 1
        if column != width and height > 0:
            return mask
        for top in range(down):
            for cell in range(across):
                if top > 0:
                    gain[top, cell] += gain[top - 1, cell]
                shares[mask, top, cell] = gain[top, cell] / area
    return -1


# A product of matrices by BLAS does all masks and cells, 25 times the work of the cells that masks
# cover, and its threads wait for each other where something else has a core.
@njit(nogil=True, cache=True, error_model="numpy")
def _average(
    weights: np.ndarray, features: np.ndarray, means: np.ndarray, total: np.ndarray
) -> None:
    """Fill means (m, C) float32 and total (m,) float64 of weights (m, cells)."""
    masks, cells = weights.shape
    channels = features.shape[1]
    # In float32 some thousand cells, one after the other, would cost a digit; this costs no time.
    sums = np.zeros((masks, channels), np.float64)
    total[:] = 0
    for cell in range(cells):  # several masks share what a cell's features cost to fetch
        here = features[cell]
        for mask in range(masks):
            weight = np.float64(weights[mask, cell])
            if weight != 0:
                total[mask] += weight
                mine = sums[mask]
                for channel in range(channels):
                    mine[channel] += weight * here[channel]
    for mask in range(masks):
        for channel in range(channels):
            means[mask, channel] = sums[mask, channel] / total[mask]
