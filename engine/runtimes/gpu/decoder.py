"""The mask decoder on a GPU in kernels of ours, for all points of an image at once.

They are tried once beside PyTorch's products on an embedding of noise; where they do not run or
give something else, PyTorch decodes and the log says why.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from alps.engine.base.memory import is_out_of_memory
from alps.engine.runtimes.full_float32 import full_float32
from alps.engine.runtimes.gpu.graphs import Replayed, Steps
from alps.engine.runtimes.protocol import Asked, Capacity, DecodedMasks
from alps.engine.sam.absorbed import AbsorbedDecoder
from alps.engine.sam.model import Network, Sam
from alps.kernels.base.gpu import triton_missing

if TYPE_CHECKING:
    from alps.engine.sam.fused import FoundMasks, FusedDecoder

_log = logging.getLogger(__name__)

# Relative error, root mean square, to float32's: several times what each type costs.
FORGIVEN = {"fp32": 1e-4, "fp16": 1e-2, "bf16": 8e-2}
_TRIED = 4  # points
OUTPUTS = 3  # masks a point
# Few image tokens are kept, so a pass takes so many times the points of one by PyTorch's products.
_POINTS = 4
_GRAPHS = 3  # at most, one after the other: capturing costs as much as some images


class GpuDecoder:
    """Answers points of one image or of several, all in one launch of each kernel.

    Masks go into slots, half as many again as points. An image that has more is decoded again with
    room for all; so is, in bf16, one whose values leave what fp16 holds, 65504. Both depend on the
    image and its points alone. As many points as the last time are decoded by a CUDA graph.

    Args:
        fused: the decoder.
        wider: makes one that holds greater values; None: there is none.
        cuda: PyTorch's module, or what stands in for it; None: no graphs.
    """

    def __init__(
        self,
        fused: "FusedDecoder",
        wider: "FusedDecoder | None" = None,
        cuda: Any = None,
    ) -> None:
        self._fused, self._wider, self._cuda = fused, wider, cuda
        self._last: _Shape | None = None
        self._graph: tuple[_Shape, Replayed[_Given, FoundMasks]] | None = None
        self._graphs_left = _GRAPHS

    @torch.inference_mode()
    def decode(
        self, embedding: Tensor, points: Tensor, threshold: float, at_once: int
    ) -> Iterator[DecodedMasks]:
        """As ``Runtime.decode``, ``at_once`` points in a launch."""
        points = points.to(embedding.device, torch.float32)
        for first in range(0, len(points), at_once):
            masks = self._of_one(_Given.of(embedding, points[first : first + at_once]), threshold)
            masks.point_index += first
            yield masks

    @torch.inference_mode()
    def decode_batch(
        self, images: Sequence[Asked], threshold: float, room: int
    ) -> list[DecodedMasks]:
        """As ``DecodesBatches``, all in one launch; one of the images at least has points."""
        given = _Given.of_batch(images, room)
        slots = _slots(room, threshold)
        with full_float32():
            found = self._usual(given, _Shape(len(images), room, threshold, slots))
        results = []
        for index, (count, finite) in enumerate(_counted(found)):
            if count <= slots and (finite or self._wider is None):
                results.append(_masks_of(found, index, count))
            else:  # alone, its points no others than before
                results.append(self._of_one(given.alone(index), threshold))
        return results

    def _of_one(self, given: "_Given", threshold: float) -> DecodedMasks:
        points = given.points.shape[1]
        slots = _slots(points, threshold)
        with full_float32():
            found = self._usual(given, _Shape(1, points, threshold, slots))
        ((count, finite),) = _counted(found)
        fused = self._fused
        if not finite and self._wider is not None:
            _log.info("an image's values leave float16's range: it is decoded in bf16")
            fused = self._wider
            found, count = _decoded(fused, given, threshold, slots)
        if count > slots:
            found, count = _decoded(fused, given, threshold, OUTPUTS * points)
        return _masks_of(found, 0, count)

    def _usual(self, given: "_Given", asked: "_Shape") -> "FoundMasks":
        """By a graph where the last image was asked the same, and others are not captured as often.

        Each has room of its own for all that lies between its kernels.
        """
        graph, again = self._graph, asked == self._last
        self._last = asked
        if graph is not None and graph[0] == asked:
            return graph[1].run(asked.points, given.copy_to, True)
        if not again or self._cuda is None or self._graphs_left == 0:
            return self._fused.decode(*given.parts, asked.threshold, asked.slots)
        self._graphs_left -= 1
        self._graph = None  # gives its memory back
        steps = Steps(
            "the mask decoder",
            given.empty_like,
            lambda own: self._fused.decode(*own.parts, asked.threshold, asked.slots),
            _kept,
        )
        self._graph = asked, Replayed(steps, given.points.device, self._cuda)
        return self._graph[1].run(asked.points, given.copy_to, True)


@dataclass(frozen=True)
class _Shape:
    """What the shape of a decoding depends on."""

    images: int
    points: int
    threshold: float
    slots: int


@dataclass(frozen=True)
class _Given:
    """Images and points on them, as ``FusedDecoder.decode`` takes them."""

    embeddings: Tensor  # (B, C, h, w)
    points: Tensor  # (B, N, 2)
    asked: Tensor  # (B, N), which are points

    @classmethod
    def of(cls, embedding: Tensor, points: Tensor) -> "_Given":
        asked = torch.ones(1, len(points), dtype=torch.bool, device=points.device)
        return cls(embedding[None], points[None], asked)

    @classmethod
    def of_batch(cls, images: Sequence[Asked], room: int) -> "_Given":
        """Of images with up to ``room`` points; what they lack stays 0."""
        some = next(image.embedding for image in images if image.embedding is not None)
        embeddings = some.new_zeros(len(images), *some.shape)
        points = torch.zeros(len(images), room, 2)
        asked = torch.zeros(len(images), room, dtype=torch.bool)
        for index, image in enumerate(images):
            if image.embedding is not None:
                embeddings[index] = image.embedding
                points[index, : len(image.points)] = image.points
                asked[index, : len(image.points)] = True
        return cls(embeddings, points.to(some.device), asked.to(some.device))

    def alone(self, index: int) -> "_Given":
        """One of its images."""
        return _Given(*(part[index : index + 1] for part in self.parts))

    @property
    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.embeddings, self.points, self.asked

    def empty_like(self, count: int) -> "_Given":
        """Room for as many."""
        assert count == self.points.shape[1]
        return _Given(*(torch.empty_like(part) for part in self.parts))

    def copy_to(self, own: "_Given") -> None:
        for to, part in zip(own.parts, self.parts, strict=True):
            to.copy_(part)


def _slots(points: int, threshold: float) -> int:
    """Room for masks of so many points, half as many again where some are dropped."""
    every = OUTPUTS * points
    return every if threshold <= 0 else -(-every // 2)


def _decoded(
    fused: "FusedDecoder", given: _Given, threshold: float, slots: int
) -> "tuple[FoundMasks, int]":
    """Masks of one image, and how many."""
    with full_float32():
        found = fused.decode(*given.parts, threshold, slots)
    return found, _counted(found)[0][0]


def _counted(found: "FoundMasks") -> list[tuple[int, bool]]:
    """How many masks each image has, and whether they can be trusted; all kernels have ended."""
    facts = torch.cat([found.count, found.finite.long()]).tolist()  # waits
    images = len(facts) // 2
    return list(zip(facts[:images], map(bool, facts[images:]), strict=True))


def _masks_of(found: "FoundMasks", index: int, count: int) -> DecodedMasks:
    return DecodedMasks(
        logits=found.logits[index, :count],
        predicted_iou=found.predicted_iou[index, :count],
        point_index=found.point[index, :count],
    )


def _kept(found: "FoundMasks") -> "FoundMasks":
    """What a graph found, of its own; the counts lie on the host."""
    facts = _counted(found)
    most = max(count for count, _ in facts)
    return replace(
        found,
        logits=found.logits[:, :most].clone(),
        predicted_iou=found.predicted_iou[:, :most].clone(),
        point=found.point[:, :most].clone(),
        count=torch.tensor([count for count, _ in facts]),
        finite=torch.tensor([finite for _, finite in facts]),
    )


def with_room(capacity: Capacity, sam: Network, precision: str) -> Capacity:
    """What a device takes at once where the kernels may run on it: more points in a pass."""
    if _refusal(sam, precision) is not None:
        return capacity
    return replace(capacity, points=_POINTS * capacity.points)


def gpu_decoder(sam: Network, precision: str) -> GpuDecoder | None:
    """The decoder for where a network's weights lie; None, and a line in the log, if none works."""
    reason = _refusal(sam, precision)
    made = None
    if reason is None:
        try:
            made = _made(sam, precision)
            reason = _fault(made, sam, precision)
        except Exception as error:  # whatever Triton, its compiler or the driver say
            if is_out_of_memory(error):
                raise
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    if reason is None:
        return made
    _log.warning("points are decoded by PyTorch, which is slower: %s", reason)
    return None


def _refusal(sam: Network, precision: str) -> str | None:
    """Why the kernels cannot be tried at all."""
    missing = triton_missing()
    if missing is not None:
        return missing
    if not isinstance(sam, Sam):
        return "the kernels know the decoder of SAM only, not SAM 2's"
    from alps.engine.sam.fused import refusal
    from alps.kernels.decoder.gpu.launch import BLOCKS

    capability = _capability(sam.device)
    if (capability, precision == "fp32") not in BLOCKS:
        known = sorted({own / 10 for own, exact in BLOCKS if exact or precision != "fp32"})
        return (
            f"in {precision} the kernels run on GPUs of compute capability "
            f"{', '.join(map(str, known))}, and this one has {capability / 10}"
        )
    return refusal(sam.config)


def _capability(device: torch.device) -> int:
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def _made(sam: Network, precision: str) -> GpuDecoder:
    from alps.engine.sam.fused import FusedDecoder
    from alps.kernels.base.triton import BF16, EXACT, FP16
    from alps.kernels.decoder.gpu.launch import BLOCKS, Launch

    assert isinstance(sam, Sam)
    blocks = BLOCKS[_capability(sam.device), precision == "fp32"]
    form = {"fp32": EXACT, "fp16": FP16, "bf16": BF16}[precision]
    with torch.inference_mode(), full_float32():
        fused = FusedDecoder(sam, Launch(form.value, *blocks))
        wider = FusedDecoder(sam, Launch(BF16.value, *blocks)) if form == FP16 else None
    return GpuDecoder(fused, wider, torch.cuda)


@torch.inference_mode()
def _fault(decoder: GpuDecoder, sam: Network, precision: str) -> str | None:
    """What is wrong with its masks of an embedding of noise; None if nothing is."""
    config = sam.config
    generator = torch.Generator().manual_seed(0)
    shape = config.embedding_channels, config.embedding_size, config.embedding_size
    embedding = torch.randn(shape, generator=generator).to(sam.device)
    points = (torch.rand(_TRIED, 2, generator=generator) * config.image_size).to(sam.device)
    found = next(decoder.decode(embedding, points, 0.0, _TRIED))
    plain = AbsorbedDecoder(sam, compiled=False)
    with full_float32():
        decoded = plain.transform(plain.share(embedding), points)
        output = torch.arange(OUTPUTS, device=sam.device).repeat(_TRIED)
        logits = plain.masks(decoded, found.point_index, output)
    for what, ours, theirs in (
        ("predicted IoU", found.predicted_iou, decoded.predicted_iou.flatten()),
        ("logits", found.logits, logits),
    ):
        off = float((ours - theirs).square().mean().sqrt() / theirs.square().mean().sqrt())
        if not off <= FORGIVEN[precision]:
            return f"on trial its {what} was off by {off:.1e}, more than {FORGIVEN[precision]:.0e}"
    return None
