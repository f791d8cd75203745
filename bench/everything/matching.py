"""How far two sides found the same masks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from alps.kernels.masks import algebra, coco, iou

LEVELS = (0.99, 0.9, 0.75)  # of IoU


@dataclass(frozen=True)
class Agreement:
    """How well the masks of one side are found among another's."""

    masks: int  # that were looked for
    shares: dict[float, float]  # level -> share of them with an IoU of at least that; NaN: no mask
    mean_iou: float  # of each with its best match

    @classmethod
    def of(cls, best: np.ndarray) -> "Agreement":
        """From the IoU of each mask with its best match, (N,)."""
        if not len(best):
            return cls(0, dict.fromkeys(LEVELS, float("nan")), float("nan"))
        shares = {level: float((best >= level).mean()) for level in LEVELS}
        return cls(len(best), shares, float(best.mean()))


def best_ious(masks: Sequence[bytes], others: Sequence[bytes], size: tuple[int, int]) -> np.ndarray:
    """IoU of each mask with the one of ``others`` that is most like it.

    masks, others: COCO compressed counts of images of ``size`` (height, width).
    Returns (N,) float64, 0 where there is no other. Masks without a pixel are left out: nobody
    can find them, and nobody misses them.
    """
    sides = [coco.decode(side, size) for side in (masks, others)]
    mine, theirs = (runs.take(algebra.areas(runs) > 0) for runs in sides)
    return iou.best_ious(mine, theirs)


def agreement(
    tiles: Sequence[Sequence[bytes]],
    others: Sequence[Sequence[bytes]],
    sizes: Sequence[tuple[int, int]],
) -> Agreement:
    """How well the masks of all tiles are found among the others' of the same tiles."""
    found = [
        best_ious(masks, theirs, size)
        for masks, theirs, size in zip(tiles, others, sizes, strict=True)
    ]
    return Agreement.of(np.concatenate([np.zeros(0), *found]))
