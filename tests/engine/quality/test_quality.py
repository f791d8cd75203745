"""`alps quality`: its measures against scikit-learn, its pairing of files, its errors."""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from PIL import Image
from sklearn.metrics import accuracy_score, jaccard_score, normalized_mutual_info_score

from alps.engine.base.errors import (
    AlpsError,
    RunFolderError,
    SettingsError,
    SourceError,
)
from alps.engine.cli.quality import quality, quality_text
from alps.engine.quality import truth as truth_module
from alps.engine.quality.measure import (
    ContingencyTable,
    majority_mapping,
    measure_quality,
    normalised_mutual_information,
    purity,
)
from alps.engine.quality.settings import QualitySettings

DUBAI = Path(__file__).parents[3] / "../shared/data/dubai"
ALL_UNLABELLED = {np.uint8: 255, np.uint16: 65535}


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array)).save(path)


def save_tiff(path, array, **profile):
    path.parent.mkdir(parents=True, exist_ok=True)
    bands = array if array.ndim == 3 else array[None]
    profile = dict(driver="GTiff", count=len(bands), dtype=array.dtype.name, **profile)
    with rasterio.open(
        path, "w", width=bands.shape[2], height=bands.shape[1], **profile
    ) as dataset:
        dataset.write(bands)


@pytest.fixture
def folders(tmp_path):
    return tmp_path / "labels", tmp_path / "truth"


def random_maps(rng, clusters, dtype, shape=(67, 41), classes=5, unlabelled=0.2, ignored=0.1):
    """Truth that depends on the pseudo-class, so that no measure is trivially near 0 or 1."""
    predicted = rng.integers(0, clusters, shape).astype(dtype)
    truth = np.where(rng.random(shape) < 0.6, predicted % classes, rng.integers(0, classes, shape))
    predicted[rng.random(shape) < unlabelled] = ALL_UNLABELLED[dtype]
    truth = truth.astype(np.uint8)
    truth[rng.random(shape) < ignored] = 255
    return predicted, truth


def mapped_by_majority(truth, predicted, unlabelled, fit=None):
    """Per-pixel loop over clusters: the obvious way. Unmapped and unlabelled become -1."""
    fit_truth, fit_predicted = fit or (truth, predicted)
    out = np.full(predicted.shape, -1)
    for cluster in np.unique(predicted[predicted != unlabelled]):
        votes = np.bincount(fit_truth[fit_predicted == cluster])
        if votes.size:
            out[predicted == cluster] = votes.argmax()
    return out


@pytest.mark.parametrize(
    ("clusters", "dtype", "suffix"),
    [(7, np.uint8, ".png"), (46, np.uint8, ".tif"), (300, np.uint16, ".tif")],
)
def test_measures_agree_with_scikit_learn(folders, monkeypatch, clusters, dtype, suffix):
    monkeypatch.setattr(truth_module, "STRIP_PIXELS", 500)  # many strips an image
    monkeypatch.setattr("alps.engine.quality.measure.CHUNK_PIXELS", 77)
    rng = np.random.default_rng(clusters)
    labels, truth = folders
    maps = [random_maps(rng, clusters, dtype, shape) for shape in [(67, 41), (1, 9), (30, 80)]]
    for i, (predicted, real) in enumerate(maps):
        name = labels / f"{i}{suffix}"
        save(name, predicted) if suffix == ".png" else save_tiff(name, predicted)
        save(truth / f"{i}.png", real)
    result = measure_quality(labels, truth)

    predicted = np.concatenate([p.ravel() for p, _ in maps])
    real = np.concatenate([t.ravel() for _, t in maps])
    counts = real != 255
    assert (result.images, result.fit_images) == (3, 0)
    assert (result.pixels, result.ignored_pixels) == (counts.sum(), (~counts).sum())
    predicted, real = predicted[counts], real[counts]
    labelled = predicted != ALL_UNLABELLED[dtype]
    guess = mapped_by_majority(real, predicted, ALL_UNLABELLED[dtype])
    ious = jaccard_score(real, guess, labels=range(5), average=None)
    assert [c.iou for c in result.classes] == pytest.approx(ious)
    assert [c.pixels for c in result.classes] == np.bincount(real).tolist()
    assert sum(c.pseudo_classes for c in result.classes) == len(result.mapping)
    assert result.miou == pytest.approx(ious.mean())
    assert result.accuracy == pytest.approx(accuracy_score(real, guess))
    assert result.purity == pytest.approx(accuracy_score(real[labelled], guess[labelled]))
    nmi = normalized_mutual_info_score(real[labelled], predicted[labelled])
    assert result.nmi == pytest.approx(nmi)
    assert result.coverage == pytest.approx(labelled.mean())
    assert 0.05 < result.nmi < 0.95 and result.unmapped_pixels == 0


def test_mapping_learnt_on_other_images(folders):
    rng = np.random.default_rng(3)
    labels, truth = folders
    maps = {}
    for name in ["tile1", "tile2", "tile7"]:
        maps[name] = random_maps(rng, 30, np.uint8, shape=(40, 40), ignored=0)
    maps["tile7"][0][:4] = 30  # a pseudo-class that tiles 1 and 2 do not have
    for name, (predicted, real) in maps.items():
        save(labels / f"{name}.png", predicted)
        save(truth / f"{name}.png", real)
    result = measure_quality(labels, truth, QualitySettings(fit_only="tile[12]"))
    fit = [np.concatenate([maps[n][i].ravel() for n in ["tile1", "tile2"]]) for i in (1, 0)]
    predicted, real = (a.ravel() for a in maps["tile7"])
    guess = mapped_by_majority(real, predicted, 255, fit)
    assert (result.images, result.fit_images) == (1, 2)
    assert result.miou == pytest.approx(
        np.mean(jaccard_score(real, guess, labels=range(5), average=None))
    )
    assert result.unmapped_pixels == 160 and 30 not in result.mapping
    assert "learnt on 2 other images" in quality_text(result)
    learnt_here = measure_quality(labels, truth, QualitySettings(only="tile7"))
    assert learnt_here.accuracy > result.accuracy
    assert learnt_here.nmi == result.nmi  # needs no mapping
    with pytest.raises(SettingsError, match="match --only and --fit-only"):
        measure_quality(labels, truth, QualitySettings(only="tile7", fit_only="tile*"))
    with pytest.raises(SettingsError, match="matches no label map"):
        measure_quality(labels, truth, QualitySettings(fit_only="nothing"))


def test_classes_that_only_the_fit_images_have_do_not_enter_the_mean(folders):
    labels, truth = folders
    save(labels / "fit.png", np.array([[0, 1, 2]], np.uint8))
    save(truth / "fit.png", np.array([[4, 5, 9]], np.uint8))
    save(labels / "score.png", np.array([[0, 0, 1, 2]], np.uint8))
    save(truth / "score.png", np.array([[4, 4, 5, 5]], np.uint8))
    result = measure_quality(labels, truth, QualitySettings(fit_only="fit"))
    assert {c.value: c.pixels for c in result.classes} == {4: 2, 5: 2, 9: 0}
    assert result.mapping == {0: 4, 1: 5, 2: 9}
    assert result.miou == pytest.approx((1 + 0.5) / 2)
    assert result.as_dict()["classes"][2]["iou"] is None  # nan is not JSON


def test_ties_go_to_the_lowest_class_and_empty_clusters_to_none():
    counts = np.array([[2, 0, 0], [2, 0, 3]])
    assert majority_mapping(counts).tolist() == [0, -1, 1]
    assert majority_mapping(np.zeros((0, 2), np.int64)).tolist() == [-1, -1]


def test_mutual_information_at_its_limits_and_at_archive_size():
    assert normalised_mutual_information(np.array([[5]])) == 1.0
    assert normalised_mutual_information(np.array([[3, 4]])) == 0.0
    assert normalised_mutual_information(np.diag([3, 4, 5])) == pytest.approx(1)
    assert np.isnan(normalised_mutual_information(np.zeros((2, 2), np.int64)))
    assert np.isnan(purity(np.zeros((2, 0), np.int64)))
    small = np.array([[5, 1], [2, 7]])
    huge = normalised_mutual_information(small * 10**12)
    assert huge == pytest.approx(normalised_mutual_information(small), rel=1e-9)


def test_nothing_labelled_is_a_miss_everywhere(folders):
    labels, truth = folders
    save(labels / "a.png", np.full((3, 4), 255, np.uint8))
    save(truth / "a.png", np.arange(12, dtype=np.uint8).reshape(3, 4) % 2)
    result = measure_quality(labels, truth)
    assert (result.miou, result.accuracy, result.coverage) == (0, 0, 0)
    assert np.isnan(result.nmi) and np.isnan(result.purity) and result.mapping == {}
    assert "NMI           –" in quality_text(result)
    assert result.as_dict()["nmi"] is None


def test_ignored_values_and_nodata_do_not_count(folders):
    labels, truth = folders
    save(labels / "a.png", np.zeros((2, 4), np.uint8))
    save_tiff(
        truth / "a.tif", np.array([[1, 2, 9, 9], [1, 200, 255, 1]], np.int16), nodata=9, crs=None
    )
    result = measure_quality(labels, truth, QualitySettings(truth_ignore=(255, 200, 9)))
    assert (result.pixels, result.ignored_pixels) == (4, 4)
    assert [c.value for c in result.classes] == [1, 2]
    # What is said outranks what a header calls nodata; without a word it counts.
    assert [c.value for c in measure_quality(labels, truth).classes] == [1, 2, 200]
    everything = measure_quality(labels, truth, QualitySettings(truth_ignore=()))
    assert [c.value for c in everything.classes] == [1, 2, 9, 200, 255]


def test_a_transparent_colour_of_a_png_is_a_class(folders):
    labels, truth = folders
    values = np.repeat(np.arange(2, dtype=np.uint8), 30).reshape(6, 10)
    save(labels / "a.png", values)
    truth.mkdir()
    Image.fromarray(values).save(truth / "a.png", transparency=0)
    with rasterio.open(truth / "a.png") as file:
        assert file.nodata == 0
    found = measure_quality(labels, truth)
    assert (found.pixels, found.ignored_pixels, found.miou) == (60, 0, 1.0)


def test_a_value_on_the_threshold_is_class_0(folders):
    labels, truth = folders
    save(labels / "a.png", np.array([[0, 0, 1]], np.uint8))
    save(truth / "a.png", np.array([[126, 127, 128]], np.uint8))
    found = measure_quality(labels, truth, QualitySettings(truth_threshold=127))
    assert [(c.value, c.pixels) for c in found.classes] == [(0, 2), (1, 1)]


def test_threshold_makes_two_classes_of_jpeg_and_of_0_255_masks(folders):
    labels, truth = folders
    mask = np.zeros((32, 48), np.uint8)
    mask[8:24, 8:40] = 255
    for name in ["grey", "rgb", "index", "mask"]:
        save(labels / f"{name}.png", (mask == 0).astype(np.uint8))
    save(truth / "grey.jpg", mask)
    save(truth / "rgb.jpg", np.dstack([mask] * 3))
    save(truth / "index.gif", mask)  # Pillow renumbers 255 as index 1, still shown white
    save(truth / "mask.png", mask)
    result = measure_quality(labels, truth, QualitySettings(truth_threshold=127))
    assert (result.images, result.miou, result.ignored_pixels) == (4, 1, 0)
    assert result.mapping == {0: 1, 1: 0}
    with pytest.raises(SettingsError, match=r"grey\.jpg is JPEG.*--truth-threshold"):
        measure_quality(labels, truth)
    # Without a threshold 255 is ignored, and any label map would be perfect on what is left.
    with pytest.raises(SettingsError, match=r"class 0 alone.*--truth-threshold"):
        measure_quality(labels, truth, QualitySettings(only="mask"))


def test_files_are_paired_by_path_then_by_unique_stem(folders):
    run, truth = folders
    labels = run / "labels"  # a run folder
    array = np.array([[0, 1]], np.uint8)
    for name in ["a/x.png", "b/x.png", "c/y.png", "d/z.png", "e/z.png", "lonely.png", "twice.png"]:
        save(labels / name, array)
    for name in ["a/x.tif", "b/x.png", "y.gif", "z.png", "extra.png", "twice.png", "twice.tif"]:
        save(truth / name, array)
    (truth / "README.md").write_text("not an image")
    result = measure_quality(run, truth)
    assert result.images == 3
    reasons = {m.name: m.reason for m in result.without_truth}
    assert sorted(reasons) == ["d/z.png", "e/z.png", "lonely.png", "twice.png"]
    assert "2 label maps share the stem" in reasons["d/z.png"]
    assert "no truth file" in reasons["lonely.png"]
    assert "twice.png, twice.tif" in reasons["twice.png"]
    names = [m.name for m in result.without_labels]
    assert names == ["extra.png", "twice.png", "twice.tif", "z.png"]
    text = quality_text(result)
    assert "4 label maps without truth" in text and "lonely.png" in text and "extra.png" in text
    only = measure_quality(run, truth, QualitySettings(only="[ab]/*"))
    assert (only.images, only.without_truth, only.without_labels) == (2, (), ())


def test_sizes_that_differ_are_an_error_with_both(folders):
    labels, truth = folders
    save(labels / "a.png", np.zeros((3, 4), np.uint8))
    save(truth / "a.png", np.zeros((4, 5), np.uint8))
    with pytest.raises(SourceError, match=r"4 × 3 pixels.*5 × 4"):
        measure_quality(labels, truth)


def test_what_cannot_be_scored_says_why(folders):
    labels, truth = folders
    with pytest.raises(RunFolderError, match="not a folder"):
        measure_quality(labels, truth)
    labels.mkdir()
    with pytest.raises(SourceError, match="truth is not a folder"):
        measure_quality(labels, truth)
    truth.mkdir()
    with pytest.raises(RunFolderError, match="holds no label map"):
        measure_quality(labels, truth)
    save(labels / "a.png", np.array([[0, 1]], np.uint8))
    with pytest.raises(SourceError, match="holds no truth image"):
        measure_quality(labels, truth)
    save(truth / "b.png", np.array([[0, 1]], np.uint8))
    with pytest.raises(SourceError, match="none of 1 label map"):
        measure_quality(labels, truth)
    save(truth / "a.png", np.array([[255, 255]], np.uint8))
    with pytest.raises(SourceError, match="all 2 are ignored"):
        measure_quality(labels, truth)
    with pytest.raises(SourceError, match=r"--only 'q.' leaves none of 1"):
        measure_quality(labels, truth, QualitySettings(only="q*"))


@pytest.mark.parametrize(
    ("array", "error", "message"),
    [
        (np.arange(24, dtype=np.uint8).reshape(3, 2, 4), SourceError, "in colour"),
        (np.ones((2, 4), np.float32), SettingsError, "float32, not class numbers"),
    ],
)
def test_truth_that_holds_no_classes_is_refused(folders, array, error, message):
    labels, truth = folders
    save(labels / "a.png", np.zeros((2, 4), np.uint8))
    save_tiff(truth / "a.tif", array)
    with pytest.raises(error, match=message):
        measure_quality(labels, truth)


def test_instance_ids_are_not_taken_for_classes(folders):
    labels, truth = folders
    save(labels / "a.png", np.zeros((40, 40), np.uint8))
    save_tiff(truth / "a.tif", np.arange(1600, dtype=np.uint16).reshape(40, 40))
    with pytest.raises(SourceError, match="instance"):
        measure_quality(labels, truth)


def test_damaged_files_and_pictures_are_named(folders):
    labels, truth = folders
    rng = np.random.default_rng(0)
    save(labels / "a.png", rng.integers(0, 9, (64, 64)).astype(np.uint8))
    save(truth / "a.png", rng.integers(0, 9, (64, 64)).astype(np.uint8))
    whole = (truth / "a.png").read_bytes()
    # By default GDAL reads a PNG that ends early without complaint, as zeros: class 0.
    for size in (len(whole) // 2, len(whole) - 60):
        (truth / "a.png").write_bytes(whole[:size])
        with pytest.raises(SourceError, match=r"truth/a\.png is damaged"):
            measure_quality(labels, truth)
    middle = len(whole) // 2
    (truth / "a.png").write_bytes(whole[:middle] + b"damage" + whole[middle + 6 :])
    with pytest.raises(SourceError, match=r"truth/a\.png is damaged"):
        measure_quality(labels, truth)
    (truth / "a.png").write_bytes(b"nothing of an image")
    with pytest.raises(SourceError, match=r"truth/a\.png cannot be opened"):
        measure_quality(labels, truth)
    (truth / "a.png").write_bytes(whole)
    save(labels / "a.png", np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(SourceError, match=r"no label map: it has 3 band\(s\) of uint8"):
        measure_quality(labels, truth)


def test_table_keeps_its_counts_as_it_grows():
    table = ContingencyTable()
    table.add(np.array([5, 5]), np.array([1, 255], np.uint8), 255)
    table.add(np.array([2, 9, 2]), np.array([300, 0, 65535], np.uint16), 65535)
    assert table.values.tolist() == [2, 5, 9]
    assert table.counts.shape == (3, 301)
    assert table.counts.nonzero()[0].tolist() == [0, 1, 2]
    assert table.counts.nonzero()[1].tolist() == [300, 1, 0]
    assert table.unlabelled.tolist() == [1, 1, 0]


def test_command_prints_a_table_and_writes_json(folders, tmp_path):
    labels, truth = folders
    save(labels / "a.png", np.array([[0, 1, 2, 2, 255]], np.uint8))
    save(truth / "a.png", np.array([[0, 1, 2, 1, 7]], np.uint8))
    out = tmp_path / "quality.json"
    arguments = [labels, "--truth", truth, "--class-names", "roof, road", "--json", out]
    arguments += ["--truth-ignore", "255,7", "--truth-ignore", "3"]
    result = CliRunner().invoke(quality, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0
    assert "roof" in result.output and "learnt on the same images" in result.output
    saved = json.loads(out.read_text())
    assert [c["name"] for c in saved["classes"]] == ["roof", "road", "2"]
    assert saved["mapping"] == {"0": 0, "1": 1, "2": 1}
    assert saved["miou"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert (saved["pixels"], saved["ignored_pixels"], saved["coverage"]) == (4, 1, 1)
    assert f"mIoU      {saved['miou']:.3f}" in result.output
    assert not list(tmp_path.glob("*.partial"))


def test_command_learns_on_the_images_of_fit_only(folders, tmp_path):
    """What the two images say of pseudo-class 0 is the opposite."""
    labels, truth = folders
    for name, value in (("fit.png", 0), ("scored.png", 1)):
        save(labels / name, np.zeros((2, 2), np.uint8))
        save(truth / name, np.full((2, 2), value, np.uint8))
    command = [str(labels), "--truth", str(truth), "--json", str(tmp_path / "q.json")]
    found = []
    for more in ([], ["--fit-only", "fit*"], ["--only", "fit*"], ["--folds", "2"]):
        assert CliRunner().invoke(quality, [*command, *more]).exit_code == 0
        content = json.loads((tmp_path / "q.json").read_text())
        found.append((content["images"], content["fit_images"], content["accuracy"]))
    assert found == [(2, 0, 0.5), (1, 1, 0.0), (1, 0, 1.0), (2, 0, 0.0)]


def test_command_refuses_bad_options(folders, tmp_path):
    labels, truth = folders
    save(labels / "a.png", np.array([[0, 1]], np.uint8))
    save(truth / "a.png", np.array([[0, 1]], np.uint8))
    base = [str(labels), "--truth", str(truth)]
    bad = CliRunner().invoke(quality, [*base, "--truth-ignore", "water"])
    assert bad.exit_code == 2 and "list of integers" in bad.output
    nowhere = CliRunner().invoke(quality, [*base, "--json", str(tmp_path / "no" / "q.json")])
    assert isinstance(nowhere.exception, AlpsError) and "--json" in str(nowhere.exception)
    nothing = CliRunner().invoke(quality, [*base, "--truth-ignore", "none"])
    assert nothing.exit_code == 0


def test_real_truth_against_itself_is_perfect():
    if not DUBAI.exists():
        pytest.skip("the real images of shared/data are not here")
    result = measure_quality(
        DUBAI / "labels", DUBAI / "labels", QualitySettings(only="tile1_part00[12]")
    )
    assert (result.images, result.miou) == (2, 1)
    assert result.nmi == pytest.approx(1)
