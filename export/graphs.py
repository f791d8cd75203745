"""What is exported: SAM as four graphs, parted where the engine decides between them.

    encoder    pixels (B, 3, S, S)                              -> embedding (B, C, h, w)
    share      embedding (C, h, w)                              -> tokens, keys, values, queries
    transform  tokens, keys, values, queries, points (N, 2)     -> mask_tokens, image_tokens,
                                                                   predicted_iou
    masks      image_tokens (U, P, C), mask_tokens (U, M, C)    -> logits (U, M, 4h, 4w)

``share`` runs once a tile. Predicted IoU stands between ``transform`` and ``masks``: only points
with a mask that passes are upscaled. The decoder is the absorbed one (``engine.sam.absorbed``).
B, N and U are dynamic, all else is fixed. pixels, embedding, points, predicted_iou and logits are
float32 in every precision; what one graph of the decoder hands to the next is in the model's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from alps.engine.sam import Sam, SamConfig
from alps.engine.sam.absorbed import AbsorbedDecoder, SharedImage
from alps.engine.sam.config import NetworkConfig
from alps.engine.sam.image_encoder import Attend
from alps.engine.sam.layers import LayerNorm2d
from alps.engine.sam.model import Network, SamLike
from alps.export.precision import (
    DTYPES,
    Products,
    attention,
    with_weights_in,
)

PARTS = ("encoder", "share", "transform", "masks")

EXAMPLES = 2  # images, points and prompts that a graph is traced with; one would be fixed

# Offsets of so many pairs of tokens, over all heads, are alive at a time: 128 MB in float32.
_PAIRS_AT_ONCE = 32 << 20


@dataclass(frozen=True)
class Graph:
    """One graph: the module to trace, and what goes in and out."""

    name: str
    module: nn.Module
    example: Mapping[str, Tensor]  # inputs by name, in order
    outputs: tuple[str, ...]
    dynamic: Mapping[str, str]  # input -> what its axis counts; the others are fixed
    axis: int = 0  # which of those inputs' is dynamic


def graphs_of(sam: SamLike, precision: str) -> list[Graph]:
    """The four graphs of a network, as ``PARTS`` orders them.

    precision: fp32, bf16 or fp16, of products; see ``precision``.
    """
    dtype, config = DTYPES[precision], sam.config
    changed = with_weights_in(sam, dtype).eval()
    decoder = AbsorbedDecoder(changed, compiled=False)
    side, channels = config.embedding_size, config.embedding_channels
    shared, decoded = shared_example(config, dtype), decoded_example(config, dtype)
    image = {"pixels": torch.zeros(EXAMPLES, 3, config.image_size, config.image_size)}
    embedding = {"embedding": torch.zeros(channels, side, side)}
    return [
        Graph("encoder", Encode(changed, dtype), image, ("embedding",), {"pixels": "batch"}),
        Graph("share", Share(decoder, dtype), embedding, tuple(shared), {}),
        Graph(
            "transform",
            Transform(decoder, dtype),
            shared | {"points": torch.zeros(EXAMPLES, 2)},
            ("mask_tokens", "image_tokens", "predicted_iou"),
            {"points": "points"},
        ),
        Graph(
            "masks",
            Masks(changed, dtype),
            decoded,
            ("logits",),
            dict.fromkeys(decoded, "prompts"),
        ),
    ]


def shared_example(config: NetworkConfig, dtype: torch.dtype) -> dict[str, Tensor]:
    """What ``share`` gives to ``transform``."""
    channels, heads = config.embedding_channels, config.decoder_heads
    pixels, width = config.embedding_size**2, channels // 2 // heads
    return {
        "tokens": torch.zeros(pixels, channels, dtype=dtype),
        "keys": torch.zeros(heads, pixels, width, dtype=dtype),
        "values": torch.zeros(heads, pixels, width, dtype=dtype),
        "queries": torch.zeros(heads * width, pixels, dtype=dtype),
    }


def decoded_example(config: NetworkConfig, dtype: torch.dtype) -> dict[str, Tensor]:
    """What ``transform`` gives to ``masks``."""
    channels, pixels = config.embedding_channels, config.embedding_size**2
    return {
        "image_tokens": torch.zeros(EXAMPLES, pixels, channels, dtype=dtype),
        "mask_tokens": torch.zeros(EXAMPLES, config.multimask_outputs, channels, dtype=dtype),
    }


class Encode(nn.Module):
    """pixels -> embedding."""

    def __init__(self, sam: SamLike, dtype: torch.dtype) -> None:
        super().__init__()
        self.encoder, self.dtype = sam.image_encoder, dtype
        self.attends = (attend_in_parts(sam.config), attend_at_once) if isinstance(sam, Sam) else ()

    def forward(self, pixels: Tensor) -> Tensor:
        """As ``Sam.encode``."""
        with Products(self.dtype):
            return self.encoder(pixels, *self.attends).float()


class Share(nn.Module):
    """embedding -> tokens, keys, values, queries."""

    def __init__(self, decoder: AbsorbedDecoder, dtype: torch.dtype) -> None:
        super().__init__()
        self.decoder, self.dtype = decoder, dtype
        self.parts = nn.ModuleList([decoder.decoder, decoder.prompts])

    def forward(self, embedding: Tensor) -> tuple[Tensor, ...]:
        """As ``AbsorbedDecoder.share``; positions are constants of ``transform``."""
        with Products(self.dtype):
            image = self.decoder.share(embedding)
        found = (image.tokens, image.keys, image.values, image.queries)
        return tuple(tensor.to(self.dtype) for tensor in found)


class Transform(nn.Module):
    """tokens, keys, values, queries, points -> mask_tokens, image_tokens, predicted_iou."""

    positions: Tensor  # (P, C)

    def __init__(self, decoder: AbsorbedDecoder, dtype: torch.dtype) -> None:
        super().__init__()
        self.decoder, self.dtype = decoder, dtype
        self.parts = nn.ModuleList([decoder.decoder, decoder.prompts])
        with torch.no_grad():
            positions = decoder.prompts.dense_positions().flatten(1).T.contiguous()
        self.register_buffer("positions", positions.to(dtype))

    def forward(
        self, tokens: Tensor, keys: Tensor, values: Tensor, queries: Tensor, points: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As ``AbsorbedDecoder.transform``; of the outputs the single mask is left out."""
        image = SharedImage(tokens, self.positions, keys, values, queries)
        with Products(self.dtype):
            found = self.decoder.transform(image, points)
        return (
            found.mask_tokens.to(self.dtype),
            found.image_tokens.to(self.dtype),
            found.predicted_iou.float(),
        )


class Upscaling(nn.Module):
    """From image tokens and mask tokens to logits of all masks of these prompts.

    The transposed convolutions are products: kernels of 2 x 2 with stride 2 do not overlap.
    """

    norm: LayerNorm2d
    first: Tensor  # (in, 4 places x out), as ``second``
    first_bias: Tensor
    second: Tensor
    second_bias: Tensor

    def __init__(self, sam: Network, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype, self.side = dtype, sam.config.embedding_size
        layers: Any = sam.mask_decoder.output_upscaling
        first, self.norm, _, second, _ = layers
        self.hyper = sam.mask_decoder.output_hypernetworks_mlps[1:]
        for name, conv in (("first", first), ("second", second)):
            matrix = conv.weight.detach().permute(0, 2, 3, 1).flatten(1).contiguous()
            self.register_buffer(name, matrix)
            self.register_buffer(f"{name}_bias", conv.bias.detach().repeat(4))

    def logits(
        self, image_tokens: Tensor, mask_tokens: Tensor, first_bias: Tensor, second_bias: Tensor
    ) -> Tensor:
        """Logits (U, M, 4h, 4w); biases are added to (U, P, C) and (U, P, 4, C / 2)."""
        side = self.side
        with Products(self.dtype):
            patches = (image_tokens @ self.first + first_bias).unflatten(2, (4, -1))
            normed = F.layer_norm(
                patches, patches.shape[-1:], self.norm.weight, self.norm.bias, self.norm.eps
            )
            patches = F.gelu(normed.to(self.dtype))  # (U, P, 4, C / 4)
            patches = F.gelu(patches @ self.second + second_bias)  # (U, P, 4, 4 x C / 8)
            patches = patches.unflatten(3, (4, -1)).flatten(1, 3)  # (U, 16 P, C / 8)
            hyper = torch.stack(
                [mlp(mask_tokens[:, index]) for index, mlp in enumerate(self.hyper)], dim=2
            )  # (U, C / 8, M)
            logits = (patches @ hyper).float()  # (U, h·w·2·2·2·2, M)
        places = logits.unflatten(1, (side, side, 2, 2, 2, 2))  # rows, columns; coarse, fine
        return places.permute(0, 7, 1, 3, 5, 2, 4, 6).flatten(5, 7).flatten(2, 4)


class Masks(Upscaling):
    """image_tokens, mask_tokens -> logits."""

    def forward(self, image_tokens: Tensor, mask_tokens: Tensor) -> Tensor:
        """As ``MaskDecoder.masks``, without the single mask."""
        return self.logits(image_tokens, mask_tokens, self.first_bias, self.second_bias)


def attend_at_once(
    query: Tensor, key: Tensor, value: Tensor, by_row: Tensor, by_column: Tensor
) -> Tensor:
    """Attention with offsets by row and column, all at once; an ``Attend``."""
    offsets = by_row.float()[..., :, None] + by_column.float()[..., None, :]
    return attention(query, key, value, offsets.flatten(3))


def attend_in_parts(config: SamConfig) -> Attend:
    """``attend_at_once`` for some queries at a time: written out, since their number is fixed.

    Logits of all pairs of a global block of an official model would take 0.8 GB.
    """
    tokens = config.embedding_size**2
    affordable = max(1, _PAIRS_AT_ONCE // (tokens * config.encoder_heads))
    parts_needed = -(-tokens // affordable)
    # Equal parts: engines are tuned for one shape.
    at_once = next(n for n in range(tokens // parts_needed, 0, -1) if tokens % n == 0)

    def attend(
        query: Tensor, key: Tensor, value: Tensor, by_row: Tensor, by_column: Tensor
    ) -> Tensor:
        if at_once >= tokens:
            return attend_at_once(query, key, value, by_row, by_column)
        parts = [
            attend_at_once(
                query[:, :, first : first + at_once],
                key,
                value,
                by_row[:, :, first : first + at_once],
                by_column[:, :, first : first + at_once],
            )
            for first in range(0, tokens, at_once)
        ]
        return torch.cat(parts, dim=2)

    return attend
