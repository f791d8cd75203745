"""Makes batches ahead of the loop that learns from them, in threads.

Slices of mapped files, OpenCV and NumPy let go of the interpreter's lock while they work, so
threads do; they need no copies of the data set and no pickling. A batch crosses to the device as
bytes: normalisation is the network's business.
"""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from alps.trainer.data.samples import Sample

AHEAD = 3  # batches


class Drawn(Protocol):
    """Samples by number; see ``Samples``."""

    def place(self, number: int, /) -> int:
        """What sample ``number`` is of."""
        ...

    def make(self, number: int, place: int, /) -> Sample:
        """The sample itself, in any thread."""
        ...


@dataclass
class Batch:
    """Samples side by side."""

    pixels: Tensor  # (B, 3, S, S) uint8
    labels: Tensor  # (B, S, S) int64, -1 where there is no class
    weights: Tensor  # (B, S, S) float32
    objects: Tensor | None = None  # (B, S, S) int64, see Sample
    vectors: Tensor | None = None  # (B, D, s, s) float32, see Sample

    def to(self, device: torch.device) -> "Batch":
        """The same on a device; a CUDA GPU copies while others compute."""
        if device.type != "cuda":
            return self._each(lambda part: part.to(device))
        return self._each(lambda part: part.pin_memory().to(device, non_blocking=True))

    def part(self, start: int, end: int) -> "Batch":
        """Some of the samples."""
        return self._each(lambda part: part[start:end])

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        return Batch(
            change(self.pixels),
            change(self.labels),
            change(self.weights),
            None if self.objects is None else change(self.objects),
            None if self.vectors is None else change(self.vectors),
        )


def batches(
    samples: Drawn, steps: range, size: int, share: slice, workers: int
) -> Generator[Batch, None, None]:
    """The batches of some steps, in order.

    Args:
        samples: what there is.
        steps: their numbers; step n has the samples n x size … (n + 1) x size - 1.
        size: samples a step, over all processes.
        share: which of them are this process's.
        workers: threads.
    """
    waiting: deque[list[Future[Sample]]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="alps-sample")
    try:
        for step in steps:
            numbers = range(step * size, (step + 1) * size)[share]
            places = [samples.place(number) for number in numbers]
            waiting.append(
                [pool.submit(samples.make, *pair) for pair in zip(numbers, places, strict=True)]
            )
            if len(waiting) > AHEAD:
                yield _batch(waiting.popleft())
        while waiting:
            yield _batch(waiting.popleft())
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _batch(futures: list[Future[Sample]]) -> Batch:
    made = [future.result() for future in futures]
    return Batch(
        _channels_first([sample.pixels for sample in made]),
        _stacked([sample.labels for sample in made]),
        _stacked([sample.weights for sample in made]),
        _where_known(_stacked, [sample.objects for sample in made]),
        _where_known(_channels_first, [sample.vectors for sample in made]),
    )


def _channels_first(arrays: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()


def _stacked(arrays: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(arrays))


def _where_known(
    join: Callable[[list[np.ndarray]], Tensor], parts: Sequence[np.ndarray | None]
) -> Tensor | None:
    known = [part for part in parts if part is not None]
    return join(known) if len(known) == len(parts) else None
