"""One pass of k-means over 100,000 vectors: labels, both distances, sums and counts."""

import numpy as np
import pytest
from sklearn.cluster import MiniBatchKMeans

from alps.bench.kernels.mixture import mixture
from alps.bench.kernels.timed import Timed
from alps.engine.clusters.data import MemoryVectors
from alps.engine.clusters.fit import fit_centroids
from alps.engine.settings import ClusterSettings
from alps.kernels import kmeans
from alps.kernels.kmeans.cpu import PIECES

ROWS, CHANNELS = 100_000, 256


@pytest.fixture(scope="module")
def halves() -> np.ndarray:
    return mixture(CHANNELS).array(ROWS, 1)


@pytest.fixture(scope="module")
def floats(halves: np.ndarray) -> np.ndarray:
    return halves.astype(np.float32)


def in_numpy(vectors: np.ndarray, centroids: np.ndarray) -> tuple[np.ndarray, float]:
    """The same in blocks of NumPy, from float16: convert, product, argmin, distances, sums."""
    sums, counts = np.zeros(centroids.shape), np.zeros(len(centroids), np.int64)
    labels = np.empty(len(vectors), np.int32)
    second = np.empty(len(vectors), np.float32)
    inertia = 0.0
    lengths = (centroids**2).sum(1)
    for start in range(0, len(vectors), 8192):
        block = vectors[start : start + 8192].astype(np.float32)
        distance = lengths - 2 * (block @ centroids.T)
        distance += (block**2).sum(1)[:, None]
        own = labels[start : start + 8192] = distance.argmin(1)
        inertia += distance.min(1).sum(dtype=np.float64)
        second[start : start + 8192] = np.partition(distance, 1)[:, 1]
        np.add.at(sums, own, block)
        counts += np.bincount(own, minlength=len(centroids))
    return labels, inertia


def group(clusters: int) -> str:
    return f"a pass of k-means, {ROWS:,} x {CHANNELS} float16, K = {clusters}"


def moved(halves: np.ndarray, clusters: int) -> int:
    """Vectors in; labels and two distances out; sums of the pieces written and read."""
    return halves.nbytes + 12 * ROWS + PIECES * clusters * CHANNELS * 16


@pytest.mark.parametrize("clusters", [46, 512])
def test_numpy(timed: Timed, halves: np.ndarray, floats: np.ndarray, clusters: int) -> None:
    timed.benchmark.group = group(clusters)
    timed.moves(moved(halves, clusters), baseline=True)
    centroids = floats[:clusters].copy()
    labels, inertia = timed(in_numpy, halves, centroids, rounds=2)
    found = kmeans.assign(halves, centroids)
    assert (labels == found.labels).mean() > 0.999
    assert inertia == pytest.approx(found.inertia, rel=1e-4)


@pytest.mark.parametrize("clusters", [46, 512])
def test_ours(timed: Timed, halves: np.ndarray, floats: np.ndarray, clusters: int) -> None:
    timed.benchmark.group = group(clusters)
    centroids = floats[:clusters].copy()
    kmeans.assign(halves[:1000], centroids)
    timed.moves(moved(halves, clusters))
    timed(kmeans.assign, halves, centroids)


FIT = f"fitting 46 centroids to {ROWS:,} x {CHANNELS}"


@pytest.mark.benchmark(group=FIT)
def test_mini_batch_k_means(timed: Timed, floats: np.ndarray) -> None:
    timed.benchmark.extra_info["baseline"] = True
    model = MiniBatchKMeans(46, batch_size=4096, n_init=1, random_state=0, compute_labels=False)
    timed(model.fit, floats, rounds=1)


@pytest.mark.benchmark(group=FIT)
def test_our_fit(timed: Timed, halves: np.ndarray) -> None:
    settings = ClusterSettings(clusters=46)
    fit_centroids(MemoryVectors(halves[:5000]), settings)
    timed(fit_centroids, MemoryVectors(halves), settings, rounds=3)
