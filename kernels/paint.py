"""Paint segments into a label map: the smaller lies on top.

Bytes moved: about the sum of the segments' areas times the label's size, each written once, and
H x W for the background.
"""

from collections.abc import Sequence

import numpy as np

from alps.kernels import rle


def paint_order(area: np.ndarray, predicted_iou: np.ndarray) -> np.ndarray:
    """The order in which segments are laid down, bottom first.

    Smaller area on top; of equal areas the higher predicted IoU; of equals the lower id.

    Args:
        area: (S,) integer, predicted_iou: (S,) float.
    """
    ids = np.arange(len(area))
    return np.lexsort((-ids, predicted_iou, -area.astype(np.int64)))


def paint(
    counts: Sequence[bytes],
    values: np.ndarray,
    order: np.ndarray,
    size: tuple[int, int],
    background: int,
) -> np.ndarray:
    """Label map (H, W) of the dtype of ``values``.

    Args:
        counts: S masks as COCO compressed run lengths of (H, W).
        values: (S,) unsigned integer, the label of each.
        order: (S,) indices, bottom first.
        size: (H, W)
        background: label of pixels under no mask.
    """
    labels = np.full(size, background, dtype=values.dtype)
    for index in order:
        labels[rle.decode(counts[index], *size)] = values[index]
    return labels
