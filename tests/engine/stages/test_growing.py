"""Runs that grow: images that come later, and those that could not be opened at first."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from rasters import save_raster
from small_runs import draw, results

from alps.engine.base.errors import RunFolderError
from alps.engine.clusters.file import load_clusters
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.plan import MOVED, Plan
from alps.engine.run_folder.tables import read_table
from alps.engine.settings import ClusterSettings, RunSettings
from alps.engine.stages import single
from alps.engine.stages.label import label_archive
from alps.engine.stages.one_pass import OnePass
from alps.engine.stages.verify import repair, verify_archive
from alps.engine.status.survey import FINISHED, STOPPED, status_of

SETTINGS = RunSettings(cluster=ClusterSettings(clusters=3))

pytestmark = pytest.mark.usefixtures("one_thread", "without_reports", "shards_of_two")


@pytest.fixture
def images(three_images):
    return three_images


@pytest.fixture
def retrying(options):
    return replace(options, retry_failed=True)


def files(out, *rooms):
    """Bytes and times of all files of some folders."""
    return {
        path.relative_to(out).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for room in rooms
        for path in sorted((out / room).rglob("*"))
        if path.is_file()
    }


def labels(out):
    return {name: content for name, (content, _) in files(out, "labels").items()}


def tiles_of(out):
    return read_table(RunFolder(out).tiles).to_pylist()


def in_one_pass(src, out, clusters, options, keep=False):
    label_archive(src, out, None, options, OnePass(clusters, keep))


def test_new_images_are_added_and_what_was_made_stays(images, tmp_path, options, updating, capsys):
    out = tmp_path / "out"
    label_archive(images, out, SETTINGS, options)
    full = RunFolder(out).segments(0), RunFolder(out).shard_tiles(0)
    before = files(out, "labels"), [path.stat() for path in full]
    clusters = (out / "clusters.npz").read_bytes()
    for seed, name in ((8, "x.png"), (9, "y.png"), (10, "z.png")):
        draw(images / name, seed)
    capsys.readouterr()
    label_archive(images, out, SETTINGS, options)
    said = capsys.readouterr().err
    assert "3 images" in said and "(x.png, say); --update labels them" in said
    assert files(out, "labels") == before[0]
    label_archive(images, out, SETTINGS, updating)
    assert "3 new images are taken up" in capsys.readouterr().err
    after = files(out, "labels")
    assert before[0].items() <= after.items() and len(after) == 6  # not even painted again
    assert [path.stat() for path in full] == before[1]
    assert (out / "clusters.npz").read_bytes() == clusters
    assert [row["tile_id"] for row in tiles_of(out)] == list(range(6))
    # What the new ones are labelled with: the clusters that are there.
    in_one_pass(images, tmp_path / "one", out / "clusters.npz", options)
    assert labels(out) == labels(tmp_path / "one")
    assert verify_archive(RunFolder(out)).is_right
    assert not list((out / "journal").glob("kept-*"))
    assert status_of(RunFolder(out)).state == FINISHED


def test_classes_stay_until_they_are_fitted_anew(images, tmp_path, options, updating, capsys):
    out = tmp_path / "out"
    label_archive(images, out, SETTINGS, options)
    draw(images / "z.png", 9)
    label_archive(images, out, SETTINGS, updating)
    grown = results(out)
    label_archive(images, out, SETTINGS, options)  # the same command without --update
    assert results(out) == grown
    single.cluster(out, SETTINGS.cluster)
    single.paint(out, max_failed=1)
    label_archive(images, tmp_path / "new", SETTINGS, options)
    assert results(out) == results(tmp_path / "new") != grown
    capsys.readouterr()
    single.cluster(out, SETTINGS.cluster)
    assert "assigning" not in capsys.readouterr().err  # that was done


@pytest.mark.parametrize("keep", [False, True])
def test_in_one_pass_it_is_as_if_all_had_been_there(images, tmp_path, options, updating, keep):
    label_archive(images, tmp_path / "two", SETTINGS, options)
    clusters = tmp_path / "two" / "clusters.npz"
    in_one_pass(images, tmp_path / "one", clusters, options, keep)
    before = files(tmp_path / "one", "labels")
    draw(images / "aa.png", 8)  # in the midst of the others, by its name
    draw(images / "z.png", 9)
    in_one_pass(images, tmp_path / "one", clusters, updating, keep)
    in_one_pass(images, tmp_path / "new", clusters, options, keep)
    assert labels(tmp_path / "one") == labels(tmp_path / "new")
    assert before.items() <= files(tmp_path / "one", "labels").items()
    for name in ("classes.json", "clusters.npz"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "new" / name).read_bytes()
    assert bool(list((tmp_path / "one" / "segments").iterdir())) == keep
    assert verify_archive(RunFolder(tmp_path / "one")).is_right


def test_what_is_gone_is_named_and_kept(images, tmp_path, options, updating, capsys):
    out = tmp_path / "out"
    label_archive(images, out, SETTINGS, options)
    before = results(out)
    (images / "b.png").unlink()
    capsys.readouterr()
    label_archive(images, out, SETTINGS, updating)
    assert "1 images of this run are no more at SRC" in (said := capsys.readouterr().err)
    assert "(b.png)" in said and results(out) == before


@pytest.mark.parametrize("name", ["a.png", "bb.png"])
def test_what_could_not_be_opened_is_retried(images, tmp_path, options, retrying, name, capsys):
    out = tmp_path / "out"
    (images / name).write_bytes(b"junk")
    label_archive(images, out, SETTINGS, options)
    before = labels(out)
    assert name not in str(before)
    draw(images / name, 8)
    draw(images / "new.png", 9)
    capsys.readouterr()
    label_archive(images, out, SETTINGS, options)
    said = capsys.readouterr().err
    assert f"1 images that could not be opened when this run was planned can be now ({name}" in said
    assert "--retry-failed labels them" in said and labels(out) == before
    label_archive(images, out, SETTINGS, retrying)
    said = capsys.readouterr().err
    assert "1 images that could not be opened when this run was planned are taken up" in said
    assert "(new.png, say); --update labels them" in said
    rows = tiles_of(out)
    assert [row["source"] for row in rows if row["status"] == "failed"] == []
    (moved,) = [row for row in rows if row["reason"].startswith(MOVED)]
    assert moved["status"] == "skipped" and moved["reason"] == f"{MOVED}{rows[-1]['source_index']}"
    assert rows[-1]["source"] == name and rows[-1]["status"] in ("ok", "empty")
    after = labels(out)
    assert before.items() <= after.items() and after.keys() - before.keys() == {f"labels/{name}"}
    in_one_pass(images, tmp_path / "one", out / "clusters.npz", options)
    assert after[f"labels/{name}"] == labels(tmp_path / "one")[f"labels/{name}"]
    label_archive(images, out, SETTINGS, retrying)  # nothing is left to be retried
    said = capsys.readouterr().err
    assert "taken up" not in said and "could not be opened" not in said
    assert labels(out) == after and verify_archive(RunFolder(out)).is_right


def test_what_still_cannot_be_opened_stays_failed(images, tmp_path, options, retrying):
    out = tmp_path / "out"
    (images / "x.png").write_bytes(b"junk")
    label_archive(images, out, SETTINGS, options)
    before = results(out)
    label_archive(images, out, SETTINGS, retrying)
    assert results(out) == before and Plan.of(RunFolder(out)).tiles == 4


@pytest.mark.parametrize("keep", [False, True])
def test_retries_in_one_pass(images, tmp_path, options, retrying, keep):
    label_archive(images, tmp_path / "two", SETTINGS, options)
    clusters, out = tmp_path / "two" / "clusters.npz", tmp_path / "one"
    whole = (images / "b.png").read_bytes()
    (images / "a.png").rename(tmp_path / "a.png")
    (images / "a.png").write_bytes(b"junk")  # cannot be opened
    (images / "b.png").write_bytes(whole[: len(whole) * 2 // 3])  # can be, and not be read
    in_one_pass(images, out, clusters, options, keep)
    shutil.copy(tmp_path / "a.png", images / "a.png")
    (images / "b.png").write_bytes(whole)
    in_one_pass(images, out, clusters, retrying, keep)
    in_one_pass(images, tmp_path / "new", clusters, options, keep)
    assert labels(out) == labels(tmp_path / "new")
    assert (out / "classes.json").read_bytes() == (tmp_path / "new/classes.json").read_bytes()
    assert "failed" not in {row["status"] for row in tiles_of(out)}


def test_tiles_that_failed_are_tried_whether_or_not_they_can_be_read(
    images, tmp_path, options, retrying, monkeypatch
):
    """A sample of windows cannot tell that others can be read; --retry-failed needs none."""
    out = tmp_path / "out"
    whole = (images / "b.png").read_bytes()
    (images / "b.png").write_bytes(whole[: len(whole) * 2 // 3])
    label_archive(images, out, SETTINGS, options)
    assert [row["source"] for row in tiles_of(out) if row["status"] == "failed"] == ["b.png"]
    (images / "b.png").write_bytes(whole)
    for module in ("absences", "regions"):
        monkeypatch.setattr(f"alps.engine.stages.{module}.can_be_read", lambda *given: False)
    label_archive(images, out, SETTINGS, options)
    assert [row["source"] for row in tiles_of(out) if row["status"] == "failed"] == ["b.png"]
    label_archive(images, out, SETTINGS, retrying)
    assert "failed" not in {row["status"] for row in tiles_of(out)}
    in_one_pass(images, tmp_path / "one", out / "clusters.npz", options)
    assert labels(out) == labels(tmp_path / "one")


def test_an_update_takes_up_what_was_mended_too(images, tmp_path, options, updating):
    out = tmp_path / "out"
    (images / "x.png").write_bytes(b"junk")
    label_archive(images, out, SETTINGS, options)
    draw(images / "x.png", 8)
    label_archive(images, out, SETTINGS, updating)
    assert "labels/x.png" in labels(out)
    draw(images / "x.png", 9)  # and is noticed from then on
    before = labels(out)["labels/x.png"]
    label_archive(images, out, SETTINGS, updating)
    assert labels(out)["labels/x.png"] != before


def test_names_of_label_maps_do_not_meet(images, tmp_path, options, updating):
    out = tmp_path / "out"
    label_archive(images, out, SETTINGS, options)
    draw(images / "a.bmp", 8)
    (images / "a.png.bmp").write_bytes((images / "a.bmp").read_bytes())
    before = labels(out)["labels/a.png"]
    label_archive(images, out, SETTINGS, updating)
    found = labels(out)
    assert len(found) == 5 and found["labels/a.png"] == before
    assert len({name.casefold() for name in found}) == 5


def test_a_product_of_its_own_has_its_stretch_and_others_keep_theirs(
    tmp_path, options, updating, monkeypatch
):
    out, images = tmp_path / "out", tmp_path / "images"
    rng = np.random.default_rng(0)

    def save(name, low):
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        save_raster(images / name, rng.integers(low, low + 3000, (3, 96, 96)).astype(np.uint16))

    for index in range(2):
        save(f"old/{index}.tif", 0)
    save("alone/0.tif", 0)
    label_archive(images, out, SETTINGS, options)
    before = RunFolder(out).read_run()["stretches"]
    assert len(before) == 1
    save("old/2.tif", 20_000)  # does not move the stretch of its product
    for index in range(2):
        save(f"new/{index}.tif", 9000)
        save(f"alone/{index + 1}.tif", 9000)  # one that had its own stretch would be read otherwise
    label_archive(images, out, SETTINGS, updating)
    run = RunFolder(out).read_run()
    assert before.items() <= run["stretches"].items() and len(run["stretches"]) == 2
    assert sum(kind["sources"] for kind in run["read"]) == 8 and run["updated"]


def test_a_run_that_has_grown_is_planned_again_by_repair(images, tmp_path, options, updating):
    out = tmp_path / "out"
    (images / "x.png").write_bytes(b"junk")
    label_archive(images, out, SETTINGS, options)
    draw(images / "x.png", 8)
    draw(images / "z.png", 9)
    label_archive(images, out, SETTINGS, updating)
    plan = RunFolder(out).plan
    before = plan.read_bytes()
    plan.write_bytes(before[:-100])
    assert repair(RunFolder(out))[1] == [] and plan.read_bytes() == before


# --- kills

HOW = ("two passes", "one pass", "segments kept")


def grown(tmp_path, name, images, options, **how):
    """Run folders before and after an update that nobody disturbed."""
    before, after = tmp_path / f"{name}-before", tmp_path / f"{name}-after"
    clusters = how.get("clusters")
    one_pass = OnePass(clusters, how["keep"]) if clusters else None
    (images / "bb.png").write_bytes(b"junk")
    settings = None if one_pass else SETTINGS
    label_archive(images, before, settings, options, one_pass)
    draw(images / "bb.png", 7)
    draw(images / "b.png", 8)
    draw(images / "z.png", 9)
    shutil.copytree(before, after)
    both = replace(options, update=True, retry_failed=True)
    label_archive(images, after, settings, both, one_pass)

    def start(out, asked):
        label_archive(images, out, settings, both if asked else options, one_pass)

    return before, after, start


@pytest.mark.slow
@pytest.mark.parametrize("how", HOW)
def test_an_update_that_is_stopped_anywhere_goes_on(images, tmp_path, options, how, stopped_after):
    given = {}
    if how != "two passes":
        label_archive(images, tmp_path / "two", SETTINGS, options)
        given = {"clusters": tmp_path / "two" / "clusters.npz", "keep": how == "segments kept"}
    before, after, start = grown(tmp_path, "x", images, options, **given)
    wanted, statuses = results(after), [row["status"] for row in tiles_of(after)]
    renames, is_over = HOW.index(how), False  # all places would take minutes
    while not is_over:
        out = tmp_path / f"out-{renames}"
        shutil.copytree(before, out)
        try:
            with stopped_after(renames):
                start(out, True)
            is_over = True
        except KeyboardInterrupt:
            pass
        status_of(RunFolder(out), is_patient=False)
        if renames % 2:  # goes on without --update first
            start(out, False)
        start(out, True)
        assert results(out) == wanted, renames
        assert [row["status"] for row in tiles_of(out)] == statuses
        assert verify_archive(RunFolder(out)).is_right
        shutil.rmtree(out)
        renames += 7  # which leaves each way three or four places, others than the next one's
    assert renames > 15


def test_what_was_set_aside_is_taken_back_where_the_plan_did_not_grow(
    images, tmp_path, options, monkeypatch
):
    out = tmp_path / "out"
    label_archive(images, out, SETTINGS, options)
    before, folder = results(out), RunFolder(out)
    folder.shard_tiles(1).rename(folder.kept_tiles(1))

    def segments_nothing(*given, **named):
        raise AssertionError("a tile was segmented again")

    monkeypatch.setattr("alps.engine.masks.generator.MaskGenerator.segment", segments_nothing)
    label_archive(images, out, SETTINGS, options)
    assert results(out) == before and not folder.kept_tiles(1).exists()
    assert verify_archive(folder).is_right


@pytest.mark.slow
def test_an_update_that_is_killed_goes_on(images, tmp_path, options, updating):
    """By SIGKILL, wherever it is."""
    out = tmp_path / "out"
    label_archive(images, out, SETTINGS, options)
    for seed in range(4):
        draw(images / f"z{seed}.png", 10 + seed)
    shutil.copytree(out, tmp_path / "after")
    label_archive(images, tmp_path / "after", SETTINGS, updating)
    code = (
        "import sys\nfrom alps.engine.run_folder import plan\nplan.SHARD_TILES = 2\n"
        "from alps.engine.cli.commands import label\nlabel(sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, str(images), str(out), "--model", options.model]
    command += ["--device", "cpu", "--clusters", "3", "--max-failed", "1", "--update"]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, env=one_thread) as process:
        folder = RunFolder(out)
        end = time.monotonic() + 120
        while not (folder.shard_tiles(2).exists() and Plan.of(folder).tiles == 7):
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert status_of(folder).state == STOPPED
    with pytest.raises(RunFolderError, match=r"not segmented yet|has no clusters"):
        single.paint(out)
        single.cluster(out)
    label_archive(images, out, SETTINGS, updating)
    assert results(out) == results(tmp_path / "after")
    assert not list((out / "journal").glob("alive-*"))
    assert load_clusters(out / "clusters.npz").model is not None
    assert json.loads((out / "run.json").read_text())["clusters_kept"]
