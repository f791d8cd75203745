"""From images to `tiny.safetensors`: pool, decoder stage, joint stage, export."""

import copy
from dataclasses import asdict
from pathlib import Path

import torch

from alps.engine.checkpoints import save_sam
from alps.engine.sam import Sam
from alps.engine.sources import Source
from alps.trainer.tiny.backbone import encoder_weights
from alps.trainer.tiny.pool import build_pool
from alps.trainer.tiny.recipe import TinyRecipe
from alps.trainer.tiny.train import decoder_stage, initialise, joint_stage, run_stage


def make_tiny(
    sources: list[Source], out: Path, backbone: Path, recipe: TinyRecipe | None = None
) -> Path:
    """Carry out the recipe in ``out`` and return the path of the weights.

    Raises:
        ModelError: ``backbone`` holds no DINOv2 ViT-S/14.
        SourceError: an image cannot be read.
    """
    recipe = recipe or TinyRecipe()
    torch.manual_seed(recipe.train.seed)
    model = Sam(recipe.model)
    model.image_encoder.load_state_dict(encoder_weights(backbone, recipe.model), strict=False)
    pool = build_pool(out / "pool", sources, model, recipe.pool)
    mean_token = initialise(model, pool, recipe.train.seed)
    averaged = copy.deepcopy(model)
    for stage in (
        decoder_stage(model, pool, mean_token, recipe.train),
        joint_stage(model, pool, recipe.train),
    ):
        run_stage(stage, model, averaged, pool, recipe, out)
    return export(averaged, recipe, out / "tiny.safetensors")


def export(model: Sam, recipe: TinyRecipe, path: Path) -> Path:
    """Write the weights as float16 with dimensions, thresholds and recipe."""
    save_sam(
        model,
        path,
        recipe.defaults,
        dtype=torch.float16,
        metadata={"alps.model": "tiny", "alps.recipe": repr(asdict(recipe))},
    )
    return path
