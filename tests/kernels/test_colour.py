"""Colours under masks, all versions against each other, OpenCV, SciPy and scikit-image."""

import cv2
import numpy as np
import pytest
from gpu_bits import bits_of, sizes_of, zeros
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import cuda
from scipy import ndimage

from alps.kernels.colour import (
    LAB_UNIT,
    gpu,
    lab_of,
    lab_table,
    moments_of,
    pool_colours,
    reference_pool_colours,
)
from alps.kernels.masks.algebra import areas, boxes
from alps.kernels.masks.pixels import runs_of
from alps.kernels.masks.runs import Runs


def on_cpu(pixels, masks):
    return pool_colours(pixels, runs_of(masks))


def on_gpu(pixels, masks):
    shape, sizes = (1, len(masks)), sizes_of(masks.shape[1:])
    used, sums = cuda.to_device(np.ones(shape, np.int32)), zeros((*shape, 6), np.int64)
    extent = cuda.to_device(np.full((*shape, 5), [0, gpu.FAR, gpu.FAR, -1, -1], np.int32))
    gpu.add_colours(bits_of(masks), used, sizes, cuda.to_device(pixels[None]), sums, extent)
    area, box = np.split(extent.copy_to_host()[0], [1], axis=1)
    runs = runs_of(masks)
    np.testing.assert_array_equal(area[:, 0], areas(runs))
    np.testing.assert_array_equal(box[area[:, 0] > 0], boxes(runs)[area[:, 0] > 0])
    return moments_of(sums.copy_to_host()[0].reshape(-1, 2, 3), area[:, 0].astype(np.int64))


VERSIONS = {"reference": reference_pool_colours, "cpu": on_cpu, "cuda": on_gpu}
every_version = pytest.mark.parametrize("pool", VERSIONS.values(), ids=VERSIONS)


def made(size, masks=3, channels=3, seed=0):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(-(2**15), 2**15, (*size, channels)).astype(np.int16)
    drawn = rng.random((masks, *size)) < 0.4
    drawn[:, size[0] // 2, size[1] // 2] = True  # none is empty
    return pixels, drawn


@every_version
def test_like_opencv_and_scipy(pool):
    pixels, masks = made((23, 17))
    masks[1] = True
    moments = pool(pixels, masks)
    assert (moments.shape, moments.dtype) == ((3, 6), np.float32)
    for mask, row in zip(masks, moments, strict=True):
        mean, spread = cv2.meanStdDev(pixels, mask=mask.astype(np.uint8))
        np.testing.assert_allclose(row, np.concatenate([mean, spread])[:, 0], rtol=1e-5, atol=1e-2)
        for channel in range(3):
            plane = pixels[..., channel].astype(float)
            assert row[channel] == pytest.approx(ndimage.mean(plane, mask), rel=1e-5, abs=1e-2)
            expected = ndimage.standard_deviation(plane, mask)
            assert row[3 + channel] == pytest.approx(expected, rel=1e-5)


CHANNELS = st.integers(1, 4)


@st.composite
def images_and_masks(draw, channels=CHANNELS):
    size = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    pixels, masks = made(size, draw(st.integers(1, 6)), draw(channels), draw(st.integers(0, 99)))
    if draw(st.booleans()):
        masks[0] = False
        masks[0, -1, 0] = True
    if draw(st.booleans()):
        masks = np.asfortranarray(masks)
    return pixels, masks


@given(images_and_masks())
def test_any_masks(drawn):
    np.testing.assert_allclose(on_cpu(*drawn), reference_pool_colours(*drawn), rtol=1e-6, atol=1e-2)


@pytest.mark.slow
@settings(max_examples=12)  # the simulator is slow
@given(images_and_masks(st.just(3)))
def test_any_masks_on_a_gpu_to_the_bit(drawn):
    np.testing.assert_array_equal(on_gpu(*drawn), on_cpu(*drawn))


@every_version
def test_one_pixel_and_one_colour(pool):
    pixels = np.full((8, 9, 3), (12_345, -7, 3), np.int16)
    pixels[2, 5] = (1, 2, 3)
    masks = np.zeros((2, 8, 9), bool)
    masks[0, 2, 5] = True
    masks[1, 3:] = True
    expected = [[1, 2, 3, 0, 0, 0], [12_345, -7, 3, 0, 0, 0]]
    np.testing.assert_array_equal(pool(pixels, masks), np.array(expected, np.float32))


def test_no_digit_is_lost_in_a_large_mask():
    """In float32 sums of a million squares would lose a standard deviation of 1 near 2^15."""
    pixels = np.full((1024, 1024, 1), 32_000, np.int16)
    pixels[::2] += 2
    moments = on_cpu(pixels, np.ones((1, 1024, 1024), bool))
    np.testing.assert_array_equal(moments, [[32_001, 1]])


def test_memory_order_makes_no_difference():
    pixels, masks = made((12, 31), masks=9)
    np.testing.assert_array_equal(on_cpu(np.asfortranarray(pixels), masks), on_cpu(pixels, masks))


@pytest.mark.parametrize("pool", [on_cpu, on_gpu])
def test_an_empty_mask_has_no_colour(pool):
    pixels, masks = made((6, 5), masks=6)
    masks[4] = False
    with pytest.raises(ValueError, match="the first is 4"):
        pool(pixels, masks)


def test_no_masks():
    assert on_cpu(made((6, 5))[0], np.zeros((0, 6, 5), bool)).shape == (0, 6)


@pytest.mark.parametrize("lengths", [[3, 9, 5], [3, 9, 7], [3, -1, 14], [20, -4], []])
def test_runs_that_do_not_add_up(lengths):
    runs = Runs.from_lengths([np.array(r, np.int64) for r in [[8, 8]] * 5 + [lengths]], (4, 4))
    with pytest.raises(ValueError, match="mask 5 do not add up to 4 x 4 pixels"):
        pool_colours(np.ones((4, 4, 3), np.int16), runs)


@pytest.mark.parametrize(
    "pixels", [np.ones((4, 5, 3), np.int16), np.ones((4, 4, 3), np.uint8)], ids=["size", "dtype"]
)
def test_pixels_that_do_not_fit_are_refused(pixels):
    with pytest.raises(ValueError, match=r"must be int16 of \(4, 4\)"):
        pool_colours(pixels, Runs.from_lengths([np.array([0, 16])], (4, 4)))


def test_lab_is_a_function_of_the_colour_to_the_bit():
    """So that a device may look it up, wherever a pixel lies in a line of OpenCV's."""
    table = lab_table()
    assert (table.shape, table.dtype) == ((1 << 24, 3), np.int16)
    for width in (1, 7, 1001):
        image = np.random.default_rng(width).integers(0, 256, (60, width, 3)).astype(np.uint8)
        place = image.astype(np.int64) @ (1 << 16, 1 << 8, 1)
        np.testing.assert_array_equal(table[place], lab_of(image))
        if width == 7:
            lab = zeros((1, *image.shape), np.int16)
            gpu.lab_of(cuda.to_device(image[None]), cuda.to_device(table), lab)
            np.testing.assert_array_equal(lab.copy_to_host()[0], lab_of(image))


def test_lab_like_scikit_image():
    from skimage.color import rgb2lab

    image = np.random.default_rng(1).integers(0, 256, (40, 30, 3)).astype(np.uint8)
    image[0, :2] = [[0, 0, 0], [255, 255, 255]]
    lab = lab_of(image)
    assert (lab.dtype, lab.shape) == (np.int16, image.shape)
    # OpenCV interpolates in a table: within 1 of 100.
    np.testing.assert_allclose(lab * LAB_UNIT, rgb2lab(image), atol=1)
    assert lab[0, 0].tolist() == [0, 0, 0]
    assert lab[0, 1, 0] == 100 / LAB_UNIT
