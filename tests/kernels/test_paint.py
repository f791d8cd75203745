"""Painting, all versions against pycocotools and a loop over pixels."""

import contextlib

import numpy as np
import pytest
from discs import discs
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as cocoapi

from alps.kernels.masks import coco
from alps.kernels.paint import paint, paint_order, reference_paint

EMPTY = 255


def coco_codes(masks):
    return [
        cocoapi.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"] if mask.size else b""
        for mask in masks
    ]


def on_cpu(masks, values, order, background):
    return paint(coco_codes(masks), values, order, masks.shape[1:], background)


VERSIONS = {"reference": reference_paint, "cpu": on_cpu}
every_version = pytest.mark.parametrize("paint_masks", VERSIONS.values(), ids=VERSIONS)


def pixel_by_pixel(masks, values, order, background):
    """Of the masks over a pixel the last in the order."""
    labels = np.full(masks.shape[1:], background, values.dtype)
    for y, x in np.ndindex(labels.shape):
        over = [index for index in order if masks[index, y, x]]
        if over:
            labels[y, x] = values[over[-1]]
    return labels


@st.composite
def some_masks(draw):
    size = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    count = draw(st.integers(0, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    masks = rng.random((count, *size)) < draw(st.sampled_from([0.0, 0.05, 0.5, 1.0]))
    iou = rng.choice([0.5, 0.7, 0.9], count).astype(np.float32)
    if count:  # ties: the same mask again, and one with as many pixels elsewhere
        masks[rng.integers(count)] = masks[rng.integers(count)]
        masks[rng.integers(count)] = masks[rng.integers(count), ::-1, ::-1]
    dtype = draw(st.sampled_from([np.uint8, np.uint16, np.uint32]))
    values = rng.integers(0, 5, count).astype(dtype)
    return masks, values, paint_order(masks.sum((1, 2)), iou), draw(st.sampled_from([0, EMPTY]))


def check(labels, expected):
    assert isinstance(labels, np.ndarray)
    assert labels.dtype == expected.dtype
    assert labels.flags.c_contiguous
    np.testing.assert_array_equal(labels, expected)


@given(some_masks())
def test_any_masks(drawn):
    expected = pixel_by_pixel(*drawn)
    check(on_cpu(*drawn), expected)
    check(reference_paint(*drawn), expected)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (33, 17), (9, 70)])
@every_version
def test_sizes_of_every_kind(paint_masks, size):
    rng = np.random.default_rng(0)
    masks = rng.random((5, *size)) < 0.3
    masks[1] = True
    masks[3] = False
    values, order = np.arange(5, dtype=np.uint8), np.array([1, 3, 4, 0, 2])
    check(paint_masks(masks, values, order, EMPTY), pixel_by_pixel(masks, values, order, EMPTY))


def test_large_discs():
    rng = np.random.default_rng(1)
    masks = discs(rng, 30, (300, 257), (3, 120))
    values = rng.integers(0, 60_000, 30).astype(np.uint16)
    order = paint_order(masks.sum((1, 2)), np.ones(30, np.float32))
    check(on_cpu(masks, values, order, 65_535), reference_paint(masks, values, order, 65_535))


@every_version
def test_only_what_the_order_names_is_painted(paint_masks):
    masks = np.ones((3, 2, 3), bool)
    values = np.array([4, 5, 6], np.uint8)
    assert (paint_masks(masks, values, np.array([2, 1]), EMPTY) == 5).all()
    assert (paint_masks(masks, values, np.zeros(0, np.int64), EMPTY) == EMPTY).all()


@pytest.mark.parametrize("size", [(0, 0), (0, 4), (4, 0)])
@every_version
def test_no_pixels(paint_masks, size):
    labels = paint_masks(np.zeros((1, *size), bool), np.zeros(1, np.uint8), np.array([0]), EMPTY)
    assert labels.shape == size


SOUND = coco_codes(np.arange(24).reshape(1, 4, 6) % 5 == 0)[0]


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        SOUND[:-1],  # ends early
        SOUND + b"1",  # goes on
        SOUND[:-1] + b"P",  # ends in the middle of a run
        b"\x1f" + SOUND,  # no such byte
        b"p" + SOUND,
        b"d0O",  # 20 pixels, then one less than none
        b"h" * 12 + b"0",  # more bits than any run
        coco_codes(np.ones((1, 4, 7), bool))[0],  # of another size
        coco_codes(np.ones((1, 4, 5), bool))[0],
    ],
)
def test_damaged_counts_are_named(damaged):
    values = np.arange(3, dtype=np.uint8)
    with pytest.raises(ValueError, match="counts of mask 1 of 3"):
        paint([SOUND, damaged, SOUND], values, np.array([0, 1, 2]), (4, 6), EMPTY)


@given(st.lists(st.integers(-2, 24), max_size=8) | st.permutations([0, 1, 2, 3, 5, 6, 7]))
def test_runs_are_painted_or_refused(lengths):
    values, order = np.array([7, 9], np.uint8), np.array([0, 1])
    codes = [SOUND, coco.reference_encode(np.array(lengths, np.int64))]
    if sum(lengths) != 24 or min(lengths) < 0:
        with pytest.raises(ValueError, match="mask 1 of 2"):
            paint(codes, values, order, (4, 6), EMPTY)
        return
    mask = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(6, 4).T
    np.testing.assert_array_equal(paint(codes, values, order, (4, 6), EMPTY) == 9, mask)


@given(st.binary(max_size=30))
def test_any_bytes_are_refused_or_a_mask(counts):
    labels = np.zeros((4, 6), np.uint8)
    with contextlib.suppress(ValueError):
        labels = paint([counts], np.ones(1, np.uint8), np.array([0]), (4, 6), 0)
    assert set(np.unique(labels)) <= {0, 1}


@pytest.mark.parametrize(
    ("values", "order", "message"),
    [
        (np.zeros(2, np.uint8), [0], "as many labels"),
        (np.zeros(1, np.int64), [0], "not int64"),
        (np.zeros(1, np.float32), [0], "not float32"),
        (np.zeros(1, np.uint8), [1], "names 1 to 1"),
        (np.zeros(1, np.uint8), [0, -1], "names -1 to 0"),
    ],
)
def test_arguments_that_do_not_fit(values, order, message):
    with pytest.raises(ValueError, match=message):
        paint([SOUND], values, np.array(order), (4, 6), EMPTY)


def test_a_background_that_does_not_fit_its_dtype():
    with pytest.raises(OverflowError):
        paint([SOUND], np.zeros(1, np.uint8), np.array([0]), (4, 6), 256)


def test_areas_of_an_unsigned_dtype_keep_their_order():
    for dtype in (np.uint8, np.uint32, np.int64):
        order = paint_order(np.array([3, 200, 0, 3], dtype), np.array([0.5, 0.9, 0.1, 0.5]))
        assert order.tolist() == [1, 3, 0, 2]


def test_the_order_of_segments_is_area_then_predicted_iou_then_id():
    area = np.array([5, 9, 5, 5, 9])
    predicted_iou = np.array([0.7, 0.8, 0.9, 0.7, 0.8], np.float32)
    # Bottom first: the large ones, of two alike the higher id below.
    assert paint_order(area, predicted_iou).tolist() == [4, 1, 3, 0, 2]


@pytest.mark.parametrize("lengths", [[3, -1, 22], [10, 8, 3, -2, 5], [4, 6, -2, 16]])
def test_negative_runs_are_refused_where_all_add_up(lengths):
    code = coco.reference_encode(np.array(lengths, np.int64))
    with pytest.raises(ValueError, match="mask 0 of 1"):
        paint([code], np.ones(1, np.uint8), np.array([0]), (4, 6), 0)
