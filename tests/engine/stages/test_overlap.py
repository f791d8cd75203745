"""Segmenting overlaps in time, on a device of known times; whatever the jitter, the same bytes."""

import os
import random
import signal
import threading
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
from fake_device import FakeDevice
from PIL import Image

from alps.engine.base.stopping import Stopped, listen
from alps.engine.demo.scenes import SceneSettings, make_scene
from alps.engine.images.raster import RasterReader
from alps.engine.images.sources import find_sources
from alps.engine.masks.generator import MaskGenerator
from alps.engine.models.load import load_model
from alps.engine.planning.make import make_plan
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.tables import read_table, write_table
from alps.engine.runtimes.protocol import Capacity
from alps.engine.runtimes.pytorch import TorchRuntime
from alps.engine.settings import RunSettings, SegmentSettings
from alps.engine.stages.segment import collect_tiles, segment_archive, shards_missing
from alps.engine.stages.tiles.masks import TileStages
from alps.engine.stages.tiles.reading import reading_ahead

pytestmark = pytest.mark.usefixtures("one_thread", "shards_of_five")
TILES = 24
# Seconds of reading, encoding, decoding and what follows, and threads.
READ, ENCODE, DECODE, AFTER = 0.120, 0.008, 0.060, 0.100
READERS, AFTERS = 4, 2
TRIES = 5  # a machine may be busy with other things, but not five times


@pytest.fixture
def shards_of_five(monkeypatch):
    monkeypatch.setattr("alps.engine.run_folder.plan.SHARD_TILES", 5)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for number in range(TILES):
        side = 40 + number % 3
        image = make_scene(number, SceneSettings(size=96)).image[:side, :64]
        if number == 7:
            (folder / f"{number:02d}.png").write_text("no image any more")
        elif number == 8:  # of nothing but pixels without data
            alpha = np.zeros((side, 64, 1), np.uint8)
            Image.fromarray(np.concatenate([image, alpha], 2)).save(folder / f"{number:02d}.png")
        else:
            Image.fromarray(image).save(folder / f"{number:02d}.png")
    return folder


class Archive:
    """Segments all of it into folders of its own."""

    def __init__(self, images, tmp_path, speck):
        self.images, self.tmp_path = images, tmp_path
        self.model, self.info = load_model(str(speck), "cpu")
        segment = SegmentSettings(runtime="torch", points_per_side=3)
        self.settings = RunSettings(segment=segment).for_model(self.info.defaults)
        self.device = FakeDevice(TorchRuntime(self.model))

    def segment(self, name):
        folder = RunFolder(self.tmp_path / name)
        if not folder.plan.exists():
            for inside in ("journal", "segments"):
                (folder.root / inside).mkdir(parents=True)
            plan = make_plan(find_sources(self.images), self.settings.source)
            write_table(plan, folder.plan)
        generator = MaskGenerator.for_run(self.device, self.settings.segment)
        segment_archive(folder, generator, self.settings)
        return folder


@pytest.fixture
def archive(images, tmp_path, speck):
    return Archive(images, tmp_path, speck)


def content(folder):
    """Bytes of segments, and rows of tiles without their seconds."""
    segments = {p.name: p.read_bytes() for p in sorted((folder.root / "segments").iterdir())}
    collect_tiles(folder)
    tiles = read_table(folder.tiles)
    kept = [name for name in tiles.column_names if not name.endswith("_seconds")]
    return segments, tiles.select(kept).to_pylist()


def slower(monkeypatch, owner, name, seconds):
    before = getattr(owner, name)

    def slow(*arguments, **named):
        time.sleep(seconds() if callable(seconds) else seconds)
        return before(*arguments, **named)

    monkeypatch.setattr(owner, name, slow)


@pytest.mark.parametrize("places", [1, 3])
def test_wall_time_is_the_slowest_stages(archive, monkeypatch, places):
    monkeypatch.setattr("alps.engine.stages.tiles.reading.READERS", READERS)
    monkeypatch.setattr("alps.engine.stages.tiles.masks.threads", lambda: AFTERS + 1)
    archive.device.capacity = Capacity(places, 64)
    archive.segment("before")  # answers are computed, kernels compiled
    archive.device.encode_seconds, archive.device.decode_seconds = ENCODE, DECODE
    slower(monkeypatch, RasterReader, "read", READ)
    slower(monkeypatch, MaskGenerator, "describe", AFTER)
    fill = places * (READ + ENCODE + DECODE + AFTER) + 0.2  # and what kernels really take
    took = []
    for attempt in range(TRIES):
        began = time.perf_counter()
        archive.segment(f"timed{attempt}")
        took.append(time.perf_counter() - began)
        if took[-1] <= 1.2 * DECODE * TILES + fill:
            return
    pytest.fail(f"{TILES} tiles took {min(took):.2f} s at best")


@pytest.mark.parametrize("places", [1, 3])
def test_the_same_bytes_whatever_the_jitter(archive, monkeypatch, places):
    archive.device.capacity = Capacity(places, 64)
    whole = content(archive.segment("whole"))
    assert [row["status"] for row in whole[1]].count("ok") == TILES - 2
    alive, most, lock = set(), [0], threading.Lock()
    encode, find = TileStages.encode, TileStages.find

    def counted_encode(self, batch):
        with lock:
            alive.add(id(batch))
            most[0] = max(most[0], len(alive))
        return encode(self, batch)

    def counted_find(self, batch):
        found = find(self, batch)
        with lock:
            alive.discard(id(batch))
        return found

    monkeypatch.setattr(TileStages, "encode", counted_encode)
    monkeypatch.setattr(TileStages, "find", counted_find)
    rng = random.Random(places)
    archive.device.jitter = lambda: rng.random() / 100
    slower(monkeypatch, RasterReader, "read", archive.device.jitter)
    slower(monkeypatch, MaskGenerator, "describe", archive.device.jitter)
    for name in ("one", "two"):
        assert content(archive.segment(name)) == whole
    assert most[0] == 2 and not alive


@pytest.mark.parametrize(
    "bad",
    [
        (reading_ahead, "_read"),
        (TileStages, "prepare"),
        (FakeDevice, "encode"),
        (FakeDevice, "decode"),
        (MaskGenerator, "describe"),
    ],
)
def test_an_exception_in_any_stage_leaves_the_journal_intact(archive, monkeypatch, bad):
    archive.device.capacity = Capacity(2, 64)
    whole = content(archive.segment("whole"))
    owner, name = bad
    before, calls = getattr(owner, name), []

    def fails(*arguments, **named):
        calls.append(1)
        if len(calls) == 12:
            raise ZeroDivisionError
        return before(*arguments, **named)

    archive.device.jitter = lambda: 0.001
    with monkeypatch.context() as context:
        context.setattr(owner, name, fails)
        with pytest.raises(ZeroDivisionError):
            archive.segment("failed")
    folder = RunFolder(archive.tmp_path / "failed")
    assert shards_missing(folder) > 0
    for path in folder.journal.glob("tiles-*.parquet"):  # what is there is whole
        shard = int(path.stem.rpartition("-")[2])
        assert path.read_bytes() and pq.read_metadata(folder.segments(shard))
    assert content(archive.segment("failed")) == whole


@pytest.mark.usefixtures("restored_signals")
def test_ctrl_c_leaves_no_thread(archive):
    whole = content(archive.segment("whole"))
    archive.device.jitter = lambda: 0.01
    before = threading.active_count()
    listen()
    threading.Timer(0.15, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(Stopped):
        archive.segment("stopped")
    names = [thread.name for thread in threading.enumerate()]
    assert threading.active_count() <= before + 1, names  # the timer's perhaps
    archive.device.jitter = None
    listen()  # to the next ones
    assert content(archive.segment("stopped")) == whole
