"""Names of files that mean something to a terminal, and other ways to write SRC and OUT."""

import os
import re
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from alps.engine.base.errors import RunFolderError, SettingsError
from alps.engine.cli import main as cli
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.tables import read_table
from alps.engine.settings import ClusterSettings, RunSettings
from alps.engine.stages.label import label_archive
from alps.engine.stages.opening import RunOptions

CODES = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]")
SETTINGS = RunSettings(cluster=ClusterSettings(clusters=2))

pytestmark = pytest.mark.usefixtures("one_thread", "without_reports")


@pytest.fixture
def options(speck):
    return RunOptions(model=str(speck), device="cpu", max_failed=1.0)


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    pixels = np.random.default_rng(1).integers(0, 255, (12, 12, 3), np.uint8)
    Image.fromarray(pixels).resize((96, 96)).save(folder / "a.png")
    return folder


@pytest.mark.parametrize("command", ["label", "segment", "inspect"])
def test_escape_codes_in_names_reach_no_terminal(images, tmp_path, speck, command):
    bad = "\x1b]0;title\x07\x1b[2J\u202e"
    shutil.copy(images / "a.png", images / f"{bad}b.png")
    (images / f"{bad}c.png").write_bytes(b"no image")
    (images / f"{bad}.tif").symlink_to(tmp_path / "nowhere")
    arguments = [command, str(images), "--model", str(speck)]
    if command != "inspect":
        arguments[2:2] = [str(tmp_path / "out"), "--max-failed", "1"]
    found = CliRunner().invoke(cli.commands, arguments)
    assert found.exit_code == 0 and not CODES.search(found.output)
    assert r"\x1b]0;title" in found.output
    if command == "label":
        rows = read_table(tmp_path / "out" / "tiles.parquet").to_pylist()
        assert [row["status"] for row in rows].count("failed") == 2
        assert len(list((tmp_path / "out" / "labels").iterdir())) == 2


def test_an_out_that_no_table_can_be_written_to_is_refused_before_work(images, speck, tmp_path):
    out = os.fsdecode(os.fsencode(tmp_path) + b"/out\xff")
    arguments = ["label", str(images), out, "--model", str(speck)]
    with pytest.raises(SettingsError, match=r"out\\xff has bytes that are no UTF-8"):
        CliRunner().invoke(cli.commands, arguments, catch_exceptions=False)
    assert not os.path.exists(out)


def test_src_by_another_way_is_the_same_run(images, tmp_path, options, monkeypatch):
    monkeypatch.chdir(images)
    (tmp_path / "other").mkdir()
    out = tmp_path / "out"
    for src in (images, ".", "../images", tmp_path / "other" / ".." / "images", f"{images}/"):
        label_archive(src, out, SETTINGS, options)
    with pytest.raises(RunFolderError, match="SRC"):
        label_archive(images / "a.png", out, SETTINGS, options)


def test_a_run_of_before_that_was_begun_by_another_way_is_found(
    images, tmp_path, options, monkeypatch
):
    """It has SRC as it was given, and that in its hash."""
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("alps.engine.stages.opening._absolute", lambda src: str(src))
        label_archive(f"{images}/../images", out, SETTINGS, options)
    assert RunFolder(out).read_run()["source"] == f"{images}/../images"
    label_archive(f"{images}/../images", out, SETTINGS, options)
    label_archive(images, out, SETTINGS, options)
