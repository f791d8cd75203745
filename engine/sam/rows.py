"""What the decoder's kernels for GPUs meet: rows of points, tables of a model, in a product's form.

``alps.kernels.decoder.gpu`` has the kernels. Everything that does not depend on the pixel is done
here, so that a pixel costs nothing but products, exponentials and norms. Exact, but for rounding:

- Norms lose their weight w and bias b to what their result meets: rows · (x w + b + e) =
  (rows w) · (x + e / w) + rows · b. Where a weight is so small that e / w would drown x, the norm
  keeps both.
- Softmax over a head's tokens adds up to 1: what is added to the update at the end (bias of the
  output, b of the norm before) is added to each value row, one of H-th of it to each head's.
- Layer norm does not see a mean: the image and the first layer's value rows come without theirs.
- Softmax is to the base of 2: log2(e) goes where d^-1/2 goes.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from alps.engine.sam.mask_decoder import Attention
from alps.kernels.decoder.gpu import transform

HEAD_ROWS: int = transform.HEAD_ROWS.value  # of one head: up to so many tokens

LEAST_WEIGHT = 2.0**-10  # of a norm, of its greatest: below it is not divided by

# Operands of products by halves are scaled to 2^15 at most.
_MOST = 15
_LEAST = -30  # smaller ones are not scaled further, lest squares of sums at their scale overflow


@dataclass(frozen=True)
class Form:
    """How operands of products are kept."""

    dtype: torch.dtype  # of what is not a pair
    exact: bool

    def table(self, values: Tensor, scale: float) -> Tensor:
        """Values (…, R, c) with a given scale -> (…, (2) R, c)."""
        if not self.exact:
            return values.to(self.dtype)
        return _pair(values.float() * scale)

    def rows(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Float32 values (N, R, c) -> (N, (2) R, c), scaled, and what takes that away, (N,)."""
        if not self.exact:
            return values.to(self.dtype), values.new_ones(len(values), dtype=torch.float32)
        values = values.float()
        exponent = torch.frexp(values.abs().amax((1, 2))).exponent.clamp(min=_LEAST)
        scale = torch.ldexp(torch.ones_like(values[:, 0, 0]), _MOST - exponent)
        return _pair(values * scale[:, None, None]), 1 / scale


def _pair(values: Tensor) -> Tensor:
    """(…, R, c) -> (…, 2 R, c): the nearest float16, and behind them what is missing."""
    high = values.half()
    return torch.cat([high, (values - high).half()], dim=-2)


def power_below(bound: float) -> float:
    """The power of 2 that takes values of at most this to at most 2^15."""
    return 2.0 ** (_MOST - math.frexp(bound)[1])


@dataclass(frozen=True)
class Folding:
    """A layer norm of image tokens whose weight and bias others may take care of."""

    weight: Tensor  # (C,) float32
    bias: Tensor
    epsilon: float
    folded: bool

    @staticmethod
    def of(norm: nn.LayerNorm) -> "Folding":
        """Whether its weights let it."""
        weight, bias = norm.weight.detach().float(), norm.bias.detach().float()
        size = weight.abs()
        return Folding(weight, bias, norm.eps, bool(size.min() >= LEAST_WEIGHT * size.max()))

    def bound(self) -> float:
        """What no value that the norm leaves is greater than; a channel has sqrt(C) at most."""
        most = len(self.weight) ** 0.5
        if self.folded:
            return most
        return float((most * self.weight.abs() + self.bias.abs()).max())

    def places(self, positions: Tensor) -> Tensor:
        """Positional encodings (P, C) as they are added to what the norm leaves."""
        return positions / self.weight if self.folded else positions

    def rows(self, rows: Tensor) -> Tensor:
        """Rows (…, C) that are to meet the norm's result, for what it leaves."""
        return rows * self.weight if self.folded else rows

    def constant(self, rows: Tensor) -> Tensor | float:
        """What the norm's bias adds to each product with these rows (…, C): (…,)."""
        return rows @ self.bias if self.folded else 0.0

    def whole(self, means: Tensor) -> Tensor:
        """Means (…, C) of what the norm leaves -> of its result."""
        return means * self.weight + self.bias if self.folded else means


def by_head(tokens: Tensor, heads: int) -> Tensor:
    """(…, L, H·d) -> (…, H, L, d)."""
    return tokens.unflatten(-1, (heads, -1)).transpose(-2, -3)


def own_columns(rows: Tensor) -> Tensor:
    """Rows (N, H, T, d), each in the columns of its head: (N, H · 8, H · d)."""
    count, heads, tokens, width = rows.shape
    out = rows.new_zeros(count, heads, HEAD_ROWS, heads, width)
    out[:, :, :tokens].diagonal(dim1=1, dim2=3).copy_(rows.permute(0, 2, 3, 1))
    return out.flatten(3).flatten(1, 2)


def padded(rows: Tensor, value: float = 0.0) -> Tensor:
    """Rows of heads (N, H, T, …), T up to 8, with padding: (N, H · 8, …)."""
    missing = HEAD_ROWS - rows.shape[2]
    pad = [0, 0] * (rows.ndim - 3) + [0, missing]
    return nn.functional.pad(rows, pad, value=value).flatten(1, 2)


def scaled_heads(projection: nn.Linear, tokens: Tensor, heads: int) -> Tensor:
    """Queries or keys (N, H, T, d) of (N, T, C), scaled for softmax to the base of 2, float32."""
    own = by_head(projection(tokens), heads).float()
    return own * (own.shape[-1] ** -0.5 * math.log2(math.e))


def without_mean(keys: Tensor) -> Tensor:
    """Keys (N, H, T, d) less their mean over T, which softmax does not see: they round less."""
    return keys - keys.mean(2, keepdim=True)


def absorbed(own: Tensor, projection: nn.Linear) -> Tensor:
    """(N, H, T, d) times each head's part of a projection's weight (H · d, C): (N, H, T, C)."""
    return (own @ projection.weight.unflatten(0, (own.shape[1], -1))).float()


def value_rows(mark: Attention, tokens: Tensor) -> Tensor:
    """Image to tokens: (N, H, T, C) float32, whose weighted sum is the attention's output."""
    value = by_head(mark.v_proj(tokens), mark.heads)
    weight = mark.out_proj.weight.unflatten(1, (mark.heads, -1)).permute(1, 2, 0)  # (H, d, C)
    return (value @ weight).float() + mark.out_proj.bias / mark.heads


def blocks_of_masks(hyper: Tensor) -> Tensor:
    """Vectors (N, C2, M) -> (N, 4 · C2, 16): a block a place, column 4 x place + mask."""
    count, width, masks = hyper.shape
    out: Any = hyper.new_zeros(count, 4, width, 4, 4)
    for place in range(4):
        out[:, place, :, place, :masks] = hyper
    return out.flatten(3).flatten(1, 2)
