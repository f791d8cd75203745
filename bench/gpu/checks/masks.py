"""Everything mode: the same masks in every precision, what follows them to the bit, and k-means."""

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import numpy as np

from alps.bench.gpu.checks.context import Context

LEVELS = (0.99, 0.9, 0.75)


def everything(context: Context) -> None:
    """Masks of ``tiny`` on scenes: the CPU's among those of each precision; stages' seconds."""
    from alps.bench.everything.matching import agreement
    from alps.engine.masks.generator import MaskGenerator
    from alps.engine.runtimes.pytorch import TorchRuntime

    context.need_values()
    size, scenes, side = (128, 1, 4) if context.small else (1024, 4, 32)
    images = [context.scene(size, number) for number in range(scenes)]
    settings: dict[str, Any] = {
        "points_per_side": side,
        "pred_iou_thresh": 0.0 if context.small else 0.5,
        "stability_score_thresh": 0.0 if context.small else 0.5,
    }
    sam = context.sam("tiny")
    plain = MaskGenerator(TorchRuntime(context.sam("tiny").cpu()), **settings)
    expected = [plain.segment(image) for image in images]
    sizes = [image.shape[:2] for image in images]
    context.add("masks of the CPU", sum(map(len, expected)))
    for precision, decoder in (
        ("fp32", "absorbed"), ("fp32", "auto"), ("fp16", "auto"), ("bf16", "auto")
    ):  # fmt: skip

        def look(precision: str = precision, decoder: str = decoder) -> None:
            runtime = TorchRuntime(sam, precision=precision, decoder=decoder)
            generator = MaskGenerator(runtime, **settings)
            generator.segment(images[0])
            found = [generator.segment(image) for image in images]
            shares = agreement(
                [one.counts for one in expected], [one.counts for one in found], sizes
            ).shares
            seconds = {
                stage: 1e3 * np.mean([one.seconds[stage] for one in found])
                for stage in found[0].seconds
            }
            context.add(
                f"{precision}, {decoder}: CPU's masks at IoU ≥ {LEVELS[0]}",
                float(shares[LEVELS[0]]),
                "share",
                f"≥ 0.9: {shares[0.9]:.3f}, ≥ 0.75: {shares[0.75]:.3f}; ms a tile: "
                + ", ".join(f"{stage} {taken:.1f}" for stage, taken in seconds.items()),
            )

        context.tried(f"{precision}, {decoder}", look)


class Fixed:
    """A runtime whose answers were computed before, on another device."""

    on_callers_cores = False

    def __init__(self, runtime: Any, device: str) -> None:
        self.config, self.capacity = runtime.config, runtime.capacity
        self.device, self.runtime = device, runtime
        self.kept: list[Any] = []

    def encode(self, pixels: Any) -> Any:
        """The runtime's own."""
        return self.runtime.encode(pixels.cpu()).to(self.device)

    def decode(self, embedding: Any, points: Any, threshold: float, at_once: int) -> Iterator[Any]:
        """What the runtime answers, on the device."""
        from dataclasses import replace

        for part in self.runtime.decode(embedding.cpu(), points.cpu(), threshold, at_once):
            moved = {f.name: getattr(part, f.name).to(self.device) for f in fields(part)}
            yield replace(part, **moved)


def after(context: Context) -> None:
    """What follows the masks, of a batch: the same logits on the CPU and here, compared."""
    context.need_values()
    from alps.engine.masks.generator import MaskGenerator
    from alps.engine.masks.postprocess.device import DevicePostprocessor
    from alps.engine.masks.postprocess.host import HostPostprocessor
    from alps.engine.masks.postprocess.protocol import ToSegment
    from alps.engine.runtimes.pytorch import TorchRuntime

    size, batch, side = (128, 2, 4) if context.small else (1024, 8, 16)
    settings: dict[str, Any] = {
        "points_per_side": side,
        "pred_iou_thresh": 0.0 if context.small else 0.4,
        "stability_score_thresh": 0.0 if context.small else 0.4,
    }
    runtime = TorchRuntime(context.sam("tiny").cpu())
    images = [context.scene(size, number) for number in range(batch)]

    def asked(generator: MaskGenerator) -> list[ToSegment]:
        return [
            ToSegment(image, generator.gate(image, None, 0.3, 16), generator.embed([image])[0])
            for image in images
        ]

    plain = MaskGenerator(Fixed(runtime, "cpu"), **settings)
    wanted = asked(plain)
    host = HostPostprocessor(plain, 4)
    expected = [pending.segments() for pending in host.find(wanted)]
    context.add("masks", sum(len(one) for one in expected), note=f"{batch} tiles of {size} px")
    taken = context.milliseconds(lambda: [p.segments() for p in host.find(wanted)], times=2)
    context.add("decode and what follows, the host's", taken / batch, "ms a tile")
    context.need_gpu()
    generator = MaskGenerator(Fixed(runtime, context.device), **settings)
    there = asked(generator)
    device = DevicePostprocessor(generator, 4, batch)
    found = [pending.segments() for pending in device.find(there)]
    for name in (f.name for f in fields(found[0])):
        if name in ("seconds", "size"):
            continue
        pairs = [(getattr(a, name), getattr(b, name)) for a, b in zip(found, expected, strict=True)]
        same = all(np.array_equal(a, b) for a, b in pairs)
        off = "" if same or name != "embeddings" else _off(pairs)
        context.add(name, "the same" if same else "differs", note=off)
    own = _Kept(generator, there)
    taken = context.milliseconds(lambda: [p.segments() for p in own.find(device)])
    context.add("what follows the masks, on the device", taken / batch, "ms a tile")


def _off(pairs: Any) -> str:
    largest = max(float(np.abs(a - b).max()) if a.shape == b.shape else np.inf for a, b in pairs)
    return f"by {largest:.1e} at most"


class _Kept:
    """Masks that lie on the device already, so that only what follows them is timed."""

    def __init__(self, generator: Any, images: Any) -> None:
        self.images, self.calls = images, 0
        self.parts: list[list[Any]] = []
        plain = generator.decode

        def remembered(*arguments: Any) -> Iterator[Any]:
            number = self.calls % len(images)
            self.calls += 1
            if len(self.parts) <= number:
                self.parts.append(list(plain(*arguments)))
            return iter(self.parts[number])

        generator.decode = remembered

    def find(self, device: Any) -> Any:
        """A batch."""
        return device.find(self.images)


def clusters(context: Context) -> None:
    """A pass of k-means over float16 vectors: as in float64, and bytes a second."""
    context.need_values()
    import torch

    from alps.kernels.base.gpu import on_gpu, on_host
    from alps.kernels.kmeans import assign, reference_assign

    count = 2_000 if context.small else 10_000_000
    for clusters in (46, 256):
        generator = np.random.default_rng(0)
        centroids = generator.normal(size=(clusters, 256)).astype(np.float32)

        def compare(k: int = clusters, centroids: np.ndarray = centroids) -> None:
            few = np.random.default_rng(1).normal(size=(1_000, 256)).astype(np.float16)
            right = reference_assign(few, centroids)
            found = assign(on_gpu(few) if context.on_gpu else few, centroids)
            same = float((on_host(found.labels) == right.labels).mean())
            off = float(np.abs(found.sums - right.sums).max() / np.abs(right.sums).max())
            context.add(
                f"k-means, K = {k}: labels as in float64", same, "", f"sums off by {off:.1e}"
            )

        context.tried(f"K = {clusters}, as in float64", compare)
        if context.on_gpu:
            vectors: Any = on_gpu(torch.randn(count, 256, device=context.device).half())
        else:
            vectors = generator.normal(size=(count, 256)).astype(np.float16)

        def look(k: int = clusters, centroids: np.ndarray = centroids, v: Any = vectors) -> None:
            taken = context.milliseconds(lambda: assign(v, centroids), times=5)
            read = count * 512 / taken / 1e6
            context.add(f"k-means, {count} x 256, K = {k}", taken, "ms", f"{read:.0f} GB/s read")

        context.tried(f"K = {clusters}", look)
        del vectors
