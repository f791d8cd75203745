"""Non-maximal suppression of boxes: of boxes that overlap much, the best one stays.

Bytes moved on the CPU: for each box that stays the sides and areas of those after it, at most
N^2 / 2 x 20 bytes out of the first-level cache (3072 boxes are 60 KB). On a GPU: N^2 / 8 bytes of
bits, written once and read at most once.
"""

from typing import Any

import numpy as np
from numba import njit

from alps.kernels.base.gpu import is_on_gpu


def box_nms(boxes: Any, scores: Any, threshold: float) -> np.ndarray:
    """Return the indices of the boxes that stay, by descending score, ties by lower index.

    Args:
        boxes: (N, 4) x0, y0, x1, y1, any number dtype; area is (x1 - x0) x (y1 - y0).
            On a GPU: computed there.
        scores: (N,) any number dtype, without NaN.
        threshold: a box is dropped where its IoU with a better one that stays is greater.

    Returns (M,) int64, NumPy. Computed in float32, as torchvision.ops.nms does, unless the boxes
    are float64. Two boxes without area have no IoU (0 / 0) and never drop each other.

    Raises:
        ValueError: a score is NaN, or there is not one score a box.
    """
    if is_on_gpu(boxes):
        from alps.kernels.nms.gpu import box_nms as on_gpu

        return on_gpu(boxes, scores, threshold)
    boxes, order = as_float_boxes(np.asarray(boxes)), by_score(np.asarray(scores), len(boxes))
    # Structure of arrays: the loop over pairs reads eight or more boxes in one instruction.
    sides = np.ascontiguousarray(boxes[order].T)  # (4, N)
    return order[_greedy(sides, threshold_of(boxes.dtype, threshold))]


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


def as_float_boxes(boxes: np.ndarray) -> np.ndarray:
    """Boxes (N, 4) in the dtype in which their IoUs are computed, float32 or float64."""
    dtype = np.float64 if boxes.dtype == np.float64 else np.float32
    return boxes.reshape(-1, 4).astype(dtype, copy=False)


def by_score(scores: np.ndarray, boxes: int) -> np.ndarray:
    """Indices (N,) int64 by descending score, ties by lower index.

    Raises:
        ValueError: a score is NaN, or there is not one score a box.
    """
    if scores.shape != (boxes,):
        raise ValueError(f"{boxes} boxes need as many scores, not an array of {scores.shape}")
    if scores.dtype.kind != "f":
        scores = scores.astype(np.float64)  # negating unsigned ones would turn their order
    unknown = np.isnan(scores)
    if unknown.any():
        raise ValueError(
            f"{unknown.sum()} of {boxes} scores are NaN, the first is that of box "
            f"{unknown.argmax()}; leave such boxes out"
        )
    # Negation keeps the sort stable, so equal scores stay in the order of their indices.
    return np.argsort(-scores, kind="stable").astype(np.int64, copy=False)


def threshold_of(dtype: np.dtype, threshold: float) -> np.floating:
    """The largest number of ``dtype`` that is not above ``threshold``.

    An IoU of that dtype is above the one exactly where it is above the other, and they can be
    compared without widening.
    """
    with np.errstate(over="ignore"):
        rounded = dtype.type(threshold)
    if float(rounded) > threshold:
        rounded = np.nextafter(rounded, dtype.type(-np.inf))
    return rounded


# numpy's error model: a division by zero is NaN or infinite here, not an exception.
@njit(nogil=True, cache=True, error_model="numpy")
def _greedy(sides: np.ndarray, threshold: np.floating) -> np.ndarray:
    """Places (M,) int64 of the boxes that stay; sides (4, N) float, best first."""
    count = sides.shape[1]
    x0, y0, x1, y1 = sides[0], sides[1], sides[2], sides[3]
    areas = (x1 - x0) * (y1 - y0)
    dropped = np.zeros(count, np.uint8)
    kept = np.empty(count, np.int64)
    stay = 0
    for best in range(count):
        if dropped[best]:
            continue
        kept[stay] = best
        stay += 1
        rest = best + 1
        box = x0[best], y0[best], x1[best], y1[best], areas[best]
        others = x0[rest:], y0[rest:], x1[rest:], y1[rest:], areas[rest:]
        _drop(box, others, threshold, dropped[rest:])
    return kept[:stay]


# Slices from 0 on, and choices instead of min and max: only so is a loop over other boxes turned
# into instructions for eight or sixteen of them, ten times as fast.
@njit(nogil=True, cache=True, error_model="numpy")
def _drop(box: tuple, others: tuple, threshold: np.floating, dropped: np.ndarray) -> None:
    """Mark those of ``others`` whose IoU with a box is above the threshold."""
    left, top, right, bottom, area = box
    x0, y0, x1, y1, areas = others
    zero = x0.dtype.type(0)
    for i in range(len(dropped)):
        width = (right if right < x1[i] else x1[i]) - (left if left > x0[i] else x0[i])
        height = (bottom if bottom < y1[i] else y1[i]) - (top if top > y0[i] else y0[i])
        overlap = (width if width > zero else zero) * (height if height > zero else zero)
        iou = overlap / (area + areas[i] - overlap)
        dropped[i] = 1 if iou > threshold else dropped[i]
