"""From images to `tiny.safetensors`: pool, decoder stage, joint stage, export."""

import copy
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from alps.engine.base.atomic import whole, write_text
from alps.engine.base.device import choose_device
from alps.engine.base.errors import SettingsError
from alps.engine.base.records import read_record
from alps.engine.images.sources import Source
from alps.engine.models.checkpoints import save_sam
from alps.engine.sam import Sam
from alps.trainer.loop.state import read_checkpoint
from alps.trainer.tiny.backbone import encoder_weights
from alps.trainer.tiny.cells import carry_cells
from alps.trainer.tiny.crops import Cropper
from alps.trainer.tiny.pool import Pool, PoolMaker, build_pool
from alps.trainer.tiny.recipe import TinyRecipe
from alps.trainer.tiny.train import (
    Workshop,
    decoder_stage,
    initialise,
    joint_stage,
    run_stage,
)

_SAMPLE = 32  # crops in which it is seen which directions of the encoder are free


@dataclass(frozen=True)
class RecipeParts:
    """What recipe.json notes of a recipe."""

    model: dict[str, Any]
    pool: dict[str, Any]
    train: dict[str, Any]


@dataclass(frozen=True)
class MakeOptions:
    """How it is made; nothing that is made depends on it, rounding aside."""

    device: torch.device = field(default_factory=lambda: choose_device("auto"))
    workers: int = 1  # processes that build the pool
    checkpoint_every: int = 50  # steps


def make_tiny(
    sources: list[Source],
    out: Path,
    backbone: Path,
    recipe: TinyRecipe | None = None,
    *,
    labels: Sequence[Source] = (),
    options: MakeOptions | None = None,
) -> Path:
    """Carry out the recipe in ``out`` and return the path of the weights.

    ``labels`` belong to the sources of their names.

    Raises:
        ModelError: ``backbone`` holds no DINOv2 ViT-S/14.
        SourceError: an image cannot be read.
    """
    recipe, options = recipe or TinyRecipe(), options or MakeOptions()
    model, directions = pretrained(sources, backbone, recipe)
    maker = PoolMaker(sources, model, recipe.pool, labels)
    pool = build_pool(out / "pool", maker, options.workers)
    return train_model(model, directions, pool, out, recipe, options)


def pretrained(
    sources: list[Source], backbone: Path, recipe: TinyRecipe
) -> tuple[Sam, torch.Tensor]:
    """A network whose encoder is the backbone's, and the directions (n, width) its cells take."""
    torch.manual_seed(recipe.train.seed)
    model = Sam(recipe.model)
    model.image_encoder.load_state_dict(encoder_weights(backbone, recipe.model), strict=False)
    cropper = Cropper(sources, recipe.model.image_size, recipe.pool)
    count = min(recipe.pool.crops, _SAMPLE)
    crops = [cropper.crop(recipe.pool.crops * number // count)[0] for number in range(count)]
    images = torch.stack([torch.from_numpy(crop) for crop in crops]).permute(0, 3, 1, 2)
    return model, carry_cells(model, model.normalise(images))


def train_model(
    model: Sam,
    directions: torch.Tensor,
    pool: Pool,
    out: Path,
    recipe: TinyRecipe,
    options: MakeOptions,
) -> Path:
    """Train a network as ``pretrained`` gave it; returns the path of the weights.

    Raises:
        SettingsError: ``out`` holds a training of another recipe. Only the last stage's number of
            steps may change.
    """
    out.mkdir(parents=True, exist_ok=True)
    _keep_to(recipe, out / "recipe.json")
    start = out / "start.pt"
    model.to(options.device)
    if start.exists():
        model.load_state_dict(read_checkpoint(start))
    else:
        initialise(model, pool, directions, recipe.train.seed)
        with whole(start) as part:
            torch.save(model.state_dict(), part)
    averaged = copy.deepcopy(model)
    shop = Workshop(out, pool, recipe, options.checkpoint_every)
    for stage in (decoder_stage(model, recipe.train), joint_stage(model, recipe.train)):
        run_stage(stage, model, averaged, shop)
    return export(averaged.cpu(), recipe, out / "tiny.safetensors")


def _keep_to(recipe: TinyRecipe, path: Path) -> None:
    """Note the recipe beside what is made by it, and refuse to go on by another."""
    train = asdict(recipe.train)
    del train["joint_steps"]  # the last stage may be made longer; nothing is built upon it
    wanted = json.loads(json.dumps(asdict(recipe) | {"train": train}))
    parts = RecipeParts(wanted["model"], wanted["pool"], wanted["train"])
    if path.exists():
        parts = read_record(path, RecipeParts, SettingsError, "give another OUT")
    changed = sorted(
        name
        for part, found in vars(parts).items()
        for name in wanted[part]
        if wanted[part][name] != found.get(name)
    )
    if changed:
        raise SettingsError(
            f"{path.parent} was begun with another {', '.join(changed)}; give that again, or "
            "another OUT"
        )
    write_text(path, json.dumps(wanted, indent=1))


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
