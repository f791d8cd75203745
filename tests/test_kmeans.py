"""The pass of k-means against SciPy's distances and sums taken one by one."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from alps.kernels import kmeans


def data(rows, clusters, channels, seed=0, scale=1.0, offset=0.0):
    rng = np.random.default_rng(seed)
    vectors = (rng.normal(size=(rows, channels)) * scale + offset).astype(np.float32)
    centroids = (rng.normal(size=(clusters, channels)) * scale + offset).astype(np.float32)
    return vectors, centroids


def assert_nearest(found, vectors, centroids):
    """Labels and both distances are SciPy's, to float32 rounding of the distances."""
    distance = cdist(vectors.astype(float), centroids.astype(float), "sqeuclidean")
    ordered = np.sort(distance, axis=1)
    assert found.labels.dtype == np.int32
    assert found.nearest.dtype == found.second.dtype == np.float32
    np.testing.assert_allclose(found.nearest, ordered[:, 0], rtol=1e-5)
    np.testing.assert_allclose(found.second, ordered[:, 1], rtol=1e-5)
    apart = ordered[:, 1] - ordered[:, 0] > 1e-5 * ordered[:, 1]
    assert apart.mean() > 0.9
    assert (found.labels == distance.argmin(1))[apart].all()


@pytest.mark.parametrize("channels", [1, 3, 16, 257])
@pytest.mark.parametrize("clusters", [2, 7, 46])
def test_nearest_and_second_nearest(channels, clusters):
    vectors, centroids = data(300, clusters, channels)
    assert_nearest(kmeans.assign(vectors, centroids), vectors, centroids)


def test_far_from_the_origin():
    vectors, centroids = data(500, 20, 32, scale=0.1, offset=100)
    assert_nearest(kmeans.assign(vectors, centroids), vectors, centroids)


def test_values_that_were_float16():
    vectors, centroids = data(400, 10, 64, scale=3)
    vectors = vectors.astype(np.float16).astype(np.float32)
    assert_nearest(kmeans.assign(vectors, centroids), vectors, centroids)


def test_a_vector_on_its_centroid_is_at_distance_zero():
    _, centroids = data(1, 46, 256, scale=5)
    found = kmeans.assign(np.repeat(centroids, 3, axis=0), centroids)
    assert (found.labels == np.arange(46).repeat(3)).all()
    assert (found.nearest == 0).all() and (found.second > 1).all()


def test_ties_go_to_the_lowest_id():
    centroids = np.array([[4, 0], [2, 0], [0, 2], [-2, 0], [0, 2]], np.float32)
    vectors = np.array([[0, 0], [0, 2], [1, 1], [-1, 1], [3, 0]], np.float32)
    found = kmeans.assign(vectors, centroids)
    assert found.labels.tolist() == [1, 2, 1, 2, 0]
    assert found.nearest.tolist() == [4, 0, 2, 2, 1]
    assert found.second.tolist() == [4, 0, 2, 2, 1]


def test_centroids_in_one_place_are_equally_far():
    vectors, centroids = data(200, 3, 256)
    found = kmeans.assign(vectors, centroids[[0, 1, 2, 1, 0, 2]])
    assert (found.nearest == found.second).all()
    assert found.labels.max() <= 2


def test_one_centroid():
    vectors, centroids = data(50, 1, 5)
    found = kmeans.assign(vectors, centroids)
    expected = cdist(vectors, centroids, "sqeuclidean")[:, 0]
    assert (found.labels == 0).all() and np.isinf(found.second).all()
    np.testing.assert_allclose(found.nearest, expected, rtol=1e-5)


def test_no_vectors():
    found = kmeans.assign(np.zeros((0, 4), np.float32), np.ones((3, 4), np.float32))
    assert len(found.labels) == len(found.nearest) == len(found.second) == 0
    assert found.labels.dtype == np.int32
    sums, counts = kmeans.partial_sums(np.zeros((0, 4), np.float32), found.labels, 3)
    assert sums.shape == (3, 4) and not sums.any() and counts.tolist() == [0, 0, 0]


@pytest.mark.parametrize("rows", [1, 6, 7, 8, 14, 20])
def test_blocks_change_nothing(rows, monkeypatch):
    vectors, centroids = data(rows, 4, 9)
    whole = kmeans.assign(vectors, centroids)
    monkeypatch.setattr(kmeans, "BLOCK_ROWS", 7)
    blocks = kmeans.assign(vectors, centroids)
    assert (whole.labels == blocks.labels).all()
    np.testing.assert_array_equal(whole.nearest, blocks.nearest)
    np.testing.assert_array_equal(whole.second, blocks.second)


def test_arguments_stay_as_they_are():
    vectors, centroids = data(30, 4, 9)
    before = vectors.copy(), centroids.copy()
    kmeans.partial_sums(vectors, kmeans.assign(vectors, centroids).labels, 4)
    assert (vectors == before[0]).all() and (centroids == before[1]).all()


@pytest.mark.parametrize("labels", [[], [2], [0, 0, 0], [5, 5, 1, 5, 0, 1], [3] * 40])
def test_sums_one_by_one(labels):
    vectors, _ = data(len(labels), 1, 6)
    labels = np.array(labels, np.int32)
    expected, counted = np.zeros((6, 6)), np.zeros(6, np.int64)
    for vector, label in zip(vectors, labels, strict=True):
        expected[label] += vector
        counted[label] += 1
    sums, counts = kmeans.partial_sums(vectors, labels, 6)
    assert sums.dtype == np.float64 and counts.dtype == np.int64
    assert (counts == counted).all()
    np.testing.assert_allclose(sums, expected, rtol=1e-12, atol=1e-12)


def test_sums_keep_what_float32_would_lose():
    vectors = np.array([[2**24]] + [[1]] * 1000, np.float32)
    sums, counts = kmeans.partial_sums(vectors, np.zeros(1001, np.int32), 2)
    assert sums[:, 0].tolist() == [2**24 + 1000, 0] and counts.tolist() == [1001, 0]
