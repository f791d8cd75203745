"""Checkpoints of facebookresearch/sam2: a state dict under "model", the video part among it.

They do not say their dimensions, and some leave no trace in shapes: heads, later stages' windows,
which blocks are global. So the sizes that were published are known by the others.
"""

import re
from collections.abc import Mapping
from typing import Any, NoReturn

from torch import Tensor

from alps.engine.base.errors import ModelError
from alps.engine.models.layouts.base import Contents, Form, Layout, Stored
from alps.engine.sam2 import OFFICIAL, SAM2_DEFAULTS, Sam2Config
from alps.engine.sam2.empty import empty_sam2

TRUNK = "image_encoder.trunk."
KNOWN_BY = TRUNK + "patch_embed.proj.weight"
# What a video needs: an image's masks do not depend on it.
VIDEO = re.compile(
    r"(memory_attention|memory_encoder|obj_ptr_proj|obj_ptr_tpos_proj|mask_downsample)\..*"
    r"|maskmem_tpos_enc|no_mem_pos_enc|no_obj_ptr|no_obj_embed_spatial"
)
OF_2_1 = "no_obj_embed_spatial"  # SAM 2.0 has not; of an image it computes the same
MLP = re.compile(r"(.*(?:trunk\.blocks|transformer\.layers)\.\d+\.mlp\.)layers\.([01])(\..*)")


def _recognises(stored: Stored) -> bool:
    return KNOWN_BY in stored.tensors


def _read(stored: Stored) -> Contents:
    found = {name: t for name, t in stored.tensors.items() if not VIDEO.fullmatch(name)}
    size, config = _published(found, stored)
    name = size if OF_2_1 in stored.tensors else size.replace("sam2.1", "sam2")
    tensors = {_ours(key): tensor for key, tensor in found.items()}
    return Contents(config, tensors, SAM2_DEFAULTS, name)


def _published(tensors: Mapping[str, Tensor], stored: Stored) -> tuple[str, Sam2Config]:
    """The published size that these tensors are of."""
    traces = _traces(tensors)
    for name, config in OFFICIAL.items():
        if traces == _traces(empty_sam2(config).state_dict()):
            return name, config
    raise ModelError(
        f"{stored.path}: a SAM 2 of none of the published sizes, and its file does not say its "
        f"dimensions; use one of {', '.join(OFFICIAL)}, or save it with Hugging Face's Sam2Model"
    )


def _traces(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Shapes that tell one size from another."""
    told = re.compile(
        re.escape(TRUNK) + r"(patch_embed\.proj\.weight|pos_embed|pos_embed_window"
        r"|blocks\.\d+\.(attn\.)?(qkv|proj)\.weight)"
    )
    return {name: tuple(t.shape) for name, t in tensors.items() if told.fullmatch(name)}


def _ours(name: str) -> str:
    """What a tensor of theirs is called here."""
    name = name.removeprefix("sam_")
    if within := MLP.fullmatch(name):
        return f"{within[1]}lin{int(within[2]) + 1}{within[3]}"
    return name


def _write(contents: Contents) -> NoReturn:
    raise ModelError("SAM 2's own programs open no file without its video part, which is not kept")


def _holds(config: Any) -> bool:
    return False  # see _write


LAYOUT = Layout("SAM 2", Form.PICKLED, _recognises, _read, _holds, _write, network=empty_sam2)
