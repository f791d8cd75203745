"""SAM's mask decoder: a two-way transformer between prompt tokens and image tokens.

Shapes: B images, N prompts an image, T tokens a prompt, P = h·w image tokens, C channels.
Image tokens start as (B, 1, P, C), shared by all prompts of an image, and become (B, N, P, C)
after the first layer. As long as they are shared they are projected once.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from alps.engine.sam.config import NetworkConfig
from alps.engine.sam.layers import HeadMLP, LayerNorm2d, TwoLayerMLP, modules


@dataclass
class DecodedPrompts:
    """What the transformer leaves of N prompts on each of B images."""

    mask_tokens: Tensor  # (B, N, M, C), M = 1 + multimask outputs; token 0 is the single mask
    image_tokens: Tensor  # (B, N, P, C)
    predicted_iou: Tensor  # (B, N, M)


class Attention(nn.Module):
    """Multi-head attention in a narrower width, between groups of tokens."""

    def __init__(self, width: int, heads: int, downsample: int = 1) -> None:
        super().__init__()
        inner = width // downsample
        self.heads = heads
        self.q_proj = nn.Linear(width, inner)
        self.k_proj = nn.Linear(width, inner)
        self.v_proj = nn.Linear(width, inner)
        self.out_proj = nn.Linear(inner, width)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend within each prompt.

        Args:
            query: (B, Nq, Lq, C)
            key: (B, Nk, Lk, C); Nq and Nk are N, or 1 where shared by all prompts.
            value: like key.

        Returns:
            (B, N, Lq, C)
        """
        q, k, v = (
            self._split(p(x))
            for p, x in ((self.q_proj, query), (self.k_proj, key), (self.v_proj, value))
        )  # (B, heads, N, L, d)
        q = q * q.shape[-1] ** -0.5
        queries, prompts = q.shape[2:4], max(q.shape[2], k.shape[2])
        if k.shape[2] == 1:  # one key set for all prompts: a single large product
            shared_k, shared_v = k[:, :, 0], v[:, :, 0]
            weights = (q.flatten(2, 3) @ shared_k.transpose(-1, -2)).softmax(-1)
            out = (weights @ shared_v).unflatten(2, queries)
        elif q.shape[2] == 1:  # one query set, each prompt its own few keys
            logits = q[:, :, 0] @ k.flatten(2, 3).transpose(-1, -2)  # (B, heads, Lq, N·Lk)
            weights = logits.unflatten(-1, (prompts, -1)).softmax(-1)
            out = weights.transpose(2, 3) @ v  # (B, heads, N, Lq, d)
        else:
            out = (q @ k.transpose(-1, -2)).softmax(-1) @ v
        return self.out_proj(out.permute(0, 2, 3, 1, 4).flatten(-2))

    def _split(self, tokens: Tensor) -> Tensor:
        """(B, N, L, inner) -> (B, heads, N, L, inner / heads)."""
        return tokens.unflatten(-1, (self.heads, -1)).permute(0, 3, 1, 2, 4)


class TwoWayBlock(nn.Module):
    """Tokens attend to themselves and to the image, then the image attends to the tokens."""

    def __init__(self, config: NetworkConfig, *, first: bool) -> None:
        super().__init__()
        width, heads, epsilon = (
            config.embedding_channels,
            config.decoder_heads,
            config.decoder_epsilon,
        )
        self.first = first
        self.self_attn = Attention(width, heads)
        self.norm1 = nn.LayerNorm(width, eps=epsilon)
        self.cross_attn_token_to_image = Attention(width, heads, downsample=2)
        self.norm2 = nn.LayerNorm(width, eps=epsilon)
        self.mlp = TwoLayerMLP(width, config.decoder_hidden, nn.ReLU)
        self.norm3 = nn.LayerNorm(width, eps=epsilon)
        self.norm4 = nn.LayerNorm(width, eps=epsilon)
        self.cross_attn_image_to_token = Attention(width, heads, downsample=2)

    def forward(
        self, tokens: Tensor, image: Tensor, token_positions: Tensor, image_positions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Update both sides."""
        tokens = self.attend_to_tokens(tokens, token_positions)
        placed_image = image + image_positions
        tokens = self.norm2(
            tokens + self.cross_attn_token_to_image(tokens + token_positions, placed_image, image)
        )
        tokens = self.norm3(tokens + self.mlp(tokens))
        update = self.cross_attn_image_to_token(placed_image, tokens + token_positions, tokens)
        return tokens, self.norm4(image + update)

    def attend_to_tokens(self, tokens: Tensor, token_positions: Tensor) -> Tensor:
        """The block's first step; the first block does without positions and residual."""
        if self.first:
            return self.norm1(self.self_attn(tokens, tokens, tokens))
        placed = tokens + token_positions
        return self.norm1(tokens + self.self_attn(placed, placed, tokens))


class TwoWayTransformer(nn.Module):
    """A few two-way blocks and a last look of the tokens at the image."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        width, heads = config.embedding_channels, config.decoder_heads
        self.layers = modules(
            TwoWayBlock(config, first=index == 0) for index in range(config.decoder_depth)
        )
        self.final_attn_token_to_image = Attention(width, heads, downsample=2)
        self.norm_final_attn = nn.LayerNorm(width)

    def forward(self, image: Tensor, positions: Tensor, prompt: Tensor) -> tuple[Tensor, Tensor]:
        """Image (B, 1, P, C), positions (P, C), prompt (B, N, T, C) -> tokens, image tokens."""
        tokens = prompt
        for layer in self.layers:
            tokens, image = layer(tokens, image, prompt, positions)
        looked = self.final_attn_token_to_image(tokens + prompt, image + positions, image)
        return self.norm_final_attn(tokens + looked), image


class PointDecoder(nn.Module):
    """What the mask decoders of SAM and SAM 2 share: the transformer, the layers around it.

    Each has two steps, ``transform`` and ``masks``, so that a caller can drop masks by predicted
    IoU in between.
    """

    tokens_before = 0  # of its own, before the IoU token

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        width, outputs = config.embedding_channels, config.multimask_outputs + 1
        self.transformer = TwoWayTransformer(config)
        self.iou_token = nn.Embedding(1, width)
        self.mask_tokens = nn.Embedding(outputs, width)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(width, width // 4, 2, stride=2),
            LayerNorm2d(width // 4),
            nn.GELU(),
            nn.ConvTranspose2d(width // 4, width // 8, 2, stride=2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = modules(
            HeadMLP(width, width, width // 8, 3) for _ in range(outputs)
        )
        self.iou_prediction_head = HeadMLP(
            width, config.iou_head_hidden, outputs, config.iou_head_depth
        )

    def run(self, embedding: Tensor, positions: Tensor, prompt: Tensor) -> tuple[Tensor, Tensor]:
        """Run the two-way transformer.

        Args:
            embedding: (B, C, h, w), the dense prompt (or "no mask") already added.
            positions: (C, h, w)
            prompt: sparse tokens (B, N, T, C)

        Returns:
            tokens (B, N, own + T, C) and image tokens (B, N, P, C)
        """
        prompt = self.with_output_tokens(prompt)
        image = embedding.flatten(2).transpose(1, 2)[:, None]
        return self.transformer(image, positions.flatten(1).T, prompt)

    def output_tokens(self) -> Tensor:
        """The IoU token and the mask tokens, the single mask's first: (T, C)."""
        return torch.cat([self.iou_token.weight, self.mask_tokens.weight])

    def with_output_tokens(self, prompt: Tensor) -> Tensor:
        """Put the decoder's own tokens before a prompt's, (…, T, C)."""
        own = self.output_tokens()
        return torch.cat([own.expand(*prompt.shape[:-2], -1, -1), prompt], dim=-2)


class MaskDecoder(PointDecoder):
    """Image embedding and prompt tokens -> mask logits and predicted IoU."""

    def transform(self, embedding: Tensor, positions: Tensor, prompt: Tensor) -> DecodedPrompts:
        """Run the two-way transformer; arguments as of ``run``."""
        tokens, image = self.run(embedding, positions, prompt)
        return DecodedPrompts(
            mask_tokens=tokens[:, :, 1 : 1 + len(self.output_hypernetworks_mlps)],
            image_tokens=image,
            predicted_iou=self.iou_prediction_head(tokens[:, :, 0]),
        )

    def masks(self, mask_tokens: Tensor, image_tokens: Tensor) -> Tensor:
        """Mask logits at four times the embedding's resolution.

        Args:
            mask_tokens: (S, M, C), all tokens of S prompts, the single mask's first
            image_tokens: (S, P, C), P a square number

        Returns:
            (S, M, 4h, 4w)
        """
        side = round(image_tokens.shape[1] ** 0.5)
        upscaled = self.output_upscaling(image_tokens.transpose(1, 2).unflatten(2, (side, side)))
        weights = torch.stack(
            [mlp(mask_tokens[:, m]) for m, mlp in enumerate(self.output_hypernetworks_mlps)], dim=1
        )
        return torch.einsum("smc,schw->smhw", weights, upscaled)
