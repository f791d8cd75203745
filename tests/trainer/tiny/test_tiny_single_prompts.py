"""Boxes and several points as prompts of the training of `tiny`."""

import numpy as np
import pytest
import torch

from alps.trainer.tiny.prompts import Prompts
from alps.trainer.tiny.single_prompts import POINTS, single_prompts

SIDE, SIZE = 32, 128


def some_prompts(seed=0, images=2, points=10):
    """Rectangles that nest, some of them missing, and a point in the smallest."""
    rng = np.random.default_rng(seed)
    truth = np.zeros((images * points, 3, SIDE, SIDE), np.float32)
    xy = np.zeros((images * points, 2), np.float32)
    for row in range(len(truth)):
        y, x = rng.integers(4, SIDE - 8, 2)
        for level, grown in enumerate((0, 2, 4)):
            truth[row, level, y - grown : y + 4 + grown, x - grown : x + 4 + grown] = 1
        xy[row] = (x + 2) * 4, (y + 2) * 4
    valid = rng.random((len(truth), 3)) < 0.7
    valid[0], valid[1] = False, True
    return Prompts(
        torch.from_numpy(xy).view(images, points, 2),
        torch.from_numpy(truth),
        torch.from_numpy(valid),
    )


def draws(boxes, count=6):
    """Draws of one kind."""
    seed = 0
    while count:
        found = single_prompts(some_prompts(seed), SIZE, torch.Generator().manual_seed(seed))
        if found.boxes == boxes:
            count -= 1
            yield some_prompts(seed), found
        seed += 1


@pytest.mark.parametrize("boxes", [False, True])
def test_one_existing_mask_is_meant(boxes):
    for prompts, found in draws(boxes):
        assert found.truth.shape == (20, 1, SIDE, SIDE) and found.valid.shape == (20, 1)
        assert torch.equal(found.valid[:, 0], prompts.valid.any(1))
        for row in range(20):
            same = (prompts.truth[row] == found.truth[row]).flatten(1).all(1)
            assert (same & (prompts.valid[row] | ~found.valid[row])).any()


def test_boxes_lie_around_their_masks():
    for _, found in draws(True):
        assert found.xy.shape == (2, 10, 2, 2)
        for corners, truth, valid in zip(
            found.xy.flatten(0, 1), found.truth[:, 0], found.valid[:, 0], strict=True
        ):
            if not valid:
                continue
            ys, xs = np.nonzero(truth.numpy())
            low, high = np.array([xs.min(), ys.min()]) * 4, np.array([xs.max() + 1, ys.max() + 1])
            high = high * 4
            reach = 0.1 * (high - low) + 0.6
            assert (np.abs(corners[0].numpy() - low) <= reach).all()
            assert (np.abs(corners[1].numpy() - high) <= reach).all()


def test_points_are_in_the_mask_or_beside_it_as_their_labels_say():
    beside = 0
    for prompts, found in draws(False):
        assert found.xy.shape == (2, 10, POINTS, 2) and found.labels.shape == (2, 10, POINTS)
        assert torch.equal(found.xy[:, :, 0], prompts.xy) and (found.labels[:, :, 0] == 1).all()
        cells = (found.xy.flatten(0, 1) / 4).long()
        for row in range(20):
            if not found.valid[row, 0]:
                continue
            for point in range(1, POINTS):
                x, y = cells[row, point]
                inside = found.truth[row, 0, y, x] > 0
                assert inside == bool(found.labels.flatten(0, 1)[row, point])
                beside += not inside
    assert beside > 10


def test_masks_that_fill_the_tile_or_are_thin_do_not_fail():
    prompts = some_prompts()
    prompts.truth[1], prompts.truth[2] = 1, 0
    prompts.truth[2, :, 3, 5] = 0.25  # less than half of one pixel
    prompts.valid[1:3] = True
    for seed in range(8):
        found = single_prompts(prompts, SIZE, torch.Generator().manual_seed(seed))
        assert torch.isfinite(found.xy).all()
        if not found.boxes:
            assert (found.labels.flatten(0, 1)[1] == 1).all()


def test_the_same_generator_draws_the_same():
    a, b = (
        single_prompts(some_prompts(), SIZE, torch.Generator().manual_seed(4)) for _ in range(2)
    )
    assert a.boxes == b.boxes and torch.equal(a.xy, b.xy) and torch.equal(a.labels, b.labels)
