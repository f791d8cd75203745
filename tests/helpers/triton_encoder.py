"""The encoder's Triton kernels under the interpreter, beside float64 and PyTorch's own form."""

import copy
import math
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import torch

from alps.engine.models.checkpoints import load_sam
from alps.engine.models.registry import find_model
from alps.engine.runtimes.gpu.encoder import GpuEncoder
from alps.engine.runtimes.gpu.packed import PackedImages
from alps.engine.runtimes.protocol import ImagePart
from alps.engine.sam import Sam, SamConfig
from alps.engine.sam.fused_encoder import DTYPES, FusedEncoder
from alps.engine.sam.image_encoder import ImageEncoder
from alps.kernels.encoder.gpu.attention import Heads, attend, make_offsets
from alps.kernels.encoder.gpu.forms import Form

# Windows that reach over the edge, a global block, heads of 32 + 16 channels.
SMALL = SamConfig(
    image_size=96,
    encoder_width=48,
    encoder_depth=2,
    encoder_heads=1,
    window_size=4,
    global_blocks=(1,),
    embedding_channels=16,
)


def relative(found, wanted):
    return float((found.double() - wanted).norm() / wanted.norm())


def attention(form, width, rows, columns, with_kernel):
    """Errors of attention, and of its offsets where the kernel makes them."""
    torch.manual_seed(1)
    heads, own = Heads(2, 1, rows, columns, width), Form(form, emulate=True)
    dtype, count = DTYPES[form], rows * columns
    qkv = torch.randn(2 * count, 3 * width)
    qkv[:, :width] *= math.log2(math.e) / math.sqrt(width)
    qkv = qkv.to(dtype)
    tables = [(0.5 * torch.randn(2 * side - 1, width)).to(dtype) for side in (rows, columns)]

    query, key, value = qkv.double().reshape(2, count, 3, width).unbind(2)
    grid = query.reshape(2, rows, columns, width)
    by_row, by_column = (
        torch.einsum(rule, grid, table.double()[distances(side)]).flatten(1, 2)
        for rule, table, side in zip(
            ("bhwd,hkd->bhwk", "bhwd,wkd->bhwk"), tables, (rows, columns), strict=True
        )
    )
    logits = query @ key.transpose(1, 2) + (by_row[..., None] + by_column[..., None, :]).flatten(2)
    wanted = ((logits * math.log(2)).softmax(-1) @ value).flatten(0, 1)

    made = torch.full((2, rows, count), torch.nan), torch.full((2, count, columns), torch.nan)
    exact = by_row.transpose(1, 2), by_column
    if with_kernel:
        make_offsets(qkv, *tables, *made, heads, own)
    else:
        made = tuple(offsets.float().contiguous() for offsets in exact)
    out = torch.full((2 * count, width), torch.nan, dtype=dtype)
    _, exponent = torch.frexp(qkv.float().abs().max().reshape(1))
    scale = torch.ldexp(torch.ones(1), 15 - exponent)
    attend(qkv, made, scale, out, heads, own)
    return [relative(out, wanted), *(relative(*pair) for pair in zip(made, exact, strict=True))]


def distances(side):
    place = torch.arange(side)
    return place[:, None] - place[None, :] + side - 1


def random_encoder(config):
    torch.manual_seed(2)
    encoder = ImageEncoder(config).eval()
    with torch.no_grad():
        for name, weights in encoder.named_parameters():
            if "rel_pos" in name or name == "pos_embed":
                weights.normal_(0, 0.5)
    return encoder


@torch.inference_mode()
def encoders(which, forms=tuple(DTYPES)):
    """By form: errors of the prepared encoder, and of PyTorch's autocast."""
    if which == "tiny":
        encoder = load_sam(find_model("tiny"))[0].image_encoder
    else:
        encoder = random_encoder(SMALL)
    side = encoder.pos_embed.shape[1] * 16
    pixels = torch.randn(1 if which == "tiny" else 2, 3, side, side)
    wanted = copy.deepcopy(encoder).double()(pixels.double())
    found = {}
    assert FusedEncoder.fits(encoder)
    for form in forms:
        fused, dtype = FusedEncoder(encoder, form, emulate=True), DTYPES[form]
        lower = nullcontext() if form == "fp32" else torch.autocast("cpu", dtype)
        with lower:
            usual = encoder(pixels).float()
        found[form] = [relative(it, wanted) for it in (fused.embed(fused.patches(pixels)), usual)]
    return found


@torch.inference_mode()
def bytes_to_patches():
    """Whether bytes become the very patches that float32 pixels do, by form; the network's
    embedding of them is off by the last number.
    """
    from alps.engine.masks.crops import Crop, network_pixels
    from alps.kernels.encoder.gpu.patches import Patches, make_patches

    sam = Sam(SMALL).eval()
    sam.image_encoder = random_encoder(SMALL)
    rng = np.random.default_rng(3)
    sizes = [(96, 96), (96, 50), (31, 40), (150, 96), (200, 60), None, (1, 300), (40, 40)]
    images = [size and rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    images[-1] = np.repeat(np.repeat(images[-1], 2, 0), 2, 1)[3:70:, 5:61]  # not contiguous
    crops = [image is not None and Crop(0, 0, *image.shape[1::-1], 0) for image in images]
    pixels = torch.stack(
        [
            torch.zeros(3, 96, 96) if image is None else network_pixels(image, crop, 96)
            for image, crop in zip(images, crops, strict=True)
        ]
    )
    packed = PackedImages.of(
        [
            None if image is None else ImagePart(image, *crop.input_size(96))
            for image, crop in zip(images, crops, strict=True)
        ],
        pin=False,
    )
    memory, found = packed.copy_to(torch.device("cpu")), []
    packed.resize_in(memory)
    statistics = sam.pixel_mean.flatten(), sam.pixel_std.flatten()
    for form, dtype in DTYPES.items():
        encoder = FusedEncoder(sam.image_encoder, form, emulate=True)
        own = torch.full_like(encoder.empty_patches(len(images)), torch.nan)
        cut = Patches(len(images), encoder.side, encoder.patch_pixels)
        make_patches(memory, packed.places(memory), statistics, own, cut, encoder.form)
        found.append(torch.equal(own, encoder.patches(pixels).to(dtype)))
    exact = FusedEncoder(sam.image_encoder, "fp32", emulate=True)
    alone = PackedImages.of([ImagePart(images[0], 96, 96)], False)
    embeddings = GpuEncoder(sam, exact).of_packed(alone, alone.memory, 0)
    return [*found, relative(embeddings, sam.encode(pixels[:1]).double())]


@torch.inference_mode()
def an_overflow():
    """Of two images, one past float16: how far each is off, and how far the same alone."""
    config = replace(SMALL, encoder_depth=1, window_size=0, relative_positions=False)
    sam = Sam(config).eval()
    sam.image_encoder = random_encoder(config)
    pixels = torch.randn(2, 3, 96, 96)
    pixels[1] *= 1e5
    wanted = sam.encode(pixels).double()
    fused = FusedEncoder(sam.image_encoder, "fp16", emulate=True)
    plain, found = fused.embed(fused.patches(pixels)), GpuEncoder(sam, fused).of_pixels(pixels, 0)
    return [
        [bool(one.isfinite().all()) for one in plain],
        torch.equal(found[0], plain[0]),
        relative(found[1], wanted[1]),
    ]


def all_but_tiny():
    """Of one process, for importing PyTorch takes its time."""
    shapes = [(64, 2, 64, False), (80, 2, 64, False), (64, 5, 3, True), (80, 4, 7, True)]
    return {
        "attention": [
            [form, shape, attention(form, *shape)] for shape in shapes for form in DTYPES
        ],
        "encoders": encoders("small"),
        "bytes": bytes_to_patches(),
        "overflow": an_overflow(),
    }
