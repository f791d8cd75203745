"""Masks to run lengths and back.

Bytes moved: ``runs_of`` reads M x H x W once; ``masks_of`` writes M x H x W and reads and writes
it once more; 4 bytes a run besides.
"""

import numpy as np

from alps.kernels.base.compiled import njit
from alps.kernels.base.intrinsics import BLOCK, differing, lowest_bit
from alps.kernels.base.threads import spread
from alps.kernels.masks.algebra import room_for
from alps.kernels.masks.runs import Runs, checked_size

_GRAIN = 4  # masks of some 1 MB each
_PIECE = 4096  # pixels of a column-major mask looked at between two checks for room


def runs_of(masks: np.ndarray) -> Runs:
    """Run lengths of masks (M, H, W) bool, in any order of memory.

    Orders other than C and column-major (``masks.transpose(0, 2, 1)`` in C order) are copied, a
    few masks at a time.

    Raises:
        ValueError: not three axes, not bool, or masks of 2^31 pixels or more.
    """
    if masks.ndim != 3 or masks.dtype != np.bool_:
        raise ValueError(f"masks must be (M, H, W) bool, not {masks.dtype} {masks.shape}")
    size = checked_size(masks.shape[1:])
    pixels = masks.view(np.uint8)
    columns = pixels.transpose(0, 2, 1)

    def make(first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        if columns.flags.c_contiguous:
            return _runs_of_columns(columns[first:last].reshape(last - first, -1))
        return _runs_of_rows(np.ascontiguousarray(pixels[first:last]))

    return Runs.in_pieces(make, len(masks), size, _GRAIN)


def reference_runs_of(masks: np.ndarray) -> Runs:
    """As ``runs_of``, in NumPy."""
    return Runs.from_lengths([_reference_lengths(mask) for mask in masks], masks.shape[1:])


def _reference_lengths(mask: np.ndarray) -> np.ndarray:
    flat = mask.T.reshape(-1)
    if flat.size == 0:
        return np.zeros(1, np.int32)
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    lead = [0, 0] if flat[0] else [0]
    return np.diff(np.concatenate([lead, changes, [flat.size]])).astype(np.int32)


def masks_of(runs: Runs) -> np.ndarray:
    """The masks (M, H, W) bool, C order, of run lengths."""
    masks = np.zeros((len(runs), *runs.size), bool)
    if masks.size:
        pixels = masks.view(np.uint8)
        spread(
            lambda first, last: _fill(runs.lengths, runs.starts, pixels, first, last),
            len(runs),
            _GRAIN,
        )
    return masks


def mask_of(runs: Runs, index: int) -> np.ndarray:
    """One of the masks (H, W) bool, C order."""
    return masks_of(Runs.from_lengths([runs.of(index)], runs.size))[0]


def reference_masks_of(runs: Runs) -> np.ndarray:
    """As ``masks_of``, in NumPy."""
    masks = np.zeros((len(runs), *runs.size), bool)
    for index, mask in enumerate(masks):
        lengths = runs.of(index)
        flat = np.repeat(np.arange(lengths.size) % 2 == 1, lengths)
        mask[:] = flat.reshape(runs.size[::-1]).T
    return masks


def union(runs: Runs) -> np.ndarray:
    """Pixels (H, W) bool that at least one of the masks has, in column-major order of memory."""
    covered = np.zeros(runs.size[::-1], bool)
    _cover(runs.lengths, runs.starts, covered.view(np.uint8).reshape(-1))
    return covered.T


@njit(nogil=True, cache=True)
def find_changes(line: np.ndarray, before: np.ndarray, found: np.ndarray, used: int) -> int:
    """Append each i with line[i] != before[i], uint8 (N,), to ``found``, which has room for N."""
    at = 0
    while at + BLOCK <= line.size:
        bits = differing(line, at, before, at)
        while bits:
            found[used] = at + lowest_bit(bits)
            used += 1
            bits &= bits - np.uint64(1)
        at += BLOCK
    for i in range(at, line.size):
        if line[i] != before[i]:
            found[used] = i
            used += 1
    return used


@njit(nogil=True, cache=True)
def _runs_of_rows(masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(M, H, W) uint8 0 or 1 -> run lengths (R,) int32 and their number (M,) int64.

    Rows are compared with the rows above, 64 pixels at a time; the changes found row by row are
    then dealt out to their columns. No pixel is read twice from memory, none is moved.
    """
    count, height, width = masks.shape
    lengths, used = np.empty(1024, np.int32), 0
    counts = np.empty(count, np.int64)
    found = np.empty(1024, np.int32)
    row_ends = np.empty(height, np.int64)
    above_first = np.zeros(width, np.uint8)
    for m in range(count):
        # The pixel before the top of a column is the bottom of the column on its left.
        for c in range(1, width if height > 0 else 0):
            above_first[c] = masks[m, height - 1, c - 1]
        changes = 0
        for r in range(height):
            found = room_for(found, changes, width)
            above = above_first if r == 0 else masks[m, r - 1]
            changes = find_changes(masks[m, r], above, found, changes)
            row_ends[r] = changes
        next_place = np.zeros(width + 1, np.int64)
        for i in range(changes):
            next_place[found[i] + 1] += 1
        for c in range(width):
            next_place[c + 1] += next_place[c]
        lengths = room_for(lengths, used, changes + 1)
        mine = lengths[used : used + changes + 1]
        i = 0
        for r in range(height):
            while i < row_ends[r]:
                c = found[i]
                mine[next_place[c]] = c * height + r
                next_place[c] += 1
                i += 1
        mine[changes] = height * width
        _places_to_lengths(mine)
        used += changes + 1
        counts[m] = changes + 1
    return lengths[:used].copy(), counts


@njit(nogil=True, cache=True)
def _runs_of_columns(masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(M, W * H) uint8 0 or 1, columns end to end -> as ``_runs_of_rows``."""
    count, pixels = masks.shape
    lengths, used = np.empty(1024, np.int32), 0
    counts = np.empty(count, np.int64)
    for m in range(count):
        begin = used
        if pixels > 0 and masks[m, 0]:
            lengths = room_for(lengths, used, 1)
            lengths[used] = 0
            used += 1
        for first in range(1, pixels, _PIECE):
            last = min(pixels, first + _PIECE)
            lengths = room_for(lengths, used, _PIECE)
            found = find_changes(masks[m, first:last], masks[m, first - 1 : last], lengths, used)
            for i in range(used, found):
                lengths[i] += first
            used = found
        lengths = room_for(lengths, used, 1)
        lengths[used] = pixels
        used += 1
        _places_to_lengths(lengths[begin:used])
        counts[m] = used - begin
    return lengths[:used].copy(), counts


@njit(nogil=True, cache=True)
def _places_to_lengths(places: np.ndarray) -> None:
    """Where the pixel value changes, and the end -> run lengths, in place."""
    for i in range(places.size - 1, 0, -1):
        places[i] -= places[i - 1]


@njit(nogil=True, cache=True)
def _fill(
    lengths: np.ndarray, starts: np.ndarray, masks: np.ndarray, first: int, last: int
) -> None:
    """Set the ones of masks [first, last) in (M, H, W) uint8 zeros.

    Down a column the value changes at few pixels: those are marked, and a sweep over the rows,
    each XORed with the row above, fills what lies between.
    """
    height, width = masks.shape[1:]
    for m in range(first, last):
        mask = masks[m]
        end = 0
        for i in range(starts[m], starts[m + 1]):
            begin, end = end, end + lengths[i]
            if (i - starts[m]) % 2 == 0 or begin == end:
                continue
            column, row = begin // height, begin % height
            last_column, last_row = (end - 1) // height, (end - 1) % height
            mask[row, column] ^= 1
            for c in range(column + 1, last_column + 1):
                mask[0, c] ^= 1
            if last_row + 1 < height:
                mask[last_row + 1, last_column] ^= 1
        for r in range(1, height):
            above, row_pixels = mask[r - 1], mask[r]
            for c in range(width):
                row_pixels[c] ^= above[c]


@njit(nogil=True, cache=True)
def _cover(lengths: np.ndarray, starts: np.ndarray, pixels: np.ndarray) -> None:
    for m in range(starts.size - 1):
        at, one = 0, False
        for i in range(starts[m], starts[m + 1]):
            if one:
                pixels[at : at + lengths[i]] = 1
            at += lengths[i]
            one = not one
