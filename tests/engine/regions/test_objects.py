"""Masks of neighbouring windows that are one object."""

import numpy as np
import pytest
from made_run import make_run

from alps.engine.images.windows import plan_windows
from alps.engine.regions.objects import LEAST_PIXELS, join_masks
from alps.engine.regions.windows import COLUMNS, SourceWindows
from alps.engine.run_folder.plan import Plan
from alps.engine.run_folder.segment_store import SegmentStore

SIZE, TILE, OVERLAP = 100, 44, 16  # 3 x 3 windows


def seen(mask, window):
    return mask[window.y : window.y + window.height, window.x : window.x + window.width]


def joined(root, masks, windows=None, of_window=seen):
    """Objects by window of what each window sees of ``masks`` (N, H, W), and which mask each is."""
    height, width = masks.shape[1:]
    windows = windows or plan_windows(width, height, TILE, OVERLAP)
    found, which = [], []
    for window in windows:
        own = [(n, of_window(mask, window)) for n, mask in enumerate(masks)]
        own = [(n, mask) for n, mask in own if mask.any()]
        found.append([{"mask": mask} for _, mask in own])
        which += [n for n, _ in own]
    folder = make_run(root, windows, found)
    (tiles,) = Plan.of(folder).sources()
    source = SourceWindows(tiles, SegmentStore(folder, COLUMNS))
    return join_masks(source), np.array(which), source


def test_a_river_through_nine_windows_is_one_object(tmp_path):
    y, x = np.indices((SIZE, SIZE))
    river = np.abs(y - 50 - 40 * np.sin(x / 16)) < 6
    objects, which, source = joined(tmp_path / "run", river[None])
    assert len(source) == 9 and len(which) >= 7
    assert objects.dtype == np.int32 and set(objects) == {0}


def test_two_long_rivers_through_a_hundred_windows_are_two_objects(tmp_path):
    """A wide scene, of which a few windows are looked at at a time."""
    y, x = np.indices((SIZE, 9 * SIZE))
    rivers = np.stack([np.abs(y - at - 8 * np.sin(x / 40)) < 6 for at in (36, 64)])
    objects, which, source = joined(tmp_path / "run", rivers)
    assert len(source) == 3 * 32 and source.columns == 32
    assert set(objects[which == 0]) == {0} and set(objects[which == 1]) == {1}


def test_different_things_are_different_objects(tmp_path):
    masks = np.zeros((3, SIZE, SIZE), bool)
    masks[0, 20:40], masks[1, 40:60], masks[2, :, 70:75] = True, True, True
    masks[2, 20:60] = False
    objects, which, _ = joined(tmp_path / "run", masks)
    # The third thing is in two halves, which no window sees as one.
    assert objects[which == 0].max() == objects[which == 0].min()
    assert objects[which == 1].max() == objects[which == 1].min()
    assert len({*objects[which == 0], *objects[which == 1]}) == 2
    assert not {*objects[which == 2]} & {*objects[which == 0], *objects[which == 1]}
    number = objects.max() + 1
    assert set(objects) == set(range(number))
    first = [np.flatnonzero(objects == n)[0] for n in range(number)]
    assert first == sorted(first)


@pytest.mark.parametrize(("rows", "same"), [(range(10, 30), True), (range(22, 42), False)])
def test_masks_must_agree_on_the_ground_both_saw(tmp_path, rows, same):
    """The left window sees rows 12 to 32, the right one these."""
    left, right = np.zeros((2, 44, 72), bool)
    left[12:32], right[list(rows)] = True, True

    def of_window(_, window):
        return seen(right if window.x else left, window)

    windows = plan_windows(72, 44, 44, 16)
    assert len(windows) == 2
    objects, _, _ = joined(tmp_path / "run", left[None], windows, of_window)
    assert (objects[0] == objects[1]) == same


@pytest.mark.parametrize(("pixels", "same"), [(LEAST_PIXELS, True), (LEAST_PIXELS - 1, False)])
def test_few_pixels_say_nothing(tmp_path, pixels, same):
    windows = plan_windows(72, 44, 44, 16)
    mask = np.zeros((1, 44, 72), bool)
    mask[0, :pixels, 30] = True
    objects, _, _ = joined(tmp_path / "run", mask, windows)
    assert len(objects) == 2 and (objects[0] == objects[1]) == same


def test_masks_of_one_window_are_one_only_through_others(tmp_path):
    """The left window sees a thing in two halves; the right one sees it whole."""
    windows = plan_windows(72, 44, 44, 16)
    whole = np.zeros((44, 72), bool)
    whole[10:30] = True
    upper = whole.copy()
    upper[26:] = False
    lower = whole & ~upper
    parts = [[{"mask": seen(m, windows[0])} for m in (upper, lower)]]
    folder = make_run(tmp_path / "run", windows, [*parts, [{"mask": seen(whole, windows[1])}]])
    (tiles,) = Plan.of(folder).sources()
    objects = join_masks(SourceWindows(tiles, SegmentStore(folder, COLUMNS)))
    assert objects.tolist() == [0, 1, 0]  # the half that agrees best, and it alone


@pytest.mark.parametrize("turned", [False, True])
def test_of_nested_masks_that_both_agree_the_better_one_is_joined(tmp_path, turned):
    """One window sees a thing, and most of it as a mask of its own; the other sees the thing."""
    windows = plan_windows(72, 44, 44, 16)
    whole, most = np.zeros((2, 44, 72), bool)
    whole[10:30], most[10:26] = True, True
    left = [{"mask": seen(mask, windows[0])} for mask in (most, whole)]
    right = [{"mask": seen(whole, windows[1])}]
    if turned:
        left, right = right, [{"mask": seen(mask, windows[1])} for mask in (most, whole)]
    folder = make_run(tmp_path / "run", windows, [left, right])
    (tiles,) = Plan.of(folder).sources()
    objects = join_masks(SourceWindows(tiles, SegmentStore(folder, COLUMNS)))
    assert objects.tolist() == ([0, 1, 0] if turned else [0, 1, 1])


def test_what_lies_under_no_mask_is_no_object(tmp_path):
    windows = plan_windows(72, 44, 44, 16)
    mask = np.ones((44, 44), bool)
    segments = [[{"mask": mask, "cell": True}, {"mask": mask}], [{"mask": mask, "cell": True}]]
    folder = make_run(tmp_path / "run", windows, segments)
    (tiles,) = Plan.of(folder).sources()
    objects = join_masks(SourceWindows(tiles, SegmentStore(folder, COLUMNS)))
    assert objects.tolist() == [-1, 0, -1]


def test_windows_that_share_only_a_corner_agree_too(tmp_path):
    """Of four windows two, above to the right and below to the left, have the mask that all see."""
    windows = plan_windows(72, 72, 44, 16)
    mask = np.zeros((72, 72), bool)
    mask[30:40, 30:40] = True
    for pair in ((1, 2), (0, 3)):
        segments = [[{"mask": seen(mask, w)}] * (n in pair) for n, w in enumerate(windows)]
        folder = make_run(tmp_path / f"run{pair}", windows, segments)
        (tiles,) = Plan.of(folder).sources()
        objects = join_masks(SourceWindows(tiles, SegmentStore(folder, COLUMNS)))
        assert objects.tolist() == [0, 0]


def test_what_is_joined_from_two_sides_is_one_object(tmp_path):
    """The middle window's mask is met by those of both sides, the last by the first two rows'."""
    windows = plan_windows(100, 72, 44, 16)
    assert len(windows) == 6
    ring = np.zeros((72, 100), bool)
    ring[20:52, 20:80] = True
    ring[26:46, 26:74] = False
    objects, _, _ = joined(tmp_path / "run", ring[None], windows)
    assert objects.tolist() == [0] * 6
