"""The pass of k-means: the plain version, the CPU's and the GPU's, SciPy and scikit-learn."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.cluster import KMeans

from alps.kernels import kmeans
from alps.kernels.base.threads import set_threads
from alps.kernels.kmeans import assign, reference_assign
from alps.kernels.kmeans.cpu import piece_rows
from alps.kernels.kmeans.gpu import Products, halves


@pytest.fixture(params=["reference", "cpu", "gpu"])
def version(request, to_gpu, small_blocks):
    """A function (vectors, centroids, weights=None) -> Assignment on the host."""
    if request.param == "reference":
        return reference_assign
    if request.param == "cpu":
        return assign

    def on_gpu(vectors, centroids, weights=None):
        found = assign(to_gpu(vectors), centroids, None if weights is None else to_gpu(weights))
        arrays = (getattr(found, name).copy_to_host() for name in ("labels", "nearest", "second"))
        return kmeans.Assignment(*arrays, found.sums, found.counts, found.weights, found.inertia)

    return on_gpu


def data(rows, clusters, channels, seed=0, scale=1.0, offset=0.0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    vectors = (rng.normal(size=(rows, channels)) * scale + offset).astype(dtype)
    centroids = (rng.normal(size=(clusters, channels)) * scale + offset).astype(np.float32)
    return vectors, centroids


def assert_right(found, vectors, centroids, weights=None, rtol=1e-5):
    """Labels and distances are SciPy's, sums those of the labels taken one by one."""
    distance = cdist(vectors.astype(float), centroids.astype(float), "sqeuclidean")
    ordered = np.sort(distance, axis=1)
    assert found.labels.dtype == np.int32
    assert found.nearest.dtype == found.second.dtype == np.float32
    np.testing.assert_allclose(found.nearest, ordered[:, 0], rtol=rtol)
    if len(centroids) > 1:
        np.testing.assert_allclose(found.second, ordered[:, 1], rtol=rtol)
        apart = ordered[:, 1] - ordered[:, 0] > 1e-5 * ordered[:, 1]
        assert apart.mean() > 0.9
        assert (found.labels == distance.argmin(1))[apart].all()
    own = np.ones(len(vectors)) if weights is None else weights.astype(float)
    sums, mass = np.zeros(centroids.shape), np.zeros(len(centroids))
    np.add.at(sums, found.labels, own[:, None] * vectors.astype(float))
    np.add.at(mass, found.labels, own)
    assert found.sums.dtype == np.float64 and found.counts.dtype == np.int64
    np.testing.assert_allclose(found.sums, sums, rtol=1e-11, atol=1e-11 * np.abs(sums).max())
    np.testing.assert_array_equal(found.counts, np.bincount(found.labels, minlength=len(centroids)))
    np.testing.assert_allclose(found.weights, mass, rtol=1e-12)
    assert found.inertia == pytest.approx((own * ordered[:, 0]).sum(), rel=1e-5)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize(
    ("rows", "clusters", "channels"),
    [(1, 1, 1), (1, 3, 5), (15, 2, 1), (16, 7, 16), (17, 17, 17), (50, 18, 3)],
)
def test_all_versions(version, rows, clusters, channels, dtype):
    vectors, centroids = data(rows, clusters, channels, dtype=dtype)
    assert_right(version(vectors, centroids), vectors, centroids)


def test_weights(version):
    vectors, centroids = data(40, 5, 18, dtype=np.float16)
    weights = np.random.default_rng(1).gamma(1, size=40).astype(np.float32)
    weights[::7] = 0
    assert_right(version(vectors, centroids, weights), vectors, centroids, weights)


@pytest.mark.parametrize("channels", [1, 3, 16, 257])
@pytest.mark.parametrize("clusters", [2, 7, 46])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_several_blocks_and_pieces(channels, clusters, dtype):
    vectors, centroids = data(2100, clusters, channels, dtype=dtype)
    assert piece_rows(len(vectors), clusters) < len(vectors)
    assert_right(assign(vectors, centroids), vectors, centroids)


def test_far_from_the_origin(version):
    vectors, centroids = data(40, 8, 16, scale=0.1, offset=100)
    assert_right(version(vectors, centroids), vectors, centroids)


def test_a_vector_on_its_centroid_is_at_distance_zero(version):
    _, centroids = data(1, 20, 16, scale=5)
    found = version(np.repeat(centroids, 2, axis=0), centroids)
    assert (found.labels == np.arange(20).repeat(2)).all()
    assert (found.nearest == 0).all() and (found.second > 1).all() and found.inertia == 0


def test_ties_go_to_the_lowest_id(version):
    centroids = np.array([[4, 0], [2, 0], [0, 2], [-2, 0], [0, 2]], np.float32)
    vectors = np.array([[0, 0], [0, 2], [1, 1], [-1, 1], [3, 0]], np.float32)
    found = version(vectors, centroids)
    assert found.labels.tolist() == [1, 2, 1, 2, 0]
    assert found.nearest.tolist() == [4, 0, 2, 2, 1]
    assert found.second.tolist() == [4, 0, 2, 2, 1]


def test_centroids_in_one_place_are_equally_far(version):
    vectors, centroids = data(30, 3, 20)
    found = version(vectors, centroids[[0, 1, 2, 1, 0, 2]])
    assert (found.nearest == found.second).all()
    assert found.labels.max() <= 2


def test_one_centroid(version):
    vectors, centroids = data(20, 1, 5)
    found = version(vectors, centroids)
    assert (found.labels == 0).all() and np.isinf(found.second).all()
    assert_right(found, vectors, centroids)


def test_no_vectors(version):
    found = version(np.zeros((0, 4), np.float16), np.ones((3, 4), np.float32))
    assert len(found.labels) == len(found.nearest) == len(found.second) == 0
    assert found.labels.dtype == np.int32 and found.inertia == 0
    assert found.sums.shape == (3, 4) and not found.sums.any() and found.counts.tolist() == [0] * 3


def test_all_values_of_float16(version):
    """Subnormal, normal, both signs of zero."""
    bits = np.arange(0, 1 << 16, 331, dtype=np.uint16)
    values = bits.view(np.float16)
    values = values[np.isfinite(values)]
    vectors = values[: len(values) // 6 * 6].reshape(-1, 6)
    found = version(vectors, np.zeros((1, 6), np.float32))
    np.testing.assert_array_equal(found.sums[0], vectors.astype(float).sum(0))
    squares = (vectors.astype(float) ** 2).sum(1)
    np.testing.assert_allclose(found.nearest, squares, rtol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["vectors", "centroids", "weights"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_is_no_number_is_refused(version, bad, where):
    vectors, centroids = data(20, 3, 6)
    weights = np.ones(20, np.float32)
    {"vectors": vectors, "centroids": centroids, "weights": weights}[where].flat[-1] = bad
    with pytest.raises(ValueError, match="NaN, infinity"):
        version(vectors, centroids, weights)
    if where == "vectors":
        with pytest.raises(ValueError, match="NaN, infinity"):
            version(vectors.astype(np.float16), centroids)


@pytest.mark.parametrize(
    ("vectors", "centroids", "weights", "message"),
    [
        ((5, 4), (3, 5), None, "4 channels"),
        ((5, 4), (0, 4), None, "at least one centroid"),
        ((5,), (3, 5), None, "matrices"),
        ((5, 4), (3, 4), (4,), "weights for 5"),
    ],
)
def test_shapes_that_do_not_fit(vectors, centroids, weights, message):
    with pytest.raises(ValueError, match=message):
        assign(
            np.zeros(vectors, np.float32),
            np.zeros(centroids, np.float32),
            None if weights is None else np.ones(weights, np.float32),
        )
    with pytest.raises(ValueError, match="float64"):
        assign(np.zeros((2, 3)), np.zeros((2, 3), np.float32))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_any_number_of_threads_gives_the_same_bytes(dtype):
    vectors, centroids = data(5000, 30, 24, dtype=dtype)
    weights = np.random.default_rng(2).random(5000, np.float32)
    results = []
    try:
        for threads in (1, 2, 5):
            set_threads(threads)
            found = assign(vectors, centroids, weights)
            results.append([np.asarray(value).tobytes() for value in vars(found).values()])
    finally:
        set_threads(None)
    assert results[0] == results[1] == results[2]


def test_rows_beside_each_other_do_not_touch(version):
    """A vector's result does not depend on the vectors it came with."""
    vectors, centroids = data(30, 6, 9)
    whole, part = version(vectors, centroids), version(vectors[20:], centroids)
    np.testing.assert_array_equal(whole.labels[20:], part.labels)
    np.testing.assert_array_equal(whole.nearest[20:], part.nearest)
    np.testing.assert_array_equal(whole.second[20:], part.second)


def test_vectors_that_are_not_contiguous():
    vectors, centroids = data(40, 4, 20)
    for view in (vectors[::2, ::2], np.asfortranarray(vectors[:, :10]), vectors[::-1, 10:]):
        assert_right(assign(view, centroids[:, :10]), view, centroids[:, :10])


def test_arguments_stay_as_they_are():
    vectors, centroids = data(30, 4, 9)
    before = vectors.copy(), centroids.copy()
    assign(vectors, centroids)
    assert (vectors == before[0]).all() and (centroids == before[1]).all()


def test_sums_keep_what_float32_would_lose(version):
    vectors = np.array([[2**24]] + [[1]] * 20, np.float32)
    found = version(vectors, np.zeros((1, 1), np.float32))
    assert found.sums.tolist() == [[2**24 + 20]]


def test_a_step_is_scikit_learns():
    vectors, centroids = data(3000, 15, 16)
    found = assign(vectors, centroids)
    theirs = KMeans(15, init=centroids, n_init=1, max_iter=1, tol=0).fit(vectors)
    ours = found.sums / found.counts[:, None]
    np.testing.assert_allclose(ours, theirs.cluster_centers_, rtol=1e-3, atol=1e-4)
    after = assign(vectors, ours.astype(np.float32))
    assert after.inertia == pytest.approx(theirs.inertia_, rel=1e-5)
    assert after.inertia < found.inertia


def test_the_gpus_own_blocks(to_gpu):
    vectors, centroids = data(65, 3, 2, dtype=np.float16)
    found, expected = assign(to_gpu(vectors), centroids), assign(vectors, centroids)
    assert (found.labels.copy_to_host() == expected.labels).all()
    np.testing.assert_allclose(found.sums, expected.sums, rtol=1e-12, atol=1e-12)


def test_the_gpu_sums_alike_however_tiles_fall_to_blocks(to_gpu, small_blocks, monkeypatch):
    from alps.kernels.kmeans import gpu as on_gpu

    vectors, centroids = data(50, 5, 4, dtype=np.float16)
    many = assign(to_gpu(vectors), centroids)
    monkeypatch.setattr(on_gpu, "SUM_BYTES", 1)
    one = assign(to_gpu(vectors), centroids)
    assert (many.labels.copy_to_host() == one.labels.copy_to_host()).all()
    np.testing.assert_allclose(many.sums, one.sums, rtol=1e-13)


def test_exact_ties_go_to_the_lowest_id_whatever_rounding_says(version):
    """Whole numbers far from a middle that is none: products are rounded, distances are not."""
    rng = np.random.default_rng(4)
    vectors = rng.integers(0, 4, (60, 5)) + 1000
    centroids = rng.integers(0, 4, (7, 5)) + 1000
    distance = ((vectors[:, None] - centroids) ** 2).sum(2)
    ties = (distance == distance.min(1, keepdims=True)).sum(1)
    vectors, distance = vectors[ties <= 2], distance[ties <= 2]
    assert (ties == 2).sum() > 5
    found = version(vectors.astype(np.float32), centroids.astype(np.float32))
    assert found.labels.tolist() == distance.argmin(1).tolist()
    assert found.nearest.tolist() == distance.min(1).tolist()


def test_two_halves_hold_a_float32():
    values = (np.random.default_rng(0).normal(size=(9, 40)) * 0.03).astype(np.float32)
    found = halves(values, 2.0**15)
    assert found.dtype == np.float16
    high, low = np.split(found.astype(float), 2)
    largest = np.abs(values).max() * 2.0**15
    assert np.abs(high + low - values * 2.0**15).max() <= largest * 2.0**-21
    assert np.abs(high - values * 2.0**15).max() > largest * 2.0**-14


@pytest.mark.parametrize(
    ("dtype", "offset", "columns"),
    [(np.float16, 0, 14), (np.float16, 50, 7), (np.float32, 0, 7)],
)
def test_products_tell_how_near_centroids_are(dtype, offset, columns, to_gpu):
    """Halves are for float16 near the origin; from a middle far away they would lose digits."""
    vectors, centroids = data(40, 7, 12, offset=offset, dtype=dtype)
    products = Products(to_gpu(vectors), centroids)
    found = np.asarray(products.of(5, 40))
    assert (found.shape, found.dtype) == ((35, columns), np.float32)
    value = products.offsets - found.reshape(35, -1, 7).sum(1)
    wide, there = vectors[5:].astype(float), centroids.astype(float)
    expected = cdist(wide, there, "sqeuclidean") / 2
    # Half the squared distance, less what all centroids of a vector share.
    spread = [v - v[:, :1] for v in (value, expected)]
    largest = np.abs(spread[1]).argmax()
    scale = spread[0].ravel()[largest] / spread[1].ravel()[largest]
    assert np.log2(scale) == pytest.approx(round(np.log2(scale)), abs=1e-4)
    limit = 2e-6 * np.abs(spread[1]).max()
    np.testing.assert_allclose(spread[0] / 2.0 ** round(np.log2(scale)), spread[1], atol=limit)
