"""One pass of k-means: the two nearest centroids of every vector, and what each centroid received.

Both in one pass over the vectors. |c|² / 2 - x·c finds the two nearest fast, but loses digits where
vectors lie far from the origin or on a centroid: so the origin moves to the middle of the
centroids, and the distances to those two are measured once more, directly.
"""

from typing import Any

import numpy as np

from alps.kernels.base.gpu import is_on_gpu
from alps.kernels.kmeans import cpu
from alps.kernels.kmeans.reference import reference_assign
from alps.kernels.kmeans.rules import Assignment, check, refuse_unless_finite

__all__ = ["Assignment", "assign", "reference_assign"]


def assign(vectors: Any, centroids: np.ndarray, weights: Any = None) -> Assignment:
    """Assign every vector to its nearest centroid, and sum the vectors of each.

    Args:
        vectors: (N, C) float16 or float32; NumPy: computed on the CPU, on a GPU: there.
        centroids: (K, C) float32, K >= 1.
        weights: (N,) float32, not negative: how much a vector counts in sums and inertia.

    Raises:
        ValueError: shapes or dtypes do not fit; or vectors, weights or centroids hold NaN,
            infinity, or values whose squares leave float32.
    """
    centroids = np.ascontiguousarray(centroids, np.float32)
    check(vectors, centroids, weights)
    if is_on_gpu(vectors):
        from alps.kernels.kmeans import gpu

        found = gpu.assign(vectors, centroids, weights)
    else:
        found = cpu.assign(np.asarray(vectors), centroids, weights)
    refuse_unless_finite(found.inertia)
    return found
