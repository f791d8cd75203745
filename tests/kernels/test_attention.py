"""Attention over a grid: PyTorch's forms, the compiled kernel, and the definition."""

import numpy as np
import pytest
import torch

from alps.engine.sam import image_encoder
from alps.engine.sam.image_encoder import (
    GridAttention,
    attend_folded,
    attend_with_positions,
    join_windows,
    split_windows,
)
from alps.kernels.base.threads import set_threads
from alps.kernels.encoder.attention import grid_attention

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
@pytest.mark.parametrize("attend", [attend_with_positions, attend_folded])
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


def layer_of(heads, width, window):
    """An attention layer with random weights, positions among them, in float64."""
    torch.manual_seed(window)
    layer = GridAttention(heads * width, heads, window, relative_positions=True).double()
    for table in (layer.rel_pos_h, layer.rel_pos_w):
        torch.nn.init.normal_(table, std=0.5)
    return layer.requires_grad_(False)


def compiled(layer, tokens, window):
    """What the layer gives in windows, its attention by the kernel, in float32."""
    layer = layer.float()
    shape = (*tokens.shape[:3], 3, layer.heads, -1)
    qkv = (tokens.float() @ layer.qkv.weight.T).view(shape).numpy()
    bias = layer.qkv.bias.view(3, layer.heads, -1).numpy()
    tables = layer.rel_pos_h.numpy(), layer.rel_pos_w.numpy()
    attended = grid_attention(qkv, bias, *tables, (window, window))
    return layer.proj(torch.from_numpy(attended).flatten(3))


# tokens of a grid, a window's side: they fit; they reach over the end, by more than a token; one
# window, larger than the grid; more queries than are laid out at once; a token.
WINDOWED = [((6, 9), 3), ((10, 12), 7), ((5, 4), 8), ((40, 38), 40), ((1, 1), 1)]


@pytest.mark.parametrize(("grid", "window"), WINDOWED)
def test_kernel_is_the_layer_in_its_windows(grid, window):
    layer = layer_of(3, 8, window)
    tokens = torch.randn(2, *grid, 24, generator=torch.Generator().manual_seed(1)).double()
    windows, padded = split_windows(tokens, window)
    wanted = join_windows(layer(windows), padded, grid)
    torch.testing.assert_close(
        compiled(layer, tokens, window).double(), wanted, atol=3e-6, rtol=1e-5
    )


def test_kernel_with_large_logits_overflows_nowhere():
    layer = layer_of(2, 8, 20)
    tokens = 30 * torch.randn(1, 20, 20, 16, generator=torch.Generator().manual_seed(2)).double()
    wanted = layer(tokens)
    got = compiled(layer, tokens, 20)
    assert np.isfinite(got.numpy()).all()
    torch.testing.assert_close(got.double(), wanted, atol=2e-2, rtol=1e-3)


def test_kernel_gives_the_same_bits_on_any_number_of_threads():
    generator = torch.Generator().manual_seed(3)
    qkv = torch.randn(1, 40, 40, 3, 2, 8, generator=generator).numpy()  # two pieces a head
    bias = np.zeros((3, 2, 8), np.float32)
    tables = torch.randn(2, 79, 8, generator=generator).numpy()
    found = []
    try:
        for number in (1, 3):
            set_threads(number)
            found.append(grid_attention(qkv, bias, *tables, (40, 40)))
    finally:
        set_threads(None)
    np.testing.assert_array_equal(*found)
