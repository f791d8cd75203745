"""What a student learns in a step: its teacher's embeddings of some windows.

alps distill TILES OUT --teacher vit_b --student small
torchrun --nproc-per-node 8 --no-python alps distill TILES OUT --teacher vit_h --batch 64
"""

import math
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from alps.engine.base.device import sum_type
from alps.engine.sam.model import Encoder
from alps.trainer.distill.data import Draws
from alps.trainer.distill.folder import DistillFolder
from alps.trainer.distill.loss import Statistics, embedding_loss
from alps.trainer.distill.recipe import TrainSettings
from alps.trainer.distill.targets import Batch, Targets
from alps.trainer.loop.log import LogSettings
from alps.trainer.loop.schedule import Schedule, cosine
from alps.trainer.loop.state import State, copy_for_average
from alps.trainer.loop.train import Learnt, Plan, train
from alps.trainer.processes import Processes

LAST_RATE = 0.02  # of the highest one, at the end of the cosine
BETAS = (0.9, 0.98)


@dataclass
class Training(State[Encoder]):
    """The student's encoder, and what its teacher's embeddings are standardised by."""

    statistics: Statistics | None = None  # None before the first look

    def to_dict(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        assert self.statistics is not None, "before the first look there is nothing to keep"
        return super().to_dict() | {"statistics": (self.statistics.mean, self.statistics.deviation)}

    def take(self, kept: Mapping[str, Any]) -> None:
        """Go on from what ``to_dict`` gave, of earlier versions too."""
        super().take({"model": kept.get("encoder"), **kept})
        self.statistics = Statistics(*kept["statistics"])


def begin(encoder: Encoder, settings: TrainSettings) -> Training:
    """Before the first step. ``encoder`` lies on the device where it will learn."""
    assert settings.rate is not None, "filled in for the student's start"
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in encoder.named_parameters():
        # norms, biases, positions, offsets of attention
        plain = parameter.ndim < 2 or "pos" in name or name.endswith("attention_biases")
        (others if plain else matrices).append(parameter)
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=0.0, betas=BETAS)
    averaged = copy_for_average(encoder, settings.ema)
    return Training(encoder, averaged, optimiser, [settings.rate] * 2)


@dataclass(frozen=True)
class Workshop:
    """Where and how a student learns."""

    settings: TrainSettings
    folder: DistillFolder
    group: Processes
    autocast: Callable[[], torch.autocast]  # opens the precision of one pass through a network
    checkpoint_every: int  # steps


def teach(training: Training, targets: Targets, draws: Draws, shop: Workshop) -> None:
    """Go from where ``training`` is, statistics included, to the last step.

    Raises:
        AlpsError: the loss is no number any more.
    """
    settings = shop.settings
    plan = Plan(
        schedule_of(settings),
        batch=settings.batch,
        clip=settings.clip,
        keep=settings.ema,
        checkpoint_every=shop.checkpoint_every,
        log_every=1,
    )
    log = LogSettings(
        shop.folder.log,
        "distilling",
        f"give another OUT and a lower --rate than {settings.rate:g}, or --precision float32",
    )
    train(
        training,
        _Lesson(training, targets, draws, shop),
        plan,
        shop.folder.checkpoint,
        log,
        shop.group,
    )


def schedule_of(settings: TrainSettings) -> Schedule:
    """A straight rise, then a cosine down to a fiftieth."""
    rise = math.ceil(settings.warmup * settings.steps)
    return Schedule(settings.steps, rise, cosine(LAST_RATE))


class _Lesson:
    def __init__(self, training: Training, targets: Targets, draws: Draws, shop: Workshop) -> None:
        assert training.statistics is not None, "the first look comes before the first step"
        self._targets, self._draws, self._shop = targets, draws, shop
        self._statistics = training.statistics.to(shop.group.device)
        self._module = shop.group.together(training.model)
        self._told: set[str] = set()

    def batches(self, steps: range) -> Generator[Batch, None, None]:
        size, share = self._shop.settings.batch, self._shop.group.share(self._shop.settings.batch)
        return self._targets.batches(self._draws.batch(step, size)[share] for step in steps)

    def learn(self, batch: Batch, step: int) -> Learnt:
        weight_of_cosine = self._shop.settings.cosine
        with self._shop.autocast():
            embedding = self._module(batch.pixels)
        loss = embedding_loss(
            embedding, batch.target, batch.weight, self._statistics, weight_of_cosine
        )
        loss.total.backward()
        unread = loss.weight.new_tensor(len(batch.unread))
        sums = torch.stack([loss.squared, loss.cosine, loss.weight, unread])
        exact = sum_type(sums.device)
        squared, cosine, weight, unread = self._shop.group.sum(sums).to(exact)
        shown = weight.clamp(min=1e-9)
        measures = {
            "loss": (squared + weight_of_cosine * cosine) / shown,
            "squared_error": squared / shown,
            "cosine": 1 - cosine / shown,
            "unread": unread,
        }
        fresh = sorted(set(batch.unread) - self._told)
        self._told.update(fresh)
        return Learnt(measures, [f"a window teaches nothing: {reason}" for reason in fresh])

    def validate(self, step: int) -> Mapping[str, float]:
        return {}
