"""The resize on a CPU, rows shared by threads.

Bytes moved: h x w x C read, H x W x C written, and h x W x C between them, which of a strip of rows
stay in the cache. Work: h x W x C + H x W x C sums of a few products.
"""

import numpy as np

from alps.kernels.base.compiled import njit
from alps.kernels.base.threads import spread
from alps.kernels.resize.rules import BITS, HALF, Taps, rows_first, taps_of

ROWS = 32  # new ones, of a strip


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """As ``alps.kernels.resize.resize``, of a C-ordered image."""
    old_height, old_width, channels = image.shape
    across, down = taps_of(old_width, width), taps_of(old_height, height)
    spread_out = _by_value(across, old_width, channels)
    out = np.empty((height, width, channels), np.uint8)

    def rows(strip: np.ndarray, top: int, start: int, stop: int) -> np.ndarray:
        """New rows of a strip that begins at an old one, ``top``."""
        if height == old_height:
            return strip
        made = np.empty((stop - start, *strip.shape[1:]), np.uint8)
        flat, into = (array.reshape(len(array), -1) for array in (strip, made))
        _down(flat, down.first[start:stop] - top, down.weights[start:stop], into)
        return made

    def columns(strip: np.ndarray) -> np.ndarray:
        if width == old_width:
            return strip
        made = np.empty((len(strip), width, channels), np.uint8)
        flat, into = (array.reshape(len(array), -1) for array in (strip, made))
        _across(flat, *spread_out, into)
        return made

    def some(first: int, last: int) -> None:
        for start in range(first * ROWS, min(height, last * ROWS), ROWS):
            stop = min(height, start + ROWS)
            top, bottom = start, stop
            if height != old_height:
                top = down.first[start]
                bottom = min(old_height, down.first[stop - 1] + down.weights.shape[1])
            strip = image[top:bottom]
            if rows_first(image.shape, height, width):
                out[start:stop] = columns(rows(strip, top, start, stop))
            else:
                out[start:stop] = rows(columns(strip), top, start, stop)

    spread(some, -(-height // ROWS))
    return out


def _by_value(taps: Taps, old: int, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """For each tap of each value of a row (T, N · C): where it lies in the old row, its weight."""
    count = taps.weights.shape[1]
    place = np.minimum(taps.first + np.arange(count)[:, None], old - 1)  # (T, N); weight 0 beyond
    value = place[:, :, None] * channels + np.arange(channels)
    weights = np.repeat(taps.weights.T, channels, axis=1)
    return value.reshape(count, -1), np.ascontiguousarray(weights)


# Value by value, not pixel by pixel: so a loop over them becomes instructions for eight or sixteen.
@njit(nogil=True, cache=True)
def _across(image: np.ndarray, place: np.ndarray, weights: np.ndarray, out: np.ndarray) -> None:
    """(h, w · C) -> (h, W · C)."""
    taps, width = place.shape
    total = np.empty(width, np.int32)
    for y in range(len(image)):
        row, made = image[y], out[y]
        total[:] = HALF
        for t in range(taps):
            for i in range(width):
                total[i] += np.int32(row[place[t, i]]) * weights[t, i]
        for i in range(width):
            made[i] = min(max(total[i] >> BITS, 0), 255)


@njit(nogil=True, cache=True)
def _down(image: np.ndarray, first: np.ndarray, weights: np.ndarray, out: np.ndarray) -> None:
    """(h, W · C) -> (H, W · C)."""
    old, width = image.shape
    total = np.empty(width, np.int32)
    for y in range(len(first)):
        total[:] = HALF
        for t in range(min(weights.shape[1], old - first[y])):
            weight = weights[y, t]
            if weight != 0:
                row = image[first[y] + t]
                for x in range(width):
                    total[x] += np.int32(row[x]) * weight
        for x in range(width):
            out[y, x] = min(max(total[x] >> BITS, 0), 255)
