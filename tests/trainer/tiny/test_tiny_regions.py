"""Masks that an image makes of itself: nested, connected, cut where merges are dear."""

from itertools import pairwise

import numpy as np
import pytest
from scipy import ndimage

pytest.importorskip("skimage", reason="region merging needs scikit-image: install alps-engine[dev]")

from alps.engine.demo.scenes import SceneSettings, make_scene
from alps.trainer.tiny.recipe import RegionSettings
from alps.trainer.tiny.regions import _cut, region_hierarchy


def assert_nested_and_connected(levels):
    for level in levels:
        assert set(np.unique(level)) == set(range(1, level.max() + 1))
        for number in range(1, level.max() + 1):  # superpixels may hang together by a corner
            assert ndimage.label(level == number, np.ones((3, 3)))[1] == 1
    for fine, coarse in pairwise(levels):
        pairs = {*zip(fine.ravel().tolist(), coarse.ravel().tolist(), strict=True)}
        assert len(pairs) == fine.max() and fine.max() >= coarse.max()


@pytest.mark.parametrize("seed", [0, 3, 4, 8])
@pytest.mark.parametrize("size", [(128, 128), (99, 126)])
def test_regions_are_nested_and_connected(seed, size):
    image = make_scene(seed, SceneSettings(size=128)).image[: size[0], : size[1]]
    features = np.random.default_rng(seed).normal(size=(8, 9, 5))
    cuts = (2.0, 4.5, 5.5, 6.25, 12.0)
    levels = region_hierarchy(image, features, RegionSettings(cuts=cuts))
    assert levels.shape == (5, *size) and levels.dtype == np.int32
    assert levels[0].max() > levels[2].max() > 1
    assert_nested_and_connected(levels)


def test_merges_that_come_too_cheap_afterwards_are_undone_too():
    """Ward's criterion along neighbours is not monotone: here 2 and 3 meet only through 0 and 1."""
    children = np.array([[0, 1], [4, 2], [5, 3]])
    assert _cut(children, np.array([10.0, 3.0, 4.0]), 4, 5.0).tolist() == [1, 2, 3, 4]
    assert _cut(children, np.array([2.0, 3.0, 4.0]), 4, 3.0).tolist() == [2, 2, 2, 1]
    assert len(set(_cut(children, np.array([10.0, 3.0, 4.0]), 4, 10.0))) == 1
    assert len(set(_cut(children, np.array([2.0, 3.0, 4.0]), 4, 1.0))) == 4


def test_an_image_of_one_colour_is_one_region():
    levels = region_hierarchy(np.full((64, 64, 3), 90, np.uint8), np.zeros((4, 4, 3)))
    assert levels.shape == (3, 64, 64) and (levels == 1).all()
