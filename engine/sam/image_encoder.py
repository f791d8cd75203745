"""SAM's image encoder: a ViT with windowed and global attention and a convolutional neck."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from alps.engine.sam.config import SamConfig
from alps.engine.sam.layers import LayerNorm2d, TwoLayerMLP, modules

# What offsets of attention logits may take at a time; on a CPU a part of the last-level cache.
_OFFSET_BYTES = {"cpu": 16 << 20}
_OFFSET_BYTES_ELSEWHERE = 1 << 30


class ImageEncoder(nn.Module):
    """Pixels (B, 3, S, S), normalised -> image embedding (B, C, S / patch, S / patch)."""

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        side, width, out = config.embedding_size, config.encoder_width, config.embedding_channels
        self.patch_embed = PatchEmbedding(config.patch_size, width)
        self.pos_embed = nn.Parameter(torch.zeros(1, side, side, width))
        self.blocks = modules(
            Block(
                width,
                config.encoder_heads,
                window=0 if index in config.global_blocks else config.window_size,
                grid=side,
                relative_positions=config.relative_positions,
            )
            for index in range(config.encoder_depth)
        )
        self.neck = nn.Sequential(
            nn.Conv2d(width, out, 1, bias=False),
            LayerNorm2d(out),
            nn.Conv2d(out, out, 3, padding=1, bias=False),
            LayerNorm2d(out),
        )

    def tokens(
        self,
        pixels: Tensor,
        attend: "Attend | None" = None,
        attend_in_windows: "Attend | None" = None,
    ) -> Tensor:
        """Pixels (B, 3, S, S) -> tokens before the neck (B, h, w, width)."""
        tokens = self.patch_embed(pixels) + self.pos_embed
        for block in self.blocks:
            tokens = block(tokens, attend_in_windows if block.window else attend)
        return tokens

    def forward(
        self,
        pixels: Tensor,
        attend: "Attend | None" = None,
        attend_in_windows: "Attend | None" = None,
    ) -> Tensor:
        """Pixels (B, 3, S, S) -> embedding (B, C, h, w).

        ``attend`` takes the place of ``attend_with_positions`` in blocks without windows,
        ``attend_in_windows`` in the others.
        """
        return self.neck(self.tokens(pixels, attend, attend_in_windows).permute(0, 3, 1, 2))


class PatchEmbedding(nn.Module):
    """One token a patch, (B, 3, S, S) -> (B, h, w, width)."""

    def __init__(self, patch_size: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch_size, stride=patch_size)

    def forward(self, pixels: Tensor) -> Tensor:
        """Embed the patches."""
        return self.proj(pixels).permute(0, 2, 3, 1)


class Block(nn.Module):
    """Pre-norm transformer block on a grid of tokens, in windows of ``window`` (0: global)."""

    def __init__(
        self, width: int, heads: int, *, window: int, grid: int, relative_positions: bool
    ) -> None:
        super().__init__()
        self.window = window
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = GridAttention(width, heads, window or grid, relative_positions)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = TwoLayerMLP(width, 4 * width, nn.GELU)

    def forward(self, tokens: Tensor, attend: "Attend | None" = None) -> Tensor:
        """(B, h, w, width) -> (B, h, w, width)."""
        normed = self.norm1(tokens)
        if self.window:
            windows, padded = split_windows(normed, self.window)
            attended = join_windows(self.attn(windows, attend), padded, tokens.shape[1:3])
        else:
            attended = self.attn(normed, attend)
        tokens = tokens + attended
        return tokens + self.mlp(self.norm2(tokens))


class GridAttention(nn.Module):
    """Multi-head attention over a grid, with decomposed relative positions (arXiv 2112.01526)."""

    def __init__(self, width: int, heads: int, side: int, relative_positions: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.relative_positions = relative_positions
        if relative_positions:
            self.rel_pos_h = nn.Parameter(torch.zeros(2 * side - 1, width // heads))
            self.rel_pos_w = nn.Parameter(torch.zeros(2 * side - 1, width // heads))

    def forward(self, tokens: Tensor, attend: "Attend | None" = None) -> Tensor:
        """(B, h, w, width) -> (B, h, w, width)."""
        batch, height, width, channels = tokens.shape
        qkv = self.qkv(tokens).reshape(batch, height * width, 3, self.heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, h·w, d)
        if self.relative_positions:
            rows = self.rel_pos_h[_offsets(height, query.device)]  # (h, h, d)
            columns = self.rel_pos_w[_offsets(width, query.device)]  # (w, w, d)
            grid = query.unflatten(2, (height, width))
            # They multiply the unscaled query; only query · key is divided by sqrt(d).
            by_row = torch.einsum("bnhwd,hkd->bnhwk", grid, rows).flatten(2, 3)
            by_column = torch.einsum("bnhwd,wkd->bnhwk", grid, columns).flatten(2, 3)
            out = (attend or attend_with_positions)(query, key, value, by_row, by_column)
        else:
            out = F.scaled_dot_product_attention(query, key, value)
        return self.proj(out.transpose(1, 2).reshape(batch, height, width, channels))


# query, key, value (B, heads, P, d), offsets by row (B, heads, P, h) and by column (B, heads, P, w)
# -> (B, heads, P, d); P = h·w tokens, row by row.
Attend = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def attend_with_positions(
    query: Tensor, key: Tensor, value: Tensor, by_row: Tensor, by_column: Tensor
) -> Tensor:
    """Attention whose logits are offset by rows and columns apart; an ``Attend``.

    The offsets of all pairs, (B, heads, P, P), are made for some heads and queries at a time: a
    global block of an official model would need 0.8 GB of them at once.
    """
    batch, heads, count, _ = query.shape
    affordable = _OFFSET_BYTES.get(query.device.type, _OFFSET_BYTES_ELSEWHERE)
    of_a_query = batch * count * query.element_size()
    heads_at_once = max(1, min(heads, affordable // (of_a_query * count)))
    queries = count if heads_at_once > 1 else max(1, min(count, affordable // of_a_query))
    parts = []
    for head in range(0, heads, heads_at_once):
        own = slice(head, head + heads_at_once)
        some = []
        for first in range(0, count, queries):
            asked = slice(first, first + queries)
            offsets = by_row[:, own, asked, :, None] + by_column[:, own, asked, None, :]
            some.append(
                F.scaled_dot_product_attention(
                    query[:, own, asked], key[:, own], value[:, own], attn_mask=offsets.flatten(3)
                )
            )
        parts.append(torch.cat(some, dim=2))
    return torch.cat(parts, dim=1)


def attend_folded(
    query: Tensor, key: Tensor, value: Tensor, by_row: Tensor, by_column: Tensor
) -> Tensor:
    """``attend_with_positions`` as attention without offsets, for which GPUs have fused kernels.

    Offsets are channels of the query, and a key marks its row and its column in them: d + h + w
    channels, so it pays for small grids only. Nothing is rounded that is not without it.
    """
    rows, columns = by_row.shape[-1], by_column.shape[-1]
    width, count = query.shape[-1], query.shape[-2]
    filled = -(width + rows + columns) % 16  # whole pieces of what fused kernels take
    place = torch.arange(count, device=key.device)
    row, column = (
        F.one_hot(which, side).to(key.dtype)
        for which, side in ((place // columns, rows), (place % columns, columns))
    )
    marks = F.pad(torch.cat([row, column], -1), (0, filled)).expand(*key.shape[:-1], -1)
    asked = F.pad(torch.cat([query * width**-0.5, by_row, by_column], -1), (0, filled))
    found = F.scaled_dot_product_attention(
        asked,
        torch.cat([key, marks], -1),
        F.pad(value, (0, rows + columns + filled)),
        scale=1.0,
    )
    return found[..., :width]


def _offsets(side: int, device: torch.device) -> Tensor:
    """Index into a table of 2·side - 1 offsets for each pair of positions, (side, side)."""
    position = torch.arange(side, device=device)
    return position[:, None] - position[None, :] + side - 1


def split_windows(tokens: Tensor, window: int) -> tuple[Tensor, tuple[int, int]]:
    """(B, h, w, C) -> windows (B·n, window, window, C), padded below and right with zeros."""
    batch, height, width, channels = tokens.shape
    below, right = -height % window, -width % window
    tokens = F.pad(tokens, (0, 0, 0, right, 0, below))
    rows, columns = (height + below) // window, (width + right) // window
    grid = tokens.reshape(batch, rows, window, columns, window, channels)
    windows = grid.transpose(2, 3).reshape(-1, window, window, channels)
    return windows, (height + below, width + right)


def join_windows(windows: Tensor, padded: tuple[int, int], size: Sequence[int]) -> Tensor:
    """Undo ``split_windows``: (B·n, window, window, C) -> (B, h, w, C)."""
    window, channels = windows.shape[1], windows.shape[3]
    rows, columns = padded[0] // window, padded[1] // window
    grid = windows.reshape(-1, rows, columns, window, window, channels)
    tokens = grid.transpose(2, 3).reshape(-1, *padded, channels)
    return tokens[:, : size[0], : size[1]]
