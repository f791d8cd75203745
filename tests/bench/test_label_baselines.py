"""The baselines of the quality table: SLIC and Felzenszwalb segments, colours clustered."""

import sys

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from alps.bench.labels.baselines import (
    METHODS,
    BaselineSettings,
    label_by_colour,
    main,
    mean_colours,
    segment_image,
)
from alps.engine.base.errors import RunFolderError, SettingsError, SourceError
from alps.engine.quality.measure import measure_quality
from alps.engine.quality.settings import QualitySettings

COLOURS = np.array([[30, 90, 40], [150, 150, 155], [180, 90, 60], [20, 40, 120]], np.uint8)
SMALL = dict(clusters=4, segments_per_megapixel=40000, min_size=20)


@pytest.fixture
def archive(tmp_path):
    """Two noisy images of four flat colours, and their true classes."""
    rng = np.random.default_rng(1)
    for name, shape in [("a.png", (64, 48)), ("sub/b.tif", (40, 72))]:
        classes = np.kron(rng.integers(0, 4, (shape[0] // 8, shape[1] // 8)), np.ones((8, 8), int))
        image = COLOURS[classes] + rng.integers(0, 6, (*shape, 3))
        for folder, array in [("images", image), ("truth", classes)]:
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array.astype(np.uint8)).save(path)
    return tmp_path


@pytest.mark.parametrize("method", METHODS)
def test_flat_colours_are_found_again(archive, method):
    pytest.importorskip("skimage")
    settings = BaselineSettings(method=method, **SMALL)
    label_by_colour(str(archive / "images"), archive / "out", settings)
    result = measure_quality(archive / "out", archive / "truth", QualitySettings())
    assert (result.images, result.coverage, len(result.mapping)) == (2, 1, 4)
    assert result.miou > 0.85
    assert sorted(p.name for p in (archive / "out").iterdir()) == ["labels"]
    label_by_colour(str(archive / "images"), archive / "again", settings)
    for name in ["a.png", "sub/b.tif"]:
        first = (archive / "out/labels" / name).read_bytes()
        assert first == (archive / "again/labels" / name).read_bytes()


@pytest.mark.parametrize("method", METHODS)
def test_segments_are_numbered_without_gaps(method):
    pytest.importorskip("skimage")
    image = np.random.default_rng(2).integers(0, 255, (30, 41, 3), dtype=np.uint8)
    segments = segment_image(image, BaselineSettings(method=method, **SMALL))
    assert segments.shape == (30, 41)
    assert np.array_equal(np.unique(segments), np.arange(segments.max() + 1))


def test_mean_colours_are_means_of_lab():
    color = pytest.importorskip("skimage.color")
    rng = np.random.default_rng(3)
    image = rng.integers(0, 255, (9, 11, 3), dtype=np.uint8)
    segments = np.arange(99).reshape(9, 11) % 4
    valid = rng.random((9, 11)) < 0.7
    segments[0, 0], valid[0, 0] = 4, False  # a segment of nothing but nodata
    means, pixels = mean_colours(image, segments, valid)
    lab = color.rgb2lab(image)
    expected = np.array([lab[valid & (segments == i)].mean(axis=0) for i in range(4)])
    assert means[:4] == pytest.approx(expected, rel=1e-5)
    assert pixels.tolist() == [*(int(np.sum(valid & (segments == i))) for i in range(4)), 0]


def test_nodata_is_unlabelled(archive):
    pytest.importorskip("skimage")
    alpha = np.full((32, 32), 255, np.uint8)
    alpha[:8] = 0
    noise = np.random.default_rng(4).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    folder = archive / "alpha"
    folder.mkdir()
    Image.fromarray(np.dstack([noise, alpha])).save(folder / "a.png")
    settings = BaselineSettings(method="felzenszwalb", clusters=3, min_size=4, scale=1)
    label_by_colour(str(folder), archive / "out", settings)
    labels = np.asarray(Image.open(archive / "out/labels/a.png"))
    assert (labels[:8] == 255).all() and (labels[8:] < 3).all()


def test_what_cannot_work_says_why(archive, monkeypatch):
    pytest.importorskip("skimage")
    images = str(archive / "images")
    with pytest.raises(SettingsError, match="more than the"):
        label_by_colour(images, archive / "out", BaselineSettings(clusters=65000))
    (archive / "images/c.png").write_bytes(b"no image")
    with pytest.raises(SourceError, match=r"c\.png"):
        label_by_colour(images, archive / "out", BaselineSettings(**SMALL))
    (archive / "full/labels").mkdir(parents=True)
    (archive / "full/labels/old.png").touch()
    with pytest.raises(RunFolderError, match="not empty"):
        label_by_colour(images, archive / "full", BaselineSettings(**SMALL))
    monkeypatch.setitem(sys.modules, "skimage.segmentation", None)
    failed = CliRunner().invoke(main, [images, str(archive / "out")])
    assert failed.exit_code == 1 and "extra `dev`" in failed.output
