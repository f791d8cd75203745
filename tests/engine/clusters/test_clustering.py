"""Online k-means: as good as scikit-learn's, the same for the same seed, defined on odd data."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_run import make_run
from scipy.spatial.distance import cdist
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.datasets import make_blobs

from alps.engine.base.errors import RunFolderError, SettingsError
from alps.engine.clusters import fit as clustering
from alps.engine.clusters import segment_data as run_vectors
from alps.engine.clusters.assign import cluster_archive
from alps.engine.clusters.data import MemoryVectors
from alps.engine.clusters.features import segment_columns
from alps.engine.clusters.file import load_clusters, save_clusters
from alps.engine.clusters.fit import ClusterModel, fit_clusters
from alps.engine.clusters.seeding import move_centroids, plus_plus
from alps.engine.clusters.segment_data import RunVectors
from alps.engine.images.windows import Window
from alps.engine.settings import ClusterSettings
from alps.kernels.base.threads import set_threads


def fit(vectors, clusters, weights=None, **settings):
    return fit_clusters(
        MemoryVectors(vectors, weights), ClusterSettings(clusters=clusters, **settings)
    )


def inertia(model, vectors):
    """The mean squared distance to the nearest centroid, by SciPy."""
    return cdist(vectors.astype(float), model.centroids.astype(float), "sqeuclidean").min(1).mean()


def blobs():
    vectors, which = make_blobs(
        2000, 8, centers=12, cluster_std=0.5, center_box=(-10, 10), random_state=1
    )
    return vectors.astype(np.float32), which


def overlapping():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(2500, 12)) @ rng.normal(size=(12, 12)) + 2
    return vectors.astype(np.float16)


# --- quality


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("data", "clusters"), [(lambda: blobs()[0], 12), (overlapping, 16)])
def test_as_good_as_scikit_learn(data, clusters, seed):
    vectors = data()
    model = fit(vectors, clusters, seed=seed)
    full = KMeans(clusters, n_init=3, random_state=seed).fit(vectors)
    small = MiniBatchKMeans(clusters, n_init=3, batch_size=1024, random_state=seed).fit(vectors)
    ours = inertia(model, vectors) * len(vectors)
    assert ours <= 1.05 * full.inertia_
    assert ours <= 1.05 * small.inertia_
    assert model.inertia == pytest.approx(inertia(model, vectors), rel=1e-5)
    assert (model.counts == np.bincount(model.assign(vectors)[0], minlength=clusters)).all()


@pytest.mark.parametrize("seed", range(6))
def test_separate_groups_are_found(seed):
    vectors, which = blobs()
    labels, margin = fit(vectors, 12, seed=seed).assign(vectors)
    assert len({*zip(labels.tolist(), which.tolist(), strict=True)}) == 12
    assert margin.mean() > 0.8


@pytest.mark.parametrize("seed", range(3))
def test_many_small_batches_are_as_good(seed, monkeypatch):
    vectors = overlapping()
    whole = inertia(fit(vectors, 16, seed=seed), vectors)
    for name, value in (("LEAST_BATCH", 64), ("BATCH_PER_CLUSTER", 8), ("LEAST_SAMPLE", 400)):
        monkeypatch.setattr(clustering, name, value)
    assert inertia(fit(vectors, 16, seed=seed), vectors) <= 1.04 * whole


def test_the_objective_falls_over_passes():
    vectors = overlapping()
    found = [inertia(fit(vectors, 16, passes=passes), vectors) for passes in range(1, 9)]
    assert (np.diff(found) <= 1e-6 * found[0]).all()
    assert found[-1] < 0.98 * found[0]


class Counted(MemoryVectors):
    seen = 0

    def batches(self, rows, rng):
        for batch in super().batches(rows, rng):
            self.seen += len(batch)
            yield batch


def test_fitting_stops_when_inertia_settles():
    vectors = Counted(blobs()[0])
    fit_clusters(vectors, ClusterSettings(clusters=12, passes=1000))
    assert vectors.seen < 20 * vectors.count


def test_a_large_archive_is_not_read_to_its_end(monkeypatch):
    monkeypatch.setattr(clustering, "LEAST_BATCH", 256)
    monkeypatch.setattr(clustering, "LEAST_SAMPLE", 512)
    monkeypatch.setattr(clustering, "FEW", 1000)
    vectors = Counted(np.tile(blobs()[0], (20, 1)))
    model = clustering.fit_centroids(vectors, ClusterSettings(clusters=12))
    assert vectors.seen < vectors.count / 2 and len(model) == 12


def test_dead_centroids_are_revived(monkeypatch):
    vectors, which = blobs()
    far = np.full((12, 8), 1e3, np.float32)
    far[0] = vectors[0]
    monkeypatch.setattr(clustering, "plus_plus", lambda *_: far)
    model = fit(vectors, 12)
    assert (model.counts > 0).all()
    labels, _ = model.assign(vectors)
    found = {*zip(labels.tolist(), which.tolist(), strict=True)}
    assert len(found) <= 15  # most groups have a centroid of their own again


def test_centroids_move_to_no_vector_without_weight():
    vectors, weights = np.array([[0.0], [10], [20]], np.float32), np.array([1.0, 0, 1])
    for seed in range(20):
        centroids = np.array([[0.0], [99]], np.float32)
        rng = np.random.default_rng(seed)
        poor = np.array([False, True])
        moved = move_centroids(centroids, poor, np.array([2.0, 0]), (vectors, weights), rng)
        assert moved.tolist() == [False, True] and centroids.tolist() == [[0], [20]]


def test_the_past_fades():
    """A centroid is the mean of the latter half of what it received."""

    class InOrder(MemoryVectors):
        def batches(self, rows, rng):
            yield from (self.take(np.arange(start, start + 50)) for start in (0, 50))

    vectors = np.repeat([[0.0], [1.0]], 50, axis=0).astype(np.float32)
    (centroid,) = clustering.fit_centroids(InOrder(vectors), ClusterSettings(clusters=1, passes=1))
    assert centroid == pytest.approx(1)


def test_first_centroids_are_vectors_of_the_sample():
    sample = overlapping().astype(np.float32)
    chosen = plus_plus(sample, 30, np.random.default_rng(0))
    assert chosen.dtype == np.float32
    assert cdist(chosen, sample).min(1).max() == 0
    assert len(np.unique(chosen, axis=0)) == 30


def test_weights_are_as_good_as_repeated_vectors():
    vectors, _ = blobs()
    times = np.random.default_rng(4).integers(0, 4, len(vectors))
    weighted = fit(vectors, 5, weights=times.astype(np.float32))
    repeated = np.repeat(vectors, times, axis=0)
    assert weighted.inertia == pytest.approx(inertia(weighted, repeated), rel=1e-5)
    assert inertia(weighted, repeated) <= 1.05 * inertia(fit(repeated, 5), repeated)


def test_on_a_gpu_as_in_memory(to_gpu, small_blocks):
    rng = np.random.default_rng(0)
    vectors = np.concatenate([rng.normal(8 * c, 1, (7, 3)) for c in range(3)]).astype(np.float16)
    settings = ClusterSettings(clusters=3, passes=2)
    ours = clustering.fit_centroids(MemoryVectors(vectors), settings)
    theirs = clustering.fit_centroids(MemoryVectors(to_gpu(vectors)), settings)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    weights = np.arange(len(vectors), dtype=np.float32)
    there = MemoryVectors(to_gpu(vectors), to_gpu(weights)).take(np.array([2, 3, 20]))
    assert (there.on_host()[0] == vectors[[2, 3, 20]]).all()
    assert there.on_host()[1].tolist() == [2, 3, 20]


# --- the same for the same seed


def test_same_seed_same_bytes(tmp_path):
    vectors = overlapping()
    files = []
    try:
        for name, seed, threads in (("a", 3, 1), ("b", 3, 3), ("c", 4, 1)):
            set_threads(threads)
            save_clusters(fit(vectors, 9, seed=seed), tmp_path / f"{name}.npz", {})
            files.append((tmp_path / f"{name}.npz").read_bytes())
    finally:
        set_threads(None)
    assert files[0] == files[1] != files[2]


def test_clusters_go_to_a_file_and_back(tmp_path):
    vectors = overlapping()
    model = fit(vectors, 5, seed=7)
    made_with = {"model": {"name": "speck", "sha256": "ab"}}
    save_clusters(model, tmp_path / "clusters.npz", made_with)
    found = load_clusters(tmp_path / "clusters.npz")
    read = found.model
    assert found.made_with == made_with
    assert (read.centroids == model.centroids).all() and read.centroids.dtype == np.float32
    assert (read.counts == model.counts).all() and read.counts.dtype == np.int64
    assert (read.inertia, read.seed) == (model.inertia, 7)
    for ours, theirs in zip(model.assign(vectors), read.assign(vectors), strict=True):
        assert (ours == theirs).all()
    with np.load(tmp_path / "clusters.npz") as content:  # as the README of the format says
        assert set(content) == {"centroids", "counts", "inertia", "seed", "made_with"}


@pytest.mark.parametrize("damage", ["missing", "empty", "text", "cut", "other"])
def test_clusters_that_cannot_be_read(tmp_path, damage):
    path = tmp_path / "clusters.npz"
    save_clusters(fit(overlapping(), 5), path, {})
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "other":
        np.savez(path, something=np.zeros(3))
    else:
        path.write_bytes({"empty": b"", "text": b"centroids", "cut": content[:-50]}[damage])
    with pytest.raises(RunFolderError, match=r"clusters\.npz"):
        load_clusters(path)


# --- odd data


def test_fewer_distinct_vectors_than_clusters():
    rng = np.random.default_rng(2)
    distinct = rng.normal(size=(3, 16)).astype(np.float16)
    vectors = np.repeat(distinct, [5, 10, 15], axis=0)
    model = fit(vectors, 7)
    assert np.isfinite(model.centroids).all()
    assert model.inertia == pytest.approx(0, abs=1e-12)
    assert sorted(model.counts) == [0, 0, 0, 0, 5, 10, 15]
    labels, margin = model.assign(vectors)
    assert len(set(labels)) == 3 and np.isfinite(margin).all()
    for label in set(labels):  # a centroid in the same place: nothing tells the two apart
        twins = (model.centroids == model.centroids[label]).all(1).sum()
        assert set(margin[labels == label]) == ({0} if twins > 1 else {1})


def test_as_many_clusters_as_vectors():
    vectors = overlapping()[:20]
    model = fit(vectors, 20)
    labels, margin = model.assign(vectors)
    assert sorted(labels) == list(range(20)) and (margin == 1).all()
    assert model.inertia == 0 and (model.counts == 1).all()


def test_one_vector_and_one_cluster():
    vectors = overlapping()
    one = fit(vectors[:1], 1)
    assert (one.centroids == vectors[:1]).all() and one.counts.tolist() == [1]
    single = fit(vectors, 1)
    np.testing.assert_allclose(single.centroids[0], vectors.astype(float).mean(0), rtol=1e-4)
    labels, margin = single.assign(vectors)
    assert not labels.any() and (margin == 1).all()


def test_more_clusters_than_vectors_is_refused():
    for count in (0, 1, 20):
        with pytest.raises(SettingsError, match=rf"--clusters 21: .* only {count} segments"):
            fit(overlapping()[:count], 21)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("least_sample", [4096, 30])
def test_values_that_are_none_are_refused(bad, least_sample, monkeypatch):
    monkeypatch.setattr(clustering, "LEAST_SAMPLE", least_sample)
    vectors = overlapping()
    model = fit(vectors, 1)
    vectors[1234, 5] = bad
    with pytest.raises(ValueError, match="NaN"):
        fit(vectors, 1)
    with pytest.raises(ValueError, match="NaN"):
        model.assign(vectors)


# --- margin


def test_margin_is_how_much_nearer_the_first_is():
    vectors = overlapping()
    model = fit(vectors, 10)
    labels, margin = model.assign(vectors)
    assert labels.dtype == np.int32 and margin.dtype == np.float32
    assert margin.min() >= 0 and margin.max() <= 1
    for row in range(0, len(vectors), 97):
        vector = vectors[row].astype(float)
        distance = [np.linalg.norm(vector - centroid) for centroid in model.centroids]
        first, second = sorted(distance)[:2]
        assert labels[row] == np.argmin(distance)
        assert margin[row] == pytest.approx(1 - first / second, abs=1e-5)


def test_margin_on_the_fence_and_on_a_centroid():
    centroids = np.array([[0, 0], [4, 0], [4, 0], [0, 8]], np.float32)
    model = ClusterModel(centroids, np.ones(4, np.int64), 0.0, 0)
    labels, margin = model.assign(np.array([[2, 0], [0, 0], [4, 0], [0, 6]], np.float32))
    assert labels.tolist() == [0, 0, 1, 3]
    assert margin.tolist() == [0, 1, 0, pytest.approx(1 - 2 / 6)]


def test_one_centroid_is_never_in_doubt():
    model = ClusterModel(np.ones((1, 2), np.float32), np.ones(1, np.int64), 0.0, 0)
    labels, margin = model.assign(np.array([[1, 1], [5, 5]], np.float32))
    assert labels.tolist() == [0, 0] and margin.tolist() == [1, 1]


def test_no_vectors_have_no_margin():
    labels, margin = fit(overlapping(), 3).assign(np.zeros((0, 12), np.float16))
    assert len(labels) == len(margin) == 0


# --- the stage on a run folder


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Six tiles in three shards, the middle one without segments."""
    monkeypatch.setattr("alps.engine.run_folder.plan.SHARD_TILES", 2)
    rng = np.random.default_rng(0)
    vectors = [rng.normal(size=(count, 4)).astype(np.float16) for count in (9, 0, 0, 0, 14, 7)]
    windows = [Window(0, 10 * index, 10, 10) for index in range(6)]
    segments = [[{"embedding": v.tolist(), "cluster": -1} for v in tile] for tile in vectors]
    return make_run(tmp_path / "run", windows, segments), np.concatenate(vectors)


def test_every_segment_gets_its_cluster(run):
    folder, vectors = run
    before = pq.read_table(folder.root / "segments")
    model = cluster_archive(folder, ClusterSettings(clusters=4))
    table = pq.read_table(folder.root / "segments")
    assert table.schema.equals(before.schema)
    others = [name for name in table.column_names if name not in ("cluster", "margin")]
    assert table.select(others).equals(before.select(others))
    columns = segment_columns(before, np.full(6, 10))
    assert (columns.embedding == vectors).all()
    labels, margin = model.assign(model.features.transform(columns))
    assert (table.column("cluster").to_numpy() == labels).all()
    assert (table.column("margin").to_numpy() == margin).all()
    read = load_clusters(folder.clusters).model
    assert (read.centroids == model.centroids).all()
    assert (read.features.transform(columns) == model.features.transform(columns)).all()


def test_position_is_removed_only_where_asked(run):
    folder, vectors = run
    plain = ClusterSettings(
        clusters=4, remove_position=False, components=0, colour_weight=0, normalise=False
    )
    model = cluster_archive(folder, plain)
    assert (
        model.features.position is None
        and load_clusters(folder.clusters).model.features.position is None
    )
    labels, _ = model.assign(vectors)
    table = pq.read_table(folder.root / "segments", columns=["cluster"])
    assert (table.column("cluster").to_numpy() == labels).all()


def test_read_again_or_kept_in_memory_is_the_same(run, monkeypatch):
    folder, _ = run
    kept = cluster_archive(folder, ClusterSettings(clusters=4))
    monkeypatch.setattr(run_vectors, "KEEP_BYTES", 0)
    again = cluster_archive(folder, ClusterSettings(clusters=4))
    # Lloyd's algorithm both times, on the vectors in another order.
    order = [a[np.lexsort(a.T)] for a in (kept.centroids, again.centroids)]
    np.testing.assert_allclose(*order, atol=1e-4)


@pytest.mark.parametrize("rows", [1, 5, 9, 100])
def test_batches_hold_every_segment_once_and_mixed(run, monkeypatch, rows):
    folder, _ = run
    settings = ClusterSettings(clusters=4, weight_by_area=True)
    kept = RunVectors(folder, settings)
    monkeypatch.setattr(run_vectors, "KEEP_BYTES", 0)
    monkeypatch.setattr(run_vectors, "POOL_ROWS", 18)
    monkeypatch.setattr(run_vectors, "PIECE_ROWS", 4)
    streamed = RunVectors(folder, settings)
    assert streamed.count == kept.count == 30 and len(streamed.pieces) == 3 + 6
    everything = np.arange(30)
    expected = kept.take(everything)
    for chosen in (everything, np.array([0, 8, 9, 29]), np.array([7])):
        batch = streamed.take(chosen)
        assert (batch.vectors == expected.vectors[chosen]).all()
        assert (batch.weights == expected.weights[chosen]).all()
    batches = list(streamed.batches(rows, np.random.default_rng(0)))
    assert all(len(batch) == rows for batch in batches[:-1]) and len(batches) == -(-30 // rows)
    vectors = np.concatenate([batch.vectors for batch in batches])
    assert (np.sort(vectors, axis=0) == np.sort(expected.vectors, axis=0)).all()
    assert not (vectors == expected.vectors).all()
    again = np.concatenate([b.vectors for b in streamed.batches(rows, np.random.default_rng(0))])
    assert (again == vectors).all()


def test_the_gpu_clusters_a_run_folder_too(run, small_blocks):
    folder, _ = run
    here = cluster_archive(folder, ClusterSettings(clusters=2, passes=1))
    labels = pq.read_table(folder.root / "segments")["cluster"].to_numpy()
    there = cluster_archive(folder, ClusterSettings(clusters=2, passes=1), on_gpu=True)
    np.testing.assert_allclose(here.centroids, there.centroids, atol=1e-5)
    assert (pq.read_table(folder.root / "segments")["cluster"].to_numpy() == labels).all()
    assert (here.counts == there.counts).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_embedding_that_is_no_number_is_named(run, bad):
    folder, _ = run
    path = folder.segments(2)
    table = pq.read_table(path, partitioning=None)
    embeddings = table.column("embedding").to_pylist()
    embeddings[14 + 3][2] = embeddings[14 + 5][0] = bad
    kind = table.schema.field("embedding").type
    at = table.schema.get_field_index("embedding")
    changed = pa.array([np.array(e, np.float16) for e in embeddings], kind)
    pq.write_table(table.set_column(at, table.schema.field(at), changed), path)
    with pytest.raises(RunFolderError, match=r"2 of 21 .* tile 5, segment 3"):
        cluster_archive(folder, ClusterSettings(clusters=4))
    assert not folder.clusters.exists()


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_damaged_shard_is_named(run, damage):
    folder, _ = run
    path = folder.segments(1)
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(RunFolderError, match=path.name):
        cluster_archive(folder, ClusterSettings(clusters=4))


def test_nothing_to_cluster(tmp_path):
    folder = make_run(tmp_path / "run", [Window(0, 0, 10, 10)], [[]])
    with pytest.raises(RunFolderError, match="no mask passed the gate"):
        cluster_archive(folder, ClusterSettings(clusters=4))
