"""SAM 2's mask decoder for many points of one image: SAM's absorbed form, and what skips it.

The transformer is SAM's, with one token more. The finer features that are added while a mask is
upscaled are the same for all points of an image: they are added to the biases of the transposed
convolutions once, and the kernels take a bias for each cell.
"""

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from alps.engine.sam.absorbed import AbsorbedDecoder, DecodedPoints, SharedImage
from alps.engine.sam2.model import Sam2
from alps.kernels.decoder.mask_logits import UpscalingWeights


@dataclass
class Sam2Image(SharedImage):
    """What all points of one image share."""

    first_bias: Tensor  # (P, 4 x C/4), of the first convolution with what skips to it
    second_bias: Tensor  # (4 P, 4 x C/8), likewise of the second


@dataclass
class Sam2Points(DecodedPoints):
    """What the transformer leaves of N points, and what their masks take of the image."""

    image: Sam2Image


class Sam2AbsorbedDecoder(AbsorbedDecoder):
    """Answers points on one image at a time; arguments as of ``AbsorbedDecoder``.

    The object score is not asked for: everything mode, SAM 2's own too, keeps no mask by it.
    """

    def __init__(self, sam: Sam2, *, compiled: bool) -> None:
        super().__init__(sam, compiled=compiled)
        self.channels = sam.config.embedding_channels
        self.layers: Any = sam.mask_decoder.output_upscaling

    def share(self, embedding: Tensor) -> Sam2Image:
        """Prepare what the encoder gave, (4 C, h, w)."""
        shared = super().share(embedding[: self.channels])
        skips = embedding[self.channels :].flatten(1).T  # (P, 3 C)
        first, second = self.layers[0].bias, self.layers[3].bias
        return Sam2Image(
            **vars(shared),
            first_bias=(skips[:, : self.channels] + first.repeat(4)).contiguous(),
            second_bias=(skips[:, self.channels :] + second.repeat(16))
            .reshape(4 * len(skips), -1)
            .contiguous(),
        )

    def transform(self, image: SharedImage, xy: Tensor) -> Sam2Points:
        """Run the two-way transformer for points (N, 2), x and y in input pixels."""
        assert isinstance(image, Sam2Image)
        return Sam2Points(**vars(super().transform(image, xy)), image=image)

    def _upscaling_of(self, decoded: DecodedPoints) -> UpscalingWeights[Any]:
        assert isinstance(decoded, Sam2Points)
        biases: dict[str, Any] = {
            "first_bias": decoded.image.first_bias,
            "second_bias": decoded.image.second_bias,
        }
        if self.compiled:
            biases = {name: bias.numpy() for name, bias in biases.items()}
        return replace(self._upscaling, **biases)
