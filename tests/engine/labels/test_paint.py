"""Painting: the smaller mask on top, and a source put together from windows without seams."""

import json
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_run import make_run
from PIL import Image

from alps.engine.base.errors import RunFolderError
from alps.engine.images.windows import Window, plan_windows
from alps.engine.labels import paint as stage
from alps.engine.labels.paint import SegmentStore, paint_archive, paint_strips
from alps.engine.run_folder.plan import sources_of
from alps.engine.run_folder.tables import read_table
from alps.kernels.masks import coco
from alps.kernels.paint import paint, paint_order

EMPTY = 255


def painted(masks, values, iou, dtype=np.uint8, background=EMPTY):
    """The kernel on masks (S, H, W)."""
    area = masks.sum((1, 2))
    return paint(
        [coco.encode_mask(mask) for mask in masks],
        np.array(values, dtype),
        paint_order(area, np.array(iou, np.float32)),
        masks.shape[1:],
        background,
    )


def pixel_by_pixel(masks, values, iou, background=EMPTY):
    """The definition: of the masks over a pixel the smallest, the surest, the first wins."""
    labels = np.full(masks.shape[1:], background)
    for y, x in np.ndindex(labels.shape):
        over = [s for s in range(len(masks)) if masks[s, y, x]]
        if over:
            best = min(over, key=lambda s: (masks[s].sum(), -np.float32(iou[s]), s))
            labels[y, x] = values[best]
    return labels


@st.composite
def some_masks(draw):
    height, width = draw(st.integers(1, 7)), draw(st.integers(1, 9))
    count = draw(st.integers(0, 8))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    share = draw(st.sampled_from([0.05, 0.5, 1.0]))
    masks = rng.random((count, height, width)) < share
    if count:  # ties: the same mask again, and one with as many pixels elsewhere
        masks[rng.integers(count)] = masks[rng.integers(count)]
        masks[rng.integers(count)] = masks[rng.integers(count), ::-1, ::-1]
    return masks, rng.choice([0.5, 0.7, 0.9], count), rng.integers(0, 5, count)


@given(some_masks())
def test_any_masks(drawn):
    masks, iou, values = drawn
    labels = painted(masks, values, iou)
    assert labels.dtype == np.uint8 and labels.flags.c_contiguous
    assert (labels == pixel_by_pixel(masks, values, iou)).all()


@pytest.mark.parametrize(
    ("areas", "iou", "bottom_first"),
    [
        ([5, 9, 7], [0.5, 0.5, 0.5], [1, 2, 0]),  # smaller on top
        ([5, 5, 5], [0.9, 0.5, 0.7], [1, 2, 0]),  # of equal areas the surer
        ([5, 5, 5], [0.5, 0.5, 0.5], [2, 1, 0]),  # of equals the first
        ([3, 5, 3, 5], [0.1, 0.9, 0.1, 0.9], [3, 1, 2, 0]),
        ([], [], []),
    ],
)
@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.int64])
def test_order(areas, iou, bottom_first, dtype):
    order = paint_order(np.array(areas, dtype), np.array(iou, np.float32))
    assert order.tolist() == bottom_first


def test_full_one_pixel_and_empty_masks():
    masks = np.zeros((3, 4, 6), bool)
    masks[0] = True
    masks[1, 2, 5] = True
    labels = painted(masks, [0, 1, 2], [0.9, 0.1, 1.0])
    assert labels[2, 5] == 1 and (labels == 0).sum() == 23


def test_class_0_is_a_class():
    masks = np.zeros((1, 2, 2), bool)
    masks[0, 0] = True
    assert painted(masks, [0], [0.5]).tolist() == [[0, 0], [EMPTY, EMPTY]]


def test_no_masks():
    labels = painted(np.zeros((0, 3, 5), bool), [], [])
    assert labels.shape == (3, 5) and (labels == EMPTY).all()


def test_wide_labels():
    masks = np.eye(2, dtype=bool)[None]
    labels = painted(masks, [40_000], [0.5], np.uint16, 65_535)
    assert labels.dtype == np.uint16
    assert labels.tolist() == [[40_000, 65_535], [65_535, 40_000]]


# --- a source out of its windows

HEIGHT, WIDTH, CLUSTERS = 53, 67, 9


def ground(seed=0):
    """Masks (S, H, W) that overlap and leave gaps, and a class for each."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((40, HEIGHT, WIDTH), bool)
    for mask in masks:
        y, x = rng.integers(0, HEIGHT - 4), rng.integers(0, WIDTH - 4)
        mask[y : y + rng.integers(4, 20), x : x + rng.integers(4, 20)] = True
    return masks, rng.integers(0, CLUSTERS, 40)


def seen_in(windows, masks, classes):
    """What windows would find, were every mask found wherever it can be seen."""
    found = []
    for window in windows:
        rows = slice(window.y, window.y + window.height)
        columns = slice(window.x, window.x + window.width)
        found.append(
            [
                {"mask": mask[rows, columns], "area": int(mask.sum()), "cluster": int(value)}
                for mask, value in zip(masks, classes, strict=True)
                if mask[rows, columns].any()
            ]
        )
    return found


def label_map(folder):
    """All strips of the only source of a run, put together."""
    (tiles,) = sources_of(read_table(folder.plan))
    strips, below = [], 0
    for y, strip in paint_strips(tiles, SegmentStore(folder), CLUSTERS):
        assert y == below and strip.shape[1] == tiles[0].source_width
        strips.append(strip)
        below += len(strip)
    assert below == tiles[0].source_height
    return np.concatenate(strips)


@pytest.mark.parametrize(
    ("tile", "overlap"), [(100, 0), (60, 20), (32, 8), (32, 0), (17, 8), (9, 1), (66, 32)]
)
def test_however_the_source_is_cut(tile, overlap, tmp_path, monkeypatch):
    monkeypatch.setattr("alps.engine.run_folder.plan.SHARD_TILES", 3)
    masks, classes = ground()
    windows = plan_windows(WIDTH, HEIGHT, tile, overlap)
    folder = make_run(tmp_path / "run", windows, seen_in(windows, masks, classes))
    expected = pixel_by_pixel(masks, classes, np.zeros(len(masks)))
    assert (label_map(folder) == expected).all()


def test_the_owner_of_a_pixel_decides_and_neighbours_fill_gaps(tmp_path):
    windows = [Window(0, 0, 20, 16), Window(12, 0, 20, 16)]  # cores meet at x = 16
    left, right = np.zeros((2, 16, 20), bool)
    left[:8] = True  # the upper half, as seen from the left
    right[4:, :] = True  # from the right all but the uppermost rows
    segments = [[{"mask": left, "cluster": 1}], [{"mask": right, "cluster": 2}]]
    labels = label_map(make_run(tmp_path / "run", windows, segments))
    assert (labels[:8, :16] == 1).all()
    assert (labels[4:, 16:] == 2).all()
    assert (labels[8:, 12:16] == 2).all()  # the left window has nothing there
    assert (labels[:4, 16:20] == 1).all()  # nor has the right one there
    assert (labels[8:, :12] == EMPTY).all() and (labels[:4, 20:] == EMPTY).all()


@pytest.mark.parametrize("overlap", [0, 3, 7])
def test_no_more_than_three_rows_of_windows_are_in_memory(tmp_path, monkeypatch, overlap):
    windows = plan_windows(30, 200, 16, overlap)
    rows = sorted({window.y for window in windows})
    columns = len(windows) // len(rows)
    masks = np.ones((1, 200, 30), bool)
    folder = make_run(tmp_path / "run", windows, seen_in(windows, masks, [1]))
    alive, most, calls = [], [], []
    real = stage._paint_window

    def counted(tile, *rest):
        labels = real(tile, *rest)
        calls.append(tile.tile_id)
        alive.append(weakref.ref(labels))
        most.append(sum(reference() is not None for reference in alive))
        return labels

    monkeypatch.setattr(stage, "_paint_window", counted)
    assert (label_map(folder) == 1).all()
    assert sorted(calls) == list(range(len(windows)))  # each is painted once
    assert len(rows) > 10 and max(most) <= 3 * columns


@pytest.mark.parametrize("value", [-1, CLUSTERS])
def test_segments_without_a_class_say_what_to_run(tmp_path, value):
    windows = [Window(0, 0, 6, 4)]
    segments = [[{"mask": np.ones((4, 6), bool), "cluster": value}]]
    with pytest.raises(RunFolderError, match="run: alps cluster"):
        label_map(make_run(tmp_path / "run", windows, segments))


# --- the stage


@pytest.fixture
def run(tmp_path):
    masks, classes = ground()
    windows = plan_windows(WIDTH, HEIGHT, 32, 8)
    folder = make_run(tmp_path / "run", windows, seen_in(windows, masks, classes))
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(folder.root / "a.png")
    return folder


def test_painted_again_only_with_other_clusters(run, monkeypatch):
    paint_archive(run, CLUSTERS, "one")
    with Image.open(run.root / "labels" / "a.png") as labels:
        counted = np.bincount(np.asarray(labels).ravel(), minlength=256)
    classes = json.loads(run.classes.read_text())
    assert [c["pixels"] for c in classes["classes"]] == counted[:CLUSTERS].tolist()
    assert classes["unlabelled_pixels"] == counted[EMPTY] > 0
    real, calls = stage._paint_source, []
    monkeypatch.setattr(stage, "_paint_source", lambda *a: calls.append(1) or real(*a))
    paint_archive(run, CLUSTERS, "one")
    assert calls == [] and json.loads(run.classes.read_text()) == classes
    paint_archive(run, CLUSTERS, "two")
    paint_archive(run, CLUSTERS, "one")
    assert len(calls) == 2
    (run.root / "labels" / "a.png").unlink()
    paint_archive(run, CLUSTERS, "one")
    assert len(calls) == 3 and (run.root / "labels" / "a.png").exists()


def test_a_source_that_changed_since_has_no_label_map(run, capsys):
    paint_archive(run, CLUSTERS, "one")
    Image.fromarray(np.zeros((HEIGHT + 1, WIDTH, 3), np.uint8)).save(run.root / "a.png")
    unpainted = paint_archive(run, CLUSTERS + 1, "two")
    assert list(unpainted) == ["a.png"] and "pixels" in unpainted["a.png"]
    assert not (run.root / "labels" / "a.png").exists()  # nor one of the old clusters
    assert "a.png: no label map:" in capsys.readouterr().err
    assert json.loads(run.classes.read_text())["unlabelled_pixels"] == 0


def test_a_source_that_is_away_is_painted_all_the_same(run):
    assert paint_archive(run, CLUSTERS, "one") == {}
    label = run.root / "labels" / "a.png"
    before = label.read_bytes()
    (run.root / "a.png").unlink()
    assert paint_archive(run, CLUSTERS, "two") == {}
    assert label.read_bytes() == before


def test_a_doubtful_segment_lies_on_top_and_leaves_its_pixels_unlabelled(tmp_path):
    windows = [Window(0, 0, 20, 16), Window(12, 0, 20, 16)]  # cores meet at x = 16
    large, small = np.ones((2, 16, 20), bool)
    small[:] = False
    small[4:8, 4:18] = True
    left = [
        {"mask": large, "cluster": 1, "margin": 0.9},
        {"mask": small, "cluster": 2, "margin": 0.1},
    ]
    right = [{"mask": large, "cluster": 0, "margin": 0.5}]
    folder = make_run(tmp_path / "run", windows, [left, right])
    tiles = next(iter(sources_of(read_table(folder.plan))))
    counted = np.zeros(CLUSTERS, np.int64)

    def painted_with(margin, counted=None):
        strips = paint_strips(tiles, SegmentStore(folder), CLUSTERS, margin, counted)
        return np.concatenate([strip for _, strip in strips])

    sure = np.where(np.arange(32) < 16, 1, 0) * np.ones((16, 1), np.uint8)
    plain = sure.copy()
    plain[4:8, 4:16] = 2
    assert (painted_with(0.0, counted) == plain).all()
    assert counted[:3].tolist() == [1, 1, 1]
    doubtful = sure.copy()
    doubtful[4:8, 4:16] = EMPTY  # neither what is beneath, nor what the neighbour sees there
    assert (painted_with(0.5) == doubtful).all()
    assert (painted_with(1.0) == EMPTY).all()
