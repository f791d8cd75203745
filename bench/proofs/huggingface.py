"""A SAM of an official size beside transformers' SamModel, both with the same random weights.

    python -m alps.bench.proofs.huggingface WORK --size vit_b

WORK receives the folder that transformers writes, and what `alps models convert` makes of it.
"""

from pathlib import Path

import click
import torch
from torch import Tensor

from alps.engine.models.checkpoints import load_sam
from alps.engine.models.convert import convert_model
from alps.engine.models.layouts import huggingface
from alps.engine.models.layouts.base import Contents
from alps.engine.sam import OFFICIAL, ModelDefaults, Sam


@click.command()
@click.argument("work", type=click.Path(path_type=Path))
@click.option("--size", type=click.Choice(list(OFFICIAL)), default="vit_b", show_default=True)
@click.option("--seed", default=0, show_default=True)
@torch.inference_mode()
def main(work: Path, size: str, seed: int) -> None:
    """Print how far ours is from theirs, relative to the largest, and whether bytes came back."""
    from transformers import SamConfig, SamModel

    torch.manual_seed(seed)
    config = OFFICIAL[size]
    state = Sam(config).state_dict()
    for tensor in state.values():
        if tensor.abs().max() == 0:  # positions start at zero: give them something to do
            tensor.normal_(std=0.2)
    written = huggingface.LAYOUT.write(Contents(config, state, ModelDefaults()))
    described = dict(written.documents["config.json"])
    described["mask_decoder_config"].pop("layer_norm_eps")  # as their own files are
    theirs = SamModel.from_pretrained(  # so it draws no weights that others take the place of
        None, config=SamConfig.from_dict(described), state_dict=dict(written.tensors)
    ).eval()
    theirs.save_pretrained(work / "theirs")

    ours, _ = load_sam(work / "theirs")
    pixels = torch.randn(1, 3, config.image_size, config.image_size)
    points = torch.rand(1, 16, 2) * config.image_size
    embedding = theirs.get_image_embeddings(pixels)
    tell_distance("embedding", ours.encode(pixels), embedding)
    expected = theirs(
        image_embeddings=embedding,
        input_points=points[:, :, None],
        input_labels=torch.ones(1, 16, 1, dtype=torch.int64),
        multimask_output=True,
    )
    found = ours.decode_points(embedding, points)
    logits = ours.mask_decoder.masks(found.mask_tokens[0], found.image_tokens[0])[:, 1:]
    tell_distance("predicted IoU", found.predicted_iou[0, :, 1:], expected.iou_scores[0])
    tell_distance("logits", logits, expected.pred_masks[0])
    official = convert_model(work / "theirs", work / "official.pth").path
    back, _ = load_sam(convert_model(official, work / "back").path)
    same = all(torch.equal(tensor, back.state_dict()[name]) for name, tensor in state.items())
    click.echo(f"official layout and back: {'the same' if same else 'OTHER'} weights")
    if not same:
        raise SystemExit(1)


def tell_distance(name: str, ours: Tensor, theirs: Tensor) -> None:
    """Print how far ours is from theirs, relative to the largest."""
    click.echo(f"{name}: off by {(ours - theirs).abs().max() / theirs.abs().max():.1e}")


if __name__ == "__main__":
    main()
