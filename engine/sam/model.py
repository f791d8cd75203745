"""The whole network, put together as the official checkpoints are laid out."""

import torch
from torch import Tensor, nn

from alps.engine.sam.config import SamConfig
from alps.engine.sam.image_encoder import Attend, ImageEncoder
from alps.engine.sam.mask_decoder import DecodedPrompts, MaskDecoder
from alps.engine.sam.prompt_encoder import PromptEncoder

# ImageNet statistics in 0…255, as SAM was trained with.
PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)


class Sam(nn.Module):
    """Segment Anything (arXiv 2304.02643) with the official state-dict names."""

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        self.config = config
        self.image_encoder = ImageEncoder(config)
        self.prompt_encoder = PromptEncoder(config)
        self.mask_decoder = MaskDecoder(config)
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (PIXEL_MEAN, PIXEL_STD))
        self.register_buffer("pixel_mean", mean, persistent=False)
        self.register_buffer("pixel_std", std, persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.pixel_mean.device

    def normalise(self, rgb: Tensor) -> Tensor:
        """RGB (…, 3, h, w) in 0…255 -> normalised and zero-padded to (…, 3, S, S)."""
        pixels = (rgb.to(self.pixel_mean.dtype) - self.pixel_mean) / self.pixel_std
        height, width = pixels.shape[-2:]
        size = self.config.image_size
        return nn.functional.pad(pixels, (0, size - width, 0, size - height))

    def encode(self, pixels: Tensor, attend: Attend | None = None) -> Tensor:
        """Normalised pixels (B, 3, S, S) -> image embedding (B, C, h, w)."""
        return self.image_encoder(pixels, attend)

    def decode_points(self, embedding: Tensor, xy: Tensor) -> DecodedPrompts:
        """One foreground point a prompt, (B, N, 2) in input pixels, on B embeddings."""
        labels = torch.ones(xy.shape[:2], dtype=torch.int64, device=xy.device)
        prompt = self.prompt_encoder.points(xy[..., None, :], labels[..., None])
        return self.mask_decoder.transform(
            embedding + self.prompt_encoder.no_mask(), self.prompt_encoder.dense_positions(), prompt
        )
