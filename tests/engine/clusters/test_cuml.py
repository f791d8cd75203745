"""The adapter for cuML, held to the interface that cuML documents; no GPU is needed."""

import sys
import types

import numpy as np
import pytest
from made_run import make_run
from sklearn.cluster import KMeans as ScikitKMeans

from alps.engine.base.errors import SettingsError
from alps.engine.clusters import assign as cluster
from alps.engine.clusters import cuml
from alps.engine.clusters.assign import cluster_archive
from alps.engine.clusters.data import MemoryVectors
from alps.engine.images.windows import Window
from alps.engine.settings import ClusterSettings


class KMeans:
    """cuml.cluster.KMeans as documented: keyword parameters, and what fit leaves behind."""

    made: list["KMeans"] = []  # noqa: RUF012

    def __init__(
        self,
        *,
        n_clusters=8,
        max_iter=300,
        tol=1e-4,
        verbose=False,
        random_state=None,
        init="scalable-k-means++",
        n_init="auto",
        oversampling_factor=2.0,
        max_samples_per_batch=1 << 15,
        convert_dtype=True,
        output_type=None,
    ):
        assert init in ("scalable-k-means++", "k-means||", "random")
        assert isinstance(n_clusters, int) and isinstance(max_iter, int)
        assert 0 <= random_state < 1 << 31
        self.parameters = dict(n_clusters=n_clusters, random_state=random_state)
        KMeans.made.append(self)

    def fit(self, X, y=None, sample_weight=None, *, convert_dtype=True):
        assert X.dtype == np.float32 and X.flags.c_contiguous and y is None
        self.rows, self.weights = len(X), sample_weight
        found = ScikitKMeans(n_init=1, **self.parameters).fit(X, sample_weight=sample_weight)
        self.cluster_centers_ = found.cluster_centers_
        self.labels_, self.inertia_ = found.labels_, found.inertia_
        return self


class OnGpu(np.ndarray):
    """Centroids as CuPy hands them out."""

    def get(self):
        return np.asarray(self)


@pytest.fixture(autouse=True)
def none_made():
    KMeans.made.clear()


def vectors(rows=300):
    rng = np.random.default_rng(0)
    return 10 * rng.normal(size=(6, 8))[rng.integers(6, size=rows)] + rng.normal(size=(rows, 8))


def test_centroids_come_from_a_sample_that_fits(monkeypatch):
    weights = np.arange(300, dtype=np.float32)
    data = MemoryVectors(vectors().astype(np.float16), weights)
    settings = ClusterSettings(clusters=6, seed=(1 << 40) + 3)
    centroids = cuml.fit_centroids(data, settings, KMeans)
    assert centroids.shape == (6, 8) and centroids.dtype == np.float32
    assert KMeans.made[-1].parameters == {"n_clusters": 6, "random_state": 3}
    assert KMeans.made[-1].rows == 300 and (KMeans.made[-1].weights == weights).all()
    monkeypatch.setattr(cuml, "SAMPLE_BYTES", 100 * 8 * 4)
    assert cuml.fit_centroids(data, settings, KMeans).shape == (6, 8)
    assert KMeans.made[-1].rows == 100


def test_centroids_left_on_the_gpu_are_fetched():
    class Leaves(KMeans):
        def fit(self, *args, **kwargs):
            super().fit(*args, **kwargs)
            self.cluster_centers_ = self.cluster_centers_.view(OnGpu)

    centroids = cuml.fit_centroids(
        MemoryVectors(vectors().astype(np.float32)), ClusterSettings(clusters=6), Leaves
    )
    assert type(centroids) is np.ndarray and centroids.dtype == np.float32


def test_odd_data_is_refused_before_cuml_sees_it():
    few = vectors(5).astype(np.float32)
    with pytest.raises(SettingsError, match="only 5 regions"):
        cuml.fit_centroids(MemoryVectors(few), ClusterSettings(clusters=6), KMeans)
    few[2, 1] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        cuml.fit_centroids(MemoryVectors(few), ClusterSettings(clusters=2), KMeans)
    assert not KMeans.made


@pytest.fixture
def installed(monkeypatch):
    """A function that puts a module ``cuml.cluster`` in place, beside a usable GPU or not."""

    def install(content, gpu=True):
        from numba import config, cuda

        module = types.ModuleType("cuml.cluster")
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, "cuml", types.ModuleType("cuml"))
        monkeypatch.setitem(sys.modules, "cuml.cluster", module)
        monkeypatch.setattr(config, "ENABLE_CUDASIM", not gpu)
        monkeypatch.setattr(cuda, "is_available", lambda: gpu)

    return install


def test_used_only_where_it_imports_and_a_gpu_is_there(installed):
    assert cuml.kmeans_class() is None  # this process has neither
    installed({"KMeans": KMeans}, gpu=False)
    assert cuml.kmeans_class() is None
    installed({})
    assert cuml.kmeans_class() is None
    installed({"KMeans": KMeans})
    assert cuml.kmeans_class() is KMeans


def test_a_run_folder_is_fitted_by_cuml_and_assigned_by_us(tmp_path, monkeypatch):
    rows = vectors(40)[:, :4].astype(np.float16)
    segments = [[{"embedding": row.tolist()} for row in rows]]
    folder = make_run(tmp_path / "run", [Window(0, 0, 10, 10)], segments)
    monkeypatch.setattr(cuml, "kmeans_class", lambda: KMeans)
    cluster_archive(folder, ClusterSettings(clusters=3))
    assert not KMeans.made  # on the CPU it is not asked
    monkeypatch.setattr(cluster, "_gpu_place", lambda: np.asarray)
    model = cluster_archive(folder, ClusterSettings(clusters=3), on_gpu=True)
    assert (model.centroids == KMeans.made[0].cluster_centers_.astype(np.float32)).all()
    assert model.counts.sum() == 40
