"""The image encoder on a GPU, in kernels of ours: from bytes of images to embeddings.

They are tried once beside PyTorch's on a picture of noise; where they do not run, for want of a
compiler say, or give something else, PyTorch's are used and the log says why.
"""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from alps.engine.base.memory import is_out_of_memory
from alps.engine.runtimes.gpu.graphs import Replayed, Steps
from alps.engine.runtimes.gpu.packed import PackedImages, Sender, SentImages
from alps.engine.runtimes.protocol import ImagePart
from alps.engine.sam import Sam
from alps.kernels.base.gpu import triton_missing
from alps.kernels.resize import resize

if TYPE_CHECKING:
    from alps.engine.sam.fused_encoder import FusedEncoder

_log = logging.getLogger(__name__)

# Relative error, root mean square, to the network as it was trained in float32: many times what
# each type costs, for a trial is to find what computes something else.
FORGIVEN = {"fp32": 1e-3, "fp16": 5e-2, "bf16": 1e-1}


class GpuEncoder:
    """Encodes batches; of as many images as usual by one CUDA graph.

    An image whose embedding is not finite in fp16, which holds no more than 65504, is encoded again
    in bf16, and the log says so. That depends on the image alone.

    Args:
        sam: whose images they are.
        encoder: its encoder, prepared.
    """

    def __init__(self, sam: Sam, encoder: "FusedEncoder") -> None:
        self._sam, self._encoder = sam, encoder
        steps = Steps("the image encoder", encoder.empty_patches, encoder.embed, Tensor.clone)
        self._embed = Replayed(steps, sam.device)
        self._statistics = sam.pixel_mean.flatten(), sam.pixel_std.flatten()
        self._wider: FusedEncoder | None = None
        self._sender = Sender(sam.device) if sam.device.type == "cuda" else None

    def of_pixels(self, pixels: Tensor, usual: int) -> Tensor:
        """Normalised pixels (B, 3, S, S) -> (B, C, h, w) float32.

        usual: how many images there usually are.
        """

        def fill(encoder: "FusedEncoder", own: Tensor) -> None:
            own.copy_(encoder.patches(pixels))

        with current(self._sam.device):
            return self._run(len(pixels), fill, usual)

    def send(self, packed: PackedImages) -> SentImages:
        """Send bytes, from any thread, while others are encoded."""
        assert self._sender is not None
        with current(self._sam.device):
            return self._sender.send(packed)

    def of_sent(self, sent: SentImages, usual: int) -> Tensor:
        """Likewise of bytes that were sent."""
        return self.of_packed(sent.packed, sent.memory(), usual)

    def of_packed(self, packed: PackedImages, memory: Tensor, usual: int) -> Tensor:
        """Likewise of bytes in their memory on the device."""
        from alps.kernels.encoder.gpu.patches import Patches, make_patches

        def fill(encoder: "FusedEncoder", own: Tensor) -> None:
            cut = Patches(packed.count, encoder.side, encoder.patch_pixels)
            places = packed.places(memory)
            make_patches(memory, places, self._statistics, own, cut, encoder.form)

        with current(self._sam.device):
            packed.resize_in(memory)
            return self._run(packed.count, fill, usual)

    def _run(
        self, count: int, fill: "Callable[[FusedEncoder, Tensor], None]", usual: int
    ) -> Tensor:
        found = self._embed.run(count, partial(fill, self._encoder), count == usual)
        if self._encoder.form.name != "fp16":
            return found
        finite = found.isfinite().flatten(1).all(1)
        if bool(finite.all()):
            return found
        if self._wider is None:
            self._wider = type(self._encoder)(
                self._sam.image_encoder, "bf16", self._encoder.form.emulate
            )
        _log.warning(
            "%d image(s) overflow fp16 and were encoded in bf16 instead; with --precision bf16 all "
            "are",
            int((~finite).sum()),
        )
        patches = self._wider.empty_patches(count)
        fill(self._wider, patches)
        return torch.where(finite[:, None, None, None], found, self._wider.embed(patches))


def current(device: torch.device) -> AbstractContextManager[None]:
    """Triton's kernels go to the current GPU, and each thread has one of its own."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def gpu_encoder(sam: Sam, precision: str) -> GpuEncoder | None:
    """The encoder of a network on a GPU in kernels of ours; None where they are of no use."""
    missing = triton_missing()
    if missing is not None:
        _log.warning("the image encoder runs in PyTorch's own kernels: %s", missing)
        return None
    from alps.engine.sam.fused_encoder import FusedEncoder

    if not isinstance(sam, Sam) or not FusedEncoder.fits(sam.image_encoder):
        return None
    try:
        found = GpuEncoder(sam, FusedEncoder(sam.image_encoder, precision))
        off = _error(found, sam)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        why = " ".join(str(error).split()) or type(error).__name__
    else:
        if off <= FORGIVEN[precision]:
            return found
        why = f"a trial was off by {off:.1e}"
    _log.warning("the image encoder runs in PyTorch's own kernels: %s", why)
    return None


def _error(encoder: GpuEncoder, sam: Sam) -> float:
    """Of an image that does not fill the input and is resized, to the network in float32."""
    size = sam.config.image_size
    noise = np.random.default_rng(0).integers(0, 256, (size // 3, size // 2, 3), np.uint8)
    rows = 2 * noise.shape[0]
    packed = PackedImages.of([ImagePart(noise, rows, size)], pin=sam.device.type == "cuda")
    image = torch.from_numpy(resize(noise, rows, size)).to(sam.device)
    wanted = sam.encode(sam.normalise(image.permute(2, 0, 1))[None])
    found = encoder.of_packed(packed, packed.copy_to(sam.device), 0)
    return float((found - wanted).norm() / wanted.norm())
