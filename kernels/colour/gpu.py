"""Colours under masks on a GPU, of several tiles at once, with the masks' areas and boxes.

L*a*b* is looked up: it is a function of 2^24 colours, and a table of all is what the CPU's
conversion gives, to the bit. A thread walks down a column of a mask's bits.

Bytes moved: H x W x 3 read, as much of the table as a tile has colours, H x W x 6 written; then M x
H x W / 8 of bits and, for each mask, its pixels x 6, out of the second-level cache.
"""

from typing import Any

import numpy as np

from alps.kernels.base.numba_cuda import cuda
from alps.kernels.masks.gpu import threads_of
from alps.kernels.masks.words import WORD

CHANNELS = 3
SUMS = 2 * CHANNELS
# Of a mask: its pixels, its first and last columns and rows.
AREA, LEFT, TOP, RIGHT, BOTTOM = range(5)
FAR = 1 << 30  # first column and row of a mask without pixels


def lab_of(rgb: Any, table: Any, lab: Any, stream: Any = 0) -> None:
    """Fill lab (B, H, W, 3) int16 with what ``alps.kernels.colour.lab_of`` gives for each image.

    rgb: (B, H, W, 3) uint8. table: (2^24, 3) int16 of ``lab_table``. stream: in which it is done.
    """
    tiles, height, width, _ = rgb.shape
    threads = threads_of(width)
    _lab_of[(-(-width // threads), height, tiles), threads, stream](rgb, table, lab)


def add_colours(
    bits: Any, used: Any, sizes: Any, lab: Any, sums: Any, extent: Any, stream: Any = 0
) -> None:
    """Sums of the colours of each mask and of their squares, its area and box.

    Args:
        bits: (B, M, words, W) uint32, zeros outside of a tile's own size.
        used: (B, M) int32, above 0: a mask.
        sizes: (B, 2 or more) int32, height and width of each tile.
        lab: (B, H, W, 3) int16.
        sums: (B, M, 6) int64 zeros; values, then squares, are added.
        extent: (B, M, 5) int32: AREA 0, LEFT and TOP FAR, RIGHT and BOTTOM -1, to be set.
        stream: in which it is done.
    """
    tiles, masks, _, width = bits.shape
    threads = threads_of(width)
    _add_colours[(-(-width // threads), masks, tiles), threads, stream](
        bits, used, sizes, lab, sums, extent
    )


@cuda.jit
def _lab_of(rgb: Any, table: Any, lab: Any) -> None:
    """A thread a pixel."""
    x, y, tile = cuda.grid(1), cuda.blockIdx.y, cuda.blockIdx.z
    if x >= rgb.shape[2]:
        return
    place = np.int64(0)
    for channel in range(CHANNELS):
        place = (place << 8) | np.int64(rgb[tile, y, x, channel])
    for channel in range(CHANNELS):
        lab[tile, y, x, channel] = table[place, channel]


@cuda.jit
def _add_colours(bits: Any, used: Any, sizes: Any, lab: Any, sums: Any, extent: Any) -> None:
    """A thread a column of a mask."""
    x, mask, tile = cuda.grid(1), cuda.blockIdx.y, cuda.blockIdx.z
    thread = cuda.threadIdx.x
    if used[tile, mask] <= 0:
        return
    of_block = cuda.shared.array(SUMS, np.int64)
    box = cuda.shared.array(5, np.int32)
    if thread < SUMS:
        of_block[thread] = 0
    if thread == 0:
        box[AREA], box[LEFT], box[TOP], box[RIGHT], box[BOTTOM] = 0, FAR, FAR, -1, -1
    cuda.syncthreads()
    if x < sizes[tile, 1]:
        area, top, bottom = 0, FAR, -1
        # A column's values stay below 2^15 rows x 2^15, and their squares below 2^15 x 2^30.
        light, a, b = np.int64(0), np.int64(0), np.int64(0)
        lights, as_, bs = np.int64(0), np.int64(0), np.int64(0)
        for word in range((sizes[tile, 0] + WORD - 1) // WORD):
            left = np.int64(bits[tile, mask, word, x])
            area += cuda.popc(left)
            while left:
                y = word * WORD + cuda.popc((left & -left) - 1)
                left &= left - 1
                top, bottom = min(top, y), y
                value = np.int64(lab[tile, y, x, 0])
                light += value
                lights += value * value
                value = np.int64(lab[tile, y, x, 1])
                a += value
                as_ += value * value
                value = np.int64(lab[tile, y, x, 2])
                b += value
                bs += value * value
        if area > 0:
            cuda.atomic.add(of_block, 0, light)
            cuda.atomic.add(of_block, 1, a)
            cuda.atomic.add(of_block, 2, b)
            cuda.atomic.add(of_block, 3, lights)
            cuda.atomic.add(of_block, 4, as_)
            cuda.atomic.add(of_block, 5, bs)
            cuda.atomic.add(box, AREA, area)
            cuda.atomic.min(box, LEFT, x)
            cuda.atomic.max(box, RIGHT, x)
            cuda.atomic.min(box, TOP, top)
            cuda.atomic.max(box, BOTTOM, bottom)
    cuda.syncthreads()
    if box[AREA] > 0:
        if thread < SUMS:
            cuda.atomic.add(sums, (tile, mask, thread), of_block[thread])
        if thread == AREA:
            cuda.atomic.add(extent, (tile, mask, AREA), box[AREA])
        elif LEFT <= thread < RIGHT:
            cuda.atomic.min(extent, (tile, mask, thread), box[thread])
        elif RIGHT <= thread <= BOTTOM:
            cuda.atomic.max(extent, (tile, mask, thread), box[thread])
