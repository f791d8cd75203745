"""From images to `tiny.safetensors`: pool, decoder stage, joint stage, export."""

import copy
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from alps.engine.checkpoints import load_sam, save_sam
from alps.engine.sam import Sam
from alps.engine.sources import Source
from alps.trainer.tiny.backbone import encoder_weights
from alps.trainer.tiny.cells import carry_cells
from alps.trainer.tiny.graft import graft
from alps.trainer.tiny.pool import Cropper, Pool, build_pool
from alps.trainer.tiny.recipe import TinyRecipe
from alps.trainer.tiny.train import decoder_stage, initialise, joint_stage, run_stage, save_whole


def make_tiny(
    sources: list[Source],
    out: Path,
    backbone: Path,
    recipe: TinyRecipe | None = None,
    *,
    labels: Sequence[Source] = (),
    earlier: Path | None = None,
) -> Path:
    """Carry out the recipe in ``out`` and return the path of the weights.

    ``labels`` belong to the sources of their names; ``earlier`` is a model of the same dimensions
    whose decoder is the start.

    Raises:
        ModelError: ``backbone`` holds no DINOv2 ViT-S/14, or ``earlier`` is of other dimensions.
        SourceError: an image cannot be read.
    """
    recipe = recipe or TinyRecipe()
    torch.manual_seed(recipe.train.seed)
    model = Sam(recipe.model)
    model.image_encoder.load_state_dict(encoder_weights(backbone, recipe.model), strict=False)
    directions = carry_cells(model, _sample(sources, recipe, model))
    pool = build_pool(out / "pool", sources, model, recipe.pool, labels)
    mean_token = _start(out / "start.pt", model, pool, directions, recipe, earlier)
    averaged = copy.deepcopy(model)
    for stage in (
        decoder_stage(model, pool, mean_token, recipe.train),
        joint_stage(model, pool, recipe.train),
    ):
        run_stage(stage, model, averaged, pool, recipe, out)
    return export(averaged, recipe, out / "tiny.safetensors")


def _sample(sources: list[Source], recipe: TinyRecipe, model: Sam) -> torch.Tensor:
    """Some of the pool's real images, normalised: (n, 3, S, S)."""
    crops = recipe.pool.crops
    cropper = Cropper(sources, recipe.model.image_size, recipe.pool)
    rows = np.linspace(0, crops - 1, min(crops, 32)).astype(int)
    images = np.stack([cropper.crop(int(row))[0] for row in rows])
    return model.normalise(torch.from_numpy(images).permute(0, 3, 1, 2))


def _start(
    path: Path,
    model: Sam,
    pool: Pool,
    directions: torch.Tensor,
    recipe: TinyRecipe,
    earlier: Path | None,
) -> torch.Tensor:
    """Bring the model to its start, kept in ``path``; returns the mean token of the pool."""
    if path.exists():
        state = torch.load(path, weights_only=True)
        model.load_state_dict(state["model"])
        return state["mean"]
    mean = initialise(model, pool, directions, recipe.train.seed)
    if earlier is not None:
        rows = np.linspace(0, len(pool) - 1, min(len(pool), 60)).astype(int)
        tokens = torch.from_numpy(np.asarray(pool.tokens[rows], dtype=np.float32)) - mean
        images = np.asarray(pool.images[rows])
        graft(model, load_sam(earlier)[0], tokens, images, len(directions))
    save_whole({"model": model.state_dict(), "mean": mean}, path)
    return mean


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
