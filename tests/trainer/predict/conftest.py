"""A model and scenes that tests of predictions share."""

import pytest
from PIL import Image
from predicting import blobs, make_model, save_tiff

from alps.engine.stages.opening import RunOptions


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """Not to be changed."""
    return make_model(tmp_path_factory.mktemp("predictor") / "model")


@pytest.fixture
def options(checkpoint):
    return RunOptions(model=str(checkpoint), device="cpu", max_failed=1.0)


@pytest.fixture
def shards_of_five(monkeypatch):
    """Small shards, that end in the midst of rows of windows."""
    monkeypatch.setattr("alps.engine.run_folder.plan.SHARD_TILES", 5)


@pytest.fixture(scope="session")
def scenes(tmp_path_factory):
    """A tall scene with a corner without data, one smaller than a window, one of one row."""
    folder = tmp_path_factory.mktemp("scenes")
    tall = blobs(1, (70, 150))
    tall[:40, :30] = 0
    save_tiff(folder / "a.tif", tall)
    Image.fromarray(blobs(2, (20, 25))).save(folder / "b.png")
    (folder / "north").mkdir()
    Image.fromarray(blobs(3, (130, 32))).save(folder / "north" / "c.png")
    return folder
