"""Thresholds for weights that nobody has tuned any for: from what the tile's own masks have.

Some share of masks passes by predicted IoU, and some number is left at the end, as with a trained
model at its own thresholds; or stages would be timed with nothing to do, or with too much.
"""

from typing import Any

import numpy as np

from alps.engine.masks.generator import Segments
from alps.kernels.nms import box_nms

PASS_BY_IOU = 0.3  # of all masks
LEFT_AT_THE_END = 100  # masks on a tile of 1024 points; in proportion on others
BOX_NMS = 0.7  # SAM's own; higher only where it alone leaves too few
HIGHEST_NMS = 0.99


def keep_all(settings: dict[str, Any]) -> dict[str, Any]:
    """These settings without any filter."""
    return settings | {
        "pred_iou_thresh": 0.0,
        "stability_score_thresh": 0.0,
        "box_nms_thresh": 1.0,
    }


def thresholds_of(everything: Segments) -> dict[str, float]:
    """SamAutomaticMaskGenerator's thresholds for an image, from its masks without any filter."""
    wanted = max(1, round(LEFT_AT_THE_END * everything.prompted / 1024))
    iou_thresh = _between(everything.predicted_iou, 1 - PASS_BY_IOU)
    passed = everything.predicted_iou > iou_thresh
    boxes = everything.boxes[passed].astype(np.float32)
    boxes[:, 2:] += boxes[:, :2] - 1  # last column, last row
    scores, stability = everything.predicted_iou[passed], everything.stability_score[passed]

    def left(stability_thresh: float, nms_thresh: float) -> int:
        stable = stability >= stability_thresh
        return len(box_nms(boxes[stable], scores[stable], nms_thresh))

    nms_thresh = BOX_NMS
    while left(0.0, nms_thresh) < wanted and nms_thresh < HIGHEST_NMS:
        nms_thresh = min(HIGHEST_NMS, nms_thresh + 0.05)
    # The more must be stable, the fewer are left, nearly always: try some, take the nearest.
    tried = [_between(stability, share) for share in np.linspace(0, 0.98, 50)]
    best = min(tried, key=lambda thresh: abs(left(thresh, nms_thresh) - wanted))
    return {
        "pred_iou_thresh": iou_thresh,
        "stability_score_thresh": best,
        "box_nms_thresh": nms_thresh,
    }


def _between(values: np.ndarray, share: float) -> float:
    """A number with about this share of values below it, in the middle of the widest gap near it.

    Rounding differs from side to side: a threshold that is itself a value would be a coin's toss.
    """
    values = np.sort(values.astype(np.float64))
    if len(values) < 2:
        return float(values[0]) - 1e-3 if len(values) else 0.0
    at = int(np.clip(round(share * len(values)), 1, len(values) - 1))
    reach = max(1, len(values) // 200)
    near = np.arange(max(1, at - reach), min(len(values), at + reach + 1))
    gap = near[np.argmax(values[near] - values[near - 1])]
    return float((values[gap] + values[gap - 1]) / 2)
