"""Pooling in NumPy, of masks of pixels and in float64."""

from functools import lru_cache

import numpy as np


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


def reference_pool_embeddings(embedding: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """The same in float64: one product of matrices, without a check for empty masks."""
    weights = shares.reshape(len(shares), embedding[0].size).astype(np.float64)
    features = embedding.reshape(len(embedding), -1).astype(np.float64)
    return (weights @ features.T / weights.sum(axis=1, keepdims=True)).astype(np.float32)


@lru_cache(maxsize=8)
def _overlaps(pixels: int, cells: int, scale: float, origin: int) -> np.ndarray:
    """Length that pixel p shares with cell c, of ``scale`` pixels from ``origin`` on: (c, p)."""
    left = np.arange(pixels)[None, :] - origin
    start = np.arange(cells)[:, None] * scale
    end = np.arange(1, cells + 1)[:, None] * scale
    return np.clip(np.minimum(left + 1, end) - np.maximum(left, start), 0, None)
