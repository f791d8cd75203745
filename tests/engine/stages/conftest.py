"""What tests of stages share."""

import shutil
from dataclasses import replace

import pytest
from small_runs import draw

from alps.engine.settings import ClusterSettings, RunSettings
from alps.engine.stages.label import label_archive
from alps.engine.stages.opening import RunOptions

FOUR = RunSettings(cluster=ClusterSettings(clusters=4))


def labelled_with(patches, src, out, speck):
    """A run of an archive in shards of so many tiles, and without a report."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("alps.engine.stages.label.build_report", lambda root: root)
        for name, value in patches.items():
            patch.setattr(f"alps.engine.run_folder.plan.{name}", value)
        label_archive(src, out, FOUR, RunOptions(model=str(speck), device="cpu", max_failed=1.0))
    return out


@pytest.fixture(scope="session")
def finished(saved_archive, speck, tmp_path_factory):
    """A run of the archive with four clusters, made once and not to be changed."""
    return labelled_with({}, saved_archive, tmp_path_factory.mktemp("finished") / "run", speck)


@pytest.fixture(scope="session")
def finished_by_twos(saved_archive, speck, tmp_path_factory):
    """The same in shards of two tiles."""
    out = tmp_path_factory.mktemp("by_twos") / "run"
    return labelled_with({"SHARD_TILES": 2}, saved_archive, out, speck)


@pytest.fixture(scope="session")
def finished_by_threes(saved_archive, speck, tmp_path_factory):
    """The same in shards of three."""
    out = tmp_path_factory.mktemp("by_threes") / "run"
    return labelled_with({"SHARD_TILES": 3}, saved_archive, out, speck)


@pytest.fixture
def labelled(finished, tmp_path):
    """A copy of the finished run; its images are ``saved_archive``."""
    return shutil.copytree(finished, tmp_path / "out")


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
