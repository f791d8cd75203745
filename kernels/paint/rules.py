"""What painting is on every device: the order of segments, checks of arguments."""

from typing import Any

import numpy as np


def paint_order(area: np.ndarray, predicted_iou: np.ndarray) -> np.ndarray:
    """The order in which segments are laid down, bottom first.

    Smaller area on top; of equal areas the higher predicted IoU; of equals the lower id.

    Args:
        area: (S,) integer, predicted_iou: (S,) float.
    """
    ids = np.arange(len(area))
    return np.lexsort((-ids, predicted_iou, -area.astype(np.int64)))


def check(masks: int, values: Any, order: np.ndarray) -> None:
    """Raise ValueError where the arguments of ``paint`` do not fit together."""
    if values.shape != (masks,):
        raise ValueError(f"{masks} masks need as many labels, not an array of {values.shape}")
    if values.dtype not in (np.uint8, np.uint16, np.uint32):
        raise ValueError(f"labels are uint8, uint16 or uint32, not {values.dtype}")
    if len(order) and not 0 <= order.min() <= order.max() < masks:
        raise ValueError(f"the order of {masks} masks names {order.min()} to {order.max()}")
