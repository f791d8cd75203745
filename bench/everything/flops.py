"""Multiply-adds of SAM's point decoder, as stock computes it, absorbed, compiled (1 MAC = 2 FLOP).

Notation as in the decoder's files: P = h·w image tokens, T = 7 tokens of a point prompt (predicted
IoU, single mask, three masks, the point, its padding), C channels, I = C / 2 channels inside the
cross attentions, A = T x heads, the columns of an absorbed projection. Only matrix products count.
"""

from collections.abc import Callable
from dataclasses import dataclass

from alps.engine.sam.config import NetworkConfig

PROMPT_TOKENS = 2  # the point, and the padding that stands for "no box"


@dataclass(frozen=True)
class DecoderMacs:
    """Multiply-adds of a decoder; all but the parts that are zero in a form add up."""

    per_tile: float  # once an image
    per_prompt: float  # the two-way transformer and the predicted IoU
    per_survivor: float  # upscaling, once for a prompt with a mask left
    per_mask: float  # hypernetwork product of one mask

    def of(self, prompts: float, survivors: float, masks: float) -> float:
        """Multiply-adds of one tile, or of a mean one."""
        return (
            self.per_tile
            + self.per_prompt * prompts
            + self.per_survivor * survivors
            + self.per_mask * masks
        )


def stock_macs(config: NetworkConfig) -> DecoderMacs:
    """Stock's decoder: every prompt projects all image tokens, every prompt is upscaled."""
    pixels, tokens, channels, inner, _ = _sizes(config)
    projection = pixels * channels * inner  # of the image tokens
    cross = (
        2 * projection  # keys and values; or, from image to tokens, queries and output
        + 2 * tokens * channels * inner  # the other two projections, on the tokens' side
        + 2 * tokens * pixels * inner  # logits and weighted sum
    )
    attentions = 2 * config.decoder_depth + 1
    outputs = config.multimask_outputs + 1
    return DecoderMacs(
        per_tile=0,
        per_prompt=attentions * cross
        + _token_side(config)
        + _upscaling(config)
        + outputs * (_hypernetwork(config) + _mask_product(config)),
        per_survivor=0,
        per_mask=0,
    )


def absorbed_macs(config: NetworkConfig) -> DecoderMacs:
    """Projections moved to the tokens' side; layer 1 projects the image once for all prompts."""
    pixels, tokens, channels, inner, columns = _sizes(config)
    absorbed = pixels * columns * channels  # image tokens times a matrix made of a few tokens
    shared = tokens * pixels * inner  # logits, or sum, against a projection made once a tile
    # Of any cross attention: the tokens' own two projections, in and out, and the two that
    # absorption turns into products of a head's few channels with its part of a weight matrix.
    on_tokens = 2 * tokens * channels * inner
    absorbing = 2 * tokens * inner * channels
    first = (
        (2 * shared + on_tokens)  # token to image
        + (shared + absorbed + on_tokens + tokens * inner * channels)  # image to token
    )
    later = 2 * (2 * absorbed + on_tokens + absorbing)
    # Of the last look only predicted IoU and the masks that are asked for are read.
    read = (1 + config.multimask_outputs) / tokens
    final = read * (2 * absorbed + on_tokens + absorbing)
    return DecoderMacs(
        per_tile=3 * pixels * channels * inner,  # layer 1: keys and values, then queries
        per_prompt=first + (config.decoder_depth - 1) * later + final + _token_side(config),
        per_survivor=_upscaling(config),
        per_mask=_hypernetwork(config) + _mask_product(config),
    )


def compiled_macs(config: NetworkConfig) -> DecoderMacs:
    """The compiled form of it: a head's first token needs no row of its own where the image attends
    to tokens, and the first transposed convolution meets these rows, the image once a tile."""
    absorbed = absorbed_macs(config)
    pixels, _, channels, inner, columns = _sizes(config)
    layers, heads = config.decoder_depth, config.decoder_heads
    # Of heads' first tokens: logits, by shared queries in the first layer, and values.
    spared = pixels * (inner + (layers - 1) * heads * channels + layers * heads * channels)
    rows = layers * (columns - heads)  # value rows, which meet the convolution's matrix
    factors = rows + 2 * layers + 1
    return DecoderMacs(
        per_tile=absorbed.per_tile + pixels * channels**2,
        per_prompt=absorbed.per_prompt - spared,
        per_survivor=absorbed.per_survivor
        + pixels * (factors - channels) * channels
        + (rows + layers) * channels**2,
        per_mask=absorbed.per_mask,
    )


def _sizes(config: NetworkConfig) -> tuple[int, int, int, int, int]:
    channels = config.embedding_channels
    tokens = 2 + config.multimask_outputs + PROMPT_TOKENS  # 2: predicted IoU, the single mask
    pixels = config.embedding_size**2
    return pixels, tokens, channels, channels // 2, tokens * config.decoder_heads


def _token_side(config: NetworkConfig) -> int:
    """Self attention and MLP of every layer, and the head that predicts IoU."""
    _, tokens, channels, _, _ = _sizes(config)
    self_attention = 4 * tokens * channels**2 + 2 * tokens**2 * channels
    mlp = 2 * tokens * channels * config.decoder_hidden
    hidden, outputs = config.iou_head_hidden, config.multimask_outputs + 1
    head = channels * hidden + (config.iou_head_depth - 2) * hidden**2 + hidden * outputs
    return config.decoder_depth * (self_attention + mlp) + head


def _upscaling(config: NetworkConfig) -> int:
    """Two transposed convolutions, 2 x 2 with stride 2: C to C / 4, then to C / 8 channels."""
    pixels, _, channels, _, _ = _sizes(config)
    first = 4 * pixels * channels * (channels // 4)
    return first + 4 * (4 * pixels) * (channels // 4) * (channels // 8)


def _hypernetwork(config: NetworkConfig) -> int:
    """One mask's: three linear layers, C to C to C to C / 8."""
    channels = config.embedding_channels
    return 2 * channels**2 + channels * (channels // 8)


def _mask_product(config: NetworkConfig) -> int:
    """One mask's logits from the upscaled image, 4h x 4w x C / 8."""
    return config.low_resolution_size**2 * (config.embedding_channels // 8)


# Of a ``Job``'s decoder, by name.
FORMS: dict[str, Callable[[NetworkConfig], DecoderMacs]] = {
    "stock": stock_macs,
    "absorbed": absorbed_macs,
    "compiled": compiled_macs,
}
