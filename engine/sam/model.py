"""The whole network, put together as the official checkpoints are laid out."""

import torch
from torch import Tensor, nn

from alps.engine.sam.config import MobileSamConfig, NetworkConfig, SamConfig
from alps.engine.sam.image_encoder import Attend, ImageEncoder
from alps.engine.sam.mask_decoder import DecodedPrompts, MaskDecoder, PointDecoder
from alps.engine.sam.prompt_encoder import PromptEncoder
from alps.engine.sam.tiny_vit import TinyViT

Encoder = ImageEncoder | TinyViT

# ImageNet statistics in 0…255, as SAM was trained with.
PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)


class Network(nn.Module):
    """What the networks of this family have in common: they encode images and decode points.

    Pixels are RGB, less ``PIXEL_MEAN`` over ``PIXEL_STD``.
    """

    pixel_mean: Tensor
    pixel_std: Tensor
    config: NetworkConfig
    prompt_encoder: PromptEncoder
    mask_decoder: PointDecoder

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.pixel_mean.device

    def encode(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (B, 3, S, S) -> (B, E, h, w), E the config's ``encoded_channels``."""
        raise NotImplementedError

    def set_pixel_statistics(self) -> None:
        """Keep the statistics of pixels beside the weights; they are in no checkpoint."""
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (PIXEL_MEAN, PIXEL_STD))
        self.register_buffer("pixel_mean", mean, persistent=False)
        self.register_buffer("pixel_std", std, persistent=False)


class SamLike(Network):
    """The prompt encoder and the mask decoder of Segment Anything behind some image encoder."""

    image_encoder: Encoder
    mask_decoder: MaskDecoder

    def __init__(self, config: NetworkConfig, image_encoder: Encoder) -> None:
        super().__init__()
        self.config = config
        # First, as the original has it: the same seed gives the same random weights.
        self.image_encoder = image_encoder
        self.prompt_encoder = PromptEncoder(config)
        self.mask_decoder = MaskDecoder(config)
        self.set_pixel_statistics()

    def normalise(self, rgb: Tensor) -> Tensor:
        """RGB (…, 3, h, w) in 0…255 -> normalised and zero-padded to (…, 3, S, S)."""
        pixels = (rgb.to(self.pixel_mean.dtype) - self.pixel_mean) / self.pixel_std
        height, width = pixels.shape[-2:]
        size = self.config.image_size
        return nn.functional.pad(pixels, (0, size - width, 0, size - height))

    def decode_points(self, embedding: Tensor, xy: Tensor) -> DecodedPrompts:
        """One foreground point a prompt, (B, N, 2) in input pixels, on B embeddings."""
        labels = torch.ones(xy.shape[:2], dtype=torch.int64, device=xy.device)
        prompt = self.prompt_encoder.points(xy[..., None, :], labels[..., None])
        return self.mask_decoder.transform(
            embedding + self.prompt_encoder.no_mask(), self.prompt_encoder.dense_positions(), prompt
        )


class Sam(SamLike):
    """Segment Anything (arXiv 2304.02643) with the official state-dict names."""

    config: SamConfig
    image_encoder: ImageEncoder

    def __init__(self, config: SamConfig) -> None:
        super().__init__(config, ImageEncoder(config))

    def encode(
        self,
        pixels: Tensor,
        attend: Attend | None = None,
        attend_in_windows: Attend | None = None,
    ) -> Tensor:
        """Normalised pixels (B, 3, S, S) -> image embedding (B, C, h, w).

        attend, attend_in_windows: see ``ImageEncoder.forward``.
        """
        return self.image_encoder(pixels, attend, attend_in_windows)


class MobileSam(SamLike):
    """MobileSAM (arXiv 2306.14289): SAM behind a TinyViT, with its authors' state-dict names."""

    config: MobileSamConfig
    image_encoder: TinyViT

    def __init__(self, config: MobileSamConfig) -> None:
        super().__init__(config, TinyViT(config))

    def encode(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (B, 3, S, S) -> image embedding (B, C, h, w)."""
        return self.image_encoder(pixels)
