"""The two calls that everything mode makes, whoever answers them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self, runtime_checkable

import numpy as np
from torch import Tensor

from alps.engine.sam.config import NetworkConfig


@dataclass
class DecodedMasks:
    """Masks of some points whose predicted IoU passed, ordered by point, then output."""

    logits: Tensor  # (M, 4h, 4w) float32
    predicted_iou: Tensor  # (M,) float32
    point_index: Tensor  # (M,) int64, into all points that were asked


@dataclass(frozen=True)
class Capacity:
    """What a device takes at once. Results depend on it, for products of other shapes are rounded
    otherwise: so it is chosen once a run, and never by what happens to be free.
    """

    images: int  # in a batch of the encoder
    points: int  # in a pass of the decoder

    def halved(self) -> Self | None:
        """A smaller one: images first, then points; None where there is none."""
        if self.images > 1:
            return replace(self, images=self.images // 2)
        return replace(self, points=self.points // 2) if self.points > 1 else None


@dataclass(frozen=True)
class ImagePart:
    """A part of an image, and how many rows and columns of the network's input it is to fill."""

    pixels: np.ndarray  # (h, w, 3) uint8 RGB
    height: int
    width: int


# Embeddings (B, C, h, w) of images that lie ready; called once, by the thread that has the device.
Encoding = Callable[[], Tensor]


@runtime_checkable
class BringsImages(Protocol):
    """A runtime that can bring images to the network's input on its own device."""

    def bring(self, parts: Sequence[ImagePart | None]) -> Encoding | None:
        """Send parts of images to the device, from any thread, while it may be computing.

        None among them is an empty place. Returns None where ``encode`` is all there is.
        """
        ...


@dataclass(frozen=True)
class Asked:
    """Points of an image."""

    embedding: Tensor | None  # (E, h, w) that ``encode`` gave; None: an empty place
    points: Tensor  # (N, 2) x, y in pixels of the network's input


@runtime_checkable
class DecodesBatches(Protocol):
    """A runtime that can decode points of several images at once, and wait once for all."""

    def decode_batch(
        self, images: Sequence[Asked], pred_iou_thresh: float, room: int
    ) -> list[DecodedMasks] | None:
        """All masks of each image that pass; None where ``decode`` is all there is.

        Results depend on how many images there are, and on ``room``, the points that each may have;
        not on the others' points or pixels.
        """
        ...


@runtime_checkable
class Runtime(Protocol):
    """A SAM network that is ready to run somewhere."""

    config: NetworkConfig
    capacity: Capacity
    # Whether it computes on the cores of whoever calls it: several threads gain by calling at once,
    # and each keeps to as many cores as it says (``alps.engine.runtimes.cores``).
    on_callers_cores: bool

    def encode(self, pixels: Tensor) -> Tensor:
        """Embed images.

        Args:
            pixels: (B, 3, S, S) float32, normalised, zero where padded, on any device.

        Returns:
            (B, E, h, w) float32 on the runtime's own device, E the config's ``encoded_channels``:
            the image embedding, C channels, and whatever else ``decode`` takes of the image.
        """
        ...

    def decode(
        self, embedding: Tensor, points: Tensor, pred_iou_thresh: float, points_per_batch: int
    ) -> Iterator[DecodedMasks]:
        """Ask one foreground point at a time for its three masks.

        Args:
            embedding: (E, h, w), one of those that ``encode`` gave.
            points: (N, 2) x, y in pixels of the network's input, on any device.
            pred_iou_thresh: only masks with a greater predicted IoU are upscaled and returned;
                0 or less keeps all.
            points_per_batch: masks of so many points are handed out at a time; it bounds what is
                alive at once, and changes no mask. On a GPU they are more where it has room, and
                on a CPU where its cores would be idle.
        """
        ...


class TwoRuntimes:
    """The encoder of one runtime and the decoder of another, of the same network."""

    def __init__(self, encoder: Runtime, decoder: Runtime) -> None:
        self.encoder, self.decoder = encoder, decoder
        self.config = encoder.config
        self.on_callers_cores = encoder.on_callers_cores and decoder.on_callers_cores

    @property
    def capacity(self) -> Capacity:
        """Images of the one, points of the other."""
        return Capacity(self.encoder.capacity.images, self.decoder.capacity.points)

    @capacity.setter
    def capacity(self, capacity: Capacity) -> None:
        self.encoder.capacity = self.decoder.capacity = capacity

    def encode(self, pixels: Tensor) -> Tensor:
        """See ``Runtime``; by the one."""
        return self.encoder.encode(pixels)

    def bring(self, parts: Sequence[ImagePart | None]) -> Encoding | None:
        """See ``BringsImages``; by the one, if it can."""
        return self.encoder.bring(parts) if isinstance(self.encoder, BringsImages) else None

    def decode(
        self, embedding: Tensor, points: Tensor, pred_iou_thresh: float, points_per_batch: int
    ) -> Iterator[DecodedMasks]:
        """See ``Runtime``; by the other."""
        return self.decoder.decode(embedding, points, pred_iou_thresh, points_per_batch)

    def decode_batch(
        self, images: Sequence[Asked], pred_iou_thresh: float, room: int
    ) -> list[DecodedMasks] | None:
        """See ``DecodesBatches``; by the other, if it can."""
        if not isinstance(self.decoder, DecodesBatches):
            return None
        return self.decoder.decode_batch(images, pred_iou_thresh, room)
