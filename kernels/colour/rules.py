"""What colours under masks are on every device: units, and moments of whole sums."""

import cv2
import numpy as np

LAB_UNIT = 1 / 128  # of L*, a* and b* as whole numbers; L* ends at 100, a* and b* within +-128

ROWS = 32  # that are converted at a time: what is between stays in a core's cache


def lab_of(image: np.ndarray) -> np.ndarray:
    """CIE L*a*b* (D65) of sRGB: (H, W, 3) uint8 -> (H, W, 3) int16 in units of ``LAB_UNIT``."""
    found = np.empty(image.shape, np.int16)
    for first in range(0, len(image), ROWS):
        some = image[first : first + ROWS].astype(np.float32) / 255
        lab = cv2.cvtColor(some, cv2.COLOR_RGB2LAB)
        found[first : first + ROWS] = np.rint(lab / LAB_UNIT)
    return found


def lab_table() -> np.ndarray:
    """``lab_of`` of all colours: (2^24, 3) int16, at red x 2^16 + green x 2^8 + blue."""
    table = np.empty((256, 256, 256, 3), np.int16)
    plane = np.zeros((256, 256, 3), np.uint8)
    plane[..., 1], plane[..., 2] = np.arange(256)[:, None], np.arange(256)
    for red in range(256):
        plane[..., 0] = red
        table[red] = lab_of(plane)
    return table.reshape(-1, 3)


def moments_of(sums: np.ndarray, area: np.ndarray) -> np.ndarray:
    """Sums of values and of their squares (M, 2, C) int64 of (M,) pixels -> (M, 2 C) float32.

    Raises:
        ValueError: a mask has no pixel.
    """
    empty = np.flatnonzero(area == 0)
    if len(empty):
        raise ValueError(f"{len(empty)} masks have no pixel to average, the first is {empty[0]}")
    mean, square = (sums[:, which] / area[:, None] for which in (0, 1))
    # Whole numbers below 2^53: where all pixels are equal the difference is 0 to the last bit.
    spread = np.sqrt(np.maximum(square - mean**2, 0))
    return np.concatenate([mean, spread], axis=1).astype(np.float32)
