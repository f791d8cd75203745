"""The two calls that everything mode makes, whoever answers them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from alps.engine.sam import SamConfig


@dataclass
class DecodedMasks:
    """Masks of some points whose predicted IoU passed, ordered by point, then output."""

    logits: Tensor  # (M, 4h, 4w) float32
    predicted_iou: Tensor  # (M,) float32
    point_index: Tensor  # (M,) int64, into all points that were asked


@runtime_checkable
class Runtime(Protocol):
    """A SAM network that is ready to run somewhere."""

    config: SamConfig
    images_at_once: int  # worth encoding in one call here

    def encode(self, pixels: Tensor) -> Tensor:
        """Embed images.

        Args:
            pixels: (B, 3, S, S) float32, normalised, zero where padded, on any device.

        Returns:
            (B, C, h, w) float32 on the runtime's own device.
        """
        ...

    def decode(
        self, embedding: Tensor, points: Tensor, pred_iou_thresh: float, points_per_batch: int
    ) -> Iterator[DecodedMasks]:
        """Ask one foreground point at a time for its three masks.

        Args:
            embedding: (C, h, w), one of those that ``encode`` gave.
            points: (N, 2) x, y in pixels of the network's input, on any device.
            pred_iou_thresh: only masks with a greater predicted IoU are upscaled and returned;
                0 or less keeps all.
            points_per_batch: masks of so many points are handed out at a time; it bounds what is
                alive at once, and changes no mask. On a GPU they are more where it has room.
        """
        ...


class TwoRuntimes:
    """The encoder of one runtime and the decoder of another, of the same network."""

    def __init__(self, encoder: Runtime, decoder: Runtime) -> None:
        self.encoder, self.decoder = encoder, decoder
        self.config, self.images_at_once = encoder.config, encoder.images_at_once

    def encode(self, pixels: Tensor) -> Tensor:
        """See ``Runtime``; by the one."""
        return self.encoder.encode(pixels)

    def decode(
        self, embedding: Tensor, points: Tensor, pred_iou_thresh: float, points_per_batch: int
    ) -> Iterator[DecodedMasks]:
        """See ``Runtime``; by the other."""
        return self.decoder.decode(embedding, points, pred_iou_thresh, points_per_batch)
