"""What tests of stages share."""

import pytest

from alps.engine.stages.opening import RunOptions


@pytest.fixture
def options(speck):
    """A tiny random SAM on the CPU; no number of failed tiles is too many."""
    return RunOptions(model=str(speck), device="cpu", max_failed=1.0)
