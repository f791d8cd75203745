"""A run folder that trainings of this room learn from."""

import numpy as np
import pytest
from speck import save_speck
from teaching import save_image

from alps.engine.settings import ClusterSettings, RunSettings
from alps.engine.stages.label import RunOptions, label_archive


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """Of a random model, of two images of blocks, in three clusters."""
    root = tmp_path_factory.mktemp("targets")
    random = np.random.default_rng(0)
    for name in "ab":
        blocks = random.integers(0, 256, (6, 6, 3)).repeat(16, 0).repeat(16, 1)
        save_image(root / "images" / f"{name}.png", blocks)
    settings = RunSettings(cluster=ClusterSettings(clusters=3))
    options = RunOptions(str(save_speck(root / "speck.safetensors")), "cpu", 1.0)
    label_archive(root / "images", root / "run", settings, options)
    return root / "run"
