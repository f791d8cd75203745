"""Region kernels: compiled versions against plain ones, SciPy, scikit-image and pycocotools."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from alps.kernels.masks import coco
from alps.kernels.masks.shared import bits_within, reference_shared_pixels, shared_pixels
from alps.kernels.regions import (
    add_neighbours,
    areas_up_to,
    blend,
    borders,
    boxes,
    join_small,
    moments,
    overlaps,
    pieces,
    reference_add_neighbours,
    reference_areas_up_to,
    reference_blend,
    reference_borders,
    reference_boxes,
    reference_join_small,
    reference_moments,
    reference_overlaps,
    reference_pieces,
    reference_unite,
    unite,
    window_weights,
)


@st.composite
def images(draw, most=14):
    size = draw(st.tuples(st.integers(1, most), st.integers(1, most)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    values = rng.integers(-1, draw(st.sampled_from([1, 2, 4, 50])), size)
    lab = rng.integers(-16_000, 12_800, (*size, 3)).astype(np.int16)
    return values, lab


@given(images())
def test_pieces_of_any_image(drawn):
    values, _ = drawn
    found, first = pieces(values)
    expected, expected_first = reference_pieces(values)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(first, expected_first)
    assert found.dtype == np.int32
    number = sum(ndimage.label(values == value)[1] for value in np.unique(values) if value >= 0)
    assert len(first) == number


def test_pieces_of_a_spiral_are_one():
    from skimage.measure import label

    spiral = np.zeros((41, 41), int)
    y = x = 20
    for turn in range(1, 40):
        for _ in range(turn):
            spiral[y, x] = 1
            y, x = (y, x + (1 if turn % 4 == 1 else -1)) if turn % 2 else (
                y + (1 if turn % 4 == 2 else -1), x)  # fmt: skip
            if not (0 <= y < 41 and 0 <= x < 41):
                break
        else:
            continue
        break
    _, first = pieces(spiral)
    assert len(first) == label(spiral, connectivity=1, background=-1).max()


def test_pieces_of_large_values_and_of_nothing():
    values = np.array([[2**40, 2**40], [7, 2**40 + 1]])
    assert pieces(values)[0].tolist() == [[0, 0], [1, 2]]
    assert pieces(values, nothing=7)[0].tolist() == [[0, 0], [-1, 1]]
    assert len(pieces(np.full((3, 4), -1))[1]) == 0


@given(images())
def test_borders_moments_and_boxes_of_any_image(drawn):
    values, lab = drawn
    regions, first = pieces(values)
    found, expected = borders(regions, lab), reference_borders(regions, lab)
    for name in ("pairs", "length", "contrast"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    count = len(first) + 1  # one without a pixel
    found, expected = moments(regions, lab, count), reference_moments(regions, lab, count)
    for name in ("area", "sums", "squares"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    np.testing.assert_array_equal(boxes(regions, count), reference_boxes(regions, count))


def test_colour_of_moments():
    lab = np.zeros((2, 2, 3), np.int16)
    lab[..., 0] = [[128, 384], [0, 0]]
    colour = moments(np.array([[0, 0], [-1, -1]], np.int32), lab, 1).colour()
    assert colour.tolist() == [[2, 0, 0, 1, 0, 0]]


@given(images(), st.integers(1, 9))
def test_joined_pieces_hang_together_and_lose_no_pixel(drawn, least):
    values, lab = drawn
    regions, first = pieces(values)
    owner = join_small(regions, lab, least, np.zeros(len(first), int))
    joined = np.append(owner, -1)[regions]
    area = np.bincount(regions[regions >= 0], minlength=len(first))
    assert (owner[area >= least] == np.flatnonzero(area >= least)).all()
    _, again = pieces(joined)
    assert len(again) == len(np.unique(owner))


@given(images(), st.integers(1, 9), st.integers(1, 5), st.sampled_from([1, 700, 16_000]))
def test_joining_is_that_of_the_reference(drawn, least, families, steps):
    values, lab = drawn
    lab = lab // steps * steps  # so that some are equally alike
    regions, first = pieces(values)
    family = np.arange(len(first)) % families
    owner = join_small(regions, lab, least, family)
    assert owner.tolist() == reference_join_small(regions, lab, least, family).tolist()
    assert owner.dtype == np.int64


def test_small_pieces_join_their_family_then_the_most_alike():
    lab = np.zeros((4, 9, 3), np.int16)
    values = np.repeat([[0] * 4 + [1] + [2] * 4], 4, 0)
    lab[:, :4, 0], lab[:, 4, 0], lab[:, 5:, 0] = 100, 900, 1000
    regions, _ = pieces(values)
    assert join_small(regions, lab, 5, np.array([0, 1, 2])).tolist() == [0, 2, 2]
    assert join_small(regions, lab, 5, np.array([7, 7, 2])).tolist() == [0, 0, 2]
    assert join_small(regions, lab, 4, np.array([7, 7, 2])).tolist() == [0, 1, 2]


def in_a_row(*parts):
    """Pieces of (pixels, lightness) side by side, and their colours."""
    regions = np.repeat(np.arange(len(parts)), [pixels for pixels, _ in parts])[None]
    lab = np.zeros((*regions.shape, 3), np.int16)
    lab[..., 0] = np.array([lightness for _, lightness in parts])[regions]
    return regions.astype(np.int32), lab


def test_a_small_piece_beside_a_large_one_joins_no_small_one():
    regions, lab = in_a_row((9, 3000), (2, 1000), (3, 1100), (9, 1200))
    assert join_small(regions, lab, 5, np.arange(4)).tolist() == [0, 0, 3, 3]


def test_what_has_joined_counts_in_the_colour_of_the_second_round():
    """The middle piece is like the first as it was, and like the last as both are by then."""
    regions, lab = in_a_row((10, 0), (4, 20_000), (2, 1000), (4, 4000), (10, 4000))
    assert join_small(regions, lab, 5, np.arange(5)).tolist() == [0, 0, 4, 4, 4]


def test_nothing_is_joined_across_pixels_in_none():
    lab = np.zeros((1, 5, 3), np.int16)
    regions = np.array([[0, -1, 1, 1, 1]], np.int32)
    assert join_small(regions, lab, 3, np.zeros(2, int)).tolist() == [0, 1]


def test_small_ones_among_themselves_end_in_one():
    lab = np.zeros((3, 3, 3), np.int16)
    regions, _ = pieces(np.arange(9).reshape(3, 3))
    assert len(np.unique(join_small(regions, lab, 50, np.arange(9)))) == 1


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_of_no_pixel(shape):
    found, first = pieces(np.zeros(shape, int))
    assert found.shape == shape and not len(first)
    assert not len(borders(found, np.zeros((*shape, 3), np.int16)).pairs)


# --- what windows saw


@given(images(), st.integers(0, 6))
def test_overlaps_of_any_image(drawn, segments):
    values, lab = drawn
    regions = np.where(values < 0, -1, values * 3).astype(np.int32)  # numbers need not be dense
    top = (lab[..., 0] % (segments + 1) - 1).astype(np.int32)
    weights = tuple(window_weights(length) for length in values.shape)
    found = overlaps(regions, top, weights, segments)
    expected = reference_overlaps(regions, top, weights, segments)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == np.int64
    both = (regions >= 0) & (top >= 0)
    assert found[2].sum() == np.outer(*weights)[both].sum()


def test_an_overlap_counts_where_it_lies():
    regions = np.array([[5, 5, -1], [5, 2, 2]], np.int32)
    top = np.array([[0, 1, 1], [0, 1, -1]], np.int32)
    found = overlaps(regions, top, (np.array([1, 10]), np.array([1, 2, 3])), 2)
    assert [column.tolist() for column in found] == [[2, 5, 5], [1, 0, 1], [20, 11, 2]]


@pytest.mark.parametrize("length", [1, 2, 7, 64, 1024])
def test_weights_of_a_window_are_hann(length):
    weights = window_weights(length)
    at = (np.arange(length) + 0.5) / length
    hann = 256 * (0.5 - 0.5 * np.cos(2 * np.pi * at))
    np.testing.assert_array_equal(weights, np.maximum(np.rint(hann), 1))
    assert weights.dtype == np.int64 and (weights == weights[::-1]).all() and weights.min() >= 1


@given(st.integers(0, 2**32), st.integers(0, 9), st.integers(1, 40))
def test_blends_of_any_shares(seed, rows, width):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(6, width)).astype(np.float32)
    starts = np.concatenate([[0], np.cumsum(rng.integers(0, 5, rows))]).astype(np.int64)
    entry = rng.integers(0, 6, starts[-1])
    share = rng.random(starts[-1]).astype(np.float32)
    found = blend(vectors, starts, entry, share)
    assert found.dtype == np.float32 and found.shape == (rows, width)
    np.testing.assert_allclose(found, reference_blend(vectors, starts, entry, share), atol=1e-5)
    for row in range(rows):
        own = slice(starts[row], starts[row + 1])
        alone = blend(vectors, starts[row : row + 2] - starts[row], entry[own], share[own])
        assert (alone[0] == found[row]).all()


# --- what masks share


@given(st.data())
def test_masks_within_a_rectangle(data):
    height, width = data.draw(st.integers(1, 30)), data.draw(st.integers(1, 30))
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    box = (x, y, data.draw(st.integers(1, width - x)), data.draw(st.integers(1, height - y)))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    masks = rng.random((5, height, width)) < np.array([0, 0.1, 0.5, 0.9, 1])[:, None, None]
    bits = bits_within(coco.decode([coco.encode_mask(m) for m in masks], (height, width)), *box)
    inside = masks[:, y : y + box[3], x : x + box[2]]
    columns = inside.transpose(0, 2, 1).reshape(5, -1)
    found = np.unpackbits(bits.view(np.uint8), axis=1, bitorder="little").astype(bool)
    np.testing.assert_array_equal(found[:, : columns.shape[1]], columns)
    assert not found[:, columns.shape[1] :].any()
    both = shared_pixels(bits[:2], bits)
    np.testing.assert_array_equal(both, reference_shared_pixels(inside[:2], inside))


def test_shared_pixels_as_pycocotools_says():
    from pycocotools import mask as theirs

    rng = np.random.default_rng(0)
    masks = rng.random((7, 50, 37)) < rng.random((7, 1, 1))
    runs = coco.decode([coco.encode_mask(mask) for mask in masks], (50, 37))
    bits = bits_within(runs, 0, 0, 37, 50)
    both = shared_pixels(bits, bits)
    encoded = [theirs.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in masks]
    np.testing.assert_array_equal(np.diag(both), theirs.area(encoded))
    area = np.diag(both)
    iou = both / (area[:, None] + area - both)
    np.testing.assert_allclose(iou, theirs.iou(encoded, encoded, [0] * 7), rtol=1e-12)


# --- what hangs together in one class


@given(images())
def test_united_regions_are_pieces_of_one_class(drawn):
    values, lab = drawn
    regions, first = pieces(values)
    classes = (lab[..., 1].ravel()[first] % 3 - 1).astype(np.int32)
    a, b = borders(regions, lab).pairs.astype(np.int32).T
    a, b = np.ascontiguousarray(b), np.ascontiguousarray(a)
    parts = [(a[::2], b[::2]), (a[1::2], b[1::2])]
    found = unite(classes, parts)
    np.testing.assert_array_equal(found, reference_unite(classes, parts))
    assert found.dtype == np.int32 and (classes[found] == classes).all()
    painted = np.append(classes, -1)[regions]
    patches = sum(ndimage.label(painted == value)[1] for value in (0, 1))
    assert len(np.unique(found[classes >= 0])) == patches
    assert (found[classes < 0] == np.flatnonzero(classes < 0)).all()


@given(st.integers(0, 999), st.integers(1, 40))
def test_areas_are_added_up_as_far_as_they_count(seed, most):
    rng = np.random.default_rng(seed)
    patch = np.sort(rng.integers(0, 9, 9)).astype(np.int32)
    area = rng.integers(1, 30, 9).astype(np.int32)
    found = areas_up_to(most, patch, area)
    np.testing.assert_array_equal(found, reference_areas_up_to(most, patch, area))
    np.testing.assert_array_equal(found, np.minimum(np.bincount(patch, area, 9), most))
    assert found.dtype == np.int32


def test_areas_of_more_than_32_bits_stay_where_they_count_no_more():
    area = np.full(3, 2**31 - 1, np.int32)
    for most in (5, 2**40):
        found = areas_up_to(most, np.zeros(3, np.int32), area)
        assert found.tolist() == [min(most, 2**31 - 1), 0, 0]


def test_a_long_chain_from_its_end_is_one():
    count = 5000
    above = np.arange(count - 1, 0, -1, dtype=np.int32)
    assert not unite(np.zeros(count, np.int32), [(above, above - 1)]).any()
    assert unite(np.zeros(0, np.int32), []).shape == (0,)


@given(st.integers(1, 9), st.integers(0, 20), st.integers(0, 3), st.integers(0, 999))
def test_neighbours_are_added_up(count, pairs, width, seed):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(count, width)).astype(np.float32)
    ends = tuple(rng.integers(0, count, (2, pairs)))
    weights = rng.uniform(0, 9, pairs).astype(np.float32)
    found = [(np.ones((count, width), np.float32), np.ones(count, np.float32)) for _ in range(2)]
    add_neighbours(vectors, ends, weights, *found[0])
    reference_add_neighbours(vectors, ends, weights, *found[1])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
