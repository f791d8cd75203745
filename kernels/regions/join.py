"""Small pieces join the neighbour most like them."""

import numpy as np

from alps.kernels.regions.cpu import borders, moments

ROUNDS = 2  # a piece beside small ones only waits for the second, and then joins one of them


def join_small(regions: np.ndarray, lab: np.ndarray, least: int, family: np.ndarray) -> np.ndarray:
    """Give pieces of fewer than ``least`` pixels to a neighbour, never across pixels in none.

    In the first round a small piece goes to a neighbour that is not small: to one of its family
    where there is one, of these to the one most like it in mean colour, of equals to the lowest
    number. In the second, what is small still goes to any larger neighbour by the same order.
    What a piece joins depends on nothing further away than its neighbours' neighbours.

    Args:
        regions: (H, W) int32 of N pieces, -1 in none.
        lab: (H, W, 3) int16, in 128ths of an L*a*b* unit.
        least: pixels.
        family: (N,) which pieces were cut from one thing.

    Returns (N,) int64, the piece that each ended in.
    """
    count = len(family)
    found = moments(regions, lab, count)
    area, sums = found.area.copy(), found.sums.astype(np.float64)
    pairs = borders(regions, lab).pairs
    owner = np.arange(count)
    for last in range(ROUNDS):
        small = (area < least) & (area > 0)
        if not small.any() or not len(pairs):
            break
        low, high = np.sort(owner[pairs], axis=1).T
        keys = np.unique((low * count + high)[low != high])
        ends = np.stack(np.divmod(keys, count), axis=1)
        a, b = np.concatenate([ends, ends[:, ::-1]]).T
        larger = (area[b] > area[a]) | ((area[b] == area[a]) & (b < a))
        allowed = small[a] & (larger if last else ~small[b])
        a, b = a[allowed], b[allowed]
        if not len(a):
            continue
        mean = sums / np.maximum(area, 1)[:, None]
        distance = ((mean[a] - mean[b]) ** 2).sum(1)
        order = np.lexsort((b, distance, family[a] != family[b], a))
        best = order[np.flatnonzero(np.diff(a[order], prepend=-1))]
        goes = np.arange(count)
        goes[a[best]] = b[best]
        while not np.array_equal(further := goes[goes], goes):  # chains of the second round
            goes = further
        moved = np.flatnonzero(goes != np.arange(count))
        np.add.at(area, goes[moved], area[moved])
        np.add.at(sums, goes[moved], sums[moved])
        area[moved], sums[moved] = 0, 0
        owner = goes[owner]
    return owner
