"""What a layout is: how a checkpoint of some program is told from others, and read."""

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from torch import Tensor

from alps.engine.base.errors import ModelError
from alps.engine.models.folder import CONFIG
from alps.engine.sam.config import MobileSamConfig, ModelDefaults, NetworkConfig, SamConfig
from alps.engine.sam.empty import empty_sam
from alps.engine.sam2 import Sam2Config
from alps.engine.sam2.config import PATCH, STAGES


@dataclass(frozen=True)
class Stored:
    """A checkpoint as it lies on the disk.

    path: the file or folder, named in errors.
    tensors: by the names that they have there, in the types they are stored in.
    metadata: text of a safetensors file.
    documents: JSON objects beside the weights, by the names of their files.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]
    documents: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def config(self) -> Mapping[str, Any]:
        """config.json; empty where there is none."""
        return self.documents.get(CONFIG, {})


@dataclass(frozen=True)
class Contents:
    """What a checkpoint says, in this package's terms.

    config: the network's dimensions.
    tensors: its state dict, by this package's names, in the types they are stored in.
    defaults: thresholds that suit it.
    name: of the official model that this is, where the layout tells.
    """

    config: Any
    tensors: Mapping[str, Tensor]
    defaults: ModelDefaults
    name: str | None = None


@dataclass(frozen=True)
class Written:
    """What a layout makes of a model.

    tensors: by that layout's names.
    metadata: text for a safetensors file.
    documents: JSON objects beside the weights, by the names of their files.
    """

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str] = field(default_factory=dict)
    documents: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


class Form(enum.Enum):
    """What a checkpoint is on the disk."""

    FOLDER = enum.auto()
    PICKLED = enum.auto()  # .pth, .pt
    SAFETENSORS = enum.auto()


@dataclass(frozen=True)
class Layout:
    """One program's way to store a model.

    name: what errors call it.
    form: what it is written as.
    recognises: whether a checkpoint is laid out so; looks at names only, and raises nothing.
    read: the contents. Raises ModelError where something is missing.
    holds: whether models of these dimensions can be written.
    write: what to write of a model that it holds.
    model_types: what ``config.json`` calls models of this layout, where there is one.
    network: an empty network (meta device) of the dimensions in ``Contents.config``.
    """

    name: str
    form: Form
    recognises: Callable[[Stored], bool]
    read: Callable[[Stored], Contents]
    holds: Callable[[Any], bool]
    write: Callable[[Contents], Written]
    model_types: tuple[str, ...] = ()
    network: Callable[[Any], Any] = empty_sam


def check_dimensions(config: NetworkConfig, tensors: int, path: Path) -> None:
    """Refuse numbers that no network can have before they fail somewhere deep in it.

    tensors: how many the file holds; a network of more layers would be built for nothing.

    Raises:
        ModelError: they are out of range or do not go together.
    """
    values = config.to_dict()
    numbers = [v for v in values.values() if isinstance(v, int | float)]
    listed = [n for v in values.values() if isinstance(v, list) for n in v]
    if (
        not all(0 <= n < 1 << 20 for n in (*numbers, *listed))
        or not all(values[f.name] for f in fields(NetworkConfig) if f.name in values)
        or max(config.decoder_depth, config.iou_head_depth) > tensors
        or config.image_size % config.patch_size
        or config.embedding_channels % (2 * config.decoder_heads)
        or not _encoder_fits(config, tensors)
    ):
        raise ModelError(
            f"{path}: has dimensions that do not go together ({config}); the file is damaged or "
            "was not made by SAM's code, get it again"
        )


def _encoder_fits(config: NetworkConfig, tensors: int) -> bool:
    if isinstance(config, Sam2Config):
        windows = config.window_sizes
        return (
            len(config.stage_blocks) == len(windows) == STAGES
            and min(*config.stage_blocks, *windows, config.position_size) > 0
            and sum(config.stage_blocks) <= tensors
            and len(config.global_blocks) <= sum(config.stage_blocks)
            and config.encoder_heads > 0
            and config.encoder_width > 0
            and config.encoder_width % config.encoder_heads == 0
            # The next stage's first block pools within windows, and a tile of positions is one.
            and not any(window % 2 for window in windows[:-1])
            and config.image_size % (2 * config.patch_size) == 0
            and config.patch_size == PATCH
            and config.image_size // (PATCH // 4) % windows[0] == 0
            and config.embedding_channels % 8 == 0
        )
    if isinstance(config, MobileSamConfig):
        widths, heads = config.stage_widths, config.stage_heads
        stages = (widths, config.stage_blocks, heads, config.window_sizes)
        return (
            len(widths) > 1
            and config.patch_size == 1 << len(widths)
            and all(len(stage) == len(widths) and all(stage) for stage in stages)
            and sum(config.stage_blocks) <= tensors
            and not any(width % count for width, count in zip(widths, heads, strict=True))
        )
    assert isinstance(config, SamConfig)
    return (
        0 < config.encoder_depth <= tensors
        and config.encoder_heads > 0
        and config.encoder_width > 0
        and config.encoder_width % config.encoder_heads == 0
        and len(config.global_blocks) <= config.encoder_depth
    )
