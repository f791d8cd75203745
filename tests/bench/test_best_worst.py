"""The picture of a model's best and worst crops."""

import numpy as np
from PIL import Image

from alps.bench.tiny.best_worst import (
    SIDE,
    Crop,
    best_and_worst,
    draw_crop,
    write_picture,
)


def _crop(score: float) -> Crop:
    panel = np.full((8, 8, 3), int(100 * score), np.uint8)
    return Crop(score, panel, panel)


def test_a_mask_is_filled_with_its_mean_colour_and_the_smaller_lies_on_top():
    rgb = np.zeros((20, 20, 3), np.uint8)
    rgb[:, :10], rgb[:, 10:] = (10, 0, 0), (30, 0, 0)
    masks = np.zeros((2, 20, 20), bool)
    masks[0, 2:9, 2:9] = True
    masks[1, :, :16] = True
    truth = np.zeros((20, 20), np.int32)
    truth[5:, 5:] = 7
    drawn = draw_crop(rgb, masks, truth, 0.5)
    assert drawn.masks[5, 5].tolist() == [10, 0, 0]  # of the small mask
    assert drawn.masks[12, 12].tolist() == [17, 0, 0]  # 10 and 6 columns of two colours
    assert drawn.masks[2, 5].tolist() == [255, 240, 80]  # the small mask's outline
    assert drawn.masks[10, 18].tolist() == [0, 0, 0]  # no mask
    assert drawn.truth[0, 0].tolist() == [0, 0, 0]
    assert drawn.truth[10, 10].min() >= 60


def test_best_come_first_and_none_is_shown_twice():
    crops = [_crop(score) for score in (0.3, 0.9, 0.1, 0.5, 0.7)]
    assert [crop.score for crop in best_and_worst(crops, 2)] == [0.9, 0.7, 0.3, 0.1]
    assert [crop.score for crop in best_and_worst(crops, 4)] == [0.9, 0.7, 0.5, 0.3, 0.1]
    assert best_and_worst([], 4) == []


def test_pairs_are_laid_two_a_row(tmp_path):
    path = tmp_path / "new" / "picture.png"
    write_picture([_crop(score) for score in (0.9, 0.5, 0.2)], path)
    with Image.open(path) as picture:
        width, height = picture.size
    assert width > 4 * SIDE
    assert 2 * SIDE < height < 3 * SIDE
