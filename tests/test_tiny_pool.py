"""The training pool of `tiny`: goes on where it stopped, and belongs to its settings."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("skimage", reason="region merging needs scikit-image: install alps-engine[dev]")
pytest.importorskip("onnx", reason="the backbone is read with onnx: install alps-engine[dev]")

from speck import CONFIG

from alps.engine.errors import SettingsError
from alps.engine.sam import Sam
from alps.engine.scenes import SceneSettings, make_scene
from alps.engine.sources import find_sources
from alps.trainer.tiny import pool as pools
from alps.trainer.tiny.recipe import PoolSettings

SETTINGS = PoolSettings(scenes=2, crops=3, scene_metres=(0.4, 0.6))


@pytest.fixture
def sources(tmp_path):
    (tmp_path / "images").mkdir()
    for seed in (1, 2):
        image = make_scene(seed, SceneSettings(size=160)).image
        Image.fromarray(image).save(tmp_path / "images" / f"{seed}.png")
    return find_sources(tmp_path / "images")


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Sam(CONFIG)


def test_a_stopped_build_ends_the_same(tmp_path, sources, model, monkeypatch):
    whole = pools.build_pool(tmp_path / "whole", sources, model, SETTINGS)
    assert len(whole) == 5
    real, left = pools._encode, [3]

    def encode(*arguments):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(pools, "_encode", encode)
    with pytest.raises(KeyboardInterrupt):
        pools.build_pool(tmp_path / "stopped", sources, model, SETTINGS)
    monkeypatch.setattr(pools, "_encode", real)
    again = pools.build_pool(tmp_path / "stopped", sources, model, SETTINGS)
    for name in ("images", "levels", "tokens"):
        assert np.array_equal(getattr(whole, name), getattr(again, name))
    assert (whole.levels.reshape(5, 3, -1) > 0).all()


def test_other_settings_are_refused(tmp_path, sources, model):
    pools.build_pool(tmp_path / "pool", sources, model, SETTINGS)
    with pytest.raises(SettingsError, match="other pool settings"):
        pools.build_pool(tmp_path / "pool", sources, model, replace(SETTINGS, seed=1))
