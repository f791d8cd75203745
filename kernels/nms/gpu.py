"""Box NMS on a GPU: all pairs at once into a matrix of bits, then one short walk down it.

Bytes moved: N^2 / 16 bytes of bits written (the upper triangle) and, of boxes that stay, read;
N x 16 of boxes for each 64 of them, out of the first-level cache; N / 8 come back.
"""

from typing import Any

import numpy as np

from alps.kernels.base.gpu import on_gpu, on_host
from alps.kernels.base.numba_cuda import cuda
from alps.kernels.nms.rules import by_score, threshold_of

WORD = 64  # boxes a block, and bits of a word: bit k of word w stands for box 64 w + k


def box_nms(boxes: Any, scores: Any, threshold: float) -> np.ndarray:
    """As ``alps.kernels.nms.box_nms``, of boxes (N, 4) on a GPU."""
    boxes = on_gpu(boxes)
    count = boxes.shape[0]
    order = by_score(on_host(scores), count)
    if count == 0:
        return order
    dtype = np.dtype(np.float64 if boxes.dtype == np.float64 else np.float32)
    words = -(-count // WORD)
    sides = cuda.device_array((5, count), dtype)
    _sort[words, WORD](boxes, on_gpu(order), sides)
    overlapping = cuda.device_array((count, words), np.int64)
    _compare[(words, words), WORD](sides, threshold_of(dtype, threshold), overlapping)
    dropped = on_gpu(np.zeros(words, np.int64))
    _walk[1, WORD](overlapping, dropped)
    bits = np.unpackbits(dropped.copy_to_host().view(np.uint8), bitorder="little")
    return order[bits[:count] == 0]


@cuda.jit
def _sort(boxes: Any, order: Any, sides: Any) -> None:
    """Boxes (N, 4) -> their sides and areas (5, N) float, best first."""
    place = cuda.grid(1)
    if place >= order.size:
        return
    box = order[place]
    for side in range(4):
        sides[side, place] = boxes[box, side]
    width = sides[2, place] - sides[0, place]
    sides[4, place] = width * (sides[3, place] - sides[1, place])


@cuda.jit
def _compare(sides: Any, threshold: np.floating, overlapping: Any) -> None:
    """Bits of the boxes after each that overlap it too much; a thread a box and word."""
    word, block = cuda.blockIdx.x, cuda.blockIdx.y
    mine = block * WORD + cuda.threadIdx.x
    if word < block or mine >= sides.shape[1]:
        return
    left, top, right, bottom, area = (
        sides[0, mine],
        sides[1, mine],
        sides[2, mine],
        sides[3, mine],
        sides[4, mine],
    )
    zero = sides.dtype.type(0)
    bits = np.int64(0)
    for bit in range(max(0, mine + 1 - word * WORD), min(WORD, sides.shape[1] - word * WORD)):
        other = word * WORD + bit  # the same for all threads: one load serves them all
        width = min(right, sides[2, other]) - max(left, sides[0, other])
        height = min(bottom, sides[3, other]) - max(top, sides[1, other])
        # Not a multiplication: that the compiler would join with the subtraction below, and the
        # product would not be rounded as on a CPU.
        overlap = cuda.fma(max(width, zero), max(height, zero), zero)
        union = area + sides[4, other] - overlap
        # Where the union is nothing there is no IoU; a division of 0 warns in the simulator.
        if union != 0 and overlap / union > threshold:
            bits |= np.int64(1) << bit
    overlapping[mine, word] = bits


@cuda.jit
def _walk(overlapping: Any, dropped: Any) -> None:
    """Set the bits of boxes that do not stay in dropped (words,), zeros before; one block."""
    thread = cuda.threadIdx.x
    count, words = overlapping.shape
    among = cuda.shared.array(WORD, np.int64)  # of a word's boxes: which of them each overlaps
    verdict = cuda.shared.array(1, np.int64)
    for word in range(words):
        first = word * WORD
        if first + thread < count:
            among[thread] = overlapping[first + thread, word]
        cuda.syncthreads()
        boxes = min(WORD, count - first)
        if thread == 0:
            bits = dropped[word]
            for bit in range(boxes):
                if not (bits >> bit) & 1:
                    bits |= among[bit]
            verdict[0] = bits
            dropped[word] = bits
        cuda.syncthreads()
        for later in range(word + 1 + thread, words, WORD):
            bits = dropped[later]
            for bit in range(boxes):
                if not (verdict[0] >> bit) & 1:
                    bits |= overlapping[first + bit, later]
            dropped[later] = bits
        cuda.syncthreads()
