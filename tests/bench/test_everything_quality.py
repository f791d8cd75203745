"""How everything mode is scored against real objects."""

import numpy as np
import pytest

pytest.importorskip("skimage", reason="the rival is scikit-image's: install alps-engine[dev]")

from alps.bench.tiny.everything_quality import (
    SCALES,
    Tally,
    best_ious,
    best_ious_of_partition,
    felzenszwalb_beside,
    labelled_crops,
    scales_for,
    scene_crops,
)
from alps.bench.tiny.gate_table import prefixes


def some_truth(seed=0, side=48):
    """Blocks of 16 x 16 (256 px) with a strip of nothing, which cuts two, and a small speck."""
    blocks = np.arange(9).reshape(3, 3).repeat(16, 0).repeat(16, 1).astype(np.int32)
    blocks[:, :4] = 0
    blocks[20:24, 20:24] = 77
    return blocks


def naive(truth, masks):
    found = []
    for identity in np.unique(truth[truth > 0]):
        real = truth == identity
        if real.sum() >= 200:
            found.append(max([(m & real).sum() / (m | real).sum() for m in masks], default=0.0))
    return np.array(found)


def test_best_ious_pixel_by_pixel():
    rng = np.random.default_rng(0)
    truth = some_truth()
    masks = [rng.random(truth.shape) < share for share in (0.1, 0.5, 0.9)]
    masks += [truth == 2, (truth == 5) | (truth == 8), np.zeros(truth.shape, bool)]
    expected = naive(truth, masks)
    assert len(expected) == 6  # nothing, what nothing cuts, and the speck do not count
    np.testing.assert_allclose(best_ious(truth, np.stack(masks)), expected)
    assert expected.max() == 1 and expected.min() < 0.6


def test_no_masks_find_nothing():
    truth = some_truth()
    found = best_ious(truth, np.zeros((0, *truth.shape), bool))
    assert found.shape == (6,) and (found == 0).all()


def test_a_partition_is_its_regions_as_masks():
    rng = np.random.default_rng(1)
    truth = some_truth()
    labels = rng.integers(0, 3, truth.shape) + 3 * (truth % 4)
    masks = np.stack([labels == region for region in range(labels.max() + 1)])
    np.testing.assert_allclose(best_ious_of_partition(truth, labels), best_ious(truth, masks))


def test_scales_are_chosen_for_the_number_of_masks():
    counts = [2 ** (13 - place) for place in range(13)]
    for first in range(9):
        total = sum(counts[first + step] for step in (0, 2, 4))
        assert scales_for(counts, total) == (first, first + 2, first + 4)
        assert scales_for(counts, total + 1) == (first, first + 2, first + 4)
    assert scales_for(counts, 10**9)[0] == 0 and scales_for(counts, 0)[-1] == 12


def test_the_rival_finds_plain_blocks():
    truth = some_truth()
    rgb = np.random.default_rng(2).integers(0, 255, (100, 3)).astype(np.uint8)[truth]
    segments, best = felzenszwalb_beside(rgb, truth, masks=30)
    assert segments >= 3 and len(best) == 6 and best.mean() > 0.8
    assert len(SCALES) >= 5


def test_scenes_come_with_their_objects():
    (image, truth), (other, _) = scene_crops(2, 64)
    assert image.shape == (64, 64, 3) and truth.shape == (64, 64) and truth.min() >= 1
    assert not np.array_equal(image, other)


def test_images_are_cut_into_squares(tmp_path):
    from PIL import Image

    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    rgb = np.random.default_rng(3).integers(0, 255, (40, 70, 3)).astype(np.uint8)
    classes = np.full((40, 70), 255, np.uint8)
    classes[5:20, 3:30] = 1
    Image.fromarray(rgb).save(tmp_path / "images" / "a.png")
    Image.fromarray(classes).save(tmp_path / "labels" / "a.png")
    crops = list(labelled_crops(str(tmp_path / "images"), str(tmp_path / "labels"), 32))
    assert [image.shape for image, _ in crops] == [(32, 32, 3)] * 2
    assert np.array_equal(crops[1][0], rgb[:32, 32:64])
    assert (crops[0][1] > 0).sum() == 15 * 27 and not (crops[1][1] > 0).any()
    # Images smaller than the crop are taken whole where they are square enough.
    assert len(list(labelled_crops(str(tmp_path / "images"), str(tmp_path / "labels"), 64))) == 1


def test_the_summary_says_what_was_counted():
    tally = Tally(masks=[2, 4], coverage=[0.5, 1.0], best=[0.25, 0.5, 0.75])
    assert "3.0 masks" in tally.line("x") and "0.750" in tally.line("x")
    assert "0.500 (3 true segments, 2 crops)" in tally.line("x")


def test_what_is_left_behind_each_threshold():
    """As if every threshold had been tried by itself."""
    rng = np.random.default_rng(3)
    truth = np.kron(rng.integers(0, 5, (4, 4)), np.ones((16, 16), int))
    corners = rng.integers(0, 40, (12, 2))
    masks = np.zeros((12, 64, 64), bool)
    for mask, (y, x) in zip(masks, corners, strict=True):
        mask[y : y + 24, x : x + 24] = True
    predicted = np.sort(rng.random(12))[::-1]
    thresholds = (0.0, 0.3, 0.6, 1.0)
    found = prefixes(truth, masks, predicted, thresholds)
    for threshold, (count, coverage, ious) in zip(thresholds, found, strict=True):
        own = masks[predicted > threshold]
        assert count == len(own)
        assert coverage == pytest.approx(own.any(0).mean() if len(own) else 0)
        np.testing.assert_array_equal(ious, best_ious(truth, own))
    assert found[0][2].max() > 0.2 and not found[-1][2].any()
