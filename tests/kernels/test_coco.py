"""Run lengths and their COCO codes against pycocotools and NumPy."""

import numpy as np
import pytest
from gpu_bits import bits_of, zeros
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numba import cuda
from pycocotools import mask as cocoapi

from alps.kernels.masks import algebra, coco
from alps.kernels.masks import gpu as on_gpu
from alps.kernels.masks.pixels import (
    mask_of,
    masks_of,
    reference_masks_of,
    reference_runs_of,
    runs_of,
    union,
)
from alps.kernels.masks.runs import Runs
from alps.kernels.masks.words import packed, words_of


def coco_code(mask):
    return cocoapi.encode(np.asfortranarray(mask, dtype=np.uint8))


def blobs(height, width, seed):
    """Smooth masks, as SAM gives: long runs, unlike noise."""
    y, x = np.mgrid[:height, :width]
    rng = np.random.default_rng(seed)
    mask = np.zeros((height, width), bool)
    for _ in range(4):
        cy, cx, r = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(0, width / 2)
        mask ^= (y - cy) ** 2 + (x - cx) ** 2 < r**2
    return mask


def masks_of_size(height, width):
    """Empty, full, one pixel set or clear, noise, smooth: (M, height, width) bool."""
    masks = [np.zeros((height, width), bool), np.ones((height, width), bool)]
    for y, x in ((0, 0), (height - 1, width - 1), (height // 2, width // 2)):
        one = np.zeros((height, width), bool)
        one[y, x] = True
        masks += [one, ~one]
    masks += [np.random.default_rng(0).random((height, width)) < 0.5, blobs(height, width, 1)]
    return np.stack(masks)


SIZES = (1, 1), (1, 7), (7, 1), (1, 200), (200, 1), (5, 9), (33, 64), (70, 131), (257, 190)
BOUND = 2**31 - 1

sides = st.integers(1, 80)
any_masks = hnp.arrays(bool, st.tuples(st.integers(1, 3), sides, sides))


def check(runs, masks):
    """All that can be said of runs, against the masks they should be."""
    assert runs.lengths.dtype == np.int32
    assert runs.starts.dtype == np.int64
    expected = reference_runs_of(masks)
    np.testing.assert_array_equal(runs.starts, expected.starts)
    np.testing.assert_array_equal(runs.lengths, expected.lengths)
    codes = coco.encode(runs)
    coco_codes = [coco_code(mask) for mask in masks]
    assert codes == [code["counts"] for code in coco_codes]
    decoded = coco.decode(codes, runs.size)
    np.testing.assert_array_equal(decoded.lengths, runs.lengths)
    np.testing.assert_array_equal(decoded.starts, runs.starts)
    np.testing.assert_array_equal(masks_of(runs), masks)
    np.testing.assert_array_equal(reference_masks_of(runs), masks)
    np.testing.assert_array_equal(algebra.areas(runs), cocoapi.area(coco_codes))
    x0, y0, x1, y1 = algebra.boxes(runs).T
    full = masks.any((1, 2))
    as_coco = np.stack([x0, y0, (x1 - x0 + 1) * full, (y1 - y0 + 1) * full], 1)
    np.testing.assert_array_equal(as_coco, cocoapi.toBbox(coco_codes))


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_same_as_pycocotools(size):
    masks = masks_of_size(*size)
    check(runs_of(masks), masks)


def test_masks_of_a_tile():
    masks = np.stack([blobs(1024, 1000, seed) for seed in range(3)])
    check(runs_of(masks), masks)


@given(any_masks)
def test_any_masks(masks):
    check(runs_of(masks), masks)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_any_order_of_memory(size):
    masks = masks_of_size(*size)
    for arranged in (
        np.asfortranarray(masks),
        masks.transpose(0, 2, 1).copy().transpose(0, 2, 1),  # each mask column-major
        masks.repeat(2, axis=2)[:, :, ::2],
        masks[::-1, ::-1].copy()[::-1, ::-1],
    ):
        check(runs_of(arranged), masks)


def test_one_mask():
    mask = blobs(50, 40, 3)
    np.testing.assert_array_equal(coco.decode_mask(coco.encode_mask(mask), (50, 40)), mask)
    assert coco.encode_mask(mask) == coco_code(mask)["counts"]
    assert coco.encode_mask(np.asfortranarray(mask)) == coco_code(mask)["counts"]
    runs = runs_of(np.stack([~mask, mask]))
    alone = mask_of(runs, 1)
    assert alone.dtype == bool
    assert alone.flags.c_contiguous
    np.testing.assert_array_equal(alone, mask)


def test_no_pixels_no_masks():
    for size in (0, 5), (5, 0), (0, 0):
        runs = runs_of(np.zeros((2, *size), bool))
        assert runs.lengths.tolist() == [0, 0]
        assert coco.encode(runs) == [b"0", b"0"]
        assert masks_of(coco.decode([b"0", b""], size)).shape == (2, *size)
        assert algebra.areas(runs).tolist() == [0, 0]
        assert algebra.boxes(runs).tolist() == [[0] * 4] * 2
    none = runs_of(np.zeros((0, 4, 6), bool))
    assert (len(none), none.size, coco.encode(none)) == (0, (4, 6), [])
    assert masks_of(none).shape == (0, 4, 6)
    assert algebra.boxes(none).shape == (0, 4)
    assert len(algebra.place(none, (9, 9), 0, 0)) == 0


@given(st.lists(st.integers(0, 200_000_000), min_size=1, max_size=12))
def test_any_run_lengths(lengths):
    """Images far larger than fit a test: long codes, large differences of either sign."""
    total = sum(lengths)
    if not 0 < total <= BOUND:
        return
    runs = Runs.from_lengths([np.array(lengths), np.array([total])], (total, 1))
    codes = coco.encode(runs)
    assert (
        codes[0] == cocoapi.frPyObjects({"size": [total, 1], "counts": lengths}, total, 1)["counts"]
    )
    assert codes == [coco.reference_encode(runs.of(i)) for i in range(2)]
    assert coco.reference_decode(codes[0]).tolist() == lengths
    np.testing.assert_array_equal(coco.decode(codes, runs.size).lengths, runs.lengths)


def test_runs_of_length_zero():
    """Other writers' codes may have them; pycocotools reads them too."""
    lengths = np.array([0, 0, 3, 0, 0, 2, 5, 0, 2])
    runs = Runs.from_lengths([lengths], (4, 3))
    mask = np.zeros(12, bool)
    mask[3:5] = True
    mask = mask.reshape(3, 4).T[None]
    np.testing.assert_array_equal(masks_of(runs), mask)
    assert algebra.areas(runs).tolist() == [2]
    assert algebra.boxes(runs).tolist() == algebra.boxes(runs_of(mask)).tolist()
    np.testing.assert_array_equal(masks_of(algebra.place(runs, (4, 3), 0, 0)), mask)


@given(any_masks, st.tuples(*[st.integers(0, 3)] * 4))
def test_place(masks, margins):
    above, below, left, right = margins
    size = masks.shape[1] + above + below, masks.shape[2] + left + right
    placed = algebra.place(runs_of(masks), size, left, above)
    larger = np.pad(masks, ((0, 0), (above, below), (left, right)))
    check(placed, larger)


@pytest.mark.parametrize(
    "where", [((4, 5), 1, 0), ((5, 4), 0, 2), ((9, 9), -1, 0), ((9, 9), 0, -1), ((9, 9), 0, 6)]
)
def test_place_that_does_not_fit(where):
    with pytest.raises(ValueError, match="do not fit"):
        algebra.place(runs_of(np.ones((1, 4, 5), bool)), *where)


@pytest.mark.parametrize(
    ("counts", "says"),
    [
        (b"\x10", "the byte 16"),
        (b"\xff", "the byte 255"),
        (b"P", "middle of a run"),
        (b"6P", "middle of a run"),
        (b"P" * 20 + b"0", "60 bits"),
        (b"5", "add up to 5 pixels"),
        (b"7", "add up to 7 pixels"),
        (b"", "add up to 0 pixels"),
        (b"O7", "negative"),
        (b"111O", "add up to 3 pixels"),
        (b"111N", "negative run, -1"),
        (b"oooooooooooO", "negative"),
        (b"ooooooooooo?", "add up to"),
    ],
)
def test_damaged_counts(counts, says):
    with pytest.raises(ValueError, match=f"mask 1 of 3 .*{says}"):
        coco.decode([b"6", counts, b"6"], (2, 3))


@given(st.binary(max_size=20))
def test_any_bytes(counts):
    """Whatever the bytes, they are refused or are masks."""
    try:
        runs = coco.decode([counts], (4, 4))
    except ValueError:
        return
    assert runs.lengths.min(initial=0) >= 0
    assert runs.lengths.sum() == 16
    assert runs.lengths.tolist() == coco.reference_decode(counts).tolist()


def test_too_many_pixels():
    size = 46341, 46341  # the least square of more than 2^31 - 1
    with pytest.raises(ValueError, match="cut the image into tiles"):
        coco.decode([b"0"], size)
    with pytest.raises(ValueError, match="cut the image into tiles"):
        runs_of(np.broadcast_to(np.zeros(1, bool), (1, *size)))
    with pytest.raises(ValueError, match="cut the image into tiles"):
        algebra.place(runs_of(np.ones((1, 1, 1), bool)), size, 0, 0)


@pytest.mark.parametrize("masks", [np.zeros((4, 5), bool), np.zeros((1, 4, 5), np.uint8)])
def test_not_masks(masks):
    with pytest.raises(ValueError, match="must be"):
        runs_of(masks)


@given(any_masks, st.integers(0, 2**32))
def test_intersect(masks, seed):
    one = np.random.default_rng(seed).random(masks[0].shape) < 0.7
    for other in (one, np.zeros_like(one), np.ones_like(one), masks[0]):
        check(algebra.intersect(runs_of(masks), runs_of(other[None])), masks & other)


def test_intersect_of_other_sizes():
    masks = runs_of(np.ones((2, 4, 5), bool))
    for other in (masks, runs_of(np.ones((1, 5, 4), bool))):
        with pytest.raises(ValueError, match="one mask of"):
            algebra.intersect(masks, other)


@given(any_masks)
def test_union(masks):
    covered = union(runs_of(masks))
    assert covered.dtype == bool
    np.testing.assert_array_equal(covered, masks.any(0))
    assert not union(runs_of(masks[:0])).any()


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (5, 9), (70, 33)], ids=str)
def test_runs_of_bits_on_a_gpu(size):
    masks = masks_of_size(*size)[[0, 1, 3, 6]]
    check(on_gpu.runs_of_bits(bits_of(masks), size), masks)


@st.composite
def masks_of_two_tiles(draw):
    sizes = [draw(st.tuples(st.integers(1, 40), st.integers(1, 9))) for _ in range(2)]
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    share = draw(st.sampled_from([0.0, 0.05, 0.5, 1.0]))
    return [rng.random((2, *size)) < share for size in sizes]


@pytest.mark.slow
@settings(max_examples=8)  # the simulator is slow
@given(masks_of_two_tiles())
def test_codes_of_two_tiles_on_a_gpu(tiles):
    """The second place of the second tile holds no mask; the rest as pycocotools has it."""
    height, width = (max(tile.shape[axis] for tile in tiles) for axis in (1, 2))
    bits = np.zeros((2, 2, words_of(height), width), np.uint32)
    for number, tile in enumerate(tiles):
        for place, mask in enumerate(tile):
            bits[number, place, : words_of(len(mask)), : mask.shape[1]] = packed(mask)
    used = np.array([[1, 1], [1, 0]], np.int32)
    sizes = cuda.to_device(np.array([tile.shape[1:] for tile in tiles], np.int32))
    bits, used = cuda.to_device(bits), cuda.to_device(used)
    changes, totals = zeros((2, 2, width), np.int32), zeros((2, 2), np.int32)
    on_gpu.count_changes(bits, sizes, used, changes, totals)
    starts = cuda.to_device(np.pad(totals.copy_to_host().cumsum(1), [(0, 0), (1, 0)]))
    places, lengths = zeros((2, 2 * height * width + 2), np.int32), zeros((2, 2), np.int32)
    on_gpu.write_changes(bits, sizes, changes, starts, places)
    on_gpu.count_codes(places, starts, lengths)
    ends = np.pad(lengths.copy_to_host().cumsum(1), [(0, 0), (1, 0)])
    codes = zeros((2, max(1, ends.max())), np.uint8)
    on_gpu.write_codes(places, starts, cuda.to_device(ends), codes)
    codes = codes.copy_to_host()
    for number, tile in enumerate(tiles):
        for place, mask in enumerate(tile):
            code = codes[number, ends[number, place] : ends[number, place + 1]].tobytes()
            theirs = cocoapi.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"]
            assert code == (theirs if (number, place) != (1, 1) else b"")


def test_what_lies_under_no_mask_on_a_gpu():
    rng = np.random.default_rng(0)
    masks, valid = rng.random((3, 35, 10)) < 0.3, rng.random((35, 10)) < 0.9
    bits = np.full((1, 3 + 9, 2, 12), 12345, np.uint32)  # a tile smaller than there is room for
    bits[0, :3, :, :10] = [packed(mask) for mask in masks]
    bits[0, :3, :, 10:] = 0
    bits, covered = cuda.to_device(bits), zeros(1, np.int32)
    words = np.pad(packed(valid), [(0, 0), (0, 2)])[None]
    sizes = cuda.to_device(np.array([[35, 10]], np.int32))
    number = cuda.to_device(np.array([2], np.int32))  # the third is none
    on_gpu.rest_of(bits, number, 3, cuda.to_device(words), sizes, covered)
    under = masks[:2].any(0)
    assert covered.copy_to_host().tolist() == [under.sum()]
    found = bits.copy_to_host()[0, 3:]
    row, column = np.arange(35) * 3 // 35, np.arange(10) * 3 // 10
    for cell in range(9):
        own = (row == cell // 3)[:, None] & (column == cell % 3) & valid & ~under
        np.testing.assert_array_equal(found[cell], np.pad(packed(own), [(0, 0), (0, 2)]))


@pytest.mark.parametrize("height", [1, 31, 32, 33, 64])
def test_words_hold_their_rows(height):
    mask = np.random.default_rng(height).random((height, 3)) < 0.5
    words = packed(mask)
    assert (words.shape, words.dtype) == ((words_of(height), 3), np.uint32)
    rows = words[np.arange(height) // 32] >> (np.arange(height) % 32)[:, None].astype(np.uint32)
    np.testing.assert_array_equal(rows & 1, mask)
    assert sum(int(word).bit_count() for word in words.ravel()) == mask.sum()
