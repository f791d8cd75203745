"""The decoder's graph, on a stand-in of PyTorch's module: what is captured, and how often."""

import pytest
import torch
from fake_cuda import FakeCuda
from interpreted import needs_triton

from alps.engine.runtimes.gpu import decoder as decoder_module
from alps.engine.runtimes.gpu.decoder import GpuDecoder

pytestmark = needs_triton


class Fused:
    """In place of a ``FusedDecoder``: a mask a point to the right of 0, as high as the point."""

    def __init__(self, cuda):
        self.cuda = cuda

    def decode(self, embeddings, points, asked, threshold, slots):
        from alps.engine.sam.fused import FoundMasks

        def compute(embeddings, points, asked):
            passed = (points[0, :, 0] > 0) & asked[0]
            rank = torch.where(passed, passed.cumsum(0) - 1, slots).clamp(max=slots)
            height = points.new_zeros(slots + 1).scatter_(0, rank, points[0, :, 1])[:slots]
            number = torch.zeros(slots + 1, dtype=torch.int64)
            number = number.scatter_(0, rank, torch.arange(len(rank)))[:slots]
            logits = height[:, None, None] * embeddings.mean() * torch.ones(4, 4)
            finite = embeddings.isfinite().flatten(1).all(1)
            return logits[None], height[None], number[None], passed.sum()[None], finite

        return FoundMasks(*self.cuda.called(compute, embeddings, points, asked))


def points_of(count, seed):
    return torch.rand(count, 2, generator=torch.Generator().manual_seed(seed)) - 0.3


def decoded(decoder, embedding, points, threshold=0.5):
    decoder._cuda.log.clear()
    (masks,) = decoder.decode(embedding, points, threshold, 1000)
    passed = points[:, 0] > 0
    torch.testing.assert_close(masks.predicted_iou, points[passed, 1])
    assert torch.equal(masks.point_index, passed.nonzero()[:, 0])
    expected = (points[passed, 1] * embedding.mean())[:, None, None].expand(-1, 4, 4)
    torch.testing.assert_close(masks.logits, expected)
    return masks, decoder._cuda.log


def test_as_many_points_as_the_last_time_are_decoded_by_a_graph():
    cuda = FakeCuda()
    decoder = GpuDecoder(Fused(cuda), cuda=cuda)
    _, log = decoded(decoder, torch.ones(2, 3, 3), points_of(20, 0))
    assert log == ["called in usual"]  # an image alone is not worth one
    second, log = decoded(decoder, torch.full((2, 3, 3), 2.0), points_of(20, 1))
    assert "capture in apart 1" in log and "replay in usual" in log
    third, log = decoded(decoder, torch.full((2, 3, 3), 3.0), points_of(20, 2))
    assert log == ["usual waits for the result", "replay in usual", "result copied in usual"]
    _, log = decoded(decoder, torch.ones(2, 3, 3), points_of(7, 3))  # at the edge of a scene
    assert log == ["called in usual"]
    _, log = decoded(decoder, torch.ones(2, 3, 3), points_of(20, 4))
    assert "replay in usual" in log and cuda.streams == 1
    for masks, seed, value in ((second, 1, 2.0), (third, 2, 3.0)):  # each is the caller's own
        points = points_of(20, seed)
        height = value * points[points[:, 0] > 0, 1]
        torch.testing.assert_close(masks.logits[:, 0, 0], height)


def test_other_numbers_are_captured_a_few_times_only(monkeypatch):
    monkeypatch.setattr(decoder_module, "_GRAPHS", 2)
    cuda = FakeCuda()
    decoder = GpuDecoder(Fused(cuda), cuda=cuda)
    for seed, count in enumerate((5, 5, 6, 6, 7, 7, 7)):
        _, log = decoded(decoder, torch.ones(2, 3, 3), points_of(count, seed))
    assert cuda.streams == 2 and log == ["called in usual"]
    _, log = decoded(decoder, torch.ones(2, 3, 3), points_of(6, 9))
    assert "replay in usual" in log  # the last that was captured stays


def test_more_masks_than_slots_and_values_out_of_range_are_decoded_again():
    cuda = FakeCuda()
    decoder = GpuDecoder(Fused(cuda), Fused(cuda), cuda=cuda)
    right = torch.stack([torch.ones(8), torch.arange(8.0)], dim=1)
    for _ in range(3):
        _, log = decoded(decoder, torch.ones(2, 3, 3), right)  # 8 of 12 slots
    assert log[1] == "replay in usual" and len(log) == 3
    far = torch.ones(2, 3, 3)
    far[0, 0, 0] = torch.inf
    (masks,) = decoder.decode(far, right, 0.5, 1000)
    assert cuda.log[-1] == "called in usual" and len(masks.point_index) == 8


def test_without_pytorchs_module_nothing_is_captured():
    cuda = FakeCuda()
    decoder = GpuDecoder(Fused(cuda))
    for _ in range(3):
        next(decoder.decode(torch.ones(2, 3, 3), points_of(9, 0), 0.5, 1000))
    assert cuda.log == ["called in usual"] * 3


@pytest.mark.parametrize("error", [RuntimeError("not while capturing"), None])
def test_where_no_graph_can_be_captured_points_are_decoded_all_the_same(error, caplog):
    cuda = FakeCuda(error)
    decoder = GpuDecoder(Fused(cuda), cuda=cuda)
    for seed in range(3):
        _, log = decoded(decoder, torch.ones(2, 3, 3), points_of(9, seed))
    assert ("replay in usual" in log) == (error is None)
    assert ("the mask decoder runs without a CUDA graph" in caplog.text) == (error is not None)
