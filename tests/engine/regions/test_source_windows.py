"""The windows of a source: who owns which pixel, which are near, and the mask on top."""

from dataclasses import replace

import numpy as np
import pytest
from made_run import make_run

from alps.engine.base.errors import RunFolderError
from alps.engine.images.windows import Window, cores, plan_windows
from alps.engine.regions.windows import COLUMNS, NONE, SourceWindows
from alps.engine.run_folder.plan import Plan
from alps.engine.run_folder.segment_store import SegmentStore

WIDTH, HEIGHT = 100, 70
WINDOWS = plan_windows(WIDTH, HEIGHT, 40, 10)


def windows_of(folder, origin=(0, 0)):
    (tiles,) = Plan.of(folder).sources()
    return SourceWindows(tiles, SegmentStore(folder, COLUMNS), origin)


@pytest.fixture
def source(tmp_path):
    """Windows with a mask more each: 0 in the first one, 1 in the second, and so on."""
    mask = np.ones((40, 40), bool)
    segments = [[{"mask": mask}] * count for count in range(len(WINDOWS))]
    return windows_of(make_run(tmp_path / "run", WINDOWS, segments))


def test_each_pixel_has_the_window_whose_core_it_lies_in(source):
    owned = cores(WINDOWS)
    assert source.columns == 3 and len(source) == len(owned) == 6
    y, x = (axis.ravel() for axis in np.indices((HEIGHT, WIDTH)))
    expected = np.full((HEIGHT, WIDTH), -1)
    for index, core in enumerate(owned):
        expected[core.y : core.y + core.height, core.x : core.x + core.width] = index
    assert expected.min() == 0
    np.testing.assert_array_equal(source.owner_of(x, y), expected.ravel())


def test_segments_are_numbered_through(source):
    assert source.first.tolist() == [0, 0, 1, 3, 6, 10, 15]
    window, local = source.locate(np.array([0, 1, 2, 5, 6, 14]))
    assert window.tolist() == [1, 2, 2, 3, 4, 5]
    assert local.tolist() == [0, 0, 1, 2, 0, 4]


def test_near_is_what_shares_a_pixel(source):
    rng = np.random.default_rng(0)
    for _ in range(300):
        x, y = int(rng.integers(0, WIDTH)), int(rng.integers(0, HEIGHT))
        box = Window(
            x, y, int(rng.integers(1, WIDTH + 1 - x)), int(rng.integers(1, 1 + HEIGHT - y))
        )
        seen = np.zeros((HEIGHT, WIDTH), bool)
        seen[box.y : box.y + box.height, box.x : box.x + box.width] = True
        near = [
            index
            for index, w in enumerate(WINDOWS)
            if seen[w.y : w.y + w.height, w.x : w.x + w.width].any()
        ]
        assert source.near(box) == near


def test_windows_of_a_sample_begin_where_it_begins(source):
    tile = source.tiles[5]
    assert (tile.x, tile.y) != (0, 0)
    own = SourceWindows([tile], source._store, (tile.x, tile.y))
    assert own.windows == [Window(0, 0, 40, 40)] and own.first.tolist() == [0, 5]
    assert own.owner_of(np.array([0, 39]), np.array([0, 39])).tolist() == [0, 0]


def nested():
    """A large mask, a small one within, what lies under none, and a corner that nothing covers."""
    large, small, cell = np.zeros((3, 10, 10), bool)
    large[:8], small[2:4, 2:4], cell[8:, 3:] = True, True, True
    return large, small, cell


def test_the_smallest_mask_lies_on_top(tmp_path, monkeypatch):
    large, small, cell = nested()
    segments = [{"mask": small}, {"mask": large}, {"mask": cell, "cell": True}]
    own = windows_of(make_run(tmp_path / "run", [Window(0, 0, 10, 10)], [segments]))
    expected = np.full((10, 10), NONE)
    expected[large], expected[small], expected[cell] = 1, 0, 2
    np.testing.assert_array_equal(own.top(0), expected)
    assert own.top(0).dtype == np.int16
    with monkeypatch.context() as patch:
        patch.setattr("alps.engine.regions.windows.MOST_OF_16_BITS", 2)
        many = windows_of(own._store._folder)
        np.testing.assert_array_equal(many.top(0), expected)
        assert many.top(0).dtype == np.int32
    assert own.is_mask(0).tolist() == [True, True, False]
    which, runs = own.masks(0)
    assert which.tolist() == [0, 1] and len(runs) == 2


def test_the_masks_of_many_windows_are_not_all_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("alps.engine.regions.windows.KEPT", 2)
    segments = [[{"mask": np.ones((40, 40), bool)}]] * len(WINDOWS)
    own = windows_of(make_run(tmp_path / "run", WINDOWS, segments))
    painted = []
    real = SourceWindows._painted
    monkeypatch.setattr(
        SourceWindows, "_painted", lambda self, index: painted.append(index) or real(self, index)
    )
    for index in (0, 1, 0, 2, 0, 1):
        assert (own.top(index) == 0).all()
    assert painted == [0, 1, 2, 1]


def test_those_that_are_looked_at_together_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("alps.engine.regions.windows.KEPT", 1)
    segments = [[{"mask": np.ones((40, 40), bool)}]] * len(WINDOWS)
    own = windows_of(make_run(tmp_path / "run", WINDOWS, segments))
    boxes = [Window(0, 0, 25, 20), Window(35, 0, 10, 20)]  # of window 0, and of 0 and 1
    painted = []
    real = SourceWindows._painted
    monkeypatch.setattr(
        SourceWindows, "_painted", lambda self, index: painted.append(index) or real(self, index)
    )
    own.keep(boxes)
    own.keep(boxes[:1])  # no fewer for that
    for index in (0, 1, 0, 1, 2, 1):
        own.top(index)
    assert painted == [0, 1, 2]


def test_a_plan_that_lacks_a_window_is_refused(tmp_path):
    folder = make_run(tmp_path / "run", WINDOWS, [[]] * len(WINDOWS))
    (tiles,) = Plan.of(folder).sources()
    with pytest.raises(RunFolderError, match="are no grid"):
        SourceWindows(tiles[:-1], SegmentStore(folder, COLUMNS))


@pytest.mark.parametrize("read", [SourceWindows.top, SourceWindows.masks])
def test_segments_of_a_window_of_another_size_are_refused(tmp_path, read):
    window = Window(0, 0, 8, 4)
    folder = make_run(tmp_path / "run", [window], [[{"mask": np.ones((4, 8), bool)}]])
    ((tile,),) = Plan.of(folder).sources()
    other = SourceWindows([replace(tile, height=3)], SegmentStore(folder, COLUMNS))
    with pytest.raises(RunFolderError, match=r"tile 0 of a\.png do not fit the plan"):
        read(other, 0)
