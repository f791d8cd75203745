"""Mean embeddings of 100 masks of a tile."""

from dataclasses import dataclass

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from alps.bench import machine
from alps.bench.kernels.timed import Timed
from alps.kernels.masks.pixels import runs_of
from alps.kernels.masks.runs import Runs
from alps.kernels.pool import cell_shares, pool_embeddings

CELLS, PATCH = (64, 64), 16
GROUP = "pooling 100 masks of 1024 x 1024 over an embedding of 256 x 64 x 64"


@dataclass(frozen=True)
class Given:
    """100 masks and an embedding, and their means."""

    masks: np.ndarray  # (100, 1024, 1024) bool
    runs: Runs
    embedding: np.ndarray  # (256, 64, 64) float32
    means: np.ndarray  # (100, 256) float32

    @property
    def shares_bytes(self) -> int:
        """Of the share of each mask in each cell."""
        return 4 * len(self.runs) * CELLS[0] * CELLS[1]

    @property
    def n_bytes(self) -> int:
        """Run lengths and embedding in, shares between, means out."""
        ends = self.runs.lengths.nbytes + self.embedding.nbytes + self.means.nbytes
        return ends + self.shares_bytes


@pytest.fixture(scope="module")
def given(masks: np.ndarray) -> Given:
    runs = runs_of(masks)
    embedding = np.random.default_rng(0).normal(size=(256, *CELLS)).astype(np.float32)
    return Given(masks, runs, embedding, pooled(embedding, runs))


def pooled(embedding: np.ndarray, runs: Runs) -> np.ndarray:
    return pool_embeddings(embedding, cell_shares(runs, CELLS, PATCH))


def interpolated(masks: Tensor, embedding: Tensor) -> Tensor:
    """A mask at a time: bool to float, averaged over cells, embedding weighted."""
    flat = embedding.reshape(len(embedding), -1)
    means = []
    for mask in masks:
        cells = functional.interpolate(mask[None, None].float(), CELLS, mode="area").reshape(-1)
        means.append(flat @ cells / cells.sum())
    return torch.stack(means)


def resized(masks: np.ndarray, embedding: np.ndarray) -> np.ndarray:
    shares = np.stack(
        [
            cv2.resize(m.view(np.uint8) * np.float32(1), CELLS, interpolation=cv2.INTER_AREA)
            for m in masks
        ]
    )
    return pool_embeddings(embedding, shares)


@pytest.mark.benchmark(group=GROUP)
def test_torch_interpolate_each(timed: Timed, given: Given) -> None:
    torch.set_num_threads(machine.threads())
    timed.moves(given.n_bytes, baseline=True)
    means = timed(interpolated, torch.from_numpy(given.masks), torch.from_numpy(given.embedding))
    np.testing.assert_allclose(means.numpy(), given.means, atol=1e-5)


@pytest.mark.benchmark(group=GROUP)
def test_opencv_resize_each(timed: Timed, given: Given) -> None:
    timed.moves(given.n_bytes)
    means = timed(resized, given.masks, given.embedding)
    np.testing.assert_allclose(means, given.means, atol=1e-5)


@pytest.mark.benchmark(group=GROUP)
def test_ours_from_masks(timed: Timed, given: Given) -> None:
    """Run lengths made on the way, which the engine has already."""
    timed.moves(given.n_bytes)
    means = timed(lambda: pooled(given.embedding, runs_of(given.masks)))
    np.testing.assert_array_equal(means, given.means)


@pytest.mark.benchmark(group=GROUP)
def test_ours(timed: Timed, given: Given) -> None:
    timed.moves(given.n_bytes)
    np.testing.assert_array_equal(timed(pooled, given.embedding, given.runs), given.means)


@pytest.mark.parametrize("scale", [16, 13.7], ids=["16", "13.7 pixels"])
@pytest.mark.benchmark(group="of that, shares of cells")
def test_shares(timed: Timed, given: Given, scale: float) -> None:
    cell_shares(given.runs, CELLS, scale)
    timed.moves(given.runs.lengths.nbytes + given.shares_bytes)
    timed(cell_shares, given.runs, CELLS, scale)
