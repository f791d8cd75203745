"""The decoder's kernels for GPUs on the CPU, beside today's decoder and float64: what tests ask."""

import copy

import numpy as np
import torch

from alps.engine.models.checkpoints import load_sam
from alps.engine.runtimes.gpu.decoder import GpuDecoder
from alps.engine.runtimes.protocol import Asked
from alps.engine.runtimes.pytorch import TorchRuntime
from alps.engine.sam import Sam, SamConfig
from alps.engine.sam.absorbed import AbsorbedDecoder
from alps.engine.sam.fused import FusedDecoder
from alps.kernels.base.triton import BF16, EXACT, FP16
from alps.kernels.decoder.gpu.launch import Blocks, Launch

torch.set_num_threads(1)
FORMS = {"fp32": EXACT.value, "fp16": FP16.value, "bf16": BF16.value}
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
SMALL = SamConfig(
    image_size=256,
    encoder_width=32,
    encoder_depth=1,
    encoder_heads=2,
    window_size=0,
    relative_positions=False,
    embedding_channels=64,
    decoder_heads=2,
    decoder_hidden=64,
    iou_head_hidden=32,
)


def small_sam():
    """Random weights; what points look for differs from pixel to pixel, and norms are not idle."""
    torch.manual_seed(0)
    sam = Sam(SMALL).eval().requires_grad_(False)
    for name, value in sam.mask_decoder.named_parameters():
        if ".q_proj.weight" in name or ".k_proj.weight" in name:
            value.mul_(3)
        if "norm" in name:
            value.add_(0.2 * torch.randn(value.shape))
    sam.mask_decoder.iou_prediction_head.layers[-1].bias.add_(1)  # no threshold is below 0
    return sam


def made(sam, precision, block=128):
    return FusedDecoder(
        sam,
        Launch(FORMS[precision], *[Blocks(block, 4, reload=precision == "fp32")] * 2, emulate=True),
    )


@torch.inference_mode()
def by_absorbing(sam, embeddings, points, dtype, autocast=None):
    """Predicted IoU (B, 3 N) and logits (B, 3 N, side, side) of the decoder in PyTorch."""
    decoder = AbsorbedDecoder(copy.deepcopy(sam).to(dtype), compiled=False)
    found = []
    with torch.autocast("cpu", autocast or torch.bfloat16, enabled=autocast is not None):
        for embedding, own in zip(embeddings, points, strict=True):
            decoded = decoder.transform(decoder.share(embedding.to(dtype)), own.to(dtype))
            point = torch.arange(len(own)).repeat_interleave(3)
            logits = decoder.masks(decoded, point, torch.arange(3).repeat(len(own)))
            found.append((decoded.predicted_iou.flatten(), logits))
    return [torch.stack(values) for values in zip(*found, strict=True)]


def off(found, true):
    return float((found.double() - true).square().mean().sqrt() / true.square().mean().sqrt())


def errors(sam, embeddings, points, precisions):
    """For each precision: of ours, and of today's decoder in it; of predicted IoU and logits."""
    true = by_absorbing(sam, embeddings, points, torch.float64)
    asked = torch.ones(points.shape[:2], dtype=torch.bool)
    found = {}
    for precision in precisions:
        cast = None if precision == "fp32" else DTYPES[precision]
        usual = by_absorbing(sam, embeddings, points, torch.float32, cast)
        decoder = made(sam, precision)
        ours = decoder.decode(embeddings, points, asked, 0.0, 3 * points.shape[1])
        assert ours.count.tolist() == [3 * points.shape[1]] * len(points) and ours.finite.all()
        found[precision] = {
            "predicted IoU": (off(ours.predicted_iou, true[0]), off(usual[0], true[0])),
            "logits": (off(ours.logits, true[1]), off(usual[1], true[1])),
        }
    return found


def noise(config, images, points, seed=1):
    generator = torch.Generator().manual_seed(seed)
    shape = config.embedding_channels, config.embedding_size, config.embedding_size
    embeddings = torch.randn(images, *shape, generator=generator)
    return embeddings, torch.rand(images, points, 2, generator=generator) * config.image_size


def errors_of_small(precisions, plain=False):
    """plain: norms with a weight that nothing can be divided by."""
    sam = small_sam()
    if plain:
        for layer in sam.mask_decoder.transformer.layers:
            layer.norm4.weight[5] = 0
    return errors(sam, *noise(SMALL, 2, 1), precisions)


def errors_of_tiny(path, precisions):
    """On a picture of roofs and fields, so to speak: what the encoder gives has its usual size."""
    sam, info = load_sam(path)
    size = info.config.image_size
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.normal(size=(1, 3, 16, 16)).astype(np.float32))
    pixels = torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear")
    with torch.inference_mode():
        embeddings = sam.eval().encode(pixels)
    points = torch.from_numpy(rng.uniform(0, size, (1, 2, 2)).astype(np.float32))
    return errors(sam, embeddings, points, precisions)


def errors_of_vit_b(precisions):
    """Its decoder with random weights."""
    torch.manual_seed(0)
    config = SamConfig(encoder_depth=1, global_blocks=(), window_size=0, relative_positions=False)
    sam = Sam(config).eval().requires_grad_(False)
    return errors(sam, *noise(config, 1, 2), precisions)


def slots():
    """Fewer slots than masks, points that are none, and a threshold, on two images at once."""
    sam = small_sam()
    embeddings, points = noise(SMALL, 2, 3)
    decoder = made(sam, "fp16")
    asked = torch.tensor([[True, False, True], [True, True, True]])
    every = decoder.decode(embeddings, points, asked, 0.0, 9)
    known = every.predicted_iou[0, :6].sort().values
    threshold = float((known[0] + known[1]) / 2)
    some = decoder.decode(embeddings, points, asked, threshold, 4)
    passed = [every.predicted_iou[b, : every.count[b]] > threshold for b in range(2)]
    at = [own.nonzero()[:4, 0] for own in passed]
    return {
        "asked": every.point[0, :6].tolist(),
        "count": [every.count.tolist(), some.count.tolist(), [int(own.sum()) for own in passed]],
        "same": [
            torch.equal(mine[b, : len(at[b])], theirs[b][at[b]])
            for b in range(2)
            for mine, theirs in (
                (some.point, every.point),
                (some.predicted_iou, every.predicted_iou),
                (some.logits, every.logits),
            )
        ],
    }


def runtime():
    """What a runtime hands out: all masks past a threshold, in the order of PyTorch's decoder."""
    sam = small_sam()
    (embedding,), (points,) = noise(SMALL, 1, 3)
    plain = TorchRuntime(sam, decoder="absorbed")
    every = next(plain.decode(embedding, points, 0.0, 64)).predicted_iou.sort().values
    threshold = float((every[0] + every[1]) / 2)  # far more than half as many again as points
    theirs = next(plain.decode(embedding, points, threshold, 64))
    ours = list(GpuDecoder(made(sam, "fp16")).decode(embedding, points, threshold, 2))
    index = torch.cat([part.point_index for part in ours])
    logits = torch.cat([part.logits for part in ours])
    return {
        "parts": len(ours),
        "points": [index.tolist(), theirs.point_index.tolist()],
        "error": off(logits, theirs.logits.double()),
    }


def batch():
    """Images with more masks than slots, without points, and with fewer points than others."""
    sam = small_sam()
    embeddings, points = noise(SMALL, 2, 2)
    plain = TorchRuntime(sam, decoder="absorbed")
    threshold = 0.01
    images = [
        Asked(embeddings[0], points[0]),
        Asked(None, points[0]),
        Asked(embeddings[1], points[1][:1]),
    ]
    ours = GpuDecoder(made(sam, "fp16")).decode_batch(images, threshold, 2)
    theirs = [
        next(plain.decode(image.embedding, image.points, threshold, 64))
        for image in (images[0], images[2])
    ]
    assert not len(ours.pop(1).logits)
    return [
        [mine.point_index.tolist(), own.point_index.tolist(), off(mine.logits, own.logits.double())]
        for mine, own in zip(ours, theirs, strict=True)
    ]


def beyond_float16():
    """Values that float16 does not hold: noticed, and decoded as if bf16 had been asked for."""
    sam = small_sam()
    embeddings, points = noise(SMALL, 2, 1)
    embeddings[0] *= 1e5
    narrow, wide = made(sam, "fp16"), made(sam, "bf16")
    finite = narrow.decode(embeddings, points, torch.ones(2, 1, dtype=torch.bool), 2.0, 1).finite
    again, asked = (
        next(decoder.decode(embeddings[0], points[0], 0.0, 1)).logits
        for decoder in (GpuDecoder(narrow, wide), GpuDecoder(wide))
    )
    return finite.tolist(), torch.equal(again, asked) and bool(again.isfinite().all())


def small():
    """All that is asked of random weights, in one process."""
    return {
        "folded": errors_of_small(list(FORMS)),
        "plain": errors_of_small(["fp32"], plain=True),
        "slots": slots(),
        "runtime": runtime(),
        "batch": batch(),
        "beyond": beyond_float16(),
    }
