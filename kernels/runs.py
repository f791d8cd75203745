"""Masks as run lengths: the one form in which they travel between kernels.

A mask is read column by column, as COCO reads it; runs alternate between zeros and ones and start
with zeros. A segment of 1024 x 1024 pixels has some hundred to some thousand runs: a thousandth
of its bytes, and area, box, pooling and painting need no more.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Runs:
    """Run lengths of M masks of one size, end to end."""

    size: tuple[int, int]  # H, W of every mask
    lengths: np.ndarray  # (R,) int32 pixels, those of a mask add up to H x W
    starts: np.ndarray  # (M + 1,) int64, mask i has lengths[starts[i] : starts[i + 1]]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def of(self, index: int) -> np.ndarray:
        """Run lengths of one mask, a view."""
        return self.lengths[self.starts[index] : self.starts[index + 1]]

    def take(self, which: np.ndarray) -> "Runs":
        """Those at ``which``, indices or (M,) bool, in that order."""
        indices = np.flatnonzero(which) if which.dtype == bool else which
        return Runs.from_lengths([self.of(i) for i in indices], self.size)

    @staticmethod
    def from_lengths(masks: Sequence[np.ndarray], size: tuple[int, int]) -> "Runs":
        """Masks from the run lengths of each."""
        starts = np.zeros(len(masks) + 1, np.int64)
        np.cumsum([len(lengths) for lengths in masks], out=starts[1:])
        return Runs(size, np.concatenate([np.zeros(0, np.int32), *masks]).astype(np.int32), starts)

    @staticmethod
    def join(parts: Sequence["Runs"], size: tuple[int, int]) -> "Runs":
        """All masks of several, in their order; ``size`` is theirs."""
        sizes = {part.size for part in parts} - {size}
        if sizes:
            raise ValueError(f"masks of {sizes.pop()} cannot join masks of {size}")
        return Runs.from_lengths([part.of(i) for part in parts for i in range(len(part))], size)
