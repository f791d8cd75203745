"""SAM 2's mask decoder: SAM's transformer, one more token, and upscaling that sees the image.

The token asks whether there is an object at all. Features of two finer levels are added between
the two transposed convolutions and behind them.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from alps.engine.sam.layers import HeadMLP
from alps.engine.sam.mask_decoder import DecodedPrompts, PointDecoder
from alps.engine.sam2.config import Sam2Config


@dataclass
class Sam2Prompts(DecodedPrompts):
    """What SAM 2's transformer leaves of N prompts on each of B images."""

    object_score: Tensor  # (B, N) logits: above 0 where there is an object


class ShareMLP(HeadMLP):
    """A head whose outputs lie between 0 and 1."""

    def forward(self, tokens: Tensor) -> Tensor:
        """(…, width) -> (…, out)."""
        return super().forward(tokens).sigmoid()


class Sam2MaskDecoder(PointDecoder):
    """Image embedding, finer features and prompt tokens -> logits, predicted IoU, object score."""

    tokens_before = 1

    def __init__(self, config: Sam2Config) -> None:
        super().__init__(config)
        width = config.embedding_channels
        self.iou_prediction_head = ShareMLP(
            width, config.iou_head_hidden, config.multimask_outputs + 1, config.iou_head_depth
        )
        self.obj_score_token = nn.Embedding(1, width)
        self.pred_obj_score_head = HeadMLP(width, width, 1, 3)
        self.conv_s0 = nn.Conv2d(width, width // 8, 1)
        self.conv_s1 = nn.Conv2d(width, width // 4, 1)

    def output_tokens(self) -> Tensor:
        """The object token before those of SAM: (T, C)."""
        return torch.cat([self.obj_score_token.weight, super().output_tokens()])

    def transform(self, embedding: Tensor, positions: Tensor, prompt: Tensor) -> Sam2Prompts:
        """Run the two-way transformer; arguments as of ``run``."""
        tokens, image = self.run(embedding, positions, prompt)
        masks = len(self.output_hypernetworks_mlps)
        return Sam2Prompts(
            mask_tokens=tokens[:, :, 2 : 2 + masks],
            image_tokens=image,
            predicted_iou=self.iou_prediction_head(tokens[:, :, 1]),
            object_score=self.pred_obj_score_head(tokens[:, :, 0])[..., 0],
        )

    def masks(self, mask_tokens: Tensor, image_tokens: Tensor, skips: Tensor) -> Tensor:
        """Mask logits at four times the embedding's resolution.

        Args:
            mask_tokens: (S, M, C), all tokens of S prompts, the single mask's first
            image_tokens: (S, P, C), P a square number
            skips: (3 C, h, w), as ``to_cells`` laid them out

        Returns:
            (S, M, 4h, 4w)
        """
        side, width = skips.shape[-1], image_tokens.shape[-1]
        layers: Any = self.output_upscaling
        first, norm, activation, second, _ = layers
        image = image_tokens.transpose(1, 2).unflatten(2, (side, side))
        image = activation(norm(first(image) + from_cells(skips[None, :width], 1)))
        image = activation(second(image) + from_cells(skips[None, width:], 2))
        weights = torch.stack(
            [mlp(mask_tokens[:, m]) for m, mlp in enumerate(self.output_hypernetworks_mlps)], dim=1
        )
        return torch.einsum("smc,schw->smhw", weights, image)


def to_cells(image: Tensor, halvings: int) -> Tensor:
    """Lay the pixels of a finer level beside each other, cell by cell of the embedding's grid.

    (B, c, 2^n h, 2^n w) -> (B, 4^n c, h, w); places as the transposed convolutions make them, the
    coarser first, each (row, column) = (0, 0), (0, 1), (1, 0), (1, 1).
    """
    for _ in range(halvings):
        rows, columns = image.shape[2] // 2, image.shape[3] // 2
        grid = image.unflatten(3, (columns, 2)).unflatten(2, (rows, 2))  # (B, c, h, 2, w, 2)
        image = grid.permute(0, 3, 5, 1, 2, 4).flatten(1, 3)
    return image


def from_cells(cells: Tensor, halvings: int) -> Tensor:
    """Undo ``to_cells``."""
    for _ in range(halvings):
        grid = cells.unflatten(1, (2, 2, -1))  # (B, 2, 2, c, h, w)
        cells = grid.permute(0, 3, 4, 1, 5, 2).flatten(4, 5).flatten(2, 3)
    return cells
