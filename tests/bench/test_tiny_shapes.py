"""The study of shapes of `tiny`: what each learns from can be made."""

import pytest

pytest.importorskip("skimage", reason="the study needs scikit-image: install alps-engine[dev]")
pytest.importorskip("onnx", reason="the backbone is read with onnx: install alps-engine[dev]")

from alps.bench.tiny.shapes import SHAPES, recipe_for
from alps.engine.demo.scenes import SceneSettings
from alps.trainer.tiny.recipe import PoolSettings, TrainSettings


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_what_it_learns_from_shows_the_same_ground(shape):
    recipe = recipe_for(shape.config, 10, TrainSettings(decoder_steps=7, images=2))
    usual, larger = PoolSettings(), shape.config.image_size / 512
    for side, known in zip(recipe.pool.crop_scale, usual.crop_scale, strict=True):
        assert side * larger == pytest.approx(known)
    for metres, known in zip(recipe.pool.scene_metres, usual.scene_metres, strict=True):
        scene = SceneSettings(metres_per_pixel=float(metres))  # refuses what it cannot draw
        assert scene.metres_per_pixel * larger == pytest.approx(known, rel=0.6)
    assert recipe.pool.crops + recipe.pool.scenes == 10
    assert recipe.train.balance_steps == 7 and recipe.train.joint_steps == 0
