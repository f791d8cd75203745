"""How `tiny` starts: cells that pass the encoder, and a neck that knows them."""

from dataclasses import replace

import numpy as np
import pytest
import speck
import torch
from torch.nn import functional as F

from alps.engine.sam import Sam
from alps.trainer.tiny import train
from alps.trainer.tiny.cells import (
    CELLS,
    carried_cells,
    carry_cells,
    cell_basis,
)
from alps.trainer.tiny.pool import Pool

pytestmark = pytest.mark.usefixtures("one_thread")

# As wide as `tiny` beside its number of cells: directions to spare, and room for all 48.
CONFIG = replace(
    speck.CONFIG, encoder_width=160, encoder_depth=2, embedding_channels=128, decoder_heads=4
)


def some_images(count=6, size=128, seed=0):
    """Smooth noise with edges, (count, size, size, 3) uint8."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, size // 16, size // 16, generator=generator)
    fine = torch.rand(count, 3, size // 4, size // 4, generator=generator)
    mixed = 0.7 * F.interpolate(coarse, size=size) + 0.3 * F.interpolate(fine, size=size)
    return (255 * mixed).byte().permute(0, 2, 3, 1).contiguous().numpy()


def fresh_model():
    """Random weights, with tokens that differ from place to place."""
    torch.manual_seed(1)
    model = Sam(CONFIG)
    with torch.no_grad():
        rows, axes = torch.linspace(-1, 1, 8), torch.randn(2, 160) * 0.3
        place = rows[:, None, None] * axes[0] + rows[None, :, None] * axes[1]
        model.image_encoder.pos_embed.copy_(place)
    return model


def pixels_of(model, images):
    return model.normalise(torch.from_numpy(images).permute(0, 3, 1, 2))


def test_the_basis_holds_what_cells_say():
    """All 48 coefficients give back the mean colours of a patch's cells."""
    basis = cell_basis(16, 48).flatten(1)
    patches = torch.rand(20, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    cells = F.avg_pool2d(patches, 16 // CELLS)
    small = cell_basis(CELLS, 48).flatten(1)  # of the cells themselves
    coefficients = patches.flatten(1) @ basis.T
    torch.testing.assert_close(coefficients, cells.flatten(1) @ small.T, rtol=1e-4, atol=1e-5)
    back = torch.linalg.solve(small, coefficients.T).T
    torch.testing.assert_close(back.view_as(cells), cells, rtol=1e-3, atol=1e-4)


def test_the_first_coefficients_are_means():
    basis = cell_basis(16, 48)
    grey = torch.ones(3, 16, 16)
    answer = (basis * grey).sum((1, 2, 3))
    assert answer[0] > 0.1 and answer[1:].abs().max() < 1e-5
    assert len(cell_basis(16, 6)) == 6 and carried_cells(16) == 6 and carried_cells(256) == 48


def test_cells_reach_the_neck_unchanged():
    model = fresh_model()
    directions = carry_cells(model, pixels_of(model, some_images()))
    assert directions.shape == (48, 160)
    torch.testing.assert_close(directions @ directions.T, torch.eye(48), rtol=0, atol=1e-4)
    pixels = pixels_of(model, some_images(seed=5))  # others
    with torch.no_grad():
        read = model.image_encoder.tokens(pixels) @ directions.T
    cells = F.conv2d(pixels, cell_basis(16, 48), stride=16).permute(0, 2, 3, 1)
    read, cells = read.flatten(0, 2), cells.flatten(0, 2)
    for column in range(48):
        both = torch.stack([read[:, column], cells[:, column]])
        assert torch.corrcoef(both)[0, 1] > 0.9999


def test_the_blocks_say_nearly_what_they_said():
    """Where tokens of real images leave directions free, as pre-trained ones do."""
    model = fresh_model()
    with torch.no_grad():  # all that is written lies in 100 of 160 directions
        free = torch.linalg.qr(torch.randn(160, 160))[0][:, :100]
        into = free @ free.T
        encoder = model.image_encoder
        encoder.patch_embed.proj.weight.copy_(
            (into @ encoder.patch_embed.proj.weight.flatten(1)).view(160, 3, 16, 16)
        )
        encoder.patch_embed.proj.bias.copy_(into @ encoder.patch_embed.proj.bias)
        encoder.pos_embed.copy_(encoder.pos_embed @ into)
        for block in encoder.blocks:
            for layer in (block.attn.proj, block.mlp.lin2):
                layer.weight.copy_(into @ layer.weight)
                layer.bias.copy_(into @ layer.bias)
    pixels = pixels_of(model, some_images())
    with torch.no_grad():
        before = model.image_encoder.tokens(pixels)
        directions = carry_cells(model, pixels)
        after = model.image_encoder.tokens(pixels)
    keep = torch.eye(160) - directions.T @ directions
    alike = F.cosine_similarity((before @ keep).flatten(0, 2), (after @ keep).flatten(0, 2))
    assert alike.mean() > 0.98


def started(images):
    model = fresh_model()
    directions = carry_cells(model, pixels_of(model, images))
    pool = Pool(images, np.ones((len(images), 3, 64, 64), np.uint16))
    train.initialise(model, pool, directions, seed=0)
    with torch.no_grad():
        return model, directions, model.image_encoder.tokens(pixels_of(model, images)).flatten(1, 2)


def test_the_neck_starts_without_place_and_with_cells():
    images = some_images(count=24)
    model, directions, tokens = started(images)
    with torch.no_grad():
        reduced = model.image_encoder.neck[0](tokens.transpose(1, 2).unflatten(2, (8, 8)))
    assert torch.isfinite(reduced).all()
    reduced = reduced.flatten(2).transpose(1, 2)
    placed = reduced.mean(0).var(0).sum() / reduced.flatten(0, 1).var(0).sum()
    plain = tokens.mean(0).var(0).sum() / tokens.flatten(0, 1).var(0).sum()
    assert placed < 0.7 * plain
    read = tokens @ directions.T
    ours = reduced[..., -48:]
    torch.testing.assert_close(ours / ours.std(), read / read.std(), rtol=1e-3, atol=1e-3)


def test_tokens_are_centred_at_the_start():
    _, _, tokens = started(some_images(count=24))
    assert tokens.mean((0, 1)).abs().max() < 0.05 * tokens.std()
