"""Carries an experiment out, training after training; what is done is not done again."""

import json
import os
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from alps.engine.errors import SettingsError, SourceError
from alps.trainer.data.find import find_data
from alps.trainer.data.settings import DataSettings, PseudoSettings
from alps.trainer.experiment.plan import TARGETS, ExperimentSettings, Finetuning, Plan, make_plan
from alps.trainer.experiment.report import Measured, Outcome
from alps.trainer.segmentation.recipe import RunOptions
from alps.trainer.segmentation.run import Recipe, finetune, pretrain
from alps.trainer.work_folder import WorkFolder


@dataclass(frozen=True)
class ExperimentFolder(WorkFolder):
    """Paths inside OUT; each training has a folder of its own below."""

    KIND: ClassVar[str] = "experiment"
    RECORD: ClassVar[str] = "experiment.json"
    EARLY: ClassVar[tuple[str, ...]] = ("lock", ".experiment.json.part")


@dataclass(frozen=True)
class Experiment:
    """What is compared, and how everything is trained."""

    settings: ExperimentSettings = field(default_factory=ExperimentSettings)
    recipe: Recipe = field(default_factory=Recipe)


def run_experiment(
    labels: str | Path,
    data: str | Path,
    out: str | Path,
    experiment: Experiment | None = None,
    options: RunOptions | None = None,
) -> Outcome:
    """Pre-train on ``labels`` in every way, fine-tune on every fraction of ``data``, measure.

    Every fine-tuning has the same recipe; only its start differs. Of one repetition all arms see
    the same labelled crops, and a smaller fraction is part of each larger one. After each training
    results.csv, table.md and plot.png are those of all that is done.

    Args:
        labels: a run folder of images without the test images.
        data: images and real labels, with test images that are named or held out.
        out: receives all trainings and the outcome.
        experiment: the settings.
        options: where and how; ``cache`` is OUT/cache unless given.

    Raises:
        SettingsError: a setting cannot work.
        SourceError: something is wrong with the data, or a test image was labelled.
        RunFolderError: ``out`` is in use, or holds something else.
    """
    experiment = experiment or Experiment()
    folder, plan = ExperimentFolder(Path(out)), make_plan(experiment.settings)
    _need_matplotlib()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise SettingsError("alps experiment is one process: start it without torchrun")
    _refuse_leaks(labels, data, experiment.recipe)
    options = options or RunOptions()
    options = replace(options, cache=options.cache or str(folder.root / "cache"))
    with folder.locked():
        decides = json.loads(
            json.dumps(
                {
                    "LABELS": str(Path(labels).absolute()),
                    "DATA": str(Path(data).absolute()),
                    **asdict(experiment.settings),
                    "recipe": asdict(experiment.recipe),
                }
            )
        )
        # More seeds, fractions or arms may be asked for later: what is done stays as it is.
        kept = {k: v for k, v in decides.items() if k not in ("arms", "fractions", "seeds")}
        if folder.run_json.exists():
            folder.refuse_other(kept)
        else:
            folder.begin(kept)
        return _carry_out(labels, data, folder, plan, experiment, options)


def _carry_out(
    labels: str | Path,
    data: str | Path,
    folder: ExperimentFolder,
    plan: Plan,
    experiment: Experiment,
    options: RunOptions,
) -> Outcome:
    settings, recipe = experiment.settings, experiment.recipe
    total = len(plan.pretrainings) + len(plan.finetunings)
    for number, start in enumerate(plan.pretrainings):
        print(f"experiment {number + 1} of {total}: pre-training {start.name}", file=sys.stderr)
        pseudo = replace(recipe.pseudo, targets=TARGETS[start.arm])
        train = replace(
            recipe.train,
            steps=settings.pretrain_steps,
            rate=settings.pretrain_rate,
            seed=start.seed,
            fraction=1.0,
            class_weights="none",
        )
        # The pseudo-labels' images are not those of DATA: their names follow other rules.
        data_settings = replace(
            recipe.data, classes=None, train=None, test=None, scene=None, label_threshold=None,
            label_ignore=None, reduce_zero=False, bands=None,
        )  # fmt: skip
        own = replace(recipe, train=train, pseudo=pseudo, data=data_settings)
        pretrain(labels, folder.root / "pretrain" / start.name, own, options)
    measured: list[Measured] = []
    outcome = Outcome(plan, ())
    for number, run in enumerate(plan.finetunings, len(plan.pretrainings)):
        print(f"experiment {number + 1} of {total}: fine-tuning {run.name}", file=sys.stderr)
        measured.append(_finetune(data, folder, run, experiment, options))
        outcome = Outcome(plan, tuple(measured))
        outcome.save(folder.root)
    return outcome


def _finetune(
    data: str | Path,
    folder: ExperimentFolder,
    run: Finetuning,
    experiment: Experiment,
    options: RunOptions,
) -> Measured:
    recipe, start = experiment.recipe, run.start
    init = None if start is None else str(folder.root / "pretrain" / start.name)
    own = replace(
        recipe,
        model=replace(recipe.model, init=init) if init else recipe.model,
        train=replace(
            recipe.train,
            steps=experiment.settings.finetune_steps,
            fraction=run.fraction,
            seed=run.seed,
        ),
        pseudo=PseudoSettings(),
    )
    result = finetune(data, folder.root / "finetune" / run.name, own, options)
    if result.scores is None:
        raise SourceError(f"{data} has no test images; name them with --test, or give --hold-out")
    return Measured(run, result.crops, result.scores)


def _refuse_leaks(labels: str | Path, data: str | Path, recipe: Recipe) -> None:
    """Raise SourceError where a model would be pre-trained on what it is tested on."""
    labelled = find_data(labels, DataSettings(hold_out=0)).pairs
    seen = {pair.image.resolve() for pair in labelled}
    tested = [pair for pair in find_data(data, recipe.data).split("test")]
    leaks = [pair.name for pair in tested if pair.image.resolve() in seen]
    if leaks:
        raise SourceError(
            f"{len(leaks)} test images of {data} were labelled in {labels} ({leaks[0]} …); label "
            "an archive without them"
        )


def _need_matplotlib() -> None:
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as error:
        raise SettingsError(
            "the plot needs matplotlib, which is not installed: pip install 'alps-engine[train]'"
        ) from error
