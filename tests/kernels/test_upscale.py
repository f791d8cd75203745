"""Masks from low-resolution logits against PyTorch's interpolation in SAM's two steps."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from alps.kernels.masks import algebra
from alps.kernels.masks.pixels import masks_of, runs_of
from alps.kernels.upscale import reference_upscale, upscale_masks
from alps.kernels.upscale.taps import taps_of

# (a, b), square, inner, size
SHAPES = {
    "official": ((16, 16), 64, (64, 64), (64, 64)),
    "one step wide": ((16, 16), 64, (40, 64), (40, 64)),
    "tiny": ((16, 16), 64, (64, 57), (130, 116)),
    "smaller again": ((16, 16), 64, (33, 64), (20, 39)),
    "second step": ((32, 32), 32, (32, 20), (70, 44)),
    "no step": ((40, 40), 40, (40, 40), (40, 40)),
    "shrinks twice": ((40, 40), 15, (15, 11), (7, 5)),
    "shrinks, grows": ((70, 70), 16, (9, 16), (90, 160)),
    "not square": ((9, 30), 50, (50, 50), (50, 50)),
    "one pixel": ((16, 16), 64, (1, 64), (1, 77)),
    "from one logit": ((1, 1), 4, (3, 4), (9, 12)),
    "uneven": ((13, 13), 51, (17, 51), (101, 300)),
}


def smooth_logits(count, shape, seed=0):
    """Discs and rings with slopes at their edges, some faint: (M, a, b) float32."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]] / max(shape)
    logits = np.empty((count, *shape), np.float32)
    for index in range(count):
        cy, cx, radius = rng.uniform(0, 1, 3)
        inside = radius / 2 - np.hypot(y - cy, (x - cx) * rng.uniform(0.3, 2))
        wave = 0.2 * np.sin(rng.uniform(5, 30) * x) * np.sin(20 * y)
        logits[index] = rng.choice([3, 20, 60]) * (inside + wave)
    return logits


def noise(count, shape, seed=0):
    return np.random.default_rng(seed).standard_normal((count, *shape)).astype(np.float32) * 2


def in_torch(logits, square, inner, size):
    """Full-size logits (M, H, W), a step that changes no size left out, as stock SAM has it."""
    full = torch.from_numpy(logits)[:, None]
    for step, cut in (((square, square), inner), (tuple(size), size)):
        if full.shape[2:] != step:
            full = F.interpolate(full, step, mode="bilinear", align_corners=False)
        full = full[:, :, : cut[0], : cut[1]]
    return full[:, 0].numpy()


def check(logits, square, inner, size, threshold=0.0, offset=1.0, put=np.asarray, **options):
    """All that comes out, wherever ``put`` puts the logits, against full-size ones of PyTorch."""
    found = upscale_masks(
        put(logits), square, inner, size, threshold=threshold, offset=offset, **options
    )
    full = in_torch(logits, square, inner, size)
    close = 1e-6 * np.abs(logits).max(initial=0)  # rounding may decide about these

    def counts(cut):
        return [(full > np.float32(cut) + moved).sum((1, 2)) for moved in (close, -close)]

    (high_least, high_most), (low_least, low_most) = (
        counts(threshold + offset),
        counts(threshold - offset),
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        least = high_least.astype(np.float32) / low_most
        most = high_most.astype(np.float32) / low_least
    kept = found.kept
    assert kept.dtype == np.int64
    assert found.stability.dtype == np.float32
    np.testing.assert_array_equal(np.isnan(found.stability), np.isnan(most)[kept])
    number = ~np.isnan(found.stability)
    assert (found.stability >= least[kept] * (1 - 1e-6))[number].all()
    assert (found.stability <= most[kept] * (1 + 1e-6))[number].all()
    rule = options.get("min_stability", 0)
    if rule > 0:
        assert (found.stability >= np.float32(rule)).all()
        dropped = np.setdiff1d(np.arange(len(logits)), kept)
        assert not (least[dropped] > rule).any()
    else:
        assert kept.tolist() == list(range(len(logits)))

    masks = masks_of(found.runs)
    expected = full[kept] > threshold
    doubtful = np.abs(full[kept] - np.float32(threshold)) <= close
    if options.get("valid") is not None:
        expected &= options["valid"]
    assert not ((masks != expected) & ~doubtful).any()
    assert doubtful.sum() <= max(50, 0.01 * doubtful.size)
    canonical = runs_of(masks)
    np.testing.assert_array_equal(found.runs.lengths, canonical.lengths)
    np.testing.assert_array_equal(found.runs.starts, canonical.starts)
    np.testing.assert_array_equal(found.area, masks.sum((1, 2)))
    np.testing.assert_array_equal(found.boxes, algebra.boxes(canonical))
    return found


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("make", [smooth_logits, noise])
def test_same_as_torch(shape, make):
    shape, *sizes = SHAPES[shape]
    check(make(12, shape), *sizes)
    check(make(12, shape, 1), *sizes, threshold=0.7, offset=0.3)
    check(make(12, shape, 2), *sizes, threshold=-2.0, offset=0.0)


@pytest.mark.parametrize("shape", SHAPES)
def test_reference_same_as_torch(shape):
    shape, *sizes = SHAPES[shape]
    logits = noise(4, shape)
    expected = in_torch(logits, *sizes)
    np.testing.assert_allclose(reference_upscale(logits, *sizes), expected, atol=1e-5)


def test_official_size():
    found = check(smooth_logits(3, (256, 256)), 1024, (1024, 1024), (1024, 1024))
    assert found.runs.size == (1024, 1024)
    check(noise(1, (256, 256)), 1024, (1024, 1024), (1024, 1024))


def test_unstable_masks_are_dropped():
    logits = np.concatenate([smooth_logits(30, (16, 16)), np.full((2, 16, 16), -9, np.float32)])
    scores = upscale_masks(logits, 64, (64, 64), (64, 64)).stability
    assert np.isnan(scores[-2:]).all()
    rule = float(np.nanmedian(scores))
    found = check(logits, 64, (64, 64), (64, 64), min_stability=rule)
    assert 10 <= len(found.kept) <= 20
    assert found.kept.tolist() == np.flatnonzero(scores >= np.float32(rule)).tolist()


def test_valid_pixels():
    logits = smooth_logits(10, (16, 16))
    valid = np.random.default_rng(1).random((50, 60)) < 0.8
    plain = upscale_masks(logits, 64, (53, 64), (50, 60))
    found = check(logits, 64, (53, 64), (50, 60), valid=valid)
    np.testing.assert_array_equal(found.stability, plain.stability)
    assert check(logits, 64, (53, 64), (50, 60), valid=np.zeros((50, 60), bool)).area.max() == 0
    everywhere = check(logits, 64, (53, 64), (50, 60), valid=np.ones((50, 60), bool))
    np.testing.assert_array_equal(everywhere.runs.lengths, plain.runs.lengths)


@pytest.mark.parametrize("level", [-5.0, -1.0, 0.0, 0.5, 1.0, 5.0])
def test_flat_masks(level):
    """Logits equal to a threshold are not above it."""
    found = upscale_masks(np.full((2, 16, 16), level, np.float32), 64, (64, 50), (90, 70))
    area = 6300 if level > 0 else 0
    assert found.area.tolist() == [area, area]
    score = np.nan if level <= -1 else float(level > 1)
    np.testing.assert_array_equal(found.stability, [score, score])


@given(st.integers(0, 2**32), st.data())
def test_any_shape(seed, data):
    shape = data.draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    square = data.draw(st.integers(1, 90))
    inner = data.draw(st.tuples(st.integers(1, square), st.integers(1, square)))
    size = data.draw(st.tuples(st.integers(1, 120), st.integers(1, 120)))
    count = data.draw(st.integers(0, 3))
    make = data.draw(st.sampled_from([smooth_logits, noise]))
    check(make(count, shape, seed), square, inner, size, min_stability=data.draw(st.floats(0, 1)))


@pytest.mark.parametrize("make", [smooth_logits, noise])
@pytest.mark.parametrize(
    "shape",
    [
        ((6, 6), 24, (24, 20), (33, 27)),
        ((6, 6), 24, (24, 24), (24, 24)),
        ((9, 5), 4, (3, 4), (40, 10)),
        ((1, 1), 4, (4, 4), (4, 4)),
    ],
    ids=str,
)
def test_on_a_gpu(shape, make, to_gpu):
    shape, *sizes = shape
    check(make(3, shape), *sizes, put=to_gpu, min_stability=0.1)
    check(make(0, shape), *sizes, put=to_gpu)


def test_some_masks_at_once_on_a_gpu(to_gpu, monkeypatch):
    from alps.kernels.masks import gpu as on_gpu

    monkeypatch.setattr(on_gpu, "BITS_BYTES", 1)
    valid = np.random.default_rng(1).random((24, 24)) < 0.8
    sizes = (24, (24, 24), (24, 24))
    logits = smooth_logits(4, (6, 6))
    found = check(logits, *sizes, put=to_gpu, valid=valid)
    assert found.stability.tolist() == upscale_masks(logits, *sizes).stability.tolist()


def test_weights_are_means():
    for low, square, inner, full in ((256, 1024, 1024, 1024), (128, 512, 451, 902), (70, 16, 9, 3)):
        taps = taps_of(low, square, inner, full)
        np.testing.assert_allclose(taps.weights.sum(1), 1, atol=1e-6)
        assert taps.first.min() >= 0
        assert taps.first.max() + taps.weights.shape[1] <= low
    assert taps_of(256, 1024, 1024, 1024).weights.shape == (1024, 2)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"logits": np.zeros((2, 4, 4))}, "float32"),
        ({"logits": np.zeros((4, 4), np.float32)}, "float32"),
        ({"logits": np.zeros((2, 0, 4), np.float32)}, "float32"),
        ({"inner": (17, 16)}, "cannot fill"),
        ({"inner": (0, 16)}, "cannot fill"),
        ({"size": (0, 9)}, "no pixels"),
        ({"size": (46341, 46341)}, "tiles"),
        ({"offset": -1.0}, "negative"),
        ({"offset": float("nan")}, "negative"),
        ({"valid": np.ones((9, 9), bool)}, "valid"),
        ({"valid": np.ones((16, 16), np.uint8)}, "valid"),
    ],
)
def test_not_accepted(change, says):
    arguments = {
        "logits": np.zeros((2, 4, 4), np.float32),
        "square": 16,
        "inner": (16, 16),
        "size": (16, 16),
    }
    with pytest.raises(ValueError, match=says):
        upscale_masks(**arguments | change)


@pytest.mark.parametrize(("place", "side"), [("cpu", 16), ("gpu", 5)])
def test_pixels_that_only_reach_a_threshold_are_not_above_it(place, side, to_gpu):
    """Whole numbers, four times as large: all pixels are 64ths, and nothing is rounded."""
    logits = np.random.default_rng(0).integers(-4, 5, (2, side, side)).astype(np.float32)
    sizes = (4 * side, (4 * side, 4 * side), (4 * side, 4 * side))
    full = in_torch(logits, *sizes)
    cuts = (0.25 - 0.5, 0.25, 0.25 + 0.5)
    assert all((full == cut).any() for cut in cuts)
    put = to_gpu if place == "gpu" else np.asarray
    found = upscale_masks(put(logits), *sizes, threshold=0.25, offset=0.5)
    np.testing.assert_array_equal(masks_of(found.runs), full > cuts[1])
    low, high = ((full > cut).sum((1, 2)).astype(np.float32) for cut in (cuts[0], cuts[2]))
    np.testing.assert_array_equal(found.stability, high / low)


@pytest.mark.parametrize("place", ["cpu", pytest.param("gpu", marks=pytest.mark.slow)])
def test_a_mask_as_stable_as_the_rule_is_kept(place, to_gpu):
    logits = smooth_logits(8, (6, 6))
    put = to_gpu if place == "gpu" else np.asarray
    sizes = (24, (24, 24), (24, 24))
    plain = upscale_masks(put(logits), *sizes)
    scores = plain.stability
    between = scores[(scores > 0) & (scores < 1)]
    assert len(between) > 2
    for rule in between.tolist():
        found = upscale_masks(put(logits), *sizes, min_stability=rule)
        kept = np.flatnonzero(scores >= np.float32(rule))
        assert found.kept.tolist() == kept.tolist()
        assert found.area.tolist() == plain.area[kept].tolist() and found.area.min() > 0


def test_one_mask_alone_keeps_valid_pixels_only():
    valid = np.random.default_rng(2).random((40, 30)) < 0.5
    found = check(smooth_logits(1, (16, 16), 3), 64, (64, 48), (40, 30), valid=valid)
    assert 0 < found.area[0] < valid.sum()
