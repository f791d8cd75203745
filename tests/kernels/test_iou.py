"""IoU of masks against pycocotools, which counts it from run lengths as well, and pixels."""

import numpy as np
import pytest
from discs import discs
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as cocoapi

from alps.kernels.masks.iou import best_ious, mask_ious, reference_mask_ious
from alps.kernels.masks.pixels import runs_of
from alps.kernels.masks.runs import Runs


def in_pycocotools(masks, others):
    sides = [
        [cocoapi.encode(np.asfortranarray(m, np.uint8)) for m in side] for side in (masks, others)
    ]
    return np.asarray(cocoapi.iou(*sides, [0] * len(others))).reshape(len(masks), len(others))


def check(masks, others):
    found = mask_ious(runs_of(masks), runs_of(others))
    assert found.shape == (len(masks), len(others)) and found.dtype == np.float64
    np.testing.assert_array_equal(found, reference_mask_ious(masks, others))
    np.testing.assert_array_equal(found, in_pycocotools(masks, others))


sizes = st.tuples(st.integers(1, 12), st.integers(1, 12))


@st.composite
def two_sides(draw):
    size = draw(sizes)
    some = st.integers(1, 6).flatmap(lambda count: hnp.arrays(bool, (count, *size)))
    masks, others = draw(some), draw(some)
    masks[0] = draw(st.booleans())  # empty or full
    others[-1] = masks[-1]
    return masks, others


@given(two_sides())
def test_any_masks(drawn):
    check(*drawn)


def test_masks_of_a_tile():
    masks = discs(np.random.default_rng(0), 30, (260, 200), (5, 90))
    check(masks[:13], masks[9:])


def test_pixels_beside_each_other_are_not_common():
    masks = np.zeros((4, 3, 4), bool)
    masks[0, :, 1], masks[1, :, 2], masks[2, 2, 1:3], masks[3, 0, 3] = True, True, True, True
    check(masks, masks)
    assert mask_ious(runs_of(masks), runs_of(masks))[0, 1] == 0


def test_runs_of_length_zero():
    runs = Runs.from_lengths([np.array([0, 0, 3, 0, 0, 2, 5, 0, 2]), np.array([3, 2, 7])], (4, 3))
    np.testing.assert_array_equal(mask_ious(runs, runs), np.ones((2, 2)))


def test_no_masks_and_no_pixels():
    some, none = runs_of(np.ones((2, 4, 5), bool)), runs_of(np.zeros((0, 4, 5), bool))
    assert mask_ious(some, none).shape == (2, 0) and mask_ious(none, some).shape == (0, 2)
    assert best_ious(some, none).tolist() == [0, 0] and best_ious(none, some).shape == (0,)
    nothing = runs_of(np.zeros((2, 0, 5), bool))
    assert mask_ious(nothing, nothing).tolist() == [[0, 0], [0, 0]]


def test_the_best_of_the_others():
    masks = np.zeros((3, 40, 50), bool)
    masks[0, :20], masks[1, 10:30], masks[2, 39] = True, True, True
    runs = runs_of(masks)
    assert best_ious(runs, runs).tolist() == [1, 1, 1]
    first, rest = runs.take(np.array([0])), runs.take(np.array([1, 2]))
    assert best_ious(first, rest).tolist() == [1 / 3]
    assert best_ious(rest, first).tolist() == [1 / 3, 0]


def test_masks_of_two_sizes_are_refused():
    with pytest.raises(ValueError, match=r"masks of \(4, 5\) .* masks of \(5, 4\)"):
        mask_ious(runs_of(np.ones((1, 4, 5), bool)), runs_of(np.ones((1, 5, 4), bool)))
