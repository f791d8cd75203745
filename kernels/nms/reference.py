"""Box NMS in plain NumPy."""

import numpy as np

from alps.kernels.nms.rules import as_float_boxes, by_score


def reference_box_nms(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> np.ndarray:
    """The same in plain NumPy."""
    boxes, order = as_float_boxes(np.asarray(boxes)), by_score(np.asarray(scores), len(boxes))
    x0, y0, x1, y1 = boxes[order].T
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
