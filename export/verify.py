"""Exported graphs against PyTorch, number by number.

What is true is computed in float64. A lower precision is off by itself, so an error is held
against that of the naive run: the network as it was trained, in PyTorch, in the same precision.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from alps.engine.base.errors import ArtefactError
from alps.engine.base.progress import Progress
from alps.engine.runtimes.exported import GraphRuntime
from alps.engine.runtimes.pytorch import TorchRuntime, steps_of
from alps.engine.sam import Sam
from alps.engine.sam.image_encoder import ImageEncoder
from alps.engine.sam.model import Network

# An export's error may be so many times that of the naive run: sums in another order, that is all.
# On some processors ONNX Runtime's are a little over twice as far off.
TIMES_NAIVE = 3.0
# Below this all is rounding of float32: relative, a few units in the last place.
NEGLIGIBLE = 2e-6
# int8 has no naive run to be held against. More than this is no rounding; what it costs in masks
# is for ``agreement`` to say.
INT8_EMBEDDING = 0.3
POINTS = 16  # that are asked on each embedding


@dataclass(frozen=True)
class Deviation:
    """How far a result is from float64's: root mean square, and the largest, both over its own."""

    rms: float
    largest: float

    @classmethod
    def of(cls, found: Tensor, exact: Tensor) -> "Deviation":
        """Of tensors of one shape; infinite where a value is not finite."""
        off = (found.double() - exact).flatten()
        scale = exact.double().square().mean().sqrt().clamp(min=1e-30)
        if not off.isfinite().all():
            return cls(float("inf"), float("inf"))
        return cls(float(off.square().mean().sqrt() / scale), float(off.abs().max() / scale))


@dataclass(frozen=True)
class Check:
    """One output: its own deviation beside the naive run's."""

    inputs: str  # random or real
    output: str  # embedding, predicted IoU or logits
    own: Deviation
    naive: Deviation
    allowed: float = NEGLIGIBLE  # whatever the naive run's is

    @property
    def passed(self) -> bool:
        """Whether it is within what the naive run allows."""
        return self.own.rms <= max(TIMES_NAIVE * self.naive.rms, self.allowed)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the manifest."""
        return asdict(self)


def check_numbers(
    sam: Network, runtime: GraphRuntime, images: Sequence[tuple[str, Tensor]], seed: int = 0
) -> list[Check]:
    """Run each image, and points on it, through the export, the naive run and float64.

    Args:
        sam: the network on the CPU, float32; it is as before when this returns.
        runtime: the export.
        images: what they are, and pixels (1, 3, S, S) normalised.
        seed: of the points.
    """
    precision = runtime.precision if runtime.precision in ("fp16", "bf16") else "fp32"
    naive = TorchRuntime(sam, precision=precision, decoder="plain")
    generator = torch.Generator().manual_seed(seed)
    checks = []
    with Progress(2 * len(images), "steps", "verifying") as progress:
        for kind, pixels in images:
            embedding, found = _check_encoder(sam, runtime, naive, kind, pixels)
            checks += found
            progress.advance(1)
            points = torch.rand(POINTS, 2, generator=generator) * sam.config.image_size
            # All decode the same embedding, so that an error of the encoder is counted once.
            checks += _check_decoder(sam, (runtime, naive), kind, embedding, points)
            progress.advance(1)
    return checks


def _check_encoder(
    sam: Network, runtime: GraphRuntime, naive: TorchRuntime, kind: str, pixels: Tensor
) -> tuple[Tensor, list[Check]]:
    """What is encoded exactly, (E, h, w), and how far the others are from it."""
    exact = _encode_exactly(sam, pixels)
    sides = [side.encode(pixels)[0].cpu() for side in (runtime, naive)]
    allowed = INT8_EMBEDDING if runtime.precision == "int8" else NEGLIGIBLE
    checks, first = [], 0
    channels = sam.config.embedding_channels
    # What skips the decoder may be of another size than the embedding: neither hides the other.
    for name, last in (("embedding", channels), ("finer features", len(exact))):
        if last > first:
            part = slice(first, last)
            own, other = (Deviation.of(side[part], exact[part]) for side in sides)
            checks.append(Check(kind, name, own, other, allowed))
        first = last
    return exact.float(), checks


@torch.no_grad()
def _encode_exactly(network: Network, pixels: Tensor) -> Tensor:
    """In float64, of an image (1, 3, S, S)."""
    if isinstance(network, Sam):
        with in_float64(network.image_encoder) as encoder:
            tokens = encoder.tokens(pixels.double(), _attend_exactly, _attend_exactly)
            return encoder.neck.double()(tokens.permute(0, 3, 1, 2))[0]
    try:
        return network.double().encode(pixels.double())[0]
    finally:
        network.float()  # there and back to the bit


def _check_decoder(
    sam: Network,
    sides: tuple[GraphRuntime, TorchRuntime],
    kind: str,
    embedding: Tensor,
    points: Tensor,
) -> list[Check]:
    """Predicted IoU and logits of points on one embedding."""
    exact = _decode_exactly(sam, embedding, points)
    decoded = [_decode(side, embedding, points) for side in sides]
    checks = []
    for index, (name, truth) in enumerate(zip(("predicted IoU", "logits"), exact, strict=True)):
        own, naive = (Deviation.of(side[index].reshape(truth.shape), truth) for side in decoded)
        checks.append(Check(kind, name, own, naive))
    return checks


def refuse_failed(checks: Sequence[Check]) -> None:
    """Raise ArtefactError where a check failed, naming the worst."""
    failed = [check for check in checks if not check.passed]
    if failed:
        worst = max(failed, key=lambda check: check.own.rms / max(check.naive.rms, 1e-30))
        raise ArtefactError(
            f"the export does not compute what PyTorch does: {worst.output} of a {worst.inputs} "
            f"image is off by {worst.own.rms:.1e}, the naive run by {worst.naive.rms:.1e}, "
            f"{max(TIMES_NAIVE * worst.naive.rms, worst.allowed):.1e} is allowed ({len(failed)} of "
            f"{len(checks)} checks failed); nothing was written. Try another --precision, or "
            "another version of onnx and onnxruntime"
        )


@contextmanager
def in_float64(encoder: ImageEncoder) -> Iterator[ImageEncoder]:
    """An image encoder whose parts turn to float64 when they run, and back: one at a time.

    float32 survives the way there and back to the bit; a whole ViT-H in float64 takes 5 GB.
    """

    def there(module: nn.Module, _: Any) -> None:
        module.double()

    def back(module: nn.Module, _: Any, __: Any) -> None:
        module.float()

    parts: list[nn.Module] = [encoder.patch_embed, *encoder.blocks]
    handles = [part.register_forward_pre_hook(there) for part in parts]
    handles += [part.register_forward_hook(back) for part in parts]
    try:
        yield encoder
    finally:
        for handle in handles:
            handle.remove()
        encoder.float()


def _attend_exactly(
    query: Tensor, key: Tensor, value: Tensor, by_row: Tensor, by_column: Tensor
) -> Tensor:
    """An ``Attend`` head by head, which keeps float64."""
    heads = []
    for head in range(query.shape[1]):
        offsets = by_row[:, head, :, :, None] + by_column[:, head, :, None, :]
        logits = query[:, head] * query.shape[-1] ** -0.5 @ key[:, head].mT + offsets.flatten(2)
        heads.append(logits.softmax(-1) @ value[:, head])
    return torch.stack(heads, dim=1)


@torch.no_grad()
def _decode_exactly(sam: Network, embedding: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Predicted IoU (N, M) and logits (N, M, 4h, 4w) in float64."""
    parts = (sam.mask_decoder, sam.prompt_encoder)
    for part in parts:
        part.double()
    try:
        decoder = steps_of(sam, "absorbed")
        decoded = decoder.transform(decoder.share(embedding.double()), points.double())
        count, outputs = decoded.predicted_iou.shape
        point = torch.arange(count).repeat_interleave(outputs)
        output = torch.arange(outputs).repeat(count)
        logits = [
            decoder.masks(decoded, point[some], output[some])
            for some in torch.arange(len(point)).split(4 * outputs)
        ]
    finally:
        for part in parts:
            part.float()
    return decoded.predicted_iou, torch.cat(logits)


def _decode(runtime: GraphRuntime | TorchRuntime, embedding: Tensor, points: Tensor) -> Any:
    masks = list(runtime.decode(embedding, points, 0.0, len(points)))
    return [
        torch.cat([getattr(part, name) for part in masks]).cpu()
        for name in ("predicted_iou", "logits")
    ]
