"""Painting on a CPU.

The map is painted column by column, as run lengths go: a run is then one stretch of memory, filled
as fast as memory is, straight from the compressed code. One transposition at the end turns columns
into rows. One thread does it all: two would need longer to find each other than to paint.

Bytes moved: the codes, about 1.2 a run; the areas of the segments and H x W of background, written
once into a map that stays in the second-level cache; 2 x H x W to transpose; each pixel times the
bytes of a label.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from alps.kernels.base.compiled import njit
from alps.kernels.masks.coco import read_number
from alps.kernels.paint.rules import check


def paint(
    counts: Sequence[bytes],
    values: np.ndarray,
    order: np.ndarray,
    size: tuple[int, int],
    background: int,
) -> np.ndarray:
    """As ``alps.kernels.paint.paint``, of values (S,) in NumPy."""
    check(len(counts), values, order)
    columns = np.full(size[::-1], background, dtype=values.dtype)
    codes = np.frombuffer(b"".join(counts), np.uint8)
    ends = np.cumsum([len(code) for code in counts], dtype=np.int64)
    damaged = _fill(codes, ends, order, np.ascontiguousarray(values), columns.reshape(-1))
    if damaged >= 0:
        raise ValueError(
            f"the counts of mask {damaged} of {len(counts)} are damaged, or not those of a mask "
            f"of {size[0]} x {size[1]} pixels"
        )
    if columns.size == 0:
        return columns.T.copy()
    # OpenCV moves 16 x 16 labels in vector registers; it knows no uint32 but moves them as int32.
    signed = columns.view(np.int32) if columns.dtype == np.uint32 else columns
    return cv2.transpose(signed).view(columns.dtype)


@njit(nogil=True, cache=True)
def _fill(
    codes: np.ndarray, ends: np.ndarray, order: np.ndarray, values: np.ndarray, labels: np.ndarray
) -> int:
    """Fill labels (W x H,), columns end to end; return a mask with wrong counts, -1 if none.

    The masks before that one are painted then, nothing beyond ``labels`` is.
    """
    for mask in order:
        at, end = ends[mask - 1] if mask > 0 else 0, ends[mask]
        value = values[mask]
        pixel: int | np.int64 = 0
        pair = 0
        zeros: int | np.int64 = 0
        ones: int | np.int64 = 0
        while at < end:
            number, at = read_number(codes, at, end)
            # From the fourth run on a code is the difference to the run two before.
            zeros = number + zeros if pair > 1 else number
            if at < 0 or zeros < 0 or zeros > labels.size - pixel:
                return mask
            pixel += zeros
            if at == end:
                break
            number, at = read_number(codes, at, end)
            ones = number + ones if pair > 0 else number
            if at < 0 or ones < 0 or ones > labels.size - pixel:
                return mask
            labels[pixel : pixel + ones] = value
            pixel += ones
            pair += 1
        if pixel != labels.size:
            return mask
    return -1
