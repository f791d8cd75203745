"""A pass of k-means in float64, all distances at once."""

import numpy as np

from alps.kernels.kmeans.rules import Assignment, check, refuse_unless_finite


def reference_assign(
    vectors: np.ndarray, centroids: np.ndarray, weights: np.ndarray | None = None
) -> Assignment:
    """The same in float64, all distances at once."""
    check(vectors, centroids, weights)
    vectors = vectors.astype(np.float64)
    own = np.ones(len(vectors)) if weights is None else weights.astype(np.float64)
    distance = ((vectors[:, None] - centroids.astype(np.float64)) ** 2).sum(2)  # (N, K)
    labels = distance.argmin(1)
    nearest = distance.min(1)
    distance[np.arange(len(vectors)), labels] = np.inf
    inertia = float((own * nearest).sum())
    refuse_unless_finite(inertia)
    mine = labels[:, None] == np.arange(len(centroids))  # (N, K)
    return Assignment(
        labels.astype(np.int32),
        nearest.astype(np.float32),
        distance.min(1, initial=np.inf).astype(np.float32),
        mine.T @ (own[:, None] * vectors),
        mine.sum(0),
        mine.T @ own,
        inertia,
    )
