"""What a pass of k-means is on every device: its result, checks of arguments, the origin."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Assignment:
    """What one pass over N vectors yields. Arrays of N lie where the vectors lie."""

    labels: Any  # (N,) int32, the nearest centroid, the lowest id of equals
    nearest: Any  # (N,) float32 squared distance to it
    second: Any  # (N,) float32 squared distance to the next; inf where K is 1
    sums: np.ndarray  # (K, C) float64, of each centroid's vectors, times their weights
    counts: np.ndarray  # (K,) int64, number of vectors
    weights: np.ndarray  # (K,) float64, sum of weights; the counts where there are none
    inertia: float  # sum of ``nearest`` times weights


def check(vectors: Any, centroids: np.ndarray, weights: Any) -> None:
    """Raise ValueError for arguments that do not go together."""
    if len(vectors.shape) != 2 or centroids.ndim != 2 or not len(centroids):
        raise ValueError(
            f"vectors {tuple(vectors.shape)} and centroids {centroids.shape} must be matrices, "
            "with at least one centroid"
        )
    if vectors.shape[1] != centroids.shape[1]:
        raise ValueError(
            f"vectors of {vectors.shape[1]} channels and centroids of {centroids.shape[1]}"
        )
    if vectors.dtype not in (np.float16, np.float32):
        raise ValueError(f"vectors are {vectors.dtype}; float16 or float32 is wanted")
    if not np.isfinite(centroids).all():
        raise ValueError("centroids hold NaN, infinity or huge values")
    if weights is not None and tuple(weights.shape) != (vectors.shape[0],):
        raise ValueError(f"{tuple(weights.shape)} weights for {vectors.shape[0]} vectors")


def refuse_unless_finite(inertia: float) -> None:
    """Raise ValueError where distances have come out as no number."""
    if not np.isfinite(inertia):
        raise ValueError("vectors, weights or centroids hold NaN, infinity or huge values")


def origin_of(centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Middle (C,) of centroids, the centroids as seen from there (K, C), and |c|² / 2 (K,)."""
    middle = centroids.mean(0, dtype=np.float64).astype(np.float32)
    moved = centroids - middle
    return middle, moved, np.einsum("kc,kc->k", moved, moved) / 2
