"""Low-resolution logits to run lengths of full-size masks, without full-size logits in memory.

SAM brings a mask of 256 x 256 logits to the image's size in two bilinear steps and cuts it at three
thresholds. Both steps together are linear: a pixel is a weighted mean of a few neighbouring logits
along each axis. So where neighbouring logits lie on the same side of a threshold the pixels between
them do, and only where a threshold is crossed must pixels be computed: on some thousand of a
million. A column of the image is made from logits that are interpolated across but not yet down;
the rows between two of them that lie apart are computed one by one, all others are runs as they
stand, in COCO's order.

Bytes moved: M x a x b x 4 (logits) + R x 4 (run lengths); what a mask needs in between, a x b x 4,
stays in a core's cache.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit

from alps.kernels import rle
from alps.kernels.bits import BLOCK, differing, lowest_bit
from alps.kernels.cuda import is_on_gpu
from alps.kernels.run_algebra import room_for
from alps.kernels.runs import Runs, checked_size

_GRAIN = 8  # masks handed to a thread at a time


@dataclass(frozen=True)
class UpscaledMasks:
    """Masks that passed, m of the M that were given."""

    kept: np.ndarray  # (m,) int64, which they are of the M, ascending
    stability: np.ndarray  # (m,) float32, NaN where no pixel is above the low threshold
    runs: Runs
    area: np.ndarray  # (m,) int64 pixels
    boxes: np.ndarray  # (m, 4) int64 first column, first row, last column, last row; zeros if empty


@dataclass(frozen=True)
class Cuts:
    """Thresholds of logits, as float32: a pixel is above one where its logit is greater."""

    low: np.float32
    mask: np.float32
    high: np.float32


@dataclass(frozen=True)
class Taps:
    """An axis of N places, each a weighted mean of T neighbouring ones of n."""

    first: np.ndarray  # (N,) int32, place i is made of first[i] ... first[i] + T - 1
    weights: np.ndarray  # (N, T) float32
    # Where k and k + 1 of the n lie apart, places enter[k] ... leave[k] - 1 look at both.
    enter: np.ndarray  # (n - 1,) int32
    leave: np.ndarray  # (n - 1,) int32


def upscale_masks(
    logits: Any,
    square: int,
    inner: tuple[int, int],
    size: tuple[int, int],
    *,
    threshold: float = 0.0,
    offset: float = 1.0,
    min_stability: float = 0.0,
    valid: np.ndarray | None = None,
) -> UpscaledMasks:
    """Cut logits, brought to full size in SAM's two bilinear steps, into masks.

    (a, b) -> (square, square), of that the upper left ``inner`` -> ``size``, both as
    ``F.interpolate(mode="bilinear", align_corners=False)`` has it.

    Args:
        logits: (M, a, b) float32, finite; NumPy, or on a GPU, where the work is then done.
        square: side of the network's input, in pixels.
        inner: rows and columns of it that the image fills.
        size: H, W of the image.
        threshold: a pixel belongs to a mask where its logit is greater.
        offset: not negative; the stability of a mask is the number of its pixels above
            threshold + offset over that above threshold - offset.
        min_stability: masks of less, or without (NaN), are dropped; 0 or less keeps all.
        valid: (H, W) bool, the pixels that masks keep; no part in the stability. None: all.

    Raises:
        ValueError: shapes, dtypes or numbers that are none of the above; or images of 2^31
            pixels or more.
    """
    _check(logits, square, inner, size, offset)
    size = checked_size(size)
    if valid is not None:
        if valid.shape != size or valid.dtype != bool:
            raise ValueError(f"valid must be bool of {size}, not {valid.dtype} of {valid.shape}")
        valid = None if valid.all() else valid
    cuts = Cuts(*(np.float32(cut) for cut in (threshold - offset, threshold, threshold + offset)))
    rows = taps_of(logits.shape[1], square, inner[0], size[0])
    columns = taps_of(logits.shape[2], square, inner[1], size[1])
    if is_on_gpu(logits):
        from alps.kernels.cuda.upscale import cut_masks as cut_on_gpu

        kept, stability, runs = cut_on_gpu(logits, rows, columns, cuts, min_stability)
    else:
        kept, stability, runs = _cut_masks(logits, rows, columns, cuts, min_stability)
    if valid is not None:
        runs = rle.intersect(runs, rle.runs_of(valid[None]))
    return UpscaledMasks(kept, stability, runs, rle.areas(runs), rle.boxes(runs))


def _check(
    logits: Any, square: int, inner: tuple[int, int], size: tuple[int, int], offset: float
) -> None:
    if logits.ndim != 3 or logits.dtype != np.float32 or 0 in logits.shape[1:]:
        raise ValueError(f"logits must be (M, a, b) float32, not {logits.dtype} {logits.shape}")
    if not (0 < inner[0] <= square and 0 < inner[1] <= square):
        raise ValueError(f"the image cannot fill {inner} of a square of {square}")
    if min(size) < 1:
        raise ValueError(f"an image of {size[0]} x {size[1]} has no pixels")
    if not offset >= 0:
        raise ValueError(f"the stability offset is {offset}; it cannot be negative")


def stability_of(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    """Pixels above the high over pixels above the low threshold, (M,) float32; NaN for 0 / 0."""
    with np.errstate(invalid="ignore"):
        return high.astype(np.float32) / low.astype(np.float32)


def taps_of(low: int, square: int, inner: int, full: int) -> Taps:
    """The two steps along one axis: ``low`` places -> ``square``, the first ``inner`` -> ``full``.

    A step that changes nothing costs nothing: its weights are ones.
    """
    near, far, part = _step(low, square)
    near2, far2, part2 = _step(inner, full)
    # A place is made of two of the middle, each of which is made of two of the first.
    places = np.stack([near[near2], far[near2], near[far2], far[far2]])  # (4, N)
    shares = np.stack(
        [
            (1 - part2) * (1 - part[near2]),
            (1 - part2) * part[near2],
            part2 * (1 - part[far2]),
            part2 * part[far2],
        ]
    )
    used = shares > 0
    begin = np.where(used, places, low).min(0)
    end = np.where(used, places, -1).max(0) + 1
    count = int((end - begin).max())
    first = np.minimum(begin, low - count)
    weights = np.zeros((full, count))
    for place, share in zip(places, shares, strict=True):
        at = np.clip(place - first, 0, count - 1)  # out of reach only where the share is 0
        np.add.at(weights, (np.arange(full), at), share)
    between = np.arange(low - 1)
    return Taps(
        first.astype(np.int32),
        weights.astype(np.float32),
        np.searchsorted(end, between + 2).astype(np.int32),
        np.searchsorted(begin, between + 1).astype(np.int32),
    )


def _step(old: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each of ``new`` places: the two of ``old`` it lies between, and how near the second is.

    In float32 as PyTorch computes them (aten/src/ATen/native/UpSample.h), returned as float64.
    """
    scale = np.float32(old) / np.float32(new)
    half = np.float32(0.5)
    source = np.maximum(scale * (np.arange(new, dtype=np.float32) + half) - half, np.float32(0))
    near = np.minimum(source.astype(np.int64), old - 1)
    part = np.clip(source - near.astype(np.float32), 0, 1)
    return near, np.minimum(near + 1, old - 1), part.astype(np.float64)


def reference_upscale(
    logits: np.ndarray, square: int, inner: tuple[int, int], size: tuple[int, int]
) -> np.ndarray:
    """Full-size logits (M, H, W) float32, both steps one after the other, in NumPy."""
    full = _reference_step(logits, (square, square))
    return _reference_step(full[:, : inner[0], : inner[1]], size)


def _reference_step(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    for axis in (2, 1):
        near, far, part = _step(logits.shape[axis], size[axis - 1])
        part = part.astype(np.float32).reshape((-1, 1) if axis == 1 else (-1,))
        near, far = logits.take(near, axis), logits.take(far, axis)
        logits = near * (1 - part) + far * part
    return logits


def _cut_masks(
    logits: np.ndarray, rows: Taps, columns: Taps, cuts: Cuts, min_stability: float
) -> tuple[np.ndarray, np.ndarray, Runs]:
    """Which masks are kept (m,), their stability (m,) and runs."""
    high, low = np.zeros((2, len(logits)), np.int64)
    rule = np.float32(min_stability)

    def make(first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        return _cut_some(
            np.ascontiguousarray(logits[first:last]),
            (rows.first, rows.weights, rows.enter, rows.leave),
            (columns.first, columns.weights),
            (cuts.low, cuts.mask, cuts.high),
            rule,
            high[first:last],
            low[first:last],
        )

    size = len(rows.first), len(columns.first)
    runs = Runs.in_pieces(make, len(logits), size, _GRAIN)
    stability = stability_of(high, low)
    kept = np.flatnonzero(stability >= rule) if rule > 0 else np.arange(len(logits))
    # A dropped mask has no run at all.
    some = np.append(kept, len(logits))
    return kept, stability[kept], Runs(size, runs.lengths, runs.starts[some])


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
    low_cut, cut, high_cut = cuts
    count, a, b = logits.shape
    height, width = row_first.size, column_first.size
    row_taps, column_taps = row_weights.shape[1], column_weights.shape[1]
    lengths, used = np.empty(4096, np.int32), 0
    counts = np.zeros(count, np.int64)
    turned = np.empty((b, a), np.float32)  # columns of logits end to end
    tops, bottoms = np.empty(b, np.int64), np.empty(b, np.int64)
    column = np.empty(a, np.float32)  # of logits, interpolated across
    states = np.empty(a + 2 * BLOCK, np.uint8)  # how many of the three cuts each is above
    for m in range(count):
        _turn(logits[m], low_cut, turned, tops, bottoms)
        begin, end = used, 0  # where the mask's runs begin, and the last of them ends
        inside = False
        above_high = above_low = 0
        for j in range(width):
            lengths = room_for(lengths, used, height + 2)
            base = column_first[j]
            top, bottom = a, -1
            for c in range(base, base + column_taps):
                top, bottom = min(top, tops[c]), max(bottom, bottoms[c])
            if bottom < 0:  # none of the column is above any cut
                if inside:
                    lengths[used] = j * height - end
                    end, used, inside = j * height, used + 1, False
                continue
            # Pixels that look at these rows may look at others, which are below all cuts.
            top, bottom = max(top - row_taps, 0), min(bottom + row_taps, a - 1)
            _across(turned, base, column_weights[j], top, bottom, cuts, column, states)
            row = 0
            k = top
            while True:
                # Rows up to the next change of state are as k is; those across it are computed.
                block = k
                bits = np.uint64(0)
                while block < bottom:
                    bits = differing(states, block, states, block + 1)
                    if bits:
                        break
                    block += BLOCK
                last = block + lowest_bit(bits) if bits else bottom
                state = states[k]
                stop = max(row, enter[last]) if bits else height
                if stop > row:
                    above_high += (stop - row) if state == 3 else 0
                    above_low += (stop - row) if state >= 1 else 0
                    if (state >= 2) != inside:
                        lengths[used] = j * height + row - end
                        end, used, inside = j * height + row, used + 1, not inside
                if not bits:
                    break
                for r in range(stop, leave[last]):
                    value = np.float32(0)
                    for t in range(row_taps):
                        value += row_weights[r, t] * column[row_first[r] + t]
                    above_high += value > high_cut
                    above_low += value > low_cut
                    if (value > cut) != inside:
                        lengths[used] = j * height + r - end
                        end, used, inside = j * height + r, used + 1, not inside
                row = max(row, leave[last])
                k = last + 1
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
    turned: np.ndarray,
    tops: np.ndarray,
    bottoms: np.ndarray,
) -> None:
    """Transpose (a, b), and find the first and last row above the cut of each column."""
    a, b = logits.shape
    for i in range(0, a, 16):
        for c in range(b):
            for r in range(i, min(a, i + 16)):
                turned[c, r] = logits[r, c]
    for c in range(b):
        column = turned[c]
        top, bottom = 0, a - 1
        while top < a and not column[top] > cut:
            top += 1
        while bottom > top and not column[bottom] > cut:
            bottom -= 1
        tops[c], bottoms[c] = top, bottom if top < a else -1


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
    if weights.size == 2:
        far, other = turned[base + 1][top : bottom + 1], weights[1]
        for i in range(values.size):
            values[i] = weight * near[i] + other * far[i]
    else:
        for i in range(values.size):
            values[i] = weight * near[i]
        for t in range(1, weights.size):
            near, weight = turned[base + t][top : bottom + 1], weights[t]
            for i in range(values.size):
                values[i] += weight * near[i]
    for i in range(values.size):
        value = values[i]
        above[i] = np.uint8(value > low_cut) + np.uint8(value > cut) + np.uint8(value > high_cut)
    # So that comparing 64 at a time finds no change past the end.
    padding = states[bottom + 1 : bottom + 1 + BLOCK]
    for i in range(BLOCK):
        padding[i] = states[bottom]
