"""SAM 2's graphs: those of SAM, with what skips the decoder beside the image's tokens.

encoder    pixels (B, 3, S, S)                              -> embedding (B, 4 C, h, w)
share      embedding (4 C, h, w)                            -> tokens, keys, values, queries,
                                                               first_bias, second_bias
transform  as SAM's
masks      image_tokens (U, P, C), mask_tokens (U, M, C),
           first_bias (P, C), second_bias (4 P, C / 2)      -> logits (U, M, 4h, 4w)
"""

import torch
from torch import Tensor, nn

from alps.engine.sam.absorbed import AbsorbedDecoder
from alps.engine.sam2 import Sam2
from alps.engine.sam2.absorbed import Sam2AbsorbedDecoder
from alps.export.graphs import (
    EXAMPLES,
    Graph,
    Transform,
    Upscaling,
    decoded_example,
    shared_example,
)
from alps.export.precision import DTYPES, Products, attention, with_weights_in


def sam2_graphs(sam: Sam2, precision: str) -> list[Graph]:
    """The four graphs of a network; arguments as of ``graphs_of``."""
    dtype, config = DTYPES[precision], sam.config
    changed = with_weights_in(sam, dtype).eval()
    decoder = Sam2AbsorbedDecoder(changed, compiled=False)
    side, channels = config.embedding_size, config.embedding_channels
    shared, decoded = shared_example(config, dtype), decoded_example(config, dtype)
    skips = {
        "first_bias": torch.zeros(side * side, channels, dtype=dtype),
        "second_bias": torch.zeros(4 * side * side, channels // 2, dtype=dtype),
    }
    image = {"pixels": torch.zeros(EXAMPLES, 3, config.image_size, config.image_size)}
    embedding = {"embedding": torch.zeros(config.encoded_channels, side, side)}
    return [
        Graph("encoder", Encode(changed, dtype), image, ("embedding",), {"pixels": "batch"}),
        Graph("share", Share(decoder, dtype), embedding, (*shared, *skips), {}),
        Graph(
            "transform",
            Transform(AbsorbedDecoder(changed, compiled=False), dtype),
            shared | {"points": torch.zeros(EXAMPLES, 2)},
            ("mask_tokens", "image_tokens", "predicted_iou"),
            {"points": "points"},
        ),
        Graph(
            "masks",
            SkippedMasks(changed, dtype),
            decoded | skips,
            ("logits",),
            dict.fromkeys(decoded, "prompts"),
        ),
    ]


class Encode(nn.Module):
    """pixels -> embedding and finer features, as ``Sam2.encode`` has them."""

    def __init__(self, sam: Sam2, dtype: torch.dtype) -> None:
        super().__init__()
        self.sam, self.dtype = sam, dtype

    def forward(self, pixels: Tensor) -> Tensor:
        """As ``Sam2.encode``."""
        with Products(self.dtype):
            return self.sam.encode(pixels, attention).float()


class Share(nn.Module):
    """embedding -> tokens, keys, values, queries, first_bias, second_bias."""

    def __init__(self, decoder: Sam2AbsorbedDecoder, dtype: torch.dtype) -> None:
        super().__init__()
        self.decoder, self.dtype = decoder, dtype
        self.parts = nn.ModuleList([decoder.decoder, decoder.prompts])

    def forward(self, embedding: Tensor) -> tuple[Tensor, ...]:
        """As ``Sam2AbsorbedDecoder.share``."""
        with Products(self.dtype):
            image = self.decoder.share(embedding)
        shared = (image.tokens, image.keys, image.values, image.queries)
        skips = (image.first_bias, image.second_bias)
        return tuple(tensor.to(self.dtype) for tensor in (*shared, *skips))


class SkippedMasks(Upscaling):
    """image_tokens, mask_tokens and a bias for each cell -> logits."""

    def forward(
        self, image_tokens: Tensor, mask_tokens: Tensor, first_bias: Tensor, second_bias: Tensor
    ) -> Tensor:
        """As ``Sam2MaskDecoder.masks``, without the single mask."""
        return self.logits(image_tokens, mask_tokens, first_bias, second_bias.unflatten(0, (-1, 4)))
