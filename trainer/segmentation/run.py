"""A training from beginning to end: find, decode, check, learn, save, measure."""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from alps.engine.base.memory import memory_named
from alps.engine.base.records import BadRecordError, Count, as_record
from alps.engine.labels.classes import read_classes
from alps.engine.labels.palette import palette
from alps.engine.run_folder.folder import RunFolder
from alps.engine.settings import ReadSettings
from alps.trainer.data.cache import Cache, build_cache
from alps.trainer.data.decode import DecodeRequest
from alps.trainer.data.find import find_data
from alps.trainer.data.report import check as check_cache
from alps.trainer.data.samples import Augmentation, Cells, Samples
from alps.trainer.data.settings import (
    DataSettings,
    PseudoSettings,
    check_data,
    check_pseudo,
)
from alps.trainer.loop.state import State
from alps.trainer.numerics import autocast_for, choose_precision
from alps.trainer.processes import Processes, joined
from alps.trainer.segmentation import recipe
from alps.trainer.segmentation.begin import begin
from alps.trainer.segmentation.card import ModelCard
from alps.trainer.segmentation.folder import TrainingFolder
from alps.trainer.segmentation.lesson import Workshop, teach
from alps.trainer.segmentation.loss import class_weights
from alps.trainer.segmentation.metrics import Scores, scores
from alps.trainer.segmentation.models import (
    DEFAULT,
    build_model,
    narrowed,
    save_model,
    start_from,
    widen_head,
)
from alps.trainer.segmentation.predict import measure
from alps.trainer.segmentation.recipe import RunOptions
from alps.trainer.segmentation.self_training import Unlabelled
from alps.trainer.segmentation.targets import targets_of


@dataclass(frozen=True)
class Recipe:
    """All that decides the weights, DATA aside."""

    model: recipe.ModelSettings = field(default_factory=recipe.ModelSettings)
    data: DataSettings = field(default_factory=DataSettings)
    train: recipe.TrainSettings = field(default_factory=recipe.TrainSettings)
    evaluation: recipe.EvaluationSettings = field(default_factory=recipe.EvaluationSettings)
    pseudo: PseudoSettings = field(default_factory=PseudoSettings)
    self_training: recipe.SelfTrainingSettings = field(default_factory=recipe.SelfTrainingSettings)

    def check(self) -> None:
        """Raise SettingsError where a value cannot work."""
        check_data(self.data)
        check_pseudo(self.pseudo)
        recipe.check(self.model, self.train, self.evaluation, self.self_training)

    def with_teacher(self) -> "Recipe":
        """The same with a running average, which self-training needs."""
        if self.self_training.unlabelled is None or self.train.ema > 0:
            return self
        return replace(self, train=replace(self.train, ema=recipe.TEACHER))


@dataclass(frozen=True)
class Result:
    """What a training came to."""

    model: Path  # folder, for from_pretrained
    steps: int
    crops: int  # that were learnt from; cells of the images
    seconds: float  # in the loop, pauses left out
    images_per_second: float
    waited: float  # share of the time in which the loop waited for crops
    scores: Scores | None  # None where there is nothing to test on

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        measured = None if self.scores is None else self.scores.to_dict()
        return asdict(self) | {"model": self.model.name, "scores": measured}


@dataclass(frozen=True)
class ResultRecord:
    """``Result`` as training.json has it."""

    model: str
    steps: Count
    crops: Count
    seconds: float
    images_per_second: float
    waited: float
    scores: dict[str, Any] | None


@dataclass
class _Job:
    """What all parts of a training need."""

    folder: TrainingFolder
    recipe: Recipe
    options: RunOptions
    group: Processes
    precision: str


def train_model(
    data: str | Path,
    out: str | Path,
    settings: Recipe | None = None,
    options: RunOptions | None = None,
    *,
    splits: tuple[str, ...] = ("train", "test"),
) -> Result | None:
    """Teach a model the labels of DATA; started again it goes on where it stopped.

    Args:
        data: a run folder, or a folder of images and labels.
        out: receives the model, training.json, log.jsonl and what is needed to go on.
        settings: all that decides the weights.
        options: where and how it is carried out.
        splits: which must have labels; without ``test`` nothing is measured.

    Returns:
        The result; None in all processes but the first.

    Raises:
        SourceError: something is wrong with the data; all of it has been reported.
        SettingsError: a setting cannot work.
        ModelError: --init cannot be used.
        RunFolderError: ``out`` is in use, unwritable, or holds something else.
    """
    settings, options = (settings or Recipe()).with_teacher(), options or RunOptions()
    settings.check()
    recipe.check_options(options)
    with joined(options.device, settings.train.batch) as group:
        folder = TrainingFolder(Path(out))
        precision = choose_precision(group.device, settings.train.precision)
        job = _Job(folder, settings, options, group, precision)
        train = settings.train
        lower = f"lower --batch {train.batch} or --crop {train.crop}, or raise --accumulate"
        with memory_named("training", lower), folder.held(group):
            return _carry_out(job, data, splits)


def _carry_out(job: _Job, data: str | Path, splits: tuple[str, ...]) -> Result | None:
    folder, group, options = job.folder, job.group, job.options
    where = Path(options.cache) if options.cache else folder.root / "cache"
    cache = group.on_first(lambda: prepared(job.recipe, data, where, splits, folder.data_report))
    unlabelled = group.on_first(lambda: _unlabelled_cache(job.recipe, where, folder.data_report))
    names = cache.rules.classes
    decides = _decides(job, data, cache, unlabelled)
    group.on_first(lambda: folder.open(decides))
    cells = Cells(cache, "train")
    train_settings = job.recipe.train
    cells.take(train_settings.fraction, train_settings.fraction_unit, train_settings.seed)
    weights = class_weights(cells.class_pixels(), train_settings.class_weights)
    targets = targets_of(job.recipe.pseudo, cache, weights.to(group.device))
    model = _first_model(job.recipe, names)
    widen_head(model, sum(target.channels for target in targets[1:]), train_settings.seed)
    training = begin(model.to(group.device), train_settings)
    training.load(folder.checkpoint)
    known = _known_result(folder)
    if known is not None:
        return known if group.is_first else None
    autocast = autocast_for(group.device, job.precision)

    def measured(model: nn.Module) -> Scores | None:
        if not cache.split("test"):
            return None
        own, evaluation = narrowed(model, len(names)), job.recipe.evaluation
        counts = measure(own, cache, train_settings.crop, evaluation, autocast, group)
        return scores(counts, names, cache.rules.left_out)

    def validate(model: nn.Module) -> dict[str, float]:
        found = measured(model)
        return {} if found is None else {"mean_iou": found.mean_iou, "mean_f1": found.mean_f1}

    how = Augmentation(train_settings.orientations, train_settings.scale, train_settings.colour)
    samples = Samples(cells, train_settings.crop, how, train_settings.seed)
    if training.step < train_settings.steps:
        shop = Workshop(train_settings, options, folder, group, autocast, validate)
        teach(training, samples, targets, shop, _unlabelled(job, unlabelled, autocast, len(names)))
    card, learnt = _card(job, data, cache), narrowed(training.result, len(names))
    group.on_first(lambda: folder.put_model(lambda part: save_model(learnt, part, card)))
    found = measured(learnt.eval())
    return _keep_result(job, training, len(cells), found) if group.is_first else None


def prepared(
    settings: Recipe, data: str | Path, where: Path, splits: tuple[str, ...], report: Path
) -> Cache:
    """Decode and check DATA. Raises SourceError when all that is wrong has been reported."""
    found = find_data(data, settings.data)
    for name in splits:
        print(f"{name}: {len(found.split(name))} images", file=sys.stderr)
    request = DecodeRequest(
        found, settings.data, settings.train.crop, settings.pseudo, settings.train.seed, splits
    )
    cache = build_cache(request, where)
    check_cache(cache, splits, report, skip_bad=settings.data.skip_bad)
    return cache


def _unlabelled_cache(settings: Recipe, where: Path, report: Path) -> Cache | None:
    """Images and objects of the run folder of --unlabelled."""
    found = settings.self_training.unlabelled
    if found is None:
        return None
    own = for_run_folder(replace(settings, pseudo=PseudoSettings("classes,masks")))
    return prepared(own, found, where, ("train",), report)


def _unlabelled(
    job: _Job, cache: Cache | None, autocast: Callable[[], torch.autocast], classes: int
) -> Unlabelled | None:
    if cache is None:
        return None
    train = job.recipe.train
    how = Augmentation(train.orientations, train.scale, train.colour)
    samples = Samples(Cells(cache, "train"), train.crop, how, train.seed)
    weights = torch.ones(classes, device=job.group.device)
    return Unlabelled(samples, job.recipe.self_training, autocast, weights, train.seed)


def for_run_folder(settings: Recipe) -> Recipe:
    """A recipe whose data is a run folder; what was said of the real labels does not hold there."""
    data = replace(
        settings.data, classes=None, train=None, test=None, scene=None, label_threshold=None,
        label_ignore=None, label_values=None, reduce_zero=False, hold_out=0,
        **asdict(ReadSettings()),
    )  # fmt: skip
    return replace(settings, data=data)


def _first_model(settings: Recipe, names: tuple[str, ...]) -> nn.Module:
    wanted, seed = settings.model, settings.train.seed
    if wanted.init is None:
        return build_model(wanted.model or DEFAULT, names, seed)
    return start_from(wanted.init, wanted.model, names, seed, keep=wanted.keep)


def _card(job: _Job, data: str | Path, cache: Cache) -> ModelCard:
    """What the model says of itself to whoever predicts with it."""
    train, asked = job.recipe.train, job.recipe.data
    found = find_data(data, asked)
    colours = cache.rules.palette
    if found.is_run and job.recipe.pseudo.painted == "classes":
        known = read_classes(RunFolder(found.root).classes)
        colours = tuple(one.colour for one in known.classes)
    if colours is None or len(colours) != len(cache.rules.classes):
        colours = tuple(map(tuple, palette(len(cache.rules.classes)).tolist()))
    # What was chosen for this device by itself is chosen anew for another.
    precision = "float32" if train.precision == "float32" else "auto"
    return ModelCard(train.crop, precision, asked.shrink, found.reading.settings, colours)


def _decides(job: _Job, data: str | Path, cache: Cache, unlabelled: Cache | None) -> dict[str, Any]:
    """All that the weights depend on."""
    settings = job.recipe
    others = {}
    if unlabelled is not None:
        others = asdict(settings.self_training) | {"unlabelled_decoded": unlabelled.root.name}
    values = {
        "DATA": str(Path(data).absolute()),
        "decoded": cache.root.name,
        "classes": list(cache.rules.classes),
        **asdict(settings.model),
        **asdict(settings.train),
        **asdict(settings.evaluation),
        **{k: v for k, v in asdict(settings.data).items() if k != "classes"},
        **asdict(settings.pseudo),
        **others,
        "precision": job.precision,
    }
    return json.loads(json.dumps(values))


def _known_result(folder: TrainingFolder) -> Result | None:
    """The result of an earlier call."""
    run = folder.read()
    if "result" not in run or not folder.model.exists():
        return None
    try:
        values = as_record(run["result"], ResultRecord)
        found = None if values.scores is None else Scores.from_dict(values.scores)
    except BadRecordError as error:
        raise folder.unreadable(error) from error
    return Result(**(vars(values) | {"model": folder.model, "scores": found}))


def _keep_result(job: _Job, training: State, crops: int, found: Scores | None) -> Result:
    lines = [line for line in job.folder.log_lines() if "seconds" in line]
    seconds = sum(line["seconds"] for line in lines)
    images = training.step * job.recipe.train.batch
    # "waited_for_crops" in logs that an earlier version began.
    shares = [line.get("waited", line.get("waited_for_crops", 0.0)) for line in lines]
    waited = sum(s * line["seconds"] for s, line in zip(shares, lines, strict=True))
    result = Result(
        model=job.folder.model,
        steps=training.step,
        crops=crops,
        seconds=seconds,
        images_per_second=images / seconds if seconds else 0.0,
        waited=waited / seconds if seconds else 0.0,
        scores=found,
    )
    job.folder.update(result=result.to_dict())
    return result


def pretrain(
    labels: str | Path,
    out: str | Path,
    settings: Recipe | None = None,
    options: RunOptions | None = None,
) -> Result | None:
    """Teach a model pseudo-labels; nothing is held out but what ``test`` of the data names.

    See ``train_model``.
    """
    settings = settings or Recipe()
    data = replace(settings.data, hold_out=0)
    return train_model(labels, out, replace(settings, data=data), options, splits=("train",))


def finetune(
    data: str | Path,
    out: str | Path,
    settings: Recipe | None = None,
    options: RunOptions | None = None,
) -> Result | None:
    """Teach a model real labels, and measure it on the test images. See ``train_model``."""
    return train_model(data, out, settings, options, splits=("train", "test"))
