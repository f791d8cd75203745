"""What a shape of `tiny` costs, and how fast it learns.

    python -m alps.bench.tiny.shapes cost
    python -m alps.bench.tiny.shapes accuracy IMAGES HELD LABELS OUT --backbone WHEEL --device cuda

Cost: seconds for encoding one 512 px window and decoding its 256 prompts, random weights, one shape
after the other in each of several rounds, of which the fastest counts.

Accuracy: every shape starts from the same backbone, sees the same crops of IMAGES and the same
scenes, and its neck and decoder are trained for as many steps of as many prompts; the encoder stays
frozen. Then one random point in each segment of HELD and of generated scenes. LABELS belong to
IMAGES and to HELD by their names. So short a training ranks shapes by how fast they learn, not by
how far they would get: what differs little is no reason to change. Sixty steps of two images are
too few: masks are still empty. OUT keeps pools and weights, and a run that was stopped goes on.

Both print a table in Markdown.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
import torch

from alps.bench.tiny.everything_quality import scene_crops
from alps.bench.tiny.point_prompts import (
    Scores,
    crops_of_pair,
    image_pairs,
    score_crop,
)
from alps.engine.base.device import choose_device
from alps.engine.cli.options import device_option
from alps.engine.images.sources import find_sources
from alps.engine.masks.crops import point_grid
from alps.engine.models.checkpoints import load_sam
from alps.engine.runtimes.pytorch import TorchRuntime
from alps.engine.sam import Sam, SamConfig
from alps.trainer.tiny.make import MakeOptions, pretrained, train_model
from alps.trainer.tiny.pool import PoolMaker, build_pool
from alps.trainer.tiny.recipe import (
    TINY,
    PoolSettings,
    TinyRecipe,
    TrainSettings,
)

WINDOW = 512  # pixels of the image, whatever the input is
PROMPTS_PER_SIDE = 16
SCENES = 12
ROUNDS = 5


@dataclass(frozen=True)
class Shape:
    """One row of the table."""

    name: str
    config: SamConfig


SHAPES = (
    Shape("as shipped: 512 px, 6 layers, decoder 128 wide", TINY),
    Shape("3 layers", replace(TINY, encoder_depth=3)),
    Shape("9 layers", replace(TINY, encoder_depth=9)),
    Shape("decoder 256 wide", replace(TINY, embedding_channels=256, decoder_heads=8)),
    Shape("input 384 px", replace(TINY, image_size=384)),
    Shape("input 768 px", replace(TINY, image_size=768)),
    Shape(
        "windows of 8 x 8 tokens but in one layer",
        replace(TINY, window_size=8, global_blocks=(5,)),
    ),
)


def recipe_for(config: SamConfig, images: int, train: TrainSettings) -> TinyRecipe:
    """A short training of a shape; crops show the same ground whatever the input's size."""
    usual = PoolSettings()
    larger = config.image_size / WINDOW
    pool = replace(
        usual,
        crops=images // 2,
        scenes=images - images // 2,
        crop_scale=(usual.crop_scale[0] / larger, usual.crop_scale[1] / larger),
        # As far as scenes go; these have the widest range that there is.
        scene_metres=tuple(np.clip(np.divide(usual.scene_metres, larger), *usual.scene_metres)),
    )
    steps = min(train.decoder_steps, train.balance_steps)
    return TinyRecipe(config, pool, replace(train, joint_steps=0, balance_steps=steps))


def point_scores(
    model: Sam, crops: Iterable[tuple[np.ndarray, np.ndarray]], device: torch.device
) -> Scores:
    """One random point in each segment of crops, as ``crops_of_pair`` gives them."""
    runtime = TorchRuntime(model.to(device))
    rng, scores = np.random.default_rng(0), Scores()
    for rgb, segments in crops:
        score_crop(rgb, segments, runtime, rng, scores, scales=())
    return scores


def seconds_a_window(model: Sam) -> tuple[float, float]:
    """Encode one window, decode its prompts (masks of every prompt kept): seconds, once."""
    runtime = TorchRuntime(model)
    size = runtime.config.image_size
    pixels = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    points = torch.from_numpy(point_grid(PROMPTS_PER_SIDE) * size).float()
    began = time.perf_counter()
    embedding = runtime.encode(pixels)[0]
    encoded = time.perf_counter()
    for _ in runtime.decode(embedding, points, 0.0, 64):
        pass
    return encoded - began, time.perf_counter() - encoded


@click.group(help=__doc__.splitlines()[0])
def main() -> None:
    """Two measurements of the same shapes."""


@main.command()
def cost() -> None:
    """Print what every shape costs on this machine."""
    torch.manual_seed(0)
    models = [Sam(shape.config).eval() for shape in SHAPES]
    rounds = [[seconds_a_window(model) for model in models] for _ in range(ROUNDS)]
    click.echo("| shape | million parameters | encode, s | decode, s |")
    click.echo("|---|---|---|---|")
    for shape, model, (encode, decode) in zip(SHAPES, models, np.min(rounds, axis=0), strict=True):
        size = sum(parameter.numel() for parameter in model.parameters()) / 1e6
        click.echo(f"| {shape.name} | {size:.1f} | {encode:.2f} | {decode:.2f} |")


@main.command()
@click.argument("images")
@click.argument("held")
@click.argument("labels")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--backbone", required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--pool", "pool_images", default=600, show_default=True, help="Images to learn from.")
@click.option("--steps", default=600, show_default=True)
@click.option("--batch", default=8, show_default=True, help="Images a step, 32 points each.")
@click.option("--only", multiple=True, type=int, help="Rows to make, counted from 0. Default: all.")
@device_option
@click.option("--workers", default=2, show_default=True, help="Processes that make pools.")
def accuracy(
    images: str,
    held: str,
    labels: str,
    out: Path,
    backbone: Path,
    pool_images: int,
    steps: int,
    batch: int,
    only: tuple[int, ...],
    device: str,
    workers: int,
) -> None:
    """Train every shape briefly and print how well its masks fit."""
    sources, truths = find_sources(images), find_sources(labels)
    options = MakeOptions(choose_device(device), workers, checkpoint_every=200)
    train = replace(TrainSettings(), decoder_steps=steps, images=batch)
    pairs = image_pairs(held, labels)
    click.echo("| shape | held out, best of three | own pick | scenes, best of three | own pick |")
    click.echo("|---|---|---|---|---|")
    for number in only or range(len(SHAPES)):
        config = SHAPES[number].config
        recipe = recipe_for(config, pool_images, train)
        size = config.image_size
        # All shapes of one input size learn from one pool.
        shipped, _ = pretrained(
            sources, backbone, replace(recipe, model=replace(TINY, image_size=size))
        )
        pool = build_pool(
            out / f"pool-{size}", PoolMaker(sources, shipped, recipe.pool, truths), workers
        )
        model, directions = pretrained(sources, backbone, recipe)
        path = train_model(model, directions, pool, out / f"shape-{number}", recipe, options)
        trained, _ = load_sam(path)
        real = (crop for pair in pairs for crop in crops_of_pair(*pair, WINDOW))
        row = [
            np.mean(values)
            for crops in (real, scene_crops(SCENES, WINDOW))
            for found in [point_scores(trained, crops, options.device)]
            for values in (found.best, found.picked)
        ]
        click.echo(f"| {SHAPES[number].name} | " + " | ".join(f"{v:.3f}" for v in row) + " |")


if __name__ == "__main__":
    main()
