"""``alps experiment``."""

from pathlib import Path
from typing import Any

import click

from alps.engine.cli.options import pick, run_option, settings_options
from alps.engine.cli.options.sections import SectionCommand
from alps.trainer.data.settings import DataSettings, PseudoSettings
from alps.trainer.experiment.plan import ExperimentSettings
from alps.trainer.segmentation.command import recipe_of
from alps.trainer.segmentation.recipe import (
    EvaluationSettings,
    ModelSettings,
    RunOptions,
    SelfTrainingSettings,
    TrainSettings,
)

# The plan decides these for each of its trainings.
DECIDED = ("steps", "seed", "fraction", "targets", "init", "unlabelled")


@click.command(cls=SectionCommand)
@click.argument("labels", type=click.Path(path_type=Path, file_okay=False))
@click.argument("data", type=click.Path(path_type=Path, file_okay=False))
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@run_option(
    "--jobs",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="Trainings at a time; on a CPU as many as it has cores is fastest.",
)
@settings_options(
    ExperimentSettings,
    RunOptions,
    ModelSettings,
    TrainSettings,
    SelfTrainingSettings,
    PseudoSettings,
    DataSettings,
    EvaluationSettings,
)
def experiment(labels: Path, data: Path, out: Path, jobs: int, **values: Any) -> None:
    """Measure what pre-training on the run folder LABELS gains on fractions of DATA's labels.

    Scratch, ALPS pre-training and two controls, several seeds each, in one table and one plot with
    spread: OUT/table.md, OUT/plot.png, OUT/results.csv. LABELS must not hold DATA's test images.
    Run the same command again after an interruption, or with more --seeds, --fractions or --arms.
    """
    from alps.trainer.experiment.run import Experiment, run_experiment

    recipe = recipe_of(values)
    asked = Experiment(pick(ExperimentSettings, values), recipe)
    outcome = run_experiment(labels, data, out, asked, pick(RunOptions, values), jobs)
    click.echo(outcome.table())
    click.echo(f"plot: {out / 'plot.png'}")


experiment.params = [option for option in experiment.params if option.name not in DECIDED]
