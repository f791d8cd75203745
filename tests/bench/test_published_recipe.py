"""The published recipe, faults included, on a run folder of a random model."""

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from alps.bench.labels import published_recipe
from alps.bench.labels.published_recipe import label_published, published_embeddings
from alps.bench.pipeline.published import mean_of_products
from alps.engine.models.checkpoints import load_sam
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.locks import locked
from alps.engine.run_folder.tables import read_table
from alps.engine.settings import RunSettings, SegmentSettings
from alps.engine.stages.label import RunOptions, segment_stage


def test_means_are_the_published_codes_mask_by_mask():
    draw = torch.Generator().manual_seed(0)
    embedding = torch.randn(1, 3, 4, 4, generator=draw)
    masks = (torch.rand(5, 1, 32, 32, generator=draw) > 0.6).float()
    masks[1] = 0  # nothing to divide by: zeros
    masks[2, :, :, 3:] = 0
    fine = F.interpolate(embedding, size=(8, 8), mode="bilinear")
    expected = torch.cat([mean_of_products(fine, mask[None]) for mask in masks])
    found = published_embeddings(embedding, masks)
    torch.testing.assert_close(found, expected)
    assert (found[1] == 0).all() and (found[2] != 0).any()


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
    monkeypatch.setattr(published_recipe, "_encode_again", None)
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
