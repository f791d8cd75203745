"""The published code's whole pipeline, written anew, and `alps bench pipeline`."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from stock_sam import SMALL, picture

from alps.bench.commands import bench
from alps.bench.everything.random_weights import save_random_sam
from alps.bench.everything.thresholds import keep_all, thresholds_of
from alps.bench.pipeline import sides
from alps.bench.pipeline.options import PipelineOptions
from alps.bench.pipeline.published import (
    Clock,
    Published,
    mean_of_products,
    network_input,
    paint_mask,
    write_records,
)
from alps.bench.pipeline.sides import OURS, PUBLISHED, SideJob, SideRun, run_side
from alps.engine.base.errors import SettingsError
from alps.engine.cli.main import commands
from alps.engine.masks.generator import MaskGenerator
from alps.engine.models.checkpoints import load_sam

# pycocotools' own, under NumPy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

POINTS = 6  # a side


def record(mask, at=(1.5, 2.5)):
    return {
        "segmentation": mask,
        "area": int(mask.sum()),
        "bbox": [0, 0, 4, 4],
        "point_coords": [list(at)],
        "predicted_iou": 0.9,
        "stability_score": 0.8,
        "crop_box": [0, 0, 8, 8],
    }


def test_large_masks_are_left_out_and_each_other_is_a_file(tmp_path):
    small, large = np.zeros((8, 8), bool), np.ones((8, 8), bool)
    small[:4, :4] = True
    assert write_records([record(large), record(small)], (8, 8), tmp_path / "a") == 1
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["0.png", "metadata.csv"]
    assert (cv2.imread(str(tmp_path / "a" / "0.png"), 0) == 255 * small).all()
    (row,) = csv.DictReader((tmp_path / "a" / "metadata.csv").open())
    assert (row["id"], row["area"], row["point_input_x"]) == ("0", "16", "1.5")


def test_the_second_encoding_gets_no_normalisation_and_a_padded_square():
    image = np.full((10, 20, 3), (255, 0, 51), np.uint8)
    pixels = network_input(image, 40)
    assert pixels.shape == (1, 3, 40, 40) and pixels.dtype == torch.float32
    assert pixels[0, :, 5, 5].tolist() == pytest.approx([1, 0, 0.2])
    assert (pixels[0, :, 20:] == 0).all() and (pixels[0, 0, :20] == 1).all()
    mask = network_input(np.ones((10, 20), np.float32), 40)
    assert mask.shape == (1, 1, 40, 40) and mask.sum() == 800


def test_means_divide_by_products_that_are_not_zero():
    fine = torch.tensor([[[[1.0, 0.0], [3.0, 5.0]], [[2.0, 2.0], [2.0, 2.0]]]])
    right = torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]])
    assert mean_of_products(fine, right).tolist() == [[5, 2]]
    assert mean_of_products(fine, 0 * right).tolist() == [[0, 0]]


def test_class_0_leaves_no_trace_and_later_masks_lie_on_top():
    painted = np.zeros((4, 4))
    left, top = np.zeros((4, 4), np.float32), np.zeros((4, 4), np.float32)
    left[:, :2], top[:2] = 1, 1
    paint_mask(painted, left, 3)
    paint_mask(painted, top, 7)
    paint_mask(painted, np.ones((4, 4), np.float32), 0)
    assert painted.tolist() == [[7] * 4, [7] * 4, [3, 3, 0, 0], [3, 3, 0, 0]]


# --- with a small SAM


@pytest.fixture(scope="module")
def job(tmp_path_factory, one_thread):
    """A published side on two tiles of which the second is not square."""
    folder = tmp_path_factory.mktemp("pipeline")
    save_random_sam(SMALL, folder / "small.pth", picture(64, 64), seed=0)
    sam, _ = load_sam(folder / "small.pth")
    everything = MaskGenerator(sam, **keep_all({"points_per_side": POINTS}))
    settings = thresholds_of(everything.segment(picture(64, 64)))
    (folder / "tiles").mkdir()
    for seed, (height, width) in enumerate([(64, 64), (50, 70)]):
        Image.fromarray(picture(height, width, seed)).save(folder / "tiles" / f"{seed}.png")
    return SideJob(
        label=PUBLISHED,
        tiles=str(folder / "tiles"),
        out=str(folder / "published"),
        checkpoint=str(folder / "small.pth"),
        settings={"points_per_side": POINTS, **settings},
        clusters=2,
        tile=70,
        threads=1,
        device="cpu",
        seed=0,
        max_area=0.3,
    )


@pytest.fixture(scope="module")
def done(job):
    """What the published pipeline made: its folder, seconds and number of masks."""
    seconds, masks = sides.run_published(job)
    return job, seconds, masks


@pytest.mark.slow
def test_the_published_pipeline_leaves_its_files(done):
    job, seconds, masks = done
    out = Path(job.out)
    pngs = sorted(out.glob("masks/*/*.png"))
    vectors = sorted(out.glob("vectors/*/*.npy"))
    assert len(pngs) == len(vectors) == masks > 2
    assert all(np.load(path).shape == (1, SMALL.embedding_channels) for path in vectors)
    labels = {path.name: cv2.imread(str(path), cv2.IMREAD_UNCHANGED).shape for path in
              out.glob("labels/*")}  # fmt: skip
    assert set(labels.values()) <= {(64, 64), (50, 70)} and labels
    classes = json.loads((out / "classes.json").read_text())
    assert sum(map(len, classes.values())) == masks
    assert all(seconds[stage] > 0 for stage in ("masks", "encode again", "upscale", "pool",
                                                "k-means", "paint", "load"))  # fmt: skip


@pytest.mark.slow
def test_its_label_maps_are_its_masks_with_their_classes(done):
    job, *_ = done
    out = Path(job.out)
    for tile, found in json.loads((out / "classes.json").read_text()).items():
        wanted = None
        for name, label in found.items():
            mask = cv2.imread(str(out / "masks" / tile / f"{name}.png"), 0) > 0
            wanted = np.zeros(mask.shape, int) if wanted is None else wanted
            if label:
                wanted[mask] = label
        painted = cv2.imread(str(out / "labels" / f"{tile}.png"), cv2.IMREAD_UNCHANGED)
        assert (painted == wanted).all()


@pytest.mark.slow
def test_our_command_keeps_the_same_masks(done):
    job, _, masks = done
    ours = sides.label_command(replace(job, out=job.out + "-ours", label=OURS))
    result = CliRunner().invoke(commands, ours)
    assert result.exit_code == 0, result.output
    assert sides.masks_of(Path(job.out + "-ours")) == masks


@pytest.mark.slow
def test_a_side_in_its_own_process_tells_what_it_took(job, tmp_path):
    run = run_side(replace(job, out=str(tmp_path / "out")))
    assert not run.failure and run.masks > 2
    assert run.total > sum(run.seconds.values()) > 0 and run.cpu_seconds > 0
    assert run.peak_bytes > 100 << 20
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert run.files == len(files)
    assert run.file_bytes == sum(path.stat().st_size for path in files)


@pytest.mark.slow
def test_a_side_that_fails_is_a_row_with_a_reason(job, tmp_path):
    run = run_side(replace(job, out=str(tmp_path / "out"), checkpoint="gone.pth"))
    assert "exit code 1" in run.failure


# --- the command


def test_settings_that_cannot_work():
    for name in ("limit", "threads", "tile", "points_per_side"):
        with pytest.raises(SettingsError, match="at least 1"):
            PipelineOptions(**{name: 0})
    with pytest.raises(SettingsError, match="at least 2"):
        PipelineOptions(clusters=1)


def call(monkeypatch, run, *arguments):
    jobs = []

    def pretend(job):
        jobs.append(job)
        return run(job)

    monkeypatch.setattr("alps.bench.pipeline.compare.run_side", pretend)
    monkeypatch.setattr("alps.bench.machine.gemm_rate", lambda device: 1e9)
    return jobs, CliRunner().invoke(bench, ["pipeline", *map(str, arguments)])


def test_the_table_has_both_sides_and_the_ratio(job, monkeypatch, tmp_path):
    def run(job):
        total = 600.0 if job.label == PUBLISHED else 20.0
        names = [path.name for path in sorted(Path(job.tiles).iterdir())]
        assert names == [f"{i:03}.png" for i in range(1 if "one" in job.label else 2)]
        return SideRun(job.label, {"masks": 5.0}, total, 1.0, 10 << 20, 7, 3, 1000)

    target = tmp_path / "out.json"
    images = sorted(Path(job.tiles).iterdir())
    jobs, done = call(monkeypatch, run, *images, "--model", job.checkpoint, "--threads", 1,
                      "--clusters", 5, "--points-per-side", 3, "--json", target)  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "30.0 x" in done.output and "300.00" in done.output and "masks 5.0" in done.output
    assert [job.label for job in jobs] == ["alps label, one tile", PUBLISHED, OURS]
    assert {(job.tile, job.clusters, job.settings["points_per_side"]) for job in jobs} == {
        (70, 5, 3)
    }
    assert len({job.out for job in jobs}) == 3
    plain = json.loads(target.read_text())
    assert [run["total"] for run in plain["runs"]] == [20, 600, 20]
    assert str(tmp_path) not in target.read_text()


def test_a_failed_side_fails_the_command_after_its_table(job, monkeypatch):
    def run(job):
        failure = "no memory" if job.label == PUBLISHED else ""
        return SideRun(job.label, {}, 20.0, failure=failure)

    image = sorted(Path(job.tiles).iterdir())[0]
    _, done = call(monkeypatch, run, image, "--model", job.checkpoint, "--threads", 1)
    assert done.exit_code == 1 and "published code: no memory" in str(done.exception)
    assert "failed: no memory" in done.output and "20.0" in done.output


def test_the_clock_adds_up():
    clock = Clock("cpu")
    for _ in range(2):
        with clock.of("pool"):
            pass
    assert clock.seconds["pool"] > 0 and clock.seconds["paint"] == 0


def test_a_tile_without_a_mask_is_passed_over(tmp_path):
    (tmp_path / "masks" / "a").mkdir(parents=True)
    (tmp_path / "vectors").mkdir()
    (tmp_path / "vectors" / "a.json").write_text("{}")
    pipeline = Published(tmp_path, tmp_path, "", {}, 2, 0, Clock("cpu"))
    assert list(pipeline._batches()) == []
