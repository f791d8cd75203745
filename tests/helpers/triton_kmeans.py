"""The pass of k-means in one Triton kernel, beside the plain one in float64."""

import numpy as np
import torch

from alps.kernels.kmeans import fused, reference_assign
from alps.kernels.kmeans.gpu import near_factors


def assigned(vectors, centroids, weights=None):
    """By the kernel, as ``Found``."""
    factors, offsets = near_factors(centroids)
    arrays = (torch.from_numpy(array) for array in (vectors, factors, offsets, centroids))
    own = None if weights is None else torch.from_numpy(weights)
    return fused.assign_tensors(*arrays, own)


def compared(rows, clusters, channels, weighted, programs=3, rounds=2):
    """How far off each result is from float64's, of random vectors; labels where they differ."""
    fused.PROGRAMS, fused.ROUND = programs, rounds
    rng = np.random.default_rng(rows + clusters)
    vectors = rng.normal(size=(rows, channels)).astype(np.float16)
    centroids = rng.normal(size=(clusters, channels)).astype(np.float32)
    weights = None
    if weighted:
        weights = (rng.gamma(0.3, size=rows) * 1e5).astype(np.float32)
        weights[::7] = 0
    found, right = (
        assigned(vectors, centroids, weights),
        reference_assign(vectors, centroids, weights),
    )
    labels = found.labels.numpy()
    own = np.ones(rows) if weights is None else weights.astype(float)
    mine = labels[:, None] == np.arange(clusters)
    sums = mine.T @ (own[:, None] * vectors.astype(float))
    apart = right.second - right.nearest > 1e-5 * right.second
    return {
        "apart": float(apart.mean()),
        "other labels": int((labels != right.labels)[apart].sum()),
        "nearest": _off(found.nearest, right.nearest),
        "second": _off(found.second, right.second) if clusters > 1 else 0.0,
        "endless": bool(torch.isinf(found.second).all()),
        "sums": float(np.abs(found.sums.numpy() - sums).max() / max(np.abs(sums).max(), 1e-30)),
        "counts": int(np.abs(found.counts.numpy() - mine.sum(0)).sum()),
        "weights": _off(found.weights, mine.T @ own),
        "inertia": _off(found.inertia, right.inertia),
    }


def special():
    """Ties, vectors on their centroids, one that is no number, and the same result twice."""
    centroids = np.array([[4, 0], [2, 0], [0, 2], [-2, 0], [0, 2]], np.float32)
    vectors = np.array([[0, 0], [0, 2], [1, 1], [-1, 1], [3, 0]], np.float16)
    ties = assigned(vectors, centroids)
    on = np.random.default_rng(0).normal(size=(20, 16)).astype(np.float16)
    there = assigned(on, on.astype(np.float32))
    broken = on.copy()
    broken[7, 3] = np.nan
    again = [assigned(on, on[:5].astype(np.float32)).sums.numpy().tobytes() for _ in range(2)]
    return {
        "labels": ties.labels.tolist(),
        "nearest": ties.nearest.tolist(),
        "second": ties.second.tolist(),
        "on their centroids": there.labels.tolist() == list(range(20))
        and not there.nearest.any().item(),
        "no number": bool(torch.isnan(assigned(broken, on.astype(np.float32)).inertia)),
        "the same": again[0] == again[1],
    }


def _off(found, right):
    found, right = np.asarray(found, float), np.asarray(right, float)
    return float((np.abs(found - right) / np.maximum(np.abs(right), 1e-30)).max())
