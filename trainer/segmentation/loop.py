"""The training loop: resumable, and the same whether one process runs it or several.

    alps pretrain RUN PRE --model segformer_b2 --steps 40000
    alps finetune DATA FINE --init PRE --fraction 0.05
    torchrun --nproc-per-node 8 --no-python alps pretrain RUN PRE --batch 64

A step depends on the state before it and on its own number: samples, flips, colours and dropout
are drawn from generators seeded with it. So weights, optimiser and step are all that a checkpoint
must hold, and a run that was killed ends with the same weights, on one machine with one number of
threads.
"""

import math
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from alps.engine.base.errors import AlpsError
from alps.trainer.data.loader import Batch, batches
from alps.trainer.data.samples import Samples
from alps.trainer.numerics import reproducible
from alps.trainer.processes import Processes
from alps.trainer.segmentation.batch_norm import share_batch_norm
from alps.trainer.segmentation.folder import TrainingFolder
from alps.trainer.segmentation.log import Log
from alps.trainer.segmentation.loss import pixel_weights, weighted_sum
from alps.trainer.segmentation.models import logits
from alps.trainer.segmentation.recipe import RunOptions, TrainSettings
from alps.trainer.segmentation.state import Training, set_rate


@dataclass(frozen=True)
class Workshop:
    """Where and how the loop runs."""

    settings: TrainSettings
    options: RunOptions
    folder: TrainingFolder
    group: Processes
    autocast: Callable[[], torch.autocast]  # opens the precision of one pass through the network
    validate: Callable[[nn.Module, int], dict[str, float]]  # model, step -> measures


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


def train(training: Training, samples: Samples, of_class: Tensor, shop: Workshop) -> None:
    """Go from where ``training`` is to the last step.

    of_class: (C,) float32, weights of the classes.

    Raises:
        AlpsError: the loss is no number any more.
    """
    settings, options, group = shop.settings, shop.options, shop.group
    steps = range(training.step, settings.steps)
    made = batches(
        samples, steps, settings.batch, group.share(settings.batch), workers=options.workers
    )
    of_class = of_class.to(group.device)
    with ExitStack() as stack:
        stack.callback(made.close)
        stack.enter_context(reproducible(group.device))
        log = stack.enter_context(Log(shop.folder, settings, options, group, training.step))
        share_batch_norm(training.model.train())
        module = group.together(_Forward(training.model, shop.autocast))
        for step in steps:
            with log.waiting():
                batch = next(made).to(group.device)
            rate = settings.rate * schedule(step, settings)
            set_rate(training.optimiser.param_groups, rate)
            torch.manual_seed(_seed(settings.seed, step, group))
            loss = _learn(module, batch, of_class, shop)
            norm = nn.utils.clip_grad_norm_(training.model.parameters(), settings.clip)
            training.optimiser.step()
            training.optimiser.zero_grad(set_to_none=True)
            training.step = step + 1
            training.average(settings.ema)
            last = training.step == settings.steps
            saves = training.step % options.checkpoint_every == 0 or last
            log.count(loss, norm)
            if training.step % options.log_every == 0 or saves:
                measures = log.line(step, rate)
                if not all(map(math.isfinite, measures)):
                    raise AlpsError(
                        f"the loss is no number any more at step {step}; give another OUT and a "
                        f"lower --rate than {settings.rate:g}, or --precision float32"
                    )
            if options.validate_every and training.step % options.validate_every == 0 and not last:
                log.validation(step, shop.validate(training.result, step))
            if saves and group.is_first:
                training.save(shop.folder.checkpoint)
    training.model.eval()
    group.wait()


def _learn(module: nn.Module, batch: Batch, of_class: Tensor, shop: Workshop) -> Tensor:
    """Gradients of the mean loss over the labelled pixels of all processes; returns that mean."""
    group, parts = shop.group, min(shop.settings.accumulate, len(batch.pixels))
    counts = pixel_weights(batch.labels, batch.weights, of_class)
    # One mean over all pixels of a step, however they are shared out. At least 1, for a step
    # that saw no label.
    whole = group.sum(counts.double().sum()).clamp(min=1)
    sums = counts.new_zeros((), dtype=torch.float64)
    bounds = [len(batch.pixels) * i // parts for i in range(parts + 1)]
    for start, end in pairwise(bounds):
        some = batch.part(start, end)
        waits = end < len(batch.pixels) and group.size > 1
        with module.no_sync() if waits else nullcontext():
            loss = module(some.pixels, some.labels, counts[start:end])
            # Processes' gradients are averaged; their sum is wanted.
            (loss * (group.size / whole).float()).backward()
        sums += loss.detach().double()
    return group.sum(sums) / whole


def schedule(step: int, settings: TrainSettings) -> float:
    """Share of the highest rate at a step: a straight rise, then a fall towards 0."""
    rise = math.ceil(settings.warmup * settings.steps)
    if step < rise:
        return (step + 1) / rise
    done = (step - rise) / max(1, settings.steps - rise)
    if settings.schedule == "poly":
        return (1 - done) ** settings.power
    if settings.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    return 1.0


def _seed(seed: int, step: int, group: Processes) -> int:
    """Of dropout, another one for each step and process."""
    return (seed * 1_000_003 + step * group.size + group.rank) % (1 << 63)
