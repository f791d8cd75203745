"""Scenes made of images, and label maps of runs beside each other."""

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from PIL import Image

from alps.bench.labels.large import CELL, make_scene, middle_of_river
from alps.bench.labels.side_by_side import GAP, label_map, main

WIDTH, HEIGHT = CELL + 100, CELL + 60


@pytest.fixture
def image(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "a.png"
    Image.fromarray(rng.integers(120, 200, (CELL, CELL, 3), np.uint8)).save(path)
    return path


def test_a_scene_has_its_size_its_place_and_a_river(tmp_path, image):
    for name in ("one.tif", "other.tif"):
        make_scene(tmp_path / name, [image], (WIDTH, HEIGHT))
    assert (tmp_path / "one.tif").read_bytes() == (tmp_path / "other.tif").read_bytes()
    with rasterio.open(tmp_path / "one.tif") as file:
        rgb = file.read().astype(int)
        assert file.crs.to_epsg() == 32640 and (file.width, file.height) == (WIDTH, HEIGHT)
    x = np.arange(WIDTH)
    y = middle_of_river(x, (WIDTH, HEIGHT)).round().astype(int)
    water = rgb[:, y, x]
    assert np.abs(water.mean(1) - (28, 60, 92)).max() < 5
    assert rgb[0, (y + HEIGHT // 2) % HEIGHT, x].mean() > 70  # land elsewhere


def run_with(root, labels):
    """A run's folder with one label map, of two classes and what has none."""
    (root / "labels").mkdir(parents=True)
    picture = Image.fromarray(labels, "P")
    picture.putpalette([255, 0, 0, 0, 0, 255])
    picture.save(root / "labels" / "a.png")
    return root


def test_maps_stand_beside_their_image(tmp_path, image):
    labels = np.zeros((CELL, CELL), np.uint8)
    labels[:, CELL // 2 :] = 1
    runs = [run_with(tmp_path / name, labels) for name in ("before", "after")]
    found = label_map(runs[0], image)
    assert found[0, 0].tolist() == [255, 0, 0] and found[0, -1].tolist() == [0, 0, 255]
    target = tmp_path / "picture.png"
    words = [str(target), *map(str, runs), "--side", "64"]
    done = CliRunner().invoke(main, [*words, "--image", str(image), "--maps-of", str(image)])
    assert done.exit_code == 0, done.output
    drawn = np.asarray(Image.open(target).convert("RGB")).astype(int)
    assert drawn.shape == (2 * 64 + GAP, 3 * 64 + 2 * GAP, 3)
    assert (drawn[64 + GAP :, :64] == 255).all() and (drawn[:64, :64] < 255).all()
    assert drawn[5, 64 + GAP + 5].tolist() == drawn[5, 2 * (64 + GAP) + 5].tolist() == [255, 0, 0]


def test_an_image_without_a_map_is_named(tmp_path, image):
    run = run_with(tmp_path / "run", np.zeros((4, 4), np.uint8))
    other = tmp_path / "b.png"
    other.write_bytes(image.read_bytes())
    words = [str(tmp_path / "picture.png"), str(run), "--image", str(other)]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 1 and "has no label map of b.png" in done.output
