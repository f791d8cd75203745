"""The main job as a whole: what it writes, that it survives, and what it refuses."""

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
from PIL import Image

import alps.engine.runtimes.batching
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.locks import alone, locked
from alps.engine.run_folder.plan import Plan
from alps.engine.run_folder.tables import read_table, write_table
from alps.engine.sam import Sam
from alps.engine.stages import single
from alps.engine.stages.label import (
    RunOptions,
    cluster_stage,
    label_archive,
    paint_stage,
    segment_stage,
    summarise,
)
from alps.engine.stages.segment import shards_missing
from alps.engine.stages.verify import repair, verify_archive
from alps.kernels.masks import coco

pytestmark = pytest.mark.usefixtures("without_reports")

SETTINGS = alps.RunSettings(cluster=alps.ClusterSettings(clusters=4))
PATIENCE = 120  # seconds that a command may take to begin


def results(out):
    """The bytes of everything that must not depend on how often a run was stopped."""
    folders = ("labels", "segments", "regions", "clusters")
    files = [path for name in folders for path in out.glob(f"{name}/**/*.*") if path.is_file()]
    files.append(out / "clusters.npz")
    assert len(files) > 2
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(files)}


@pytest.mark.report
def test_run_folder_is_readable_with_other_tools(archive, tmp_path, options):
    out = tmp_path / "out"
    summary = label_archive(archive, out, SETTINGS, options)
    tiles = pq.read_table(out / "tiles.parquet").to_pylist()
    segments = pq.read_table(out / "segments").to_pylist()
    assert summary.sources == 5 and {tile["status"] for tile in tiles} == {"ok"}
    masks = [segment for segment in segments if segment["mask"] >= 0]
    assert len(masks) == summary.segments == sum(tile["segments"] for tile in tiles) > 20
    sizes = {tile["tile_id"]: (tile["height"], tile["width"]) for tile in tiles}
    for segment in segments:
        mask = coco.decode_mask(segment["counts"], sizes[segment["tile_id"]])
        rows, columns = np.nonzero(mask)
        assert mask.sum() == segment["area"]
        assert (segment["x"], segment["y"]) == (columns.min(), rows.min())
        assert segment["width"] == np.ptp(columns) + 1 and segment["height"] == np.ptp(rows) + 1
        assert len(segment["embedding"]) == 16
    regions = pq.read_table(out / "regions" / "part-00000.parquet").to_pylist()
    classes = pq.read_table(out / "clusters").to_pylist()
    assert len(regions) == len(classes) > 20
    assert all(0 <= one["cluster"] < 4 and 0 <= one["margin"] <= 1 for one in classes)
    for source in {tile["source_index"]: tile for tile in tiles}.values():
        own = [one for one in regions if one["source_index"] == source["source_index"]]
        with rasterio.open(out / "regions" / "rasters" / f"{source['label']}.tif") as raster:
            numbers = raster.read(1)
        found, area = np.unique(numbers[numbers != raster.nodata], return_counts=True)
        assert found.tolist() == list(range(len(own)))
        assert area.tolist() == [one["area"] for one in own]
    run = json.loads((out / "run.json").read_text())
    assert run["settings"]["segment"]["points_per_side"] == 6  # travelled with the model
    assert len(run["model"]["sha256"]) == 64
    assert (out / "report" / "index.html").stat().st_size > 1000


def test_label_maps_have_the_size_and_place_of_their_source(saved_archive, finished):
    archive, out = saved_archive, finished
    for name in ("a.png", "b.png", "north/c.png", "north/d.png"):
        source = archive / name if (archive / name).exists() else archive / "b.jpg"
        with Image.open(out / "labels" / name) as labels, Image.open(source) as image:
            assert labels.size == image.size and labels.mode == "P"
            assert set(np.unique(labels)) <= {0, 1, 2, 3, 255}
    with (
        rasterio.open(out / "labels" / "north" / "e.tif") as labels,
        rasterio.open(archive / "north" / "e.tif") as image,
    ):
        assert labels.crs == image.crs and labels.transform == image.transform
        assert labels.shape == image.shape and labels.nodata == 255
        assert (labels.read(1)[:, :60] == 255).all()  # nodata is never labelled
        assert (labels.read(1)[:, 60:] != 255).any()


def test_classes_json_counts_what_the_label_maps_show(finished):
    out = finished
    content = json.loads((out / "classes.json").read_text())
    counted = np.zeros(256, int)
    for path in out.glob("labels/**/*.*"):
        with rasterio.open(path) as labels:
            counted += np.bincount(labels.read(1).ravel(), minlength=256)
    assert [c["pixels"] for c in content["classes"]] == counted[:4].tolist()
    assert content["unlabelled_pixels"] == counted[255]
    shown = pq.read_table(out / "regions" / "part-00000.parquet", columns=["area"])
    assert sum(c["regions"] for c in content["classes"]) == shown.num_rows
    assert sum(c["pixels"] for c in content["classes"]) == sum(shown["area"].to_pylist())


@pytest.mark.slow
def test_same_seed_same_bytes(saved_archive, tmp_path, options, finished):
    label_archive(saved_archive, tmp_path / "two", SETTINGS, options)
    assert results(finished) == results(tmp_path / "two")


@pytest.mark.slow
def test_larger_shards_give_the_same_label_maps(archive, tmp_path, options, monkeypatch, finished):
    for name, value in (("SHARD_TILES", 2), ("MOST_SHARDS", 2), ("LARGEST_SHARD", 4)):
        monkeypatch.setattr(f"alps.engine.run_folder.plan.{name}", value)
    label_archive(archive, tmp_path / "two", SETTINGS, options)
    folder = RunFolder(tmp_path / "two")
    plan = Plan.of(folder)
    assert plan.shard_tiles == 4 and plan.shards > 1
    one, two = (
        {path.name: path.read_bytes() for path in (out / "labels").rglob("*") if path.is_file()}
        for out in (finished, tmp_path / "two")
    )
    assert one == two and len(one) == 5
    folder.plan.write_bytes(b"junk")  # its shards' size is told by what became of its tiles
    assert repair(folder)[1] == []
    label_archive(archive, tmp_path / "two", SETTINGS, options)
    assert Plan.of(folder).shard_tiles == 4 and verify_archive(folder).is_right


@pytest.mark.slow
def test_tiles_encoded_together_give_the_same_segments(
    archive, tmp_path, options, monkeypatch, finished
):
    monkeypatch.setitem(alps.engine.runtimes.batching.IMAGES_AT_ONCE, "cpu", 3)
    (archive / "broken.png").write_text("no image")  # stands in the middle of a batch
    batched = label_archive(archive, tmp_path / "three", SETTINGS, options)
    assert batched.segments == summarise(RunFolder(finished)).segments
    tables = [
        pq.read_table(out / "segments", columns=["counts", "embedding", "predicted_iou"])
        for out in (finished, tmp_path / "three")
    ]
    # A batch may round otherwise than a single image: a pixel here and there, no mask.
    iou = [table["predicted_iou"].to_numpy() for table in tables]
    np.testing.assert_allclose(iou[0], iou[1], atol=1e-4)
    same = [a == b for a, b in zip(*(table["counts"].to_pylist() for table in tables), strict=True)]
    assert np.mean(same) > 0.95
    tiles = pq.read_table(tmp_path / "three" / "tiles.parquet").to_pylist()
    assert all(tile["encode_seconds"] > 0 for tile in tiles if tile["status"] == "ok")


def test_options_that_change_masks_are_asked_for(archive, tmp_path, options):
    label_archive(archive / "a.png", tmp_path / "exact", SETTINGS, options)
    changed = alps.RunSettings(
        segment=alps.SegmentSettings(precision="bf16", coarse_to_fine=True),
        cluster=alps.ClusterSettings(clusters=4),
    )
    label_archive(archive / "a.png", tmp_path / "changed", changed, options)
    folders = [tmp_path / "exact", tmp_path / "changed"]
    exact, rough = (pq.read_table(f / "segments")["predicted_iou"].to_pylist() for f in folders)
    assert rough and rough != exact
    asked = [sum(pq.read_table(f / "tiles.parquet")["points"].to_pylist()) for f in folders]
    assert 0 < asked[1] <= asked[0]
    with pytest.raises(alps.RunFolderError, match="coarse"):
        label_archive(archive / "a.png", tmp_path / "exact", changed, options)


@pytest.mark.slow
def test_stopped_between_shards_and_stages_ends_the_same(
    saved_archive, tmp_path, options, shards_of_two, stopped_after, finished_by_twos
):
    out = tmp_path / "stopped"
    for allowed in (1, 3, 4, 7, 9, 12, 15, 22):
        with pytest.raises(KeyboardInterrupt), stopped_after(allowed):
            label_archive(saved_archive, out, SETTINGS, options)
    label_archive(saved_archive, out, SETTINGS, options)
    assert results(out) == results(finished_by_twos)


@pytest.mark.parametrize(
    ("place", "doing"),
    [
        ("alps.engine.masks.generator.MaskGenerator.find", "segmenting: .*--tile"),
        ("alps.engine.regions.scenes.measured_block", "cutting: .*--superpixels"),
        ("alps.engine.clusters.assign.fit_centroids", "clustering: .*--clusters"),
        ("alps.engine.labels.paint.Painter.made", "painting: .*smaller images"),
    ],
)
def test_out_of_memory_says_what_to_lower_and_the_run_goes_on(
    archive, tmp_path, options, monkeypatch, place, doing
):
    def fails(*_, **__):
        raise RuntimeError("could not create a primitive")

    with monkeypatch.context() as context:
        context.setattr(place, fails)
        with pytest.raises(alps.OutOfMemoryError, match=f"out of memory while {doing}"):
            label_archive(archive / "a.png", tmp_path / "out", SETTINGS, options)
    assert label_archive(archive / "a.png", tmp_path / "out", SETTINGS, options).labelled == 1


@pytest.mark.slow
def test_killed_with_sigkill_ends_with_the_same_bytes(
    saved_archive, tmp_path, options, shards_of_two, finished_by_twos
):
    """Once, while it segments; bench/proofs/kill_resume kills at any moment, many times."""
    folder = RunFolder(tmp_path / "killed")
    code = (
        "import sys\nfrom alps.engine.run_folder import plan\nplan.SHARD_TILES = 2\n"
        "from alps.engine.cli.commands import label\nlabel(sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, str(saved_archive), str(folder.root), "--clusters", "4"]
    command += ["--model", options.model, "--device", "cpu"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        end = time.monotonic() + PATIENCE
        while not folder.shard_tiles(2).exists():
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL and not folder.clusters.exists()
    label_archive(saved_archive, folder.root, SETTINGS, options)
    assert results(folder.root) == results(finished_by_twos)


@pytest.mark.slow
def test_a_model_is_held_no_longer_than_it_segments(archive, tmp_path, options, monkeypatch):
    before, held, cut = models(), [], alps.engine.stages.label.cut_stage

    def counted(*arguments, **named):
        held.append(models() - before)
        cut(*arguments, **named)

    monkeypatch.setattr("alps.engine.stages.label.cut_stage", counted)
    label_archive(archive, tmp_path / "out", SETTINGS, options)
    assert held and set(held) == {0}


def models():
    """How many networks are in memory."""
    gc.collect()
    return sum(isinstance(thing, Sam) for thing in gc.get_objects())


def test_other_clusters_segment_nothing_anew(saved_archive, labelled, options, monkeypatch):
    out = labelled
    first = results(out)
    monkeypatch.setattr(
        "alps.engine.stages.tiles.masks.TileStages.find", lambda *_: pytest.fail("segmented again")
    )
    six = alps.RunSettings(cluster=alps.ClusterSettings(clusters=6))
    label_archive(saved_archive, out, six, options)
    assert {c["id"] for c in json.loads((out / "classes.json").read_text())["classes"]} == set(
        range(6)
    )
    label_archive(saved_archive, out, SETTINGS, options)
    assert results(out) == first


@pytest.mark.slow
def test_machines_share_the_shards(
    saved_archive, tmp_path, options, shards_of_two, finished_by_twos
):
    folder = RunFolder(tmp_path / "shared")
    for share in ((1, 2), (0, 2)):
        with locked(folder, share):
            both = RunOptions(**{**vars(options), "share": share})
            segment_stage(folder, saved_archive, SETTINGS, both)
        assert (shards_missing(folder) == 0) == (share == (0, 2))
        if share == (1, 2):
            with pytest.raises(alps.RunFolderError, match="not segmented yet"):
                cluster_stage(folder, SETTINGS.cluster)
    cluster_stage(folder, SETTINGS.cluster)
    paint_stage(folder)
    assert results(folder.root) == results(finished_by_twos)


def test_windows_leave_no_seam(archive, tmp_path, options):
    """A pixel covered in any window that sees it is labelled."""
    out = tmp_path / "out"
    label_archive(archive / "north" / "c.png", out, SETTINGS, options)
    with Image.open(out / "labels" / "c.png") as labels:
        labelled = np.asarray(labels) != 255
    covered = np.zeros_like(labelled)
    segments = pq.read_table(out / "segments").to_pylist()
    tiles = {t["tile_id"]: t for t in pq.read_table(out / "tiles.parquet").to_pylist()}
    assert len(tiles) > 1
    for segment in segments:
        tile = tiles[segment["tile_id"]]
        window = covered[
            tile["y"] : tile["y"] + tile["height"], tile["x"] : tile["x"] + tile["width"]
        ]
        window |= coco.decode_mask(segment["counts"], (tile["height"], tile["width"]))
    assert (labelled == covered).all()


def test_unreadable_files_are_rows_and_the_rest_goes_on(three_images, tmp_path, options):
    archive = three_images
    (archive / "empty.png").write_bytes(b"")
    (archive / "text.jpg").write_text("not an image")
    cut = (archive / "a.png").read_bytes()
    (archive / "cut.png").write_bytes(cut[: len(cut) // 2])
    out = tmp_path / "out"
    summary = label_archive(archive, out, SETTINGS, options)
    failed = {
        tile["source"]: tile["reason"]
        for tile in pq.read_table(out / "tiles.parquet").to_pylist()
        if tile["status"] == "failed"
    }
    assert set(failed) == {"empty.png", "text.jpg", "cut.png"}
    assert all(failed.values()) and sum(summary.failed_reasons.values()) == summary.tiles["failed"]
    assert (out / "labels" / "a.png").exists() and not (out / "labels" / "text.png").exists()
    strict = RunOptions(**{**vars(options), "max_failed": 0.05})
    with pytest.raises(alps.TooManyFailuresError, match="max-failed"):
        label_archive(archive, out, SETTINGS, strict)


def test_a_source_without_valid_pixels_is_skipped_with_a_reason(tmp_path, three_images, options):
    archive = three_images
    blank = np.zeros((3, 150, 150), np.uint8)
    with rasterio.open(
        archive / "blank.tif", "w", driver="GTiff", width=150, height=150, count=3,
        dtype="uint8", nodata=0,
    ) as dataset:  # fmt: skip
        dataset.write(blank)
    out = tmp_path / "out"
    label_archive(archive, out, SETTINGS, options)
    rows = [
        tile
        for tile in pq.read_table(out / "tiles.parquet").to_pylist()
        if tile["source"] == "blank.tif"
    ]
    assert {(row["status"], row["reason"]) for row in rows} == {("skipped", "no valid pixel")}
    with rasterio.open(out / "labels" / "blank.tif") as labels:
        assert (labels.read(1) == 255).all()


def test_second_run_on_one_out_is_refused(archive, tmp_path, options):
    folder = RunFolder(tmp_path / "out")
    with locked(folder), pytest.raises(alps.RunFolderError, match="another run"):
        label_archive(archive, folder.root, SETTINGS, options)


def test_machines_work_side_by_side_but_not_on_one_share(tmp_path):
    folder = RunFolder(tmp_path / "out")
    with locked(folder, (0, 2)):
        with locked(folder, (1, 2)), alone(folder, (1, 2)):
            pass
        with pytest.raises(alps.RunFolderError, match="another run"), locked(folder, (0, 2)):
            pass
        with pytest.raises(alps.RunFolderError, match="another run"), locked(folder):
            pass
    with locked(folder):
        pass


def test_other_settings_on_one_out_are_refused_and_named(saved_archive, labelled, options):
    out, before = labelled, results(labelled)
    other = alps.RunSettings(
        segment=alps.SegmentSettings(points_per_side=7), cluster=SETTINGS.cluster
    )
    with pytest.raises(alps.RunFolderError, match="points_per_side 6 there, 7 now"):
        label_archive(saved_archive, out, other, options)
    assert results(out) == before


def test_more_clusters_than_segments_loses_nothing(three_images, tmp_path, options):
    archive = three_images
    out = tmp_path / "out"
    many = alps.RunSettings(cluster=alps.ClusterSettings(clusters=5000))
    with pytest.raises(alps.SettingsError, match=r"only .* regions"):
        label_archive(archive, out, many, options)
    summary = label_archive(archive, out, SETTINGS, options)
    assert summary.coverage > 0


def test_no_mask_at_all_says_what_to_lower(three_images, tmp_path, options):
    strict = alps.RunSettings(
        segment=alps.SegmentSettings(pred_iou_thresh=1.0), cluster=SETTINGS.cluster
    )
    with pytest.raises(alps.RunFolderError, match="none passed the gate; lower --pred-iou"):
        label_archive(three_images, tmp_path / "out", strict, options)


@pytest.mark.slow
def test_wide_labels_beyond_255_clusters(archive, tmp_path, options):
    out = tmp_path / "out"
    finer = alps.RunSettings(
        segment=alps.SegmentSettings(points_per_side=8, superpixels=20_000),
        source=alps.SourceSettings(tile=24, overlap=4),
        cluster=alps.ClusterSettings(clusters=260),
        paint=alps.PaintSettings(min_patch="1", agreement=0),
    )
    label_archive(archive / "a.png", out, finer, options)
    with Image.open(out / "labels" / "a.png") as labels:
        values = np.asarray(labels)
    assert values.max() <= 65535 and values.max() > 255


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (alps.RunSettings(source=alps.SourceSettings(tile=0)), "--tile"),
        (alps.RunSettings(source=alps.SourceSettings(overlap=64)), "--overlap"),
        (alps.RunSettings(source=alps.SourceSettings(bands=(1, 2))), "--bands"),
        (alps.RunSettings(segment=alps.SegmentSettings(pred_iou_thresh=1.5)), "--pred-iou-thresh"),
        (alps.RunSettings(segment=alps.SegmentSettings(precision="int4")), "--precision int4"),
        (alps.RunSettings(cluster=alps.ClusterSettings(clusters=1)), "--clusters"),
    ],
)
def test_settings_that_cannot_work_are_named(archive, tmp_path, options, settings, message):
    with pytest.raises(alps.SettingsError, match=message):
        label_archive(archive, tmp_path / "out", settings, options)


def test_sources_that_are_not_there(tmp_path, options):
    (tmp_path / "nothing").mkdir()
    for src in (tmp_path / "nothing", tmp_path / "missing"):
        with pytest.raises(alps.SourceError, match=src.name):
            label_archive(src, tmp_path / "out", SETTINGS, options)


def test_a_foreign_folder_is_not_written_to(archive, tmp_path, options):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.doc").write_text("years of work")
    with pytest.raises(alps.RunFolderError, match=r"thesis\.doc"):
        label_archive(archive, out, SETTINGS, options)


def test_out_that_cannot_be_made(archive, options):
    with pytest.raises(alps.RunFolderError, match="cannot write"):
        label_archive(archive, archive / "a.png" / "out", SETTINGS, options)


def test_out_inside_src_is_not_labelled_itself(three_images, options):
    label_archive(three_images, three_images / "out", SETTINGS, options)
    summary = label_archive(three_images, three_images / "out", SETTINGS, options)
    assert summary.sources == 3


def test_images_that_came_later_are_named(three_images, tmp_path, options, capsys):
    archive, out = three_images, tmp_path / "out"
    label_archive(archive, out, SETTINGS, options)
    assert "came after" not in capsys.readouterr().err
    shutil.copy(archive / "a.png", archive / "late.png")
    assert label_archive(archive, out, SETTINGS, options).sources == 3
    assert "1 images" in (said := capsys.readouterr().err) and "late.png" in said


def test_an_earlier_run_inside_src_is_not_labelled(three_images, tmp_path, options):
    label_archive(three_images, three_images / "first", SETTINGS, options)
    assert label_archive(three_images, tmp_path / "second", SETTINGS, options).sources == 3


@pytest.mark.slow
def test_deleted_segments_are_made_again(saved_archive, labelled, options):
    before = results(labelled)
    (labelled / "segments" / "part-00000.parquet").unlink()
    label_archive(saved_archive, labelled, SETTINGS, options)
    assert results(labelled) == before


def test_regions_of_segments_that_were_deleted_are_cut_anew(three_images, tmp_path, options):
    archive, folder = three_images, RunFolder(tmp_path / "out")
    single.segment(archive, folder.root, SETTINGS, options)
    path = folder.regions(0)
    before = path.read_bytes()
    single.segment(archive, folder.root, SETTINGS, options)
    changed = path.stat().st_mtime_ns
    folder.segments(0).unlink()
    write_table(read_table(path).slice(1), path)  # as if of other segments
    single.segment(archive, folder.root, SETTINGS, options)
    assert path.read_bytes() == before and path.stat().st_mtime_ns > changed


def test_a_refused_number_of_clusters_leaves_the_run_as_it_was(labelled):
    out = labelled
    folder, run = RunFolder(out), (out / "run.json").read_text()
    with pytest.raises(alps.SettingsError, match=r"only .* regions"):
        cluster_stage(folder, alps.ClusterSettings(clusters=5000))
    assert (out / "run.json").read_text() == run
    assert paint_stage(folder) == {}


def test_an_archive_that_is_away_can_still_be_painted(archive, tmp_path, options):
    out = tmp_path / "out"
    label_archive(archive, out, SETTINGS, options)
    folder, before = RunFolder(out), results(out)
    archive.rename(tmp_path / "elsewhere")
    cluster_stage(folder, alps.ClusterSettings(clusters=3))
    with pytest.raises(alps.RunFolderError, match="alps paint"):
        folder.refuse_unpainted()
    assert paint_stage(folder) == {}
    folder.refuse_unpainted()
    with rasterio.open(out / "labels" / "north" / "e.tif") as labels:
        assert labels.crs == "EPSG:32631" and labels.read(1).min() < 3
    cluster_stage(folder, SETTINGS.cluster)
    paint_stage(folder)
    assert results(out) == before


@pytest.mark.parametrize("content", ["{}", "[]", "null", '{"config_hash": 1}', '{"cut'])
def test_a_damaged_run_json_is_named(archive, tmp_path, options, content):
    out = tmp_path / "out"
    out.mkdir()
    (out / "run.json").write_text(content)
    with pytest.raises(alps.RunFolderError, match=r"run\.json"):
        label_archive(archive, out, SETTINGS, options)


def test_a_refused_folder_is_left_alone(archive, options):
    before = sorted(archive.rglob("*"))
    with pytest.raises(alps.RunFolderError, match="not empty"):
        label_archive(archive, archive, SETTINGS, options)
    assert sorted(archive.rglob("*")) == before


def test_the_demo_overwrites_nothing(tmp_path, speck):
    from alps.engine.demo.run import run_demo

    (tmp_path / "thesis.doc").write_text("years of work")
    with pytest.raises(alps.RunFolderError, match="empty folder"):
        run_demo(tmp_path, scenes=1, seed=0, model=str(speck), device="cpu")
