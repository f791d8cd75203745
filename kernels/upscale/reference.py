"""Logits at full size, both steps one after the other, in NumPy."""

import numpy as np

from alps.kernels.upscale.taps import step


def reference_upscale(
    logits: np.ndarray, square: int, inner: tuple[int, int], size: tuple[int, int]
) -> np.ndarray:
    """Full-size logits (M, H, W) float32, both steps one after the other, in NumPy."""
    full = _reference_step(logits, (square, square))
    return _reference_step(full[:, : inner[0], : inner[1]], size)


def _reference_step(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    for axis in (2, 1):
        near, far, part = step(logits.shape[axis], size[axis - 1])
        part = part.astype(np.float32).reshape((-1, 1) if axis == 1 else (-1,))
        near, far = logits.take(near, axis), logits.take(far, axis)
        logits = near * (1 - part) + far * part
    return logits
