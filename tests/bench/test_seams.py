"""Seams, dust and torn objects, on maps made for it."""

import json

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from made_run import make_archive, make_run

from alps.bench.seams import (
    MOVED,
    classes_of_objects,
    main,
    measure_map,
    measure_run,
    pooled,
)
from alps.engine.base.errors import RunFolderError
from alps.engine.clusters.fit import ClusterModel
from alps.engine.images.windows import cores, plan_windows
from alps.engine.labels.paint import paint_archive
from alps.engine.run_folder.tables import read_table, write_table
from alps.engine.settings import PaintSettings

NOTHING = 255
CLUSTERS = ClusterModel(np.zeros((4, 1), np.float32), np.zeros(4, np.int64), 0.0, 0)
WINDOWS = plan_windows(500, 400, 200, 40)


def naive(labels, windows):
    """Change at borders and of each other line, pair by pair."""
    owned = cores(windows)
    at, others = [], []
    height, width = labels.shape
    columns = [[(labels[y, x - 1], labels[y, x]) for y in range(height)] for x in range(1, width)]
    rows = [[(labels[y - 1, x], labels[y, x]) for x in range(width)] for y in range(1, height)]
    for lines, starts in (
        (columns, {core.x for core in owned}),
        (rows, {core.y for core in owned}),
    ):
        for place, line in enumerate(lines, 1):
            pairs = [a != b for a, b in line if NOTHING not in (a, b)]
            if place in starts:
                at += pairs
            elif len(pairs) >= 16:
                others.append(np.mean(pairs))
    return np.mean(at), np.median(others)


def grains(seed=0, size=(400, 500), classes=5):
    """Random classes with little holes."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, size).astype(np.uint8)
    labels[rng.random(size) < 0.02] = NOTHING
    return labels


def test_pair_by_pair():
    windows = plan_windows(60, 45, 30, 6)
    labels = grains(1, (45, 60))
    labels[:, :7] = NOTHING
    found = measure_map(labels, windows, NOTHING)
    at, median = naive(labels, windows)
    assert found.as_dict()["at_borders"] == pytest.approx(at)
    assert found.median == pytest.approx(median) and found.ratio == pytest.approx(at / median)
    assert found.labelled == (labels != NOTHING).sum()


def test_a_map_that_knows_no_windows_has_none_in_it():
    found = measure_map(grains(), WINDOWS, NOTHING)
    assert found.ratio == pytest.approx(1, abs=0.05) and found.null == pytest.approx(1, abs=0.05)


def test_a_map_painted_window_by_window_shows_it():
    # Diagonal bands: each line of the map has as many changes as the next.
    labels = (np.add.outer(np.arange(400), np.arange(500)) // 25 % 4).astype(np.uint8)
    whole = measure_map(labels, WINDOWS, NOTHING)
    assert whole.ratio == pytest.approx(1, abs=0.1)
    for number, core in enumerate(cores(WINDOWS)):
        own = labels[core.y : core.y + core.height, core.x : core.x + core.width]
        own[:] = (own + number) % 4  # each window calls them something else
    found = measure_map(labels, WINDOWS, NOTHING)
    assert found.ratio > 5 > 2 > found.null


def test_one_class_and_one_window_have_no_ratio():
    plain = measure_map(np.zeros((400, 500), np.uint8), WINDOWS, NOTHING)
    assert np.isnan(plain.ratio) and np.isnan(plain.null) and plain.median == 0
    assert (plain.patches, plain.dust, plain.smallest) == (1, 0, 200_000)
    single = measure_map(grains(), plan_windows(500, 400, 512, 0), NOTHING)
    assert np.isnan(single.ratio) and single.median > 0
    empty = measure_map(np.full((400, 500), NOTHING, np.uint8), WINDOWS, NOTHING)
    assert np.isnan(empty.ratio) and (empty.patches, empty.smallest) == (0, 0)
    assert empty.as_dict()["patches_per_megapixel"] is None


def test_a_checkerboard_is_all_dust():
    board = (np.add.outer(np.arange(400), np.arange(500)) % 2).astype(np.uint8)
    found = measure_map(board, WINDOWS, NOTHING)
    assert found.ratio == found.null == found.median == 1
    assert found.patches == found.dust == 200_000 and found.smallest == 1
    assert found.patches_per_megapixel == 1e6
    board[:] = 0
    board[5:8, 5:8], board[20:25, 20:22] = 1, 1  # 9 pixels, and 10
    found = measure_map(board, WINDOWS, NOTHING)
    assert (found.patches, found.dust, found.smallest) == (3, 1, 9)


def test_the_null_moves_borders():
    """Lines that change at exactly one of the moved places."""
    windows = plan_windows(1000, 300, 520, 40)  # one border, at 500
    labels = grains(2, (300, 1000), 2)
    for by in MOVED:
        striped = labels.copy()
        striped[:, 500 + by] = (striped[:, 500 + by - 1] + 1) % 2
        found = measure_map(striped, windows, NOTHING).as_dict()["null_of_each"]
        raised = np.array(found) > 1.5
        assert raised.tolist() == [other == by for other in MOVED]


def test_several_maps_are_pooled():
    one = measure_map(grains(3), WINDOWS, NOTHING)
    two = measure_map(np.zeros((400, 500), np.uint8), WINDOWS, NOTHING)
    both = pooled([one, two])
    assert (both.at_borders == one.at_borders + two.at_borders).all()
    assert both.median == np.median(np.concatenate([one.elsewhere, two.elsewhere]))
    assert both.patches == one.patches + 1 and both.smallest == one.smallest
    assert both.labelled == one.labelled + 200_000
    assert pooled([one]) is one


def test_a_map_without_a_patch_has_no_smallest_one():
    empty = measure_map(np.full((400, 500), NOTHING, np.uint8), WINDOWS, NOTHING)
    one = measure_map(np.zeros((400, 500), np.uint8), WINDOWS, NOTHING)
    assert pooled([one, empty]).smallest == pooled([empty, one]).smallest == 200_000
    assert pooled([empty, empty]).smallest == 0


@pytest.mark.parametrize(("height", "columns"), [(16, 39), (15, 0)])
def test_a_line_of_few_pairs_is_left_out(height, columns):
    found = measure_map(np.zeros((height, 40), np.uint8), plan_windows(40, height, 64, 0), NOTHING)
    assert len(found.elsewhere) == columns + height - 1


def test_classes_inside_objects():
    classes = np.array([0, 1, 2, 2, 3, -1, 0, 1])
    objects = np.array([7, 7, 4, 4, 4, 4, -1, 0])
    area = np.array([50, 50, 300, 100, 400, 999, 999, 5])
    found = classes_of_objects(classes, objects, area)
    np.testing.assert_allclose(found, [2, 2, 1])  # halves of 800, halves of 100, and one
    quarters = classes_of_objects(np.arange(4), np.zeros(4, int), np.ones(4, int))
    assert quarters == pytest.approx([4])
    many = classes_of_objects(np.zeros(40, int), np.arange(40), np.arange(40) + 1)
    assert (many == 1).all() and len(many) == 10
    assert len(classes_of_objects(classes, np.full(8, -1), area)) == 0


@pytest.fixture
def run(tmp_path):
    """Two windows side by side, whose borders a mask in two classes crosses."""
    windows = plan_windows(70, 40, 40, 10)
    segments = []
    for cluster in (1, 2):
        everything = np.ones((40, 40), bool)
        segments.append([{"mask": everything, "cluster": cluster}])
    folder = make_run(tmp_path / "run", windows, segments)
    paint_archive(folder, CLUSTERS, "now", PaintSettings(min_patch="0", agreement=0))
    return folder


def test_a_run_is_measured(run, tmp_path):
    ((name, found),) = measure_run(run)
    assert name == "a.png" and found.as_dict()["at_borders"] == 1
    assert found.objects == pytest.approx([2])  # one object in equal halves
    target = tmp_path / "found.json"
    done = CliRunner().invoke(main, [str(run.root), "--json", str(target)])
    assert done.exit_code == 0 and "| a.png |" in done.output and "**run**" in done.output
    rows = json.loads(target.read_text())
    assert [row["image"] for row in rows] == ["a.png", None]
    assert rows[0] | {"image": None} == rows[1]
    assert len({line.count("|") for line in done.output.strip().splitlines()}) == 1


def test_what_is_left_unlabelled_is_no_class_of_an_object(run):
    table = read_table(run.region_classes(0))
    margins = np.where(table["cluster"].to_numpy() == 1, 1, 0).astype(np.float32)
    write_table(table.set_column(1, "margin", pa.array(margins)), run.region_classes(0))
    settings = PaintSettings(min_patch="0", agreement=0, min_margin=0.5)
    paint_archive(run, CLUSTERS, "sure", settings)
    ((_, found),) = measure_run(run)
    assert found.labelled == 70 * 40 / 2 and found.objects == pytest.approx([1])


def test_the_last_row_of_a_run_is_all_of_its_images(tmp_path):
    everything = np.ones((40, 40), bool)
    windows = plan_windows(70, 40, 40, 10)
    sources = {
        name: (windows, [[{"mask": everything, "cluster": cluster}] for cluster in clusters])
        for name, clusters in (("a.png", (1, 2)), ("b.png", (3, 3)))
    }
    folder = make_archive(tmp_path / "run", sources)
    paint_archive(folder, CLUSTERS, "now", PaintSettings(min_patch="0", agreement=0))
    target = tmp_path / "found.json"
    assert CliRunner().invoke(main, [str(folder.root), "--json", str(target)]).exit_code == 0
    rows = json.loads(target.read_text())
    assert [row["image"] for row in rows] == ["a.png", "b.png", None]
    assert [row["patches"] for row in rows] == [2, 1, 3]
    assert [row["classes_per_object"] for row in rows] == pytest.approx([2, 1, 1.5])


def test_without_regions_objects_are_not_known(run):
    run.region_raster("a.png").unlink()
    ((_, found),) = measure_run(run)
    assert np.isnan(found.classes_per_object)


def test_without_label_maps_it_says_so(run):
    run.label("a.png").unlink()
    with pytest.raises(RunFolderError, match="no label maps"):
        list(measure_run(run))
    assert CliRunner().invoke(main, [str(run.root)]).exit_code == 1
