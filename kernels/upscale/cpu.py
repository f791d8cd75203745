"""Cutting of logits on a CPU.

A column of the image is made from logits that are interpolated across but not yet down; the rows
between two of them that lie apart are computed one by one, all others are runs as they stand, in
COCO's order.

Bytes moved: M x a x b x 4 (logits) + R x 4 (run lengths); what a mask needs in between, a x b x 4,
stays in a core's cache.
"""

from typing import Any

import numpy as np

from alps.kernels.base.compiled import njit
from alps.kernels.base.intrinsics import BLOCK, differing, lowest_bit
from alps.kernels.masks.algebra import room_for
from alps.kernels.masks.runs import Runs
from alps.kernels.upscale.rules import Cuts, stable_of
from alps.kernels.upscale.taps import Taps

_GRAIN = 8  # masks handed to a thread at a time


def cut_masks(
    logits: np.ndarray, rows: Taps, columns: Taps, cuts: Cuts, min_stability: float
) -> tuple[np.ndarray, np.ndarray, Runs]:
    """Which masks are kept (m,), their stability (m,) and runs."""
    high, low = np.zeros((2, len(logits)), np.int64)

    def make(first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        return _cut_some(
            np.ascontiguousarray(logits[first:last]),
            (rows.first, rows.weights, rows.enter, rows.leave),
            (columns.first, columns.weights),
            (cuts.low, cuts.mask, cuts.high),
            np.float32(min_stability),
            high[first:last],
            low[first:last],
        )

    size = len(rows.first), len(columns.first)
    runs = Runs.in_pieces(make, len(logits), size, _GRAIN)
    kept, stability = stable_of(high, low, min_stability)
    # A mask that was dropped has no run at all.
    return kept, stability, Runs(size, runs.lengths, runs.starts[np.append(kept, len(logits))])


@njit(nogil=True, cache=True)
def _cut_some(
    logits: np.ndarray,
    rows: tuple[np.ndarray, ...],
    columns: tuple[np.ndarray, ...],
    cuts: tuple[np.float32, ...],
    min_stability: np.float32,
    high: np.ndarray,
    low: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Run lengths (R,) int32 of masks (m, a, b), end to end, and how many each has (m,) int64.

    None for a mask that is not stable. ``high`` and ``low`` (m,) receive the counts.
    """
    row_first, row_weights, enter, leave = rows
    column_first, column_weights = columns
    count, a, b = logits.shape
    height, width = row_first.size, column_first.size
    row_taps, column_taps = row_weights.shape[1], column_weights.shape[1]
    lengths, used = np.empty(4096, np.int32), 0
    counts = np.zeros(count, np.int64)
    # Logits, columns end to end. Where there is one only, the weight 0 of a second is looked up.
    turned = np.zeros((b + 1, a), np.float32)
    tops, bottoms = np.full(b + 1, a, np.int32), np.full(b + 1, -1, np.int32)
    column = np.zeros(a + 1, np.float32)  # of logits, interpolated across
    states = np.empty(a + 2 * BLOCK, np.uint8)  # how many of the three cuts each is above
    for m in range(count):
        _turn(logits[m], cuts[0], row_taps, turned, tops, bottoms)
        begin, end = used, 0  # where the mask's runs begin, and the last of them ends
        inside = False
        above_high = above_low = 0
        for j in range(width):
            lengths = room_for(lengths, used, height + 2)
            base = column_first[j]
            top, bottom = tops[base], bottoms[base]
            for t in range(1, column_taps):
                top, bottom = min(top, tops[base + t]), max(bottom, bottoms[base + t])
            if bottom < 0:  # none of the column is above any cut
                if inside:
                    lengths[used] = j * height - end
                    end, used, inside = j * height, used + 1, False
                continue
            # Pixels that look at these rows may look at others, which are below all cuts.
            top, bottom = max(top - row_taps, 0), min(bottom + row_taps, a - 1)
            _across(turned, base, column_weights[j], top, bottom, cuts, column, states)
            row = 0
            block, bits = top - BLOCK, np.uint64(0)
            done = False
            while not done:
                while not bits and block + BLOCK < bottom:
                    block += BLOCK
                    bits = differing(states, block, states, block + 1)
                done = not bits
                # Pixels up to the next change of state are as k is; those across it are computed.
                k = bottom if done else block + lowest_bit(bits)
                bits &= bits - np.uint64(1)
                state = states[k]
                stop = height if done else max(row, enter[k])
                if stop > row:
                    above_high += (stop - row) * (state == 3)
                    above_low += (stop - row) * (state >= 1)
                    if (state >= 2) != inside:
                        lengths[used] = j * height + row - end
                        end, used, inside = j * height + row, used + 1, not inside
                if done:
                    break
                for r in range(stop, leave[k]):
                    first = row_first[r]
                    value = (
                        row_weights[r, 0] * column[first] + row_weights[r, 1] * column[first + 1]
                    )
                    if row_taps > 2:
                        value += row_weights[r, 2] * column[first + 2]
                        for t in range(3, row_taps):
                            value += row_weights[r, t] * column[first + t]
                    above_high += value > cuts[2]
                    above_low += value > cuts[0]
                    # Written each time, kept where the value crosses: no branch to mispredict.
                    crosses = (value > cuts[1]) != inside
                    lengths[used] = j * height + r - end
                    end = j * height + r if crosses else end
                    used += crosses
                    inside ^= crosses
                row = max(row, leave[k])
        high[m], low[m] = above_high, above_low
        stability = np.float32(above_high) / np.float32(above_low) if above_low else np.float32(0)
        if min_stability > 0 and (above_low == 0 or stability < min_stability):
            used = begin
            continue
        if end < height * width or used == begin:
            lengths = room_for(lengths, used, 1)
            lengths[used] = height * width - end
            used += 1
        counts[m] = used - begin
    return lengths[:used].copy(), counts


@njit(nogil=True, cache=True)
def _turn(
    logits: np.ndarray,
    cut: np.float32,
    margin: int,
    turned: np.ndarray,
    tops: np.ndarray,
    bottoms: np.ndarray,
) -> None:
    """Transpose (a, b), and find the first and last row above the cut of each column.

    Rows further than ``margin`` from any above the cut stay what they were: nobody looks at them.
    """
    a, b = logits.shape
    for c in range(b):
        tops[c], bottoms[c] = a, -1
    for r in range(a):
        line = logits[r]
        for c in range(b):
            above = line[c] > cut
            tops[c] = min(tops[c], np.int32(r) if above else np.int32(a))
            bottoms[c] = np.int32(r) if above else bottoms[c]
    top: Any = np.int32(a)
    bottom: Any = np.int32(-1)
    for c in range(b):
        top, bottom = min(top, tops[c]), max(bottom, bottoms[c])
    for begin in range(max(top - margin, 0), min(bottom + margin + 1, a), 16):
        some = logits[begin : begin + 16]
        for c in range(b):
            column = turned[c][begin : begin + 16]
            for r in range(column.size):
                column[r] = some[r, c]


@njit(nogil=True, cache=True)
def _across(
    turned: np.ndarray,
    base: int,
    weights: np.ndarray,
    top: int,
    bottom: int,
    cuts: tuple[np.float32, ...],
    column: np.ndarray,
    states: np.ndarray,
) -> None:
    """Rows top ... bottom of a column between columns, and how many cuts each is above."""
    low_cut, cut, high_cut = cuts
    values, above = column[top : bottom + 1], states[top : bottom + 1]
    near, weight = turned[base][top : bottom + 1], weights[0]
    far, other = turned[base + 1][top : bottom + 1], weights[1]
    for i in range(values.size):
        values[i] = weight * near[i] + other * far[i]
    for t in range(2, weights.size):
        far, other = turned[base + t][top : bottom + 1], weights[t]
        for i in range(values.size):
            values[i] += other * far[i]
    for i in range(values.size):
        value = values[i]
        above[i] = np.uint8(value > low_cut) + np.uint8(value > cut) + np.uint8(value > high_cut)
    # So that comparing 64 at a time finds no change past the end.
    padding = states[bottom + 1 : bottom + 1 + BLOCK]
    for i in range(BLOCK):
        padding[i] = states[bottom]
