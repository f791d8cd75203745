"""Mean embeddings of 100 masks of a tile."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor
from torch.nn import functional

from alps.bench import machine
from alps.kernels.masks.pixels import runs_of
from alps.kernels.masks.runs import Runs
from alps.kernels.pool import cell_shares, pool_embeddings

CELLS, PATCH = (64, 64), 16
GROUP = "pooling 100 masks of 1024 x 1024 over an embedding of 256 x 64 x 64"


@pytest.fixture(scope="module")
def runs(masks: np.ndarray) -> Runs:
    return runs_of(masks)


@pytest.fixture(scope="module")
def embedding() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(256, *CELLS)).astype(np.float32)


@pytest.fixture(scope="module")
def n_bytes(runs: Runs, embedding: np.ndarray) -> int:
    """Run lengths and embedding in, shares between, means out."""
    shares = 4 * len(runs) * CELLS[0] * CELLS[1]
    return runs.lengths.nbytes + embedding.nbytes + shares + 4 * len(runs) * len(embedding)


@pytest.fixture(scope="module")
def expected(runs: Runs, embedding: np.ndarray) -> np.ndarray:
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
def test_torch_interpolate_each(
    benchmark: BenchmarkFixture,
    bytes_moved: Callable[..., None],
    masks: np.ndarray,
    embedding: np.ndarray,
    n_bytes: int,
    expected: np.ndarray,
) -> None:
    torch.set_num_threads(machine.threads())
    bytes_moved(benchmark, n_bytes, baseline=True)
    means = benchmark(interpolated, torch.from_numpy(masks), torch.from_numpy(embedding))
    np.testing.assert_allclose(means.numpy(), expected, atol=1e-5)


@pytest.mark.benchmark(group=GROUP)
def test_opencv_resize_each(
    benchmark: BenchmarkFixture,
    bytes_moved: Callable[..., None],
    masks: np.ndarray,
    embedding: np.ndarray,
    n_bytes: int,
    expected: np.ndarray,
) -> None:
    bytes_moved(benchmark, n_bytes)
    means = benchmark(resized, masks, embedding)
    np.testing.assert_allclose(means, expected, atol=1e-5)


@pytest.mark.benchmark(group=GROUP)
def test_ours_from_masks(
    benchmark: BenchmarkFixture,
    bytes_moved: Callable[..., None],
    masks: np.ndarray,
    embedding: np.ndarray,
    n_bytes: int,
    expected: np.ndarray,
) -> None:
    """Run lengths made on the way, which the engine has already."""
    bytes_moved(benchmark, n_bytes)
    means = benchmark(lambda: pool_embeddings(embedding, cell_shares(runs_of(masks), CELLS, PATCH)))
    np.testing.assert_array_equal(means, expected)


@pytest.mark.benchmark(group=GROUP)
def test_ours(
    benchmark: BenchmarkFixture,
    bytes_moved: Callable[..., None],
    runs: Runs,
    embedding: np.ndarray,
    n_bytes: int,
    expected: np.ndarray,
) -> None:
    bytes_moved(benchmark, n_bytes)
    means = benchmark(lambda: pool_embeddings(embedding, cell_shares(runs, CELLS, PATCH)))
    np.testing.assert_array_equal(means, expected)


@pytest.mark.parametrize("scale", [16, 13.7], ids=["16", "13.7 pixels"])
@pytest.mark.benchmark(group="of that, shares of cells")
def test_shares(
    benchmark: BenchmarkFixture, bytes_moved: Callable[..., None], runs: Runs, scale: float
) -> None:
    cell_shares(runs, CELLS, scale)
    bytes_moved(benchmark, runs.lengths.nbytes + 4 * len(runs) * CELLS[0] * CELLS[1])
    benchmark(cell_shares, runs, CELLS, scale)
