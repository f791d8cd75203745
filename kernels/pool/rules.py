"""What pooling is on every device: the grid of cells in whole numbers, checks of arguments."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

BITS = 30  # of a length's fraction; an area has twice as many, and 1 is well within an int64


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
