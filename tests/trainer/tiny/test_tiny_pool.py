"""The training pool of `tiny`: goes on where it stopped, and belongs to its settings."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("skimage", reason="region merging needs scikit-image: install alps-engine[dev]")
pytest.importorskip("onnx", reason="the backbone is read with onnx: install alps-engine[dev]")

from speck import CONFIG

from alps.engine.base.errors import SettingsError
from alps.engine.images.sources import find_sources
from alps.engine.sam import Sam
from alps.trainer.tiny import pool as pools
from alps.trainer.tiny.crops import Cropper
from alps.trainer.tiny.pool import PoolMaker, build_pool
from alps.trainer.tiny.recipe import PoolSettings

SETTINGS = PoolSettings(scenes=2, crops=3, scene_metres=(0.4, 0.6))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Sam(CONFIG)


def test_a_stopped_build_ends_the_same(tmp_path, scene_sources, model, monkeypatch):
    maker = PoolMaker(scene_sources, model, SETTINGS)
    whole = build_pool(tmp_path / "whole", maker)
    assert len(whole) == 5
    real, left = pools._put, [3]

    def put(*arguments):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(pools, "_put", put)
    monkeypatch.setattr(pools, "_KEPT_EVERY", 2)
    with pytest.raises(KeyboardInterrupt):
        build_pool(tmp_path / "stopped", maker)
    made = []
    monkeypatch.setattr(pools, "_put", lambda *given: made.append(given[1]) or real(*given))
    assert_same(whole, build_pool(tmp_path / "stopped", maker))
    assert made == [2, 3, 4]
    assert (whole.levels.reshape(5, 3, -1) > 0).all()


def assert_same(one, two):
    assert np.array_equal(one.images, two.images) and np.array_equal(one.levels, two.levels)


@pytest.mark.slow
def test_several_processes_make_the_same(tmp_path, scene_sources, model):
    maker = PoolMaker(scene_sources, model, SETTINGS)
    alone, together = (build_pool(tmp_path / str(n), maker, workers=n) for n in (1, 2))
    assert_same(alone, together)
    assert_same(alone, build_pool(tmp_path / "2", maker, workers=2))  # nothing is left to do


def test_other_settings_are_refused(tmp_path, scene_sources, model):
    build_pool(tmp_path / "pool", PoolMaker(scene_sources, model, SETTINGS))
    with pytest.raises(SettingsError, match="other pool settings"):
        build_pool(tmp_path / "pool", PoolMaker(scene_sources, model, replace(SETTINGS, seed=1)))


@pytest.mark.slow
def test_labels_take_the_place_of_the_coarsest_regions(tmp_path, scene_sources, model):
    """Half of each image is one class, the other unknown; labels of no image do no harm."""
    (tmp_path / "labels").mkdir()
    classes = np.full((160, 160), 255, np.uint8)
    classes[:, :80] = 3
    for name in ("1", "stray"):
        Image.fromarray(classes).save(tmp_path / "labels" / f"{name}.tif")
    labels = find_sources(tmp_path / "labels")
    settings = replace(SETTINGS, crops=12, labelled=1.0)
    plain = build_pool(tmp_path / "plain", PoolMaker(scene_sources, model, settings))
    found = build_pool(tmp_path / "labelled", PoolMaker(scene_sources, model, settings, labels))
    assert np.array_equal(plain.images, found.images)
    assert np.array_equal(plain.levels[:, :2], found.levels[:, :2])
    changed = [not np.array_equal(*pair) for pair in zip(plain.levels, found.levels, strict=True)]
    assert 0 < sum(changed) < 12
    cropper = Cropper(scene_sources, 128, settings, labels)
    for index in np.flatnonzero(changed):
        _, pieces = cropper.crop(int(index))
        inside = (pieces > 0)[::2, ::2]  # 128 px of input, 64 of levels
        assert len(np.unique(found.levels[index, 2][inside])) == 1
        assert np.array_equal(found.levels[index, 2][~inside], plain.levels[index, 2][~inside])


def test_labels_turn_with_their_image(tmp_path, model):
    """An image that is its own labels stays so in every crop."""
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 2, (10, 10)).astype(np.uint8).repeat(20, 0).repeat(20, 1)
    Image.fromarray(classes * 200).convert("RGB").save(tmp_path / "images" / "a.png")
    (tmp_path / "labels").mkdir()
    Image.fromarray(np.where(classes, 7, 255).astype(np.uint8)).save(tmp_path / "labels" / "a.png")
    cropper = Cropper(
        find_sources(tmp_path / "images"), 128, replace(SETTINGS, labelled=1.0),
        find_sources(tmp_path / "labels"),
    )  # fmt: skip
    for index in range(8):
        image, pieces = cropper.crop(index)
        assert ((image[..., 0] > 100) == (pieces > 0)).mean() > 0.95  # edges are interpolated


def test_some_crops_of_labelled_images_go_without(tmp_path, scene_sources, model):
    (tmp_path / "labels").mkdir()
    for name in ("1", "2"):
        Image.fromarray(np.ones((160, 160), np.uint8)).save(tmp_path / "labels" / f"{name}.png")
    cropper = Cropper(
        scene_sources, 128, replace(SETTINGS, labelled=0.5), find_sources(tmp_path / "labels")
    )
    used = [cropper.crop(index)[1] is not None for index in range(20)]
    assert 3 < sum(used) < 17
