"""Carries an experiment out, training after training; what is done is not done again."""

import json
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from multiprocessing import get_context, parent_process
from multiprocessing.synchronize import Event
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar, Self

import torch

from alps.engine.base.errors import SettingsError, SourceError
from alps.engine.base.progress import Progress
from alps.engine.base.stopping import children_without_ctrl_c
from alps.trainer.data.find import find_data
from alps.trainer.data.settings import DataSettings, PseudoSettings
from alps.trainer.experiment.plan import (
    BASELINE,
    ExperimentSettings,
    Finetuning,
    Plan,
    Pretraining,
    make_plan,
    start_of,
    targets_of,
)
from alps.trainer.experiment.report import Measured, Outcome
from alps.trainer.segmentation.recipe import ModelSettings, RunOptions, SelfTrainingSettings
from alps.trainer.segmentation.run import (
    Recipe,
    Result,
    finetune,
    for_run_folder,
    prepared,
    pretrain,
)
from alps.trainer.work_folder import WorkFolder

BOTH = ("train", "test")


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
    jobs: int = 1,
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
        jobs: trainings at a time, each in a process of its own with its share of the cores.

    Raises:
        SettingsError: a setting cannot work.
        SourceError: something is wrong with the data, or a test image was labelled.
        RunFolderError: ``out`` is in use, or holds something else.
    """
    experiment = experiment or Experiment()
    folder, plan = ExperimentFolder(Path(out)), make_plan(experiment.settings)
    _need_matplotlib()
    if experiment.recipe.model.keep == "all":
        raise SettingsError(
            "--keep all: the last layer knows pseudo-classes, not those of DATA; give encoder or "
            "decoder"
        )
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
        _decode_first(labels, data, plan, experiment, options)
        return _carry_out(labels, data, folder, plan, experiment, options, jobs)


def _carry_out(
    labels: str | Path,
    data: str | Path,
    folder: ExperimentFolder,
    plan: Plan,
    experiment: Experiment,
    options: RunOptions,
    jobs: int,
) -> Outcome:
    """All pre-trainings, then all fine-tunings; ``jobs`` of them at a time."""
    total = len(plan.pretrainings) + len(plan.finetunings)
    outcome = Outcome(plan, ())
    with _Workers(jobs) as workers:
        starts = [
            (pretrain, labels, folder.root / "pretrain" / start.name, own, options)
            for start, own in (
                (start, _to_pretrain(experiment, start)) for start in plan.pretrainings
            )
        ]
        with Progress(total, "trainings", "experiment") as progress:
            for _ in workers.results(starts):
                progress.advance()
            runs = [
                (
                    finetune,
                    data,
                    folder.root / "finetune" / run.name,
                    _to_finetune(experiment, run, folder, str(labels)),
                    options,
                )
                for run in plan.finetunings
            ]
            measured: list[Measured] = []
            for run, result in zip(plan.finetunings, workers.results(runs), strict=True):
                if result.scores is None:
                    raise SourceError(f"{data} has no test images; name them with --test")
                measured.append(Measured(run, result.crops, result.scores))
                outcome = Outcome(plan, tuple(measured))
                outcome.save(folder.root)
                progress.advance()
    return outcome


def _to_pretrain(experiment: Experiment, start: Pretraining) -> Recipe:
    settings, recipe = experiment.settings, experiment.recipe
    train = replace(
        recipe.train,
        steps=settings.pretrain_steps,
        rate=settings.pretrain_rate,
        seed=start.seed,
        fraction=1.0,
        class_weights="none",
    )
    targets = targets_of(start.arm)
    assert targets is not None  # nothing is pre-trained for the other arms
    pseudo = replace(recipe.pseudo, targets=targets)
    model = replace(recipe.model, keep=ModelSettings.keep)  # says how fine-tunings start
    own = replace(recipe, model=model, train=train, pseudo=pseudo)
    return for_run_folder(replace(own, self_training=SelfTrainingSettings()))


def _to_finetune(
    experiment: Experiment, run: Finetuning, folder: ExperimentFolder, labels: str
) -> Recipe:
    recipe = experiment.recipe
    start, init = start_of(run.arm), None
    if start == BASELINE:
        init = experiment.settings.init_baseline
    if run.start is not None:
        init = str(folder.root / "pretrain" / run.start.name)
    train = replace(
        recipe.train,
        steps=experiment.settings.finetune_steps,
        fraction=run.fraction,
        seed=run.seed,
    )
    model = replace(recipe.model, init=init)
    # Unless the arm says so nothing but the real labels is learnt.
    unlabelled = None if start == run.arm else labels
    own = replace(recipe.self_training, unlabelled=unlabelled)
    return replace(recipe, model=model, train=train, pseudo=PseudoSettings(), self_training=own)


def _decode_first(
    labels: str | Path, data: str | Path, plan: Plan, experiment: Experiment, options: RunOptions
) -> None:
    """Decode and check everything before the first training, and only once."""
    assert options.cache is not None  # filled in by ``run_experiment``
    where = Path(options.cache)
    where.mkdir(parents=True, exist_ok=True)
    report = where.parent / "data_report.txt"
    for start in plan.pretrainings:
        prepared(_to_pretrain(experiment, start), labels, where, ("train",), report)
    # Trainings differ in their seeds, decoded images do not.
    prepared(replace(experiment.recipe, pseudo=PseudoSettings()), data, where, BOTH, report)


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


class _Workers:
    """Processes that train; with one job, this one."""

    def __init__(self, jobs: int) -> None:
        self._jobs, self._stack = jobs, ExitStack()

    def __enter__(self) -> Self:
        if self._jobs > 1:
            threads = max(1, torch.get_num_threads() // self._jobs)
            # Not forked: threads and a GPU's context do not survive that.
            context = get_context("spawn")
            self._stop = context.Event()
            arguments = (threads, self._stop)
            pool = ProcessPoolExecutor(self._jobs, context, _begin_worker, arguments)
            self._pool = self._stack.enter_context(pool)
        return self

    def __exit__(self, *exc_info: Any) -> None:
        if self._jobs > 1 and exc_info[0] is not None:
            if not issubclass(exc_info[0], Exception):  # the user wants the end, not of a training
                self._stop.set()
            self._pool.shutdown(cancel_futures=True)
        self._stack.__exit__(*exc_info)

    def results(self, calls: list[tuple]) -> Iterator[Result]:
        """What the calls (function, arguments …) return, in order."""
        if self._jobs == 1:
            for function, *arguments in calls:
                yield function(*arguments)
            return
        with children_without_ctrl_c():  # the first call starts them
            futures = [self._pool.submit(*call) for call in calls]
        for future in futures:
            yield future.result()


def _begin_worker(threads: int, stop: Event) -> None:
    torch.set_num_threads(threads)
    # When the experiment is killed, its workers would train on and hold their folders, then wait
    # for work for ever: each keeps a pipe of the others open.
    Thread(target=_end_with_parent, args=(stop,), daemon=True).start()


def _end_with_parent(stop: Event) -> None:
    """End at once, at any step: a training that is begun again goes on from its checkpoint."""
    parent = parent_process()
    assert parent is not None
    while parent.is_alive() and not stop.wait(1.0):
        pass
    os._exit(1)


def _need_matplotlib() -> None:
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as error:
        raise SettingsError(
            "the plot needs matplotlib, which is not installed: pip install 'alps-engine[train]'"
        ) from error
