"""CUDA graphs on a stand-in of PyTorch's module: what is done in which stream, and what if not."""

import pytest
import torch
from fake_cuda import FakeCuda, Stream

from alps.engine.runtimes.gpu.graphs import WARM_UPS, Replayed, Steps


def replayed(cuda):
    def twice(x):
        (found,) = cuda.called(lambda x: [2 * x.sum(1)], x)
        return found

    steps = Steps("the encoder", lambda rows: torch.empty(rows, 3), twice, torch.clone)
    made = Replayed(steps, torch.device("cpu"), cuda)

    def run(value, rows=2, usual=True):
        cuda.log.clear()
        found = made.run(rows, lambda own: own.fill_(value), usual)
        assert torch.equal(found, torch.full((rows,), 6.0 * value))
        return found

    return made, run


def test_the_first_call_captures_and_the_next_replay():
    cuda = FakeCuda()
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
    cuda = FakeCuda()
    _, run = replayed(cuda)
    run(1.0)
    with cuda.stream(Stream(cuda, "other")):
        run(2.0)
        assert cuda.log[:2] == ["other waits for the result", "replay in other"]


def test_other_batches_are_called_and_another_usual_one_is_captured_anew():
    cuda = FakeCuda()
    made, run = replayed(cuda)
    run(1.0)
    run(2.0, rows=3, usual=False)
    assert cuda.log == ["called in usual"]
    run(3.0)
    assert "replay in usual" in cuda.log and cuda.streams == 1
    run(4.0, rows=1)  # a run that halved what it takes at once
    assert "capture in apart 2" in cuda.log and made._captured.rows == 1


def test_where_no_graph_can_be_captured_it_is_called_and_the_log_says_why(caplog):
    cuda = FakeCuda(RuntimeError("operation not permitted\nwhen stream is capturing"))
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
    cuda = FakeCuda(torch.OutOfMemoryError("CUDA out of memory"))
    made, run = replayed(cuda)
    with pytest.raises(torch.OutOfMemoryError):
        run(1.0)
    assert cuda.log[-1] == "usual waits for apart 1"
    cuda.refuses = None
    run(2.0, rows=1)  # half of it fits
    assert made._captured.rows == 1
