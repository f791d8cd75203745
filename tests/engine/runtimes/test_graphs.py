"""CUDA graphs on a stand-in of PyTorch's module: what is done in which stream, and what if not."""

from contextlib import contextmanager

import pytest
import torch

from alps.engine.runtimes.gpu.graphs import WARM_UPS, Replayed, Steps


class Stream:
    def __init__(self, cuda, name):
        self.cuda, self.name = cuda, name

    def wait_stream(self, other):
        self.cuda.log.append(f"{self.name} waits for {other.name}")

    def wait_event(self, event):
        self.cuda.log.append(f"{self.name} waits for the result")


class Event:
    def __init__(self, cuda):
        self.cuda = cuda

    def record(self, stream):
        self.cuda.log.append(f"result copied in {stream.name}")


class Graph:
    """Runs the function again, on what its input holds then, into the output it was given."""

    def __init__(self, cuda):
        self.cuda = cuda

    def replay(self):
        self.cuda.log.append(f"replay in {self.cuda.current.name}")
        self.output.copy_(self.cuda.compute(self.input))


class Cuda:
    """As far as ``torch.cuda`` is used."""

    def __init__(self, refuses=None):
        self.log, self.refuses, self.streams = [], refuses, 0
        self.usual = self.current = Stream(self, "usual")

    def Stream(self, device):
        self.streams += 1
        return Stream(self, f"apart {self.streams}")

    def Event(self):
        return Event(self)

    def CUDAGraph(self):
        return Graph(self)

    def current_stream(self, device):
        return self.current

    @contextmanager
    def stream(self, stream):
        before, self.current = self.current, stream
        yield
        self.current = before

    @contextmanager
    def graph(self, graph, stream, capture_error_mode):
        assert capture_error_mode == "thread_local"  # others go on meanwhile
        self.log.append(f"capture in {stream.name}")
        with self.stream(stream):
            yield
        if self.refuses:
            raise self.refuses
        graph.input, graph.output = self.input, self.output

    def compute(self, x):
        return 2 * x.sum(1)

    def function(self, x):
        self.log.append(f"called in {self.current.name}")
        self.input, self.output = x, self.compute(x)
        return self.output


def replayed(cuda):
    steps = Steps("the encoder", lambda rows: torch.empty(rows, 3), cuda.function, torch.clone)
    made = Replayed(steps, torch.device("cpu"), cuda)

    def run(value, rows=2, usual=True):
        cuda.log.clear()
        found = made.run(rows, lambda own: own.fill_(value), usual)
        assert torch.equal(found, torch.full((rows,), 6.0 * value))
        return found

    return made, run


def test_the_first_call_captures_and_the_next_replay():
    cuda = Cuda()
    _, run = replayed(cuda)
    first = run(1.0)
    assert cuda.log == [
        "apart 1 waits for usual",  # which wrote the input
        *["called in apart 1"] * WARM_UPS,
        "capture in apart 1",
        "called in apart 1",
        "usual waits for apart 1",
        "usual waits for the result",
        "replay in usual",
        "result copied in usual",
    ]
    second = run(5.0)
    assert cuda.log == ["usual waits for the result", "replay in usual", "result copied in usual"]
    assert first.tolist() == [6, 6] and second.tolist() == [30, 30]  # each is the caller's own


def test_other_streams_wait_until_the_last_result_was_copied():
    cuda = Cuda()
    _, run = replayed(cuda)
    run(1.0)
    with cuda.stream(Stream(cuda, "other")):
        run(2.0)
        assert cuda.log[:2] == ["other waits for the result", "replay in other"]


def test_other_batches_are_called_and_another_usual_one_is_captured_anew():
    cuda = Cuda()
    made, run = replayed(cuda)
    run(1.0)
    run(2.0, rows=3, usual=False)
    assert cuda.log == ["called in usual"]
    run(3.0)
    assert "replay in usual" in cuda.log and cuda.streams == 1
    run(4.0, rows=1)  # a run that halved what it takes at once
    assert "capture in apart 2" in cuda.log and made._captured.rows == 1


def test_where_no_graph_can_be_captured_it_is_called_and_the_log_says_why(caplog):
    cuda = Cuda(RuntimeError("operation not permitted\nwhen stream is capturing"))
    _, run = replayed(cuda)
    run(1.0)
    assert cuda.log[-2:] == ["usual waits for apart 1", "called in usual"]
    (record,) = caplog.records
    assert record.message == (
        "the encoder runs without a CUDA graph: operation not permitted when stream is capturing"
    )
    run(2.0)
    assert cuda.log == ["called in usual"] and len(caplog.records) == 1


def test_out_of_memory_is_for_the_caller_and_the_next_try_captures():
    cuda = Cuda(torch.OutOfMemoryError("CUDA out of memory"))
    made, run = replayed(cuda)
    with pytest.raises(torch.OutOfMemoryError):
        run(1.0)
    assert cuda.log[-1] == "usual waits for apart 1"
    cuda.refuses = None
    run(2.0, rows=1)  # half of it fits
    assert made._captured.rows == 1
