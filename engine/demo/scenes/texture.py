"""Random fields: smooth noise of a given grain, cheap enough to draw anew for every scene."""

import cv2
import numpy as np


def grain(rng: np.random.Generator, size: int, period: float) -> np.ndarray:
    """Noise of about unit variance with bumps ``period`` pixels wide: (size, size) float32."""
    period = max(period, 1.0)
    if period > 24:
        # Bumps this wide are as smooth on a coarser grid, at a fraction of the time.
        small = grain(rng, size // 6 + 2, period / 6)
        return cv2.resize(small, (size, size), interpolation=cv2.INTER_LINEAR)
    cells = int(np.ceil(size / period)) + 3
    if cells >= size:
        return rng.standard_normal((size, size), dtype=np.float32)
    coarse = rng.standard_normal((cells, cells), dtype=np.float32)
    side = int(np.ceil(cells * period))
    fine = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    at = rng.integers(0, side - size + 1, 2)
    # Interpolation between cells averages noise away; 1.4 makes up for it.
    return fine[at[0] : at[0] + size, at[1] : at[1] + size] * np.float32(1.4)


def octaves(rng: np.random.Generator, size: int, period: float, count: int) -> np.ndarray:
    """Sum of ``count`` grains, each half as wide and 0.6 times as strong: (size, size) float32."""
    total = np.zeros((size, size), np.float32)
    weight, power = 1.0, 0.0
    for _ in range(count):
        total += np.float32(weight) * grain(rng, size, period)
        power += weight**2
        weight, period = 0.6 * weight, 0.5 * period
    return total / np.float32(np.sqrt(power))
