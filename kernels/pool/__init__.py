"""Mean embedding of each mask: masks aligned to the embedding's grid by exact area.

No mask is unpacked. A run of a column covers an interval of rows, which shows in the grid at its
two ends only: what a cell gains there, all cells below keep, until the other end takes it away.
So a run costs eight additions however long it is, and one sum down the rows gives the shares.

Lengths are whole multiples of 2^-30 of a cell and are summed as integers: nothing is left over
where a run ends, cells under no mask are 0 and cells under a whole mask are 1 to the last bit, and
the order in which threads of a GPU add does not show.

Bytes moved by ``cell_shares``: R x 4 (run lengths) + M x h x w x 4 out; the sums, h x w x 8, stay
in a core's cache. By ``pool_embeddings``: M x h x w x 4 + C x h x w x 4 in, as much for turning
the embedding, and M x C x 4 out.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numba import njit

from alps.kernels.base import threads
from alps.kernels.base.gpu import is_on_gpu
from alps.kernels.masks.runs import Runs

BITS = 30  # of a length's fraction; an area has twice as many, and 1 is well within an int64
GRAIN = 4  # masks handed to a thread at a time


def cell_shares(
    runs: Runs,
    cells: tuple[int, int],
    scale: float | tuple[float, float],
    origin: tuple[int, int] = (0, 0),
) -> Any:
    """Return which share of each cell's area a mask covers.

    Args:
        runs: M masks of (H, W); run lengths on a GPU are worked on there.
        cells: (h, w), rows and columns of the grid; it may reach beyond the masks (padding is
            uncovered) and is cut off where the masks reach beyond it.
        scale: pixels a cell, one number or (down, across); need not be whole, nor above 1.
        origin: row and column of the image pixel at which the grid begins, that of a crop say;
            pixels before it are left out.

    Returns (M, h, w) float32 in 0…1, where the run lengths lie. A pixel that lies in several
    cells counts in each with the part of its area in it, so a mask smaller than a cell still has
    a share.

    Raises:
        ValueError: the runs of a mask do not add up to H x W, or the scale is not positive.
    """
    down, across = (float(s) for s in np.broadcast_to(scale, 2))
    if not (down > 0 and across > 0):
        raise ValueError(f"a cell of {down} x {across} pixels has no area")
    grid = grid_of(runs.size, tuple(cells), (down, across), tuple(origin))
    if is_on_gpu(runs.lengths):
        from alps.kernels.pool.gpu import cell_shares as on_gpu

        return on_gpu(runs, cells, grid)
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


def reference_cell_shares(
    masks: np.ndarray,
    cells: tuple[int, int],
    scale: tuple[float, float],
    origin: tuple[int, int] = (0, 0),
) -> np.ndarray:
    """The same of masks (M, H, W) bool: overlaps of rows with cells, times those of columns."""
    by_row = _overlaps(masks.shape[1], cells[0], scale[0], origin[0])  # (h, H)
    by_column = _overlaps(masks.shape[2], cells[1], scale[1], origin[1]).T  # (W, w)
    shares = np.empty((len(masks), *cells), np.float32)
    for index, mask in enumerate(masks):
        shares[index] = by_row @ (mask.astype(np.float64) @ by_column) / (scale[0] * scale[1])
    return shares


def pool_embeddings(embedding: Any, shares: Any) -> np.ndarray:
    """Return the mean embedding of each mask, weighted by its shares.

    Args:
        embedding: (C, h, w) float16 or float32; on a GPU: computed there, in place.
        shares: (M, h, w), not negative.

    Returns (M, C) float32, NumPy; the same whatever number of threads computes it. Summed in
    float64.

    Raises:
        ValueError: a mask covers no cell; it has no mean, and zeros would look like one. Or the
            shares are of another grid.
    """
    if is_on_gpu(embedding) or is_on_gpu(shares):
        from alps.kernels.pool.gpu import pool_embeddings as on_gpu

        return on_gpu(embedding, shares)
    check_grid(shares, embedding)
    weights = np.ascontiguousarray(shares.reshape(len(shares), embedding[0].size), np.float32)
    features = embedding.reshape(len(embedding), -1).astype(np.float32, copy=False)
    # A cell's channels side by side: a mask reads those of its own cells, some hundredths of all.
    features = cv2.transpose(features) if features.size else features.T.copy()  # (h w, C)
    means = np.empty((len(weights), len(embedding)), np.float32)
    total = np.empty(len(weights))

    def work(first: int, last: int) -> None:
        _average(weights[first:last], features, means[first:last], total[first:last])

    threads.spread(work, len(weights), 2 * GRAIN)
    refuse_empty(total)
    return means


def reference_pool_embeddings(embedding: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """The same in float64: one product of matrices, without a check for empty masks."""
    weights = shares.reshape(len(shares), embedding[0].size).astype(np.float64)
    features = embedding.reshape(len(embedding), -1).astype(np.float64)
    return (weights @ features.T / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def check_grid(shares: Any, embedding: Any) -> None:
    """Raise ValueError where shares (M, h, w) are not of the cells of an embedding (C, h, w)."""
    if tuple(shares.shape[1:]) != tuple(embedding.shape[1:]):
        raise ValueError(
            f"shares of {tuple(shares.shape[1:])} cells do not fit an embedding of "
            f"{tuple(embedding.shape[1:])}"
        )


def refuse_empty(total: np.ndarray) -> None:
    """Raise ValueError where the sum of a mask's shares, (M,), is nothing."""
    if not (total > 0).all():
        empty = np.flatnonzero(~(total > 0))
        raise ValueError(
            f"{len(empty)} masks cover no cell of the embedding, the first is {empty[0]}"
        )


def refuse(wrong: list[int], size: tuple[int, int]) -> None:
    """Raise ValueError for the masks, by index, whose runs do not add up to ``size``."""
    if wrong:
        raise ValueError(
            f"the run lengths of mask {min(wrong)} do not add up to {size[0]} x {size[1]} pixels"
        )


@dataclass(frozen=True)
class Grid:
    """Where pixels lie on the grid of cells."""

    rows: np.ndarray  # (H + 1,) int64, upper edge of a row of pixels, in 2^-BITS of a cell
    # What a column of pixels covers: of column x entries starts[x] to starts[x + 1] of cell, the
    # number (P,) int32 of a column of cells, and of width (P,) int64 in 2^-BITS of a cell.
    columns: tuple[np.ndarray, np.ndarray, np.ndarray]  # starts (W + 1,) int32, cell, width


@lru_cache(maxsize=32)  # the same for all masks of all tiles of a size, one for each crop
def grid_of(
    size: tuple[int, int],
    cells: tuple[int, int],
    scale: tuple[float, float],
    origin: tuple[int, int],
) -> Grid:
    """The grid of ``cell_shares`` for masks of a size; arguments as there."""
    rows, edges = (
        np.rint(np.clip((np.arange(n + 1) - o) / s, 0, c) * (1 << BITS)).astype(np.int64)
        for n, o, s, c in zip(size, origin, scale, cells, strict=True)
    )
    left, right = edges[:-1], edges[1:]
    first, end = left >> BITS, -(-right >> BITS)
    pieces = np.where(right > left, end - first, 0)
    starts = np.concatenate([[0], np.cumsum(pieces)]).astype(np.int32)
    column = np.repeat(np.arange(size[1]), pieces)
    cell = first[column] + np.arange(len(column)) - starts[column]
    width = np.minimum(right[column], (cell + 1) << BITS) - np.maximum(left[column], cell << BITS)
    return Grid(rows, (starts, cell.astype(np.int32), width))


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
            left = np.int64(lengths[run])
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


@lru_cache(maxsize=8)
def _overlaps(pixels: int, cells: int, scale: float, origin: int) -> np.ndarray:
    """Length that pixel p shares with cell c, of ``scale`` pixels from ``origin`` on: (c, p)."""
    left = np.arange(pixels)[None, :] - origin
    start = np.arange(cells)[:, None] * scale
    end = np.arange(1, cells + 1)[:, None] * scale
    return np.clip(np.minimum(left + 1, end) - np.maximum(left, start), 0, None)
