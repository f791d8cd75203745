"""Everything mode: against the original, and what the pipeline needs beyond it."""

import numpy as np
import pytest
import torch
from stock_sam import original_generator, ours_like, picture, stock_sam

from alps.engine.everything import MaskGenerator

# Random weights are sure of nothing: their logits are small and their predicted IoU is anything.
LENIENT = {
    "points_per_side": 6,
    "points_per_batch": 10,
    "pred_iou_thresh": -9.0,
    "stability_score_thresh": 0.5,
    "stability_score_offset": 0.05,
    "box_nms_thresh": 0.95,
}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def stock():
    return stock_sam()


@pytest.fixture(scope="module")
def ours(stock):
    return ours_like(stock)


def both(stock, ours, image, **settings):
    settings = LENIENT | settings
    return (
        original_generator()(stock, **settings).generate(image),
        MaskGenerator(ours, **settings).generate(image),
    )


def assert_same_records(theirs, mine):
    assert len(theirs) == len(mine)
    for expected, got in zip(theirs, mine, strict=True):
        assert list(expected) == list(got)
        if isinstance(expected["segmentation"], dict):
            assert expected["segmentation"] == got["segmentation"]
        else:
            assert got["segmentation"].dtype == bool
            np.testing.assert_array_equal(expected["segmentation"], got["segmentation"])
        for name in ("area", "bbox", "crop_box", "point_coords"):
            assert expected[name] == got[name], name
        assert got["predicted_iou"] == pytest.approx(expected["predicted_iou"], abs=1e-5)
        assert got["stability_score"] == pytest.approx(
            expected["stability_score"], abs=1e-3, nan_ok=True
        )


@pytest.mark.parametrize(
    ("size", "settings"),
    [
        ((64, 64), {}),
        ((50, 70), {}),
        ((70, 50), {"output_mode": "uncompressed_rle"}),
        ((150, 90), {"output_mode": "coco_rle"}),
        ((64, 64), {"stability_score_thresh": 0.0}),
        ((50, 70), {"pred_iou_thresh": 2.0, "box_nms_thresh": 1.0}),
        ((50, 70), {"pred_iou_thresh": 0.0, "box_nms_thresh": 0.7}),
        ((130, 100), {"crop_n_layers": 1}),
        ((100, 131), {"crop_n_layers": 2, "crop_n_points_downscale_factor": 2}),
        (
            (100, 90),
            {
                "crop_n_layers": 1,
                "crop_overlap_ratio": 0.2,
                "crop_nms_thresh": 0.4,
                "box_nms_thresh": 0.7,
            },
        ),
        ((80, 70), {"min_mask_region_area": 30}),
        ((110, 90), {"min_mask_region_area": 200, "crop_n_layers": 1}),
        ((7, 5), {}),
        ((1, 9), {}),
    ],
)
def test_same_records_as_the_original(stock, ours, size, settings):
    theirs, mine = both(stock, ours, picture(*size), **settings)
    assert len(theirs) > 2  # else the comparison proves little
    assert_same_records(theirs, mine)


def test_point_grids_as_in_the_original(stock, ours):
    grid = np.array([[0.1, 0.2], [0.5, 0.9], [0.99, 0.01]])
    theirs, mine = both(stock, ours, picture(40, 60), points_per_side=None, point_grids=[grid])
    assert theirs
    assert_same_records(theirs, mine)
