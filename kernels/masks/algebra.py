"""What run lengths say of masks, and what can be done with them, without unpacking any.

Bytes moved: 4 a run read, and 4 a run written where masks come out.
"""

import numpy as np

from alps.kernels.base.compiled import njit
from alps.kernels.masks.runs import Runs, checked_size, starts_of

_GRAIN = 64  # masks of some KB of runs each


def areas(runs: Runs) -> np.ndarray:
    """Pixels in each mask: (M,) int64."""
    found = np.zeros(len(runs), np.int64)
    _areas(runs.lengths, runs.starts, found)
    return found


def boxes(runs: Runs) -> np.ndarray:
    """First column, first row, last column, last row of each mask: (M, 4) int64.

    Zeros for a mask without pixels.
    """
    found = np.zeros((len(runs), 4), np.int64)
    _boxes(runs.lengths, runs.starts, runs.size[0], found)
    return found


def place(runs: Runs, size: tuple[int, int], x0: int, y0: int) -> Runs:
    """The masks put into larger ones of ``size`` (H, W), their first pixel at column x0, row y0.

    Raises:
        ValueError: they do not fit in, or ``size`` has 2^31 pixels or more.
    """
    height, width = checked_size(size)
    bottom, right = y0 + runs.size[0], x0 + runs.size[1]
    if x0 < 0 or y0 < 0 or bottom > height or right > width:
        raise ValueError(
            f"masks of {runs.size[0]} x {runs.size[1]} at column {x0}, row {y0} do not fit into "
            f"{height} x {width}"
        )

    def make(first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        starts = runs.starts[first : last + 1]
        return _place(runs.lengths, starts, runs.size[0], height, width, x0, y0)

    return Runs.in_pieces(make, len(runs), (height, width), _GRAIN)


def intersect(runs: Runs, one: Runs) -> Runs:
    """What of each mask lies within the one mask of ``one``.

    Raises:
        ValueError: ``one`` is not one mask of the same size.
    """
    if len(one) != 1 or one.size != runs.size:
        raise ValueError(f"needs one mask of {runs.size}, not {len(one)} of {one.size}")

    def make(first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        return _intersect(runs.lengths, runs.starts[first : last + 1], one.lengths)

    return Runs.in_pieces(make, len(runs), runs.size, _GRAIN)


def runs_of_labels(labels: np.ndarray, count: int) -> Runs:
    """Masks of labels == 0, == 1, … below ``count`` in one go: labels (H, W) integer, -1 is none.

    Bytes moved: H x W of the labels' bytes, turned; some 50 for each run of equal labels, sorted.
    """
    size = checked_size(labels.shape)
    flat = np.ascontiguousarray(labels.T).reshape(-1)
    first = np.flatnonzero(np.diff(flat, prepend=-2))
    end = np.append(first[1:], flat.size)
    label = flat[first]
    order = np.argsort(label, kind="stable")
    order = order[label[order] >= 0]
    first, end, label = first[order], end[order], label[order]

    pieces = np.bincount(label, minlength=count)  # runs of ones of each mask
    last = np.cumsum(pieces) - 1  # where each mask's last one is
    reach = np.where(pieces > 0, end[np.maximum(last, 0)] if len(end) else 0, 0)
    tail = (reach < flat.size) | (pieces == 0)  # zeros follow, or there is nothing else
    starts = starts_of(2 * pieces + tail)
    lengths = np.empty(starts[-1], np.int32)
    at = starts[label] + 2 * (np.arange(len(label)) - (last - pieces + 1)[label])
    before = np.where(at == starts[label], 0, np.roll(end, 1))
    lengths[at], lengths[at + 1] = first - before, end - first
    lengths[starts[1:][tail] - 1] = flat.size - reach[tail]
    return Runs(size, lengths, starts)


@njit(nogil=True, cache=True)
def room_for(buffer: np.ndarray, used: int, more: int) -> np.ndarray:
    """The buffer, or a larger one that begins with what is used of it."""
    if used + more <= buffer.size:
        return buffer
    larger = np.empty(max(2 * buffer.size, used + more), buffer.dtype)
    for i in range(used):  # assigning a slice would compile for two seconds, for its error message
        larger[i] = buffer[i]
    return larger


@njit(nogil=True, cache=True)
def _areas(lengths: np.ndarray, starts: np.ndarray, found: np.ndarray) -> None:
    for m in range(found.size):
        area = 0
        for i in range(starts[m] + 1, starts[m + 1], 2):
            area += lengths[i]
        found[m] = area


@njit(nogil=True, cache=True)
def _boxes(lengths: np.ndarray, starts: np.ndarray, height: int, found: np.ndarray) -> None:
    for m in range(len(found)):
        first_column, first_row, last_column, last_row = -1, height, -1, -1
        end = 0
        for i in range(starts[m], starts[m + 1]):
            begin, end = end, end + lengths[i]
            if (i - starts[m]) % 2 == 0 or begin == end:
                continue
            column = begin // height
            if first_column < 0:
                first_column = column
            last_column = (end - 1) // height
            if column == last_column:
                first_row = min(first_row, begin - column * height)
                last_row = max(last_row, end - 1 - column * height)
            else:  # from one column into the next: by way of the bottom and the top
                first_row, last_row = 0, height - 1
        if first_column >= 0:
            found[m, 0], found[m, 1] = first_column, first_row
            found[m, 2], found[m, 3] = last_column, last_row


@njit(nogil=True, cache=True)
def add_ones(lengths: np.ndarray, begin: int, used: int, end: int, start: int, stop: int) -> int:
    """Append pixels [start, stop) to the mask whose runs are lengths[begin:used] and end at
    ``end``; return the new ``used``. Needs room for 2 more.
    """
    if start == end and used > begin:
        lengths[used - 1] += stop - start
        return used
    lengths[used] = start - end
    lengths[used + 1] = stop - start
    return used + 2


@njit(nogil=True, cache=True)
def _place(
    lengths: np.ndarray,
    starts: np.ndarray,
    old_height: int,
    height: int,
    width: int,
    x0: int,
    y0: int,
) -> tuple[np.ndarray, np.ndarray]:
    placed, used = np.empty(1024, np.int32), 0
    counts = np.empty(starts.size - 1, np.int64)
    for m in range(starts.size - 1):
        first_run = used
        old_end = end = 0
        for i in range(starts[m], starts[m + 1]):
            at, old_end = old_end, old_end + lengths[i]
            if (i - starts[m]) % 2 == 0:
                continue
            while at < old_end:  # column by column
                column = at // old_height
                stop = min(old_end, (column + 1) * old_height)
                to = (column + x0) * height + y0 + at - column * old_height
                placed = room_for(placed, used, 3)
                used = add_ones(placed, first_run, used, end, to, to + stop - at)
                end = to + stop - at
                at = stop
        if end < height * width or used == first_run:
            placed = room_for(placed, used, 1)
            placed[used] = height * width - end
            used += 1
        counts[m] = used - first_run
    return placed[:used].copy(), counts


@njit(nogil=True, cache=True)
def _intersect(
    lengths: np.ndarray, starts: np.ndarray, other: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    shared, used = np.empty(1024, np.int32), 0
    counts = np.empty(starts.size - 1, np.int64)
    for m in range(starts.size - 1):
        first_run, last_run = used, starts[m + 1]
        i, j = starts[m], 0  # the runs we are in, of the mask and the other
        mine_at = other_at = 0  # where they begin
        at = end = 0
        # From each change of either to the next, both are constant.
        while i < last_run and j < other.size:
            if at == mine_at + lengths[i]:
                mine_at += lengths[i]
                i += 1
            elif at == other_at + other[j]:
                other_at += other[j]
                j += 1
            else:
                stop = min(mine_at + lengths[i], other_at + other[j])
                if (i - starts[m]) % 2 == 1 and j % 2 == 1:
                    shared = room_for(shared, used, 3)
                    used = add_ones(shared, first_run, used, end, at, stop)
                    end = stop
                at = stop
        if end < at or used == first_run:
            shared = room_for(shared, used, 1)
            shared[used] = at - end
            used += 1
        counts[m] = used - first_run
    return shared[:used].copy(), counts
