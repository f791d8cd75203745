"""What a training says while it runs: progress, JSON lines, and TensorBoard where it is wanted."""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from alps.engine.base.errors import SettingsError
from alps.engine.base.progress import Progress
from alps.trainer.processes import Processes
from alps.trainer.segmentation.folder import TrainingFolder
from alps.trainer.segmentation.recipe import RunOptions, TrainSettings


class Log:
    """A context manager. The first process writes; the others only count."""

    def __init__(
        self,
        folder: TrainingFolder,
        settings: TrainSettings,
        options: RunOptions,
        group: Processes,
        step: int,
    ) -> None:
        """``step``: the first one that is done now."""
        self._folder, self._settings, self._options = folder, settings, options
        self._group, self._step = group, step
        self._stack = ExitStack()
        self._sums: Tensor | None = None  # of loss and gradient norm since the last line
        self._counted, self._waited = 0, 0.0

    def __enter__(self) -> Self:
        if self._group.is_first:
            self._folder.keep_log_until(self._step)
            self._file = self._stack.enter_context(self._folder.log.open("a", encoding="utf-8"))
            self._board = self._open_board() if self._options.tensorboard else None
            progress = Progress(self._settings.steps, "steps", "training", initial=self._step)
            self._progress = self._stack.enter_context(progress)
        self._then = time.perf_counter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time inside as waited for the loader."""
        then = time.perf_counter()
        yield
        self._waited += time.perf_counter() - then

    def count(self, loss: Tensor, norm: Tensor) -> None:
        """Remember a step; nothing is fetched from a GPU."""
        both = torch.stack([loss.detach().double(), norm.detach().double()])
        self._sums = both if self._sums is None else self._sums + both
        self._counted += 1
        if self._group.is_first:
            self._progress.advance()

    def line(self, step: int, rate: float) -> list[float]:
        """Write a line; returns the means of loss and gradient norm since the last one."""
        loss, norm = (self._sums / self._counted).tolist()
        now = time.perf_counter()
        seconds = now - self._then
        self._write(
            {
                "step": step,
                "loss": loss,
                "gradient_norm": norm,
                "rate": rate,
                "seconds": seconds,
                "images_per_second": self._counted * self._settings.batch / seconds,
                "waited_for_crops": self._waited / seconds,  # share of the time
            }
        )
        self._sums, self._counted, self._waited, self._then = None, 0, 0.0, now
        return [loss, norm]

    def validation(self, step: int, measures: dict[str, float]) -> None:
        """Write what a validation found; its time is not the loop's."""
        self._write({"step": step, **measures})
        if self._group.is_first:
            told = ", ".join(f"{name} {value:.3f}" for name, value in measures.items())
            self._progress.note(f"step {step + 1}: {told}")
        self._then = time.perf_counter()

    def _write(self, values: dict[str, Any]) -> None:
        if not self._group.is_first:
            return
        self._file.write(json.dumps(values) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                if name != "step":
                    self._board.add_scalar(name, value, values["step"])

    def _open_board(self) -> Any:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ModuleNotFoundError as error:
            raise SettingsError(
                "--tensorboard needs tensorboard, which is not installed: "
                "pip install 'alps-engine[train]'"
            ) from error
        board = SummaryWriter(self._folder.tensorboard, purge_step=self._step)
        self._stack.callback(board.close)
        return board
