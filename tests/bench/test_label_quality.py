"""The study of features and the table of label quality, on runs put together by hand."""

import numpy as np
import pytest
from made_run import make_run
from PIL import Image

from alps.bench.labels.features import (
    Truth,
    as_set,
    columns_of,
    count_truth,
    held_in,
    of_one_window,
    score,
    variants,
)
from alps.bench.labels.quality import (
    DATA,
    MEASURES,
    Place,
    label_by_superpixels,
    table,
)
from alps.bench.labels.quality import score as score_maps
from alps.engine.clusters.fit import ClusterModel
from alps.engine.images.windows import plan_windows
from alps.engine.labels.paint import paint_archive
from alps.engine.quality.measure import measure_quality
from alps.engine.quality.settings import QualitySettings
from alps.engine.quality.truth import TruthRules
from alps.engine.run_folder.tables import read_table
from alps.engine.settings import ClusterSettings, PaintSettings

SIZE = (40, 70)
CLUSTERS = ClusterModel(np.zeros((4, 1), np.float32), np.zeros(4, np.int64), 0.0, 0)
CLASSES = 3


@pytest.fixture
def run(tmp_path):
    """One source of overlapping windows with random masks and classes, and its truth."""
    rng = np.random.default_rng(0)
    windows = plan_windows(SIZE[1], SIZE[0], 32, 8)
    segments = []
    for window in windows:
        own = []
        for _ in range(6):
            mask = np.zeros((window.height, window.width), bool)
            y, x = rng.integers(0, 20, 2)
            mask[y : y + rng.integers(4, 16), x : x + rng.integers(4, 16)] = True
            own.append(
                {
                    "mask": mask,
                    "cluster": int(rng.integers(4)),
                    "predicted_iou": rng.random(),
                    "embedding": rng.normal(size=4).tolist(),
                    "colour": rng.normal(size=6).tolist(),
                }
            )
        segments.append(own)
    truth = rng.integers(0, CLASSES, SIZE).astype(np.uint8)
    truth[:6] = 255
    (tmp_path / "truth").mkdir()
    Image.fromarray(truth).save(tmp_path / "truth" / "a.png")
    return make_run(tmp_path / "run", windows, segments)


def test_counts_score_as_painted_label_maps_do(run, tmp_path):
    truth = count_truth(run, tmp_path / "truth", TruthRules((255,), None), CLASSES)
    clusters = read_table(run.region_classes(0)).column("cluster").to_numpy()
    assert len(truth.counts) == len(clusters) == len(columns_of(run))
    paint_archive(run, CLUSTERS, "now", PaintSettings(min_patch="0", agreement=0))
    painted = measure_quality(run.root, tmp_path / "truth", QualitySettings())
    same, _ = score(clusters, 4, truth)
    assert same == pytest.approx(painted.miou)
    assert truth.unlabelled.sum() == painted.pixels - painted.labelled_pixels > 0


def test_what_is_held_out_is_not_seen(run):
    columns = columns_of(run)
    half = len(columns) // 2
    source = np.arange(len(columns)) // half
    names = ["tile7_part_001.jpg", "tile1_part_001.jpg", "tile2_part_001.jpg"][: source.max() + 1]
    truth = Truth(
        np.ones((len(columns), CLASSES), int), source, np.zeros((len(names), CLASSES), int), names
    )
    kept, rest = held_in(columns, truth)
    assert not any(name.startswith("tile7") for name in rest.names)
    assert len(kept) == len(rest.counts) == len(columns) - half
    assert rest.source.min() == 0
    # Statistics are of what these regions saw: each of their segments, and no other.
    assert len(kept.segments.area) < len(columns.segments.area)
    assert set(kept.entry) == set(range(len(kept.segments.area)))
    seen = columns.entry[columns.starts[half] :]
    np.testing.assert_array_equal(kept.segments.place[kept.entry], columns.segments.place[seen])


def test_one_window_is_the_one_with_the_largest_share(run):
    columns = columns_of(run)
    settings = ClusterSettings(
        remove_position=False, centre_sources=False, components=0, colour_weight=0, normalise=False
    )
    entries = np.split(np.arange(len(columns.entry)), columns.starts[1:-1])
    best = [own[columns.share[own].argmax()] for own in entries]
    assert max(map(len, entries)) > 1
    alone = of_one_window(columns, settings)
    embeddings = columns.segments.embedding[columns.entry[best]]
    np.testing.assert_allclose(alone, embeddings, rtol=1e-5)
    assert not np.allclose(alone, as_set(columns, settings))


def test_the_mapping_is_learnt_apart():
    """Two tiles whose classes are the other way round: right on the same, wrong apart."""
    counts = np.array([[10, 0], [0, 10], [0, 10], [10, 0]])
    truth = Truth(counts, np.array([0, 0, 1, 1]), np.zeros((2, 2), int), ["tile1_a", "tile2_a"])
    same, apart = score(np.array([0, 1, 2, 3]), 4, truth)
    assert (same, apart) == (1, 0)  # classes that the other tile does not show are misses
    assert score(np.array([0, 1, 0, 1]), 2, truth)[1] == 0
    assert score(np.array([0, 1, 1, 0]), 2, truth) == (1, 1)


def test_each_variant_has_vectors_of_its_own(run):
    columns = columns_of(run)
    found = {variant.name: variant for variant in variants()}
    assert len(found) == len(list(variants())) > 10
    for variant in found.values():
        vectors = variant.change(columns, variant.settings)
        assert vectors.shape[0] == len(columns) and np.isfinite(vectors).all()
    (chosen,) = (one for name, one in found.items() if name.endswith(": as chosen"))
    assert chosen.settings == ClusterSettings()


def test_superpixels_are_kept_for_the_next_seed(archive, tmp_path, monkeypatch):
    from alps.bench.labels import quality as label_quality

    place = Place(archive, tmp_path, tmp_path / "work", DATA[1], "tiny", 4)
    label = label_by_superpixels("slic")
    first = label(place, 0)
    monkeypatch.setattr(label_quality, "segment_to_file", None)
    second = label(place, 1)
    assert first != second
    names = {path.relative_to(first) for path in first.rglob("*.*")}
    assert names == {path.relative_to(second) for path in second.rglob("*.*")}
    assert len([name for name in names if name.suffix in (".png", ".tif")]) == 5


def test_the_table_has_means_and_each_seed(run, tmp_path):
    (tmp_path / "labels").mkdir()
    Image.fromarray(np.zeros(SIZE, np.uint8)).save(tmp_path / "labels" / "a.png")
    quality = measure_quality(tmp_path / "labels", tmp_path / "truth")
    rows = [
        ("Here", "ours", seed, dict.fromkeys(MEASURES, value), quality)
        for seed, value in ((0, 0.25), (1, 0.75))
    ]
    text = table(rows, 46)
    assert "| Here | ours | 0.500 | 0.500 |" in text
    assert "| Here | ours | 1 | 0.750 | 0.750 |" in text


def test_a_truth_without_boundaries_has_no_f1(tmp_path):
    """A rim between classes that does not count: nothing is near, nothing is missed."""
    truth = np.repeat(np.array([0, 255, 1], np.uint8), (9, 2, 9))[None].repeat(20, axis=0)
    for folder, picture in (("truth", truth), ("labels", (truth > 0).astype(np.uint8))):
        (tmp_path / folder).mkdir()
        for number in range(5):
            Image.fromarray(picture).save(tmp_path / folder / f"val_{number}.png")
    place = Place(tmp_path, tmp_path / "truth", tmp_path, DATA[2], "tiny", 4)
    found, same = score_maps(tmp_path / "labels", place)
    assert found["miou"] == found["apart"] == 1 and np.isnan(found["boundary_f1"])
    assert "| Here | ours | 1.000 | 1.000 | 1.000 | 1.000 | – | 1.000 |" in table(
        [("Here", "ours", 0, found, same)], 4
    )
