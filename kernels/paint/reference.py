"""Painting of masks of pixels, in NumPy."""

import numpy as np


def reference_paint(
    masks: np.ndarray, values: np.ndarray, order: np.ndarray, background: int
) -> np.ndarray:
    """The same of masks (S, H, W) bool, one laid upon the other."""
    labels = np.full(masks.shape[1:], background, dtype=values.dtype)
    for index in order:
        labels[masks[index]] = values[index]
    return labels
