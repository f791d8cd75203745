"""A run folder against its checksums: whatever was damaged is named, removed, and made again."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from alps.engine.base.errors import RunFolderError
from alps.engine.cli import commands as cli
from alps.engine.run_folder.folder import RunFolder
from alps.engine.settings import ClusterSettings, PaintSettings, RunSettings
from alps.engine.stages.label import OnePass, label_archive
from alps.engine.stages.opening import RunOptions
from alps.engine.stages.single import cluster, paint
from alps.engine.stages.verify import repair, verify_archive

pytestmark = pytest.mark.usefixtures("without_reports")

SETTINGS = RunSettings(cluster=ClusterSettings(clusters=3), paint=PaintSettings(objects=True))
NAMES = ("a.png", "b.png", "c.png")


@pytest.fixture(scope="module")
def made(tmp_path_factory, speck):
    """Three images and what labelled them, in shards of two tiles; copies of the run are attacked.

    A run is known by its place: the copy takes it, and what it replaces is put aside.
    """
    home = tmp_path_factory.mktemp("made")
    rng = np.random.default_rng(5)
    (home / "images").mkdir()
    for name in NAMES:
        coarse = rng.integers(0, 256, (6, 10, 3)).astype(np.uint8)
        Image.fromarray(coarse.repeat(16, 0).repeat(20, 1)).save(home / "images" / name)
    options = RunOptions(model=str(speck), device="cpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("alps.engine.run_folder.plan.SHARD_TILES", 2)

        def label(one_pass=None):
            settings = SETTINGS if one_pass is None else RunSettings(paint=SETTINGS.paint)
            label_archive(home / "images", home / "run", settings, options, one_pass)

        label()
        shutil.copytree(home / "run", home / "kept")
        yield home, label


@pytest.fixture
def run(made):
    """The labelled run, whole, and the command that made it."""
    home, label = made
    shutil.rmtree(home / "run", ignore_errors=True)
    shutil.copytree(home / "kept", home / "run")
    return RunFolder(home / "run"), label


def results(folder):
    """Bytes of all that a run says, times left out."""
    rooms = ("labels", "objects", "segments", "regions", "clusters", "vectors")
    paths = [path for room in rooms for path in (folder.root / room).rglob("*") if path.is_file()]
    paths += [folder.clusters, folder.classes, folder.plan]
    return {path.relative_to(folder.root).as_posix(): path.read_bytes() for path in paths}


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


def empty(path):
    path.write_bytes(b"")


def junk(path):
    path.write_bytes(b"\xff\x00junk" * 50)


DAMAGE = {"flipped": flip, "emptied": empty, "junk": junk, "gone": Path.unlink}
FILES = (
    "labels/a.png", "objects/b.png.tif", "segments/part-00001.parquet",
    "journal/tiles-00000.parquet", "journal/plan.parquet", "tiles.parquet", "clusters.npz",
    "classes.json", "clusters/part-00000.parquet", "regions/part-00001.parquet",
    "regions/borders-00000.parquet", "regions/objects-00000.parquet",
    "regions/rasters/b.png.tif",
)  # fmt: skip


def test_a_run_is_as_it_was_written(run):
    folder, _ = run
    found = verify_archive(folder)
    assert found.is_right and not found.unknown and not found.open_shards
    assert found.files == len(results(folder)) + len(list(folder.journal.glob("tiles-*"))) + 1
    assert found.bytes > 10_000


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_is_named_removed_and_made_again(run, name):
    folder, label = run
    before = results(folder)
    flip(folder.root / name)
    found = verify_archive(folder)
    assert [finding.name for finding in found.findings] == [name]
    assert found.findings[0].why == "is damaged: its SHA-256 is not that of what was written"
    assert repair(folder)[1] == []
    label()
    assert verify_archive(folder).is_right
    assert results(folder) == before


@pytest.mark.parametrize("damage", ["emptied", "junk", "gone"])
def test_damage_in_many_places_is_named_removed_and_made_again(run, damage):
    folder, label = run
    before = results(folder)
    names = set(FILES) - {"journal/tiles-00000.parquet"}  # the plan is put together of these
    for name in names:
        DAMAGE[damage](folder.root / name)
    found = verify_archive(folder)
    assert {finding.name for finding in found.findings} == names
    why = "is missing" if damage == "gone" else "is damaged: it has"
    assert all(finding.why.startswith(why) for finding in found.findings)
    repair(folder)
    label()
    assert verify_archive(folder).is_right
    assert results(folder) == before


@pytest.mark.report  # which reads segments
@pytest.mark.parametrize("damage", ["emptied", "flipped"])
@pytest.mark.parametrize(
    "name", ["clusters.npz", "segments/part-00001.parquet", "tiles.parquet",
             "journal/tiles-00001.parquet", "clusters/part-00001.parquet"]
)  # fmt: skip
def test_a_restart_makes_it_again_or_says_what_to_remove(run, name, damage):
    """Without `alps verify`: nothing that a restart relies on passes as done."""
    folder, label = run
    before, path = results(folder), folder.root / name
    DAMAGE[damage](path)
    folder.tiles.unlink(missing_ok=True)  # shards' rows are read for it
    try:
        label()
    except RunFolderError as error:
        assert f"{path} is damaged: its SHA-256" in str(error) and damage == "flipped"
        assert str(error).endswith("remove it, it is made again by the command that made it")
        path.unlink()
        label()
    assert results(folder) == before


@pytest.mark.parametrize("name", ["labels/a.png", "objects/a.png.tif", "classes.json"])
@pytest.mark.parametrize("damage", ["emptied", "gone"])
def test_a_restart_makes_results_again(run, name, damage):
    folder, label = run
    before = results(folder)
    DAMAGE[damage](folder.root / name)
    label()
    assert results(folder) == before


@pytest.mark.parametrize("name", ["regions/borders-00000.parquet", "regions/rasters/a.png.tif"])
def test_what_label_maps_are_made_of_is_checked_when_they_are(run, name):
    folder, _ = run
    flip(folder.root / name)
    with pytest.raises(RunFolderError, match=rf"{name} is damaged: its SHA-256 .*; remove it"):
        paint(folder.root, PaintSettings(min_patch="20"))


@pytest.mark.parametrize("damage", DAMAGE)
def test_clusters_that_are_damaged_are_fitted_again(run, damage):
    folder, _ = run
    before = results(folder)
    DAMAGE[damage](folder.clusters)
    with pytest.raises(RunFolderError, match=r"clusters\.npz( is damaged|.*alps cluster)"):
        paint(folder.root)
    cluster(folder.root, SETTINGS.cluster)
    assert results(folder) == before


@pytest.mark.parametrize(
    "bad", [b"\xff\xfe\xfa\n", b'{"source_index": "x"}\n', b"[" * 9000 + b"\n"]
)
def test_a_line_of_the_journal_that_is_none_is_left_out_and_made_again(run, bad):
    folder, label = run
    before = results(folder)
    lines = folder.painted.read_bytes().splitlines(keepends=True)
    folder.painted.write_bytes(bad + b"".join(lines[1:]))
    found = verify_archive(folder)
    assert found.lines == 1 and not found.is_right
    assert [(one.name, one.why) for one in found.findings] == [("labels/a.png", "is in no journal")]
    repair(folder)
    label()
    assert verify_archive(folder).is_right and results(folder) == before


def test_a_plan_that_nothing_tells_again_is_lost(run):
    folder, _ = run
    junk(folder.plan)
    folder.shard_tiles(1).unlink()
    assert repair(folder)[1] == ["journal/plan.parquet"]


def test_a_name_that_leads_out_is_not_followed(run, made):
    folder, _ = run
    victim = made[0] / "victim.png"
    victim.write_bytes(b"precious")
    line = {"file": "labels/../../victim.png", "bytes": 3, "sha256": "0" * 64}
    with open(folder.sums(0), "a") as file:
        file.write(json.dumps(line) + "\n")
    for act in (verify_archive, repair):
        with pytest.raises(RunFolderError, match="lies outside"):
            act(folder)
    assert victim.read_bytes() == b"precious"


def test_one_pass_drops_what_is_not_missed(run, made):
    folder, label = run
    clusters = made[0] / "clusters.npz"
    shutil.copy(folder.clusters, clusters)
    shutil.rmtree(folder.root)
    label(OnePass(clusters))
    assert verify_archive(folder).is_right and not any((folder.root / "segments").iterdir())
    before = results(folder)
    flip(folder.label("b.png"))
    empty(folder.clusters)
    names = {finding.name for finding in verify_archive(folder).findings}
    assert names == {"labels/b.png", "clusters.npz"}
    repair(folder)
    label(OnePass(clusters))
    assert results(folder) == before and verify_archive(folder).is_right


# --- the command


def alps(*arguments):
    return CliRunner().invoke(cli.verify, [str(argument) for argument in arguments])


def test_the_command_names_damage_and_repairs_it(run):
    folder, label = run
    said = alps(folder.root)
    assert said.exit_code == 0 and "all as they were written" in said.output
    flip(folder.label("a.png"))
    said = alps(folder.root)
    assert f"{folder.label('a.png')} is damaged: its SHA-256" in said.output
    assert isinstance(said.exception, RunFolderError) and folder.label("a.png").exists()
    assert "1 of" in str(said.exception) and "--repair" in str(said.exception)
    said = alps(folder.root, "--repair")
    assert said.exit_code == 0 and "give the command that made" in said.output
    assert not folder.label("a.png").exists()
    with pytest.raises(RunFolderError, match="alps paint"):
        folder.refuse_unpainted()  # by the report and by quality
    label()
    folder.refuse_unpainted()


def test_files_of_older_versions_are_said_to_have_no_checksum(run):
    folder, _ = run
    for path in folder.journal.glob("sums*"):
        path.unlink()
    said = alps(folder.root)
    assert said.exit_code == 0 and "files have no checksum" in said.output


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    said = alps(tmp_path / "nothing", "--repair")
    assert isinstance(said.exception, RunFolderError) and not (tmp_path / "nothing").exists()
