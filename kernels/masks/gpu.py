"""Run lengths of masks on a GPU: packed into bits, the changes down each column counted, then
written where a sum over the columns before says they belong.

Bytes moved by ``runs_of``: M x H x W read, an eighth of that written as bits and read twice, and
R x 4 written and brought to the host.
"""

from typing import Any

import numpy as np

from alps.kernels.base.gpu import on_gpu
from alps.kernels.base.numba_cuda import cuda
from alps.kernels.masks.runs import Runs, starts_of

WORD = 32  # rows of a column in a word of bits: bit k of word w is row 32 w + k
BITS_BYTES = 256 << 20  # of bits alive at once
_THREADS = 128
_STRIPS = 32  # into which the columns are cut to sum over them
_SUMS = _STRIPS + 1


def runs_of(masks: Any) -> Runs:
    """As ``alps.kernels.masks.pixels.runs_of``, of masks (M, H, W) bool on the GPU."""
    count, height, width = masks.shape
    if height * width == 0:  # no thread to start
        return Runs.from_lengths([np.zeros(1, np.int32)] * count, (height, width))
    parts = []
    some = masks_at_once(height, width)
    for first in range(0, count, some):
        chunk = masks[first : first + some]
        bits = empty_bits(chunk.shape[0], height, width)
        _pack[grid_of(bits)](chunk, bits)
        parts.append(runs_of_bits(bits, height, np.arange(chunk.shape[0])))
    return Runs.join(parts, (height, width))


def masks_at_once(height: int, width: int) -> int:
    """How many masks fit into BITS_BYTES."""
    per_mask = -(-height // WORD) * width * 4
    return int(np.clip(BITS_BYTES // max(1, per_mask), 1, 65535))  # 65535: blocks along an axis


def empty_bits(count: int, height: int, width: int) -> Any:
    """Room for masks as bits: (M, words, W) uint32, words of a row of columns side by side."""
    return cuda.device_array((count, -(-height // WORD), width), np.uint32)


def grid_of(bits: Any) -> tuple[tuple[int, int, int], int]:
    """Blocks and threads for one thread a word, those of a row side by side."""
    count, words, width = bits.shape
    threads = min(_THREADS, -(-width // WORD) * WORD)
    return (-(-width // threads), words, count), threads


def runs_of_bits(bits: Any, height: int, which: np.ndarray) -> Runs:
    """Runs of the masks at ``which`` (m,) int64 of bits (M, words, W)."""
    width = bits.shape[2]
    size = height, width
    if len(which) == 0:
        return Runs.from_lengths([], size)
    threads = min(_THREADS, -(-width // WORD) * WORD)
    blocks = -(-width // threads), len(which)
    chosen = on_gpu(which.astype(np.int64))
    # Changes in each column, then in all columns before it.
    changes = cuda.device_array((len(which), width), np.int32)
    totals = cuda.device_array(len(which), np.int32)
    _count_changes[blocks, threads](bits, height, chosen, changes)
    _sum_before[len(which), _STRIPS](changes, totals)
    # The end of the mask is one place more.
    starts = starts_of(totals.copy_to_host() + 1)
    places = cuda.device_array(int(starts[-1]), np.int32)
    _write_changes[blocks, threads](bits, height, chosen, changes, on_gpu(starts), places)
    places = places.copy_to_host()
    lengths = np.diff(places, prepend=np.int32(0))
    lengths[starts[:-1]] = places[starts[:-1]]
    return Runs(size, lengths, starts)


@cuda.jit
def _pack(masks: Any, bits: Any) -> None:
    """Masks (M, H, W) bool -> bits (M, words, W); a thread a word."""
    column, word, mask = cuda.grid(1), cuda.blockIdx.y, cuda.blockIdx.z
    if column >= masks.shape[2]:
        return
    packed = 0
    for bit in range(min(WORD, masks.shape[1] - word * WORD)):
        if masks[mask, word * WORD + bit, column]:
            packed |= 1 << bit
    bits[mask, word, column] = packed


@cuda.jit(device=True)
def _changes_in(bits: Any, mask: int, word: int, column: int, height: int) -> np.int64:
    """Which rows of a word differ from the pixel before, in column order, of a mask."""
    here = np.int64(bits[mask, word, column])
    before = np.int64(0)
    if word > 0:
        before = np.int64(bits[mask, word - 1, column]) >> (WORD - 1)
    elif column > 0:  # the bottom of the column on the left
        last = (height - 1) // WORD
        before = (np.int64(bits[mask, last, column - 1]) >> (height - 1 - last * WORD)) & 1
    rows = min(WORD, height - word * WORD)
    return (here ^ ((here << 1) | before)) & ((np.int64(1) << rows) - 1)


@cuda.jit
def _count_changes(bits: Any, height: int, chosen: Any, changes: Any) -> None:
    """Into changes (m, W), of each column; a thread a column."""
    column, mask = cuda.grid(1), cuda.blockIdx.y
    if column >= bits.shape[2]:
        return
    count = 0
    for word in range(bits.shape[1]):
        count += cuda.popc(_changes_in(bits, chosen[mask], word, column, height))
    changes[mask, column] = count


@cuda.jit
def _sum_before(changes: Any, totals: Any) -> None:
    """Replace each of changes (m, W) by the sum of those before it; a block a mask."""
    mask, strip = cuda.blockIdx.x, cuda.threadIdx.x
    width = changes.shape[1]
    before = cuda.shared.array(_SUMS, np.int32)
    per_strip = -(-width // _STRIPS)
    first, last = min(width, strip * per_strip), min(width, (strip + 1) * per_strip)
    total = 0
    for column in range(first, last):
        total += changes[mask, column]
    before[strip + 1] = total
    cuda.syncthreads()
    if strip == 0:
        before[0] = 0
        for other in range(_STRIPS):
            before[other + 1] += before[other]
        totals[mask] = before[_STRIPS]
    cuda.syncthreads()
    total = before[strip]
    for column in range(first, last):
        here = changes[mask, column]
        changes[mask, column] = total
        total += here


@cuda.jit
def _write_changes(
    bits: Any, height: int, chosen: Any, changes: Any, starts: Any, places: Any
) -> None:
    """Where the pixels of each mask change, in column order, and where it ends; a thread a
    column.
    """
    column, mask = cuda.grid(1), cuda.blockIdx.y
    width = bits.shape[2]
    if column >= width:
        return
    at = starts[mask] + changes[mask, column]
    for word in range(bits.shape[1]):
        found = _changes_in(bits, chosen[mask], word, column, height)
        while found:
            places[at] = column * height + word * WORD + cuda.popc((found & -found) - 1)
            at += 1
            found &= found - 1
    if column == width - 1:
        places[at] = height * width
