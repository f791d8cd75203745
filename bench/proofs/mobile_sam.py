"""MobileSAM beside its authors' code: embedding, predicted IoU and logits, at its one size.

    PYTHONPATH=CHECKOUT python -m alps.bench.proofs.mobile_sam

CHECKOUT is one of ChaoningZhang/MobileSAM. Weights and pixels depend on names and shapes alone, so
that what is printed of the authors' results can stand in a test.
"""

import zlib
from collections.abc import Mapping

import click
import numpy as np
import torch
from torch import Tensor

from alps.bench.everything.mobile_sam import authors_network
from alps.engine.sam.config import VIT_T
from alps.engine.sam.empty import empty_sam
from alps.engine.sam.model import MobileSam

POINTS = torch.tensor([[100.0, 200.0], [512.0, 512.0], [900.0, 30.0]])


def counted_weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Weights that depend on names and shapes alone, the same with every version of torch."""
    weights = {}
    for name, shape in shapes.items():
        drawn = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()))).normal(size=shape)
        if name.endswith("running_var"):
            drawn = 0.5 + np.abs(drawn)
        elif len(shape) > 1 and not name.endswith(("attention_biases", "gaussian_matrix")):
            drawn = drawn / np.sqrt(np.prod(shape[1:]))
        elif name.endswith("weight") and len(shape) == 1:
            drawn = 1 + 0.1 * drawn
        weights[name] = torch.from_numpy(np.asarray(drawn, np.float32))
    return weights


def patches(side: int = 1024, count: int = 32) -> Tensor:
    """Pixels (1, 3, side, side) of ``count`` patches a side, as the network takes them."""
    coarse = np.random.Generator(np.random.PCG64(0)).normal(size=(1, 3, count, count))
    pixels = coarse.repeat(side // count, 2).repeat(side // count, 3)
    return torch.from_numpy(pixels.astype(np.float32))


@click.command()
@torch.inference_mode()
def main() -> None:
    """Print how far ours is from theirs, relative to the largest, and some of theirs."""
    ours = empty_sam(VIT_T)
    assert isinstance(ours, MobileSam)
    shapes = {name: tuple(tensor.shape) for name, tensor in ours.state_dict().items()}
    ours.load_state_dict(counted_weights(shapes), assign=True)
    ours.set_pixel_statistics()
    theirs = authors_network(ours.eval())
    embedding = theirs.image_encoder(patches())
    tokens, dense = theirs.prompt_encoder(
        points=(POINTS[:, None], torch.ones(len(POINTS), 1)), boxes=None, masks=None
    )
    logits, iou = theirs.mask_decoder(
        image_embeddings=embedding,
        image_pe=theirs.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=tokens,
        dense_prompt_embeddings=dense,
        multimask_output=True,
    )
    found = ours.decode_points(embedding, POINTS[None])
    own = ours.mask_decoder.masks(found.mask_tokens[0], found.image_tokens[0])[:, 1:]
    for name, mine, other in (
        ("embedding", ours.encode(patches()), embedding),
        ("predicted IoU", found.predicted_iou[0, :, 1:], iou),
        ("logits", own, logits),
    ):
        click.echo(f"{name}: off by {(mine - other).abs().max() / other.abs().max():.1e}")
    for name, some in (
        ("embedding", embedding[0, 0, ::21, ::21]),
        ("predicted IoU", iou),
        ("logits", logits[:2, :2, 37::150, 11::150].flatten(1)),
    ):
        click.echo(f"{name}: {[[round(value, 5) for value in row] for row in some.tolist()]}")


if __name__ == "__main__":
    main()
