"""Colours under masks of pixels, in NumPy."""

import numpy as np


def reference_pool_colours(pixels: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """The same of masks (M, H, W) bool, in NumPy; every mask must have a pixel."""
    means = [pixels[mask].mean(0, dtype=np.float64) for mask in masks]
    spreads = [pixels[mask].std(0, dtype=np.float64) for mask in masks]
    moments = np.concatenate([np.reshape(means, (len(masks), -1)), spreads], axis=1)
    return moments.astype(np.float32)
