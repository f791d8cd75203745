"""Checkpoints of segment_anything. They do not say their dimensions: the shapes of tensors do."""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from alps.engine.base.errors import ModelError
from alps.engine.models.layouts.base import Contents, Form, Layout, Stored, Written
from alps.engine.models.layouts.dimensions import check_dimensions
from alps.engine.models.layouts.own import defaults_in
from alps.engine.sam.config import SamConfig

ENCODER, PROMPTS, DECODER = "image_encoder.", "prompt_encoder.", "mask_decoder."
DECODER_HEADS = 8  # leaves no trace in the shapes; all official models have it


def infer_config(tensors: Mapping[str, Tensor], path: Path) -> SamConfig:
    """Return the dimensions of the network that these tensors belong to.

    Args:
        tensors: a state dict in the official layout.
        path: named in errors.

    Raises:
        ModelError: a tensor that tells a dimension is missing or has another number of axes, or
            there are no relative positions, which alone tell heads and windows.
    """

    def shape(name: str, axes: int) -> tuple[int, ...]:
        return shape_of(tensors, name, axes, path)

    grid, width = shape(ENCODER + "pos_embed", 4)[2:]
    patch = shape(ENCODER + "patch_embed.proj.weight", 4)[2]
    depth = _count(tensors, ENCODER + r"blocks\.(\d+)\.")
    # A table of 2·side - 1 offsets a block, each as wide as a head.
    tables = [shape(f"{ENCODER}blocks.{block}.attn.rel_pos_h", 2) for block in range(depth)]
    if not tables or not tables[0][1]:
        raise ModelError(f"{path}: not a SAM in the official layout, its encoder has no blocks")
    sides = [(rows + 1) // 2 for rows, _ in tables]
    windows = Counter(side for side in sides if side != grid)
    return SamConfig(
        image_size=grid * patch,
        patch_size=patch,
        encoder_width=width,
        encoder_depth=depth,
        encoder_heads=width // tables[0][1],
        # Several sizes of window fail later, when shapes are compared.
        window_size=windows.most_common(1)[0][0] if windows else 0,
        global_blocks=tuple(block for block, side in enumerate(sides) if side == grid),
        **decoder_dimensions(tensors, path),
    )


def decoder_dimensions(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
    """What the parts behind the image encoder say of themselves, in ``NetworkConfig``'s names.

    Raises:
        ModelError: as ``infer_config``.
    """

    def shape(name: str, axes: int) -> tuple[int, ...]:
        return shape_of(tensors, name, axes, path)

    return {
        "embedding_channels": shape(ENCODER + "neck.0.weight", 4)[0],
        "decoder_depth": _count(tensors, DECODER + r"transformer\.layers\.(\d+)\."),
        "decoder_heads": DECODER_HEADS,
        "decoder_hidden": shape(DECODER + "transformer.layers.0.mlp.lin1.weight", 2)[0],
        "iou_head_hidden": shape(DECODER + "iou_prediction_head.layers.0.weight", 2)[0],
        "iou_head_depth": _count(tensors, DECODER + r"iou_prediction_head\.layers\.(\d+)\."),
        "mask_input_channels": shape(PROMPTS + "mask_downscaling.3.weight", 4)[0],
        "multimask_outputs": shape(DECODER + "mask_tokens.weight", 2)[0] - 1,
    }


def shape_of(tensors: Mapping[str, Tensor], name: str, axes: int, path: Path) -> tuple[int, ...]:
    """The shape of a tensor that tells a dimension; ModelError where there is none like it."""
    if name not in tensors or tensors[name].dim() != axes:
        found = f"has {tensors[name].dim()} axes" if name in tensors else "is missing"
        raise ModelError(
            f"{path}: not a SAM in the official layout, {name} {found} (the file has "
            f"{len(tensors)} tensors). Use a checkpoint of Segment Anything, "
            "`alps models` says of which kinds"
        )
    return tuple(tensors[name].shape)


def _read(stored: Stored) -> Contents:
    config = infer_config(stored.tensors, stored.path)
    check_dimensions(config, len(stored.tensors), stored.path)
    # Plain safetensors may have thresholds beside them.
    return Contents(config, stored.tensors, defaults_in(stored))


def _write(contents: Contents) -> Written:
    return Written(contents.tensors)


def _holds(config: Any) -> bool:
    # Tensors alone say nothing of other heads, and nothing of heads without relative positions.
    return (
        isinstance(config, SamConfig)
        and config.relative_positions
        and config.decoder_heads == DECODER_HEADS
    )


def _count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    """One more than the greatest index that the pattern finds in a name; 0 where it finds none."""
    found = (re.match(pattern, name) for name in tensors)
    return max((int(match[1]) + 1 for match in found if match), default=0)


LAYOUT = Layout("Segment Anything", Form.PICKLED, lambda stored: True, _read, _holds, _write)
