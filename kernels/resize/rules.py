"""What a resize is on every device: which old places a new one is made of, by integer weights.

As Pillow has them, src/libImaging/Resample.c: ``precompute_coeffs`` and ``normalize_coeffs_8bpc``.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

BITS = 22  # of a weight of 1; a sum of bytes times weights stays below 2^31
HALF = 1 << (BITS - 1)


@dataclass(frozen=True)
class Taps:
    """An axis of N places, each a weighted mean of at most T neighbouring ones of n."""

    first: np.ndarray  # (N,) int32
    weights: np.ndarray  # (N, T) int32, 0 where there is no place or none is needed


@lru_cache(maxsize=64)  # two for each size of image
def taps_of(old: int, new: int) -> Taps:
    """The tent of an axis of ``old`` places that becomes one of ``new``."""
    scale = old / new
    reach = max(scale, 1.0)  # of the tent, in old places
    count = math.ceil(reach) * 2 + 1
    centre = (np.arange(new) + 0.5) * scale
    # Truncated towards zero, as C does; what is below zero begins at zero anyway.
    first = np.maximum((centre - reach + 0.5).astype(np.int64), 0)
    end = np.minimum((centre + reach + 0.5).astype(np.int64), old)
    place = first[:, None] + np.arange(count)
    weights = np.maximum(1.0 - np.abs((place - centre[:, None] + 0.5) * (1.0 / reach)), 0.0)
    weights[place >= end[:, None]] = 0.0
    # One after the other, as Pillow adds them: a sum in another order may round otherwise.
    total = np.cumsum(weights, axis=1)[:, -1:]
    whole = np.floor(weights / total * (1 << BITS) + 0.5).astype(np.int32)
    used = max(1, int((end - first).max()))
    return Taps(first.astype(np.int32), np.ascontiguousarray(whole[:, :used]))


def rows_first(old: tuple[int, ...], height: int, width: int) -> bool:
    """Whether rows are resized before columns: as Pillow 13 has it, where an image (H, W, …) loses
    more than twice as many rows as columns. Before that columns always came first, and some bytes
    of such an image are one more or less.
    """
    lost = old[0] - height
    return lost > 0 and lost > 2 * (old[1] - width)


def check(image: Any, height: int, width: int) -> None:
    """Raise ValueError for arguments of ``resize`` that are none."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3:
        found = f"{getattr(image, 'dtype', type(image).__name__)} {getattr(image, 'shape', '')}"
        raise ValueError(f"an image must be (H, W, C) uint8, not {found}")
    if image.size == 0 or min(height, width) < 1:
        raise ValueError(f"no resize of {image.shape} to {height} x {width}: one has no pixels")
