"""Masks from low-resolution logits on a GPU, of several tiles in one launch: measured first, and
written as bits where they stay.

Pixels are those of a CPU to the bit: rows of logits, interpolated across, are compared with the
cuts; between rows on the same side a pixel is as they are, and only others are computed, in the
CPU's order and without fused multiply-adds. Whoever looks at logits that are all below the lowest
cut does nothing.

Bytes moved by ``extents``: M x a x b x 4 read, M x b x 8 written. By ``measure`` and by ``write``:
the same read again, from the caches where pixels of a warp look at the same; M x 32 written, or
H x W / 8 for each mask that stays.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from alps.kernels.base.gpu import on_gpu, on_host
from alps.kernels.base.numba_cuda import cuda
from alps.kernels.masks.gpu import bits_at_once, runs_of_bits, threads_of
from alps.kernels.masks.runs import Runs
from alps.kernels.masks.words import WORD, words_of
from alps.kernels.upscale.rules import Cuts, stable_of
from alps.kernels.upscale.taps import MOST_TAPS as TAPS
from alps.kernels.upscale.taps import Taps

# What is measured of a mask: pixels above the high and the low cut, those that it keeps, their
# first and last columns and rows.
HIGH, LOW, AREA, LEFT, TOP, RIGHT, BOTTOM = range(7)
MEASURES = 7
FAR = 1 << 30  # first column and row of a mask without pixels
# Of a tile: its height and width, rows and columns of logits a pixel is made of.
HEIGHT, WIDTH, ROW_TAPS, COLUMN_TAPS = range(4)


@dataclass(frozen=True)
class TileTaps:
    """How pixels of B tiles are made of logits; ``side`` is the longest of all."""

    sizes: Any  # (B, 4) int32: height, width, row taps, column taps
    first: Any  # (B, 2, side) int32, of rows and of columns
    weights: Any  # (B, 2, side, TAPS) float32, zero where there is no tap

    @staticmethod
    def of(axes: list[tuple[Taps, Taps]]) -> "TileTaps":
        """In NumPy, of the rows and the columns of each tile.

        Raises:
            ValueError: a pixel looks at more than TAPS rows or columns of logits.
        """
        side = max(len(taps.first) for pair in axes for taps in pair)
        sizes = np.zeros((len(axes), 4), np.int32)
        first = np.zeros((len(axes), 2, side), np.int32)
        weights = np.zeros((len(axes), 2, side, TAPS), np.float32)
        for tile, pair in enumerate(axes):
            for axis, taps in enumerate(pair):
                length, count = taps.weights.shape
                if count > TAPS:
                    raise ValueError(f"a pixel looks at {count} logits of an axis, not {TAPS}")
                sizes[tile, axis], sizes[tile, 2 + axis] = length, count
                first[tile, axis, :length] = taps.first
                weights[tile, axis, :length, :count] = taps.weights
        return TileTaps(sizes, first, weights)

    def on_gpu(self) -> "TileTaps":
        """The same there."""
        return TileTaps(*(on_gpu(array) for array in (self.sizes, self.first, self.weights)))


def extents(logits: Any, low: np.float32, found: Any, stream: Any = 0) -> None:
    """First and last row above a cut of each column of logits (M, a, b), into (M, b, 2) int32.

    a and -1 where none is.
    """
    count, _, across = logits.shape
    if count:
        threads = threads_of(across)
        _extents[(-(-across // threads), count), threads, stream](logits, low, found)


def measure(
    logits: Any, reach: Any, place: Any, taps: TileTaps, valid: Any, cuts: Cuts, found: Any,
    stream: Any = 0,
) -> None:  # fmt: skip
    """Add to (B, slots, MEASURES) int32 what masks of logits (M, a, b) float32 measure.

    Args:
        logits: of any of the tiles.
        reach: of ``extents``.
        place: (M, 2) int32, the tile of each mask, and its slot there; none where that is -1.
        taps: of the tiles.
        valid: (B, words, W) uint32 bits of the pixels that masks keep; without tiles: all.
        cuts: the thresholds.
        found: zeros, but for FAR in LEFT and TOP and -1 in RIGHT and BOTTOM.
        stream: in which it is done.
    """
    if logits.shape[0]:
        grid, threads = _grid(taps, logits.shape[0])
        _measure[grid, threads, stream](
            logits, reach, place, taps.sizes, taps.first, taps.weights, valid,
            cuts.low, cuts.mask, cuts.high, found,
        )  # fmt: skip


def write(
    logits: Any, reach: Any, place: Any, taps: TileTaps, valid: Any, cuts: Cuts, seat: Any,
    bits: Any, stream: Any = 0,
) -> None:  # fmt: skip
    """Write the masks that stay into bits (B, seats, words, W) uint32; other arguments as above.

    seat: (B, slots) int32, which of the tile's a mask gets; none where that is -1.
    """
    if logits.shape[0]:
        grid, threads = _grid(taps, logits.shape[0])
        _write[grid, threads, stream](
            logits, reach, place, taps.sizes, taps.first, taps.weights, valid,
            cuts.low, cuts.mask, cuts.high, seat, bits,
        )  # fmt: skip


def _grid(taps: TileTaps, masks: int) -> tuple[tuple[int, int, int], int]:
    side = taps.first.shape[2]
    threads = threads_of(side)
    return (-(-side // threads), words_of(side), masks), threads


def cut_masks(
    logits: Any, rows: Taps, columns: Taps, cuts: Cuts, min_stability: float
) -> tuple[np.ndarray, np.ndarray, Runs]:
    """Which masks of logits (M, a, b) on the GPU are kept (m,), their stability (m,) and runs."""
    size = len(rows.first), len(columns.first)
    count = logits.shape[0]
    kept, stability = np.zeros(0, np.int64), np.zeros(0, np.float32)
    if not count:
        return kept, stability, Runs.from_lengths([], size)
    taps = TileTaps.of([(rows, columns)]).on_gpu()
    every = on_gpu(np.zeros((0, 1, 1), np.uint32))
    reach = on_gpu(np.zeros((count, logits.shape[2], 2), np.int32))
    place = np.zeros((count, 2), np.int32)
    place[:, 1] = np.arange(count)
    found = on_gpu(no_measures(1, count))
    extents(logits, cuts.low, reach)
    measure(logits, reach, on_gpu(place), taps, every, cuts, found)
    measured = on_host(found)[0]
    kept, stability = stable_of(
        measured[:, HIGH].astype(np.int64), measured[:, LOW].astype(np.int64), min_stability
    )
    parts = []
    some = bits_at_once(*size)
    for begin in range(0, len(kept), some):
        which = kept[begin : begin + some]
        seat = np.full((1, count), -1, np.int32)
        seat[0, which] = np.arange(len(which))
        bits = cuda.device_array((1, len(which), words_of(size[0]), size[1]), np.uint32)
        write(logits, reach, on_gpu(place), taps, every, cuts, on_gpu(seat), bits)
        parts.append(runs_of_bits(bits, size))
    return kept, stability, Runs.join(parts, size)


def no_measures(tiles: int, slots: int) -> np.ndarray:
    """What ``measure`` adds to, (tiles, slots, MEASURES) int32."""
    found = np.zeros((tiles, slots, MEASURES), np.int32)
    found[:, :, LEFT], found[:, :, TOP] = FAR, FAR
    found[:, :, RIGHT], found[:, :, BOTTOM] = -1, -1
    return found


@cuda.jit
def _extents(logits: Any, low: np.float32, found: Any) -> None:
    """A thread a column."""
    column, mask = cuda.grid(1), cuda.blockIdx.y
    rows = logits.shape[1]
    if column >= logits.shape[2]:
        return
    top, bottom = rows, -1
    for row in range(rows):
        if logits[mask, row, column] > low:
            top, bottom = min(top, row), row
    found[mask, column, 0], found[mask, column, 1] = top, bottom


@cuda.jit(device=True)
def _across(
    logits: Any, mask: int, row: int, column: int, weights: Any, tile: int, x: int
) -> np.float32:
    """A row of logits between columns. ``fma`` with zero is a product that is rounded: nothing is
    left to be joined with the sum.
    """
    last, zero = logits.shape[2] - 1, np.float32(0)
    value = cuda.fma(weights[tile, 1, x, 0], logits[mask, row, column], zero) + cuda.fma(
        weights[tile, 1, x, 1], logits[mask, row, min(column + 1, last)], zero
    )
    third = weights[tile, 1, x, 2]
    if third != 0:
        value += cuda.fma(third, logits[mask, row, min(column + 2, last)], zero)
    return value


@cuda.jit(device=True)
def _state(value: np.float32, low: np.float32, cut: np.float32, high: np.float32) -> int:
    """How many of the cuts a value is above."""
    return int(value > low) + int(value > cut) + int(value > high)


@cuda.jit(device=True)
def _word(
    logits: Any,
    reach: Any,
    mask: int,
    tile: int,
    word: int,
    x: int,
    sizes: Any,
    first: Any,
    weights: Any,
    low: np.float32,
    cut: np.float32,
    high: np.float32,
) -> tuple[np.int64, int, int]:
    """Bits of a word of pixels above the cut, and how many are above the high and the low one."""
    packed, above_high, above_low = np.int64(0), 0, 0
    base, rows = first[tile, 1, x], logits.shape[1]
    top, bottom = rows, -1
    for tap in range(sizes[tile, COLUMN_TAPS]):
        if base + tap < logits.shape[2]:
            top = min(top, reach[mask, base + tap, 0])
            bottom = max(bottom, reach[mask, base + tap, 1])
    if bottom < 0:
        return packed, above_high, above_low
    # Further away all logits are below all cuts, and so is what is made of them.
    margin = sizes[tile, ROW_TAPS]
    top, bottom = max(top - margin, 0), min(bottom + margin, rows - 1)
    zero = np.float32(0)
    value0, value1, value2 = zero, zero, zero
    state0, state1, state2 = 0, 0, 0
    before = -2
    for bit in range(min(WORD, sizes[tile, HEIGHT] - word * WORD)):
        y = word * WORD + bit
        row = first[tile, 0, y]
        if row != before:
            # What the row before looked at is there already.
            for tap in range(TAPS - 1 if row == before + 1 else 0, TAPS):
                at = min(max(row + tap, top), bottom)
                value0, value1, state0, state1 = value1, value2, state1, state2
                value2 = _across(logits, mask, at, base, weights, tile, x)
                state2 = _state(value2, low, cut, high)
            before = row
        weight0, weight1, weight2 = (
            weights[tile, 0, y, 0],
            weights[tile, 0, y, 1],
            weights[tile, 0, y, 2],
        )
        state = state0 if weight0 != 0 else (state1 if weight1 != 0 else state2)
        if (weight1 != 0 and state1 != state) or (weight2 != 0 and state2 != state):
            value = cuda.fma(weight0, value0, zero) + cuda.fma(weight1, value1, zero)
            if weight2 != 0:
                value += cuda.fma(weight2, value2, zero)
            state = _state(value, low, cut, high)
        above_high += state == 3
        above_low += state >= 1
        packed |= np.int64(state >= 2) << bit
    return packed, above_high, above_low


@cuda.jit
def _measure(
    logits: Any,
    reach: Any,
    place: Any,
    sizes: Any,
    first: Any,
    weights: Any,
    valid: Any,
    low: np.float32,
    cut: np.float32,
    high: np.float32,
    found: Any,
) -> None:
    """A thread a word of a mask."""
    x, word, mask = cuda.grid(1), cuda.blockIdx.y, cuda.blockIdx.z
    of_block = cuda.shared.array(MEASURES, np.int32)
    tile, slot = place[mask, 0], place[mask, 1]
    if slot < 0 or word * WORD >= sizes[tile, HEIGHT]:
        return
    thread = cuda.threadIdx.x
    if thread < MEASURES:
        of_block[thread] = (0, 0, 0, FAR, FAR, -1, -1)[thread]
    cuda.syncthreads()
    if x < sizes[tile, WIDTH]:
        packed, above_high, above_low = _word(
            logits, reach, mask, tile, word, x, sizes, first, weights, low, cut, high
        )
        if valid.shape[0]:
            packed &= np.int64(valid[tile, word, x])
        if above_low > 0:
            cuda.atomic.add(of_block, HIGH, above_high)
            cuda.atomic.add(of_block, LOW, above_low)
        if packed != 0:
            cuda.atomic.add(of_block, AREA, cuda.popc(packed))
            cuda.atomic.min(of_block, LEFT, x)
            cuda.atomic.max(of_block, RIGHT, x)
            cuda.atomic.min(of_block, TOP, word * WORD + cuda.ffs(packed) - 1)
            cuda.atomic.max(of_block, BOTTOM, word * WORD + 31 - cuda.clz(np.uint32(packed)))
    cuda.syncthreads()
    if thread < LEFT:
        if of_block[thread] > 0:
            cuda.atomic.add(found, (tile, slot, thread), of_block[thread])
    elif thread < MEASURES and of_block[AREA] > 0:
        if thread < RIGHT:
            cuda.atomic.min(found, (tile, slot, thread), of_block[thread])
        else:
            cuda.atomic.max(found, (tile, slot, thread), of_block[thread])


@cuda.jit
def _write(
    logits: Any,
    reach: Any,
    place: Any,
    sizes: Any,
    first: Any,
    weights: Any,
    valid: Any,
    low: np.float32,
    cut: np.float32,
    high: np.float32,
    seat: Any,
    bits: Any,
) -> None:
    """A thread a word of a mask."""
    x, word, mask = cuda.grid(1), cuda.blockIdx.y, cuda.blockIdx.z
    tile, slot = place[mask, 0], place[mask, 1]
    if slot < 0 or word >= bits.shape[2] or x >= bits.shape[3]:
        return
    own = seat[tile, slot]
    if own < 0:
        return
    packed = np.int64(0)
    if x < sizes[tile, WIDTH] and word * WORD < sizes[tile, HEIGHT]:
        packed, _, _ = _word(
            logits, reach, mask, tile, word, x, sizes, first, weights, low, cut, high
        )
        if valid.shape[0]:
            packed &= np.int64(valid[tile, word, x])
    bits[tile, own, word, x] = packed
