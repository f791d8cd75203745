"""Masks for benchmarks: smooth blobs of every size, as everything mode leaves them of a tile."""

import cv2
import numpy as np

LEAST, MOST = 0.02, 0.25  # radius, of the image's side
WOBBLE = 0.3  # of the radius


def blobs(count: int, side: int = 1024, seed: int = 0) -> np.ndarray:
    """Masks (count, side, side) bool.

    Small ones are as frequent as large ones, by the logarithm of their radius; a mask of 1024 x
    1024 covers some 4 % and has some 400 runs. (`tiny` on a tile of that size: 300 masks, 2 %,
    500 runs.)
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side].astype(np.float32)
    masks = np.empty((count, side, side), bool)
    for mask in masks:
        radius = side * np.exp(rng.uniform(np.log(LEAST), np.log(MOST)))
        row, column = rng.uniform(0, side, 2)
        coarse = rng.normal(size=(8, 8)).astype(np.float32)
        noise = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
        mask[:] = np.hypot(y - row, x - column) / radius + WOBBLE * noise < 1
    return masks
