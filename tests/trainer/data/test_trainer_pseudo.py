"""What is learnt of a run folder: classes, margins as weights and cuts, and the controls."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import teaching
from made_run import make_run

from alps.engine.base.errors import RunFolderError, SourceError
from alps.engine.clusters.fit import ClusterModel
from alps.engine.images.windows import Window
from alps.engine.labels.paint import paint_archive
from alps.engine.run_folder.tables import read_table, write_table
from alps.engine.settings import PaintSettings
from alps.trainer.data.cache import build_cache
from alps.trainer.data.decode import DecodeRequest
from alps.trainer.data.find import find_data
from alps.trainer.data.settings import DataSettings, PseudoSettings

SIZE = (40, 70)
CLUSTERS = ClusterModel(np.zeros((4, 1), np.float32), np.zeros(4, np.int64), 0.0, 0)
NOTHING = DataSettings(hold_out=0)
AS_IT_IS = PaintSettings(min_patch="0", agreement=0)


def square(y, x, height, width):
    mask = np.zeros((40, 40), bool)
    mask[y : y + height, x : x + width] = True
    return mask


@pytest.fixture
def run(tmp_path):
    """Two windows that overlap by 10; regions of classes 0 to 3 and margins 0.1 to 0.4."""
    segments = [
        [
            {"mask": square(0, 0, 20, 35), "cluster": 0, "margin": 0.1},
            {"mask": square(20, 0, 10, 20), "cluster": 1, "margin": 0.2},
        ],
        [
            {"mask": square(5, 10, 15, 25), "cluster": 2, "margin": 0.3},
            {"mask": square(22, 8, 15, 28), "cluster": 3, "margin": 0.4},
        ],
    ]
    root = tmp_path / "run"
    root.mkdir()
    folder = make_run(root, [Window(0, 0, 40, 40), Window(30, 0, 40, 40)], segments)
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3))
    teaching.save_image(root / "a.png", pixels)
    paint_archive(folder, CLUSTERS, "now", AS_IT_IS)
    plan = read_table(folder.plan)
    write_table(plan, folder.tiles)
    folder.run_json.write_text(json.dumps({"settings": {"source": {"bands": None}}}))
    return folder


def decoded(run, where, **pseudo):
    request = DecodeRequest(
        find_data(run.root, NOTHING), NOTHING, 16, PseudoSettings(**pseudo), seed=3
    )
    cache = build_cache(request, where)
    assert not cache.problems
    pair = cache.pairs[0]
    weights = pair.weights(cache.root)
    return cache, np.array(pair.labels(cache.root)), None if weights is None else np.array(weights)


def test_classes_are_the_label_map(run, tmp_path):
    cache, labels, weights = decoded(run, tmp_path / "c")
    from PIL import Image

    assert (labels == np.array(Image.open(run.root / "labels" / "a.png"))).all()
    assert cache.rules.classes == tuple(f"cluster {n}" for n in range(4)) and weights is None


def test_margins_are_weights(run, tmp_path):
    _, plain, _ = decoded(run, tmp_path / "c")
    _, labels, weights = decoded(run, tmp_path / "c", margin_weight=True)
    assert (labels == plain).all()
    # The median of 0.1, 0.2, 0.3, 0.4 is 0.25; from there on pixels weigh in full.
    for cluster, weight in ((0, 0.4), (1, 0.8), (2, 1.0), (3, 1.0)):
        found = np.unique(weights[labels == cluster]) / 255
        assert len(found) == 1 and found[0] == pytest.approx(weight, abs=0.005)


def test_the_most_doubtful_are_cut(run, tmp_path):
    _, plain, _ = decoded(run, tmp_path / "c")
    _, labels, weights = decoded(run, tmp_path / "c", margin_cut=0.3)
    assert (labels[plain == 0] == 255).all() and (weights[plain == 0] == 0).all()
    kept = (plain != 0) & (plain != 255)
    assert (labels[kept] == plain[kept]).all() and (weights[kept] == 255).all()


def test_shuffled_classes_keep_the_regions_shapes(run, tmp_path):
    _, plain, _ = decoded(run, tmp_path / "c")
    cache, labels, _ = decoded(run, tmp_path / "c", targets="shuffled")
    assert len(cache.rules.classes) == 4
    assert ((labels == 255) == (plain == 255)).all() and (labels != plain).any()
    for cluster in range(4):
        assert len(np.unique(labels[plain == cluster])) == 1
    _, again, _ = decoded(run, tmp_path / "other", targets="shuffled")
    assert (again == labels).all()


@pytest.mark.parametrize("control", ["shuffled", "masks"])
@pytest.mark.parametrize("settings", [{"min_margin": 0.15}, {"min_patch": "500"}])
def test_controls_leave_out_what_the_label_maps_do(run, tmp_path, control, settings):
    _, everything, _ = decoded(run, tmp_path / "c", targets=control)
    paint_archive(run, CLUSTERS, "later", replace(AS_IT_IS, **settings))
    _, plain, _ = decoded(run, tmp_path / "c")
    _, labels, _ = decoded(run, tmp_path / "c", targets=control)
    assert ((labels == 255) == (plain == 255)).all()
    assert (labels == 255).sum() > (everything == 255).sum()
    assert (labels != 255).any()


def test_masks_are_regions_without_their_edges(run, tmp_path):
    cache, labels, _ = decoded(run, tmp_path / "c", targets="masks")
    assert cache.rules.classes == ("edge", "object")
    _, plain, _ = decoded(run, tmp_path / "c")
    assert ((labels == 255) == (plain == 255)).all()
    for y, x in np.argwhere(plain != 255):
        around = plain[max(y - 1, 0) : y + 2, x], plain[y, max(x - 1, 0) : x + 2]
        values = set(np.concatenate(around).tolist())
        assert labels[y, x] == (values == {int(plain[y, x])})


def with_objects(run, objects):
    """Give regions the objects that ``objects`` has for their clusters."""
    (path,) = run.root.glob("regions/part-*.parquet")
    (classes,) = run.root.glob("clusters/part-*.parquet")
    clusters = read_table(classes, ["cluster"]).column("cluster").to_numpy()
    table = read_table(path)
    new = pa.array(np.array(objects, np.int32)[clusters])
    write_table(table.set_column(table.column_names.index("object"), "object", new), path)


def test_regions_of_one_object_have_no_edge_between_them(run, tmp_path):
    with_objects(run, [0, 0, 1, -1])
    _, plain, _ = decoded(run, tmp_path / "c")
    _, labels, _ = decoded(run, tmp_path / "c", targets="masks")
    assert (plain[19, :19] == 0).all() and (plain[20, :19] == 1).all()
    assert (labels[18:22, 1:19] == 1).all()
    assert (labels[plain == 3] == 0).all()  # of no object
    _, random, _ = decoded(run, tmp_path / "c", targets="shuffled")
    assert (random[plain == 0][0] == random[(plain == 0) | (plain == 1)]).all()


def test_edges_are_found_across_strips(run, tmp_path, monkeypatch):
    _, labels, _ = decoded(run, tmp_path / "c", targets="masks")
    monkeypatch.setattr("alps.engine.regions.raster.TILE", 7)
    _, again, _ = decoded(run, tmp_path / "other", targets="masks")
    assert (labels == again).all()


def test_controls_need_regions(run, tmp_path):
    for part in (run.root / "clusters").iterdir():
        part.unlink()
    with pytest.raises(RunFolderError, match="has no regions"):
        decoded(run, tmp_path / "c", targets="masks")
    data = teaching.save_data(tmp_path / "plain")
    request = DecodeRequest(find_data(data, NOTHING), NOTHING, 16, PseudoSettings("shuffled"))
    with pytest.raises(SourceError, match="no run folder"):
        build_cache(request, tmp_path / "c")


def test_a_source_without_label_map_is_told_and_passed_over(run, tmp_path):
    (run.root / "labels" / "a.png").unlink()
    data = find_data(run.root, NOTHING)
    assert not data.pairs and data.problems[0].kind == "unlabelled source"
