"""A network of fixed shape as one CUDA graph: some hundred launches become one.

A graph is captured in a stream of its own, after runs that compile and choose kernels, and in the
mode that leaves other threads alone: they go on reading, copying and launching meanwhile. Where a
capture fails the function is simply called, and the log says why; running out of memory is no such
failure, for whoever called has smaller batches.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch

from alps.engine.base.memory import is_out_of_memory

_log = logging.getLogger(__name__)

WARM_UPS = 2

In = TypeVar("In")  # tensors on a GPU, in whatever holds them
Out = TypeVar("Out")


@dataclass(frozen=True)
class Steps(Generic[In, Out]):
    """What is computed of so many rows, images or points.

    name: of it, for the log.
    empty: makes room for the input of so many.
    compute: launches kernels, and waits for none.
    keep: a result of its own from one that the next replay overwrites.
    """

    name: str
    empty: Callable[[int], In]
    compute: Callable[[In], Out]
    keep: Callable[[Out], Out]


class Replayed(Generic[In, Out]):
    """Steps that are replayed where there are as many rows as usual.

    Args:
        steps: what is computed.
        device: where.
        cuda: PyTorch's module, or what stands in for it.
    """

    def __init__(self, steps: Steps[In, Out], device: torch.device, cuda: Any = torch.cuda) -> None:
        self._steps, self._device, self._cuda = steps, device, cuda
        self._lock = threading.Lock()  # there is one input, and one output
        self._captured: _Captured[In, Out] | None = None
        self._refused = False

    def run(self, rows: int, fill: Callable[[In], None], usual: bool) -> Out:
        """What the steps give, on the current stream; it is the caller's own.

        Args:
            rows: of this call.
            fill: writes the input's values.
            usual: whether so many are worth a graph; it takes the place of one of other many.
        """
        if not usual or self._refused:
            return self._called(rows, fill)
        with self._lock:
            captured = self._captured
            if captured is None or captured.rows != rows:
                self._captured = None  # gives its memory back
                captured = self._captured = self._capture(rows, fill)
            if captured is None:
                return self._called(rows, fill)
            stream = self._cuda.current_stream(self._device)
            # Another thread's stream may not have read the last result yet.
            stream.wait_event(captured.done)
            fill(captured.input)
            captured.graph.replay()
            found = self._steps.keep(captured.output)
            captured.done.record(stream)
            return found

    def _called(self, rows: int, fill: Callable[[In], None]) -> Out:
        own = self._steps.empty(rows)
        fill(own)
        return self._steps.compute(own)

    def _capture(self, rows: int, fill: Callable[[In], None]) -> "_Captured[In, Out] | None":
        """A graph; None where there can be none."""
        cuda, compute, own = self._cuda, self._steps.compute, self._steps.empty(rows)
        fill(own)
        usual, apart = cuda.current_stream(self._device), cuda.Stream(self._device)
        apart.wait_stream(usual)
        with cuda.stream(apart):
            for _ in range(WARM_UPS):
                compute(own)
        graph = cuda.CUDAGraph()
        try:
            with cuda.graph(graph, stream=apart, capture_error_mode="thread_local"):
                output = compute(own)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            self._refused = True
            reason = " ".join(str(error).split())
            _log.warning("%s runs without a CUDA graph: %s", self._steps.name, reason)
            return None
        finally:
            usual.wait_stream(apart)
        return _Captured(rows, graph, own, output, cuda.Event())


@dataclass(frozen=True)
class _Captured(Generic[In, Out]):
    rows: int
    graph: Any
    input: In
    output: Out
    done: Any  # event: the last result was copied
