"""From a tile's low-resolution logits to run lengths of its masks, stability and box included."""

from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
import pytest
import torch
from pycocotools import mask as cocoapi
from pytest_benchmark.fixture import BenchmarkFixture
from torch.nn import functional as F

from alps.bench.kernels.blobs import LEAST, MOST, WOBBLE
from alps.bench.kernels.timed import Timed
from alps.kernels.masks import coco
from alps.kernels.upscale import UpscaledMasks, upscale_masks

COUNT = 64
TILE = (1024, 1024)
AT_ONCE = 4  # masks at full size, 4 MB each: as many as stay in a last-level cache


@dataclass
class Work:
    """What one call has to do."""

    logits: np.ndarray  # (M, a, a) float32
    square: int  # side of the network's input

    @property
    def sizes(self) -> tuple[int, tuple[int, int], tuple[int, int]]:
        return self.square, (self.square, self.square), TILE


WORKS = {
    "official SAM, 256 -> 1024": Work(np.zeros((COUNT, 256, 256), np.float32), 1024),
    "tiny, 128 -> 512 -> 1024": Work(np.zeros((COUNT, 128, 128), np.float32), 512),
}


def blob_logits(count: int, side: int, seed: int = 0) -> np.ndarray:
    """Logits (count, side, side) float32 of masks like ``blobs``, some sharp and some faint.

    Their stability is some 0.6 to 0.97.
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side].astype(np.float32)
    logits = np.empty((count, side, side), np.float32)
    for mask in logits:
        radius = side * np.exp(rng.uniform(np.log(LEAST), np.log(MOST)))
        row, column = rng.uniform(0, side, 2)
        coarse = rng.normal(size=(8, 8)).astype(np.float32)
        noise = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
        inside = 1 - np.hypot(y - row, x - column) / radius - WOBBLE * noise
        mask[:] = np.clip(rng.uniform(8, 60) * inside, -20, 20)
        mask += rng.normal(scale=0.2, size=(side, side))
    return logits


@pytest.fixture(scope="module", params=list(WORKS))
def work(request: pytest.FixtureRequest) -> Work:
    shape = WORKS[request.param]
    return Work(blob_logits(*shape.logits.shape[:2]), shape.square)


def resize(logits: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    if logits.shape[1:] == size:
        return logits
    return F.interpolate(logits[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def in_torch(work: Work) -> list[tuple[np.float32, bytes, tuple[int, ...]]]:
    """Stability, COCO code and box of each mask; each step for a few masks at full size."""
    found = []
    for first in range(0, len(work.logits), AT_ONCE):
        logits = torch.from_numpy(work.logits[first : first + AT_ONCE])
        full = resize(resize(logits, (work.square, work.square)), TILE)
        # NumPy counts bytes several times faster than a sum in torch.
        high, low, masks = ((full > cut).numpy() for cut in (1, -1, 0))
        for index, mask in enumerate(masks):
            above, below = (np.float32(np.count_nonzero(cut[index])) for cut in (high, low))
            code = cocoapi.encode(np.asfortranarray(mask.view(np.uint8)))
            found.append((above / below, code["counts"], tuple(cocoapi.toBbox(code).astype(int))))
    return found


def ours(work: Work) -> tuple[UpscaledMasks, list[bytes]]:
    found = upscale_masks(work.logits, *work.sizes)
    return found, coco.encode(found.runs)


def check_and_note(timed: Timed, work: Work, baseline: bool = False) -> None:
    """Both give the same; logits in, run lengths out are what must move."""
    found, codes = ours(work)
    stability, expected, _ = zip(*in_torch(work), strict=True)
    same = sum(code == other for code, other in zip(codes, expected, strict=True))
    assert same >= len(codes) - 1  # a pixel right at the threshold may fall either way
    np.testing.assert_allclose(found.stability, stability, rtol=1e-3)
    timed.moves(work.logits.nbytes + found.runs.lengths.nbytes, baseline=baseline)


@pytest.fixture(autouse=True)
def group(benchmark: BenchmarkFixture, request: pytest.FixtureRequest) -> None:
    benchmark.group = f"runs of {COUNT} masks: {request.node.callspec.params['work']}"


def test_torch_and_pycocotools(timed: Timed, work: Work) -> None:
    check_and_note(timed, work, baseline=True)
    timed(in_torch, work, rounds=3)


def test_ours(timed: Timed, work: Work, threads: None) -> None:
    check_and_note(timed, work)
    timed(ours, work)


def test_ours_where_most_are_dropped(timed: Timed, work: Work) -> None:
    """As a tile has it: stability of 0.95 asked for."""
    check_and_note(timed, work)
    timed(partial(upscale_masks, min_stability=0.95), work.logits, *work.sizes)
