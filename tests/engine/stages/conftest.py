"""What tests of stages share."""

import itertools
import os
from contextlib import contextmanager
from unittest import mock

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


@pytest.fixture
def stopped_after():
    """A context manager in which so many renames succeed; the next one raises KeyboardInterrupt."""
    real = os.replace

    @contextmanager
    def stopping(renames):
        left = itertools.count(renames, -1)

        def replace(source, target):
            if next(left) <= 0:
                raise KeyboardInterrupt
            real(source, target)

        with mock.patch("alps.engine.base.atomic.os.replace", replace):
            yield

    return stopping
