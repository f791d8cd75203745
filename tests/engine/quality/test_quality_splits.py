"""Quality beyond one table: folds, outlines, the picture, and mismatches named together."""

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from scipy import ndimage

from alps.engine.base.errors import SettingsError, SourceError
from alps.engine.cli.quality import quality, quality_text
from alps.engine.quality import boundaries as boundaries_module
from alps.engine.quality.boundaries import BoundaryCounts, boundaries, boundary_counts
from alps.engine.quality.measure import class_ious, majority_mapping, measure_quality
from alps.engine.quality.settings import QualitySettings
from alps.engine.quality.truth import LabelPair, TruthRules


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array, np.uint8)).save(path)


@pytest.fixture
def maps(tmp_path):
    """Seven label maps of 9 pseudo-classes and truths of 3 classes that depend on them."""
    rng = np.random.default_rng(0)
    pairs = []
    for index in range(7):
        labels = rng.integers(0, 9, (20, 30))
        truth = np.where(rng.random((20, 30)) < 0.5, (labels + index // 4) % 3, rng.integers(0, 3))
        labels[rng.random((20, 30)) < 0.1] = 255
        save(tmp_path / "labels" / f"{index}.png", labels)
        save(tmp_path / "truth" / f"{index}.png", truth)
        pairs.append((labels, truth))
    return tmp_path / "labels", tmp_path / "truth", pairs


def counts_of(pairs):
    counts = np.zeros((3, 256), np.int64)
    for labels, truth in pairs:
        np.add.at(counts, (truth.ravel(), labels.ravel()), 1)
    return counts[:, :9], counts[:, 255]


def test_as_many_folds_as_images_leave_one_out(maps):
    labels, truth, pairs = maps
    found = measure_quality(labels, truth, QualitySettings(folds=7))
    hits = np.zeros(3)
    read_as = np.zeros(3)
    for index, pair in enumerate(pairs):
        others = counts_of(pairs[:index] + pairs[index + 1 :])[0]
        mapping = others.argmax(0)
        own = counts_of([pair])[0]
        for pseudo, real in enumerate(mapping):
            hits[real] += own[real, pseudo]
            read_as[real] += own[:, pseudo].sum()
    counts, unlabelled = counts_of(pairs)
    total = counts.sum(1) + unlabelled
    np.testing.assert_allclose([c.iou for c in found.classes], hits / (total + read_as - hits))
    assert found.accuracy == pytest.approx(hits.sum() / total.sum())
    same = measure_quality(labels, truth)
    assert (found.folds, same.folds) == (7, 0)
    assert (
        found.miou
        < same.miou
        == pytest.approx(np.mean(class_ious(counts, unlabelled, majority_mapping(counts))))
    )
    assert (found.nmi, found.purity, found.coverage) == (same.nmi, same.purity, same.coverage)
    assert "learnt on the other 6 of 7 parts" in quality_text(found)


def test_seeds_part_differently_and_the_same_seed_alike(maps):
    labels, truth, _ = maps
    scores = [
        measure_quality(labels, truth, QualitySettings(folds=3, seed=seed)).miou
        for seed in (0, 0, 1, 2)
    ]
    assert scores[0] == scores[1]
    assert len(set(scores)) > 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (QualitySettings(folds=8), "give 2 to 7"),
        (QualitySettings(folds=1), "give 2 to 7"),
        (QualitySettings(folds=2, fit_only="0*"), "give one"),
    ],
)
def test_folds_that_cannot_be(maps, settings, message):
    with pytest.raises(SettingsError, match=message):
        measure_quality(*maps[:2], settings)


def test_confusion_adds_up_to_the_truth(maps):
    labels, truth, pairs = maps
    found = measure_quality(labels, truth)
    counts, unlabelled = counts_of(pairs)
    confusion = np.array(found.confusion)
    np.testing.assert_array_equal(confusion.sum(1), counts.sum(1) + unlabelled)
    np.testing.assert_array_equal(confusion[:, -1], unlabelled)
    hits = np.diag(confusion)
    ious = hits / (confusion.sum(1) + confusion[:, :-1].sum(0) - hits)
    np.testing.assert_allclose([c.iou for c in found.classes], ious)


def test_all_mismatches_are_named_at_once(maps):
    labels, truth, _ = maps
    save(truth / "2.png", np.zeros((20, 31)))
    save(truth / "5.png", np.zeros((21, 30)))
    (labels / "6.png").write_bytes(b"no image")
    with pytest.raises(SourceError) as caught:
        measure_quality(labels, truth)
    text = str(caught.value)
    assert "3 label maps" in text and "31 × 20" in text and "30 × 21" in text and "6.png" in text


# --- outlines


def naive_counts(read, real, valid, tolerance):
    """Distances from each boundary pixel by SciPy's transform."""
    found = []
    ours, theirs = boundaries(read, valid), boundaries(real, valid)
    for one, other in ((ours, theirs), (theirs, ours)):
        away = ndimage.distance_transform_edt(~other) if other.any() else np.full(one.shape, 1e9)
        found += [int(one.sum()), int((one & (away <= tolerance)).sum())]
    return BoundaryCounts(*found)


@pytest.mark.parametrize("rows", [7, 1024])
@pytest.mark.parametrize("tolerance", [0, 1, 1.5, 3])
def test_outlines_like_scipy(tmp_path, monkeypatch, tolerance, rows):
    monkeypatch.setattr(boundaries_module, "STRIP_ROWS", rows)
    rng = np.random.default_rng(1)
    real = ndimage.zoom(rng.integers(0, 3, (6, 5)), 9, order=0)
    read = np.roll(real, (2, 1), (0, 1))
    real[rng.random(real.shape) < 0.02] = 255
    read[20:24, 10:] = 255  # unlabelled
    save(tmp_path / "labels.png", read)
    save(tmp_path / "truth.png", real)
    pair = LabelPair("a", tmp_path / "labels.png", tmp_path / "truth.png")
    found = boundary_counts(pair, TruthRules((255,), None), {0: 0, 1: 1, 2: 2}, tolerance)
    read = np.where(read == 255, -1, read)
    assert found == naive_counts(read, real, real != 255, tolerance)


def test_a_boundary_is_where_the_next_pixel_differs():
    classes = np.array([[0, 0, 1], [0, 2, 1]])
    valid = np.ones((2, 3), bool)
    expected = [[0, 1, 0], [1, 1, 0]]
    np.testing.assert_array_equal(boundaries(classes, valid), np.array(expected, bool))
    valid[1, 1] = False
    expected = [[0, 1, 0], [0, 0, 0]]
    np.testing.assert_array_equal(boundaries(classes, valid), np.array(expected, bool))


def test_perfect_shifted_and_missing_outlines(tmp_path):
    truth = np.zeros((40, 40))
    truth[10:30, 10:30] = 1
    scores = {}
    for name, labels in (
        ("same", truth), ("shifted", np.roll(truth, 2, 1)), ("far", np.roll(truth, 5, (0, 1))),
        ("none", truth * 0),
    ):  # fmt: skip
        save(tmp_path / name / "a.png", labels)
        save(tmp_path / "truth" / "a.png", truth)
        result = measure_quality(tmp_path / name, tmp_path / "truth")
        scores[name] = result.boundary_f1
    assert scores["same"] == scores["shifted"] == 1
    assert 0 < scores["far"] < 0.5
    assert scores["none"] == 0
    assert np.isnan(BoundaryCounts().f1)


# --- the picture


def test_command_draws_the_confusion(maps, tmp_path):
    arguments = [str(maps[0]), "--truth", str(maps[1]), "--folds", "3", "--class-names", "a,b,c"]
    plot = tmp_path / "confusion.png"
    done = CliRunner().invoke(quality, [*arguments, "--plot", str(plot)])
    assert done.exit_code == 0, done.output
    assert "boundary" in done.output and "within 3 pixels" in done.output
    with Image.open(plot) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 9
    (tmp_path / "folder").mkdir()
    done = CliRunner().invoke(quality, [*arguments, "--plot", str(tmp_path / "none" / "x.png")])
    assert isinstance(done.exception, SettingsError) and "--plot" in str(done.exception)


def test_many_classes_fit_the_picture():
    from types import SimpleNamespace

    from alps.engine.quality.confusion import confusion_plot

    classes = [SimpleNamespace(name=str(i)) for i in range(150)]
    confusion = np.eye(150, 151, dtype=int).tolist()
    picture = confusion_plot(SimpleNamespace(classes=classes, confusion=confusion))
    assert max(picture.size) < 2500
