"""Attention over a grid: the compiled kernel, PyTorch's forms, and the definition."""

import numpy as np
import pytest
import torch

from alps.engine.sam import image_encoder
from alps.engine.sam.image_encoder import attend_compiled, attend_folded, attend_with_positions

# within one block of queries and keys; beyond both; a single token; long and thin
GRIDS = [(5, 9), (40, 33), (1, 1), (3, 700)]


def drawn(grid, heads=3, batch=2, width=8, scale=1.0):
    generator = torch.Generator().manual_seed(grid[1])
    count = grid[0] * grid[1]
    shapes = [(count, width)] * 3 + [(count, grid[0]), (count, grid[1])]
    return [scale * torch.randn(batch, heads, *shape, generator=generator) for shape in shapes]


def by_definition(query, key, value, by_row, by_column):
    query, key, value, by_row, by_column = (
        x.double() for x in (query, key, value, by_row, by_column)
    )
    logits = query @ key.mT / query.shape[-1] ** 0.5
    logits = logits + (by_row[..., :, None] + by_column[..., None, :]).flatten(3)
    return logits.softmax(-1) @ value


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("attend", [attend_compiled, attend_with_positions, attend_folded])
def test_attention_is_what_it_is_defined_as(grid, attend):
    inputs = drawn(grid)
    torch.testing.assert_close(attend(*inputs).double(), by_definition(*inputs), atol=3e-6, rtol=0)


@pytest.mark.parametrize("budget", [1, 40_000, 1 << 30])
def test_offsets_made_piece_by_piece_change_nothing(monkeypatch, budget):
    inputs = drawn((9, 12))
    monkeypatch.setattr(image_encoder, "_OFFSET_BYTES", {"cpu": budget})
    torch.testing.assert_close(
        attend_with_positions(*inputs).double(), by_definition(*inputs), atol=3e-6, rtol=0
    )


def test_large_logits_overflow_nowhere():
    inputs = drawn((20, 30), scale=40.0)
    got = attend_compiled(*inputs)
    assert np.isfinite(got.numpy()).all()
    torch.testing.assert_close(got.double(), by_definition(*inputs), atol=2e-2, rtol=1e-3)
