"""Checkpoints of MobileSAM (``mobile_sam.pt``). They do not say their dimensions: tensors do."""

import re
from typing import Any

import torch
from torch import Tensor

from alps.engine.models.layouts.base import Contents, Form, Layout, Stored, Written
from alps.engine.models.layouts.dimensions import check_dimensions
from alps.engine.models.layouts.official import decoder_dimensions, shape_of
from alps.engine.models.layouts.own import defaults_in
from alps.engine.sam.config import MobileSamConfig

ENCODER = "image_encoder."
FIRST_CONVOLUTION = ENCODER + "patch_embed.seq.0.c.weight"
# A classifier that its encoder was trained with, and counts of batches: nothing reads them.
CLASSES = 1000
UNREAD = re.compile(r"image_encoder\.(norm_head|head)\..*|.*\.num_batches_tracked")
COUNTED = ".running_var"  # beside which a count of batches stands


def _recognises(stored: Stored) -> bool:
    return FIRST_CONVOLUTION in stored.tensors


def _read(stored: Stored) -> Contents:
    tensors = {name: t for name, t in stored.tensors.items() if not UNREAD.fullmatch(name)}
    config = _dimensions(stored)
    check_dimensions(config, len(tensors), stored.path)
    return Contents(config, tensors, defaults_in(stored))


def _dimensions(stored: Stored) -> MobileSamConfig:
    def shape(name: str, axes: int) -> tuple[int, ...]:
        return shape_of(stored.tensors, name, axes, stored.path)

    widths = [shape(ENCODER + "patch_embed.seq.2.c.weight", 4)[0]]
    blocks: list[int] = []
    # The first stage has neither heads nor windows.
    heads, windows = [MobileSamConfig.stage_heads[0]], [MobileSamConfig.window_sizes[0]]
    for stage in range(len(MobileSamConfig.stage_widths)):
        prefix = f"{ENCODER}layers.{stage}."
        inside = re.compile(re.escape(prefix) + r"blocks\.(\d+)\.")
        found = {int(match[1]) for name in stored.tensors if (match := inside.match(name))}
        blocks.append(len(found))
        if stage > 0:
            offsets = shape(prefix + "blocks.0.attn.attention_biases", 2)
            heads.append(offsets[0])
            windows.append(round(offsets[1] ** 0.5))
        if stage + 1 < len(MobileSamConfig.stage_widths):
            widths.append(shape(prefix + "downsample.conv3.c.weight", 4)[0])
    return MobileSamConfig(
        **decoder_dimensions(stored.tensors, stored.path),
        stage_widths=tuple(widths),
        stage_blocks=tuple(blocks),
        stage_heads=tuple(heads),
        window_sizes=tuple(windows),
    )


def _write(contents: Contents) -> Written:
    """With the parts that nothing reads as they begin, so that its authors' code opens it."""
    width = contents.config.stage_widths[-1]
    unread = {
        "norm_head.weight": torch.ones(width),
        "norm_head.bias": torch.zeros(width),
        "head.weight": torch.zeros(CLASSES, width),
        "head.bias": torch.zeros(CLASSES),
    }
    tensors: dict[str, Tensor] = {}
    for name, tensor in contents.tensors.items():
        tensors[name] = tensor
        if name.endswith(COUNTED):
            count = name.removesuffix(COUNTED) + ".num_batches_tracked"
            tensors[count] = torch.tensor(0)
    return Written(tensors | {ENCODER + name: tensor for name, tensor in unread.items()})


def _holds(config: Any) -> bool:
    given = MobileSamConfig()
    # What it does not say, its code takes for granted.
    return (
        isinstance(config, MobileSamConfig)
        and config.image_size == given.image_size
        and config.decoder_heads == given.decoder_heads
        and (config.stage_heads[0], config.window_sizes[0])
        == (given.stage_heads[0], given.window_sizes[0])
    )


LAYOUT = Layout("MobileSAM", Form.PICKLED, _recognises, _read, _holds, _write)
