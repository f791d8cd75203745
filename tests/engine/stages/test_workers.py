"""A run by workers: the same bytes for any number of them, whichever of them dies."""

import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import psutil
import pyarrow.parquet as pq
import pytest
from crews import Elsewhere, worker_processes
from PIL import Image
from small_runs import results

import alps
from alps.engine.demo.scenes import SceneSettings, make_scene
from alps.engine.stages.fit_clusters import fit_clusters
from alps.engine.stages.label import label_archive
from alps.engine.stages.one_pass import OnePass

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.slow]
SETTINGS = alps.RunSettings(
    source=alps.SourceSettings(tile=64, overlap=16),
    segment=alps.SegmentSettings(points_per_side=4),
    cluster=alps.ClusterSettings(clusters=4),
)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """121 windows, four shards; sources that shards share, one of which is cut short."""
    folder = tmp_path_factory.mktemp("archive")
    for number, side in enumerate((260, 300, 150, 96)):
        image = make_scene(number, SceneSettings(size=side)).image
        Image.fromarray(image).save(folder / f"{number}.png")
    whole = (folder / "0.png").read_bytes()
    (folder / "broken.png").write_bytes(whole[: len(whole) // 2])
    return folder


@pytest.fixture(scope="module")
def alone(archive, tmp_path_factory, speck):
    """What this process makes of it without workers."""
    out = tmp_path_factory.mktemp("alone") / "out"
    options = alps.RunOptions(model=str(speck), device="cpu", max_failed=1.0, workers=1)
    label_archive(archive, out, SETTINGS, options)
    return out


@pytest.fixture
def by_workers(options):
    return replace(options, workers=2)


@pytest.fixture
def elsewhere(monkeypatch):
    """Workers get what they do as processes would, and are none: those take seconds to start."""

    @contextmanager
    def meets(*given):
        yield Elsewhere()

    monkeypatch.setattr("alps.engine.stages.tiles.crew.LocalCrew", meets)


def rows(out):
    tiles = pq.read_table(out / "tiles.parquet").to_pylist()
    return [{k: v for k, v in row.items() if not k.endswith("_seconds")} for row in tiles]


def same(one, other):
    return results(one) == results(other) and rows(one) == rows(other)


def test_the_same_bytes_for_any_number(archive, alone, tmp_path, options):
    """Of three; what follows takes two."""
    out = tmp_path / "out"
    others = set(psutil.Process().children(recursive=True))  # servers of other tests
    label_archive(archive, out, SETTINGS, replace(options, workers=3))
    assert same(out, alone)
    assert not list((out / "journal").glob("alive-*"))  # all ended in good order
    assert set(psutil.Process().children(recursive=True)) <= others


def test_a_worker_that_is_killed_leaves_no_mark(archive, alone, tmp_path, by_workers, capfd):
    out, killed = tmp_path / "out", []
    others = worker_processes()  # servers of other tests

    def kill():
        while not killed:
            for worker in worker_processes() - others:
                shards = list((out / "journal").glob("tiles-*.parquet"))
                if shards:
                    worker.kill()
                    killed.append(worker.pid)
                    break
            time.sleep(0.2)
            if (out / "report").exists():
                return

    thread = threading.Thread(target=kill)
    thread.start()
    label_archive(archive, out, SETTINGS, by_workers)
    thread.join()
    assert killed and same(out, alone)


def test_the_parent_killed_takes_its_workers_along_and_the_run_goes_on(
    archive, alone, tmp_path, by_workers
):
    out = tmp_path / "out"
    command = [
        sys.executable, "-m", "alps.engine.cli.main", "label", str(archive), str(out),
        "--model", by_workers.model, "--device", "cpu", "--workers", "2", "--max-failed", "1",
        "--clusters", "4", "--points-per-side", "4", "--tile", "64", "--overlap", "16",
    ]  # fmt: skip

    def shards():
        return len(list((out / "journal").glob("tiles-*.parquet")))

    for number, ends in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)):
        before = shards()
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        while shards() == before:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.02)
        workers = worker_processes(process.pid)
        assert len(workers) == 2
        process.send_signal(number)
        assert process.wait(60) == ends
        assert not psutil.wait_procs(workers, timeout=30)[1]
        process.stderr.close()
    label_archive(archive, out, SETTINGS, replace(by_workers, workers=1))
    assert same(out, alone)


def test_one_pass_and_samples_too(archive, tmp_path, options, by_workers, elsewhere):
    files = []
    for number, own in enumerate((replace(options, workers=1), by_workers)):
        file = tmp_path / f"{number}.npz"
        fit_clusters(archive, file, 40, SETTINGS, own)
        label_archive(archive, tmp_path / str(number), SETTINGS, own, OnePass(file, True))
        files.append(file.read_bytes())
    assert files[0] == files[1]
    assert same(tmp_path / "0", tmp_path / "1")


def test_what_could_not_be_read_is_done_again_in_its_shard(
    archive, tmp_path, options, by_workers, elsewhere
):
    images = tmp_path / "images"
    shutil.copytree(archive, images)
    real = (images / "1.png").read_bytes()
    for own in (by_workers, replace(options, workers=1)):
        out = tmp_path / str(own.workers)
        (images / "1.png").write_bytes(real[: len(real) // 2])  # its header can be read
        label_archive(images, out, SETTINGS, own)
        failed = [sum(row["status"] == "failed" for row in rows(out))]
        (images / "1.png").write_bytes(real)
        label_archive(images, out, SETTINGS, own)
        failed.append(sum(row["status"] == "failed" for row in rows(out)))
        assert failed[0] > failed[1] > 0
    assert same(tmp_path / "1", tmp_path / "2")
