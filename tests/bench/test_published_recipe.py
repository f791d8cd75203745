"""The published recipe, faults included, on a run folder of a random model."""

import cv2
import numpy as np
import pytest

from alps.bench.labels import published_recipe
from alps.bench.labels.published_recipe import label_published, published_embeddings
from alps.engine.models.checkpoints import load_sam
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.locks import locked
from alps.engine.run_folder.tables import read_table
from alps.engine.settings import RunSettings, SegmentSettings
from alps.engine.stages.label import RunOptions, segment_stage


def test_means_divide_by_products_that_are_not_zero():
    embedding = np.array([[[1.0, 0.0], [3.0, 5.0]], [[2.0, 2.0], [2.0, 2.0]]])  # (2, 2, 2)
    mask = np.zeros((1, 8, 8), bool)
    mask[0, :, 4:] = True  # the right column of cells: 0 and 5, and 2 and 2
    np.testing.assert_array_equal(published_embeddings(embedding, mask), [[5, 2]])
    assert (published_embeddings(embedding, ~mask & mask) == 0).all()


@pytest.fixture
def run(archive, tmp_path, speck):
    folder = RunFolder(tmp_path / "run")
    settings = RunSettings(segment=SegmentSettings(points_per_side=3))
    with locked(folder):
        segment_stage(folder, archive, settings, RunOptions(model=str(speck), device="cpu"))
    return folder


@pytest.mark.slow
def test_labels_every_source_the_same_each_time(run, tmp_path, speck, archive, monkeypatch):
    model, _ = load_sam(speck)
    label_published(run, model, tmp_path / "a", clusters=4, seed=0)
    # Features are kept: nothing is encoded a second time.
    monkeypatch.setattr(published_recipe, "_encode_unnormalised", None)
    label_published(run, model, tmp_path / "b", clusters=4, seed=0)
    maps = sorted(path for path in (tmp_path / "a" / "labels").rglob("*.*"))
    assert len(maps) == 5
    for path in maps:
        labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        again = tmp_path / "b" / path.relative_to(tmp_path / "a")
        assert (cv2.imread(str(again), cv2.IMREAD_UNCHANGED) == labels).all()


@pytest.mark.slow
def test_what_lies_under_no_mask_is_background(run, tmp_path, speck):
    model, _ = load_sam(speck)
    label_published(run, model, tmp_path / "a", clusters=4, seed=0)
    with np.load(run.root / "published_features.npz") as kept:
        rows = {tuple(row) for row in kept["rows"].tolist()}
    table = read_table(run.segments(0), ["tile_id", "segment_id", "mask"]).to_pylist()
    kinds = {(row["tile_id"], row["segment_id"]): row["mask"] >= 0 for row in table}
    assert rows and all(kinds[row] for row in rows) and not all(kinds.values())
