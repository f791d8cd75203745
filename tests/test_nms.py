"""Box NMS against its definition, pair by pair."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alps.kernels.nms import box_nms


def by_definition(boxes, scores, threshold):
    """Exact arithmetic on whole-number boxes; no box without area."""

    def iou(a, b):
        width = min(a[2], b[2]) - max(a[0], b[0])
        height = min(a[3], b[3]) - max(a[1], b[1])
        overlap = max(width, 0) * max(height, 0)
        areas = sum((c[2] - c[0]) * (c[3] - c[1]) for c in (a, b))
        return Fraction(overlap, areas - overlap)

    boxes = [tuple(map(int, box)) for box in boxes]
    kept = []
    for i in sorted(range(len(boxes)), key=lambda i: (-scores[i], i)):
        if all(iou(boxes[i], boxes[j]) <= threshold for j in kept):
            kept.append(i)
    return kept


# Few coordinates and few scores, so that equal boxes and ties are common.
corners = st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(1, 9), st.integers(1, 9))
scored_boxes = st.lists(st.tuples(corners, st.sampled_from([0.1, 0.5, 0.9])), max_size=25)


@given(scored_boxes, st.sampled_from([0.0, 0.3, 0.61, 0.7, 1.0]))
def test_any_boxes(scored, threshold):
    boxes = np.array([(x, y, x + w, y + h) for (x, y, w, h), _ in scored]).reshape(-1, 4)
    scores = np.array([score for _, score in scored])
    for dtype in (np.int32, np.float32, np.float64):
        kept = box_nms(boxes.astype(dtype), scores, threshold)
        assert kept.dtype == np.int64
        assert kept.tolist() == by_definition(boxes, scores, threshold)


def test_many_boxes():
    rng = np.random.default_rng(0)
    first = rng.integers(0, 200, (400, 2))
    boxes = np.concatenate([first, first + rng.integers(1, 90, (400, 2))], axis=1)
    scores = rng.random(400).astype(np.float32)
    kept = box_nms(boxes, scores, 0.45)
    assert 20 < len(kept) < 380
    assert kept.tolist() == by_definition(boxes, scores, 0.45)


def test_threshold_is_exceeded_not_reached():
    boxes = np.array([[0, 0, 2, 1], [0, 0, 1, 1]], np.float32)  # IoU 1/2, exact in binary
    assert box_nms(boxes, np.array([0.9, 0.8]), 0.5).tolist() == [0, 1]
    assert box_nms(boxes, np.array([0.9, 0.8]), 0.4999).tolist() == [0]


def test_float32_iou_against_a_double_threshold():
    # IoU 7/10 in float32 is a little less than 0.7, so it is not greater.
    boxes = np.array([[0, 0, 10, 1], [0, 0, 7, 1]], np.float32)
    assert np.float64(np.float32(7) / np.float32(10)) < 0.7
    assert box_nms(boxes, np.array([1.0, 0.5]), 0.7).tolist() == [0, 1]
    # 6/10 is a little more in float32, and so is dropped, as by torchvision.
    boxes[1, 2] = 6
    assert np.float64(np.float32(6) / np.float32(10)) > 0.6
    assert box_nms(boxes, np.array([1.0, 0.5]), 0.6).tolist() == [0]


def test_equal_scores_go_by_index():
    boxes = np.array([[0, 0, 4, 4]] * 3 + [[9, 9, 12, 12]])
    assert box_nms(boxes, np.zeros(4), 0.5).tolist() == [0, 3]


def test_boxes_without_area_drop_nothing():
    boxes = np.array([[0, 0, 0, 0], [0, 0, 0, 0], [5, 5, 5, 9], [0, 0, 9, 9]])
    assert box_nms(boxes, np.array([4, 3, 2, 1.0]), 0.0).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("dtype", [np.int64, np.float32])
def test_no_boxes(dtype):
    kept = box_nms(np.zeros((0, 4), dtype), np.zeros(0), 0.5)
    assert kept.shape == (0,)
    assert kept.dtype == np.int64
