"""What tests of stages share."""

from dataclasses import replace

import pytest
from small_runs import draw

from alps.engine.stages.opening import RunOptions


@pytest.fixture
def options(speck):
    """A tiny random SAM on the CPU; no number of failed tiles is too many."""
    return RunOptions(model=str(speck), device="cpu", max_failed=1.0)


@pytest.fixture
def shards_of_two(monkeypatch):
    """Small shards, so that a small archive has several."""
    monkeypatch.setattr("alps.engine.run_folder.plan.SHARD_TILES", 2)


@pytest.fixture
def three_images(tmp_path):
    """A folder of three small images."""
    folder = tmp_path / "images"
    folder.mkdir()
    for seed, name in enumerate(("a.png", "b.png", "c.png")):
        draw(folder / name, seed)
    return folder


@pytest.fixture
def updating(options):
    """With them what changed is made anew."""
    return replace(options, update=True)
