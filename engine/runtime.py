"""Where SAM's network runs: the two calls that everything mode makes, and their PyTorch version."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from alps.engine.sam import Sam, SamConfig

# Image tokens of the prompts in one pass. A prompt of an official model has 4 MB of them; on a
# CPU a pass that overflows the last-level cache runs at half the speed.
_PASS_BYTES = {"cpu": 16 << 20}
_PASS_BYTES_ELSEWHERE = 512 << 20


@dataclass
class DecodedMasks:
    """Masks of a batch of points whose predicted IoU passed, ordered by point, then output."""

    logits: Tensor  # (M, 4h, 4w) float32
    predicted_iou: Tensor  # (M,) float32
    point_index: Tensor  # (M,) int64, into the points that were asked


@runtime_checkable
class Runtime(Protocol):
    """A SAM network that is ready to run somewhere."""

    config: SamConfig

    def encode(self, pixels: Tensor) -> Tensor:
        """Embed images.

        Args:
            pixels: (B, 3, S, S) float32, normalised, zero where padded, on any device.

        Returns:
            (B, C, h, w) float32 on the runtime's own device.
        """
        ...

    def decode(self, embedding: Tensor, points: Tensor, pred_iou_thresh: float) -> DecodedMasks:
        """Ask one foreground point at a time for its three masks.

        Args:
            embedding: (C, h, w), one of those that ``encode`` gave.
            points: (N, 2) x, y in pixels of the network's input, on any device.
            pred_iou_thresh: only masks with a greater predicted IoU are upscaled and returned;
                0 or less keeps all.
        """
        ...


class TorchRuntime:
    """SAM in PyTorch on the device its weights lie on: the reference for every other runtime."""

    def __init__(self, sam: Sam) -> None:
        self.sam = sam.eval()
        self.config = sam.config

    @torch.inference_mode()
    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, S, S), normalised -> embeddings (B, C, h, w); see ``Runtime``."""
        return self.sam.encode(pixels.to(self.sam.device))

    @torch.inference_mode()
    def decode(self, embedding: Tensor, points: Tensor, pred_iou_thresh: float) -> DecodedMasks:
        """Masks of points (N, 2) whose predicted IoU passes; see ``Runtime``."""
        points = points.to(embedding.device, torch.float32)
        per_pass = self._points_per_pass(embedding)
        side = self.config.low_resolution_size
        found = [  # so that there is something to join where no mask passes
            DecodedMasks(
                logits=embedding.new_zeros(0, side, side),
                predicted_iou=embedding.new_zeros(0),
                point_index=torch.zeros(0, dtype=torch.int64, device=embedding.device),
            )
        ]
        for first in range(0, len(points), per_pass):
            some = self._decode_pass(embedding, points[first : first + per_pass], pred_iou_thresh)
            some.point_index += first
            found.append(some)
        return DecodedMasks(
            logits=torch.cat([masks.logits for masks in found]),
            predicted_iou=torch.cat([masks.predicted_iou for masks in found]),
            point_index=torch.cat([masks.point_index for masks in found]),
        )

    def _decode_pass(self, embedding: Tensor, points: Tensor, threshold: float) -> DecodedMasks:
        decoded = self.sam.decode_points(embedding[None], points[None])
        predicted_iou = decoded.predicted_iou[0, :, 1:]  # output 0 is the single mask, not asked
        passed = predicted_iou > threshold if threshold > 0 else torch.ones_like(predicted_iou) > 0
        point_index, output = passed.nonzero(as_tuple=True)
        # Only prompts with a mask left are upscaled; `row` finds a prompt among them.
        prompts, row = point_index.unique(return_inverse=True)
        if len(prompts):
            logits = self.sam.mask_decoder.masks(
                decoded.mask_tokens[0, prompts], decoded.image_tokens[0, prompts]
            )[row, output + 1]
        else:
            side = self.config.low_resolution_size
            logits = embedding.new_zeros(0, side, side)
        return DecodedMasks(logits, predicted_iou[passed], point_index)

    def _points_per_pass(self, embedding: Tensor) -> int:
        budget = _PASS_BYTES.get(embedding.device.type, _PASS_BYTES_ELSEWHERE)
        return max(1, budget // (embedding.numel() * embedding.element_size()))
