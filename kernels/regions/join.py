"""Small pieces join the neighbour most like them."""

import numpy as np

from alps.kernels.base.compiled import njit
from alps.kernels.regions.cpu import borders, moments

ROUNDS = 2  # a piece beside small ones only waits for the second, and then joins one of them
NOBODY = -1


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
    found = moments(regions, lab, len(family))
    owner = np.arange(len(family))
    _join(
        borders(regions, lab).pairs,
        np.ascontiguousarray(family, np.int64),
        found.area,
        found.sums.astype(np.float64),
        least,
        owner,
    )
    return owner


@njit(nogil=True, cache=True)
def _join(
    pairs: np.ndarray,
    family: np.ndarray,
    area: np.ndarray,
    sums: np.ndarray,
    least: int,
    owner: np.ndarray,
) -> None:
    """Of N pieces and E pairs (E, 2) int64 of them that touch, set ``owner`` (N,) int64.

    family (N,) int64, area (N,) int64 and sums (N, 3) float64 of whole numbers; the last two are
    overwritten.
    """
    count = owner.size
    mean = np.empty((count, 3), np.float64)
    best = np.empty(count, np.int64)  # neighbour that each small piece goes to
    least_squared = np.empty(count, np.float64)  # how far in colour that is
    for last in range(ROUNDS):
        best[:] = NOBODY
        for piece in range(count):
            for k in range(3):
                mean[piece, k] = sums[piece, k] / max(area[piece], 1)
        for pair in range(len(pairs)):
            one, other = owner[pairs[pair, 0]], owner[pairs[pair, 1]]
            if one == other:
                continue
            squared = 0.0
            for k in range(3):
                squared += (mean[one, k] - mean[other, k]) * (mean[one, k] - mean[other, k])
            for turn in range(2):
                a, b = (one, other) if turn == 0 else (other, one)
                if area[a] >= least:
                    continue
                is_larger = area[b] > area[a] or (area[b] == area[a] and b < a)
                if not (is_larger if last else area[b] >= least):
                    continue
                if best[a] != NOBODY:
                    is_other = family[a] != family[b]
                    was_other = family[a] != family[best[a]]
                    if is_other != was_other:
                        if is_other:
                            continue
                    elif (squared, b) > (least_squared[a], best[a]):
                        continue
                best[a], least_squared[a] = b, squared
        for piece in range(count):
            if best[piece] != NOBODY:
                goes = best[piece]
                while best[goes] != NOBODY:  # chains of the second round, ever larger
                    goes = best[goes]
                area[goes] += area[piece]
                for k in range(3):
                    sums[goes, k] += sums[piece, k]
                best[piece] = goes
        for piece in range(count):
            if best[piece] != NOBODY:
                area[piece] = 0
                sums[piece] = 0.0
        for piece in range(count):
            if best[owner[piece]] != NOBODY:
                owner[piece] = best[owner[piece]]
