"""Masks of the decoder's kernels for GPUs, in Triton's interpreter, beside PyTorch's decoder.

    python -m alps.bench.gpu.decoder_agreement IMAGE --side 6

`tiny` on the upper left 512 x 512 pixels of an image, side x side points; each takes a second or
two. For every precision: how many of the masks that pass in float32 are found, and how far logits
are from float64's. The encoder is float32's in all rows.
"""

import os
from typing import Any

import click
import numpy as np

LEVELS = (0.99, 0.9, 0.75)
PRECISIONS = ("fp16", "bf16", "fp32")


@click.command()
@click.argument("image", type=click.Path(exists=True, dir_okay=False))
@click.option("--side", default=6, show_default=True, help="Points a row and a column.")
def main(image: str, side: int) -> None:
    """Compare, and print a table."""
    os.environ["TRITON_INTERPRET"] = "1"  # before the kernels are imported
    import torch
    from PIL import Image

    from alps.engine.models.checkpoints import load_sam
    from alps.engine.models.registry import find_model

    sam, info = load_sam(find_model("tiny"))
    sam.eval()
    size = info.config.image_size
    with Image.open(image) as opened:
        rgb = np.array(opened.convert("RGB").crop((0, 0, size, size)))
    with torch.inference_mode():
        pixels = sam.normalise(torch.from_numpy(rgb).permute(2, 0, 1)[None])
        embedding = sam.encode(pixels)[0]
        at = (torch.arange(side) + 0.5) / side * size
        points = torch.stack(torch.meshgrid(at, at, indexing="xy"), -1).reshape(-1, 2)
        score, known = _by_pytorch(sam, embedding, points, None)
        exact = _by_pytorch(sam, embedding, points, None, torch.float64)[1]
        passed = score > info.defaults.pred_iou_thresh
        click.echo(f"{int(passed.sum())} masks pass in float32\n")
        levels = " | ".join(f"IoU ≥ {level}" for level in LEVELS)
        click.echo(f"| decoder | {levels} | logits off by |\n|---|---|---|---|---|")
        for precision in PRECISIONS:
            for name, logits in (
                ("PyTorch's", _by_pytorch(sam, embedding, points, precision)[1]),
                ("kernels", _by_kernels(sam, embedding, points, precision)),
            ):
                alike = _iou(logits[passed], known[passed], size)
                found = " | ".join(
                    f"{float((alike >= level).float().mean()):.1%}" for level in LEVELS
                )
                off = (logits - exact).square().mean().sqrt() / exact.square().mean().sqrt()
                click.echo(f"| {name}, {precision} | {found} | {float(off):.1e} |")


def _by_pytorch(
    sam: Any, embedding: Any, points: Any, precision: str | None, dtype: Any = None
) -> tuple[Any, Any]:
    """Predicted IoU (3 N,) and logits (3 N, side, side) of today's absorbed decoder."""
    import copy

    import torch

    from alps.engine.sam.absorbed import AbsorbedDecoder

    cast = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(precision or "")
    dtype = dtype or torch.float32
    decoder = AbsorbedDecoder(copy.deepcopy(sam).to(dtype), compiled=False)
    with torch.autocast("cpu", cast, enabled=cast is not None):
        decoded = decoder.transform(decoder.share(embedding.to(dtype)), points.to(dtype))
        point = torch.arange(len(points)).repeat_interleave(3)
        logits = decoder.masks(decoded, point, torch.arange(3).repeat(len(points)))
    return decoded.predicted_iou.flatten(), logits.to(dtype)


def _by_kernels(sam: Any, embedding: Any, points: Any, precision: str) -> Any:
    """Logits (3 N, side, side)."""
    import torch

    from alps.bench.gpu.decoder_resources import FORMS
    from alps.engine.sam.fused import FusedDecoder
    from alps.kernels.decoder.gpu.launch import BLOCKS, Launch

    launch = Launch(FORMS[precision], *BLOCKS[90, precision == "fp32"], emulate=True)
    asked = torch.ones(1, len(points), dtype=torch.bool)
    decoder = FusedDecoder(sam, launch)
    return decoder.decode(embedding[None], points[None], asked, 0.0, 3 * len(points)).logits[0]


def _iou(logits: Any, others: Any, size: int) -> Any:
    """Of masks (M, side, side), at full size: (M,)."""
    import torch

    one, other = (
        torch.nn.functional.interpolate(own[None], (size, size), mode="bilinear")[0] > 0
        for own in (logits, others)
    )
    both, either = (one & other).flatten(1).sum(1), (one | other).flatten(1).sum(1)
    return torch.where(either > 0, both / either.clamp(min=1), torch.ones(()))


if __name__ == "__main__":
    main()
