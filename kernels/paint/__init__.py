"""Paint segments into a label map: the smaller lies on top."""

from collections.abc import Sequence

import numpy as np

from alps.kernels.paint import cpu
from alps.kernels.paint.reference import reference_paint
from alps.kernels.paint.rules import paint_order

__all__ = ["paint", "paint_order", "reference_paint"]


def paint(
    counts: Sequence[bytes],
    values: np.ndarray,
    order: np.ndarray,
    size: tuple[int, int],
    background: int,
) -> np.ndarray:
    """Label map (H, W) of the dtype of ``values``, NumPy, in C order.

    Args:
        counts: S masks as COCO compressed run lengths of (H, W).
        values: (S,) uint8, uint16 or uint32, the label of each.
        order: (S,) indices, bottom first.
        size: (H, W)
        background: label of pixels under no mask.

    Raises:
        ValueError: counts are damaged or of another size, or the arguments do not fit together.
    """
    order = np.asarray(order, np.int64)
    return cpu.paint(counts, values, order, size, background)
