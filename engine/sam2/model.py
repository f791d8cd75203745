"""SAM 2's network for single images, in names near to those of the official checkpoints."""

import torch
from torch import Tensor, nn

from alps.engine.sam.model import Network
from alps.engine.sam.prompt_encoder import PromptEncoder
from alps.engine.sam2.config import Sam2Config
from alps.engine.sam2.decoder import Sam2MaskDecoder, Sam2Prompts, to_cells
from alps.engine.sam2.hiera import Attention
from alps.engine.sam2.neck import ImageEncoder, one_after_the_other


class Sam2(Network):
    """Segment Anything 2 (arXiv 2408.00714) on an image by itself.

    What it encodes is one tensor (B, 4 C, h, w): the image embedding, C channels, and the two finer
    levels that the decoder adds, laid out cell by cell of the embedding's grid (``to_cells``).
    """

    config: Sam2Config
    mask_decoder: Sam2MaskDecoder

    def __init__(self, config: Sam2Config) -> None:
        super().__init__()
        self.config = config
        self.image_encoder = ImageEncoder(config)
        self.prompt_encoder = PromptEncoder(config)
        self.mask_decoder = Sam2MaskDecoder(config)
        # What stands for a memory where there is none.
        self.no_mem_embed = nn.Parameter(torch.zeros(1, 1, config.embedding_channels))
        self.set_pixel_statistics()

    def encode(self, pixels: Tensor, attend: Attention | None = None) -> Tensor:
        """Normalised pixels (B, 3, S, S) -> (B, 4 C, h, w)."""
        finest, finer, embedding = self.image_encoder.levels(pixels, attend)
        lateral0, lateral1 = self.image_encoder.neck.laterals()[:2]
        skip0 = one_after_the_other(finest, lateral0.conv, self.mask_decoder.conv_s0)
        skip1 = one_after_the_other(finer, lateral1.conv, self.mask_decoder.conv_s1)
        embedding = embedding + self.no_mem_embed[0, 0, :, None, None]
        return torch.cat([embedding, to_cells(skip1, 1), to_cells(skip0, 2)], dim=1)

    def decode_points(self, encoded: Tensor, xy: Tensor) -> Sam2Prompts:
        """One foreground point a prompt, (B, N, 2) in input pixels, on B encoded images."""
        labels = torch.ones(xy.shape[:2], dtype=torch.int64, device=xy.device)
        prompt = self.prompt_encoder.points(xy[..., None, :], labels[..., None])
        embedding = encoded[:, : self.config.embedding_channels]
        return self.mask_decoder.transform(
            embedding + self.prompt_encoder.no_mask(), self.prompt_encoder.dense_positions(), prompt
        )

    def masks(self, decoded: Sam2Prompts, encoded: Tensor) -> Tensor:
        """Logits (N, M, 4h, 4w) of what ``decode_points`` left of one image (1, 4 C, h, w)."""
        skips = encoded[0, self.config.embedding_channels :]
        return self.mask_decoder.masks(decoded.mask_tokens[0], decoded.image_tokens[0], skips)
