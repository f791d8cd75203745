"""Masks as bits on a GPU, of several tiles at once: their run lengths and COCO codes.

The changes down each column are counted, summed over the columns before, and written where that
sum says they belong; codes likewise, bytes in place of changes.

Bytes moved: M x H x W / 8 of bits read twice; R x 4 of places written
and read twice; some 1.5 a run of code written.
"""

from typing import Any

import numpy as np

from alps.kernels.base.gpu import on_gpu, on_host
from alps.kernels.base.numba_cuda import cuda
from alps.kernels.masks.runs import Runs, starts_of
from alps.kernels.masks.words import WORD, words_of

BITS_BYTES = 256 << 20  # of bits alive at once, where masks come one image after the other
_THREADS = 128
_STRIPS = 32  # into which the columns are cut to sum over them, and the runs of a mask
_SUMS = _STRIPS + 1
_FIRST_DELTA, _OFFSET = 3, 48  # of COCO's code, as in ``coco``


def bits_at_once(height: int, width: int) -> int:
    """How many masks fit into BITS_BYTES."""
    per_mask = words_of(height) * width * 4
    return int(np.clip(BITS_BYTES // max(1, per_mask), 1, 65535))  # 65535: blocks along an axis


def threads_of(width: int) -> int:
    """Threads of a block whose threads are columns."""
    return min(_THREADS, -(-width // WORD) * WORD)


def runs_of_bits(bits: Any, size: tuple[int, int]) -> Runs:
    """Runs of masks (1, M, words, W) of H x W, brought to the host."""
    count, width = bits.shape[1], bits.shape[3]
    if count == 0:
        return Runs.from_lengths([], size)
    sizes = on_gpu(np.array([size], np.int32))
    used = on_gpu(np.ones((1, count), np.int32))
    changes = cuda.device_array((1, count, width), np.int32)
    totals = cuda.device_array((1, count), np.int32)
    count_changes(bits, sizes, used, changes, totals)
    starts = starts_of(on_host(totals)[0])
    places = cuda.device_array((1, int(starts[-1])), np.int32)
    write_changes(bits, sizes, changes, on_gpu(starts[None]), places)
    ends = on_host(places)[0]
    lengths = np.diff(ends, prepend=np.int32(0))
    lengths[starts[:-1]] = ends[starts[:-1]]
    return Runs(size, lengths, starts)


def count_changes(
    bits: Any, sizes: Any, used: Any, changes: Any, totals: Any, stream: Any = 0
) -> None:
    """Where the runs of each column begin among those of its mask, and how many a mask has.

    Args:
        bits: (B, M, words, W) uint32, zeros outside of a tile's own size.
        sizes: (B, 2 or more) int32, height and width of each tile.
        used: (B, M) int32, above 0: a mask.
        changes: (B, M, W) int32, to be filled.
        totals: (B, M) int32, to be filled: runs of each mask, 0 where there is none.
        stream: in which it is done.
    """
    tiles, masks, _, width = bits.shape
    threads = threads_of(width)
    _count_changes[(-(-width // threads), masks, tiles), threads, stream](
        bits, sizes, used, changes
    )
    _sum_before[(masks, tiles), _STRIPS, stream](changes, used, totals)


def write_changes(
    bits: Any, sizes: Any, changes: Any, starts: Any, places: Any, stream: Any = 0
) -> None:
    """Where the runs of each mask end, in pixels of column order.

    Args:
        bits, sizes: as above.
        changes: as filled above.
        starts: (B, M + 1) int64, where each mask's begin in the tile's places, and the last end.
        places: (B, room) int32, to be filled; not for a tile that has no room.
        stream: in which it is done.
    """
    tiles, masks, _, width = bits.shape
    threads = threads_of(width)
    _write_changes[(-(-width // threads), masks, tiles), threads, stream](
        bits, sizes, changes, starts, places
    )


def count_codes(places: Any, starts: Any, totals: Any, stream: Any = 0) -> None:
    """Bytes of the COCO code of each mask into totals (B, M) int32; other arguments as above."""
    tiles, masks = totals.shape
    _count_codes[(masks, tiles), _STRIPS, stream](places, starts, totals)


def write_codes(places: Any, starts: Any, code_starts: Any, codes: Any, stream: Any = 0) -> None:
    """COCO codes (B, room) uint8 of all masks, where code_starts (B, M + 1) int64 has them begin.

    Nothing is written for a tile that has no room.
    """
    tiles, masks = starts.shape[0], starts.shape[1] - 1
    _write_codes[(masks, tiles), _STRIPS, stream](places, starts, code_starts, codes)


def rest_of(
    bits: Any, masks: Any, cells: int, valid: Any, sizes: Any, covered: Any, stream: Any = 0
) -> None:
    """Write what lies under no mask, by cells of a grid, behind the masks of each tile.

    Args:
        bits: (B, K + cells², words, W) uint32, of which the first ``masks`` (B,) int32 hold masks.
        masks: as said.
        cells: rows and columns of the grid; row r of H lies in row r x cells // H of it.
        valid: (B, words, W) uint32, pixels that count.
        sizes: (B, 2 or more) int32, height and width of each tile.
        covered: (B,) int32; pixels under at least one mask are added.
        stream: in which it is done.
    """
    tiles, _, words, width = bits.shape
    threads = threads_of(width)
    _rest[(-(-width // threads), words, tiles), threads, stream](
        bits, masks, cells, valid, sizes, covered
    )


@cuda.jit
def _rest(bits: Any, masks: Any, cells: int, valid: Any, sizes: Any, covered: Any) -> None:
    """A thread a word."""
    column, word, tile = cuda.grid(1), cuda.blockIdx.y, cuda.blockIdx.z
    if column >= bits.shape[3]:
        return
    height, width = sizes[tile, 0], sizes[tile, 1]
    first = bits.shape[1] - cells * cells
    under = np.int64(0)
    for mask in range(min(masks[tile], first)):
        under |= np.int64(bits[tile, mask, word, column])
    bare = np.int64(0)
    if column < width:
        bare = np.int64(valid[tile, word, column]) & ~under
    count = cuda.popc(under)
    if column < width and count > 0:
        cuda.atomic.add(covered, tile, count)
    across = column * cells // max(width, 1)
    for cell in range(cells * cells):
        own = np.int64(0)
        if cell % cells == across:
            row = cell // cells
            begin = (row * height + cells - 1) // cells - word * WORD
            end = ((row + 1) * height + cells - 1) // cells - word * WORD
            begin, end = min(max(begin, 0), WORD), min(max(end, 0), WORD)
            own = bare & ((np.int64(1) << end) - 1) & ~((np.int64(1) << begin) - 1)
        bits[tile, first + cell, word, column] = own


@cuda.jit(device=True)
def _changes_in(bits: Any, tile: int, mask: int, word: int, column: int, height: int) -> np.int64:
    """Which rows of a word differ from the pixel before, in column order, of a mask."""
    here = np.int64(bits[tile, mask, word, column])
    before = np.int64(0)
    if word > 0:
        before = np.int64(bits[tile, mask, word - 1, column]) >> (WORD - 1)
    elif column > 0:  # the bottom of the column on the left
        last = (height - 1) // WORD
        before = (np.int64(bits[tile, mask, last, column - 1]) >> (height - 1 - last * WORD)) & 1
    rows = min(WORD, height - word * WORD)
    return (here ^ ((here << 1) | before)) & ((np.int64(1) << rows) - 1)


@cuda.jit
def _count_changes(bits: Any, sizes: Any, used: Any, changes: Any) -> None:
    """Into changes (B, M, W), of each column; a thread a column."""
    column, mask, tile = cuda.grid(1), cuda.blockIdx.y, cuda.blockIdx.z
    if column >= bits.shape[3] or used[tile, mask] <= 0:
        return
    height, count = sizes[tile, 0], 0
    if column < sizes[tile, 1]:
        for word in range((height + WORD - 1) // WORD):
            count += cuda.popc(_changes_in(bits, tile, mask, word, column, height))
    changes[tile, mask, column] = count


@cuda.jit
def _sum_before(changes: Any, used: Any, totals: Any) -> None:
    """Replace each of changes (B, M, W) by the sum of those before it; a block a mask."""
    mask, tile, strip = cuda.blockIdx.x, cuda.blockIdx.y, cuda.threadIdx.x
    width = changes.shape[2]
    before = cuda.shared.array(_SUMS, np.int32)
    if used[tile, mask] <= 0:
        if strip == 0:
            totals[tile, mask] = 0
        return
    per_strip = -(-width // _STRIPS)
    first, last = min(width, strip * per_strip), min(width, (strip + 1) * per_strip)
    total = 0
    for column in range(first, last):
        total += changes[tile, mask, column]
    before[strip + 1] = total
    cuda.syncthreads()
    if strip == 0:
        before[0] = 0
        for other in range(_STRIPS):
            before[other + 1] += before[other]
        totals[tile, mask] = before[_STRIPS] + 1  # the end of the mask is one place more
    cuda.syncthreads()
    total = before[strip]
    for column in range(first, last):
        here = changes[tile, mask, column]
        changes[tile, mask, column] = total
        total += here


@cuda.jit
def _write_changes(bits: Any, sizes: Any, changes: Any, starts: Any, places: Any) -> None:
    """Where the pixels of each mask change, in column order, and where it ends; a thread a
    column.
    """
    column, mask, tile = cuda.grid(1), cuda.blockIdx.y, cuda.blockIdx.z
    height, width = sizes[tile, 0], sizes[tile, 1]
    begin = starts[tile, mask]
    if (
        column >= width
        or starts[tile, mask + 1] == begin
        or starts[tile, starts.shape[1] - 1] > places.shape[1]
    ):
        return
    at = begin + changes[tile, mask, column]
    for word in range((height + WORD - 1) // WORD):
        found = _changes_in(bits, tile, mask, word, column, height)
        while found:
            row = word * WORD + cuda.popc((found & -found) - 1)
            places[tile, at] = column * height + row
            at += 1
            found &= found - 1
    if column == width - 1:
        places[tile, at] = height * width


@cuda.jit(device=True)
def _value(places: Any, tile: int, first: int, run: int) -> np.int64:
    """What COCO's code writes for a run of the mask whose runs begin at ``first``."""
    value = np.int64(places[tile, run])
    if run > first:
        value -= places[tile, run - 1]
    if run - first >= _FIRST_DELTA:  # less the length of the run two before
        value -= places[tile, run - 2] - places[tile, run - 3]
    return value


@cuda.jit(device=True)
def _bytes_of(value: np.int64) -> int:
    """k groups of five bits hold values from -2^(5k-1) up to 2^(5k-1) - 1."""
    magnitude = ~value if value < 0 else value
    count = 1
    while magnitude > 0x0F:
        magnitude >>= 5
        count += 1
    return count


@cuda.jit(device=True)
def _share(first: int, last: int, strip: int) -> tuple[int, int]:
    """Of runs [first, last) those of a thread."""
    each = (last - first + _STRIPS - 1) // _STRIPS
    begin = min(first + strip * each, last)
    return begin, min(begin + each, last)


@cuda.jit
def _count_codes(places: Any, starts: Any, totals: Any) -> None:
    """A block a mask."""
    mask, tile, strip = cuda.blockIdx.x, cuda.blockIdx.y, cuda.threadIdx.x
    sums = cuda.shared.array(_STRIPS, np.int32)
    first, last = starts[tile, mask], starts[tile, mask + 1]
    if starts[tile, starts.shape[1] - 1] > places.shape[1]:
        last = first
    begin, end = _share(first, last, strip)
    total = 0
    for run in range(begin, end):
        total += _bytes_of(_value(places, tile, first, run))
    sums[strip] = total
    cuda.syncthreads()
    if strip == 0:
        total = 0
        for other in range(_STRIPS):
            total += sums[other]
        totals[tile, mask] = total


@cuda.jit
def _write_codes(places: Any, starts: Any, code_starts: Any, codes: Any) -> None:
    """A block a mask."""
    mask, tile, strip = cuda.blockIdx.x, cuda.blockIdx.y, cuda.threadIdx.x
    sums = cuda.shared.array(_STRIPS, np.int32)
    first, last = starts[tile, mask], starts[tile, mask + 1]
    if (
        starts[tile, starts.shape[1] - 1] > places.shape[1]
        or code_starts[tile, code_starts.shape[1] - 1] > codes.shape[1]
    ):
        return
    begin, end = _share(first, last, strip)
    total = 0
    for run in range(begin, end):
        total += _bytes_of(_value(places, tile, first, run))
    sums[strip] = total
    cuda.syncthreads()
    at = code_starts[tile, mask]
    for other in range(strip):
        at += sums[other]
    for run in range(begin, end):
        value = _value(places, tile, first, run)
        for group in range(_bytes_of(value), 0, -1):
            codes[tile, at] = (value & 0x1F) + (0x20 if group > 1 else 0) + _OFFSET
            value >>= 5
            at += 1
