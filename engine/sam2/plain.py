"""SAM 2's decoder as it was trained, with the absorbed one's face."""

from dataclasses import dataclass

import torch
from torch import Tensor

from alps.engine.sam.absorbed import DecodedPoints
from alps.engine.sam2.model import Sam2


@dataclass
class PlainPoints(DecodedPoints):
    """What the transformer leaves of N points, and the encoded image they were asked of."""

    single_token: Tensor  # (N, C), of the single mask, which is not asked for
    encoded: Tensor  # (4 C, h, w)


class Sam2PlainDecoder:
    """Answers points on one image at a time: a reference for the absorbed form."""

    def __init__(self, sam: Sam2) -> None:
        self.sam = sam

    def share(self, embedding: Tensor) -> Tensor:
        """What the encoder gave, (4 C, h, w), as it is."""
        return embedding

    def transform(self, image: Tensor, xy: Tensor) -> PlainPoints:
        """Run the two-way transformer for points (N, 2), x and y in input pixels."""
        decoded = self.sam.decode_points(image[None], xy[None])
        tokens = decoded.mask_tokens[0]
        return PlainPoints(
            mask_tokens=tokens[:, 1:],
            image_tokens=decoded.image_tokens[0],
            predicted_iou=decoded.predicted_iou[0, :, 1:],
            single_token=tokens[:, 0],
            encoded=image,
        )

    def masks(self, decoded: DecodedPoints, point: Tensor, output: Tensor) -> Tensor:
        """Logits (S, 4h, 4w) of masks, ``point`` (S,) ascending and ``output`` (S,) int64."""
        assert isinstance(decoded, PlainPoints)
        prompts, row = point.unique(return_inverse=True)
        tokens = decoded.mask_tokens[prompts]
        single = decoded.single_token[prompts, None]
        logits = self.sam.mask_decoder.masks(
            torch.cat([single, tokens], dim=1),
            decoded.image_tokens[prompts],
            decoded.encoded[self.sam.config.embedding_channels :],
        )
        return logits[row, output + 1]
