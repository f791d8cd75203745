"""The loop of every training: resumable, and the same whether one process runs it or several.

What differs between kinds is a ``Lesson``: which batches there are, and what a step makes of one.
"""

from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from torch import Tensor

from alps.kernels.base.heap import keep_freed_memory
from alps.trainer.loop.log import Log, LogSettings
from alps.trainer.loop.schedule import Schedule
from alps.trainer.loop.state import State
from alps.trainer.numerics import reproducible
from alps.trainer.processes import Processes

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class Learnt:
    """What a step has to say; all processes say the same."""

    measures: Mapping[str, Tensor]  # name -> (), the loss among them
    notes: Sequence[str] = ()


class Lesson(Protocol[Batch]):
    """What is learnt. Both must depend on a step's number alone, however the run got there."""

    def batches(self, steps: range) -> Generator[Batch, None, None]:
        """A batch for each step, this process's part of it; closed at the end."""
        ...

    def learn(self, batch: Batch, step: int) -> Learnt:
        """Leave gradients of the mean loss, over all processes, in the network."""
        ...

    def validate(self, step: int) -> Mapping[str, float]:
        """Measures of the network as it is now."""
        ...


@dataclass(frozen=True)
class Plan:
    """How long and how fast a network learns, and how often something is written."""

    schedule: Schedule
    batch: int  # images a step, over all processes
    clip: float  # gradients with a larger norm are scaled down to it
    keep: float  # share of the running average that stays in a step
    checkpoint_every: int  # steps
    log_every: int
    validate_every: int = 0  # 0: never
    early: int = 10  # of the running average, see State.average
    clip_by_group: bool = False  # see State.clip


def train(
    state: State,
    lesson: Lesson[Batch],
    plan: Plan,
    checkpoint: Path,
    log_settings: LogSettings,
    group: Processes,
) -> None:
    """Go from where ``state`` is to the last step; the first process writes.

    Raises:
        AlpsError: the loss is no number any more; no checkpoint was made of it.
    """
    total = plan.schedule.steps
    steps = range(state.step, total)
    if group.device.type == "cpu":
        keep_freed_memory()
    with ExitStack() as stack:
        made = stack.enter_context(closing(lesson.batches(steps)))
        stack.enter_context(reproducible(group.device))
        log = stack.enter_context(Log(log_settings, steps, plan.batch, is_first=group.is_first))
        state.model.train()
        for step in steps:
            with log.waiting():
                batch = next(made)
            rate = state.set_rate(plan.schedule.share(step))
            learnt = lesson.learn(batch, step)
            norm = state.clip(plan.clip, by_group=plan.clip_by_group)
            state.optimiser.step()
            state.optimiser.zero_grad(set_to_none=True)
            state.step = step + 1
            state.average(plan.keep, plan.early)

            for note in learnt.notes:
                log.note(note)
            log.count(learnt.measures, norm)
            last = state.step == total
            saves = last or state.step % plan.checkpoint_every == 0
            # Before each checkpoint too: what is no number must not be kept.
            if saves or state.step % plan.log_every == 0:
                log.line(step, rate)
            if plan.validate_every and state.step % plan.validate_every == 0 and not last:
                log.validation(step, lesson.validate(step))
            if saves and group.is_first:
                state.save(checkpoint)
    state.model.eval()
    if group.is_first and not checkpoint.exists():  # no step was asked for
        state.save(checkpoint)
    group.wait()
