"""Box NMS on a GPU, of several tiles at once: all pairs of a tile into a matrix of bits, then one
short walk down it, a block a tile.

Bytes moved a tile: N^2 / 16 bytes of bits written (the upper triangle) and, of boxes that stay,
read; N x 16 of boxes for each 64 of them, out of the first-level cache; K x 4 of those that stay.
"""

from typing import Any

import numpy as np

from alps.kernels.base.numba_cuda import cuda
from alps.kernels.nms.rules import threshold_of

WORD = 64  # boxes a block, and bits of a word: bit k of word w stands for box 64 w + k


def words_of(boxes: int) -> int:
    """Words of a row of the matrix."""
    return -(-boxes // WORD)


def box_nms(
    boxes: Any, order: Any, number: Any, threshold: float, room: tuple[Any, Any, Any], kept: Any,
    seat: Any, stay: Any, stream: Any = 0,
) -> None:  # fmt: skip
    """Which of the boxes of B tiles stay; as ``alps.kernels.nms.box_nms`` has it in float32.

    Args:
        boxes: (B, N, 4) int32, first column, first row, last column, last row.
        order: (B, N) int64, indices of a tile's boxes, best first.
        number: (B,) int32, how many of these there are.
        threshold: a box is dropped where its IoU with a better one that stays is greater.
        room: for what lies between: (B, 5, N) float32, (B, N, words) and (B, words) int64.
        kept: (B, K) int32, filled with the indices of those that stay, best first, then -1.
        seat: (B, N) int32, filled with the place of each box in ``kept``, -1 where it has none.
        stay: (B,) int32, filled with how many stay, which may be more than K.
        stream: in which it is done.
    """
    tiles, count, _ = boxes.shape
    words = words_of(count)
    sides, overlapping, dropped = room
    limit = threshold_of(np.dtype(np.float32), threshold)
    _sort[(words, tiles), WORD, stream](boxes, order, number, sides, seat)
    _compare[(words, words, tiles), WORD, stream](sides, number, limit, overlapping)
    _walk[tiles, WORD, stream](overlapping, order, number, dropped, kept, seat, stay)


@cuda.jit
def _sort(boxes: Any, order: Any, number: Any, sides: Any, seat: Any) -> None:
    """Boxes (B, N, 4) -> their sides and areas (B, 5, N) float32, best first."""
    place, tile = cuda.grid(1), cuda.blockIdx.y
    if place >= order.shape[1]:
        return
    seat[tile, place] = -1
    if place >= number[tile]:
        return
    box = order[tile, place]
    for side in range(4):
        sides[tile, side, place] = np.float32(boxes[tile, box, side])
    width = sides[tile, 2, place] - sides[tile, 0, place]
    sides[tile, 4, place] = width * (sides[tile, 3, place] - sides[tile, 1, place])


@cuda.jit
def _compare(sides: Any, number: Any, threshold: np.float32, overlapping: Any) -> None:
    """Bits of the boxes after each that overlap it too much; a thread a box and word."""
    word, block, tile = cuda.blockIdx.x, cuda.blockIdx.y, cuda.blockIdx.z
    count = number[tile]
    mine = block * WORD + cuda.threadIdx.x
    if word < block or mine >= count or word * WORD >= count:
        return
    left, top, right, bottom, area = (
        sides[tile, 0, mine],
        sides[tile, 1, mine],
        sides[tile, 2, mine],
        sides[tile, 3, mine],
        sides[tile, 4, mine],
    )
    zero = np.float32(0)
    bits = np.int64(0)
    for bit in range(max(0, mine + 1 - word * WORD), min(WORD, count - word * WORD)):
        other = word * WORD + bit  # the same for all threads: one load serves them all
        width = min(right, sides[tile, 2, other]) - max(left, sides[tile, 0, other])
        height = min(bottom, sides[tile, 3, other]) - max(top, sides[tile, 1, other])
        # Not a multiplication: that the compiler would join with the subtraction below, and the
        # product would not be rounded as on a CPU.
        overlap = cuda.fma(max(width, zero), max(height, zero), zero)
        union = area + sides[tile, 4, other] - overlap
        # Where the union is nothing there is no IoU; a division of 0 warns in the simulator.
        if union != 0 and overlap / union > threshold:
            bits |= np.int64(1) << bit
    overlapping[tile, mine, word] = bits


@cuda.jit
def _walk(
    overlapping: Any, order: Any, number: Any, dropped: Any, kept: Any, seat: Any, stay: Any
) -> None:
    """Find the boxes that do not stay, and list those that do; a block a tile."""
    thread, tile = cuda.threadIdx.x, cuda.blockIdx.x
    count = number[tile]
    words = (count + WORD - 1) // WORD
    among = cuda.shared.array(WORD, np.int64)  # of a word's boxes: which of them each overlaps
    verdict = cuda.shared.array(1, np.int64)
    before = cuda.shared.array(1, np.int32)  # boxes of the words before that stay
    for place in range(thread, kept.shape[1], WORD):
        kept[tile, place] = -1
    for word in range(thread, words, WORD):
        dropped[tile, word] = 0
    if thread == 0:
        before[0] = 0
    cuda.syncthreads()
    for word in range(words):
        first = word * WORD
        boxes = min(WORD, count - first)
        if thread < boxes:
            among[thread] = overlapping[tile, first + thread, word]
        cuda.syncthreads()
        if thread == 0:
            bits = dropped[tile, word]
            for bit in range(boxes):
                if not (bits >> bit) & 1:
                    bits |= among[bit]
            verdict[0] = bits
        cuda.syncthreads()
        for later in range(word + 1 + thread, words, WORD):
            bits = dropped[tile, later]
            for bit in range(boxes):
                if not (verdict[0] >> bit) & 1:
                    bits |= overlapping[tile, first + bit, later]
            dropped[tile, later] = bits
        if thread < boxes and not (verdict[0] >> thread) & 1:
            earlier = ~(verdict[0] | (np.int64(-1) << thread))
            place = before[0] + cuda.popc(earlier)
            if place < kept.shape[1]:
                box = order[tile, first + thread]
                kept[tile, place], seat[tile, box] = box, place
        cuda.syncthreads()
        if thread == 0:
            for bit in range(boxes):
                before[0] += 1 - ((verdict[0] >> bit) & 1)
    cuda.syncthreads()
    if thread == 0:
        stay[tile] = before[0]
