"""What a training says while it runs: progress, JSON lines, and TensorBoard where it is wanted."""

import json
import math
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from alps.engine.base.errors import AlpsError, SettingsError
from alps.engine.base.progress import Progress
from alps.trainer.loop.lines import keep_before

GRADIENT_NORM = "gradient_norm"


@dataclass(frozen=True)
class LogSettings:
    """Where a log lies, and what it is about."""

    path: Path  # log.jsonl
    title: str  # of the progress
    remedy: str  # what to do where the loss is no number any more
    stage: str | None = None  # of a training that has several, and one log
    board: Path | None = None  # folder for TensorBoard


class Log:
    """A context manager. The first process writes; the others only count."""

    def __init__(
        self, settings: LogSettings, span: range, batch: int, *, is_first: bool = True
    ) -> None:
        """Prepare to tell of steps.

        Args:
            settings: where.
            span: the steps that are done now.
            batch: images a step, over all processes.
            is_first: whether this is the process that writes.
        """
        self._settings, self._span, self._batch = settings, span, batch
        self._is_first = is_first
        self._stack = ExitStack()
        self._clear()

    def __enter__(self) -> Self:
        if self._is_first:
            path, begin = self._settings.path, self._span.start
            keep_before(path, begin, self._settings.stage)
            self._file = self._stack.enter_context(path.open("a", encoding="utf-8"))
            self._board = None if self._settings.board is None else self._open_board()
            progress = Progress(self._span.stop, "steps", self._settings.title, initial=begin)
            self._progress = self._stack.enter_context(progress)
        self._then = time.perf_counter()
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self._stack.__exit__(*exc_info)

    def _clear(self) -> None:
        self._values: dict[str, list[Tensor]] = defaultdict(list)
        self._steps, self._waited, self._then = 0, 0.0, time.perf_counter()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time inside as waited for the batch."""
        then = time.perf_counter()
        yield
        self._waited += time.perf_counter() - then

    def count(self, measures: Mapping[str, Tensor], norm: Tensor) -> None:
        """Remember a step; nothing is fetched from a GPU."""
        for name, value in measures.items():
            self._values[name].append(value.detach())
        self._values[GRADIENT_NORM].append(norm.detach())
        self._steps += 1
        if self._is_first:
            self._progress.advance()

    def line(self, step: int, rate: float) -> None:
        """Write a line with the means of all since the last one, up to and with ``step``.

        Raises:
            AlpsError: one of them is no number any more.
        """
        means = {
            name: torch.stack(values).cpu().double().mean(0).tolist()
            for name, values in self._values.items()
        }
        if not all(math.isfinite(value) for mean in means.values() for value in _all(mean)):
            stage = self._settings.stage
            of = "" if stage is None else f" of the {stage} stage"
            raise AlpsError(
                f"the loss is no number any more at step {step}{of}; {self._settings.remedy}"
            )
        seconds = time.perf_counter() - self._then
        told: dict[str, Any] = (
            {} if self._settings.stage is None else {"stage": self._settings.stage}
        )
        self._write(
            told
            | {"step": step, "steps": self._steps, **means, "rate": rate, "seconds": seconds}
            | {
                "images_per_second": self._steps * self._batch / seconds,
                "waited": self._waited / seconds,  # for batches, share of the time
            }
        )
        self._clear()

    def validation(self, step: int, measures: Mapping[str, float]) -> None:
        """Write what a validation found; its time is not the loop's."""
        self._write({"step": step, **measures})
        told = ", ".join(f"{name} {value:.3f}" for name, value in measures.items())
        if self._is_first:
            self._progress.note(f"step {step + 1}: {told}")
        self._then = time.perf_counter()

    def note(self, text: str) -> None:
        """Say something beside the numbers, on standard error."""
        if self._is_first:
            self._progress.note(text)
        else:
            print(text, file=sys.stderr)

    def _write(self, values: dict[str, Any]) -> None:
        if not self._is_first:
            return
        self._file.write(json.dumps(values) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                if name != "step" and isinstance(value, int | float):
                    self._board.add_scalar(name, value, values["step"])

    def _open_board(self) -> Any:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ModuleNotFoundError as error:
            raise SettingsError(
                "--tensorboard needs tensorboard, which is not installed: "
                "pip install 'alps-engine[train]'"
            ) from error
        board = SummaryWriter(self._settings.board, purge_step=self._span.start)
        self._stack.callback(board.close)
        return board


def _all(mean: float | Sequence[float]) -> Sequence[float]:
    return [mean] if isinstance(mean, float) else mean
