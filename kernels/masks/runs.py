"""Masks as run lengths: the one form in which they travel between kernels.

A mask is read column by column, as COCO reads it; runs alternate between zeros and ones and start
with zeros. A segment of 1024 x 1024 pixels has some hundred to some thousand runs: a thousandth
of its bytes, and area, box, pooling and painting need no more.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from alps.kernels.base.threads import spread

PIXEL_LIMIT = 2**31  # of one mask: lengths and places are int32


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
        return Runs.from_lengths([self.of(int(i)) for i in indices], self.size)

    @staticmethod
    def from_lengths(masks: Sequence[np.ndarray], size: tuple[int, int]) -> "Runs":
        """Masks from the run lengths of each."""
        starts = starts_of(np.array([len(lengths) for lengths in masks], np.int64))
        lengths = np.concatenate([np.zeros(0, np.int32), *masks])
        return Runs(size, lengths.astype(np.int32, copy=False), starts)

    @staticmethod
    def join(parts: Sequence["Runs"], size: tuple[int, int]) -> "Runs":
        """All masks of several, in their order; ``size`` is theirs.

        Raises:
            ValueError: a part has masks of another size.
        """
        sizes = {part.size for part in parts} - {size}
        if sizes:
            raise ValueError(f"masks of {sizes.pop()} cannot join masks of {size}")
        counts = np.concatenate([np.zeros(0, np.int64), *(np.diff(part.starts) for part in parts)])
        lengths = np.concatenate([np.zeros(0, np.int32), *(part.lengths for part in parts)])
        return Runs(size, lengths.astype(np.int32, copy=False), starts_of(counts))

    @staticmethod
    def in_pieces(
        make: Callable[[int, int], tuple[np.ndarray, np.ndarray]],
        count: int,
        size: tuple[int, int],
        grain: int = 1,
    ) -> "Runs":
        """``count`` masks, made by several threads at once.

        Args:
            make: given first and last, returns the run lengths (R,) int32 of masks
                [first, last) end to end, and the number of runs of each, (last - first,) int64.
            count: number of masks.
            size: H, W of each.
            grain: masks made at a time.
        """
        pieces = {}

        def work(first: int, last: int) -> None:
            pieces[first] = make(first, last)

        spread(work, count, grain)
        made = [pieces[first] for first in sorted(pieces)]
        lengths = np.concatenate([np.zeros(0, np.int32), *(lengths for lengths, _ in made)])
        counts = np.concatenate([np.zeros(0, np.int64), *(counts for _, counts in made)])
        return Runs(size, lengths, starts_of(counts))


def starts_of(counts: np.ndarray) -> np.ndarray:
    """Where each of (N,) lists begins when they lie end to end, and where the last ends: (N + 1,)
    int64.
    """
    starts = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=starts[1:])
    return starts


def checked_size(size: Sequence[int]) -> tuple[int, int]:
    """H, W as plain integers.

    Raises:
        ValueError: a mask of that size has too many pixels for int32 run lengths.
    """
    height, width = int(size[0]), int(size[1])
    if height < 0 or width < 0:
        raise ValueError(f"a mask cannot have {height} x {width} pixels")
    if height * width >= PIXEL_LIMIT:
        raise ValueError(
            f"a mask of {height} x {width} has {height * width} pixels; run lengths here reach "
            f"{PIXEL_LIMIT - 1}: cut the image into tiles"
        )
    return height, width


def refuse(wrong: list[int], size: tuple[int, int]) -> None:
    """Raise ValueError for the masks, by index, whose runs do not add up to ``size``."""
    if wrong:
        raise ValueError(
            f"the run lengths of mask {min(wrong)} do not add up to {size[0]} x {size[1]} pixels"
        )
