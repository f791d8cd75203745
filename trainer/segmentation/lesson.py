"""What a segmentation model learns in a step: cross-entropy over the labelled pixels of crops.

alps pretrain RUN PRE --model segformer_b2 --steps 40000
alps finetune DATA FINE --init PRE --fraction 0.05
torchrun --nproc-per-node 8 --no-python alps pretrain RUN PRE --batch 64
"""

import math
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from alps.trainer.data.loader import Batch, Drawn, batches
from alps.trainer.loop.log import LogSettings
from alps.trainer.loop.schedule import Fall, Schedule, constant, cosine, polynomial
from alps.trainer.loop.state import State
from alps.trainer.loop.train import Learnt, Plan, train
from alps.trainer.processes import Processes
from alps.trainer.segmentation.batch_norm import share_batch_norm
from alps.trainer.segmentation.folder import TrainingFolder
from alps.trainer.segmentation.loss import pixel_weights, weighted_sum
from alps.trainer.segmentation.models import logits
from alps.trainer.segmentation.recipe import RunOptions, TrainSettings


@dataclass(frozen=True)
class Workshop:
    """Where and how a model learns."""

    settings: TrainSettings
    options: RunOptions
    folder: TrainingFolder
    group: Processes
    autocast: Callable[[], torch.autocast]  # opens the precision of one pass through the network
    validate: Callable[[nn.Module], Mapping[str, float]]  # model -> measures


def teach(state: State, samples: Drawn, of_class: Tensor, shop: Workshop) -> None:
    """Go from where ``state`` is to the last step.

    of_class: (C,) float32, weights of the classes.

    Raises:
        AlpsError: the loss is no number any more.
    """
    settings, options = shop.settings, shop.options
    plan = Plan(
        schedule_of(settings),
        batch=settings.batch,
        clip=settings.clip,
        keep=settings.ema,
        checkpoint_every=options.checkpoint_every,
        log_every=options.log_every,
        validate_every=options.validate_every,
    )
    log = LogSettings(
        shop.folder.log,
        "training",
        f"give another OUT and a lower --rate than {settings.rate:g}, or --precision float32",
        board=shop.folder.tensorboard if options.tensorboard else None,
    )
    train(
        state,
        _Lesson(state, samples, of_class, shop),
        plan,
        shop.folder.checkpoint,
        log,
        shop.group,
    )


def schedule_of(settings: TrainSettings) -> Schedule:
    """A straight rise, then a fall towards 0."""
    fall: Fall = constant
    if settings.schedule == "poly":
        fall = polynomial(settings.power)
    elif settings.schedule == "cosine":
        fall = cosine()
    return Schedule(settings.steps, math.ceil(settings.warmup * settings.steps), fall)


class _Forward(nn.Module):
    """From bytes to the sum of the loss: what is shared among processes as one module."""

    def __init__(self, model: nn.Module, autocast: Callable[[], torch.autocast]) -> None:
        super().__init__()
        self.model, self._autocast = model, autocast

    def forward(self, pixels: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
        """Sum over the pixels of the crops."""
        with self._autocast():
            found = logits(self.model, pixels)
        return weighted_sum(found, labels, counts)


class _Lesson:
    def __init__(self, state: State, samples: Drawn, of_class: Tensor, shop: Workshop) -> None:
        self._state, self._samples, self._shop = state, samples, shop
        self._of_class = of_class.to(shop.group.device)
        share_batch_norm(state.model)
        self._module = shop.group.together(_Forward(state.model, shop.autocast))

    def batches(self, steps: range) -> Generator[Batch, None, None]:
        size, group = self._shop.settings.batch, self._shop.group
        workers = self._shop.options.workers
        return batches(self._samples, steps, size, group.share(size), workers=workers)

    def learn(self, batch: Batch, step: int) -> Learnt:
        """Gradients of the mean loss over the labelled pixels of all processes."""
        group = self._shop.group
        torch.manual_seed(_seed(self._shop.settings.seed, step, group))
        batch = batch.to(group.device)
        parts = min(self._shop.settings.accumulate, len(batch.pixels))
        counts = pixel_weights(batch.labels, batch.weights, self._of_class)
        # One mean over all pixels of a step, however they are shared out. At least 1, for a step
        # that saw no label.
        whole = group.sum(counts.double().sum()).clamp(min=1)
        sums = counts.new_zeros((), dtype=torch.float64)
        bounds = [len(batch.pixels) * i // parts for i in range(parts + 1)]
        for start, end in pairwise(bounds):
            some = batch.part(start, end)
            waits = end < len(batch.pixels)
            with self._apart() if waits else nullcontext():
                loss = self._module(some.pixels, some.labels, counts[start:end])
                # Processes' gradients are averaged; their sum is wanted.
                (loss * (group.size / whole).float()).backward()
            sums += loss.detach().double()
        return Learnt({"loss": group.sum(sums) / whole})

    def _apart(self) -> AbstractContextManager[None]:
        """Within it gradients are not yet summed over processes."""
        module = self._module
        return module.no_sync() if isinstance(module, DistributedDataParallel) else nullcontext()

    def validate(self, step: int) -> Mapping[str, float]:
        return self._shop.validate(self._state.result)


def _seed(seed: int, step: int, group: Processes) -> int:
    """Of dropout, another one for each step and process."""
    return (seed * 1_000_003 + step * group.size + group.rank) % (1 << 63)
