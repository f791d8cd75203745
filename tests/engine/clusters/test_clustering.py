"""Online k-means: as good as scikit-learn's, the same for the same seed, defined on odd data."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_run import make_archive, make_run
from scipy.spatial.distance import cdist
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.datasets import make_blobs

from alps.engine.base.errors import RunFolderError, SettingsError
from alps.engine.clusters import fit as clustering
from alps.engine.clusters import region_data as run_vectors
from alps.engine.clusters.assign import cluster_archive
from alps.engine.clusters.data import MemoryVectors
from alps.engine.clusters.file import load_clusters, save_clusters
from alps.engine.clusters.fit import ClusterModel, fit_clusters
from alps.engine.clusters.region_data import RunRegions
from alps.engine.clusters.region_reader import REGION_COLUMNS, RegionReader
from alps.engine.clusters.seeding import move_centroids, plus_plus
from alps.engine.clusters.vectors import VectorFile, write_vectors
from alps.engine.images.windows import Window
from alps.engine.run_folder.sums import record
from alps.engine.run_folder.tables import read_table, write_table
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
    settings = {"source": {}, "segment": {}, "cluster": {"clusters": 5}}
    made_with = {"model": {"name": "speck", "sha256": "ab"}, "settings": settings}
    made_with["config_hash"] = "0" * 16
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
        with pytest.raises(SettingsError, match=rf"--clusters 21: .* only {count} regions"):
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

PLAIN = ClusterSettings(
    clusters=4,
    remove_position=False,
    centre_sources=False,
    components=0,
    colour_weight=0,
    neighbours=0,
    normalise=False,
)


def vectors_of(folder, group):
    file = VectorFile(folder.region_vectors(group))
    return file.read(0, file.count)[0]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Six tiles in three shards and groups, the middle one without segments; a row group a source.

    Gives the folder, and the embeddings of its 30 regions.
    """
    monkeypatch.setattr("alps.engine.run_folder.plan.SHARD_TILES", 2)
    monkeypatch.setattr("alps.engine.stages.regions.ROW_GROUP", 1)
    monkeypatch.setattr("alps.engine.clusters.assign.AT_ONCE", 5)
    rng = np.random.default_rng(0)
    vectors = [rng.normal(size=(count, 4)).astype(np.float16) for count in (9, 0, 0, 0, 14, 7)]
    segments = [[{"embedding": v.tolist()} for v in tile] for tile in vectors]
    two = [Window(0, 0, 10, 10), Window(0, 10, 10, 10)]
    sources = {
        "a.png": (two, segments[:2]),
        "b.png": (two, segments[2:4]),
        "c.png": (two[:1], segments[4:5]),
        "d.png": (two[:1], segments[5:]),
    }
    return make_archive(tmp_path / "run", sources), np.concatenate(vectors)


def classes_of(folder):
    """Clusters and margins of all regions."""
    tables = [pq.read_table(folder.region_classes(group), partitioning=None) for group in range(3)]
    table = pa.concat_tables(tables)
    return table["cluster"].to_numpy(), table["margin"].to_numpy()


def files_of(folder, name):
    return {path: path.read_bytes() for path in (folder.root / name).rglob("*") if path.is_file()}


def test_every_region_gets_its_class(run):
    folder, vectors = run
    model = cluster_archive(folder, ClusterSettings(clusters=4))
    clusters, margins = classes_of(folder)
    assert [pq.read_metadata(folder.region_classes(group)).num_rows for group in range(3)] == [
        pq.read_metadata(folder.regions(group)).num_rows for group in range(3)
    ]
    read = load_clusters(folder.clusters).model
    assert (read.centroids == model.centroids).all()
    reader, start = RegionReader(folder), 0
    for group in range(3):
        columns = reader.columns(read_table(folder.regions(group), list(REGION_COLUMNS)))
        own = slice(start, start + len(columns))
        start += len(columns)
        assert (columns.segments.embedding == vectors[own]).all()
        written = vectors_of(folder, group)
        for one in (model, read):
            write_vectors(folder, group, one.features, reader)
            assert (vectors_of(folder, group) == written).all()
            labels, margin = one.assign(written.astype(np.float32))
            assert (clusters[own] == labels).all() and (margins[own] == margin).all()
    assert start == 30
    assert (model.counts == np.bincount(clusters, minlength=4)).all()


@pytest.mark.parametrize("by_area", [False, True])
def test_inertia_is_a_mean_over_regions_or_their_pixels(run, by_area):
    folder, vectors = run
    model = cluster_archive(folder, replace(PLAIN, weight_by_area=by_area))
    tables = [read_table(folder.regions(group), ["area"]) for group in range(3)]
    area = np.concatenate([table["area"].to_numpy() for table in tables])
    distance = cdist(vectors.astype(float), model.centroids.astype(float), "sqeuclidean").min(1)
    expected = np.average(distance, weights=area if by_area else None)
    assert model.inertia == pytest.approx(expected, rel=1e-4)
    assert abs(distance.mean() / np.average(distance, weights=area) - 1) > 0.01


def test_another_number_of_clusters_rewrites_classes_alone(run):
    folder, _ = run
    cluster_archive(folder, ClusterSettings(clusters=4))
    before = {name: files_of(folder, name) for name in ("segments", "regions", "clusters")}
    cluster_archive(folder, ClusterSettings(clusters=7))
    after = {name: files_of(folder, name) for name in before}
    assert len(before["segments"]) == 3 and before["segments"] == after["segments"]
    assert before["regions"] == after["regions"]
    assert len(before["clusters"]) == 3 and before["clusters"].keys() == after["clusters"].keys()
    assert before["clusters"] != after["clusters"]
    assert set(classes_of(folder)[0]) == set(range(7))
    cluster_archive(folder, ClusterSettings(clusters=4))
    assert files_of(folder, "clusters") == before["clusters"]


def test_position_is_removed_only_where_asked(run):
    folder, vectors = run
    model = cluster_archive(folder, PLAIN)
    assert model.features.position is None
    assert load_clusters(folder.clusters).model.features.position is None
    labels, _ = model.assign(vectors)
    assert (classes_of(folder)[0] == labels).all()


def test_read_again_or_kept_in_memory_is_the_same(run, monkeypatch):
    folder, _ = run
    kept = cluster_archive(folder, ClusterSettings(clusters=4))
    monkeypatch.setattr(run_vectors, "KEEP_BYTES", 0)
    again = cluster_archive(folder, ClusterSettings(clusters=4))
    # Lloyd's algorithm both times, on the vectors in another order.
    order = [a[np.lexsort(a.T)] for a in (kept.centroids, again.centroids)]
    np.testing.assert_allclose(*order, atol=1e-4)


@pytest.mark.parametrize("rows", [1, 5, 9, 100])
def test_batches_hold_every_region_once_and_mixed(run, monkeypatch, rows):
    folder, _ = run
    settings = ClusterSettings(clusters=4, weight_by_area=True)
    kept = RunRegions(folder, settings)
    monkeypatch.setattr(run_vectors, "KEEP_BYTES", 0)
    monkeypatch.setattr(run_vectors, "POOL_ROWS", 18)
    monkeypatch.setattr(run_vectors, "PIECE_ROWS", 10)
    streamed = RunRegions(folder, settings)
    assert streamed.count == kept.count == 30
    assert [len(streamed._piece(n)[0]) for n in range(4)] == [9, 10, 10, 1]
    everything = np.arange(30)
    expected = kept.take(everything)
    areas = [read_table(folder.regions(group), ["area"])["area"].to_numpy() for group in range(3)]
    assert (expected.weights == np.concatenate(areas)).all()
    monkeypatch.setattr(run_vectors, "READ_ROWS", 8)
    for chosen in (everything, np.array([0, 8, 9, 29]), np.array([7])):
        batch = streamed.take(chosen)
        assert (batch.vectors == expected.vectors[chosen]).all()
        assert (batch.weights == expected.weights[chosen]).all()
    batches = list(streamed.batches(rows, np.random.default_rng(0)))
    assert all(len(batch) == rows for batch in batches[:-1]) and len(batches) == -(-30 // rows)
    found = np.concatenate([np.column_stack([b.vectors, b.weights]) for b in batches])
    whole = np.column_stack([expected.vectors, expected.weights])
    assert (found[np.lexsort(found.T)] == whole[np.lexsort(whole.T)]).all()
    assert not (found == whole).all()
    again = np.concatenate([b.vectors for b in streamed.batches(rows, np.random.default_rng(0))])
    assert (again == found[:, :-1]).all()


def test_a_pool_mixes_many_pieces():
    """Or each batch would be of one place, and centroids would follow it."""
    assert run_vectors.POOL_ROWS >= 500 * run_vectors.PIECE_ROWS


def test_the_gpu_clusters_a_run_folder_too(run, small_blocks):
    folder, _ = run
    here = cluster_archive(folder, ClusterSettings(clusters=2, passes=1))
    labels, _ = classes_of(folder)
    there = cluster_archive(folder, ClusterSettings(clusters=2, passes=1), on_gpu=True)
    np.testing.assert_allclose(here.centroids, there.centroids, atol=1e-5)
    assert (classes_of(folder)[0] == labels).all()
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
    write_table(table.set_column(at, table.schema.field(at), changed), path)
    with pytest.raises(RunFolderError, match=r"2 of 7 embeddings of tile 5 .* segment 3"):
        cluster_archive(folder, ClusterSettings(clusters=4))
    assert not folder.clusters.exists()


@pytest.mark.parametrize("column", ["centre_x", "embedding"])
def test_segments_of_an_older_version_say_what_to_do(run, column):
    folder, _ = run
    path = folder.segments(0)
    pq.write_table(pq.read_table(path, partitioning=None).drop_columns([column]), path)
    with pytest.raises(RunFolderError, match=f"no column `{column}`.*delete .*segments and give"):
        cluster_archive(folder, ClusterSettings(clusters=4))


@pytest.mark.parametrize("damage", ["missing", "cut"])
@pytest.mark.parametrize("kind", ["segments", "regions"])
def test_a_damaged_file_is_named(run, kind, damage):
    folder, _ = run
    path = getattr(folder, kind)(1)
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(RunFolderError, match=f"{kind}.*{path.name}"):
        cluster_archive(folder, ClusterSettings(clusters=4))


def test_nothing_to_cluster(tmp_path):
    folder = make_run(tmp_path / "run", [Window(0, 0, 10, 10)], [[]])
    with pytest.raises(RunFolderError, match="holds no region to cluster"):
        cluster_archive(folder, ClusterSettings(clusters=4))


def test_places_that_are_none_are_damage_of_the_run(tmp_path):
    segments = [{"embedding": [float(n), 1.0, 0.0, 0.0], "centre_y": np.inf} for n in range(8)]
    folder = make_run(tmp_path / "run", [Window(0, 0, 8, 8)], [segments])
    with pytest.raises(RunFolderError, match="cannot be clustered: "):
        cluster_archive(folder, ClusterSettings(clusters=2))


def test_vectors_that_are_none_are_damage_of_the_run(tmp_path, monkeypatch):
    segments = [{"embedding": [float(n), 1.0, 0.0, 0.0]} for n in range(8)]
    folder = make_run(tmp_path / "run", [Window(0, 0, 8, 8)], [segments])
    monkeypatch.setattr(
        "alps.engine.clusters.assign.RunRegions",
        lambda *_: MemoryVectors(np.full((8, 4), np.nan, np.float32)),
    )
    with pytest.raises(RunFolderError, match="cannot be clustered: vectors hold NaN"):
        cluster_archive(folder, ClusterSettings(clusters=2))


@pytest.mark.parametrize("name", ["colour", "tiles", "segments", "shares"])
def test_columns_that_are_not_there_are_damage_of_the_run(tmp_path, name):
    segments = [{"embedding": [float(n), 1.0, 0.0, 0.0]} for n in range(8)]
    folder = make_run(tmp_path / "run", [Window(0, 0, 8, 8)], [segments])
    table = read_table(folder.regions(0))
    at = table.schema.get_field_index(name)
    column = pa.array([None] * table.num_rows, table.schema.field(at).type)
    pq.write_table(table.set_column(at, table.schema.field(at), column), folder.regions(0))
    record(folder, folder.regions(0))
    with pytest.raises(RunFolderError, match=f"the column {name} of a table of this run lacks"):
        cluster_archive(folder, ClusterSettings(clusters=2))


def test_regions_of_more_tiles_than_segments_are_damage_of_the_run(tmp_path):
    segments = [{"embedding": [float(n), 1.0, 0.0, 0.0]} for n in range(8)]
    folder = make_run(tmp_path / "run", [Window(0, 0, 8, 8)], [segments])
    table = read_table(folder.regions(0), list(REGION_COLUMNS))
    at = table.schema.get_field_index("segments")
    none = pa.array([[]] * table.num_rows, table.schema.field(at).type)
    with pytest.raises(RunFolderError, match="more tiles than segments"):
        RegionReader(folder).columns(table.set_column(at, table.schema.field(at), none))
