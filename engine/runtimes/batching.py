"""Images in batches and points in passes: what runtimes have in common.

A runtime brings the steps of the decoder (``Steps``); predicted IoU is looked at between them, so
that masks which do not pass are never upscaled.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from alps.engine.base.memory import is_out_of_memory
from alps.engine.runtimes.protocol import Capacity, DecodedMasks, Runtime
from alps.engine.sam.absorbed import DecodedPoints
from alps.engine.sam.config import NetworkConfig
from alps.kernels.base.threads import threads

# Images in one call of the encoder: a GPU is full with a few, a CPU with one.
IMAGES_AT_ONCE = {"cpu": 1, "cuda": 8}

# Points in one pass on a CPU, where each thread has a pass of its own: with fewer, the tokens' side
# reads all of its weights more often, and Python has more to do (of an official model's, 4 take a
# tenth longer than 16, 8 a twentieth; of `tiny`'s, 16 a tenth longer than 32); more would leave
# threads without a pass.
_POINTS_ON_CPU = 32
# Image tokens of the points in one pass; a point of an official model has 4 MB of them. An Apple
# GPU has the whole machine's memory: what of it is free says nothing of the least that one has.
_PASS_BYTES = {"cpu": 64 << 20, "mps": 256 << 20}
# Elsewhere a pass takes a part of the memory, its temporary values being some times as large.
_PASS_SHARE = 1 / 24
_PASS_BYTES_AT_MOST = 1 << 30


def capacity_of(device: torch.device, config: NetworkConfig) -> Capacity:
    """What a device takes at once, by its whole memory, whoever else uses it."""
    budget = _PASS_BYTES.get(device.type)
    if budget is None:
        memory = torch.cuda.get_device_properties(device).total_memory
        budget = min(_PASS_BYTES_AT_MOST, int(memory * _PASS_SHARE))
    of_a_point = 4 * config.embedding_channels * config.embedding_size**2  # float32
    points = max(1, budget // of_a_point)
    if device.type == "cpu":
        points = min(points, _POINTS_ON_CPU)
    return Capacity(IMAGES_AT_ONCE.get(device.type, 1), points)


class Steps(Protocol):
    """A point decoder in three steps; ``share`` decides what it hands to ``transform``."""

    def share(self, embedding: Tensor) -> Any:
        """What all points of an image (C, h, w) share."""

    def transform(self, image: Any, xy: Tensor) -> DecodedPoints:
        """Points (N, 2) in input pixels, up to their predicted IoU."""

    def masks(self, decoded: DecodedPoints, point: Tensor, output: Tensor) -> Tensor:
        """Logits (S, 4h, 4w) of masks, ``point`` (S,) ascending and ``output`` (S,) int64."""


class InPasses:
    """The ``decode`` of a runtime: points in batches, each in passes that fit a cache."""

    config: NetworkConfig
    capacity: Capacity
    on_callers_cores: bool

    @torch.inference_mode()
    def decode(
        self,
        embedding: Tensor,
        points: Tensor,
        pred_iou_thresh: float,
        points_per_batch: int = 64,
    ) -> Iterator[DecodedMasks]:
        """Masks of points (N, 2) whose predicted IoU passes; see ``Runtime``."""
        points = points.to(embedding.device, torch.float32)
        if embedding.device.type != "cpu":
            # Each batch costs the host some steps, for which a GPU waits: it gets as many points
            # as it has room for.
            points_per_batch = max(points_per_batch, self.capacity.points)
        elif self.on_callers_cores and points_per_batch > self.capacity.points:
            # A pass for each thread.
            points_per_batch = max(points_per_batch, self.capacity.points * threads())
        per_pass = self.capacity.points
        image = None
        for first in range(0, len(points), points_per_batch):
            batch = points[first : first + points_per_batch]
            if image is None:
                image = self._share(embedding)
            parts = self._run(image, batch.split(per_pass), pred_iou_thresh)
            for number, part in enumerate(parts):
                part.point_index += first + number * per_pass
            masks = DecodedMasks(
                logits=torch.cat([part.logits for part in parts]),
                predicted_iou=torch.cat([part.predicted_iou for part in parts]),
                point_index=torch.cat([part.point_index for part in parts]),
            )
            wait_for(embedding.device)
            yield masks

    def _share(self, embedding: Tensor) -> Any:
        raise NotImplementedError

    def _run(self, image: Any, passes: Sequence[Tensor], threshold: float) -> list[DecodedMasks]:
        """Points (N, 2) of each pass; each counts its points from 0."""
        raise NotImplementedError


def decode_pass(
    steps: Steps, image: Any, points: Tensor, threshold: float, side: int
) -> DecodedMasks:
    """One pass over points (N, 2): only masks past the threshold are upscaled, to side x side."""
    decoded = steps.transform(image, points)
    predicted_iou = decoded.predicted_iou.float()
    passed = predicted_iou > threshold if threshold > 0 else torch.ones_like(predicted_iou) > 0
    point_index, output = passed.nonzero(as_tuple=True)
    logits = (
        steps.masks(decoded, point_index, output).float()
        if len(point_index)
        else predicted_iou.new_zeros(0, side, side)
    )
    return DecodedMasks(logits, predicted_iou[point_index, output], point_index)


def wait_for(device: torch.device) -> None:
    """Let a GPU's current stream end: the kernels after it run in a stream of their own.

    The clock of a stage stops here too.
    """
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()


def in_batches(encode: Callable[[Tensor], Tensor], pixels: Tensor, size: int) -> Tensor:
    """All images, (B, 3, S, S) -> (B, C, h, w), ``size`` in a call."""
    return torch.cat([encode(batch) for batch in pixels.split(size)])


def fit_capacity(runtime: Runtime) -> None:
    """Halve a runtime's capacity until a batch and a pass of it, as large as any can be, fit.

    Raises what the device says where the least does not.
    """
    while True:
        try:
            _largest(runtime)
            return
        except Exception as error:
            smaller = runtime.capacity.halved()
            if smaller is None or not is_out_of_memory(error):
                raise
        # Not earlier: while the error is at hand, so is all that the failed pass had made.
        runtime.capacity = smaller
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _largest(runtime: Runtime) -> None:
    """A batch and a pass of it; nothing of them is left."""
    side, capacity = runtime.config.image_size, runtime.capacity
    embeddings = runtime.encode(torch.zeros(capacity.images, 3, side, side))
    points = torch.full((capacity.points, 2), side / 2)
    for _ in runtime.decode(embeddings[0], points, 0.0, len(points)):
        pass
