"""What a segmentation model learns in a step: the losses of its targets over crops.

alps pretrain RUN PRE --model segformer_b2 --steps 40000
alps finetune DATA FINE --init PRE --fraction 0.05
torchrun --nproc-per-node 8 --no-python alps pretrain RUN PRE --batch 64
"""

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
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
from alps.trainer.segmentation.models import coarse_logits
from alps.trainer.segmentation.recipe import RunOptions, TrainSettings
from alps.trainer.segmentation.self_training import Unlabelled
from alps.trainer.segmentation.targets import Target, losses, totals

Both = tuple[Batch, Batch | None]


@dataclass(frozen=True)
class Workshop:
    """Where and how a model learns."""

    settings: TrainSettings
    options: RunOptions
    folder: TrainingFolder
    group: Processes
    autocast: Callable[[], torch.autocast]  # opens the precision of one pass through the network
    validate: Callable[[nn.Module], Mapping[str, float]]  # model -> measures


def teach(
    state: State,
    samples: Drawn,
    targets: Sequence[Target],
    shop: Workshop,
    unlabelled: Unlabelled | None = None,
) -> None:
    """Go from where ``state`` is to the last step.

    Args:
        state: what learns.
        samples: crops with labels.
        targets: in the order of the channels of the last layer.
        shop: where and how.
        unlabelled: crops without, that the running average of the weights labels.

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
        _Lesson(state, samples, targets, shop, unlabelled),
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
    """From bytes to the network's answers: what is shared among processes as one module."""

    def __init__(self, model: nn.Module, autocast: Callable[[], torch.autocast]) -> None:
        super().__init__()
        self.model, self._autocast = model, autocast

    def forward(self, pixels: Tensor) -> Tensor:
        """Answers (B, C, h, w) of crops (B, 3, S, S) uint8."""
        with self._autocast():
            return coarse_logits(self.model, pixels)


@dataclass(frozen=True)
class _Part:
    """Crops of a step, and what is learnt of them."""

    batch: Batch
    targets: Sequence[Target]
    weight: float = 1.0


class _Lesson:
    def __init__(
        self,
        state: State,
        samples: Drawn,
        targets: Sequence[Target],
        shop: Workshop,
        unlabelled: Unlabelled | None,
    ) -> None:
        self._state, self._samples, self._shop, self._targets = state, samples, shop, targets
        self._unlabelled = unlabelled
        share_batch_norm(state.model)
        self._module = shop.group.together(_Forward(state.model, shop.autocast))

    def batches(self, steps: range) -> Generator[Both, None, None]:
        """For each step crops with labels, and crops without where they are learnt from."""
        begin = steps.stop if self._unlabelled is None else self._unlabelled.begin(steps.stop)
        later = range(min(max(steps.start, begin), steps.stop), steps.stop)
        with ExitStack() as stack:
            labelled = stack.enter_context(closing(self._drawn(self._samples, steps)))
            others: Generator[Batch, None, None] | None = None
            if self._unlabelled is not None and later:
                others = stack.enter_context(closing(self._drawn(self._unlabelled.samples, later)))
            for step in steps:
                yield next(labelled), None if others is None or step < begin else next(others)

    def _drawn(self, samples: Drawn, steps: range) -> Generator[Batch, None, None]:
        size, group = self._shop.settings.batch, self._shop.group
        workers = self._shop.options.workers
        return batches(samples, steps, size, group.share(size), workers=workers)

    def learn(self, batch: Both, step: int) -> Learnt:
        """Gradients of the sum of the targets' mean losses over the places of all processes."""
        group = self._shop.group
        torch.manual_seed(_seed(self._shop.settings.seed, step, group))
        labelled, others = batch
        parts = [_Part(labelled.to(group.device), self._targets)]
        if self._unlabelled is not None and others is not None:
            told = self._unlabelled.labelled(self._state.result, others.to(group.device), step)
            parts.append(_Part(told, [self._unlabelled.target], self._unlabelled.weight))
        means: dict[str, Tensor] = {}
        for part in parts:
            means |= self._learn_part(part, is_last=part is parts[-1])
        measures = {"loss": torch.stack(list(means.values())).sum()}
        if len(means) > 1:
            measures |= {f"loss_{name}": mean for name, mean in means.items()}
        return Learnt(measures)

    def _learn_part(self, part: _Part, *, is_last: bool) -> dict[str, Tensor]:
        """Add gradients; returns the mean loss of each target, over all processes."""
        group, crops = self._shop.group, len(part.batch.pixels)
        counts, total = totals(part.targets, part.batch)
        # One mean over all places of a step, however they are shared out. At least 1, for a step
        # that saw no label.
        whole = group.sum(total).clamp(min=1) / part.weight
        sums = torch.zeros_like(whole)
        pieces = min(self._shop.settings.accumulate, crops)
        bounds = [crops * i // pieces for i in range(pieces + 1)]
        for start, end in pairwise(bounds):
            some = part.batch.part(start, end)
            waits = end < crops or not is_last
            with self._apart() if waits else nullcontext():
                found = self._module(some.pixels)
                own = losses(part.targets, found, some, [one[start:end] for one in counts])
                # Processes' gradients are averaged; their sum is wanted.
                (own * (group.size / whole).float()).sum().backward()
            sums += own.detach().to(sums.dtype)
        means = group.sum(sums) / whole
        return dict(zip((target.name for target in part.targets), means, strict=True))

    def _apart(self) -> AbstractContextManager[None]:
        """Within it gradients are not yet summed over processes."""
        module = self._module
        return module.no_sync() if isinstance(module, DistributedDataParallel) else nullcontext()

    def validate(self, step: int) -> Mapping[str, float]:
        return self._shop.validate(self._state.result)


def _seed(seed: int, step: int, group: Processes) -> int:
    """Of dropout, another one for each step and process."""
    return (seed * 1_000_003 + step * group.size + group.rank) % (1 << 63)
