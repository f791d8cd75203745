"""The window grid covers an image, and cores partition it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alps.engine.base.errors import SettingsError
from alps.engine.images.windows import Window, are_grid, cores, plan_windows


@st.composite
def grids(draw):
    tile = draw(st.integers(1, 40))
    overlap = draw(st.integers(0, (tile - 1) // 2))
    return draw(st.integers(1, 150)), draw(st.integers(1, 150)), tile, overlap


def area(window):
    return slice(window.y, window.y + window.height), slice(window.x, window.x + window.width)


@given(grids())
def test_cores_partition_the_image_and_lie_in_their_windows(grid):
    width, height, _, _ = grid
    windows = plan_windows(*grid)
    owners = np.zeros((height, width), int)
    for window, core in zip(windows, cores(windows), strict=True):
        assert core.width > 0 and core.height > 0
        assert window.x <= core.x and core.x + core.width <= window.x + window.width
        assert window.y <= core.y and core.y + core.height <= window.y + window.height
        owners[area(core)] += 1
    assert (owners == 1).all()


@given(grids(), st.randoms())
def test_a_plan_is_a_grid_and_no_longer_one_when_changed(grid, random):
    windows = plan_windows(*grid)
    random.shuffle(windows)
    assert are_grid(windows)
    one = windows.pop()
    assert not are_grid([*windows, Window(one.x, one.y, one.width + 1000, one.height)] * 2)
    assert not are_grid([*windows, one, one])
    assert not are_grid([*windows, Window(one.x, one.y, 0, one.height)])
    if len({w.x for w in windows}) > 1 < len({w.y for w in windows}):
        assert not are_grid(windows)


@given(grids())
def test_windows_have_the_tile_size_stay_inside_and_overlap(grid):
    width, height, tile, overlap = grid
    windows = plan_windows(*grid)
    assert len(set(windows)) == len(windows)
    for window in windows:
        assert (window.width, window.height) == (min(tile, width), min(tile, height))
        assert 0 <= window.x <= width - window.width
        assert 0 <= window.y <= height - window.height
    for starts, size in (({w.x for w in windows}, width), ({w.y for w in windows}, height)):
        starts = sorted(starts)
        steps = np.diff(starts)
        assert starts[0] == 0 and starts[-1] == max(size - tile, 0)
        assert (steps <= tile - overlap).all()
        assert len(steps) == 0 or steps.max() - steps.min() <= 1  # evenly spread
    assert windows == sorted(windows, key=lambda window: (window.y, window.x))


@given(grids())
def test_cores_keep_half_the_overlap_from_an_inner_edge(grid):
    width, _, _, overlap = grid
    windows = plan_windows(*grid)
    for window, core in zip(windows, cores(windows), strict=True):
        assert window.x == 0 or core.x - window.x >= overlap // 2
        right = window.x + window.width
        assert right == width or right - (core.x + core.width) >= overlap // 2


def test_no_more_windows_than_needed():
    assert len(plan_windows(1024, 1024, 1024, 128)) == 1
    assert len(plan_windows(1025, 1024, 1024, 128)) == 2
    assert len(plan_windows(2 * 1024 - 128, 1024, 1024, 128)) == 2
    assert len(plan_windows(2 * 1024 - 127, 1024, 1024, 128)) == 3


def test_a_small_image_is_one_window():
    assert plan_windows(30, 20, 1024, 128) == [Window(0, 0, 30, 20)]
    assert cores([Window(0, 0, 30, 20)]) == [Window(0, 0, 30, 20)]


@pytest.mark.parametrize(("tile", "overlap"), [(0, 0), (-1, 0), (10, 5), (10, -1), (10, 11)])
def test_settings_that_cannot_work_are_refused(tile, overlap):
    with pytest.raises(SettingsError, match=r"--tile"):
        plan_windows(100, 100, tile, overlap)


def test_an_empty_image_has_no_windows():
    with pytest.raises(ValueError, match="0 x 5"):
        plan_windows(0, 5, 10, 0)
