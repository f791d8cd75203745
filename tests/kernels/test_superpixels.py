"""Superpixels: all versions against each other, and against scikit-image by what they are for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import cuda

from alps.engine.demo.scenes import SceneSettings, make_scene
from alps.kernels.base import threads
from alps.kernels.colour import lab_of
from alps.kernels.superpixels import Seeds, reach, reference_superpixels, superpixels


def on_gpu(pixels, valid, per_megapixel, origin=(0, 0)):
    return superpixels(cuda.to_device(pixels), valid, per_megapixel, origin)


@st.composite
def images(draw, most=24):
    size = draw(st.tuples(st.integers(1, most), st.integers(1, most)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    pixels = rng.integers(-2000, 12_800, (*size, 3)).astype(np.int16)
    if draw(st.booleans()):  # blocks of one colour
        pixels[:] = pixels[0, 0]
        pixels[size[0] // 2 :, : size[1] // 2] = (100, 200, -300)
    valid = rng.random(size) < draw(st.sampled_from([0.0, 0.5, 1.0]))
    origin = draw(st.tuples(st.integers(0, 50), st.integers(0, 50)))
    return pixels, valid, draw(st.sampled_from([1.0, 5e3, 5e4, 1e6, 1e9])), origin


@given(images())
def test_any_image(drawn):
    _, valid, per_megapixel, origin = drawn
    regions = superpixels(*drawn)
    assert (regions.shape, regions.dtype) == (valid.shape, np.int32)
    np.testing.assert_array_equal(regions >= 0, valid)
    seeds = Seeds.of(valid.shape, per_megapixel, origin)
    assert regions.max() < seeds.rows * seeds.columns
    np.testing.assert_array_equal(regions, reference_superpixels(*drawn))


@pytest.mark.slow
@settings(max_examples=6)  # the simulator is slow
@given(images(most=9))
def test_any_image_on_a_gpu_to_the_bit(drawn):
    np.testing.assert_array_equal(on_gpu(*drawn), superpixels(*drawn))


def test_follows_edges_like_scikit_image():
    """Share of pixels outside their region's main class of a scene with exact classes."""
    from skimage.segmentation import slic

    scene = make_scene(3, SceneSettings(size=256))
    classes = scene.classes
    theirs = slic(scene.image, n_segments=66, compactness=10, start_label=0)
    ours = superpixels(lab_of(scene.image), None, 1000)
    assert misplaced(ours, classes) < 1.1 * misplaced(theirs, classes)
    squares = np.arange(256) // 32
    assert misplaced(ours, classes) < 0.8 * misplaced(squares[:, None] * 8 + squares, classes)


def misplaced(regions, classes):
    counts = np.zeros((regions.max() + 1, int(classes.max()) + 1))
    np.add.at(counts, (regions, classes), 1)
    return 1 - counts.max(1).sum() / counts.sum()


def test_an_edge_is_found_to_the_pixel():
    pixels = np.zeros((40, 60, 3), np.int16)
    pixels[:, 37:] = (9000, 0, 0)
    regions = superpixels(pixels, None, 1e6 / 15**2)
    assert not set(np.unique(regions[:, :37])) & set(np.unique(regions[:, 37:]))


def test_number_of_threads_and_memory_order_make_no_difference():
    pixels = np.random.default_rng(5).integers(0, 9000, (70, 50, 3)).astype(np.int16)
    expected = superpixels(pixels, None, 2e4)
    try:
        threads.set_threads(3)
        np.testing.assert_array_equal(superpixels(pixels, None, 2e4), expected)
    finally:
        threads.set_threads(None)
    np.testing.assert_array_equal(superpixels(np.asfortranarray(pixels), None, 2e4), expected)


def test_number_of_regions():
    seeds = Seeds.of((512, 1024), 1000)
    assert seeds.rows * seeds.columns == pytest.approx(512 * 1024 / 1000, rel=0.05)
    assert Seeds.of((3, 3), 1000).rows == 1
    assert Seeds.of((3, 3), 1000, (30, 31)).rows == 2


def test_a_block_has_the_regions_of_its_scene():
    """Scene and blocks cut alike, right to the pixel at which a block's edge is out of reach."""
    rng = np.random.default_rng(8)
    scene = np.repeat(np.repeat(rng.integers(0, 9000, (80, 70, 3)), 3, 0), 3, 1).astype(np.int16)
    valid = rng.random(scene.shape[:2]) < 0.95
    (rows, columns), side, far = valid.shape, 5, reach(5)
    height, width, many = 157, 151, 1e6 / side**2
    whole = superpixels(scene, valid, many)
    for top, left in ((0, 0), (13, 31), (rows - height, columns - width)):
        view = np.s_[top : top + height, left : left + width]
        block = superpixels(scene[view], valid[view], many, (top, left))
        row, column = np.divmod(block, Seeds.of(block.shape, many, (top, left)).columns)
        as_scene = (row + top // side) * Seeds.of(valid.shape, many).columns
        as_scene += column + left // side
        y, x = np.indices(block.shape)
        inside = valid[view] & ((y >= far) | (top == 0)) & ((x >= far) | (left == 0))
        inside &= (y < height - far) | (top + height == rows)
        inside &= (x < width - far) | (left + width == columns)
        assert inside.sum() > 1000
        np.testing.assert_array_equal(as_scene[inside], whole[view][inside])


@pytest.mark.parametrize(
    ("pixels", "valid", "per_megapixel", "message"),
    [
        (np.zeros((4, 4, 3), np.uint8), None, 10.0, "int16"),
        (np.zeros((4, 4), np.int16), None, 10.0, "int16"),
        (np.zeros((4, 4, 3), np.int16), np.ones((4, 5), bool), 10.0, "valid must be bool"),
        (np.zeros((4, 4, 3), np.int16), np.ones((4, 4), np.uint8), 10.0, "valid must be bool"),
        (np.zeros((4, 4, 3), np.int16), None, 0.0, "above 0"),
        (np.zeros((4, 4, 3), np.int16), None, float("nan"), "above 0"),
    ],
)
def test_what_does_not_fit_is_refused(pixels, valid, per_megapixel, message):
    with pytest.raises(ValueError, match=message):
        superpixels(pixels, valid, per_megapixel)


@pytest.mark.parametrize("version", [superpixels, on_gpu, reference_superpixels])
def test_of_seeds_equally_near_the_first_is_taken(version):
    """The fourth pixel lies halfway between the middles of pixels 0 and 3, and 4 and 5."""
    valid = np.array([[True, False, False, True, True, True, False, False]])
    regions = version(np.zeros((1, 8, 3), np.int16), valid, 1e6 / 16)
    assert regions.tolist() == [[0, -1, -1, 0, 1, 1, -1, -1]]


def test_a_gpu_moves_seeds_as_a_cpu_does():
    """Far more columns than rows, so that neither passes for the other."""
    pixels = np.random.default_rng(4).integers(0, 9000, (4, 23, 3)).astype(np.int16)
    every = np.ones(pixels.shape[:2], bool)
    found = on_gpu(pixels, every, 1e6 / 16)
    np.testing.assert_array_equal(found, superpixels(pixels, every, 1e6 / 16))


@pytest.mark.parametrize("version", [superpixels, on_gpu, reference_superpixels])
def test_a_seed_that_lost_all_its_pixels_stays_where_it_was(version):
    """Of three cells the middle one is half of one colour and half of the other: nothing is like
    its mean. In the corner of the image, and black, it would win pixels back.
    """
    pixels = np.zeros((8, 24, 3), np.int16)
    pixels[:, 12:, 0] = 100 * 128
    regions = version(pixels, np.ones((8, 24), bool), 1e6 / 64)
    np.testing.assert_array_equal(regions, np.where(np.arange(24) < 12, 0, 2) * np.ones((8, 1)))
