"""What tests of stages share."""

import pytest

from alps.engine.stages.opening import RunOptions


@pytest.fixture
def options(speck):
    """A tiny random SAM on the CPU; no number of failed tiles is too many."""
    return RunOptions(model=str(speck), device="cpu", max_failed=1.0)


@pytest.fixture
def shards_of_two(monkeypatch):
    """Small shards, so that a small archive has several."""
    monkeypatch.setattr("alps.engine.run_folder.plan.SHARD_TILES", 2)
