"""IoU of masks with masks, all pairs, straight from run lengths.

Two masks are walked down together, from each change of either to the next; pairs whose pixels lie
in different stretches of columns are not walked at all. Pixels are counted as whole numbers: an IoU
is one division, the same on every machine.

Bytes moved: for each pair 4 a run of both, out of the second-level cache, and 8 for its IoU.
"""

import numpy as np

from alps.kernels.base.compiled import njit
from alps.kernels.base.threads import spread
from alps.kernels.masks.runs import Runs

_GRAIN = 4  # masks, each with all others


def mask_ious(masks: Runs, others: Runs) -> np.ndarray:
    """IoU of each of M masks with each of N others: (M, N) float64.

    Two masks without a pixel have an IoU of 0, as in pycocotools.

    Raises:
        ValueError: the masks are of two sizes.
    """
    if masks.size != others.size:
        raise ValueError(f"masks of {masks.size} cannot be compared with masks of {others.size}")
    ious = np.zeros((len(masks), len(others)))
    mine, theirs = (_extents(runs.lengths, runs.starts) for runs in (masks, others))

    def work(first: int, last: int) -> None:
        _compare(
            (masks.lengths, masks.starts, mine),
            (others.lengths, others.starts, theirs),
            first, last, ious,
        )  # fmt: skip

    spread(work, len(masks), _GRAIN)
    return ious


def best_ious(masks: Runs, others: Runs) -> np.ndarray:
    """IoU of each mask with the one of ``others`` that is most like it: (M,) float64.

    0 where there is no other. Errors as of ``mask_ious``.
    """
    return mask_ious(masks, others).max(axis=1, initial=0)


def reference_mask_ious(masks: np.ndarray, others: np.ndarray) -> np.ndarray:
    """As ``mask_ious``, of masks (M, H, W) and (N, H, W) bool, in NumPy."""
    both = (masks[:, None] & others).sum((2, 3))
    either = (masks[:, None] | others).sum((2, 3))
    return both / np.maximum(either, 1)


@njit(nogil=True, cache=True)
def _extents(lengths: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Of each mask its area, its first pixel, and the one after its last: (M, 3) int64."""
    found = np.zeros((starts.size - 1, 3), np.int64)
    for m in range(starts.size - 1):
        end = 0
        for i in range(starts[m], starts[m + 1]):
            begin, end = end, end + lengths[i]
            if (i - starts[m]) % 2 == 1 and begin < end:
                if found[m, 0] == 0:
                    found[m, 1] = begin
                found[m, 0] += end - begin
                found[m, 2] = end
    return found


@njit(nogil=True, cache=True)
def _compare(masks: tuple, others: tuple, first: int, last: int, ious: np.ndarray) -> None:
    """IoUs of masks [first, last) with all others; each side is lengths, starts, extents."""
    lengths, starts, extents = masks
    other_lengths, other_starts, other_extents = others
    for m in range(first, last):
        mine = lengths[starts[m] : starts[m + 1]]
        for n in range(other_starts.size - 1):
            if extents[m, 1] >= other_extents[n, 2] or other_extents[n, 1] >= extents[m, 2]:
                continue
            both = _common(mine, other_lengths[other_starts[n] : other_starts[n + 1]])
            if both > 0:
                ious[m, n] = both / (extents[m, 0] + other_extents[n, 0] - both)


@njit(nogil=True, cache=True)
def _common(mine: np.ndarray, theirs: np.ndarray) -> np.int64:
    """Pixels that two masks have in common, given by their run lengths."""
    both = np.int64(0)
    i, j = -1, -1  # the runs we are in
    at = my_end = their_end = np.int64(0)
    while True:
        while my_end == at:
            i += 1
            if i == mine.size:
                return both
            my_end += mine[i]
        while their_end == at:
            j += 1
            if j == theirs.size:
                return both
            their_end += theirs[j]
        stop = min(my_end, their_end)
        if i & j & 1:
            both += stop - at
        at = stop
