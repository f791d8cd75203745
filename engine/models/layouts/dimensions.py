"""Dimensions that a checkpoint says or shows: numbers that a network can have, and no others."""

from dataclasses import fields
from pathlib import Path

from alps.engine.base.errors import ModelError
from alps.engine.sam.config import MobileSamConfig, NetworkConfig, SamConfig
from alps.engine.sam2 import Sam2Config
from alps.engine.sam2.config import PATCH, STAGES


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
