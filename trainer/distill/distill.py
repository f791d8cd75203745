"""A distillation from beginning to end: plan, hold out, learn, save, measure."""

import dataclasses
import json
import math
import shutil
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from alps.engine.base.errors import SettingsError, SourceError
from alps.engine.base.memory import memory_named
from alps.engine.base.records import BadRecordError
from alps.engine.images.archive import read_together
from alps.engine.models.checkpoints import save_sam
from alps.engine.models.registry import find_model, given_name
from alps.engine.sam.config import ModelInfo, NetworkConfig, SamConfig
from alps.engine.sam.model import SamLike
from alps.engine.settings import deciding
from alps.trainer.distill.agreement import measure_agreement
from alps.trainer.distill.data import (
    Draws,
    NetworkWindow,
    Split,
    WindowReader,
    split_windows,
)
from alps.trainer.distill.folder import DistillFolder
from alps.trainer.distill.lesson import Training, Workshop, begin, teach
from alps.trainer.distill.loss import Statistics
from alps.trainer.distill.recipe import (
    MOBILE,
    RATE_LEARNT,
    RATE_RANDOM,
    DistillSettings,
    FilledDistillSettings,
)
from alps.trainer.distill.result import DistillResult
from alps.trainer.distill.start import balance, fit_neck, look, settled
from alps.trainer.distill.student import (
    Student,
    assemble,
    encoder_shape,
    load_teacher,
    new_student,
    parameters,
)
from alps.trainer.distill.targets import Targets
from alps.trainer.numerics import autocast_for, choose_precision
from alps.trainer.processes import Processes, joined

FIRST_WINDOWS = 32  # from which the student's start and the teacher's statistics are computed
MOST_REASONS = 5  # that are named of images that cannot be opened


@dataclass(frozen=True)
class DistillOptions:
    """What does not change the result: where and how a distillation is carried out."""

    device: str = "auto"
    checkpoint_every: int = 50  # steps


@dataclass
class _Job:
    """What all parts of a distillation need."""

    folder: DistillFolder
    settings: FilledDistillSettings
    options: DistillOptions
    group: Processes
    teacher: SamLike
    info: ModelInfo
    student: Student
    decides: dict[str, Any]  # all that the weights depend on

    @property
    def steps(self) -> int:
        """Of the optimiser, in all."""
        return self.settings.train.steps


def distill(
    src: str | Path,
    out: str | Path,
    teacher: str,
    settings: DistillSettings | None = None,
    options: DistillOptions | None = None,
) -> DistillResult | None:
    """Teach a smaller encoder the teacher's image embeddings on the windows of ``src``.

    Started again with the same settings it goes on where it stopped, and ends with the weights
    that an undisturbed run has. The images are those that were there when it began. Under torchrun
    all processes call this; the first one writes.

    Args:
        src: an image, a folder, a glob or a list of paths.
        out: receives student.safetensors, distill.json, log.jsonl and what is needed to go on.
        teacher: a model's name or a checkpoint.
        settings: open fields take what suits the teacher.
        options: the device, and how often to write a checkpoint.

    Returns:
        The result; None in all processes but the first.

    Raises:
        SourceError: too few images can be opened.
        SettingsError: a setting cannot work.
        ModelError: the teacher, or the student's start, is no usable checkpoint.
        RunFolderError: ``out`` is in use, unwritable, or holds something else.
    """
    settings, options = settings or DistillSettings(), options or DistillOptions()
    if options.checkpoint_every < 1:
        raise SettingsError(f"--checkpoint-every {options.checkpoint_every}: must be at least 1")
    with joined(options.device, settings.train.batch) as group:
        lower = f"lower --batch {settings.train.batch}, or share it among more GPUs with torchrun"
        with memory_named("distilling", lower):
            job = _prepare(src, DistillFolder(Path(out)), teacher, settings, options, group)
            with job.folder.held(group):
                return _carry_out(job)


def _prepare(
    src: str | Path,
    folder: DistillFolder,
    name: str,
    settings: DistillSettings,
    options: DistillOptions,
    group: Processes,
) -> _Job:
    path = find_model(name)
    teacher, info = load_teacher(path, given_name(name), group.device)
    filled = settings.for_teacher(info.defaults)
    student = new_student(teacher, filled.student, filled.train.seed)
    rate = filled.train.rate
    if rate is None:
        rate = RATE_RANDOM if student.is_random else RATE_LEARNT
    precision = choose_precision(group.device, filled.train.precision)
    filled = dataclasses.replace(
        filled, train=dataclasses.replace(filled.train, rate=rate, precision=precision)
    )
    values = filled.to_dict()
    decides = {
        "SRC": str(src) if "://" in str(src) else str(Path(src).absolute()),
        "teacher": info.sha256,
        **deciding(values["source"]),
        **values["train"],
        **encoder_shape(student.config),
        "start": student.start,
    }
    return _Job(folder, filled, options, group, teacher, info, student, decides)


def _carry_out(job: _Job) -> DistillResult | None:
    folder, settings, group = job.folder, job.settings, job.group
    plan = group.on_first(lambda: folder.open(job.decides, settings.source))
    unopened = sorted(set(filter(None, plan.column("reason").to_pylist())))
    if group.is_first:
        for reason in unopened[:MOST_REASONS]:
            print(f"an image teaches nothing: {reason}", file=sys.stderr)
    split = split_windows(plan, settings.train.hold_out, settings.train.seed)
    training = begin(job.student.encoder.to(group.device), settings.train)
    training.load(folder.checkpoint)
    paths = plan.column("path").unique().to_pylist()
    reading = read_together(folder.reading(job.decides["SRC"], settings.source), paths)
    with WindowReader(plan, reading, job.teacher.config) as reader:
        _learn(job, training, reader, split)
        if not group.is_first:
            return None
        known = _known_result(job)
        if known is not None:
            return known
        _save(job, training)
        result = _result(job, training, reader, split, len(unopened))
    folder.update(
        teacher={"name": job.info.name, "sha256": job.info.sha256},
        agreement_settings=asdict(settings.agreement),
        result=result.to_dict(),
    )
    # Gigabytes that nothing needs any more.
    shutil.rmtree(folder.cache, ignore_errors=True)
    return result


def _learn(job: _Job, training: Training, reader: WindowReader, split: Split) -> None:
    """All steps that are left."""
    settings, group = job.settings.train, job.group
    if training.statistics is not None and training.step >= job.steps:
        return
    shop = Workshop(
        settings,
        job.folder,
        group,
        autocast_for(group.device, settings.precision),
        job.options.checkpoint_every,
    )
    targets = Targets(job.teacher, reader, split.train, shop.autocast)
    oriented = settings.augment and settings.cache_gb == 0
    draws = Draws(len(split.train), settings.seed, oriented=oriented)
    if settings.cache_gb > 0:
        used = settings.steps * settings.batch
        targets.fill_cache(job.folder.cache, draws, used, settings.cache_gb, group)
    if training.statistics is None:
        rows = split.train[draws.order(0)[:FIRST_WINDOWS]]
        training.statistics = group.on_first(
            lambda: _start(job, training, reader.upright(rows), len(rows), shop.autocast)
        )
    teach(training, targets, draws, shop)


def _start(
    job: _Job,
    training: Training,
    windows: Iterable[NetworkWindow],
    count: int,
    autocast: Callable[[], torch.autocast],
) -> Statistics:
    """Settle what the first windows can settle; returns the teacher's statistics."""
    encoder = training.model
    if job.settings.student.init is None:
        windows = settled(encoder, windows, job.group.device)
    seen = look(job.teacher, encoder, windows, autocast)
    if seen.weight == 0:
        reason = seen.reasons[0] if seen.reasons else "all is nodata"
        raise SourceError(
            f"none of the first {count} windows shows anything ({reason}); check SRC and --bands"
        )
    balance(encoder, seen)
    if job.settings.student.init is None:  # else its neck has learnt already
        fit_neck(encoder, seen)
    if training.averaged is not None:
        training.averaged.load_state_dict(encoder.state_dict())
    return seen.statistics


def _save(job: _Job, training: Training) -> None:
    """Write the student as a checkpoint like any other, with the teacher's thresholds."""
    recipe = {name: value for name, value in job.decides.items() if name != "SRC"}
    config = job.student.config
    save_sam(
        assemble(job.teacher, training.result, config),
        job.folder.student,
        job.info.defaults,
        metadata={
            "alps.model": f"{job.info.name}-{_size_of(config)}",
            "alps.teacher": json.dumps({"name": job.info.name, "sha256": job.info.sha256}),
            "alps.recipe": json.dumps(recipe),
        },
    )


def _size_of(config: NetworkConfig) -> str:
    if isinstance(config, SamConfig):
        return f"{config.encoder_width}x{config.encoder_depth}"
    return MOBILE


def _known_result(job: _Job) -> DistillResult | None:
    """The result of an earlier call, where nothing has changed since."""
    run = job.folder.read()
    if "result" not in run or not job.folder.student.exists():
        return None
    if run.get("agreement_settings") != asdict(job.settings.agreement):
        return None
    try:
        return DistillResult.from_dict(run["result"], job.folder.root)
    except BadRecordError as error:
        raise job.folder.unreadable(error) from error


def _result(
    job: _Job, training: Training, reader: WindowReader, split: Split, unopened: int
) -> DistillResult:
    """Measure the student as it was saved, as a user will load it."""
    student, _ = load_teacher(job.folder.student, None, job.group.device)
    rows = split.held_out[: job.settings.agreement.agreement_windows]
    assert training.statistics is not None  # a finished training had its first look
    agreement = measure_agreement(
        job.teacher,
        student,
        reader.upright(rows),
        len(rows),
        job.settings.everything(job.info.defaults).segment,
        training.statistics,
    )
    lines = job.folder.log_lines()
    seconds = sum(line.get("seconds", 0.0) for line in lines)
    images = len(lines) * job.settings.train.batch
    return DistillResult(
        student=job.folder.student,
        teacher=job.info.name,
        start=job.student.start,
        parameters=(parameters(job.teacher), parameters(student)),
        encoder_parameters=(
            parameters(job.teacher.image_encoder),
            parameters(student.image_encoder),
        ),
        train_windows=len(split.train),
        held_out_windows=len(split.held_out),
        held_out_by=split.by,
        steps=training.step,
        train_seconds=seconds,
        images_per_second=images / seconds if seconds else math.nan,
        unopened=unopened,
        unread=int(sum(line.get("unread", 0) for line in lines)),
        agreement=agreement,
    )
