"""The pixel side of the decoder: compiled kernels against PyTorch and against plain definitions."""

import numpy as np
import pytest
import torch

from alps.engine.sam.absorbed import update_image as update_in_torch
from alps.kernels.base.math import exp, gelu
from alps.kernels.decoder.mask_logits import UpscaledImages, UpscalingWeights, mask_logits
from alps.kernels.decoder.two_way import BLOCK, ImageUpdate, Marks, update_image


def normal(rng, *shape, scale=1.0):
    return (scale * rng.normal(size=shape)).astype(np.float32)


def update_of(rng, prompts, heads, tokens, channels, queried, scale=0.3):
    rows, looks = heads * tokens, 7
    return ImageUpdate(
        tokens=tokens,
        logit_rows=normal(rng, prompts, rows, queried, scale=scale),
        logit_bias=normal(rng, prompts, rows),
        value_rows=normal(rng, prompts, rows, channels),
        value_bias=normal(rng, channels),
        norm_weight=normal(rng, channels),
        norm_bias=normal(rng, channels),
        norm_epsilon=1e-5,
        look_rows=normal(rng, prompts, looks, channels, scale=scale),
    )


def softmax(logits, axis):
    powers = np.exp(logits - logits.max(axis, keepdims=True))
    return powers / powers.sum(axis, keepdims=True)


def by_definition(image, positions, queries, update):
    """In float64, one prompt and head at a time."""
    image, positions = image.astype(np.float64), positions.astype(np.float64)
    outs, looks = [], []
    for n in range(len(update.logit_rows)):
        own = image[n if len(image) > 1 else 0]
        asking = own + positions
        new = own + update.value_bias
        for first in range(0, update.logit_rows.shape[1], update.tokens):
            head = slice(first, first + update.tokens)
            keys = update.logit_rows[n, head]
            if queries is not None:
                part = first // update.tokens * keys.shape[1] + np.arange(keys.shape[1])
                asking = queries[part].T.astype(np.float64)
            logits = asking @ keys.T + update.logit_bias[n, head]
            new = new + softmax(logits, 1) @ update.value_rows[n, head]
        centred = new - new.mean(1, keepdims=True)
        new = centred / np.sqrt(new.var(1, keepdims=True) + update.norm_epsilon)
        new = new * update.norm_weight + update.norm_bias
        outs.append(new)
        looks.append(softmax(update.look_rows[n] @ (new + positions).T, 1) @ new)
    return np.stack(outs), np.stack(looks)


# pixels beyond a block, within one, exactly one, a single pixel
SIZES = [(2 * (BLOCK // 128) + 37, 128), (64, 48), (BLOCK // 256, 256), (1, 8)]


# channels of a head: as many as go into one store, more, and none where queries are not shared
@pytest.mark.parametrize("width", [4, 6, None])
@pytest.mark.parametrize(("pixels", "channels"), SIZES)
def test_update_is_what_it_is_defined_as(pixels, channels, width):
    rng = np.random.default_rng(pixels)
    shared, width = width is not None, width or channels
    update = update_of(rng, 3, heads=2, tokens=5, channels=channels, queried=width)
    image = normal(rng, 1 if shared else 3, pixels, channels)
    positions = normal(rng, pixels, channels)
    queries = normal(rng, 2 * width, pixels) if shared else None
    expected = by_definition(image, positions, queries, update)
    as_tensors = ImageUpdate(
        **{
            n: torch.from_numpy(v) if isinstance(v, np.ndarray) else v
            for n, v in vars(update).items()
        }
    )
    reference = update_in_torch(
        torch.from_numpy(image),
        torch.from_numpy(positions),
        None if queries is None else torch.from_numpy(queries),
        as_tensors,
    )
    before = image.copy()
    *got, marks = update_image(image, positions, queries, update)
    for mine, theirs, true in zip(got, reference, expected, strict=True):
        assert mine.shape == true.shape and mine.dtype == np.float32
        error, usual = abs(mine - true).max(), abs(theirs.numpy() - true).max()
        assert error <= 2 * usual + 2e-6
    assert np.array_equal(image, before)
    np.testing.assert_allclose(made_of(image, update, marks), expected[0], rtol=1e-4, atol=1e-5)
    none, looked, same = update_image(image, positions, queries, update, keep=False)
    assert none.shape == (3, 0, channels) and np.array_equal(looked, got[1])
    for name, value in vars(marks).items():
        assert np.array_equal(getattr(same, name), value)


def made_of(image, update, marks):
    """The image that an update left, from what it told of itself."""
    new = image + marks.weights.transpose(0, 2, 1) @ marks.value_rows + marks.value_bias[:, None]
    new = (new - marks.means[:, :, None]) * marks.scales[:, :, None]
    return new * update.norm_weight + update.norm_bias


def test_extreme_logits_overflow_nowhere():
    rng = np.random.default_rng(0)
    update = update_of(rng, 2, heads=2, tokens=3, channels=16, queried=16, scale=60.0)
    image, positions = normal(rng, 2, 300, 16), normal(rng, 300, 16)
    expected = by_definition(image, positions, None, update)
    got = update_image(image, positions, None, update)[:2]
    for mine, true in zip(got, expected, strict=True):
        np.testing.assert_allclose(mine, true, atol=2e-3)


@pytest.mark.parametrize("per_cell", [False, True])
@pytest.mark.parametrize("grid", [(6, 6), (1, 1), (5, 9), (3, 300)])
def test_mask_logits_are_the_networks_layers(grid, per_cell):
    height, width = grid
    pixels, channels, count = height * width, 16, 5
    rng = np.random.default_rng(width)
    torch.manual_seed(0)
    first = torch.nn.ConvTranspose2d(channels, channels // 4, 2, stride=2)
    norm = torch.nn.LayerNorm(channels // 4, eps=1e-6)
    second = torch.nn.ConvTranspose2d(channels // 4, channels // 8, 2, stride=2)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)

    # Three points' image tokens as two layers of a transformer make them.
    shared = normal(rng, pixels, channels)
    marks = [
        Marks(
            normal(rng, 3, count, pixels),
            normal(rng, 3, pixels),
            normal(rng, 3, pixels) ** 2,
            normal(rng, 3, count, channels),
            normal(rng, 3, channels),
        )
        for _ in range(2)
    ]
    norms = [(normal(rng, channels), normal(rng, channels)) for _ in range(2)]
    image = shared.astype(np.float64)[None]
    for layer, (weight, bias) in zip(marks, norms, strict=True):
        image = image + layer.weights.transpose(0, 2, 1) @ layer.value_rows
        image = image + layer.value_bias[:, None] - layer.means[:, :, None]
        image = image * layer.scales[:, :, None] * weight + bias

    skipped = normal(rng, *grid, 4, channels // 4) * per_cell
    with torch.inference_mode():
        x = torch.from_numpy(image.astype(np.float32)).transpose(1, 2).unflatten(2, grid)
        x = first(x) + placed(skipped, 2)
        x = torch.nn.functional.gelu(norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))
        x = torch.nn.functional.gelu(second(x)).numpy()
    prompt, hyper = np.array([0, 0, 2, 2, 2, 2]), normal(rng, 6, channels // 8)
    expected = np.einsum("mc,mchw->mhw", hyper, x[prompt])

    def matrix(conv):
        return conv.weight.detach().permute(0, 2, 3, 1).flatten(1).contiguous().numpy()

    bare = matrix(first).reshape(channels, 4, -1)
    # Means are what the norm takes away.
    bare = (bare - bare.mean(2, keepdims=True)).reshape(channels, -1)
    through, rows = bare, [np.tile(norms[1][1] @ bare, (3, 1, 1))]
    for index in (1, 0):
        through = norms[index][0][:, None] * through
        constant = marks[index].value_bias + (norms[0][1] if index else 0)
        rows += [
            (constant @ through)[:, None],
            np.tile(-through.sum(0), (3, 1, 1)),
            marks[index].value_rows @ through,
        ]
    rows = np.concatenate(rows, 1)[[0, 2]]  # of one of three points no mask is wanted
    images = UpscaledImages(shared @ through, np.ascontiguousarray(rows), marks)
    first_bias = first.bias.detach().repeat(4).numpy()
    if per_cell:
        first_bias = first_bias + skipped.reshape(pixels, channels)
    weights = UpscalingWeights(
        matrix(first),
        first_bias,
        norm.weight.detach().numpy(),
        norm.bias.detach().numpy(),
        1e-6,
        matrix(second),
        second.bias.detach().repeat(4).numpy(),
    )
    got = mask_logits(images, prompt, hyper, weights, grid)
    assert got.shape == (6, 4 * height, 4 * width)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
    assert mask_logits(images, prompt[:0], hyper[:0], weights, grid).shape == (0, *got.shape[1:])


def placed(cells, side):
    """(h, w, side * side, c), the places of each cell, -> (c, side h, side w)."""
    height, width, _, channels = cells.shape
    cells = torch.from_numpy(cells).unflatten(2, (side, side)).permute(4, 0, 2, 1, 3)
    return cells.reshape(channels, side * height, side * width)


def test_exp_and_gelu_are_exact_to_float32():
    x = np.linspace(-100, 0, 100_001, dtype=np.float32)
    got = np.array([exp(v) for v in x])
    np.testing.assert_allclose(got, np.exp(x.astype(np.float64)), rtol=3e-7, atol=4e-33)
    x = np.linspace(-12, 12, 100_001, dtype=np.float32)
    got = np.array([gelu(v) for v in x])
    exact = torch.nn.functional.gelu(torch.from_numpy(x).double()).numpy()
    np.testing.assert_allclose(got, exact, rtol=4e-7, atol=4e-7)


def test_nothing_that_exp_and_gelu_give_is_subnormal():
    # An Intel processor takes a hundred times as long over each: a mask took half as long again.
    least = np.finfo(np.float32).tiny
    x = np.linspace(-100, 0, 1001, dtype=np.float32)
    assert min(exp(v) for v in x) / 4096 > least  # a share of a softmax
    found = np.abs([gelu(v) for v in x[:-1]])
    assert found[found > 0].min() > least
