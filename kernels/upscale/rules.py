"""What cutting of logits is on every device: thresholds, stability, checks of arguments."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Cuts:
    """Thresholds of logits, as float32: a pixel is above one where its logit is greater."""

    low: np.float32
    mask: np.float32
    high: np.float32

    @staticmethod
    def of(threshold: float, offset: float) -> "Cuts":
        """Those around a threshold by which stability is measured."""
        return Cuts(
            *(np.float32(cut) for cut in (threshold - offset, threshold, threshold + offset))
        )


def check(
    logits: Any, square: int, inner: tuple[int, int], size: tuple[int, int], offset: float
) -> None:
    """Raise ValueError for arguments of ``upscale_masks`` that do not go together."""
    if logits.ndim != 3 or logits.dtype != np.float32 or 0 in logits.shape[1:]:
        raise ValueError(f"logits must be (M, a, b) float32, not {logits.dtype} {logits.shape}")
    if not (0 < inner[0] <= square and 0 < inner[1] <= square):
        raise ValueError(f"the image cannot fill {inner} of a square of {square}")
    if min(size) < 1:
        raise ValueError(f"an image of {size[0]} x {size[1]} has no pixels")
    if not offset >= 0:
        raise ValueError(f"the stability offset is {offset}; it cannot be negative")


def stable_of(
    high: np.ndarray, low: np.ndarray, min_stability: float
) -> tuple[np.ndarray, np.ndarray]:
    """Which masks are stable enough (m,) int64, and the stability of those (m,) float32.

    high, low: (M,) pixels above the one and the other threshold. 0 / 0 is NaN: not stable, unless
    the rule is 0 or less.
    """
    with np.errstate(invalid="ignore"):
        stability = high.astype(np.float32) / low.astype(np.float32)
    rule = np.float32(min_stability)
    kept = np.flatnonzero(stability >= rule) if rule > 0 else np.arange(len(high))
    return kept, stability[kept]
