"""Hiera (arXiv 2306.00989), SAM 2's image encoder: stages of windowed attention on coarser grids.

The first block of a later stage pools its queries 2 x 2, which halves the grid; a few blocks of
the third stage attend globally. Positions are a small grid stretched over the image plus a tile
the size of a window (arXiv 2311.05613).
"""

from collections.abc import Callable
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from alps.engine.sam.image_encoder import join_windows, split_windows
from alps.engine.sam.layers import TwoLayerMLP, modules
from alps.engine.sam2.config import Sam2Config

POOL = 2  # a stage's grid over the next one's
FIRST_STRIDE = 4  # pixels a token of the first stage

# query (B, heads, L, d), key and value (B, heads, P, d) -> (B, heads, L, d)
Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


class Hiera(nn.Module):
    """Pixels (B, 3, S, S), normalised -> the tokens that each stage ends with."""

    def __init__(self, config: Sam2Config) -> None:
        super().__init__()
        width, window = config.encoder_width, config.window_sizes[0]
        self.patch_embed = PatchEmbedding(width)
        self.pos_embed = nn.Parameter(torch.zeros(1, width, *[config.position_size] * 2))
        self.pos_embed_window = nn.Parameter(torch.zeros(1, width, window, window))
        blocks: list[HieraBlock] = []
        for stage, count in enumerate(config.stage_blocks):
            for place in range(count):
                enters = stage > 0 and place == 0  # with the grid and the windows of the last one
                index = len(blocks)
                own = config.window_sizes[stage - enters]
                blocks.append(
                    HieraBlock(
                        config.stage_widths[stage - enters],
                        config.stage_widths[stage],
                        config.encoder_heads << stage,
                        window=0 if index in config.global_blocks else own,
                        pools=enters,
                    )
                )
        self.blocks = modules(blocks)
        self.stage_ends = [end - 1 for end in accumulate(config.stage_blocks)]

    def forward(self, pixels: Tensor, attend: Attention | None = None) -> list[Tensor]:
        """Tokens (B, h, w, width) of every stage, the finest first."""
        tokens = self.patch_embed(pixels)
        tokens = tokens + self.positions(tokens.shape[1], tokens.shape[2])
        stages = []
        for index, block in enumerate(self.blocks):
            tokens = block(tokens, attend)
            if index in self.stage_ends:
                stages.append(tokens)
        return stages

    def positions(self, height: int, width: int) -> Tensor:
        """What is added to the first stage's tokens, (1, h, w, width)."""
        whole = F.interpolate(self.pos_embed, size=(height, width), mode="bicubic")
        window = self.pos_embed_window
        repeats = height // window.shape[2], width // window.shape[3]
        return (whole + window.repeat(1, 1, *repeats)).permute(0, 2, 3, 1)


class PatchEmbedding(nn.Module):
    """Overlapping patches, one token every four pixels: (B, 3, S, S) -> (B, h, w, width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, 7, stride=FIRST_STRIDE, padding=3)

    def forward(self, pixels: Tensor) -> Tensor:
        """Embed the patches."""
        return self.proj(pixels).permute(0, 2, 3, 1)


class HieraBlock(nn.Module):
    """Pre-norm transformer block in windows of ``window`` (0: global), that may halve the grid."""

    def __init__(self, width: int, out: int, heads: int, *, window: int, pools: bool) -> None:
        super().__init__()
        self.window, self.pools = window, pools
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = PooledAttention(width, out, heads, pools)
        self.norm2 = nn.LayerNorm(out, eps=1e-6)
        self.mlp = TwoLayerMLP(out, 4 * out, nn.GELU)
        if pools:
            self.proj = nn.Linear(width, out)

    def forward(self, tokens: Tensor, attend: Attention | None = None) -> Tensor:
        """(B, h, w, width) -> (B, h, w, out), or half as many rows and columns."""
        normed = self.norm1(tokens)
        if self.pools:
            tokens = pooled(self.proj(normed))
        if self.window:
            windows, (rows, columns) = split_windows(normed, self.window)
            attended = self.attn(windows, attend)
            if self.pools:
                rows, columns = rows // POOL, columns // POOL
            attended = join_windows(attended, (rows, columns), tokens.shape[1:3])
        else:
            attended = self.attn(normed, attend)
        tokens = tokens + attended
        return tokens + self.mlp(self.norm2(tokens))


class PooledAttention(nn.Module):
    """Multi-head attention over a grid whose queries may be pooled first."""

    def __init__(self, width: int, out: int, heads: int, pools: bool) -> None:
        super().__init__()
        self.heads, self.pools = heads, pools
        self.qkv = nn.Linear(width, 3 * out)
        self.proj = nn.Linear(out, out)

    def forward(self, tokens: Tensor, attend: Attention | None = None) -> Tensor:
        """(B, h, w, width) -> (B, h, w, out), or half as many rows and columns."""
        query, key, value = self.qkv(tokens).chunk(3, dim=-1)
        if self.pools:
            query = pooled(query)
        heads = [part.flatten(1, 2).unflatten(2, (self.heads, -1)).transpose(1, 2)
                 for part in (query, key, value)]  # fmt: skip
        out = (attend or F.scaled_dot_product_attention)(*heads)
        return self.proj(out.transpose(1, 2).reshape(query.shape))


def pooled(tokens: Tensor) -> Tensor:
    """The greatest of each 2 x 2 tokens, channel by channel: (B, h, w, C) -> (B, h/2, w/2, C)."""
    return F.max_pool2d(tokens.permute(0, 3, 1, 2), POOL).permute(0, 2, 3, 1)
