"""Mean embeddings of 100 masks of a tile."""

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional

from alps.bench import machine
from alps.kernels.masks.pixels import runs_of
from alps.kernels.pool import cell_shares, pool_embeddings

CELLS, PATCH = (64, 64), 16
GROUP = "pooling 100 masks of 1024 x 1024 over an embedding of 256 x 64 x 64"


@pytest.fixture(scope="module")
def runs(masks):
    return runs_of(masks)


@pytest.fixture(scope="module")
def embedding():
    return np.random.default_rng(0).normal(size=(256, *CELLS)).astype(np.float32)


@pytest.fixture(scope="module")
def n_bytes(runs, embedding):
    """Run lengths and embedding in, shares between, means out."""
    shares = 4 * len(runs) * CELLS[0] * CELLS[1]
    return runs.lengths.nbytes + embedding.nbytes + shares + 4 * len(runs) * len(embedding)


@pytest.fixture(scope="module")
def expected(runs, embedding):
    return pool_embeddings(embedding, cell_shares(runs, CELLS, PATCH))


def interpolated(masks, embedding):
    """A mask at a time: bool to float, averaged over cells, embedding weighted."""
    flat = embedding.reshape(len(embedding), -1)
    means = []
    for mask in masks:
        cells = functional.interpolate(mask[None, None].float(), CELLS, mode="area").reshape(-1)
        means.append(flat @ cells / cells.sum())
    return torch.stack(means)


def resized(masks, embedding):
    shares = np.stack(
        [
            cv2.resize(m.view(np.uint8) * np.float32(1), CELLS, interpolation=cv2.INTER_AREA)
            for m in masks
        ]
    )
    return pool_embeddings(embedding, shares)


@pytest.mark.benchmark(group=GROUP)
def test_torch_interpolate_each(benchmark, bytes_moved, masks, embedding, n_bytes, expected):
    torch.set_num_threads(machine.threads())
    bytes_moved(benchmark, n_bytes, baseline=True)
    means = benchmark(interpolated, torch.from_numpy(masks), torch.from_numpy(embedding))
    np.testing.assert_allclose(means.numpy(), expected, atol=1e-5)


@pytest.mark.benchmark(group=GROUP)
def test_opencv_resize_each(benchmark, bytes_moved, masks, embedding, n_bytes, expected):
    bytes_moved(benchmark, n_bytes)
    means = benchmark(resized, masks, embedding)
    np.testing.assert_allclose(means, expected, atol=1e-5)


@pytest.mark.benchmark(group=GROUP)
def test_ours_from_masks(benchmark, bytes_moved, masks, embedding, n_bytes, expected):
    """Run lengths made on the way, which the engine has already."""
    bytes_moved(benchmark, n_bytes)
    means = benchmark(lambda: pool_embeddings(embedding, cell_shares(runs_of(masks), CELLS, PATCH)))
    np.testing.assert_array_equal(means, expected)


@pytest.mark.benchmark(group=GROUP)
def test_ours(benchmark, bytes_moved, runs, embedding, n_bytes, expected):
    bytes_moved(benchmark, n_bytes)
    means = benchmark(lambda: pool_embeddings(embedding, cell_shares(runs, CELLS, PATCH)))
    np.testing.assert_array_equal(means, expected)


@pytest.mark.parametrize("scale", [16, 13.7], ids=["16", "13.7 pixels"])
@pytest.mark.benchmark(group="of that, shares of cells")
def test_shares(benchmark, bytes_moved, runs, scale):
    cell_shares(runs, CELLS, scale)
    bytes_moved(benchmark, runs.lengths.nbytes + 4 * len(runs) * CELLS[0] * CELLS[1])
    benchmark(cell_shares, runs, CELLS, scale)
