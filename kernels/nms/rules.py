"""What box NMS is on every device: dtypes, the order of boxes, the threshold."""

import numpy as np


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
