"""Limits of the gate, to the pixel: areas, edges of crops, small regions."""

import numpy as np
import pytest
import torch
from speck import CONFIG

from alps.engine.masks.crops import Crop
from alps.engine.masks.gate import (
    EDGE_PIXELS,
    Candidates,
    Gate,
    candidates_of,
    cut_off,
    without_small_regions,
)
from alps.engine.masks.generator import MaskGenerator
from alps.engine.masks.settings import EverythingSettings
from alps.engine.runtimes.protocol import DecodedMasks
from alps.engine.sam import Sam
from alps.kernels.masks.pixels import mask_of, runs_of

WHOLE = (300, 400)  # height, width
CROP = Crop(100, 0, 300, 150, 1)  # touches the image's upper edge alone


def test_areas_on_the_limits_pass():
    gate = Gate(min_area=10, max_area=20)
    assert gate.passes(np.array([9, 10, 20, 21])).tolist() == [False, True, True, False]


@pytest.mark.parametrize(
    ("box", "is_cut"),
    [
        ((120, 50, 250, 100), True),  # EDGE_PIXELS from the left edge
        ((121, 50, 250, 100), False),
        ((150, 50, 280, 100), True),  # and from the right one
        ((150, 50, 279, 100), False),
        ((150, 50, 250, 130), True),
        ((150, 50, 250, 129), False),
        ((150, 0, 250, 100), False),  # this edge is the image's
    ],
)
def test_boxes_near_an_edge_of_the_crop_are_cut_off(box, is_cut):
    assert EDGE_PIXELS == 20
    assert cut_off(np.array([box]), CROP, WHOLE).tolist() == [is_cut]


def with_regions(*sizes):
    """A mask of rows, one of each of these numbers of pixels, far apart."""
    mask = np.zeros((4 * len(sizes), 40), bool)
    for row, size in enumerate(sizes):
        mask[4 * row, :size] = True
    return mask


def test_islands_of_the_least_area_stay():
    mask = with_regions(9, 10, 30)
    left = without_small_regions(mask, 10)
    assert (left == with_regions(0, 10, 30)).all()
    assert without_small_regions(mask, 9) is mask


def test_holes_of_the_least_area_stay():
    holes = with_regions(9, 10)
    mask = ~np.pad(holes, 3)
    left = without_small_regions(mask, 10)
    assert (left == ~np.pad(with_regions(0, 10), 3)).all()
    assert without_small_regions(mask, 9) is mask


def test_of_islands_that_are_all_too_small_the_largest_stays():
    assert (without_small_regions(with_regions(4, 9, 5), 100) == with_regions(0, 9, 0)).all()


def test_regions_that_touch_at_a_corner_are_one():
    mask = np.zeros((20, 20), bool)
    mask[2:5, 2:5] = mask[5:8, 5:8] = True
    assert without_small_regions(mask, 18) is mask


def test_a_filled_hole_takes_in_no_nodata():
    torch.manual_seed(0)
    generator = MaskGenerator(Sam(CONFIG), points_per_side=2, min_mask_region_area=20)
    mask = np.zeros((30, 30), bool)
    mask[5:25, 5:25] = True
    valid = np.ones((30, 30), bool)
    valid[10:12, 10:12] = False  # within one of two holes
    mask[10:13, 10:14] = mask[18:20, 18:20] = False
    before = Candidates(
        runs=runs_of(mask[None]),
        boxes=np.array([[5, 5, 24, 24]]),
        area=np.array([mask.sum()]),
        predicted_iou=np.ones(1, np.float32),
        stability_score=np.ones(1, np.float32),
        points=np.zeros((1, 2)),
        crop=np.zeros(1, np.int64),
    )
    after = generator._without_small_regions(before, Gate(valid))
    expected = mask | valid & np.pad(np.ones((20, 20), bool), 5)
    np.testing.assert_array_equal(mask_of(after.runs, 0), expected)
    assert after.area.tolist() == [400 - 4]


def test_masks_carry_their_own_point_and_score():
    """The second of three masks is empty and goes; the others keep what is theirs."""
    logits = torch.full((3, 8, 8), -5.0)
    logits[0, :2], logits[2, 4:] = 5.0, 5.0
    decoded = DecodedMasks(
        logits=logits,
        predicted_iou=torch.tensor([0.9, 0.8, 0.7]),
        point_index=torch.tensor([2, 0, 1]),
    )
    points = np.array([[1.0, 1.0], [2.0, 6.0], [3.0, 0.0]])
    found = candidates_of(
        decoded,
        points,
        Crop(0, 0, 32, 32, 0),
        EverythingSettings(stability_score_thresh=0.0),
        Gate(min_area=1),
        image_size=32,
        crop_index=4,
        whole=(32, 32),
    )
    assert found.predicted_iou.tolist() == pytest.approx([0.9, 0.7])
    assert found.points.tolist() == [[3.0, 0.0], [2.0, 6.0]]
    assert found.crop.tolist() == [4, 4]
    assert found.boxes[:, 1].tolist() == [0, found.boxes[1, 1]] and found.boxes[1, 1] > 10
