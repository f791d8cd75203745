"""What comes back from a device of a tile: fields of one buffer, so that a batch is one copy."""

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

ALIGNED = 16  # bytes; each field begins at a multiple

# Numbers of ``facts``: how many masks stay, what went wrong, and pixels under at least one mask.
STAY, FLAGS, COVERED = range(3)
# What can go wrong, bits of a sum; the tile is then computed image by image, on today's way.
TOO_MANY_MASKS, NO_NUMBER, TOO_MANY_RUNS, TOO_LONG_CODES, NO_CELL = (1 << bit for bit in range(5))


@dataclass(frozen=True)
class Room:
    """How much of a tile a device has room for. A tile that has more is computed without it."""

    masks: int  # of which the predicted IoU passed
    kept: int = 512  # that stay
    runs: int = 400_000  # of all that stay, and of what lies under none
    code_bytes: int = 1 << 20  # of their COCO codes


@dataclass(frozen=True)
class Extent:
    """Of how many tiles, and how large they may be."""

    tiles: int
    height: int
    width: int

    def holds(self, height: int, width: int) -> bool:
        """Whether tiles of this size have room."""
        return height <= self.height and width <= self.width

    def joined(self, height: int, width: int) -> Self:
        """One with room for tiles of this size, too."""
        return replace(self, height=max(self.height, height), width=max(self.width, width))


@dataclass(frozen=True)
class Field:
    """A part of a tile's record."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    begin: int = 0  # byte

    @property
    def size(self) -> int:
        """Bytes."""
        return int(np.prod(self.shape)) * self.dtype.itemsize


class Record:
    """The layout of a tile's record.

    Args:
        room: of a tile.
        rest: places behind the masks for what lies under none.
        channels: of embeddings.
    """

    def __init__(self, room: Room, rest: int, channels: int) -> None:
        seats = room.kept + rest
        fields = {
            "facts": Field((3,), torch.int32),
            "kept": Field((room.kept,), torch.int32),  # which of the tile's masks
            "point": Field((room.kept,), torch.int64),  # of those that were asked
            "predicted_iou": Field((room.kept,), torch.float32),
            "stability": Field((room.kept,), torch.float32),
            "extent": Field((seats, 5), torch.int32),  # area, then the box
            "sums": Field((seats, 6), torch.int64),  # of L*, a*, b*, and of their squares
            "code_starts": Field((seats + 1,), torch.int64),
            "embeddings": Field((seats, channels), torch.float16),
            "codes": Field((room.code_bytes,), torch.uint8),
        }
        self.fields, end = {}, 0
        for name, field in fields.items():
            self.fields[name] = Field(field.shape, field.dtype, end)
            end += -(-field.size // ALIGNED) * ALIGNED
        self.bytes = end

    def views(self, buffer: Tensor) -> dict[str, Tensor]:
        """Fields (B, …) of records (B, bytes) uint8, in place."""
        return {
            name: buffer[:, field.begin : field.begin + field.size]
            .view(field.dtype)
            .unflatten(1, field.shape)
            for name, field in self.fields.items()
        }

    def arrays(self, buffer: Tensor) -> dict[str, np.ndarray]:
        """Fields (…) of one record (bytes,) uint8 in the host's memory."""
        return {name: view[0].numpy() for name, view in self.views(buffer[None]).items()}


def no_flags(facts: Any) -> bool:
    """Whether nothing went wrong with a tile."""
    return int(facts[FLAGS]) == 0
