"""Online k-means: as good as scikit-learn's, the same for the same seed, defined on odd data."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_run import make_run
from scipy.spatial.distance import cdist
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.datasets import make_blobs

from alps.engine import cluster, clustering
from alps.engine.cluster import cluster_archive, load_clusters, save_clusters
from alps.engine.clustering import ClusterModel, fit_clusters, plus_plus, prepare
from alps.engine.errors import RunFolderError, SettingsError
from alps.engine.features import segment_columns
from alps.engine.settings import ClusterSettings
from alps.engine.windows import Window


class Pieces(list):
    @property
    def sizes(self):
        return [len(piece) for piece in self]


def fit(*pieces, clusters, **settings):
    return fit_clusters(Pieces(pieces), ClusterSettings(clusters=clusters, **settings))


def inertia(model, vectors):
    """The mean squared distance to the nearest centroid, by SciPy."""
    vectors = vectors.astype(float)
    if model.normalised:
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return cdist(vectors, model.centroids.astype(float), "sqeuclidean").min(1).mean()


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
@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize(("data", "clusters"), [(lambda: blobs()[0], 12), (overlapping, 16)])
def test_as_good_as_scikit_learn(data, clusters, normalise, seed):
    vectors = data()
    model = fit(*np.array_split(vectors, 3), clusters=clusters, normalise=normalise, seed=seed)
    prepared = prepare(vectors, normalise)
    full = KMeans(clusters, n_init=3, random_state=seed).fit(prepared)
    small = MiniBatchKMeans(clusters, n_init=3, batch_size=1024, random_state=seed).fit(prepared)
    ours = inertia(model, vectors) * len(vectors)
    assert ours <= 1.05 * full.inertia_
    assert ours <= 1.05 * small.inertia_
    assert model.inertia == pytest.approx(inertia(model, vectors), rel=0.05)


@pytest.mark.parametrize("seed", range(6))
def test_separate_groups_are_found(seed):
    vectors, which = blobs()
    labels, margin = fit(vectors, clusters=12, normalise=False, seed=seed).assign(vectors)
    assert len({*zip(labels.tolist(), which.tolist(), strict=True)}) == 12
    assert margin.mean() > 0.8


def test_groups_that_come_piece_by_piece():
    """A shard shows one kind of land; the next one another."""
    vectors, which = blobs()
    pieces = [vectors[which == group] for group in range(12)]
    model = fit(*pieces, clusters=12, normalise=False)
    together = fit(vectors, clusters=12, normalise=False)
    assert inertia(model, vectors) <= 1.05 * inertia(together, vectors)


def test_pieces_of_any_size(monkeypatch):
    vectors = overlapping()
    whole = inertia(fit(vectors, clusters=8), vectors)
    none = vectors[:0]
    cuts = np.split(vectors, [1, 3, 700, 701, 2400])
    for pieces in ([none, vectors, none], cuts, np.array_split(vectors, 60)):
        assert inertia(fit(*pieces, clusters=8), vectors) == pytest.approx(whole, rel=0.03)
    monkeypatch.setattr(clustering, "BATCH_ROWS", 64)
    assert inertia(fit(vectors, clusters=8), vectors) == pytest.approx(whole, rel=0.03)


def test_the_objective_falls_over_passes():
    vectors = overlapping()
    found = [
        inertia(fit(vectors, clusters=16, normalise=False, passes=passes), vectors)
        for passes in range(1, 9)
    ]
    assert (np.diff(found) <= 1e-6 * found[0]).all()
    assert found[-1] < 0.98 * found[0]


def test_passes_stop_when_inertia_settles():
    class Counted(Pieces):
        reads = 0

        def __getitem__(self, index):
            self.reads += 1
            return super().__getitem__(index)

    pieces = Counted([blobs()[0]])
    fit_clusters(pieces, ClusterSettings(clusters=12, normalise=False, passes=1000))
    assert pieces.reads < 20


def test_dead_centroids_are_revived(monkeypatch):
    vectors, which = blobs()
    far = np.full((12, 8), 1e3, np.float32)
    far[0] = vectors[0]
    monkeypatch.setattr(clustering, "plus_plus", lambda *_: far)
    model = fit(vectors, clusters=12, normalise=False)
    labels, _ = model.assign(vectors)
    assert (model.counts > 0).all()
    assert len({*zip(labels.tolist(), which.tolist(), strict=True)}) == 12


def test_first_centroids_are_vectors_of_the_sample():
    sample = overlapping().astype(np.float32)
    chosen = plus_plus(sample, 30, np.random.default_rng(0))
    assert chosen.dtype == np.float32
    assert cdist(chosen, sample).min(1).max() == 0
    assert len(np.unique(chosen, axis=0)) == 30


# --- the same for the same seed


def test_same_seed_same_bytes(tmp_path):
    vectors = overlapping()
    files = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        model = fit(vectors[:1200], vectors[1200:], clusters=9, seed=seed)
        save_clusters(model, tmp_path / f"{name}.npz")
        files.append((tmp_path / f"{name}.npz").read_bytes())
    assert files[0] == files[1] != files[2]


def test_clusters_go_to_a_file_and_back(tmp_path):
    vectors = overlapping()
    for normalise in (True, False):
        model = fit(vectors, clusters=5, normalise=normalise, seed=7)
        save_clusters(model, tmp_path / "clusters.npz")
        read = load_clusters(tmp_path / "clusters.npz")
        assert (read.centroids == model.centroids).all() and read.centroids.dtype == np.float32
        assert (read.counts == model.counts).all() and read.counts.dtype == np.int64
        assert (read.inertia, read.normalised, read.seed) == (model.inertia, normalise, 7)
        for ours, theirs in zip(model.assign(vectors), read.assign(vectors), strict=True):
            assert (ours == theirs).all()
    with np.load(tmp_path / "clusters.npz") as content:  # as the README of the format says
        assert set(content) == {"centroids", "counts", "inertia", "normalised", "seed"}


@pytest.mark.parametrize("damage", ["missing", "empty", "text", "cut", "other"])
def test_clusters_that_cannot_be_read(tmp_path, damage):
    path = tmp_path / "clusters.npz"
    save_clusters(fit(overlapping(), clusters=5), path)
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
    for normalise in (False, True):
        model = fit(vectors, clusters=7, normalise=normalise)
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
    model = fit(vectors, clusters=20, normalise=False)
    labels, margin = model.assign(vectors)
    assert sorted(labels) == list(range(20)) and (margin == 1).all()
    assert model.inertia == 0 and (model.counts == 1).all()


def test_more_clusters_than_vectors_is_refused():
    with pytest.raises(SettingsError, match=r"--clusters 21: .* only 20 segments"):
        fit(overlapping()[:15], overlapping()[15:20], clusters=21)


def test_zero_vectors_when_normalising():
    vectors = np.concatenate([np.zeros((50, 12), np.float16), overlapping()[:300]])
    model = fit(vectors, clusters=6, normalise=True)
    assert np.isfinite(model.centroids).all() and np.isfinite(model.inertia)
    labels, margin = model.assign(vectors)
    assert len(set(labels[:50])) == 1 and np.isfinite(margin).all()
    assert (prepare(vectors, True)[:50] == 0).all()
    lengths = np.linalg.norm(prepare(vectors, True)[50:], axis=1)
    np.testing.assert_allclose(lengths, 1, rtol=1e-6)


def test_scale_does_not_matter_when_normalising():
    vectors = overlapping().astype(np.float32)
    scale = np.random.default_rng(1).uniform(0.01, 100, (len(vectors), 1)).astype(np.float32)
    model = fit(vectors, clusters=6)
    ours, scaled = model.assign(vectors), model.assign(vectors * scale)
    assert (ours[0] == scaled[0]).all()
    np.testing.assert_allclose(ours[1], scaled[1], atol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("normalise", [False, True])
def test_values_that_are_none_are_refused(bad, normalise):
    vectors = overlapping()
    model = fit(vectors, clusters=4, normalise=normalise)
    vectors[1234, 5] = bad
    with pytest.raises(ValueError, match="NaN or infinity"):
        fit(vectors, clusters=4, normalise=normalise)
    with pytest.raises(ValueError, match="NaN or infinity"):
        model.assign(vectors)


# --- margin


@pytest.mark.parametrize("normalise", [False, True])
def test_margin_is_how_much_nearer_the_first_is(normalise):
    vectors = overlapping()
    model = fit(vectors, clusters=10, normalise=normalise)
    labels, margin = model.assign(vectors)
    assert labels.dtype == np.int32 and margin.dtype == np.float32
    assert margin.min() >= 0 and margin.max() <= 1
    for row in range(0, len(vectors), 97):
        vector = vectors[row].astype(float)
        if normalise:
            vector /= np.linalg.norm(vector)
        distance = [np.linalg.norm(vector - centroid) for centroid in model.centroids]
        first, second = sorted(distance)[:2]
        assert labels[row] == np.argmin(distance)
        assert margin[row] == pytest.approx(1 - first / second, abs=1e-5)


def test_margin_on_the_fence_and_on_a_centroid():
    centroids = np.array([[0, 0], [4, 0], [4, 0], [0, 8]], np.float32)
    model = ClusterModel(centroids, np.ones(4, np.int64), 0.0, False, 0)
    labels, margin = model.assign(np.array([[2, 0], [0, 0], [4, 0], [0, 6]], np.float32))
    assert labels.tolist() == [0, 0, 1, 3]
    assert margin.tolist() == [0, 1, 0, pytest.approx(1 - 2 / 6)]


def test_one_centroid_is_never_in_doubt():
    model = ClusterModel(np.ones((1, 2), np.float32), np.ones(1, np.int64), 0.0, False, 0)
    labels, margin = model.assign(np.array([[1, 1], [5, 5]], np.float32))
    assert labels.tolist() == [0, 0] and margin.tolist() == [1, 1]


def test_no_vectors_have_no_margin():
    labels, margin = fit(overlapping(), clusters=3).assign(np.zeros((0, 12), np.float16))
    assert len(labels) == len(margin) == 0


# --- the stage on a run folder


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Six tiles in three shards, the middle one without segments."""
    monkeypatch.setattr("alps.engine.plan.SHARD_TILES", 2)
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
    read = load_clusters(folder.clusters)
    assert (read.centroids == model.centroids).all()
    assert (read.features.transform(columns) == model.features.transform(columns)).all()


def test_position_is_removed_only_where_asked(run):
    folder, vectors = run
    plain = ClusterSettings(clusters=4, remove_position=False, colour_weight=0, normalise=False)
    model = cluster_archive(folder, plain)
    assert (
        model.features.position is None and load_clusters(folder.clusters).features.position is None
    )
    labels, _ = model.assign(vectors)
    table = pq.read_table(folder.root / "segments", columns=["cluster"])
    assert (table.column("cluster").to_numpy() == labels).all()


def test_read_again_or_kept_in_memory_is_the_same(run, monkeypatch):
    folder, _ = run
    kept = cluster_archive(folder, ClusterSettings(clusters=4))
    monkeypatch.setattr(cluster, "KEEP_BYTES", 0)
    again = cluster_archive(folder, ClusterSettings(clusters=4))
    assert (kept.centroids == again.centroids).all()


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
