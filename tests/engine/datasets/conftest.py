"""Finished runs of a few small images."""

import shutil

import pytest
from click.testing import CliRunner
from labelled_run import IMAGES, MadeRun
from PIL import Image
from small_runs import draw

from alps.engine.cli import commands
from alps.engine.run_folder.folder import RunFolder
from alps.engine.settings import ClusterSettings, PaintSettings, RunSettings
from alps.engine.stages.label import label_archive
from alps.engine.stages.opening import RunOptions


@pytest.fixture(scope="session")
def finished(tmp_path_factory, speck):
    """A run over images of all kinds of names; not to be changed."""
    root = tmp_path_factory.mktemp("finished")
    images = root / "images"
    (images / "images").mkdir(parents=True)
    for seed, name in enumerate(IMAGES):
        draw(images / name, seed)
    wide = Image.open(images / IMAGES[0]).resize((120, 70))
    wide.save(images / IMAGES[0])
    settings = RunSettings(
        cluster=ClusterSettings(clusters=8), paint=PaintSettings(min_patch="4", min_margin=0.05)
    )
    options = RunOptions(model=str(speck), device="cpu", max_failed=1.0)
    label_archive(images, root / "out", settings, options)
    return MadeRun(RunFolder(root / "out"), images)


@pytest.fixture
def own_run(finished, tmp_path):
    """The same run, to be changed; its first class is a part of the second, and has no pixel."""
    shutil.copytree(finished.folder.root, tmp_path / "out")
    run = MadeRun(RunFolder(tmp_path / "out"), finished.images)
    run.give_away(0, 1)
    return run


@pytest.fixture
def export():
    """Call the command: (OUT, DIR, options) -> what it says."""

    def call(run, target, *options):
        arguments = [str(run.folder.root), str(target), *map(str, options)]
        found = CliRunner().invoke(commands.export_labels, arguments, catch_exceptions=False)
        assert found.exit_code == 0, found.output
        return found.output

    return call
