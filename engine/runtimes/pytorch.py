"""SAM's network in PyTorch: the reference for every other runtime, and what runs anywhere."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from alps.engine.base.device import on_one_thread
from alps.engine.base.errors import SettingsError
from alps.engine.runtimes.batching import (
    InPasses,
    Steps,
    capacity_of,
    decode_pass,
    in_batches,
    wait_for,
)
from alps.engine.runtimes.full_float32 import full_float32
from alps.engine.runtimes.gpu.decoder import GpuDecoder, gpu_decoder, with_room
from alps.engine.runtimes.gpu.encoder import GpuEncoder, gpu_encoder
from alps.engine.runtimes.gpu.packed import PackedImages
from alps.engine.runtimes.protocol import Asked, DecodedMasks, Encoding, ImagePart
from alps.engine.sam import Sam
from alps.engine.sam.absorbed import AbsorbedDecoder, DecodedPoints
from alps.engine.sam.cpu.encoder import CompiledEncoder
from alps.engine.sam.image_encoder import attend_folded
from alps.engine.sam.model import Network, SamLike
from alps.engine.sam2 import Sam2
from alps.engine.sam2.absorbed import Sam2AbsorbedDecoder
from alps.engine.sam2.plain import Sam2PlainDecoder
from alps.engine.settings import PRECISIONS
from alps.kernels.base.blas import one_blas_thread
from alps.kernels.base.threads import spread

_DTYPES = dict(zip(PRECISIONS, (None, torch.bfloat16, torch.float16), strict=True))


class TorchRuntime(InPasses):
    """SAM in PyTorch on the device its weights lie on: the reference for every other runtime.

    Args:
        sam: the network.
        precision: fp32 gives stock SAM's masks. bf16 and fp16 compute products in that precision
            (norms and softmax stay in fp32) and change some masks.
        decoder: how points are decoded. ``absorbed`` moves projections to the tokens' side;
            ``compiled`` is that with the pixel side in the CPU's kernels; ``plain`` is the network
            as it was trained. ``auto``: compiled on a CPU, on a GPU kernels of ours that store
            no image tokens, absorbed where these do not run.

    Raises:
        SettingsError: an argument is none of these, or not possible on this device.
    """

    def __init__(self, sam: Network, *, precision: str = "fp32", decoder: str = "auto") -> None:
        self.sam = sam.eval()
        self.config = sam.config
        self.capacity = capacity_of(sam.device, sam.config)
        if precision not in PRECISIONS:
            raise SettingsError(f"precision {precision!r}: give one of {', '.join(PRECISIONS)}")
        self.precision = precision
        self.on_callers_cores = on_cpu = sam.device.type == "cpu"
        # Kernels of ours for a GPU know SAM; SAM 2 runs in PyTorch there.
        on_gpu = sam.device.type == "cuda"
        self._try_kernels = decoder == "auto" and on_gpu and isinstance(sam, Sam)
        if self._try_kernels:
            self.capacity = with_room(self.capacity, sam, precision)
        self._gpu_decoder: GpuDecoder | None = None
        self._trying = threading.Lock()
        if decoder == "auto":
            decoder = "compiled" if on_cpu else "absorbed"
        if decoder not in ("compiled", "absorbed", "plain"):
            raise SettingsError(f"decoder {decoder!r}: give auto, compiled, absorbed or plain")
        if decoder == "compiled" and not on_cpu:
            raise SettingsError("the compiled decoder runs on a CPU only; give decoder='absorbed'")
        self._compiled = decoder == "compiled"
        self._decoder = steps_of(sam, decoder)
        self._encoder: CompiledEncoder | None = None
        exact = self._compiled and precision == "fp32"
        if exact and isinstance(sam, Sam) and sam.config.relative_positions:
            self._encoder = CompiledEncoder(sam.image_encoder)
        self._on_gpu: GpuEncoder | None = None
        self._made, self._making = False, threading.Lock()
        # The compiled kernels know float32 only; the few products left beside them gain nothing.
        self._decoder_precision = "fp32" if self._compiled else precision

    @torch.inference_mode()
    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, S, S), normalised -> embeddings (B, C, h, w); see ``Runtime``."""
        embeddings = in_batches(self._encode, pixels, self.capacity.images)
        wait_for(embeddings.device)
        return embeddings

    def bring(self, parts: Sequence[ImagePart | None]) -> Encoding | None:
        """Send parts of images to a GPU as bytes; see ``BringsImages``."""
        encoder = self._kernels_of_ours()
        if encoder is None:
            return None
        at_once = self.capacity.images
        batches = [
            encoder.send(PackedImages.of(parts[first : first + at_once], pin=True))
            for first in range(0, len(parts), at_once)
        ]

        @torch.inference_mode()
        def encode() -> Tensor:
            with full_float32():
                found = torch.cat([encoder.of_sent(batch, at_once) for batch in batches])
            wait_for(found.device)
            return found

        return encode

    def _encode(self, batch: Tensor) -> Tensor:
        encoder = self._kernels_of_ours()
        if encoder is not None:
            with full_float32():
                return encoder.of_pixels(batch, self.capacity.images)
        if self._encoder is not None:
            return self._encoder(batch.float())
        with self._autocast(self.precision):
            batch = batch.to(self.sam.device)
            if isinstance(self.sam, Sam):
                # Small grids are faster for a GPU without offsets; a CPU does both alike.
                in_windows = attend_folded if self.sam.device.type == "cuda" else None
                return self.sam.encode(batch, None, in_windows).float()
            return self.sam.encode(batch).float()

    def _kernels_of_ours(self) -> GpuEncoder | None:
        """The encoder of a GPU, made and tried at its first use: half a runtime may decode only."""
        if self.sam.device.type != "cuda" or not isinstance(self.sam, Sam):
            return None
        with self._making:
            if not self._made:
                with torch.inference_mode(), full_float32():
                    self._on_gpu = gpu_encoder(self.sam, self.precision)
                self._made = True
        return self._on_gpu

    def decode(
        self, embedding: Tensor, points: Tensor, pred_iou_thresh: float, points_per_batch: int = 64
    ) -> Iterator[DecodedMasks]:
        """Masks of points (N, 2) whose predicted IoU passes; see ``Runtime``."""
        kernels = self._decoder_of_ours()
        if kernels is None:
            return super().decode(embedding, points, pred_iou_thresh, points_per_batch)
        at_once = max(points_per_batch, self.capacity.points)
        return kernels.decode(embedding, points, pred_iou_thresh, at_once)

    def decode_batch(
        self, images: Sequence[Asked], pred_iou_thresh: float, room: int
    ) -> list[DecodedMasks] | None:
        """Masks of several images at once; see ``DecodesBatches``."""
        kernels = self._decoder_of_ours()
        if kernels is None or room > self.capacity.points:
            return None
        return kernels.decode_batch(images, pred_iou_thresh, room)

    def _decoder_of_ours(self) -> GpuDecoder | None:
        """A GPU's, made and tried at the first use: half a runtime may encode only."""
        with self._trying:
            if self._try_kernels:
                self._gpu_decoder = gpu_decoder(self.sam, self.precision)
                self._try_kernels = False
        return self._gpu_decoder

    def _share(self, embedding: Tensor) -> Any:
        with self._autocast(self._decoder_precision):
            return self._decoder.share(embedding)

    def _run(self, image: Any, passes: Sequence[Tensor], threshold: float) -> list[DecodedMasks]:
        parts: dict[int, DecodedMasks] = {}  # by pass; whichever thread is done first
        side = self.config.low_resolution_size

        @torch.inference_mode()
        def some(first: int, last: int) -> None:
            with self._autocast(self._decoder_precision):
                for index in range(first, last):
                    parts[index] = decode_pass(self._decoder, image, passes[index], threshold, side)

        if not self._compiled:
            some(0, len(passes))
            return [parts[index] for index in range(len(passes))]
        # A pass is many small steps: threads gain more from passes of their own than from sharing
        # each step.
        with _single_threaded() as settle:

            def settled(first: int, last: int) -> None:
                settle()
                some(first, last)

            spread(settled, len(passes))
        return [parts[index] for index in range(len(passes))]

    @contextmanager
    def _autocast(self, precision: str) -> Iterator[None]:
        kind = self.sam.device.type
        dtype = _DTYPES[precision]
        with ExitStack() as stack:
            stack.enter_context(torch.autocast(kind, dtype, enabled=dtype is not None))
            if kind == "cuda" and dtype is None:
                stack.enter_context(full_float32())
            yield


@contextmanager
def _single_threaded() -> Iterator[Callable[[], int]]:
    """Let PyTorch and BLAS keep to the thread that calls them; threads call what is given first."""
    before = torch.get_num_threads()
    try:
        with one_blas_thread():
            yield on_one_thread
    finally:
        torch.set_num_threads(before)


def steps_of(network: Network, form: str) -> Steps:
    """The decoder of a network: ``plain``, ``absorbed`` or ``compiled``."""
    compiled = form == "compiled"
    if isinstance(network, Sam2):
        if form == "plain":
            return Sam2PlainDecoder(network)
        return Sam2AbsorbedDecoder(network, compiled=compiled)
    assert isinstance(network, SamLike)
    return (
        _PlainDecoder(network) if form == "plain" else AbsorbedDecoder(network, compiled=compiled)
    )


class _PlainDecoder:
    """The network as it was trained, with the absorbed decoder's face."""

    def __init__(self, sam: SamLike) -> None:
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
