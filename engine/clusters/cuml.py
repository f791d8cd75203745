"""K-means of cuML, where it is installed and a GPU is there: fitted on a sample that fits.

cuML's KMeans has no ``partial_fit``, so an archive never passes through it; the centroids it finds
on the sample are then used by our own streaming assignment like any others. This file knows its
documented interface: parameters, ``fit(X, y=None, sample_weight=None)``, ``cluster_centers_``.
"""

from typing import Any

import numpy as np

from alps.engine.clusters.data import Vectors
from alps.engine.clusters.fit import check_enough, draw_sample
from alps.engine.settings import ClusterSettings

SAMPLE_PER_CLUSTER, LEAST_SAMPLE = 4096, 1 << 20
SAMPLE_BYTES = 1 << 29  # in this machine's memory, and a small part of any GPU's
MAX_ITERATIONS, TOLERANCE = 300, 1e-4


def kmeans_class() -> Any | None:
    """``cuml.cluster.KMeans``, or None where it is not installed or no GPU can be used."""
    try:
        from alps.kernels.base.numba_cuda import cuda, numba_config

        if numba_config.ENABLE_CUDASIM or not cuda.is_available():
            return None
        from cuml.cluster import KMeans
    except Exception:  # a wheel for another CUDA fails with errors of its own on import
        return None
    return KMeans


def fit_centroids(vectors: Vectors, settings: ClusterSettings, kmeans: Any) -> np.ndarray:
    """K centroids (K, D) float32, of a sample drawn over all vectors.

    Args:
        vectors: of the archive.
        settings: K and the seed; cuML has its own rule for stopping.
        kmeans: ``cuml.cluster.KMeans``, or what has its interface.

    Raises:
        SettingsError: more clusters asked for than there are vectors.
        ValueError: a vector holds NaN or infinity.
    """
    check_enough(vectors.count, settings.clusters)
    rng = np.random.default_rng(settings.seed)
    rows = max(SAMPLE_PER_CLUSTER * settings.clusters, LEAST_SAMPLE)
    sample, weights = draw_sample(vectors, rows, rng, SAMPLE_BYTES)
    if not np.isfinite(sample).all():
        raise ValueError("vectors hold NaN or infinity")
    model = kmeans(
        n_clusters=settings.clusters,
        max_iter=MAX_ITERATIONS,
        tol=TOLERANCE,
        init="scalable-k-means++",
        n_init=1,
        random_state=settings.seed % (1 << 31),
        oversampling_factor=2.0,
        max_samples_per_batch=1 << 15,
    )
    model.fit(sample, sample_weight=weights.astype(np.float32))
    centroids = model.cluster_centers_
    # The centroids come as the input did, or as cuML's global output type says.
    return np.ascontiguousarray(
        centroids.get() if hasattr(centroids, "get") else centroids, np.float32
    )
