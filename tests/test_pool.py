"""Masks on the embedding's grid against OpenCV and pixel-by-pixel sums."""

import cv2
import numpy as np
import pytest

from alps.kernels.pool import cell_shares, pool_embeddings


def naive_shares(mask, cells, scale):
    """Every pixel split among the cells it lies in."""
    shares = np.zeros(cells)
    for y, x in np.argwhere(mask):
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
def test_shares_by_exact_area(size, cells, scale):
    masks = np.random.default_rng(0).random((3, *size)) < 0.4
    masks[2] = False
    shares = cell_shares(masks, cells, scale)
    assert shares.dtype == np.float32
    expected = [naive_shares(mask, cells, scale) for mask in masks]
    np.testing.assert_allclose(shares, expected, atol=1e-6)


@pytest.mark.parametrize(("size", "cells"), [((64, 96), (8, 12)), ((50, 70), (16, 16))])
def test_shares_like_opencv(size, cells):
    mask = np.random.default_rng(1).random(size) < 0.3
    resized = cv2.resize(
        mask.astype(np.float32), (cells[1], cells[0]), interpolation=cv2.INTER_AREA
    )
    scale = (size[0] / cells[0], size[1] / cells[1])
    np.testing.assert_allclose(cell_shares(mask[None], cells, scale)[0], resized, atol=1e-5)


def test_one_number_is_both_scales():
    masks = np.random.default_rng(2).random((2, 9, 9)) < 0.5
    np.testing.assert_array_equal(
        cell_shares(masks, (4, 4), 2.5), cell_shares(masks, (4, 4), (2.5, 2.5))
    )


def test_shares_add_up_to_the_area():
    masks = np.random.default_rng(3).random((4, 37, 53)) < 0.5
    shares = cell_shares(np.asfortranarray(masks), (11, 16), 3.4)
    np.testing.assert_allclose(shares.sum((1, 2)) * 3.4**2, masks.sum((1, 2)), rtol=1e-5)


def test_one_pixel_takes_its_cell():
    mask = np.zeros((1, 32, 32), bool)
    mask[0, 17, 9] = True
    embedding = np.random.default_rng(4).normal(size=(5, 4, 4)).astype(np.float32)
    shares = cell_shares(mask, (4, 4), 8)
    assert shares[0, 2, 1] == np.float32(1 / 64)
    np.testing.assert_allclose(pool_embeddings(embedding, shares)[0], embedding[:, 2, 1], rtol=1e-6)


def test_means_are_weighted_by_area():
    rng = np.random.default_rng(5)
    embedding = rng.normal(size=(6, 5, 7)).astype(np.float32)
    masks = rng.random((3, 40, 56)) < 0.2
    masks[0] = True
    pooled = pool_embeddings(embedding, cell_shares(masks, (5, 7), 8))
    assert (pooled.shape, pooled.dtype) == ((3, 6), np.float32)
    # The same mean over pixels: each takes its cell's embedding.
    full = embedding.repeat(8, axis=1).repeat(8, axis=2)
    expected = [full[:, mask].mean(axis=1) for mask in masks]
    np.testing.assert_allclose(pooled, expected, atol=1e-5)


def test_an_empty_mask_has_no_mean():
    shares = np.zeros((3, 2, 2), np.float32)
    shares[0] = shares[2] = 0.5
    with pytest.raises(ValueError, match="the first is 1"):
        pool_embeddings(np.ones((4, 2, 2)), shares)


def test_no_masks():
    shares = cell_shares(np.zeros((0, 8, 8), bool), (2, 2), 4)
    assert shares.shape == (0, 2, 2)
    assert pool_embeddings(np.ones((4, 2, 2)), shares).shape == (0, 4)
