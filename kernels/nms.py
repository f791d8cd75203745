"""Non-maximal suppression of boxes: of boxes that overlap much, the best one stays.

Bytes moved: at most N^2 / 2 boxes x 16 bytes, one row of IoUs for each box that stays.
"""

import numpy as np


def box_nms(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> np.ndarray:
    """Return the indices of the boxes that stay, by descending score, ties by lower index.

    boxes: (N, 4) x0, y0, x1, y1, any number dtype; area is (x1 - x0) x (y1 - y0).
    scores: (N,) without NaN.
    threshold: a box is dropped where its IoU with a better one that stays is greater.

    Returns (M,) int64. Computed in float32, as torchvision.ops.nms does, unless the boxes are
    float64. Two boxes without area have no IoU (0 / 0) and never drop each other.
    """
    boxes = np.asarray(boxes)
    if boxes.dtype != np.float64:
        boxes = boxes.astype(np.float32)
    # Negation keeps the order stable, so equal scores stay in the order of their indices.
    order = np.argsort(-np.asarray(scores), kind="stable")
    x0, y0, x1, y1 = boxes[order].reshape(-1, 4).T
    areas = (x1 - x0) * (y1 - y0)
    suppressed = np.zeros(len(order), bool)
    kept = []
    for best in range(len(order)):
        if suppressed[best]:
            continue
        kept.append(best)
        rest = slice(best + 1, None)
        width = np.minimum(x1[best], x1[rest]) - np.maximum(x0[best], x0[rest])
        height = np.minimum(y1[best], y1[rest]) - np.maximum(y0[best], y0[rest])
        overlap = np.maximum(width, 0) * np.maximum(height, 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            iou = overlap / (areas[best] + areas[rest] - overlap)
        # The threshold is a double: rounding it to float32 could move it past an IoU.
        suppressed[rest] |= iou.astype(np.float64) > threshold
    return order[np.array(kept, np.int64)]
