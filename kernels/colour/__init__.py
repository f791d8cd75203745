"""Mean and standard deviation of the colours under each mask, straight from run lengths.

A run is a stretch of one column, so the image is turned once until columns lie end to end, a plane
a channel; then each run is a contiguous stretch of each plane. Colours are whole numbers and are
summed as such: no digit is lost however large a mask is, and the order in which threads of a GPU
add does not show.

Bytes moved: C x H x W x 2 for turning, read and written; R x 4 (run lengths); for each mask its
pixels x C x 2; M x C x 8 out.
"""

from typing import Any

import cv2
import numpy as np
from numba import njit

from alps.kernels.base import threads
from alps.kernels.base.gpu import is_on_gpu
from alps.kernels.masks.runs import Runs
from alps.kernels.pool import refuse

LAB_UNIT = 1 / 128  # of L*, a* and b* as whole numbers; L* ends at 100, a* and b* within +-128
GRAIN = 4  # masks handed to a thread at a time


def lab_of(image: np.ndarray) -> np.ndarray:
    """CIE L*a*b* (D65) of sRGB: (H, W, 3) uint8 -> (H, W, 3) int16 in units of ``LAB_UNIT``."""
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    return np.rint(lab / LAB_UNIT).astype(np.int16)


def pool_colours(pixels: Any, runs: Runs) -> np.ndarray:
    """Return the mean and the standard deviation of each channel over each mask.

    Args:
        pixels: (H, W, C) int16; on a GPU: computed there.
        runs: M masks of (H, W); on a GPU: computed there.

    Returns (M, 2 C) float32, NumPy: C means, then C standard deviations (of the population, so a
    mask of one pixel has 0), in the units of ``pixels``.

    Raises:
        ValueError: a mask has no pixel, its runs do not add up, or the sizes differ.
    """
    if tuple(pixels.shape[:2]) != runs.size or pixels.dtype != np.int16:
        raise ValueError(
            f"pixels must be int16 of {runs.size}, not {pixels.dtype} of {tuple(pixels.shape[:2])}"
        )
    if is_on_gpu(pixels) or is_on_gpu(runs.lengths):
        from alps.kernels.colour.gpu import colour_sums as sums_on_gpu

        return moments_of(*sums_on_gpu(pixels, runs))
    planes = np.ascontiguousarray(pixels.transpose(2, 1, 0)).reshape(pixels.shape[2], -1)
    sums = np.zeros((len(runs), 2, len(planes)), np.int64)
    area = np.zeros(len(runs), np.int64)
    wrong: list[int] = []

    def work(first: int, last: int) -> None:
        starts = runs.starts[first : last + 1]
        bad = _add_runs(runs.lengths, starts, planes, sums[first:last], area[first:last])
        if bad >= 0:
            wrong.append(first + bad)

    threads.spread(work, len(runs), GRAIN)
    refuse(wrong, runs.size)
    return moments_of(sums, area)


def reference_pool_colours(pixels: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """The same of masks (M, H, W) bool, in NumPy; every mask must have a pixel."""
    means = [pixels[mask].mean(0, dtype=np.float64) for mask in masks]
    spreads = [pixels[mask].std(0, dtype=np.float64) for mask in masks]
    moments = np.concatenate([np.reshape(means, (len(masks), -1)), spreads], axis=1)
    return moments.astype(np.float32)


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


@njit(nogil=True, cache=True)
def _add_runs(
    lengths: np.ndarray, starts: np.ndarray, planes: np.ndarray, sums: np.ndarray, area: np.ndarray
) -> int:
    """Fill sums (m, 2, C) and area (m,); returns a mask whose runs do not add up, or -1."""
    channels, pixels = planes.shape
    for mask in range(area.size):
        end = np.int64(0)
        for run in range(starts[mask], starts[mask + 1]):
            begin, end = end, end + lengths[run]
            if lengths[run] < 0 or end > pixels:
                return mask
            if (run - starts[mask]) % 2 == 0:
                continue
            area[mask] += end - begin
            for channel in range(channels):
                total, squares = np.int64(0), np.int64(0)
                for pixel in range(begin, end):
                    value = np.int64(planes[channel, pixel])
                    total += value
                    squares += value * value
                sums[mask, 0, channel] += total
                sums[mask, 1, channel] += squares
        if end != pixels:
            return mask
    return -1
