"""Two bilinear steps along one axis, together: each new place a weighted mean of a few old ones."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

MOST_TAPS = 3  # of a place as long as the first step does not shrink; no step of SAM does


@dataclass(frozen=True)
class Taps:
    """An axis of N places, each a weighted mean of T >= 2 neighbouring ones of n.

    Of n = 1 the second has no place, and the weight 0.
    """

    first: np.ndarray  # (N,) int32, place i is made of first[i] ... first[i] + T - 1
    weights: np.ndarray  # (N, T) float32
    # Where k and k + 1 of the n lie apart, places enter[k] ... leave[k] - 1 look at both.
    enter: np.ndarray  # (n - 1,) int32
    leave: np.ndarray  # (n - 1,) int32


@lru_cache(maxsize=64)  # two for each size of crop
def taps_of(low: int, square: int, inner: int, full: int) -> Taps:
    """The two steps along one axis: ``low`` places -> ``square``, the first ``inner`` -> ``full``.

    A step that changes nothing costs nothing: its weights are ones.
    """
    near, far, part = step(low, square)
    near2, far2, part2 = step(inner, full)
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
    count = max(2, int((end - begin).max()))
    first = np.maximum(np.minimum(begin, low - count), 0)
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


def step(old: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each of ``new`` places: the two of ``old`` it lies between, and how near the second is.

    In float32 as PyTorch computes them (aten/src/ATen/native/UpSample.h), returned as float64.
    """
    scale = np.float32(old) / np.float32(new)
    half = np.float32(0.5)
    source = np.maximum(scale * (np.arange(new, dtype=np.float32) + half) - half, np.float32(0))
    near = np.minimum(source.astype(np.int64), old - 1)
    part = np.clip(source - near.astype(np.float32), 0, 1)
    return near, np.minimum(near + 1, old - 1), part.astype(np.float64)
