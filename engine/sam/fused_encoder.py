"""``ImageEncoder`` as a GPU computes it: weights cast once, what is no product in kernels of ours.

Products take and give the run's type; the residual stream, norms and softmax are float32. The same
numbers as ``ImageEncoder`` gives under PyTorch's autocast, to that type's rounding, without the
casts of all weights at every call and the offsets of all pairs of tokens. Needs Triton.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from alps.engine.sam.image_encoder import Block, ImageEncoder
from alps.engine.sam.layers import LayerNorm2d
from alps.kernels.encoder.gpu.attention import Heads, attend, make_offsets
from alps.kernels.encoder.gpu.forms import Form
from alps.kernels.encoder.gpu.norms import Grid, Order, add_and_norm

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class _Linear:
    """Weight (out, in) and bias (out,) in the run's type."""

    weight: Tensor
    bias: Tensor | None = None

    def __call__(self, tokens: Tensor) -> Tensor:
        return F.linear(tokens, self.weight, self.bias)


@dataclass(frozen=True)
class _Norm:
    """Float32."""

    weight: Tensor
    bias: Tensor
    epsilon: float

    @property
    def parts(self) -> tuple[Tensor, Tensor, float]:
        return self.weight, self.bias, self.epsilon


@dataclass(frozen=True)
class _Block:
    """A block's weights as they are used."""

    window: int
    heads: int
    norm1: _Norm
    qkv: _Linear
    positions: tuple[Tensor, Tensor] | None  # of rows and columns, (2 · side - 1, d)
    proj: _Linear
    norm2: _Norm
    lin1: _Linear
    lin2: _Linear


class FusedEncoder:
    """An ``ImageEncoder``, prepared for a type of products.

    Args:
        encoder: whose weights are copied, on their device.
        precision: fp32, fp16 or bf16.
        emulate: run by Triton's interpreter, which knows no products of bfloat16.
    """

    def __init__(self, encoder: ImageEncoder, precision: str, emulate: bool = False) -> None:
        self.form, self.dtype = Form(precision, emulate), DTYPES[precision]
        with torch.no_grad():
            embedding = encoder.patch_embed.proj
            self.patch_pixels = embedding.kernel_size[0]
            self.embed_patch = self._linear(embedding.weight.flatten(1), embedding.bias)
            self.positions = encoder.pos_embed.detach()[0].flatten(0, 1).float()  # (P, C)
            self.side = encoder.pos_embed.shape[1]
            self.one = self.positions.new_ones(1)
            self.blocks = [self._block(block) for block in encoder.blocks]
            narrow, norm1, mix, norm2 = encoder.neck
            assert isinstance(narrow, nn.Conv2d) and isinstance(norm1, LayerNorm2d)
            assert isinstance(mix, nn.Conv2d) and isinstance(norm2, LayerNorm2d)
            self.narrow = self._linear(narrow.weight.flatten(1))
            self.mix = mix.weight.detach().to(self.dtype, memory_format=torch.channels_last)
            self.norms = self._norm(norm1), self._norm(norm2)

    @staticmethod
    def fits(encoder: nn.Module) -> bool:
        """Whether an encoder is one that this can take the place of."""
        return isinstance(encoder, ImageEncoder) and all(
            not block.attn.relative_positions
            or Heads(1, block.attn.heads, 1, 1, _head_width(block)).fits()
            for block in encoder.blocks
        )

    @property
    def tokens(self) -> int:
        """P, of an image."""
        return self.side**2

    def empty_patches(self, images: int) -> Tensor:
        """Room for what ``embed`` takes."""
        shape = images * self.tokens, 3 * self.patch_pixels**2
        return torch.empty(shape, dtype=self.dtype, device=self.positions.device)

    def patches(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (B, 3, S, S) as what ``embed`` takes."""
        side, size = self.side, self.patch_pixels
        there = pixels.to(self.positions.device)
        cut = there.reshape(-1, 3, side, size, side, size).permute(0, 2, 4, 1, 3, 5)
        return cut.reshape(-1, 3 * size**2).to(self.dtype)

    def embed(self, patches: Tensor) -> Tensor:
        """Patches (B · P, 3 · pixels²) -> embeddings (B, C, h, w) float32."""
        images = len(patches) // self.tokens
        embedded = self.embed_patch(patches).unflatten(0, (images, self.tokens))
        residual = (self.positions + embedded).flatten(0, 1)  # float32
        branch = None
        for block in self.blocks:
            branch = self._through(block, residual, branch, images)
        tokens = residual if branch is None else residual + branch
        image = self.narrow(tokens.to(self.dtype)).unflatten(0, (images, self.side, self.side))
        for number, norm in enumerate(self.norms):
            if number == 1:
                channels_first = image.to(self.dtype).permute(0, 3, 1, 2)
                image = F.conv2d(channels_first, self.mix, padding=1).permute(0, 2, 3, 1)
            image = F.layer_norm(
                image.float(), norm.weight.shape, norm.weight, norm.bias, norm.epsilon
            )
        return image.permute(0, 3, 1, 2).contiguous()

    def _through(
        self, block: _Block, residual: Tensor, branch: Tensor | None, images: int
    ) -> Tensor:
        """Add the branch before to ``residual``, and what attention adds; returns the last one."""
        channels = residual.shape[1]
        grid = Grid(images, self.side, self.side, channels, block.window)
        windowed = block.window > 0
        normed = residual.new_empty((grid.slots, channels), dtype=self.dtype)
        order = Order(grid, to_windows=windowed)
        add_and_norm(residual, branch, block.norm1.parts, normed, order, self.form)
        sides, many = (self.side, images) if not windowed else (block.window, grid.windows)
        heads = Heads(many, block.heads, sides, sides, channels // block.heads)
        attended = block.proj(self._attend(block, block.qkv(normed), heads))
        normed = residual.new_empty((grid.tokens, channels), dtype=self.dtype)
        order = Order(grid, from_windows=windowed)
        add_and_norm(residual, attended, block.norm2.parts, normed, order, self.form)
        return block.lin2(F.gelu(block.lin1(normed)))

    def _attend(self, block: _Block, qkv: Tensor, heads: Heads) -> Tensor:
        """(images · P, 3 · C) -> (images · P, C)."""
        if block.positions is None:
            parts = qkv.reshape(heads.images, heads.tokens, 3, heads.heads, heads.width)
            query, key, value = parts.permute(2, 0, 3, 1, 4)
            found = F.scaled_dot_product_attention(query, key, value)
            return found.transpose(1, 2).reshape(len(qkv), -1)
        many = heads.images * heads.heads
        by_row = qkv.new_empty((many, heads.rows, heads.tokens), dtype=torch.float32)
        by_column = qkv.new_empty((many, heads.tokens, heads.columns), dtype=torch.float32)
        make_offsets(qkv, *block.positions, by_row, by_column, heads, self.form)
        out = qkv.new_empty((len(qkv), heads.heads * heads.width))
        scale = self._scale_of(qkv)
        attend(qkv, (by_row, by_column), scale, out, heads, self.form)
        return out

    def _scale_of(self, qkv: Tensor) -> Tensor:
        """What takes float32 to where float16's halves hold most of it, a power of 2, (1,)."""
        if not self.form.exact:
            return self.one
        _, exponent = torch.frexp(qkv.abs().amax(keepdim=True).flatten())
        return torch.ldexp(torch.ones_like(exponent, dtype=torch.float32), 15 - exponent)

    def _block(self, block: Block) -> _Block:
        attention = block.attn
        weight, bias = attention.qkv.weight.detach(), attention.qkv.bias.detach()
        positions = None
        if attention.relative_positions:
            # Queries come scaled, logits to base 2; offsets multiply the unscaled query.
            root = math.sqrt(_head_width(block))
            scale = torch.ones(len(bias), device=bias.device)
            scale[: len(bias) // 3] = math.log2(math.e) / root
            weight, bias = weight.float() * scale[:, None], bias.float() * scale
            positions = (
                (attention.rel_pos_h.detach().float() * root).to(self.dtype),
                (attention.rel_pos_w.detach().float() * root).to(self.dtype),
            )
        return _Block(
            window=block.window,
            heads=attention.heads,
            norm1=self._norm(block.norm1),
            qkv=self._linear(weight, bias),
            positions=positions,
            proj=self._linear(attention.proj.weight, attention.proj.bias),
            norm2=self._norm(block.norm2),
            lin1=self._linear(block.mlp.lin1.weight, block.mlp.lin1.bias),
            lin2=self._linear(block.mlp.lin2.weight, block.mlp.lin2.bias),
        )

    def _linear(self, weight: Tensor, bias: Tensor | None = None) -> _Linear:
        own = weight.detach().to(self.dtype).contiguous()
        return _Linear(own, None if bias is None else bias.detach().to(self.dtype))

    def _norm(self, norm: nn.LayerNorm | LayerNorm2d) -> _Norm:
        return _Norm(norm.weight.detach().float(), norm.bias.detach().float(), norm.eps)


def _head_width(block: Block) -> int:
    return block.attn.qkv.in_features // block.attn.heads
