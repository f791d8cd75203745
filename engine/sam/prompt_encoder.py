"""SAM's prompt encoder: points, boxes and coarse masks to tokens of the decoder."""

import math

import torch
from torch import Tensor, nn

from alps.engine.sam.config import NetworkConfig
from alps.engine.sam.layers import LayerNorm2d, modules


class FourierPositions(nn.Module):
    """Random Fourier features of positions in the unit square."""

    positional_encoding_gaussian_matrix: Tensor  # (2, frequencies)

    def __init__(self, frequencies: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, frequencies))

    def forward(self, unit_xy: Tensor) -> Tensor:
        """Positions (…, 2) in 0…1, x first -> (…, 2 · frequencies)."""
        centred, frequencies = 2 * unit_xy - 1, self.positional_encoding_gaussian_matrix
        # Not a product of matrices: autocast would round the angles to some degrees.
        along = centred[..., :1] * frequencies[0] + centred[..., 1:] * frequencies[1]
        angles = 2 * math.pi * along
        return torch.cat([angles.sin(), angles.cos()], dim=-1)

    def grid(self, side: int) -> Tensor:
        """The encoding of all cell centres of a grid, (2 · frequencies, side, side)."""
        centres = (torch.arange(side, device=self.device, dtype=self.dtype) + 0.5) / side
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        return self(torch.stack([x, y], dim=-1)).permute(2, 0, 1)

    @property
    def device(self) -> torch.device:
        """Where the frequencies lie."""
        return self.positional_encoding_gaussian_matrix.device

    @property
    def dtype(self) -> torch.dtype:
        """In which precision the frequencies are kept."""
        return self.positional_encoding_gaussian_matrix.dtype


class PromptEncoder(nn.Module):
    """Prompts in pixels of the network's input -> sparse tokens and a dense embedding."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        channels, hidden = config.embedding_channels, config.mask_input_channels
        self.image_size, self.embedding_size = config.image_size, config.embedding_size
        self.pe_layer = FourierPositions(channels // 2)
        # background point, foreground point, top left corner, bottom right corner
        self.point_embeddings = modules(nn.Embedding(1, channels) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, channels)
        self.no_mask_embed = nn.Embedding(1, channels)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, hidden // 4, 2, stride=2),
            LayerNorm2d(hidden // 4),
            nn.GELU(),
            nn.Conv2d(hidden // 4, hidden, 2, stride=2),
            LayerNorm2d(hidden),
            nn.GELU(),
            nn.Conv2d(hidden, channels, 1),
        )

    def dense_positions(self) -> Tensor:
        """Positional encoding of the image embedding, (C, h, w)."""
        return self.pe_layer.grid(self.embedding_size)

    def points(self, xy: Tensor, labels: Tensor, pad: bool = True) -> Tensor:
        """Point prompts -> tokens.

        Args:
            xy: (…, T, 2) positions in input pixels, x first.
            labels: (…, T), 1 foreground, 0 background, -1 no point.
            pad: append the "no point" token that SAM expects where no box follows.

        Returns:
            (…, T + pad, C)
        """
        if pad:
            xy = torch.cat([xy, torch.zeros_like(xy[..., :1, :])], dim=-2)
            labels = torch.cat([labels, -torch.ones_like(labels[..., :1])], dim=-1)
        # Pixel centres: a point names the pixel, its encoding the middle of it.
        positions = self.pe_layer((xy + 0.5) / self.image_size)
        absent = (labels == -1)[..., None]
        background = (labels == 0)[..., None]
        kind = torch.where(
            background, self.point_embeddings[0].weight[0], self.point_embeddings[1].weight[0]
        )
        return torch.where(absent, self.not_a_point_embed.weight[0], positions + kind)

    def boxes(self, boxes: Tensor) -> Tensor:
        """Boxes (…, 4) as x0, y0, x1, y1 in input pixels -> tokens (…, 2, C)."""
        corners = boxes.reshape(*boxes.shape[:-1], 2, 2)
        positions = self.pe_layer((corners + 0.5) / self.image_size)
        kinds = torch.cat([self.point_embeddings[2].weight, self.point_embeddings[3].weight])
        return positions + kinds

    def masks(self, logits: Tensor) -> Tensor:
        """Mask prompts (B, 1, 4h, 4w) as logits -> dense embedding (B, C, h, w)."""
        return self.mask_downscaling(logits)

    def no_mask(self) -> Tensor:
        """What is added to the image embedding where no mask is given, (C, 1, 1)."""
        return self.no_mask_embed.weight[0][:, None, None]
