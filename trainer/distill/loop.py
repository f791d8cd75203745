"""The training loop: resumable, and the same whether one process runs it or several.

    alps distill TILES OUT --teacher vit_b --student small
    torchrun --nproc-per-node 8 --no-python alps distill TILES OUT --teacher vit_h --batch 64

A step depends on the weights before it, the optimiser's state and the step's number; nothing draws
from a generator that runs along (data.py). So a checkpoint of weights, optimiser and step is all,
and a run that was killed ends with the same weights, on one machine with one number of threads.
"""

import copy
import functools
import json
import math
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from alps.engine.base.atomic import whole
from alps.engine.base.errors import AlpsError, RunFolderError
from alps.engine.base.progress import Progress
from alps.trainer.distill.data import Draws
from alps.trainer.distill.folder import DistillFolder
from alps.trainer.distill.loss import Statistics, embedding_loss
from alps.trainer.distill.recipe import TrainSettings
from alps.trainer.distill.targets import Targets
from alps.trainer.numerics import reproducible
from alps.trainer.processes import Processes

LAST_RATE = 0.02  # of the highest one, at the end of the cosine
BETAS = (0.9, 0.98)


@dataclass
class Training:
    """What changes from step to step."""

    encoder: nn.Module
    averaged: nn.Module | None  # the running average of its weights, where one is kept
    optimiser: torch.optim.Optimizer
    statistics: Statistics | None = None  # the teacher's; None before the first look
    step: int = 0

    @property
    def result(self) -> nn.Module:
        """The encoder to be kept."""
        return self.encoder if self.averaged is None else self.averaged

    def save(self, folder: DistillFolder) -> None:
        """Write a checkpoint that appears whole or not at all."""
        state = {
            "step": self.step,
            "encoder": self.encoder.state_dict(),
            "averaged": None if self.averaged is None else self.averaged.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "statistics": (self.statistics.mean, self.statistics.deviation),
        }
        with whole(folder.checkpoint) as part:
            torch.save(state, part)

    def load(self, folder: DistillFolder) -> None:
        """Take over the checkpoint, where there is one."""
        if not folder.checkpoint.exists():
            return
        try:
            state = torch.load(folder.checkpoint, weights_only=True, map_location="cpu")
            self.encoder.load_state_dict(state["encoder"])
            if self.averaged is not None:
                self.averaged.load_state_dict(state["averaged"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.statistics = Statistics(*state["statistics"])
            self.step = state["step"]
        except Exception as error:  # torch raises almost anything for a damaged file
            reason = " ".join(str(error).split())[:200]
            raise RunFolderError(
                f"cannot read {folder.checkpoint} ({reason}); put back a copy, or delete it to "
                "begin anew"
            ) from error


def begin(encoder: nn.Module, settings: TrainSettings) -> Training:
    """Before the first step. ``encoder`` lies on the device where it will learn."""
    matrices, others = [], []
    for name, parameter in encoder.named_parameters():
        plain = parameter.ndim < 2 or "pos" in name  # norms, biases, positions
        (others if plain else matrices).append(parameter)
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    averaged = copy.deepcopy(encoder).requires_grad_(False) if settings.ema > 0 else None
    return Training(encoder, averaged, torch.optim.AdamW(groups, lr=0.0, betas=BETAS))


@dataclass(frozen=True)
class Workshop:
    """Where and how the loop runs."""

    settings: TrainSettings
    folder: DistillFolder
    group: Processes
    autocast: Callable[[], torch.autocast]  # opens the precision of one pass through a network
    checkpoint_every: int  # steps


def train(training: Training, targets: Targets, draws: Draws, shop: Workshop) -> None:
    """Go from where ``training`` is, statistics included, to the last step.

    Raises:
        AlpsError: the loss is no number any more.
    """
    settings, group = shop.settings, shop.group
    statistics = training.statistics.to(group.device)
    steps = range(training.step, settings.steps)
    wanted = (draws.batch(step, settings.batch)[group.share(settings.batch)] for step in steps)
    with ExitStack() as stack:
        stack.enter_context(reproducible(group.device))
        show = _Show(shop, training.step, stack)
        module = group.together(training.encoder.train())
        for step, batch in zip(steps, targets.batches(wanted), strict=True):
            rate = settings.rate * schedule(step, settings.steps, settings.warmup)
            for parameters in training.optimiser.param_groups:
                parameters["lr"] = rate
            with shop.autocast():
                embedding = module(batch.pixels)
            loss = embedding_loss(
                embedding, batch.target, batch.weight, statistics, settings.cosine
            )
            loss.total.backward()
            norm = nn.utils.clip_grad_norm_(training.encoder.parameters(), settings.clip)
            unread = norm.new_tensor(len(batch.unread))
            sums = torch.stack([loss.squared, loss.cosine, loss.weight, norm / group.size, unread])
            squared, cosine, weight, norm, unread = group.sum(sums).tolist()
            if not math.isfinite(squared + cosine + norm):
                raise AlpsError(
                    f"the loss is no number any more at step {step}; give another OUT and a lower "
                    f"--rate than {settings.rate:g}, or --precision float32"
                )
            training.optimiser.step()
            training.optimiser.zero_grad(set_to_none=True)
            training.step = step + 1
            _average(training, settings.ema)
            show.reasons(batch.unread)
            show.line(
                step=step,
                loss=(squared + settings.cosine * cosine) / max(weight, 1e-9),
                squared_error=squared / max(weight, 1e-9),
                cosine=1 - cosine / max(weight, 1e-9),
                rate=rate,
                gradient_norm=norm,
                unread=int(unread),
            )
            last = training.step == settings.steps
            if group.is_first and (training.step % shop.checkpoint_every == 0 or last):
                training.save(shop.folder)
    training.encoder.eval()
    if group.is_first and not shop.folder.checkpoint.exists():  # no step was asked for
        training.save(shop.folder)
    group.wait()


def schedule(step: int, steps: int, warmup: float) -> float:
    """Share of the highest rate: a straight rise, then a cosine down to a fiftieth."""
    rise = math.ceil(warmup * steps)
    if step < rise:
        return (step + 1) / rise
    done = (step - rise) / max(1, steps - rise)
    return LAST_RATE + (1 - LAST_RATE) * 0.5 * (1 + math.cos(math.pi * done))


class _Show:
    """Progress and log of the first process; the others keep still."""

    def __init__(self, shop: Workshop, step: int, stack: ExitStack) -> None:
        self._batch, self._is_first = shop.settings.batch, shop.group.is_first
        self._then = time.perf_counter()
        self._told: set[str] = set()
        self._note = functools.partial(print, file=sys.stderr)
        if self._is_first:
            shop.folder.keep_log_until(step)
            self._log = stack.enter_context(shop.folder.log.open("a", encoding="utf-8"))
            progress = Progress(shop.settings.steps, "steps", "distilling", initial=step)
            self._progress = stack.enter_context(progress)
            self._note = progress.note

    def line(self, **values: Any) -> None:
        """Log a step, and the seconds since the one before."""
        if not self._is_first:
            return
        now = time.perf_counter()
        seconds, self._then = now - self._then, now
        values |= {"seconds": seconds, "images_per_second": self._batch / seconds}
        self._log.write(json.dumps(values) + "\n")
        self._log.flush()
        self._progress.advance()

    def reasons(self, unread: list[str]) -> None:
        """Say once of each file that cannot be read that it teaches nothing."""
        for reason in set(unread) - self._told:
            self._told.add(reason)
            self._note(f"a window teaches nothing: {reason}")


@torch.no_grad()
def _average(training: Training, keep: float) -> None:
    """Move the running average towards the weights, faster at first."""
    if training.averaged is None:
        return
    keep = min(keep, training.step / (training.step + 10))
    pairs = zip(training.averaged.parameters(), training.encoder.parameters(), strict=True)
    for mean, value in pairs:
        mean.lerp_(value, 1 - keep)
