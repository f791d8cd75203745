"""Vectors that stand for segments."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_run import make_run
from sklearn.decomposition import PCA

from alps.engine.base.errors import RunFolderError
from alps.engine.clusters.features import (
    FeatureModel,
    SegmentColumns,
    fit_features,
    read_segment_columns,
    whitening,
)
from alps.engine.images.windows import Window
from alps.engine.settings import ClusterSettings

EVERYTHING = ClusterSettings(components=5, colour_weight=0.6)
PLAIN = ClusterSettings(remove_position=False, components=0, colour_weight=0, normalise=False)


def made(count=700, channels=12, seed=0):
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(channels, channels))
    return SegmentColumns(
        embedding=(rng.normal(size=(count, channels)) @ mixed + 3).astype(np.float16),
        colour=(rng.random((count, 6)) * 50).astype(np.float16),
        place=rng.random((count, 2)),
        area=rng.integers(1, 1000, count),
        tile=np.sort(rng.integers(0, 9, count)),
    )


def pieces_of(columns, at=(0, 100, 100, 450, 700)):
    rows = np.arange(len(columns))
    return [columns.take(rows[a:b]) for a, b in pairwise(at)]


def test_nothing_asked_for_is_the_embedding():
    columns = made()
    vectors = fit_features([columns], PLAIN).transform(columns)
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, columns.embedding)


def test_whitened_like_scikit_learn():
    columns = made()
    settings = ClusterSettings(remove_position=True, components=5, colour_weight=0, normalise=False)
    model = fit_features([columns], settings)
    without = model.position.remove(columns.embedding, columns.place)
    theirs = PCA(5, whiten=True).fit_transform(without)
    ours = model.transform(columns)
    signs = np.sign((ours * theirs).sum(0))
    np.testing.assert_allclose(ours, theirs * signs, atol=0.02)
    np.testing.assert_allclose(np.cov(ours.T), np.eye(5), atol=0.01)


def test_whitening_without_position_leaves_the_mean_out():
    columns = made()
    settings = ClusterSettings(
        remove_position=False, components=12, colour_weight=0, normalise=False
    )
    vectors = fit_features([columns], settings).transform(columns)
    np.testing.assert_allclose(np.cov(vectors.T), np.eye(12), atol=0.02)


def test_lengths_and_weights():
    columns = made()
    vectors = fit_features([columns], EVERYTHING).transform(columns)
    assert vectors.shape == (700, 11)
    np.testing.assert_allclose(np.linalg.norm(vectors[:, :5], axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(vectors[:, 5:].std(0), [0.6] * 3 + [0.3] * 3, rtol=1e-3)
    np.testing.assert_allclose(vectors[:, 5:].mean(0), 0, atol=1e-3)


def test_pieces_make_no_difference():
    columns = made()
    whole = fit_features([columns], EVERYTHING)
    pieces = fit_features(iter(pieces_of(columns)), EVERYTHING)
    np.testing.assert_allclose(whole.transform(columns), pieces.transform(columns), atol=1e-4)


def test_company_makes_no_difference_to_the_bit():
    columns = made(1300)
    model = fit_features([columns], EVERYTHING)
    together = model.transform(columns)
    for rows in (np.arange(1), np.arange(511, 513), np.arange(7, 1300, 3), np.arange(1299, -1, -1)):
        np.testing.assert_array_equal(model.transform(columns.take(rows)), together[rows])
    assert model.transform(columns.take(np.arange(0))).shape == (0, 11)


@pytest.mark.parametrize("settings", [EVERYTHING, PLAIN, ClusterSettings()])
def test_a_model_goes_to_arrays_and_back(settings, tmp_path):
    columns = made()
    model = fit_features([columns], settings)
    np.savez(tmp_path / "model.npz", **model.arrays())
    with np.load(tmp_path / "model.npz") as arrays:
        read = FeatureModel.from_arrays(dict(arrays))
    np.testing.assert_array_equal(read.transform(columns), model.transform(columns))


def test_what_never_varies_says_nothing():
    columns = made()
    columns.embedding[:] = columns.embedding[0]
    columns.colour[:, 2:] = 7
    vectors = fit_features([columns], EVERYTHING).transform(columns)
    assert np.isfinite(vectors).all()
    assert np.ptp(vectors[:, -4:], axis=0).max() == 0


def test_fewer_dimensions_than_components():
    columns = made()
    columns.embedding[:, 4:] = 0
    assert fit_features([columns], ClusterSettings(components=9)).axes.shape == (12, 4)
    assert whitening(np.zeros((3, 3)), 2).shape == (3, 1)


def test_no_segments():
    columns = made().take(np.arange(0))
    assert fit_features([columns], ClusterSettings()).transform(columns).shape[0] == 0


# --- from a run folder


@pytest.fixture
def run(tmp_path):
    windows = [Window(0, 0, 20, 10), Window(20, 0, 20, 10)]
    row = {"embedding": [1, 2, 3, 4], "colour": [50, 1, 2, 3, 4, 5], "area": 9}
    segments = [
        [row | {"centre_x": 5, "centre_y": 2.5}],
        [row | {"centre_x": 10}, row | {"centre_y": 10}],
    ]
    return make_run(tmp_path / "run", windows, segments)


def test_columns_of_a_run(run):
    columns = read_segment_columns(run.segments(0), np.array([20, 20]))
    np.testing.assert_array_equal(columns.place, [[0.25, 0.125], [0.5, 0], [0, 0.5]])
    np.testing.assert_array_equal(columns.embedding, [[1, 2, 3, 4]] * 3)
    np.testing.assert_array_equal(columns.colour, [[50, 1, 2, 3, 4, 5]] * 3)
    assert columns.tile.tolist() == [0, 1, 1] and columns.area.tolist() == [9] * 3
    smaller = read_segment_columns(run.segments(0), np.array([20, 10]))
    np.testing.assert_array_equal(smaller.place, [[0.25, 0.125], [1, 0], [0, 1]])


@pytest.mark.parametrize("column", ["colour", "centre_x"])
def test_segments_of_an_older_version_say_what_to_do(run, column):
    path = run.segments(0)
    pq.write_table(pq.read_table(path, partitioning=None).drop_columns([column]), path)
    with pytest.raises(RunFolderError, match=f"no column `{column}`.*delete .*segments and give"):
        read_segment_columns(path, np.array([20, 20]))


def test_a_colour_that_is_no_number_is_named(run):
    path = run.segments(0)
    table = pq.read_table(path, partitioning=None)
    at = table.schema.get_field_index("colour")
    values = np.ones((3, 6), np.float16)
    values[2, 4] = np.nan
    column = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), 6)
    pq.write_table(table.set_column(at, table.schema.field(at), column), path)
    with pytest.raises(RunFolderError, match=r"1 of 3 colours .* tile 1, segment 1"):
        read_segment_columns(path, np.array([20, 20]))
