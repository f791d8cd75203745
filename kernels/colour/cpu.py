"""Colours under masks on a CPU: threads share out the masks.

The image is turned once until columns lie end to end, a plane a channel; then each run is a
contiguous stretch of each plane.
"""

import numpy as np

from alps.kernels.base import threads
from alps.kernels.base.compiled import njit
from alps.kernels.masks.runs import Runs, refuse

GRAIN = 4  # masks handed to a thread at a time


def colour_sums(pixels: np.ndarray, runs: Runs) -> tuple[np.ndarray, np.ndarray]:
    """Sums of values and of their squares (M, 2, C) int64, and pixels (M,) int64, of each mask.

    pixels: (H, W, C) int16.

    Raises:
        ValueError: the runs of a mask do not add up to H x W.
    """
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
    return sums, area


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
