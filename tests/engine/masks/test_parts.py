"""Masks cut along edges of colour."""

import numpy as np
import pytest
from speck import CONFIG, DEFAULTS

from alps.engine.demo.scenes import SceneSettings, make_scene
from alps.engine.masks.generator import MaskGenerator
from alps.engine.masks.superpixel_parts import SLIVER, cut_masks
from alps.engine.sam import Sam
from alps.kernels.colour import lab_of
from alps.kernels.masks import coco
from alps.kernels.masks.pixels import masks_of, runs_of
from alps.kernels.paint import paint_order

PER_MEGAPIXEL = 1e6 / 16**2


def cut(masks, lab, valid=None, per_megapixel=PER_MEGAPIXEL):
    area = np.array([mask.sum() for mask in masks])
    counts = coco.encode(runs_of(np.array(masks)))
    order = paint_order(area, np.zeros(len(area)))
    parts = cut_masks(counts, order, lab, valid, per_megapixel)
    return masks_of(parts.runs), parts.mask


def grey(size=(64, 64)):
    return np.zeros((*size, 3), np.int16)


def test_parts_are_disjoint_and_leave_nothing_out():
    rng = np.random.default_rng(0)
    lab = rng.integers(0, 9000, (60, 70, 3)).astype(np.int16)
    valid = rng.random((60, 70)) < 0.8
    masks = [rng.random((60, 70)) < share for share in (0.9, 0.5, 0.1)]
    parts, mask = cut(masks, lab, valid)
    np.testing.assert_array_equal(parts.sum(0), valid)
    assert (parts.sum((1, 2)) > 0).all()
    assert set(mask.tolist()) <= {0, 1, 2, -1}
    named = mask[mask >= 0]
    assert (np.diff(named) >= 0).all() and (mask[len(named) :] == -1).all()


def test_large_shares_keep_the_outline_of_their_mask():
    """Half of a superpixel is no sliver: without colour to go by the mask decides."""
    half = np.zeros((64, 64), bool)
    half[:, :24] = True  # cuts the second column of superpixels in two
    parts, mask = cut([half], grey())
    np.testing.assert_array_equal(parts[mask == 0].any(0), half)
    assert (mask == -1).any()


def test_slivers_follow_colour():
    lab = grey()
    lab[:, 32:] = (9000, 0, 0)
    coarse = np.zeros((64, 64), bool)
    coarse[:, : 32 + int(16 * SLIVER) - 1] = True  # reaches over the edge a little
    parts, mask = cut([coarse], lab)
    exact = np.zeros((64, 64), bool)
    exact[:, :32] = True
    np.testing.assert_array_equal(parts[mask == 0].any(0), exact)


def test_a_mask_of_two_colours_comes_apart():
    lab = grey()
    lab[20:, :, 0] = 9000
    parts, mask = cut([np.ones((64, 64), bool)], lab)
    assert (mask == 0).all() and len(parts) > 1
    for part in parts:
        assert len(np.unique(lab[part, 0])) == 1


def test_the_smaller_mask_is_on_top():
    large, small = np.ones((64, 64), bool), np.zeros((64, 64), bool)
    small[:32, :32] = True
    parts, mask = cut([large, small], grey())
    np.testing.assert_array_equal(parts[mask == 1].any(0), small)


def test_a_hidden_mask_has_no_part():
    whole, left, right = np.ones((3, 64, 64), bool)
    left, right = left.copy(), right.copy()
    left[:, 32:], right[:, :32] = False, False
    assert set(cut([whole, left, right], grey())[1]) == {1, 2}


# --- in everything mode


@pytest.fixture(scope="module")
def generator(tmp_path_factory):
    from speck import save_speck

    from alps.engine.models.checkpoints import load_sam

    model, _ = load_sam(save_speck(tmp_path_factory.mktemp("model") / "speck.safetensors"))
    assert isinstance(model, Sam) and model.config == CONFIG
    return MaskGenerator(
        model,
        points_per_side=6,
        pred_iou_thresh=DEFAULTS.pred_iou_thresh,
        stability_score_thresh=DEFAULTS.stability_score_thresh,
        box_nms_thresh=DEFAULTS.box_nms_thresh,
    )


def test_parts_have_scores_and_embedding_of_their_mask(generator):
    image = make_scene(1, SceneSettings(size=128)).image
    valid = np.ones((128, 128), bool)
    valid[:10] = False
    # Small masks alone, so that something lies under none.
    whole = generator.segment(image, valid, max_area=0.3)
    parts = generator.segment(image, valid, max_area=0.3, superpixels=50_000)
    np.testing.assert_array_equal(whole.mask, np.arange(len(whole)))
    under = parts.mask >= 0
    own = parts.mask[under]
    for name in ("predicted_iou", "stability_score", "points", "embeddings", "centres"):
        of_mask, of_part = getattr(whole, name), getattr(parts, name)
        assert of_part.dtype == of_mask.dtype
        np.testing.assert_array_equal(of_part[under], of_mask[own])
    assert len(np.unique(own)) > 2  # so fine that several masks have parts
    rest = ~under
    first, size = parts.boxes[rest, :2], parts.boxes[rest, 2:]
    np.testing.assert_allclose(parts.centres[rest], first + size / 2)
    assert rest.any() and under.any()
    assert (parts.predicted_iou[rest] == 0).all() and np.isnan(parts.points[rest]).all()
    assert np.isfinite(parts.embeddings).all() and parts.embeddings[rest].any(1).all()
    masks = masks_of(coco.decode(parts.counts, parts.size))
    np.testing.assert_array_equal(masks.sum(0), valid)
    np.testing.assert_array_equal(masks.sum((1, 2)), parts.area)
    lab = lab_of(image) / 128
    for mask, colour in zip(masks, parts.colours, strict=True):
        np.testing.assert_allclose(colour[:3], lab[mask].mean(0), atol=1e-3)


def test_without_a_mask_there_is_no_part(generator):
    image = make_scene(1, SceneSettings(size=128)).image
    assert len(generator.segment(image, max_area=0.0, superpixels=2000)) == 0
