"""How much of each region lies under which segment of a window, weighted by place."""

import numpy as np

from alps.kernels.base.compiled import njit

WEIGHT_UNITS = 256  # of a weight along one axis


def window_weights(length: int) -> np.ndarray:
    """Weights (length,) int64 of a window's pixels along one axis: a Hann window in
    1/WEIGHT_UNITS, never below 1, so that what a single window saw at its edge counts too.
    """
    middle = (np.arange(length) + 0.5) / length
    return np.maximum(np.rint(WEIGHT_UNITS * np.sin(np.pi * middle) ** 2), 1).astype(np.int64)


def overlaps(
    regions: np.ndarray, top: np.ndarray, weights: tuple[np.ndarray, np.ndarray], segments: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sums of the weights of pixels that a region and a segment share.

    Args:
        regions: (h, w) int32, -1 in none.
        top: (h, w) int32 segment on top, below ``segments``; -1 none.
        weights: (h,) and (w,) int64; a pixel's is their product.
        segments: how many there are.

    Returns regions (E,), segments (E,), sums (E,), all int64, ascending by region, then segment.
    """
    names = np.flatnonzero(np.bincount(regions.ravel() + 1)[1:])
    if not len(names) or not segments:
        return (np.zeros(0, np.int64),) * 3
    place = np.full(int(names[-1]) + 2, -1, np.int32)  # the last for regions of -1
    place[names] = np.arange(len(names))
    table = np.zeros((len(names), segments), np.int64)
    _add(regions, top, weights[0], weights[1], place, table)
    row, column = np.nonzero(table)
    return names[row].astype(np.int64), column.astype(np.int64), table[row, column]


def reference_overlaps(
    regions: np.ndarray, top: np.ndarray, weights: tuple[np.ndarray, np.ndarray], segments: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As ``overlaps``, in NumPy."""
    both = (regions >= 0) & (top >= 0)
    weight = np.outer(*weights)[both]
    keys = regions[both].astype(np.int64) * max(segments, 1) + top[both]
    found, inverse = np.unique(keys, return_inverse=True)
    sums = np.zeros(len(found), np.int64)
    np.add.at(sums, inverse, weight)
    return (*np.divmod(found, max(segments, 1)), sums)


@njit(nogil=True, cache=True)
def _add(
    regions: np.ndarray,
    top: np.ndarray,
    down: np.ndarray,
    across: np.ndarray,
    place: np.ndarray,
    table: np.ndarray,
) -> None:
    for y in range(regions.shape[0]):
        for x in range(regions.shape[1]):
            if regions[y, x] >= 0 and top[y, x] >= 0:
                table[place[regions[y, x]], top[y, x]] += down[y] * across[x]
