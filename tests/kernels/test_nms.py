"""Box NMS, all versions against the definition, pair by pair."""

import warnings

import numpy as np
import pytest
from gpu_bits import zeros
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import cuda

from alps.kernels.nms import box_nms, gpu, reference_box_nms
from alps.kernels.nms.rules import by_score, threshold_of


def on_gpu(*tiles, threshold, kept=None):
    """Boxes (n, 4) and scores (n,) of each tile -> what stays of each; boxes as float32."""
    room = max(1, *(len(boxes) for boxes, _ in tiles))
    words = gpu.words_of(room)
    boxes = np.zeros((len(tiles), room, 4), np.float32)
    order = np.zeros((len(tiles), room), np.int64)
    for tile, (own, scores) in enumerate(tiles):
        boxes[tile, : len(own)] = own
        order[tile, : len(own)] = by_score(scores, len(own))
    number = np.array([len(own) for own, _ in tiles], np.int32)
    between = (
        zeros((len(tiles), 5, room), np.float32),
        zeros((len(tiles), room, words), np.int64),
        zeros((len(tiles), words), np.int64),
    )
    found = zeros((len(tiles), kept or room), np.int32)
    seat, stay = zeros((len(tiles), room), np.int32), zeros(len(tiles), np.int32)
    inputs = map(cuda.to_device, (boxes, order, number))
    gpu.box_nms(*inputs, threshold, between, found, seat, stay)
    found, seat, stay = (array.copy_to_host() for array in (found, seat, stay))
    for tile, own in enumerate(found):
        some = own[: stay[tile]]
        assert (own[stay[tile] :] == -1).all()
        assert seat[tile, some].tolist() == list(range(len(some)))
        assert (seat[tile, : number[tile]] >= 0).sum() == len(some)
    return [own[:n].astype(np.int64) for own, n in zip(found, stay, strict=True)], stay


def one_on_gpu(boxes, scores, threshold):
    return on_gpu((boxes, scores), threshold=threshold)[0][0]


VERSIONS = {"reference": reference_box_nms, "cpu": box_nms, "cuda": one_on_gpu}
every_version = pytest.mark.parametrize("nms", VERSIONS.values(), ids=VERSIONS)


def by_definition(boxes, scores, threshold):
    """One pair at a time in the boxes' precision, compared in double, as torchvision does it."""
    kind = np.float64 if boxes.dtype == np.float64 else np.float32
    boxes = boxes.astype(kind)

    def iou(a, b):
        width = max(kind(0), min(a[2], b[2]) - max(a[0], b[0]))
        height = max(kind(0), min(a[3], b[3]) - max(a[1], b[1]))
        areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # 0 / 0
            return width * height / (areas[0] + areas[1] - width * height)

    kept = []
    for i in sorted(range(len(boxes)), key=lambda i: (-scores[i], i)):
        if not any(float(iou(boxes[j], boxes[i])) > threshold for j in kept):
            kept.append(i)
    return kept


# Few coordinates and few scores, so that equal boxes, boxes without area and ties are common.
corners = st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(0, 10), st.integers(0, 10))
scored_boxes = st.lists(st.tuples(corners, st.sampled_from([0.1, 0.5, 0.9])), max_size=25)
thresholds = st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.6, 0.7, 1.0])
dtypes = st.sampled_from([np.int32, np.float32, np.float64])


def arrays(scored, dtype):
    boxes = np.array([(x, y, x + w, y + h) for (x, y, w, h), _ in scored]).reshape(-1, 4)
    return boxes.astype(dtype), np.array([score for _, score in scored], np.float32)


@given(scored_boxes, thresholds, dtypes)
def test_any_boxes(scored, threshold, dtype):
    boxes, scores = arrays(scored, dtype)
    expected = by_definition(boxes, scores, threshold)
    for nms in (reference_box_nms, box_nms):
        kept = nms(boxes, scores, threshold)
        assert kept.dtype == np.int64
        assert kept.tolist() == expected


@pytest.mark.slow
@settings(max_examples=12)  # the simulator is slow
@given(scored_boxes, scored_boxes, thresholds)
def test_any_boxes_of_two_tiles_on_a_gpu(scored, others, threshold):
    tiles = [arrays(one, np.int32) for one in (scored, others)]
    found, stay = on_gpu(*tiles, threshold=threshold)
    for tile, kept, number in zip(tiles, found, stay, strict=True):
        assert kept.tolist() == by_definition(*tile, threshold)
        assert number == len(kept)


def test_more_boxes_stay_than_there_is_room_for_on_a_gpu():
    boxes = np.array([[20 * i, 0, 20 * i + 9, 9] for i in range(5)])
    scores = np.array([1, 5, 2, 4, 3.0])
    kept, stay = on_gpu((boxes, scores), (boxes[:2], scores[:2]), threshold=0.5, kept=3)
    assert kept[0].tolist() == [1, 3, 4] and stay.tolist() == [5, 2]
    assert kept[1].tolist() == [1, 0]


def some_boxes(count, dtype):
    rng = np.random.default_rng(0)
    first = rng.random((count, 2)) * 0.5 * np.sqrt(count)
    boxes = np.concatenate([first, first + rng.random((count, 2)) * 5], axis=1)
    return boxes.astype(dtype), rng.random(count).astype(np.float32).round(2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("count", [63, 64, 65, 150])
@every_version
def test_more_boxes_than_bits_in_a_word(nms, count, dtype):
    if nms is one_on_gpu and dtype is np.float64:
        pytest.skip("boxes are float32 there")
    boxes, scores = some_boxes(count, dtype)
    kept = nms(boxes, scores, 0.3)
    assert kept.tolist() == by_definition(boxes, scores, 0.3)
    assert count / 4 < len(kept) < count


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_many_boxes(dtype):
    boxes, scores = some_boxes(3000, dtype)
    kept = box_nms(boxes, scores, 0.3)
    assert 1000 < len(kept) < 2900
    np.testing.assert_array_equal(kept, reference_box_nms(boxes, scores, 0.3))


@every_version
def test_threshold_is_exceeded_not_reached(nms):
    boxes = np.array([[0, 0, 2, 1], [0, 0, 1, 1]], np.float32)  # IoU 1/2, exact in binary
    assert nms(boxes, np.array([0.9, 0.8]), 0.5).tolist() == [0, 1]
    assert nms(boxes, np.array([0.9, 0.8]), 0.4999).tolist() == [0]


@every_version
def test_float32_iou_against_a_double_threshold(nms):
    # IoU 7/10 in float32 is a little less than 0.7, so it is not greater.
    boxes = np.array([[0, 0, 10, 1], [0, 0, 7, 1]], np.float32)
    assert np.float64(np.float32(7) / np.float32(10)) < 0.7
    assert nms(boxes, np.array([1.0, 0.5]), 0.7).tolist() == [0, 1]
    # 6/10 is a little more in float32, and so is dropped, as by torchvision.
    boxes[1, 2] = 6
    assert np.float64(np.float32(6) / np.float32(10)) > 0.6
    assert nms(boxes, np.array([1.0, 0.5]), 0.6).tolist() == [0]


@given(
    st.floats(0, 1, width=32),
    st.one_of(st.floats(-1, 2), st.floats(0, 1, width=32), st.sampled_from([-1e300, 1e300])),
)
def test_a_threshold_in_float32_decides_as_the_double_does(iou, threshold):
    rounded = threshold_of(np.dtype(np.float32), threshold)
    assert isinstance(rounded, np.float32)
    assert (np.float32(iou) > rounded) == (iou > threshold)


@every_version
def test_equal_scores_go_by_index(nms):
    boxes = np.array([[0, 0, 4, 4]] * 3 + [[9, 9, 12, 12]])
    assert nms(boxes, np.zeros(4), 0.5).tolist() == [0, 3]


@every_version
def test_small_unsigned_scores_keep_their_order(nms):
    boxes = np.array([[0, 0, 4, 4], [0, 0, 4, 4], [9, 9, 12, 12]])
    assert nms(boxes, np.array([0, 7, 200], np.uint8), 0.5).tolist() == [2, 1]


@every_version
def test_boxes_without_area_drop_nothing(nms):
    boxes = np.array([[0, 0, 0, 0], [0, 0, 0, 0], [5, 5, 5, 9], [0, 0, 9, 9]])
    assert nms(boxes, np.array([4, 3, 2, 1.0]), 0.0).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("dtype", [np.int64, np.float32])
@every_version
def test_no_boxes(nms, dtype):
    kept = nms(np.zeros((0, 4), dtype), np.zeros(0), 0.5)
    assert kept.shape == (0,)
    assert kept.dtype == np.int64


@pytest.mark.parametrize("nms", [reference_box_nms, box_nms])
def test_scores_that_say_nothing_are_refused(nms):
    boxes = np.array([[0, 0, 4, 4]] * 3, np.float32)
    with pytest.raises(ValueError, match="1 of 3 scores are NaN, the first is that of box 1"):
        nms(boxes, np.array([1, np.nan, 0], np.float32), 0.5)
    with pytest.raises(ValueError, match="3 boxes need as many scores"):
        nms(boxes, np.ones(2), 0.5)
