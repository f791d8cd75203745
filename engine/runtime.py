"""Where SAM's network runs: the two calls that everything mode makes, and their PyTorch version."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from alps.engine.errors import SettingsError
from alps.engine.sam import Sam, SamConfig
from alps.engine.sam.absorbed import AbsorbedDecoder, DecodedPoints, SharedImage
from alps.engine.sam.image_encoder import attend_compiled
from alps.engine.settings import PRECISIONS
from alps.kernels.blas import one_blas_thread
from alps.kernels.threads import spread, threads

_log = logging.getLogger(__name__)

# Image tokens of the points in one pass. A point of an official model has 4 MB of them; on a CPU
# passes that overflow the last-level cache, one a thread, run slower.
_PASS_BYTES = {"cpu": 16 << 20}
# Elsewhere a pass takes a part of what is free, its temporary values being some times as large.
_PASS_SHARE_OF_FREE = 1 / 12
_PASS_BYTES_AT_MOST = 512 << 20

_DTYPES = dict(zip(PRECISIONS, (None, torch.bfloat16, torch.float16), strict=True))

# Images in one call of the encoder: a GPU is full with a few, a CPU with one.
_IMAGES_AT_ONCE = {"cpu": 1, "cuda": 8}


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
                alive at once, and changes no mask.
        """
        ...


class TorchRuntime:
    """SAM in PyTorch on the device its weights lie on: the reference for every other runtime.

    Args:
        sam: the network.
        precision: fp32 gives stock SAM's masks. bf16 and fp16 compute products in that precision
            (norms and softmax stay in fp32) and change some masks.
        decoder: how points are decoded. ``absorbed`` moves projections to the tokens' side;
            ``compiled`` is that with the pixel side in the CPU's kernels; ``plain`` is the network
            as it was trained. ``auto``: compiled on a CPU, absorbed elsewhere.

    Raises:
        SettingsError: an argument is none of these, or not possible on this device.
    """

    def __init__(self, sam: Sam, *, precision: str = "fp32", decoder: str = "auto") -> None:
        self.sam = sam.eval()
        self.config = sam.config
        self.images_at_once = _IMAGES_AT_ONCE.get(sam.device.type, 1)
        if precision not in PRECISIONS:
            raise SettingsError(f"precision {precision!r}: give one of {', '.join(PRECISIONS)}")
        self.precision = precision
        self._encoded_at_once = 0  # as many as are given
        on_cpu = sam.device.type == "cpu"
        if decoder == "auto":
            decoder = "compiled" if on_cpu else "absorbed"
        if decoder not in ("compiled", "absorbed", "plain"):
            raise SettingsError(f"decoder {decoder!r}: give auto, compiled, absorbed or plain")
        if decoder == "compiled" and not on_cpu:
            raise SettingsError("the compiled decoder runs on a CPU only; give decoder='absorbed'")
        self._compiled = decoder == "compiled"
        self._decoder = (
            _PlainDecoder(sam)
            if decoder == "plain"
            else AbsorbedDecoder(sam, compiled=self._compiled)
        )
        self._attend = attend_compiled if self._compiled and precision == "fp32" else None
        # The compiled kernels know float32 only; the few products left beside them gain nothing.
        self._decoder_precision = "fp32" if self._compiled else precision

    @torch.inference_mode()
    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, S, S), normalised -> embeddings (B, C, h, w); see ``Runtime``.

        A GPU that runs out of memory gets smaller batches from then on.
        """
        parts = []
        while pixels.shape[0]:
            batch = pixels[: self._encoded_at_once or len(pixels)]
            try:
                with self._autocast(self.precision):
                    parts.append(self.sam.encode(batch.to(self.sam.device), self._attend).float())
            except torch.cuda.OutOfMemoryError:
                if len(batch) == 1:
                    raise
                self._encoded_at_once = len(batch) // 2
                torch.cuda.empty_cache()
                _log.warning(
                    "the GPU is out of memory with %d images at once; %d from now on",
                    len(batch),
                    self._encoded_at_once,
                )
                continue
            pixels = pixels[len(batch) :]
        return torch.cat(parts)

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
        per_pass = self._points_per_pass(embedding, min(points_per_batch, len(points)))
        image = None
        for first in range(0, len(points), points_per_batch):
            batch = points[first : first + points_per_batch]
            if image is None:
                with self._autocast(self._decoder_precision):
                    image = self._decoder.share(embedding)
            parts = self._decode_batch(image, batch, pred_iou_thresh, per_pass)
            for number, part in enumerate(parts):
                part.point_index += first + number * per_pass
            yield DecodedMasks(
                logits=torch.cat([part.logits for part in parts]),
                predicted_iou=torch.cat([part.predicted_iou for part in parts]),
                point_index=torch.cat([part.point_index for part in parts]),
            )

    def _decode_batch(
        self, image: SharedImage, points: Tensor, threshold: float, per_pass: int
    ) -> list[DecodedMasks]:
        """Passes over points (N, 2), ``per_pass`` at a time; each counts its points from 0."""
        passes = points.split(per_pass)
        parts: list[DecodedMasks] = [None] * len(passes)

        @torch.inference_mode()
        def some(first: int, last: int) -> None:
            with self._autocast(self._decoder_precision):
                for index in range(first, last):
                    parts[index] = self._decode_pass(image, passes[index], threshold)

        if not self._compiled:
            some(0, len(passes))
            return parts
        # A pass is many small steps: threads gain more from passes of their own than from sharing
        # each step.
        with _single_threaded() as settle:
            spread(lambda first, last: (settle(), some(first, last)), len(passes))
        return parts

    def _decode_pass(self, image: SharedImage, points: Tensor, threshold: float) -> DecodedMasks:
        decoded = self._decoder.transform(image, points)
        predicted_iou = decoded.predicted_iou.float()
        passed = predicted_iou > threshold if threshold > 0 else torch.ones_like(predicted_iou) > 0
        point_index, output = passed.nonzero(as_tuple=True)
        side = self.config.low_resolution_size
        logits = (
            self._decoder.masks(decoded, point_index, output).float()
            if len(point_index)
            else predicted_iou.new_zeros(0, side, side)
        )
        return DecodedMasks(logits, predicted_iou[passed], point_index)

    def _points_per_pass(self, embedding: Tensor, points: int) -> int:
        device = embedding.device
        budget = _PASS_BYTES.get(device.type)
        if budget is None:
            free, _ = torch.cuda.mem_get_info(device)
            budget = min(_PASS_BYTES_AT_MOST, int(free * _PASS_SHARE_OF_FREE))
        if self._compiled:  # a pass for each thread
            points = -(-points // threads())
        return max(1, min(points, budget // (embedding.numel() * embedding.element_size())))

    def _autocast(self, precision: str) -> torch.autocast:
        kind = self.sam.device.type
        dtype = _DTYPES[precision]
        return torch.autocast(kind, dtype, enabled=dtype is not None)


@contextmanager
def _single_threaded() -> Iterator[Callable[[], None]]:
    """Let PyTorch and BLAS keep to the thread that calls them; threads call what is given first."""
    before = torch.get_num_threads()

    def settle() -> None:
        torch.set_num_threads(1)  # holds for the thread that calls it

    try:
        with one_blas_thread():
            yield settle
    finally:
        torch.set_num_threads(before)


class _PlainDecoder:
    """The network as it was trained, with the absorbed decoder's face."""

    def __init__(self, sam: Sam) -> None:
        self.sam = sam

    def share(self, embedding: Tensor) -> Tensor:
        return embedding

    def transform(self, embedding: Tensor, xy: Tensor) -> DecodedPoints:
        decoded = self.sam.decode_points(embedding[None], xy[None])
        return DecodedPoints(
            # Output 0 is the single mask, which is not asked for.
            decoded.mask_tokens[0],
            decoded.image_tokens[0],
            decoded.predicted_iou[0, :, 1:],
        )

    def masks(self, decoded: DecodedPoints, point: Tensor, output: Tensor) -> Tensor:
        prompts, row = point.unique(return_inverse=True)
        logits = self.sam.mask_decoder.masks(
            decoded.mask_tokens[prompts], decoded.image_tokens[prompts]
        )
        return logits[row, output + 1]
