"""Pieces, borders, moments and boxes on a CPU."""

import numpy as np

from alps.kernels.base.compiled import njit
from alps.kernels.base.union_find import root_of
from alps.kernels.regions.rules import CONTRAST_UNITS, LAB_UNITS, NOWHERE, Borders, Moments


def pieces(values: np.ndarray, nothing: int = NOWHERE) -> tuple[np.ndarray, np.ndarray]:
    """4-connected pieces of equal values.

    values: (H, W) integers; pixels that are ``nothing`` lie in no piece.

    Returns (H, W) int32, pieces numbered in the order of their first pixels, row by row, -1 where
    there is none; and those pixels' places in the flattened image, (N,) int64, ascending.
    """
    return _pieces(np.ascontiguousarray(values, np.int64), nothing)


def borders(regions: np.ndarray, lab: np.ndarray) -> Borders:
    """Which regions touch, along how many pixels, and how colour differs across.

    regions: (H, W) int32, -1 in none. lab: (H, W, 3) int16 in 128ths.
    """
    number = int(regions.max(initial=NOWHERE)) + 1
    room = 4 * number + 16  # a planar map has fewer than 3 borders a region
    table = np.empty((room, 4), np.int64)
    found = _borders(regions, lab, np.full(number, NOWHERE, np.int64), table)
    if found < 0:  # pieces that do not hang together may touch more
        table = np.empty((2 * regions.size, 4), np.int64)
        found = _borders(regions, lab, np.full(number, NOWHERE, np.int64), table)
    keys, length, contrast = table[:found, :3].T
    order = np.argsort(keys)
    pairs = np.stack(np.divmod(keys[order], max(number, 1)), axis=1)
    return Borders(pairs, length[order], contrast[order])


def moments(regions: np.ndarray, lab: np.ndarray, count: int) -> Moments:
    """Area and sums of colour of ``count`` regions; arrays as ``borders``' are."""
    sums = np.zeros((count, 7), np.int64)
    _moments(regions, lab, sums)
    return Moments(sums[:, 0].copy(), sums[:, 1:4].copy(), sums[:, 4:].copy())


def boxes(regions: np.ndarray, count: int) -> np.ndarray:
    """First column, first row, last column, last row of each region, (N, 4) int64; of one without
    a pixel the first lie behind the last.
    """
    found = np.empty((count, 4), np.int64)
    found[:, :2], found[:, 2:] = max(regions.shape), -1
    _boxes(regions, found)
    return found


@njit(nogil=True, cache=True)
def _pieces(values: np.ndarray, nothing: int) -> tuple[np.ndarray, np.ndarray]:
    height, width = values.shape
    found = np.full((height, width), np.int32(NOWHERE), np.int32)
    parent = np.empty(height * width + 1, np.int32)
    count = 0
    for y in range(height):
        for x in range(width):
            value = values[y, x]
            if value == nothing:
                continue
            label = np.int32(-1)
            if x > 0 and values[y, x - 1] == value:
                label = found[y, x - 1]
            if y > 0 and values[y - 1, x] == value:
                above = found[y - 1, x]
                if label < 0:
                    label = above
                elif label != above:
                    low, high = root_of(parent, label), root_of(parent, above)
                    if low > high:
                        low, high = high, low
                    parent[high] = low
            if label < 0:
                label = np.int32(count)
                parent[count] = count
                count += 1
            found[y, x] = label
    # A root is the lowest label of its piece, so its first pixel's.
    number = np.empty(count, np.int32)
    total = 0
    for old in range(count):
        root = root_of(parent, old)
        if root == old:
            number[old] = total
            total += 1
        else:
            number[old] = number[root]
    first = np.full(total, -1, np.int64)
    for y in range(height):
        for x in range(width):
            if found[y, x] >= 0:
                piece = number[found[y, x]]
                found[y, x] = piece
                if first[piece] < 0:
                    first[piece] = y * width + x
    return found, first


@njit(nogil=True, cache=True)
def _borders(regions: np.ndarray, lab: np.ndarray, newest: np.ndarray, table: np.ndarray) -> int:
    """Fill a table (room, 4) with a row a border: key low x number + high, length, contrast, and
    the row before it of the same lower region, -1 none; how many, or -1 where they find no room.

    newest: (number,) of -1, overwritten with the last row of each lower region. A region has few
    neighbours, so its rows are looked through one by one.
    """
    height, width = regions.shape
    number = np.int64(newest.size)
    found = 0
    for y in range(height):
        row, below = regions[y], regions[min(y + 1, height - 1)]  # below the last is the last
        for x in range(width):
            right = min(x + 1, width - 1)
            here = np.int64(row[x])
            if here < 0 or (here == row[right] and here == below[x]):
                continue
            for step in range(2):
                v, u = (y + 1, x) if step else (y, right)
                there = np.int64(below[x] if step else row[right])
                if there < 0 or there == here:
                    continue
                low = min(here, there)
                key = low * number + max(here, there)
                at = newest[low]
                while at >= 0 and table[at, 0] != key:
                    at = table[at, 3]
                if at < 0:
                    if found == table.shape[0]:
                        return -1
                    at = found
                    found += 1
                    table[at, 0], table[at, 1], table[at, 2] = key, 0, 0
                    table[at, 3] = newest[low]
                    newest[low] = at
                squared = np.int64(0)
                for k in range(3):
                    difference = np.int64(lab[y, x, k]) - np.int64(lab[v, u, k])
                    squared += difference * difference
                table[at, 1] += 1
                table[at, 2] += np.int64(np.sqrt(np.float64(squared)) * CONTRAST_UNITS / LAB_UNITS)
    return found


@njit(nogil=True, cache=True)
def _moments(regions: np.ndarray, lab: np.ndarray, sums: np.ndarray) -> None:
    """A stretch of a row that lies in one region is added up before its region's sums are."""
    height, width = regions.shape
    for y in range(height):
        row, colours = regions[y], lab[y]
        begin = 0
        while begin < width:
            region = row[begin]
            end = begin + 1
            while end < width and row[end] == region:
                end += 1
            if region >= 0:
                for k in range(3):
                    total, squares = np.int64(0), np.int64(0)
                    for x in range(begin, end):
                        value = np.int64(colours[x, k])
                        total += value
                        squares += value * value
                    sums[region, 1 + k] += total
                    sums[region, 4 + k] += squares
                sums[region, 0] += end - begin
            begin = end


@njit(nogil=True, cache=True)
def _boxes(regions: np.ndarray, found: np.ndarray) -> None:
    for y in range(regions.shape[0]):
        for x in range(regions.shape[1]):
            region = regions[y, x]
            if region >= 0:
                mine = found[region]
                mine[0] = min(mine[0], x)
                mine[1] = min(mine[1], y)
                mine[2] = max(mine[2], x)
                mine[3] = max(mine[3], y)
