"""Mean embedding of each mask: masks aligned to the embedding's grid by exact area.

Bytes moved by ``cell_shares``: S x H x W (bool in) + S x H x W x 4 (the float copy that is
multiplied, one mask at a time) + S x h x w x 4 out.
"""

from functools import lru_cache

import numpy as np


def cell_shares(
    masks: np.ndarray, cells: tuple[int, int], scale: float | tuple[float, float]
) -> np.ndarray:
    """Return which share of each cell's area a mask covers.

    masks: (S, H, W) bool, their top left corner at that of the grid.
    cells: (h, w), rows and columns of the grid; it may reach beyond the masks (padding is
        uncovered) and is cut off where the masks reach beyond it.
    scale: pixels a cell, one number or (down, across); need not be whole.

    Returns (S, h, w) float32 in 0…1. A pixel that lies in several cells counts in each with the
    part of its area in it, so a mask smaller than a cell still has a share.
    """
    down, across = (float(s) for s in np.broadcast_to(scale, 2))
    by_row = _overlaps(masks.shape[1], cells[0], down)  # (h, H)
    by_column = _overlaps(masks.shape[2], cells[1], across).T  # (W, w)
    shares = np.empty((len(masks), *cells), np.float32)
    for index, mask in enumerate(masks):
        shares[index] = by_row @ (mask.astype(np.float32) @ by_column)
    return shares * np.float32(1 / (down * across))


def pool_embeddings(embedding: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Return the mean embedding of each mask, weighted by its shares.

    embedding: (C, h, w) float; shares: (S, h, w), not negative.
    Returns (S, C) float32.

    Raises:
        ValueError: a mask covers no cell; it has no mean, and zeros would look like one.
    """
    weights = shares.reshape(len(shares), embedding[0].size).astype(np.float32)
    total = weights.sum(axis=1, dtype=np.float64)
    if not (total > 0).all():
        empty = np.flatnonzero(~(total > 0))
        raise ValueError(
            f"{len(empty)} masks cover no cell of the embedding, the first is {empty[0]}"
        )
    features = embedding.reshape(len(embedding), -1).T.astype(np.float32)
    return ((weights @ features) / total[:, None]).astype(np.float32)


@lru_cache(maxsize=8)  # the same for all masks of all tiles of a size
def _overlaps(pixels: int, cells: int, scale: float) -> np.ndarray:
    """Length that pixel p, [p, p + 1], shares with cell c, [c·scale, (c + 1)·scale]: (c, p)."""
    left = np.arange(pixels)[None, :]
    start = np.arange(cells)[:, None] * scale
    end = np.arange(1, cells + 1)[:, None] * scale
    return np.clip(np.minimum(left + 1, end) - np.maximum(left, start), 0, None).astype(np.float32)
