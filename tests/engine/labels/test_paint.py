"""Painting: the smaller mask on top; label maps and object maps of regions."""

import json
import os

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from made_run import cut_as, make_archive, make_run, paint_run
from PIL import Image

from alps.engine.base.errors import RunFolderError
from alps.engine.clusters.features import FeatureModel
from alps.engine.clusters.fit import ClusterModel
from alps.engine.images.windows import Window, plan_windows
from alps.engine.labels.paint import Painter, paint_archive
from alps.engine.regions.packing import NOWHERE
from alps.engine.run_folder.sums import record
from alps.engine.run_folder.tables import read_table, write_table
from alps.engine.settings import PaintSettings
from alps.kernels.masks import coco
from alps.kernels.paint import paint, paint_order

EMPTY = 255


def painted(masks, values, iou, dtype=np.uint8, background=EMPTY):
    """The kernel on masks (S, H, W)."""
    area = masks.sum((1, 2))
    return paint(
        [coco.encode_mask(mask) for mask in masks],
        np.array(values, dtype),
        paint_order(area, np.array(iou, np.float32)),
        masks.shape[1:],
        background,
    )


def pixel_by_pixel(masks, values, iou, background=EMPTY):
    """The definition: of the masks over a pixel the smallest, the surest, the first wins."""
    labels = np.full(masks.shape[1:], background)
    for y, x in np.ndindex(labels.shape):
        over = [s for s in range(len(masks)) if masks[s, y, x]]
        if over:
            best = min(over, key=lambda s: (masks[s].sum(), -np.float32(iou[s]), s))
            labels[y, x] = values[best]
    return labels


@st.composite
def some_masks(draw):
    height, width = draw(st.integers(1, 7)), draw(st.integers(1, 9))
    count = draw(st.integers(0, 8))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    share = draw(st.sampled_from([0.05, 0.5, 1.0]))
    masks = rng.random((count, height, width)) < share
    if count:  # ties: the same mask again, and one with as many pixels elsewhere
        masks[rng.integers(count)] = masks[rng.integers(count)]
        masks[rng.integers(count)] = masks[rng.integers(count), ::-1, ::-1]
    return masks, rng.choice([0.5, 0.7, 0.9], count), rng.integers(0, 5, count)


@given(some_masks())
def test_any_masks(drawn):
    masks, iou, values = drawn
    labels = painted(masks, values, iou)
    assert labels.dtype == np.uint8 and labels.flags.c_contiguous
    assert (labels == pixel_by_pixel(masks, values, iou)).all()


@pytest.mark.parametrize(
    ("areas", "iou", "bottom_first"),
    [
        ([5, 9, 7], [0.5, 0.5, 0.5], [1, 2, 0]),  # smaller on top
        ([5, 5, 5], [0.9, 0.5, 0.7], [1, 2, 0]),  # of equal areas the surer
        ([5, 5, 5], [0.5, 0.5, 0.5], [2, 1, 0]),  # of equals the first
        ([3, 5, 3, 5], [0.1, 0.9, 0.1, 0.9], [3, 1, 2, 0]),
        ([], [], []),
    ],
)
@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.int64])
def test_order(areas, iou, bottom_first, dtype):
    order = paint_order(np.array(areas, dtype), np.array(iou, np.float32))
    assert order.tolist() == bottom_first


def test_full_one_pixel_and_empty_masks():
    masks = np.zeros((3, 4, 6), bool)
    masks[0] = True
    masks[1, 2, 5] = True
    labels = painted(masks, [0, 1, 2], [0.9, 0.1, 1.0])
    assert labels[2, 5] == 1 and (labels == 0).sum() == 23


def test_class_0_is_a_class():
    masks = np.zeros((1, 2, 2), bool)
    masks[0, 0] = True
    assert painted(masks, [0], [0.5]).tolist() == [[0, 0], [EMPTY, EMPTY]]


def test_no_masks():
    labels = painted(np.zeros((0, 3, 5), bool), [], [])
    assert labels.shape == (3, 5) and (labels == EMPTY).all()


def test_wide_labels():
    masks = np.eye(2, dtype=bool)[None]
    labels = painted(masks, [40_000], [0.5], np.uint16, 65_535)
    assert labels.dtype == np.uint16
    assert labels.tolist() == [[40_000, 65_535], [65_535, 40_000]]


# --- the stage

WIDTH, HEIGHT, CLUSTERS = 100, 60, 5


def ground():
    """Numbers of regions (H, W), -1 in none, and the class of each."""
    numbers = np.repeat(np.repeat(np.arange(15).reshape(3, 5), 20, 0), 20, 1)
    numbers[:20, :20] = -1
    numbers[30:33, 50:54] = 15
    return numbers, np.array([0, 1, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4])


@pytest.fixture
def run(tmp_path):
    windows = plan_windows(WIDTH, HEIGHT, 32, 8)
    cell = [{"mask": np.ones((w.height, w.width), bool), "cluster": 0} for w in windows]
    folder = make_run(tmp_path / "run", windows, [[one] for one in cell])
    numbers, classes = ground()
    cut_as(folder, {0: numbers}, {0: classes}, {0: np.linspace(0.1, 0.9, 16)})
    return folder


def shown(run, name="a.png"):
    with Image.open(run.root / "labels" / name) as labels:
        return np.asarray(labels)


@pytest.mark.parametrize("at_once", [4, 1 << 20])
def test_each_region_shows_its_class(run, monkeypatch, at_once):
    monkeypatch.setattr("alps.engine.labels.paint.AT_ONCE", at_once)
    assert paint_run(run, CLUSTERS) == {}
    numbers, classes = ground()
    assert (shown(run) == np.where(numbers < 0, EMPTY, classes[numbers])).all()
    content = json.loads(run.classes.read_text())
    counted = np.bincount(shown(run).ravel(), minlength=256)
    assert [c["pixels"] for c in content["classes"]] == counted[:CLUSTERS].tolist()
    assert [c["regions"] for c in content["classes"]] == np.bincount(classes[1:]).tolist()
    assert content["unlabelled_pixels"] == content["nodata_pixels"] == 400


def test_small_patches_join_and_doubtful_regions_stay_unlabelled(run):
    numbers, classes = ground()
    paint_run(run, CLUSTERS, "patches", min_patch="13")
    joined = shown(run)
    assert (joined[numbers == 15] == joined[29, 51]).all() and classes[15] != joined[29, 51]
    margins = np.linspace(0.1, 0.9, 16).astype(np.float32)
    paint_run(run, CLUSTERS, "sure", min_margin=float(margins[7]))  # which is just sure enough
    doubtful = np.arange(16) < 7
    kept = np.where((numbers < 0) | doubtful[numbers], EMPTY, classes[numbers])
    assert (shown(run) == kept).all()
    content = json.loads(run.classes.read_text())
    assert content["unlabelled_pixels"] == (kept == EMPTY).sum() > content["nodata_pixels"] == 400


def test_object_maps_are_written_where_asked_for(run):
    paint_run(run, CLUSTERS)
    assert not (run.root / "objects").exists()
    paint_run(run, CLUSTERS, objects=True)
    with rasterio.open(run.object_map("a.png")) as raster:
        objects = raster.read(1)
    assert raster.dtypes == ("uint32",) and objects.shape == (HEIGHT, WIDTH)
    assert ((objects == NOWHERE) == (shown(run) == EMPTY)).all()
    run.object_map("a.png").unlink()
    paint_run(run, CLUSTERS, objects=True)  # painted already, but for this
    assert run.object_map("a.png").exists()


def test_an_object_is_shown_where_its_class_is(run):
    paint_run(run, CLUSTERS, objects=True, min_margin=0.5)
    with rasterio.open(run.object_map("a.png")) as raster:
        objects = raster.read(1)
    assert ((objects == NOWHERE) == (shown(run) == EMPTY)).all()
    assert (objects == NOWHERE).any() and (objects != NOWHERE).any()


def test_maps_lie_where_their_source_does(run):
    transform = rasterio.Affine(0.5, 0, 500_000, 0, -0.5, 4_000_000)
    with rasterio.open(run.region_raster("a.png"), "r+") as raster:
        raster.crs, raster.transform = "EPSG:32631", transform
    record(run, run.region_raster("a.png"), 0)
    paint_run(run, CLUSTERS, objects=True)
    with rasterio.open(run.object_map("a.png")) as raster:
        assert (raster.crs, raster.transform) == ("EPSG:32631", transform)
        assert raster.nodata == NOWHERE


def test_sources_of_several_groups_are_painted_by_their_own_tables(tmp_path, monkeypatch):
    monkeypatch.setattr("alps.engine.run_folder.plan.SHARD_TILES", 1)
    names = ("a.png", "b.png", "c.png")
    folder = make_archive(tmp_path / "run", dict.fromkeys(names, ([Window(0, 0, 8, 4)], [[]])))
    numbers = [np.repeat([[0, 1, 2, 3][: n + 2]], 4, 0).repeat(8 // (n + 2), 1) for n in (0, 2)]
    numbers.insert(1, np.zeros((4, 8), int))
    cut_as(folder, numbers, [[1, 2], [0], [4, 3, 2, 1]])
    assert paint_run(folder, CLUSTERS) == {}
    rows = [shown(folder, name)[0].tolist() for name in names]
    assert rows == [[1] * 4 + [2] * 4, [0] * 8, [4, 4, 3, 3, 2, 2, 1, 1]]


def test_large_patches_agree_and_details_have_no_say(tmp_path):
    """Two halves whose vectors lie between their classes, and a small thing of a third between."""
    masks = np.zeros((3, 30, 60), bool)
    masks[0, :, :30], masks[1, :, 30:], masks[2, 10:20, 25:35] = True, True, True
    vectors = (0.4, 0.55, 0.45)
    segments = [{"mask": m, "embedding": [v] * 4} for m, v in zip(masks, vectors, strict=True)]
    folder = make_run(tmp_path / "run", [Window(0, 0, 60, 30)], [segments])
    numbers = np.where(masks[2], 2, masks[1])
    cut_as(folder, {0: numbers}, {0: [0, 1, 2]})
    none = np.zeros(0, np.float32)
    features = FeatureModel(False, False, None, None, none, none)
    centroids = np.array([[0.0] * 4, [1] * 4, [2] * 4], np.float32)
    model = ClusterModel(centroids, np.zeros(3, np.int64), 0.0, 0, features)

    def painted_with(agreement):
        settings = PaintSettings(min_patch="0", agreement=agreement)
        assert paint_archive(folder, model, str(agreement), settings) == {}
        return shown(folder)

    np.testing.assert_array_equal(painted_with(0), numbers)
    # The right half loses 4 (0.55² - 0.45²) = 0.4 a pixel in class 0.
    np.testing.assert_array_equal(painted_with(0.35), numbers)
    np.testing.assert_array_equal(painted_with(0.45), np.where(masks[2], 2, 0))


def test_regions_of_another_size_are_not_painted(run):
    raster = run.region_raster("a.png")
    with rasterio.open(raster) as file:
        profile, numbers = file.profile, file.read(1)
    transform = rasterio.Affine.scale(0.5)
    changed = profile | {"width": WIDTH - 1, "transform": transform}
    with rasterio.open(raster, "w", **changed) as file:
        file.write(numbers[:, 1:], 1)
    record(run, raster, 0)
    with pytest.raises(RunFolderError, match="99 x 60 pixels, its source 100 x 60; delete"):
        paint_run(run, CLUSTERS)


@pytest.mark.parametrize("value", [-1, CLUSTERS])
def test_regions_without_a_class_say_what_to_run(run, value):
    numbers, classes = ground()
    classes[3] = value
    cut_as(run, {0: numbers}, {0: classes})
    with pytest.raises(RunFolderError, match="run: alps cluster"):
        paint_run(run, CLUSTERS)


def test_painted_again_only_with_other_clusters(run, monkeypatch):
    paint_run(run, CLUSTERS, "one")
    classes = json.loads(run.classes.read_text())
    real, calls = Painter._write_labels, []
    monkeypatch.setattr(Painter, "_write_labels", lambda *a: calls.append(1) or real(*a))
    paint_run(run, CLUSTERS, "one")
    assert calls == [] and json.loads(run.classes.read_text()) == classes
    paint_run(run, CLUSTERS, "two")
    paint_run(run, CLUSTERS, "one")
    assert len(calls) == 2
    (run.root / "labels" / "a.png").unlink()
    paint_run(run, CLUSTERS, "one")
    assert len(calls) == 3 and (run.root / "labels" / "a.png").exists()


def test_a_label_map_that_was_changed_since_is_painted_anew(run, monkeypatch):
    paint_run(run, CLUSTERS)
    path = run.root / "labels" / "a.png"
    before = path.read_bytes()
    path.write_bytes(bytes(len(before)))
    later = run.painted.stat().st_mtime_ns + 10**9
    os.utime(path, ns=(later, later))
    paint_run(run, CLUSTERS)
    assert path.read_bytes() == before
    os.utime(run.painted, ns=(later, later))
    monkeypatch.setattr("alps.engine.labels.journal.sum_of", None)  # nothing is read that stayed
    paint_run(run, CLUSTERS)


def test_the_journal_grows_by_no_source_that_could_not_be_opened(run):
    paint_run(run, CLUSTERS, "one")
    before = run.painted.read_bytes()
    plan = read_table(run.plan)
    at = plan.schema.get_field_index("reason")
    write_table(plan.set_column(at, "reason", [["no image"] * len(plan)]), run.plan)
    assert paint_run(run, CLUSTERS, "two") == {}
    assert run.painted.read_bytes() == before


def test_neither_images_nor_segments_are_needed(run):
    paint_run(run, CLUSTERS, "one")
    label = run.root / "labels" / "a.png"
    before = label.read_bytes()
    for path in (run.root / "segments").glob("*.parquet"):
        path.unlink()
    assert paint_run(run, CLUSTERS, "two") == {}
    assert label.read_bytes() == before


def test_a_source_that_was_not_cut_has_no_label_map(run, capsys):
    paint_run(run, CLUSTERS, "one")
    run.region_raster("a.png").unlink()
    unpainted = paint_run(run, CLUSTERS, "two")
    assert list(unpainted) == ["a.png"] and "could not be cut" in unpainted["a.png"]
    assert not (run.root / "labels" / "a.png").exists()  # nor one of the old clusters
    assert "a.png: no label map:" in capsys.readouterr().err
