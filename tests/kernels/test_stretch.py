"""Bands of any type become 8 bits, the same in each window."""

import warnings

import numpy as np
import pytest

from alps.kernels.stretch import stretch_limits, stretch_to_uint8

DTYPES = ["int8", "uint8", "uint16", "int16", "uint32", "int32", "float16", "float32", "float64"]


def by_hand(pixels, low, high):
    """The formula in exact, slow arithmetic."""
    result = np.zeros(pixels.shape, np.uint8)
    for at in np.ndindex(pixels.shape):
        value, black, white = float(pixels[at]), float(low[at[0]]), float(high[at[0]])
        if white > black and not np.isnan(value):
            share = min(max((value - black) / (white - black), 0.0), 1.0)
            result[at] = int(share * 255 + 0.5)
    return result


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 7, 5), (2, 1, 9), (3, 0, 4)])
def test_agrees_with_the_formula(dtype, shape):
    rng = np.random.default_rng(1)
    pixels = (rng.integers(0, 120, shape)).astype(dtype)
    low, high = np.full(shape[0], 10.0), np.full(shape[0], 97.0)
    stretched = stretch_to_uint8(pixels, low, high)
    assert stretched.dtype == np.uint8 and stretched.shape == shape
    difference = stretched.astype(int) - by_hand(pixels, low, high)
    assert np.abs(difference).max(initial=0) <= (1 if np.dtype(dtype).itemsize <= 2 else 0)


def test_order_of_memory_does_not_matter():
    pixels = np.arange(3 * 40 * 50, dtype=np.uint16).reshape(3, 40, 50)
    low, high = stretch_limits(pixels, np.ones((40, 50), bool))
    expected = stretch_to_uint8(pixels, low, high)
    fortran = np.asfortranarray(pixels)
    assert (stretch_to_uint8(fortran, low, high) == expected).all()
    assert (stretch_to_uint8(pixels[:, 10:20], low, high) == expected[:, 10:20]).all()


def test_large_integers_keep_their_differences():
    start = 4_000_000_000  # float32 would see one value in all of these
    pixels = np.array([[[start, start + 51, start + 100]]], np.uint32)
    assert stretch_to_uint8(pixels, [start], [start + 100]).tolist() == [[[0, 130, 255]]]


def test_constant_bands_and_nothing_finite_make_no_noise():
    pixels = np.array([[[5.0, 5.0]], [[np.nan, np.inf]], [[-np.inf, 1e300]]])
    valid = np.ones((1, 2), bool)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        low, high = stretch_limits(pixels, valid)
        assert low[0] == high[0] == 5 and low[1] == high[1] == 0
        assert stretch_to_uint8(pixels, low, high)[:2].tolist() == [[[0, 0]], [[0, 0]]]
        assert stretch_to_uint8(pixels, [0, 0, -1e300], [1, 1, 1e300]).tolist() == [
            [[255, 255]],
            [[0, 255]],
            [[0, 255]],
        ]


def test_limits_are_percentiles_of_the_valid_pixels():
    sample = np.arange(101, dtype=np.int16).reshape(1, 1, 101)
    valid = np.ones((1, 101), bool)
    low, high = stretch_limits(sample, valid)
    assert (low[0], high[0]) == (2, 98)
    valid[0, 51:] = False
    low, high = stretch_limits(sample, valid, 0, 100)
    assert (low[0], high[0]) == (0, 50)


def test_validity_may_differ_by_band():
    sample = np.array([[1, 2, 3], [10, 20, 30]], np.float32)
    valid = np.array([[True, True, False], [False, True, True]])
    low, high = stretch_limits(sample, valid, 0, 100)
    assert low.tolist() == [1, 20] and high.tolist() == [2, 30]


def test_a_few_bright_things_on_a_flat_ground_stay_visible():
    sample = np.zeros((1, 100, 100), np.uint16)
    sample[0, :3, :3] = 700
    low, high = stretch_limits(sample, np.ones((100, 100), bool))
    assert (low[0], high[0]) == (0, 700)


def test_no_valid_pixel_gives_black():
    sample = np.ones((2, 3, 3), np.float32)
    low, high = stretch_limits(sample, np.zeros((3, 3), bool))
    assert stretch_to_uint8(sample, low, high).max() == 0
