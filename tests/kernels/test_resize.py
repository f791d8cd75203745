"""The resize beside Pillow's, to the bit; its GPU version runs with the encoder's kernels."""

import numpy as np
import PIL
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from alps.kernels.resize import reference_resize, resize
from alps.kernels.resize.rules import BITS, rows_first, taps_of

side = st.integers(1, 90)
ROWS_FIRST = int(PIL.__version__.split(".")[0]) >= 13  # Pillow's own rule of tall images


def pillow(image, height, width):
    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


@given(side, side, side, side, st.integers(0, 99), st.booleans())
def test_every_size_is_resized_to_pillows_bytes(height, width, new_height, new_width, seed, hard):
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    if hard:  # the largest sums
        image = np.where(image > 128, 255, 0).astype(np.uint8)
    found = resize(image, new_height, new_width)
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, reference_resize(image, new_height, new_width))
    if ROWS_FIRST or not rows_first(image.shape, new_height, new_width):
        np.testing.assert_array_equal(found, pillow(image, new_height, new_width))


@pytest.mark.parametrize(
    ("shape", "new"),
    [
        ((700, 500), (1024, 731)),
        ((1500, 1024), (1024, 699)),
        ((800, 200), (256, 64)),
        ((33, 3000), (11, 1024)),
        ((1, 3000), (1, 1024)),
        ((64, 64), (64, 64)),
    ],
)
def test_sizes_of_tiles_views_and_axes_that_stay(shape, new):
    whole = np.random.default_rng(1).integers(0, 256, (shape[0], 2 * shape[1], 3), np.uint8)
    image = whole[:, ::2]
    found = resize(image, *new)
    np.testing.assert_array_equal(found, reference_resize(image, *new))
    if ROWS_FIRST or not rows_first(image.shape, *new):
        np.testing.assert_array_equal(found, pillow(image.copy(), *new))


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_weights_sum_to_one_and_no_sum_overflows(old, new):
    taps = taps_of(old, new)
    total = taps.weights.sum(axis=1, dtype=np.int64)
    assert taps.weights.min() >= 0 and np.abs(total - (1 << BITS)).max() <= taps.weights.shape[1]
    assert 255 * total.max() + (1 << BITS - 1) < 1 << 31
    assert taps.first.min() >= 0 and taps.first.max() < old


@pytest.mark.parametrize(
    ("image", "size", "why"),
    [
        (np.zeros((4, 4), np.uint8), (2, 2), r"must be \(H, W, C\) uint8, not uint8 \(4, 4\)"),
        (np.zeros((4, 4, 3)), (2, 2), "not float64"),
        ([[1]], (2, 2), "not list"),
        (np.zeros((0, 4, 3), np.uint8), (2, 2), "no pixels"),
        (np.zeros((4, 4, 3), np.uint8), (2, 0), "to 2 x 0"),
    ],
)
def test_what_is_no_image_is_refused(image, size, why):
    for one in (resize, reference_resize):
        with pytest.raises(ValueError, match=why):
            one(image, *size)
