"""Run-length codes against pycocotools."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco

from alps.kernels import rle


def coco_counts(mask):
    return coco.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"]


def blobs(height, width, seed):
    """Smooth masks, as SAM gives: long runs, unlike noise."""
    y, x = np.mgrid[:height, :width]
    rng = np.random.default_rng(seed)
    mask = np.zeros((height, width), bool)
    for _ in range(4):
        cy, cx, r = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(0, width / 2)
        mask ^= (y - cy) ** 2 + (x - cx) ** 2 < r**2
    return mask


def some_masks():
    rng = np.random.default_rng(0)
    for height, width in ((1, 1), (1, 7), (7, 1), (5, 9), (33, 64), (257, 131)):
        yield np.zeros((height, width), bool)
        yield np.ones((height, width), bool)
        for y, x in ((0, 0), (height - 1, width - 1), (height // 2, width // 2)):
            one = np.zeros((height, width), bool)
            one[y, x] = True
            yield one
            yield ~one
        yield rng.random((height, width)) < 0.5
        yield blobs(height, width, 1)
    yield blobs(1024, 1000, 2)
    yield np.zeros((3000, 2000), bool)


@pytest.mark.parametrize("mask", list(some_masks()), ids=lambda m: f"{m.shape}-{m.sum()}")
def test_same_bytes_as_pycocotools(mask):
    counts = rle.encode(mask)
    assert counts == coco_counts(mask)
    assert rle.encode(np.asfortranarray(mask)) == counts
    assert rle.encode(mask[::-1][::-1]) == counts
    decoded = rle.decode(counts, *mask.shape)
    assert decoded.dtype == bool
    assert decoded.flags.c_contiguous
    np.testing.assert_array_equal(decoded, mask)
    assert rle.area(counts) == mask.sum()


@given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40)))
def test_any_mask(mask):
    runs = rle.run_lengths(mask)
    assert runs.dtype == np.int64
    assert runs.sum() == mask.size
    assert (runs[1:] > 0).all()
    np.testing.assert_array_equal(rle.mask_from_runs(runs, *mask.shape), mask)
    assert rle.encode(mask) == coco_counts(mask)
    np.testing.assert_array_equal(rle.decode(rle.encode(mask), *mask.shape), mask)


@given(st.lists(st.integers(0, 200_000_000), min_size=1, max_size=30))
def test_any_runs(runs):
    """Far larger images than fit a test: long codes, large differences of either sign."""
    counts = rle.encode_runs(np.array(runs))
    np.testing.assert_array_equal(rle.decode_runs(counts), runs)
    total = sum(runs)
    if 0 < total < 2**32:
        assert counts == coco.frPyObjects({"size": [total, 1], "counts": runs}, total, 1)["counts"]


def test_runs_in_their_order():
    mask = np.array([[1, 0], [1, 1], [0, 1]], bool)
    assert rle.run_lengths(mask).tolist() == [0, 2, 2, 2]
    assert rle.run_lengths(np.zeros((0, 5), bool)).tolist() == [0]
    assert rle.decode(b"0", 0, 5).shape == (0, 5)


@pytest.mark.parametrize(
    ("counts", "says"),
    [
        (b"\x10", "bytes that no"),
        (b"\xff", "bytes that no"),
        (b"P", "middle of a run"),
        (b"P" * 20 + b"0", "60 bits"),
        (b"5", "add up to 5 pixels"),
        (b"", "add up to 0 pixels"),
        (b"O7", "negative"),
    ],
)
def test_damaged_counts(counts, says):
    with pytest.raises(ValueError, match=says):
        rle.decode(counts, 2, 3)
