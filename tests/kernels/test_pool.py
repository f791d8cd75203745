"""Masks on the embedding's grid, all versions against OpenCV and pixel-by-pixel sums."""

import cv2
import numpy as np
import pytest
from gpu_bits import bits_of, sizes_of, zeros
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import cuda

from alps.kernels.masks.pixels import runs_of
from alps.kernels.masks.runs import Runs
from alps.kernels.pool import (
    cell_shares,
    gpu,
    pool_embeddings,
    reference_cell_shares,
    reference_pool_embeddings,
)
from alps.kernels.pool.rules import grid_of


def reference(masks, cells, scale, origin=(0, 0)):
    return reference_cell_shares(masks, cells, tuple(np.broadcast_to(scale, 2)), origin)


def on_cpu(masks, cells, scale, origin=(0, 0)):
    return cell_shares(runs_of(masks), cells, scale, origin)


def on_gpu(masks, cells, scale, origin=(0, 0)):
    size, down, across = masks.shape[1:], *cells
    grid = grid_of(size, tuple(cells), tuple(map(float, np.broadcast_to(scale, 2))), origin)
    used = cuda.to_device(np.ones((1, len(masks)), np.int32))
    shares = zeros((1, len(masks), down, across), np.float32)
    gain = zeros((1, len(masks), down + 2, across), np.int64)
    grids = gpu.TileGrids.of([grid]).on_gpu()
    gpu.cell_shares(bits_of(masks), used, sizes_of(size), grids, gain, shares)
    return shares.copy_to_host()[0]


VERSIONS = {"reference": reference, "cpu": on_cpu, "cuda": on_gpu}
every_version = pytest.mark.parametrize("shares_of", VERSIONS.values(), ids=VERSIONS)


def naive_shares(mask, cells, scale, origin=(0, 0)):
    """Every pixel split among the cells it lies in."""
    shares = np.zeros(cells)
    for y, x in np.argwhere(mask) - origin:
        for i in range(cells[0]):
            for j in range(cells[1]):
                down = min(y + 1, (i + 1) * scale[0]) - max(y, i * scale[0])
                across = min(x + 1, (j + 1) * scale[1]) - max(x, j * scale[1])
                shares[i, j] += max(down, 0) * max(across, 0)
    return shares / (scale[0] * scale[1])


@pytest.mark.parametrize(
    ("size", "cells", "scale"),
    [
        ((12, 16), (3, 4), (4, 4)),
        ((13, 11), (5, 4), (2.7, 3.3)),
        ((9, 20), (4, 8), (2.5, 2.5)),
        ((5, 5), (8, 8), (0.7, 0.7)),  # cells smaller than a pixel
        ((6, 9), (6, 6), (1.5, 1.5)),  # the grid reaches beyond the mask
        ((10, 10), (2, 2), (3.5, 4)),  # and the mask beyond the grid
    ],
)
@every_version
def test_shares_by_exact_area(shares_of, size, cells, scale):
    masks = np.random.default_rng(0).random((4, *size)) < 0.4
    masks[2], masks[3] = False, True
    shares = shares_of(masks, cells, scale)
    assert shares.dtype == np.float32
    expected = [naive_shares(mask, cells, scale) for mask in masks]
    np.testing.assert_allclose(shares, expected, atol=1e-6)


@st.composite
def masks_and_grid(draw):
    size = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    masks = rng.random((2, *size)) < draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))
    if draw(st.booleans()):
        masks[0] = False
        masks[0, rng.integers(size[0]), rng.integers(size[1])] = True  # one pixel
    cells = draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    # Whole, halves, and what has no end in binary; some cells smaller than a pixel.
    scales = st.sampled_from([0.4, 0.5, 1, 1.1, 1.5, 2, 3, 10 / 3])
    origin = draw(st.tuples(st.integers(0, 4), st.integers(0, 4)))
    return masks, cells, draw(st.tuples(scales, scales)), origin


@given(masks_and_grid())
def test_any_masks(drawn):
    masks, cells, scale, origin = drawn
    expected = [naive_shares(mask, cells, scale, origin) for mask in masks]
    shares = on_cpu(masks, cells, scale, origin)
    np.testing.assert_allclose(shares, expected, atol=1e-6)
    np.testing.assert_allclose(reference(masks, cells, scale, origin), expected, atol=1e-6)
    assert shares.min() >= 0 and shares.max() <= 1
    # Nothing is left over beside a mask: what it does not touch is 0, not almost.
    np.testing.assert_array_equal(shares > 0, np.array(expected) > 1e-9)


@pytest.mark.slow
@settings(max_examples=12)  # the simulator is slow
@given(masks_and_grid())
def test_any_masks_on_a_gpu(drawn):
    np.testing.assert_array_equal(on_gpu(*drawn), on_cpu(*drawn))


@pytest.mark.parametrize(("size", "cells"), [((64, 96), (8, 12)), ((50, 70), (16, 16))])
@every_version
def test_shares_like_opencv(shares_of, size, cells):
    mask = np.random.default_rng(1).random(size) < 0.3
    resized = cv2.resize(
        mask.astype(np.float32), (cells[1], cells[0]), interpolation=cv2.INTER_AREA
    )
    scale = (size[0] / cells[0], size[1] / cells[1])
    np.testing.assert_allclose(shares_of(mask[None], cells, scale)[0], resized, atol=1e-5)


@every_version
def test_a_crop_of_a_mask(shares_of):
    masks = np.random.default_rng(6).random((2, 40, 50)) < 0.5
    cropped = shares_of(np.ascontiguousarray(masks[:, 11:35, 7:43]), (8, 12), 3)
    np.testing.assert_array_equal(shares_of(masks, (8, 12), 3, (11, 7)), cropped)


def test_one_number_is_both_scales():
    masks = np.random.default_rng(2).random((2, 9, 9)) < 0.5
    np.testing.assert_array_equal(on_cpu(masks, (4, 4), 2.5), on_cpu(masks, (4, 4), (2.5, 2.5)))


@every_version
def test_shares_add_up_to_the_area(shares_of):
    masks = np.random.default_rng(3).random((4, 37, 53)) < 0.5
    shares = shares_of(masks, (11, 16), 3.4)
    np.testing.assert_allclose(shares.sum((1, 2)) * 3.4**2, masks.sum((1, 2)), rtol=1e-5)


@every_version
def test_a_full_mask_covers_cells_to_the_last_bit(shares_of):
    masks = np.ones((1, 37, 53), bool)
    shares = shares_of(masks, (11, 16), 3.3)
    np.testing.assert_array_equal(shares, np.ones((1, 11, 16), np.float32))


@every_version
def test_one_pixel_takes_its_cell(shares_of):
    mask = np.zeros((1, 32, 32), bool)
    mask[0, 17, 9] = True
    embedding = np.random.default_rng(4).normal(size=(5, 4, 4)).astype(np.float32)
    shares = shares_of(mask, (4, 4), 8)
    assert shares[0, 2, 1] == np.float32(1 / 64)
    assert np.count_nonzero(shares) == 1
    np.testing.assert_allclose(pool_embeddings(embedding, shares)[0], embedding[:, 2, 1], rtol=1e-6)


@every_version
def test_many_masks(shares_of):
    """More than one thread takes at a time."""
    masks = np.random.default_rng(7).random((11, 8, 9)) < np.linspace(0, 1, 11)[:, None, None]
    np.testing.assert_allclose(shares_of(masks, (3, 3), 3), reference(masks, (3, 3), 3), atol=1e-6)


@pytest.mark.parametrize(
    "lengths",
    [[3, 9, 5], [3, 9, 7], [3, -1, 14], [3, -1, 13], [20, -4], [], [3, 2**31 - 1]],
)
def test_runs_that_do_not_add_up(lengths):
    runs = Runs.from_lengths([np.array(r, np.int64) for r in [[16]] * 5 + [lengths]], (4, 4))
    with pytest.raises(ValueError, match="mask 5 do not add up to 4 x 4 pixels"):
        cell_shares(runs, (2, 2), 2)


@pytest.mark.parametrize("scale", [0, -1, (2, 0), float("nan")])
def test_cells_without_area_are_refused(scale):
    with pytest.raises(ValueError, match="no area"):
        on_cpu(np.ones((1, 4, 4), bool), (2, 2), scale)


# --- means


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_means_are_weighted_by_area(dtype):
    rng = np.random.default_rng(5)
    embedding = rng.normal(size=(6, 5, 7)).astype(dtype)
    masks = rng.random((3, 40, 56)) < 0.2
    masks[0] = True
    pooled = pool_embeddings(embedding, on_cpu(masks, (5, 7), 8))
    assert isinstance(pooled, np.ndarray)
    assert (pooled.shape, pooled.dtype) == ((3, 6), np.float32)
    # The same mean over pixels: each takes its cell's embedding.
    full = embedding.astype(np.float32).repeat(8, axis=1).repeat(8, axis=2)
    expected = [full[:, mask].mean(axis=1) for mask in masks]
    np.testing.assert_allclose(pooled, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("masks", "channels", "cells"),
    [(18, 19, (3, 7)), (1, 1, (1, 1)), (2, 5, (1, 1)), (3, 1, (2, 3))],
)
def test_means_of_any_shape(masks, channels, cells):
    rng = np.random.default_rng(8)
    embedding = rng.normal(size=(channels, *cells)).astype(np.float32)
    shares = rng.random((masks, *cells)).astype(np.float32)
    expected = [[np.average(channel, weights=s) for channel in embedding] for s in shares]
    np.testing.assert_allclose(pool_embeddings(embedding, shares), expected, atol=1e-6)
    np.testing.assert_allclose(reference_pool_embeddings(embedding, shares), expected, atol=1e-6)


def test_means_are_as_exact_as_a_product_of_matrices():
    rng = np.random.default_rng(9)
    embedding = rng.normal(3, 1, size=(256, 64, 64)).astype(np.float32)
    shares = rng.random((20, 64, 64)).astype(np.float32)  # every cell counts: the longest sums
    flat, weights = embedding.reshape(256, -1), shares.reshape(20, -1)
    product = weights @ flat.T / weights.sum(axis=1, keepdims=True)
    exact = reference_pool_embeddings(embedding, shares)
    ours = np.abs(pool_embeddings(embedding, shares) - exact).max()
    assert ours <= 2 * np.abs(product - exact).max()


def test_an_empty_mask_has_no_mean():
    shares = np.zeros((3, 2, 2), np.float32)
    shares[0] = shares[2] = 0.5
    with pytest.raises(ValueError, match="the first is 1"):
        pool_embeddings(np.ones((4, 2, 2), np.float32), shares)


def test_shares_of_another_grid_are_refused():
    with pytest.raises(ValueError, match="do not fit"):
        pool_embeddings(np.ones((4, 2, 3), np.float32), np.ones((1, 3, 2), np.float32))


@every_version
def test_no_masks(shares_of):
    if shares_of is on_gpu:
        pytest.skip("places of a tile are there without masks")
    shares = shares_of(np.zeros((0, 8, 8), bool), (2, 2), 4)
    assert shares.shape == (0, 2, 2)
    assert pool_embeddings(np.ones((4, 2, 2), np.float32), shares).shape == (0, 4)
