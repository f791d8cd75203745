"""Pieces, borders, moments: compiled versions against plain ones, SciPy and scikit-image."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from alps.kernels.regions import (
    borders,
    boxes,
    join_small,
    moments,
    pieces,
    reference_borders,
    reference_boxes,
    reference_moments,
    reference_pieces,
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
    joined, owner = join_small(regions, lab, least, np.zeros(len(first), int))
    np.testing.assert_array_equal(joined >= 0, regions >= 0)
    area = np.bincount(regions[regions >= 0], minlength=len(first))
    assert (owner[area >= least] == np.flatnonzero(area >= least)).all()
    _, again = pieces(joined)
    assert len(again) == len(np.unique(owner))


def test_small_pieces_join_their_family_then_the_most_alike():
    lab = np.zeros((4, 9, 3), np.int16)
    values = np.repeat([[0] * 4 + [1] + [2] * 4], 4, 0)
    lab[:, :4, 0], lab[:, 4, 0], lab[:, 5:, 0] = 100, 900, 1000
    regions, _ = pieces(values)
    assert join_small(regions, lab, 5, np.array([0, 1, 2]))[1].tolist() == [0, 2, 2]
    assert join_small(regions, lab, 5, np.array([7, 7, 2]))[1].tolist() == [0, 0, 2]
    assert join_small(regions, lab, 4, np.array([7, 7, 2]))[1].tolist() == [0, 1, 2]


def test_nothing_is_joined_across_pixels_in_none():
    lab = np.zeros((1, 5, 3), np.int16)
    regions = np.array([[0, -1, 1, 1, 1]], np.int32)
    joined, owner = join_small(regions, lab, 3, np.zeros(2, int))
    assert joined.tolist() == [[0, -1, 1, 1, 1]] and owner.tolist() == [0, 1]


def test_small_ones_among_themselves_end_in_one():
    lab = np.zeros((3, 3, 3), np.int16)
    regions, _ = pieces(np.arange(9).reshape(3, 3))
    joined, _ = join_small(regions, lab, 50, np.arange(9))
    assert len(np.unique(joined)) == 1


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_of_no_pixel(shape):
    found, first = pieces(np.zeros(shape, int))
    assert found.shape == shape and not len(first)
    assert not len(borders(found, np.zeros((*shape, 3), np.int16)).pairs)
