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
from typing import Any

import torch
from torch import Tensor

from alps.engine.base.memory import is_out_of_memory

_log = logging.getLogger(__name__)

WARM_UPS = 2


class Replayed:
    """A function of one tensor, replayed where there are as many rows as usual.

    Args:
        function: of a tensor on a GPU to another; launches kernels and waits for none.
        empty: makes room for the input of so many images.
        name: of what it computes, for the log.
        cuda: PyTorch's module, or what stands in for it.
    """

    def __init__(
        self,
        function: Callable[[Tensor], Tensor],
        empty: Callable[[int], Tensor],
        name: str,
        cuda: Any = torch.cuda,
    ) -> None:
        self._function, self._empty, self._name, self._cuda = function, empty, name, cuda
        self._lock = threading.Lock()  # there is one input, and one output
        self._captured: _Captured | None = None
        self._refused = False

    def run(self, images: int, fill: Callable[[Tensor], None], usual: bool) -> Tensor:
        """What the function gives, on the current stream; it is the caller's own.

        Args:
            images: of this call.
            fill: writes the input's values.
            usual: whether so many are worth a graph; it takes the place of one of other many.
        """
        if not usual or self._refused:
            return self._called(images, fill)
        with self._lock:
            captured = self._captured
            if captured is None or captured.images != images:
                self._captured = None  # gives its memory back
                captured = self._captured = self._capture(images, fill)
            if captured is None:
                return self._called(images, fill)
            stream = self._cuda.current_stream(captured.input.device)
            # Another thread's stream may not have read the last result yet.
            stream.wait_event(captured.done)
            fill(captured.input)
            captured.graph.replay()
            found = captured.output.clone()
            captured.done.record(stream)
            return found

    def _called(self, images: int, fill: Callable[[Tensor], None]) -> Tensor:
        own = self._empty(images)
        fill(own)
        return self._function(own)

    def _capture(self, images: int, fill: Callable[[Tensor], None]) -> "_Captured | None":
        """A graph; None where there can be none."""
        cuda, own = self._cuda, self._empty(images)
        fill(own)
        usual, apart = cuda.current_stream(own.device), cuda.Stream(own.device)
        apart.wait_stream(usual)
        with cuda.stream(apart):
            for _ in range(WARM_UPS):
                self._function(own)
        graph = cuda.CUDAGraph()
        try:
            with cuda.graph(graph, stream=apart, capture_error_mode="thread_local"):
                output = self._function(own)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            self._refused = True
            reason = " ".join(str(error).split())
            _log.warning("%s runs without a CUDA graph: %s", self._name, reason)
            return None
        finally:
            usual.wait_stream(apart)
        return _Captured(images, graph, own, output, cuda.Event())


@dataclass(frozen=True)
class _Captured:
    images: int
    graph: Any
    input: Tensor
    output: Tensor
    done: Any  # event: the last result was copied
