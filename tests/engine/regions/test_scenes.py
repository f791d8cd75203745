"""Scenes cut by threads: the same files for any number, and each failure its own scene's."""

from collections import Counter
from threading import Barrier, BrokenBarrierError, get_ident
from threading import enumerate as enumerate_threads

import numpy as np
import pytest
from made_run import make_archive
from PIL import Image

from alps.engine.base.errors import SourceAwayError, SourceError
from alps.engine.images.raster import RasterReader
from alps.engine.images.windows import plan_windows
from alps.engine.regions import cut, scenes
from alps.engine.regions.scenes import Scene, cut_by_threads
from alps.engine.regions.windows import COLUMNS
from alps.engine.run_folder.plan import Plan
from alps.engine.run_folder.segment_store import SegmentStore
from alps.engine.stages.absences import Absences
from alps.engine.stages.regions import CutSettings, cut_archive, forget_regions
from alps.kernels.base.threads import set_threads

pytestmark = pytest.mark.usefixtures("one_thread")
PER_MEGAPIXEL = 30_000.0  # a cell is 6 pixels wide
SIZES = {"a.png": (150, 130), "b.png": (40, 31), "c.png": (90, 200)}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Three sources in one group, the first and the last of several blocks."""
    monkeypatch.setattr(cut, "BLOCK_CELLS", 6)
    monkeypatch.setattr(cut, "JOIN_CELLS", 2)
    rng = np.random.default_rng(4)
    archive = {}
    for name, (height, width) in SIZES.items():
        windows = plan_windows(width, height, 64, 16)
        segments = []
        for window in windows:
            mask = np.zeros((window.height, window.width), bool)
            mask[3:20, 5 : 5 + rng.integers(8, 25)] = True
            segments.append([{"mask": mask}])
        archive[name] = (windows, segments)
    run = make_archive(tmp_path / "run", archive)
    for name, (height, width) in SIZES.items():
        coarse = rng.integers(0, 256, (height // 10 + 1, width // 10 + 1, 3))
        image = coarse.repeat(10, 0).repeat(10, 1)[:height, :width].astype(np.uint8)
        Image.fromarray(image).save(run.root / name)
    forget_regions(run)
    return run


def cut_by(folder, number):
    forget_regions(folder)
    set_threads(number)
    cut_archive(folder, CutSettings(None, PER_MEGAPIXEL))
    paths = (folder.root / "regions").rglob("*")
    return {path.name: path.read_bytes() for path in paths if path.is_file()}


def scenes_of(folder):
    store = SegmentStore(folder, COLUMNS)
    return [Scene(tiles, store, None, PER_MEGAPIXEL) for tiles in Plan.of(folder).sources()]


def test_the_same_files_for_any_number_of_threads(folder):
    assert [len(scene.blocks()) for scene in scenes_of(folder)] == [12, 1, 10]
    alone = cut_by(folder, 1)
    assert len(alone) == 6  # three tables, three rasters
    for number in (2, 5, 40):
        assert cut_by(folder, number) == alone


def test_threads_cut_at_once_and_go_on_into_the_next_scene(folder, monkeypatch):
    """Two blocks wait for each other, the last of one scene and one of the next."""
    set_threads(2)
    both, real, met = Barrier(2, timeout=20), scenes.measured_block, []

    def meets(block, scene, *rest):
        last = scene.blocks()[-1]
        if scene.name == "b.png" or (scene.name == "a.png" and block == last):
            both.wait()
            met.append((scene.name, get_ident()))
        return real(block, scene, *rest)

    monkeypatch.setattr(scenes, "measured_block", meets)
    for _, results in cut_by_threads(scenes_of(folder)):
        list(results)
    assert {name for name, _ in met} == {"a.png", "b.png"} and len({who for _, who in met}) == 2


def test_one_thread_cuts_one_block_after_the_other(folder, monkeypatch):
    set_threads(1)
    both, real, alone = Barrier(2, timeout=0.1), scenes.measured_block, []

    def waits(*given):
        with pytest.raises(BrokenBarrierError):
            both.wait()
        alone.append(given[0])
        return real(*given)

    monkeypatch.setattr(scenes, "measured_block", waits)
    for _, results in cut_by_threads(scenes_of(folder)[1:2]):
        list(results)
    assert len(alone) == 1


@pytest.mark.parametrize("bad", SIZES)
def test_a_scene_that_fails_is_alone(folder, bad):
    whole = cut_by(folder, 3)
    (folder.root / bad).unlink()
    found = Counter()
    for scene, results in cut_by_threads(scenes_of(folder)):
        kinds = [isinstance(one, SourceError) for one in results]
        found[scene.name] = all(kinds) if scene.name == bad else any(kinds)
    assert found == {name: name == bad for name in SIZES}
    left = cut_by(folder, 3)
    rasters = {name: folder.region_raster(name).name for name in SIZES}
    same = {name for name, file in rasters.items() if left.get(file) == whole[file]}
    assert same == SIZES.keys() - {bad} and rasters[bad] not in left


def test_files_are_closed_whatever_comes_of_it(folder, monkeypatch):
    opened, closed = [], []
    real_open, real_close = RasterReader.__init__, RasterReader.close

    def opens(self, *given, **named):
        real_open(self, *given, **named)
        opened.append(self)

    def closes(self):
        closed.append(self)
        real_close(self)

    monkeypatch.setattr(RasterReader, "__init__", opens)
    monkeypatch.setattr(RasterReader, "close", closes)
    set_threads(3)
    for _, results in cut_by_threads(scenes_of(folder)):
        next(results)  # and no more of them
    assert len(opened) == 3 and set(map(id, opened)) == set(map(id, closed))


def test_no_thread_is_left_where_cutting_is_given_up(folder, monkeypatch):
    def fails(*given):
        raise SourceAwayError("image after image")

    set_threads(3)
    monkeypatch.setattr(Absences, "note", fails)
    with pytest.raises(SourceAwayError):
        cut_archive(folder, CutSettings(None, PER_MEGAPIXEL))
    assert not [one for one in enumerate_threads() if one.name == "alps-cut"]
