"""``alps pretrain``, ``alps finetune``, ``alps evaluate``. torch is imported when one is called."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alps.engine.base.atomic import write_text
from alps.engine.cli.options import device_option, pick, settings_options
from alps.engine.cli.options.sections import SectionCommand
from alps.trainer.data.settings import DataSettings, PseudoSettings
from alps.trainer.segmentation.recipe import (
    EvaluationSettings,
    ModelSettings,
    RunOptions,
    SelfTrainingSettings,
    TrainSettings,
)

if TYPE_CHECKING:
    from alps.trainer.segmentation.run import Recipe, Result

out_argument = click.argument("out", type=click.Path(path_type=Path, file_okay=False))
data_argument = click.argument("data", type=click.Path(path_type=Path, file_okay=False))


def recipe_of(values: dict[str, Any]) -> "Recipe":
    """All that decides the weights, from a command's options."""
    from alps.trainer.segmentation.run import Recipe

    return pick(Recipe, values)


@click.command(cls=SectionCommand)
@click.argument("labels", type=click.Path(path_type=Path, file_okay=False))
@out_argument
@settings_options(
    RunOptions, ModelSettings, TrainSettings, PseudoSettings, DataSettings, EvaluationSettings
)
def pretrain(labels: Path, out: Path, **values: Any) -> None:
    """Pre-train a segmentation model on label maps that nobody drew: LABELS is a run folder.

    OUT receives model/, which transformers opens and alps finetune --init takes. Run the same
    command again after an interruption, and it goes on where it was. On several GPUs:
    torchrun --nproc-per-node N --no-python alps pretrain LABELS OUT ...
    """
    from alps.trainer.segmentation.run import pretrain as run

    _say(run(labels, out, recipe_of(values), pick(RunOptions, values)))


@click.command(cls=SectionCommand)
@data_argument
@out_argument
@settings_options(
    RunOptions, ModelSettings, TrainSettings, SelfTrainingSettings, DataSettings, EvaluationSettings
)
def finetune(data: Path, out: Path, **values: Any) -> None:
    """Teach a model the real labels of DATA, or a fraction of them, and measure it.

    DATA holds images/ and labels/, or img_dir/ and ann_dir/ as mmseg has them, or is what alps
    prepare wrote. Without --init the model starts from random weights. Run the same command again
    after an interruption, and it goes on where it was.
    """
    from alps.trainer.segmentation.run import finetune as run

    _say(run(data, out, recipe_of(values), pick(RunOptions, values)))


@click.command(cls=SectionCommand)
@data_argument
@click.argument("checkpoint")
@device_option
@click.option("--crop", type=click.IntRange(32), help="Side of windows. Default: the training's.")
@click.option(
    "--predictions",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for label maps of what the model predicts.",
)
@click.option(
    "--json", "file", type=click.Path(path_type=Path, dir_okay=False), help="File for the measures."
)
@settings_options(DataSettings, EvaluationSettings)
def evaluate(
    data: Path,
    checkpoint: str,
    device: str,
    crop: int | None,
    predictions: Path | None,
    file: Path | None,
    **values: Any,
) -> None:
    """Measure CHECKPOINT on the test images of DATA: IoU and F1 of each class, means, accuracy.

    CHECKPOINT is an OUT of alps finetune, a folder of transformers, or a name on the hub.
    """
    from alps.trainer.segmentation.evaluate import evaluate as run

    found = run(
        data, checkpoint, recipe_of(values), crop=crop, device=device, predictions=predictions
    )
    if found is None:  # the first process says it
        return
    if file is not None:
        write_text(file, json.dumps(found.to_dict(), indent=1) + "\n")
    click.echo(found.table())


def _say(result: "Result | None") -> None:
    if result is None:
        return
    click.echo(
        f"{result.steps} steps on {result.crops} crops in {result.seconds:.0f} seconds, "
        f"{result.images_per_second:.1f} images a second; {result.waited:.0%} of the time spent "
        "waiting for crops"
    )
    if result.scores is not None:
        click.echo(result.scores.table())
    click.echo(f"the model is in {result.model}")
