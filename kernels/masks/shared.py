"""How much of a rectangle masks share: bits of each within it, and the pixels two have in common.

Bytes moved: R x 4 of run lengths read, M x ceil(h x w / 64) x 8 written and, for each of the other
side's masks, read again.
"""

import numpy as np

from alps.kernels.base.compiled import njit
from alps.kernels.masks.runs import Runs

WORD = 64


def bits_within(runs: Runs, x0: int, y0: int, width: int, height: int) -> np.ndarray:
    """Each of M masks within a rectangle of their image: (M, words) uint64, bit k of word w stands
    for pixel 64 w + k of the rectangle, column by column.
    """
    words = np.zeros((len(runs), -(-(width * height) // WORD)), np.uint64)
    _bits_within(runs.lengths, runs.starts, runs.size[0], (x0, y0, width, height), words)
    return words


def shared_pixels(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Pixels that masks have in common: (A, words) and (B, words) uint64 -> (A, B) int64."""
    found = np.zeros((len(left), len(right)), np.int64)
    _shared(left, right, found)
    return found


def reference_shared_pixels(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """As ``shared_pixels``, of masks (A, H, W) and (B, H, W) bool."""
    a, b = (masks.reshape(len(masks), -1).astype(np.int64) for masks in (left, right))
    return a @ b.T


@njit(nogil=True, cache=True)
def _bits_within(
    lengths: np.ndarray,
    starts: np.ndarray,
    image_height: int,
    box: tuple[int, int, int, int],
    words: np.ndarray,
) -> None:
    x0, y0, width, height = box
    for m in range(starts.size - 1):
        at = np.int64(0)
        for i in range(starts[m], starts[m + 1]):
            end = at + lengths[i]
            if (i - starts[m]) % 2 == 1:
                while at < end:  # column by column
                    column, row = at // image_height, at % image_height
                    stop = min(image_height, row + end - at)
                    if x0 <= column < x0 + width:
                        for y in range(max(row, np.int64(y0)), min(stop, y0 + height)):
                            bit = (column - x0) * height + y - y0
                            words[m, bit // 64] |= np.uint64(1) << np.uint64(bit % 64)
                    at += stop - row
            at = end


@njit(nogil=True, cache=True)
def _shared(left: np.ndarray, right: np.ndarray, found: np.ndarray) -> None:
    for a in range(left.shape[0]):
        for b in range(right.shape[0]):
            total = np.int64(0)
            for w in range(left.shape[1]):
                total += _ones(left[a, w] & right[b, w])
            found[a, b] = total


@njit(nogil=True, cache=True)
def _ones(word: np.uint64) -> np.int64:
    """Set bits of a word (Hacker's Delight, section 5-1)."""
    word -= (word >> np.uint64(1)) & np.uint64(0x5555555555555555)
    word = (word & np.uint64(0x3333333333333333)) + (
        (word >> np.uint64(2)) & np.uint64(0x3333333333333333)
    )
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((word * np.uint64(0x0101010101010101)) >> np.uint64(56))
