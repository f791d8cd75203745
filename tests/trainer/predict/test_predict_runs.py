"""A run of predictions stopped, shared, damaged, refused; sources that fail."""

import json
import os
import shutil
import signal
from dataclasses import replace
from types import SimpleNamespace

import geopandas
import numpy as np
import pytest
import rasterio
import teaching
from click.testing import CliRunner
from PIL import Image
from predicting import COLOURS, NAMES, blobs, make_model, results

from alps.engine.base.errors import RunFolderError, SettingsError, TooManyFailuresError
from alps.engine.labels.palette import palette
from alps.engine.polygons.export import write_polygons
from alps.engine.polygons.settings import PolygonSettings
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.tables import read_table
from alps.engine.settings import ReadSettings, SourceSettings
from alps.engine.stages import single
from alps.engine.stages.label import label_archive
from alps.engine.stages.opening import RunOptions
from alps.engine.stages.verify import repair, verify_archive
from alps.trainer.data.find import find_data
from alps.trainer.data.rules import LabelRules
from alps.trainer.data.settings import DataSettings
from alps.trainer.predict import shards
from alps.trainer.predict.command import predict as command
from alps.trainer.predict.job import predict_archive
from alps.trainer.predict.recipe import PredictSettings
from alps.trainer.segmentation import run as training
from alps.trainer.segmentation.card import ModelCard

pytestmark = pytest.mark.usefixtures("one_thread", "shards_of_five", "without_reports")
BOTH = PredictSettings(confidence=True, probabilities=True)
SLOW = pytest.mark.slow


@pytest.fixture(scope="module")
def whole(scenes, checkpoint, tmp_path_factory):
    """The folder of an undisturbed run, not to be changed."""
    out = tmp_path_factory.mktemp("whole") / "out"
    options = RunOptions(model=str(checkpoint), device="cpu", max_failed=1.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("alps.engine.run_folder.plan.SHARD_TILES", 5)
        predict_archive(scenes, out, settings=BOTH, options=options)
    return out


@pytest.fixture
def copied(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "out")


@pytest.fixture
def windows(monkeypatch):
    """A list that receives how many windows the network saw at each call."""
    seen, real = [], shards.probabilities

    def counting(model, patches, *rest):
        seen.append(len(patches))
        return real(model, patches, *rest)

    monkeypatch.setattr(shards, "probabilities", counting)
    return seen


def tiles_of(out):
    """tiles.parquet but for what a clock says."""
    table = read_table(out / "tiles.parquet")
    return table.select([name for name in table.column_names if not name.endswith("_seconds")])


def ending(calls, end):
    """``probabilities``, but after so many calls it calls ``end``."""
    left, real = iter(range(calls)), shards.probabilities

    def predicting(*given):
        if next(left, None) is None:
            end()
        return real(*given)

    return predicting


# --- stopped


@pytest.mark.parametrize("first", [12, *(pytest.param(n, marks=SLOW) for n in (0, 6, 18, 24))])
def test_stopped_anywhere_it_ends_the_same(scenes, tmp_path, options, whole, stopped_after, first):
    out = tmp_path / "out"
    for renames in (first, 4, 3):
        with stopped_after(renames), pytest.raises(KeyboardInterrupt):
            predict_archive(scenes, out, settings=BOTH, options=options)
    predict_archive(scenes, out, settings=BOTH, options=options)
    assert results(out) == results(whole) and tiles_of(out).equals(tiles_of(whole))
    found = verify_archive(RunFolder(out))
    assert found.is_right and not found.unknown


@pytest.mark.slow
def test_killed_it_ends_with_the_same_bytes(scenes, tmp_path, options, whole):
    """By SIGKILL, while the network is at work on a scene."""
    out = tmp_path / "out"

    def work(calls):
        shards.probabilities = ending(calls, lambda: os.kill(os.getpid(), signal.SIGKILL))
        predict_archive(scenes, out, settings=BOTH, options=options)

    for calls in (5, 3, 4):
        assert teaching.ended(teaching.forked(lambda calls=calls: work(calls))) == -signal.SIGKILL
    predict_archive(scenes, out, settings=BOTH, options=options)
    assert results(out) == results(whole)


def test_what_is_done_is_not_done_again(scenes, copied, options, windows):
    before = results(copied)
    predict_archive(scenes, copied, settings=BOTH, options=options)
    assert not windows and results(copied) == before
    (copied / "labels" / "a.tif").unlink()
    predict_archive(scenes, copied, settings=BOTH, options=options)
    tall = sum(row["source"] == "a.tif" for row in tiles_of(copied).to_pylist())
    assert tall - 1 <= sum(windows) < tall + 4 and results(copied) == before


def test_a_scene_goes_on_in_its_midst(scenes, tmp_path, options, whole, monkeypatch):
    """Only the windows that reach into its first line are predicted again."""
    out = tmp_path / "out"

    def stop():
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shards, "probabilities", ending(7, stop))  # rows of three, a batch each
        with pytest.raises(KeyboardInterrupt):
            predict_archive(scenes, out, settings=BOTH, options=options)
    # Of the seven batches the last two may not have been looked at.
    done = 5 * len(list((out / "predicted").glob("part*.parquet")))
    assert done in (15, 20)
    seen, real = [], shards.probabilities
    monkeypatch.setattr(
        shards, "probabilities", lambda m, p, *rest: [seen.append(len(p)), real(m, p, *rest)][1]
    )
    predict_archive(scenes, out, settings=BOTH, options=options)
    total = read_table(out / "tiles.parquet").num_rows
    assert total - done <= sum(seen) <= total - done + 6 and results(out) == results(whole)


def test_machines_share_the_shards(scenes, tmp_path, options, whole, windows):
    out = tmp_path / "out"
    left = [
        predict_archive(scenes, out, None, BOTH, replace(options, share=(i, 3))) for i in (2, 0, 1)
    ]
    assert left[0] > left[1] > left[2] == 0 and not (out / "labels").exists()
    before = len(windows)
    summary = predict_archive(scenes, out, None, BOTH, options)
    assert len(windows) == before and summary.sources == 3
    assert results(out) == results(whole) and tiles_of(out).equals(tiles_of(whole))


# --- sources that fail, go away, change


@pytest.fixture
def archive(scenes, tmp_path):
    return shutil.copytree(scenes, tmp_path / "in")


def test_a_source_that_fails_is_a_row_with_a_reason(archive, tmp_path, options, whole):
    content = (archive / "b.png").read_bytes()
    (archive / "cut.png").write_bytes(content[: len(content) // 2])
    (archive / "none.png").write_bytes(b"no image")
    out = tmp_path / "out"
    summary = predict_archive(archive, out, settings=BOTH, options=options)
    rows = {row["source"]: row for row in tiles_of(out).to_pylist() if row["status"] == "failed"}
    assert set(rows) == {"cut.png", "none.png"} and all(row["reason"] for row in rows.values())
    assert summary.tiles["failed"] == 2
    found = results(out)
    assert not any("cut" in name or "none" in name for name in found)
    assert all(found[name] == content for name, content in results(whole).items())
    with pytest.raises(TooManyFailuresError, match="2 of"):
        predict_archive(archive, out, None, BOTH, replace(options, max_failed=0.01))
    (archive / "cut.png").write_bytes(content)
    predict_archive(archive, out, settings=BOTH, options=options)
    assert results(out)["labels/cut.png"] == results(whole)["labels/b.png"]


def test_a_window_that_cannot_be_read_is_a_hole(archive, tmp_path, options):
    """Others of the same source are predicted, and none is painted over it."""
    path = archive / "a.tif"
    with rasterio.open(path) as file:
        pixels, profile = file.read(), file.profile
    with rasterio.open(path, "w", **profile | {"blockysize": 1, "compress": "deflate"}) as file:
        file.write(pixels)
    content = bytearray(path.read_bytes())
    at = len(content) - 200  # in the lowest rows
    content[at : at + 100] = b"\xff" * 100
    path.write_bytes(content)
    summary = predict_archive(archive, tmp_path / "out", options=options)
    with rasterio.open(tmp_path / "out" / "labels" / "a.tif") as file:
        labels = file.read(1)
    assert summary.tiles["failed"] and (labels[-1] == 255).any() and (labels[50:90] < 255).all()
    assert len(read_table(tmp_path / "out" / "tiles.parquet")["reason"].unique()) > 1


@pytest.mark.slow
def test_images_that_changed_are_named_and_predicted_anew(archive, tmp_path, options, capsys):
    out = tmp_path / "out"
    predict_archive(archive, out, options=options)
    before = results(out)
    Image.fromarray(blobs(9, (20, 25))).save(archive / "b.png")
    predict_archive(archive, out, options=options)
    assert "b.png" in capsys.readouterr().err and results(out) == before
    predict_archive(archive, out, options=replace(options, update=True))
    predict_archive(archive, tmp_path / "fresh", options=options)
    assert results(out) == results(tmp_path / "fresh") != before


@pytest.mark.slow
def test_images_that_came_later_are_predicted_as_if_they_had_been_there(
    archive, tmp_path, options, stopped_after
):
    before, both = tmp_path / "before", replace(options, update=True, retry_failed=True)
    (archive / "bb.png").write_bytes(b"junk")
    predict_archive(archive, before, settings=BOTH, options=options)
    for name, seed in (("aa.png", 7), ("bb.png", 8), ("z.png", 9)):
        Image.fromarray(blobs(seed, (40, 50))).save(archive / name)
    fresh = tmp_path / "fresh"
    predict_archive(archive, fresh, settings=BOTH, options=options)
    is_over, renames = False, 0
    while not is_over:
        out = tmp_path / f"out-{renames}"
        shutil.copytree(before, out)
        try:
            with stopped_after(renames):
                predict_archive(archive, out, settings=BOTH, options=both)
            is_over = True
        except KeyboardInterrupt:
            pass
        if renames % 2:
            predict_archive(archive, out, settings=BOTH, options=options)
        predict_archive(archive, out, settings=BOTH, options=both)
        assert results(out) == results(fresh), renames
        assert "failed" not in read_table(out / "tiles.parquet")["status"].to_pylist()
        assert verify_archive(RunFolder(out)).is_right
        shutil.rmtree(out)
        renames += 4
    assert renames > 16


# --- refusals


def test_another_setting_or_model_is_refused_and_named(scenes, copied, options, tmp_path):
    for source, settings, words in (
        (SourceSettings(tile=64), BOTH, "tile 32 there, 64 now"),
        (SourceSettings(bands=(1,)), BOTH, r"bands None there, \[1\] now"),
        (None, PredictSettings(probabilities=True), "confidence True there, False now"),
        (None, replace(BOTH, batch=3), "batch 4 there, 3 now"),
    ):
        with pytest.raises(RunFolderError, match=f"other settings .*{words}"):
            predict_archive(scenes, copied, source, settings, options)
    other = make_model(tmp_path / "other", seed=1)
    with pytest.raises(RunFolderError, match=r"model [0-9a-f]{64} there, [0-9a-f]{64} now"):
        predict_archive(scenes, copied, None, BOTH, replace(options, model=str(other)))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (PredictSettings(batch=0), "--batch 0"),
        (PredictSettings(precision="int8"), "--precision int8"),
    ],
)
def test_settings_that_cannot_work(scenes, tmp_path, options, settings, words):
    with pytest.raises(SettingsError, match=words):
        predict_archive(scenes, tmp_path / "out", None, settings, options)
    assert not (tmp_path / "out").exists()


def test_a_labelling_and_predictions_do_not_mix(scenes, copied, tmp_path, options):
    content = results(copied)
    for work in (
        lambda: label_archive(scenes, copied),
        lambda: single.segment(scenes, copied),
        lambda: single.cluster(copied),
        lambda: single.paint(copied),
    ):
        with pytest.raises(RunFolderError, match="is a run of alps predict, and this"):
            work()
    assert results(copied) == content and not (copied / "segments").exists()
    run = RunFolder(copied).read_run()
    for number, changed in enumerate((run | {"kind": "label"}, {**run, "kind": None})):
        folder = RunFolder(tmp_path / str(number))
        folder.root.mkdir()
        # Runs of before do not say what they are.
        folder.update_run(**{name: value for name, value in changed.items() if value is not None})
        with pytest.raises(RunFolderError, match="is a run of alps label, and this command is for"):
            predict_archive(scenes, folder.root, options=options)


def test_a_foreign_folder_is_not_written_to(scenes, tmp_path, options):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(RunFolderError, match="is not empty and no run folder"):
        predict_archive(scenes, tmp_path, options=options)


# --- damage, and who reads the folder

DAMAGED = ("labels/a.tif", "probabilities/a.tif.tif", "classes.json", "journal/tiles-00001.parquet")


@pytest.mark.parametrize("name", DAMAGED)
def test_what_is_damaged_is_found_and_made_again(scenes, copied, options, name):
    before = results(copied)
    content = bytearray((copied / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copied / name).write_bytes(content)
    found = verify_archive(RunFolder(copied))
    assert [finding.name for finding in found.findings] == [name]
    repair(RunFolder(copied))
    predict_archive(scenes, copied, settings=BOTH, options=options)
    assert results(copied) == before and verify_archive(RunFolder(copied)).is_right


def test_lines_that_were_cut_short_are_predicted_again(scenes, tmp_path, options, whole):
    out = tmp_path / "out"
    for i in range(2):
        predict_archive(scenes, out, None, BOTH, replace(options, share=(i, 2)))
    path = sorted((out / "predicted").iterdir())[1]
    path.write_bytes(path.read_bytes()[:-9])
    predict_archive(scenes, out, None, BOTH, options)
    assert results(out) == results(whole)


def test_trainings_learn_from_it(whole, tmp_path):
    found = find_data(whole, DataSettings())
    assert found.rules.classes == ("grass", "road", "roof") and len(found.pairs) == 3
    unfinished = shutil.copytree(whole, tmp_path / "out")
    RunFolder(unfinished).update_run(done={})
    with pytest.raises(RunFolderError, match="are predicted yet; give its `alps predict` again"):
        find_data(unfinished, DataSettings())


def test_a_model_takes_over_the_colours_and_the_reading_of_what_it_learns(whole, tmp_path):
    """Those of a run folder's classes, of dataset.json's palette, or as different as can be."""
    asked = replace(teaching.SHORT, data=DataSettings(bands=(3, 2, 1), shrink=2))
    job = SimpleNamespace(recipe=asked)
    of_run = training._card(job, whole, SimpleNamespace(rules=LabelRules(NAMES)))
    assert of_run == ModelCard(32, "float32", 2, ReadSettings((3, 2, 1)), COLOURS)
    data, own = teaching.save_data(tmp_path / "data"), ((1, 2, 3), (4, 5, 6), (7, 8, 9))
    for rules, colours in ((LabelRules(NAMES, own), own), (LabelRules(NAMES), palette(3))):
        card = training._card(job, data, SimpleNamespace(rules=rules))
        np.testing.assert_array_equal(card.colours, colours)
    # Of a run that was read in a way of its own, that way.
    run = json.loads((whole / "run.json").read_text())
    other = shutil.copytree(whole, tmp_path / "other")
    run["settings"]["source"] |= {"bands": [2, 3, 1], "stretch": "0,99"}
    RunFolder(other).update_run(settings=run["settings"])
    job = SimpleNamespace(recipe=replace(teaching.SHORT, data=DataSettings()))
    card = training._card(job, other, SimpleNamespace(rules=LabelRules(NAMES)))
    assert card.reading == ReadSettings((2, 3, 1), stretch="0,99")


# --- the command


def test_the_command(scenes, tmp_path, checkpoint):
    out = tmp_path / "out"
    given = [str(checkpoint), str(scenes), str(out), "--device", "cpu"]
    shared = CliRunner().invoke(command, [*given, "--shard", "1/2"])
    assert shared.exit_code == 0 and "are left to other machines; then: alps" in shared.output
    done = CliRunner().invoke(command, given)
    assert done.exit_code == 0, done.output
    assert "3 sources, tiles: " in done.stdout and "predicted: 100.0" in done.stdout
    assert json.loads((out / "run.json").read_text())["kind"] == "predict"
    assert np.asarray(Image.open(out / "labels" / "b.png")).shape == (25, 20)


# --- what else reads label maps


def test_predictions_become_polygons(whole, tmp_path):
    run, path = RunFolder(whole), tmp_path / "found.parquet"
    done = write_polygons(whole, path, PolygonSettings(simplify="1", only="*.png"))
    found = geopandas.read_parquet(path)
    labels = {row["source"]: row["label"] for row in tiles_of(whole).to_pylist()}
    assert done.count == len(found) > 0
    for source, own in found.groupby("source"):
        with rasterio.open(run.label(labels[source])) as file:
            shown = file.read(1)
        assert own.pixels.sum() == (shown != 255).sum() and own.margin.isna().all()
