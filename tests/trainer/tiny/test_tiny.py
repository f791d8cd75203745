"""The shipped model: there, small, and good for labels that beat chance by far."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open

from alps.engine.demo.run import run_demo
from alps.engine.demo.scenes import SceneSettings, make_scene
from alps.engine.masks.generator import MaskGenerator
from alps.engine.models.checkpoints import load_sam
from alps.engine.models.registry import find_model
from alps.engine.settings import RunSettings
from alps.kernels.masks import coco
from alps.kernels.masks.pixels import masks_of


@pytest.fixture(scope="module")
def tiny():
    return load_sam(find_model("tiny"), name="tiny")


def test_ships_small_and_float16():
    path = find_model("tiny")
    assert path.stat().st_size <= 25_000_000
    assert (path.parent / "tiny.md").exists()
    with safe_open(path, "pt") as file:
        kinds = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    wide = {name for name, kind in kinds.items() if kind != "F16"}
    assert wide <= {"prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"}
    assert json.loads(metadata["alps.config"])["image_size"] == 512


def test_thresholds_travel_with_it(tiny):
    _, info = tiny
    given = info.defaults.given()
    assert {"points_per_side", "pred_iou_thresh", "stability_score_thresh", "tile"} <= set(given)
    settings = RunSettings().for_model(info.defaults)
    assert settings.segment.pred_iou_thresh == given["pred_iou_thresh"]
    assert settings.source.tile == given["tile"] == info.config.image_size


@pytest.mark.slow
def test_everything_mode_covers_a_scene_with_masks_that_fit_it(tiny):
    """The masks fit exact objects much better than the same masks laid elsewhere do."""
    model, info = tiny
    settings = RunSettings().for_model(info.defaults).segment
    scene = make_scene(2**31 + 77, SceneSettings(size=512, metres_per_pixel=0.5))
    generator = MaskGenerator(
        model,
        points_per_side=12,
        pred_iou_thresh=settings.pred_iou_thresh,
        stability_score_thresh=settings.stability_score_thresh,
        stability_score_offset=settings.stability_score_offset,
        box_nms_thresh=settings.box_nms_thresh,
    )
    segments = generator.segment(scene.image, max_area=settings.max_area)
    masks = masks_of(coco.decode(segments.counts, segments.size))
    assert masks.any(0).mean() > 0.5
    assert torch.isfinite(torch.from_numpy(segments.embeddings)).all()

    ids, areas = np.unique(scene.segments, return_counts=True)
    objects = np.stack([scene.segments == i for i in ids[areas >= 2000]])
    fit = _best_iou(objects, masks)
    elsewhere = _best_iou(objects, np.roll(masks, (256, 256), (1, 2)))
    assert fit > 1.5 * elsewhere


def _best_iou(objects, masks):
    objects, masks = (x.reshape(len(x), -1).astype(np.float32) for x in (objects, masks))
    both = objects @ masks.T
    union = objects.sum(1)[:, None] + masks.sum(1) - both
    return float((both / union).max(1).mean())


@pytest.mark.slow
def test_demo_labels_and_scores(tmp_path):
    found = run_demo(tmp_path / "demo", scenes=1, seed=3, model="tiny", device="cpu")
    assert found.summary.sources == 1 and found.summary.tiles.keys() <= {"ok", "empty"}
    assert found.quality.coverage == pytest.approx(found.summary.labelled, abs=0.05)
    assert 0 < found.quality.miou <= 1 and found.quality.purity > 0.3
    page = (tmp_path / "demo" / "run" / "report" / "index.html").read_text(encoding="utf-8")
    assert "How right are the labels" in page
