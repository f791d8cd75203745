"""Non-maximal suppression of boxes: of boxes that overlap much, the best one stays.

``gpu`` has it for the boxes of several tiles, which stay on the GPU.
"""

import numpy as np

from alps.kernels.nms import cpu
from alps.kernels.nms.reference import reference_box_nms

__all__ = ["box_nms", "reference_box_nms"]


def box_nms(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> np.ndarray:
    """Return the indices of the boxes that stay, by descending score, ties by lower index.

    Args:
        boxes: (N, 4) x0, y0, x1, y1, any number dtype; area is (x1 - x0) x (y1 - y0).
        scores: (N,) any number dtype, without NaN.
        threshold: a box is dropped where its IoU with a better one that stays is greater.

    Returns (M,) int64, NumPy. Computed in float32, as torchvision.ops.nms does, unless the boxes
    are float64. Two boxes without area have no IoU (0 / 0) and never drop each other.

    Raises:
        ValueError: a score is NaN, or there is not one score a box.
    """
    return cpu.box_nms(boxes, scores, threshold)
