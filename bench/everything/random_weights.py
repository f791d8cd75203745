"""A SAM with random weights that behaves, for a clock, like a trained one.

As initialised, or drawn at random, a SAM gives every point the same pale mask all over the image:
boxes are all alike, NMS leaves one, and what comes after the decoder has nothing to do. The few
weights set here make masks lie around their points, differ in size from output to output, follow
the image a little, and differ in predicted IoU; all others are random. No product gets smaller or
sparser for it: both sides compute with the same dense matrices.
"""

import math
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from alps.bench.everything.stock import stock_network
from alps.engine.masks.crops import Crop, StretchedCrop, network_pixels
from alps.engine.models.checkpoints import load_network
from alps.engine.models.layouts import Contents, mobile_sam
from alps.engine.sam.config import MobileSamConfig, ModelDefaults, NetworkConfig, SamConfig
from alps.engine.sam.empty import empty_sam
from alps.engine.sam.model import MobileSam, SamLike
from alps.engine.sam.tiny_vit import measure_norms
from alps.engine.sam2 import Sam2, Sam2Config

REACH = 1.5  # frequencies of the position encoding, times the usual: higher is nearer
SHARPNESS = 2.0  # of the attention between a point and the pixels around it
MARK = 0.5  # how strongly a pixel near the point is marked, beside what it knows of the image
CONTRAST = 6.0  # standard deviation of a mask's logits
COVER = (0.12, 0.05, 0.02)  # share of the image that a usual mask of each output covers
IOU_MEAN, IOU_SPREAD = 0.8, 0.08  # of predicted IoU over points, for each output
SKIP = 0.2  # of SAM 2, what skips the decoder, times what it is as initialised
PROBES = 5  # a side: points at which masks and predicted IoU are looked at


# Points (N, 1, 2) in pixels of the input -> logits (N, 3, h, w) and predicted IoU (N, 3).
Ask = Callable[[Tensor], tuple[Tensor, Tensor]]


def save_random_sam(config: NetworkConfig, path: Path, image: np.ndarray, seed: int) -> None:
    """Write weights of these dimensions as their authors lay them out, as a .pth file.

    image: (H, W, 3) uint8 RGB, on which masks and predicted IoU are brought into usual ranges.
    """
    torch.manual_seed(seed)
    network = stock_network(_with_a_vit(config))
    with torch.inference_mode(False), torch.no_grad():
        for parameter in network.parameters():
            if parameter.abs().max() == 0:  # positions start at zero: give them something to do
                parameter.normal_(std=0.2)
        for parameter in network.mask_decoder.parameters():
            if parameter.ndim > 1:
                parameter.mul_(2.5)
        sam = _ours(network, config)
        localise(network.prompt_encoder, network.mask_decoder)
        embedding = embed(sam, image)

        def ask(points: Tensor) -> tuple[Tensor, Tensor]:
            tokens, dense = network.prompt_encoder(
                points=(points, torch.ones(len(points), 1)), boxes=None, masks=None
            )
            return network.mask_decoder(
                image_embeddings=embedding,
                image_pe=network.prompt_encoder.get_dense_pe(),
                sparse_prompt_embeddings=tokens,
                dense_prompt_embeddings=dense,
                multimask_output=True,
            )

        settle(network.mask_decoder, config.image_size, ask)
    if isinstance(sam, MobileSam):
        state = sam.state_dict() | decoder_weights(network)
        written = mobile_sam.LAYOUT.write(Contents(config, state, ModelDefaults()))
        torch.save(dict(written.tensors), path)
    else:
        torch.save(network.state_dict(), path)


def _with_a_vit(config: NetworkConfig) -> SamConfig:
    """These dimensions, or those of their decoder behind a small ViT, which is not kept."""
    if isinstance(config, SamConfig):
        return config
    shared = {item.name: getattr(config, item.name) for item in fields(NetworkConfig)}
    return SamConfig(encoder_width=32, encoder_depth=1, encoder_heads=1, **shared)


def _ours(network: Any, config: NetworkConfig) -> SamLike:
    """Our network with the original's weights; of MobileSAM the encoder's are its own, random."""
    if isinstance(config, MobileSamConfig):
        sam: SamLike = MobileSam(config)
        for name, parameter in sam.image_encoder.named_parameters():
            if name.endswith("attention_biases"):  # they start at zero
                parameter.normal_(std=0.5)
        sam.load_state_dict(decoder_weights(network), strict=False)
        return sam.eval()
    sam = empty_sam(config)
    sam.load_state_dict(network.state_dict(), assign=True)
    sam.set_pixel_statistics()
    return sam.eval()


def decoder_weights(network: Any) -> dict[str, Tensor]:
    """All but the image encoder's."""
    state: dict[str, Tensor] = network.state_dict()
    return {n: tensor for n, tensor in state.items() if not n.startswith("image_encoder.")}


def save_random_sam2(config: Sam2Config, path: Path, image: np.ndarray, seed: int) -> None:
    """The same of a SAM 2, in its official layout; arguments as of ``save_random_sam``."""
    from alps.bench.everything.stock_sam2 import stock_network

    torch.manual_seed(seed)
    network = stock_network(config)
    decoder = network.sam_mask_decoder
    with torch.inference_mode(False), torch.no_grad():
        for parameter in network.parameters():
            if parameter.abs().max() == 0:
                parameter.normal_(std=0.2)
        for parameter in decoder.parameters():
            if parameter.ndim > 1:
                parameter.mul_(2.5)
        for skip in (decoder.conv_s0, decoder.conv_s1):  # a point is to say more than the image
            skip.weight.mul_(SKIP)
            skip.bias.mul_(SKIP)
        localise(network.sam_prompt_encoder, decoder)
        torch.save({"model": network.state_dict()}, path)
        sam, _ = load_network(path)
        whole = StretchedCrop(0, 0, image.shape[1], image.shape[0], 0)
        encoded = sam.encode(network_pixels(image, whole, config.image_size)[None])

        def ask(points: Tensor) -> tuple[Tensor, Tensor]:
            assert isinstance(sam, Sam2)
            decoded = sam.decode_points(encoded, points[None, :, 0])
            return sam.masks(decoded, encoded)[:, 1:], decoded.predicted_iou[0, :, 1:]

        settle(decoder, config.image_size, ask, shares=True)
    torch.save({"model": network.state_dict()}, path)


def localise(prompts: Any, decoder: Any) -> None:
    """Make the masks of the original's network lie around their points, in place."""
    channels = prompts.embed_dim
    layers = decoder.transformer.layers
    foreground, mark = torch.randn(channels), torch.randn(channels)
    foreground = foreground / foreground.norm()
    mark = (mark - mark.mean()) / (mark - mark.mean()).norm()

    # The point's token is known by one direction, which the layers before the last leave in it.
    prompts.pe_layer.positional_encoding_gaussian_matrix.mul_(REACH)
    prompts.point_embeddings[1].weight.copy_(foreground * channels**0.5)
    for layer in layers:
        own = layer.self_attn
        for projection in (own.q_proj, own.k_proj, own.v_proj, own.out_proj):
            projection.weight.copy_(torch.eye(channels))
            projection.bias.zero_()
        last = layer.mlp.lin2 if hasattr(layer.mlp, "lin2") else layer.mlp.layers[-1]
        last.weight.mul_(0.3)
        layer.cross_attn_token_to_image.out_proj.weight.mul_(0.3)

    # In the last layer a pixel looks at the point if both have the same position in each head's
    # few frequencies, sine and cosine of them, and is marked by what it then sees.
    look = layers[-1].cross_attn_image_to_token
    inner, heads = look.internal_dim, look.num_heads
    sines = torch.arange(inner // 2).reshape(heads, -1)
    chosen = torch.cat([sines, sines + channels // 2], dim=1).flatten()
    pick = torch.zeros(inner, channels)
    pick[torch.arange(inner), chosen] = SHARPNESS
    for projection in (look.q_proj, look.k_proj):
        projection.weight.copy_(pick)
        projection.bias.zero_()
    firsts = slice(0, inner, inner // heads)  # one channel of each head
    look.v_proj.weight.mul_(0.2)
    look.out_proj.weight.mul_(0.3)
    look.v_proj.weight[firsts] = foreground
    look.v_proj.bias[firsts] = 0
    look.out_proj.weight[:, firsts] = MARK * mark[:, None]
    _show_mark(decoder, mark)


def _show_mark(decoder: Any, mark: Tensor) -> None:
    """Carry the mark through the upscaling to the logits."""
    first, second = decoder.output_upscaling[0], decoder.output_upscaling[3]
    for convolution in (first, second):  # nearly the same in each quarter, or masks are chequered
        mean = convolution.weight.mean((2, 3), keepdim=True)
        convolution.weight.copy_(2 * mean + 0.1 * (convolution.weight - mean))
    # x = GELU(x) - GELU(-x) comes through an activation unbent.
    first.weight[:, 0] = 0.3 * mark[:, None, None]
    first.weight[:, 1] = -0.3 * mark[:, None, None]
    sign = torch.tensor([[2.0, -2.0], [-2.0, 2.0]])
    second.weight[:, :3] = 0
    second.weight[:2, :2] = sign[:, :, None, None]
    second.bias[:3] = torch.tensor([0.0, 0.0, 1.0])  # the third is a constant
    for mlp in decoder.output_hypernetworks_mlps[1:]:
        last = mlp.layers[-1]
        last.weight.mul_(0.15)
        last.bias.zero_()
        last.bias[:2] = torch.tensor([8.0, -8.0])


def embed(sam: SamLike, image: np.ndarray) -> Tensor:
    """The image's embedding (1, C, h, w), with our encoder: the same, and sooner."""
    whole = Crop(0, 0, image.shape[1], image.shape[0], 0)
    pixels = network_pixels(image, whole, sam.config.image_size)[None]
    if isinstance(sam, MobileSam):
        measure_norms(sam.image_encoder, pixels)
    return sam.encode(pixels)


def settle(decoder: Any, side: int, ask: Ask, *, shares: bool = False) -> None:
    """Give each output's logits and predicted IoU their usual ranges, in place.

    Args:
        decoder: the original's.
        side: of the network's input.
        ask: the decoder's answers.
        shares: whether predicted IoU is brought between 0 and 1 by a logistic curve.
    """
    at = (torch.arange(PROBES) + 0.5) / PROBES * side
    edges, deviations, ious = [], [], []
    for some in torch.cartesian_prod(at, at)[:, None].split(PROBES):
        logits, iou = ask(some)
        ious.append(iou.logit() if shares else iou)
        # The logit that should be 0 for a mask to cover its share.
        ordered = logits.flatten(2).sort(descending=True).values
        places = [int(share * ordered.shape[2]) for share in COVER]
        edges.append(torch.stack([ordered[:, o, place] for o, place in enumerate(places)], 1))
        deviations.append(ordered.std(2))
    edge, deviation = torch.cat(edges).median(0).values, torch.cat(deviations).median(0).values
    constant = F.gelu(torch.tensor(1.0))  # what the third channel shows
    for output, mlp in enumerate(decoder.output_hypernetworks_mlps[1:]):
        mlp.layers[-1].bias[2] -= edge[output] / constant
        mlp.layers[-1].weight *= CONTRAST / deviation[output]
        mlp.layers[-1].bias *= CONTRAST / deviation[output]
    iou = torch.cat(ious)  # (N, 3)
    mean, spread = IOU_MEAN, IOU_SPREAD
    if shares:  # as steep as the curve is flat there
        mean, spread = math.log(mean / (1 - mean)), spread / (mean * (1 - mean))
    last = decoder.iou_prediction_head.layers[-1]
    scale = spread / iou.std(0).clamp(min=1e-6)
    last.weight[1:] *= scale[:, None]
    last.bias[1:] = scale * (last.bias[1:] - iou.mean(0)) + mean
