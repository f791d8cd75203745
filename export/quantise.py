"""int8: the encoder's linear layers in eight bits, calibrated on tiles; all else stays float32.

Weights get a scale for each output, activations one for each call (``MatMulInteger`` after
``DynamicQuantizeLinear``). A few channels of a ViT's activations are far larger than the rest and
would leave these little of the eight bits. So, before, each channel that a layer norm hands to a
linear layer is scaled down by what it reaches on the tiles, and the layer's weights are scaled up
by as much: the same function, easier to round (SmoothQuant, arXiv 2211.10438, equation 4).

Scales fixed beforehand for activations as well (``quantize_static``) were tried: twice the error of
these, and slower, on the CPU that bench/results/runtimes.md names.
"""

import copy
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from alps.engine.base.progress import Progress
from alps.engine.sam.image_encoder import Block, ImageEncoder
from alps.engine.sam.model import SamLike
from alps.engine.sam.tiny_vit import TinyViT, WindowBlock

N = TypeVar("N", bound=SamLike)

STRENGTH = 0.5  # how much of the difference between channels moves to the weights


def smoothed(sam: N, tiles: Sequence[Tensor]) -> N:
    """A copy that computes the same, its activations easier to round to eight bits.

    tiles: pixels (1, 3, S, S), normalised, like those that it will see.
    """
    changed = copy.deepcopy(sam)
    pairs = list(_pairs(changed.image_encoder))
    largest = {norm: torch.zeros_like(norm.weight) for norm, _ in pairs}

    def watch(norm: nn.LayerNorm, _: object, normed: Tensor) -> None:
        reached = normed.abs().flatten(0, -2).amax(0)
        largest[norm] = torch.maximum(largest[norm], reached)

    handles = [norm.register_forward_hook(watch) for norm, _ in pairs]
    with torch.no_grad(), Progress(len(tiles), "tiles", "calibrating") as progress:
        for pixels in tiles:
            changed.encode(pixels)
            progress.advance(1)
        for handle in handles:
            handle.remove()
        for norm, linear in pairs:
            weight = linear.weight.abs().amax(0).clamp(min=1e-5)  # of each input
            scale = largest[norm].clamp(min=1e-5) ** STRENGTH / weight ** (1 - STRENGTH)
            norm.weight.div_(scale)
            norm.bias.div_(scale)
            linear.weight.mul_(scale)
    return changed


def quantise(path: Path) -> None:
    """Turn the products with weights of an ONNX file into int8, in place."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(str(path), load_external_data=False)
    weights = {value.name for value in model.graph.initializer}
    names = [
        node.name
        for node in model.graph.node
        if node.op_type in ("MatMul", "Gemm") and weights & set(node.input)
    ]
    external = path.with_name(f"{path.name}.data")
    target = path.with_name(f"int8-{path.name}")
    logging.disable(logging.WARNING)  # it recommends a pre-processing for convolutions
    try:
        quantize_dynamic(
            str(path),
            str(target),
            per_channel=True,
            weight_type=QuantType.QInt8,
            nodes_to_quantize=names,
            use_external_data_format=external.exists(),
        )
    finally:
        logging.disable(logging.NOTSET)
    external.unlink(missing_ok=True)
    target.replace(path)


def _pairs(encoder: ImageEncoder | TinyViT) -> Iterator[tuple[nn.LayerNorm, nn.Linear]]:
    """Norms, and the linear layers that alone read them."""
    for block in encoder.modules():
        if isinstance(block, Block):
            yield block.norm1, block.attn.qkv
            yield block.norm2, block.mlp.lin1
        elif isinstance(block, WindowBlock):
            yield block.attn.norm, block.attn.qkv
            yield block.mlp.norm, block.mlp.fc1
