"""Images in batches and points in passes: what runtimes have in common.

A runtime brings the steps of the decoder (``Steps``); predicted IoU is looked at between them, so
that masks which do not pass are never upscaled.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from alps.engine.runtimes.protocol import DecodedMasks
from alps.engine.sam import SamConfig
from alps.engine.sam.absorbed import DecodedPoints

_log = logging.getLogger(__name__)

# Images in one call of the encoder: a GPU is full with a few, a CPU with one.
IMAGES_AT_ONCE = {"cpu": 1, "cuda": 8}

# Image tokens of the points in one pass. A point of an official model has 4 MB of them; on a CPU
# passes that overflow the last-level cache, one a thread, run slower.
_PASS_BYTES = {"cpu": 16 << 20}
# Elsewhere a pass takes a part of what is free, its temporary values being some times as large.
_PASS_SHARE_OF_FREE = 1 / 12
_PASS_BYTES_AT_MOST = 1 << 30


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

    config: SamConfig

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
            points_per_batch = max(points_per_batch, points_in_a_pass(embedding))
        per_pass = self._points_per_pass(embedding, min(points_per_batch, len(points)))
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

    def _points_per_pass(self, embedding: Tensor, points: int) -> int:
        return max(1, min(points, points_in_a_pass(embedding)))


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


def points_in_a_pass(embedding: Tensor) -> int:
    """For how many points an image (C, h, w) may be alive at once on its device."""
    budget = _PASS_BYTES.get(embedding.device.type)
    if budget is None:
        free, _ = torch.cuda.mem_get_info(embedding.device)
        # What PyTorch keeps for itself from earlier passes is as good as free.
        free += torch.cuda.memory_reserved(embedding.device)
        free -= torch.cuda.memory_allocated(embedding.device)
        budget = min(_PASS_BYTES_AT_MOST, int(free * _PASS_SHARE_OF_FREE))
    return max(1, budget // (embedding.numel() * embedding.element_size()))


class Batches:
    """Runs images in batches; where a GPU has no room for one, in smaller ones from then on.

    Args:
        encode: (B, 3, S, S) -> (B, C, h, w).
        out_of_memory: whether an exception of it says so.
        at_most: images in a batch; 0: as many as are given.
    """

    def __init__(
        self,
        encode: Callable[[Tensor], Tensor],
        out_of_memory: Callable[[Exception], bool],
        at_most: int = 0,
    ) -> None:
        self._encode, self._out_of_memory, self._at_most = encode, out_of_memory, at_most

    def __call__(self, pixels: Tensor) -> Tensor:
        """All images, (B, 3, S, S) -> (B, C, h, w)."""
        parts = []
        while pixels.shape[0]:
            batch = pixels[: self._at_most or len(pixels)]
            try:
                parts.append(self._encode(batch))
            except Exception as error:
                if not self._out_of_memory(error) or len(batch) == 1:
                    raise
                self._at_most = len(batch) // 2
                torch.cuda.empty_cache()
                _log.warning(
                    "the GPU is out of memory with %d images at once; %d from now on",
                    len(batch),
                    self._at_most,
                )
                continue
            pixels = pixels[len(batch) :]
        return torch.cat(parts)
