"""The scenes generator: exact partitions, determinism, and sizes in metres."""

import numpy as np
import pytest

from alps.engine.base.errors import SettingsError
from alps.engine.demo.scenes import (
    CLASS_COLOURS,
    CLASS_NAMES,
    KINDS,
    Scene,
    SceneSettings,
    make_scene,
)
from alps.engine.demo.scenes.labels import components

SIZE = 192


def _shares_by_class(scene: Scene) -> dict[str, float]:
    counts = np.bincount(scene.classes.ravel(), minlength=len(CLASS_NAMES))
    return dict(zip(CLASS_NAMES, counts / counts.sum(), strict=True))


def _assert_partition(scene: Scene, size: int) -> None:
    assert scene.image.shape == (size, size, 3)
    assert scene.image.dtype == np.uint8
    assert scene.classes.shape == (size, size)
    assert scene.classes.dtype == np.uint8
    assert scene.classes.max() < len(CLASS_NAMES)
    for labels in (scene.segments, scene.parts):
        assert labels.shape == (size, size)
        assert labels.dtype == np.int32
        ids = np.unique(labels)
        np.testing.assert_array_equal(ids, np.arange(1, len(ids) + 1))
    # One class a segment, one segment a part: as many pairs as ids.
    pairs = np.unique(np.stack([scene.segments, scene.classes], -1).reshape(-1, 2), axis=0)
    assert len(pairs) == scene.segments.max()
    pairs = np.unique(np.stack([scene.parts, scene.segments], -1).reshape(-1, 2), axis=0)
    assert len(pairs) == scene.parts.max()


def test_every_class_has_a_colour_of_its_own():
    assert len(set(CLASS_COLOURS)) == len(CLASS_NAMES) == len(set(CLASS_NAMES))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metres_per_pixel", [0.1, 0.5, 5.0])
def test_scene_is_a_partition_into_connected_segments(kind, metres_per_pixel):
    for seed in range(2):
        scene = make_scene(seed, SceneSettings(SIZE, metres_per_pixel, kind))
        _assert_partition(scene, SIZE)
        assert scene.kind == kind
        assert scene.metres_per_pixel == metres_per_pixel
        pieces = components(scene.segments)
        assert pieces.max() == scene.segments.max()
        assert scene.image.std() > 3


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_many_segments_and_several_classes(kind):
    for seed in range(3):
        scene = make_scene(seed, SceneSettings(256, 0.5, kind))
        assert scene.segments.max() >= 8
        assert (np.array(list(_shares_by_class(scene).values())) > 0.002).sum() >= 3


def test_same_seed_same_bytes_and_other_seed_other_bytes():
    settings = SceneSettings(SIZE, 0.4)
    first, again, other = make_scene(7, settings), make_scene(7, settings), make_scene(8, settings)
    assert first.kind == again.kind
    for name in ("image", "classes", "segments", "parts"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert not np.array_equal(first.image, other.image)


def test_global_random_state_is_neither_read_nor_changed():
    np.random.seed(1)
    before = np.random.get_state()[1].copy()
    first = make_scene(3, SceneSettings(64))
    np.testing.assert_array_equal(np.random.get_state()[1], before)
    np.random.seed(2)
    np.testing.assert_array_equal(make_scene(3, SceneSettings(64)).image, first.image)


def test_the_seed_chooses_among_all_kinds():
    assert {make_scene(seed, SceneSettings(32)).kind for seed in range(60)} == set(KINDS)


@pytest.mark.parametrize("size", [32, 64, 101, 300])
def test_odd_and_small_sizes(size):
    for kind in ("suburb", "farmland"):
        _assert_partition(make_scene(1, SceneSettings(size, 0.5, kind)), size)


def test_vehicles_vanish_when_they_are_smaller_than_a_pixel():
    for kind in ("city", "industrial", "suburb"):
        fine = make_scene(5, SceneSettings(256, 0.3, kind))
        coarse = make_scene(5, SceneSettings(256, 5.0, kind))
        assert _shares_by_class(fine)["vehicle"] > 0
        assert _shares_by_class(coarse)["vehicle"] == 0


def test_a_house_covers_as_many_square_metres_at_any_resolution():
    for metres_per_pixel in (0.2, 0.5):
        areas = []
        for seed in range(3):
            scene = make_scene(seed, SceneSettings(320, metres_per_pixel, "suburb"))
            classes = np.zeros(scene.segments.max() + 1, int)
            classes[scene.segments] = scene.classes
            pixels = np.bincount(scene.segments.ravel())
            areas.extend(pixels[classes == CLASS_NAMES.index("building")] * metres_per_pixel**2)
        assert 20 < np.median(areas) < 350


def test_roofs_have_faces():
    scene = make_scene(2, SceneSettings(256, 0.3, "suburb"))
    building = scene.classes == CLASS_NAMES.index("building")
    houses = len(np.unique(scene.segments[building]))
    assert len(np.unique(scene.parts[building])) > 1.5 * houses


def test_image_follows_the_labels():
    """Neighbours in one part differ less than neighbours across a border of segments."""
    scene = make_scene(4, SceneSettings(256, 0.5, "suburb"))
    grey = scene.image.astype(float).mean(axis=-1)
    step = np.abs(np.diff(grey, axis=1))
    border = scene.segments[:, 1:] != scene.segments[:, :-1]
    inside = scene.parts[:, 1:] == scene.parts[:, :-1]
    assert step[border].mean() > 1.5 * step[inside].mean()


@pytest.mark.parametrize(
    "bad",
    [
        {"size": 8},
        {"size": 10**6},
        {"size": 64.5},
        {"metres_per_pixel": 0.0},
        {"metres_per_pixel": float("nan")},
        {"metres_per_pixel": 100.0},
        {"kind": "moon"},
    ],
)
def test_bad_settings_are_refused(bad):
    with pytest.raises(SettingsError, match=str(next(iter(bad)))):
        SceneSettings(**bad)


def test_negative_seed_is_refused():
    with pytest.raises(SettingsError, match="seed"):
        make_scene(-1)
