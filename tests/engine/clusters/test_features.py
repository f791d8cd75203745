"""Vectors that stand for regions."""

from itertools import pairwise

import numpy as np
import pytest
from made_run import cut_as, make_archive, make_run
from sklearn.decomposition import PCA

from alps.engine.clusters.features import (
    SETTLED_PIXELS,
    FeatureFit,
    FeatureModel,
    RegionColumns,
    SegmentColumns,
    SourceMeans,
    whitening,
)
from alps.engine.clusters.region_reader import REGION_COLUMNS, RegionReader
from alps.engine.images.windows import Window
from alps.engine.run_folder.tables import read_table
from alps.engine.settings import ClusterSettings

EVERYTHING = ClusterSettings(components=5, colour_weight=0.6, centre_sources=True)
PLAIN = ClusterSettings(
    remove_position=False, components=0, colour_weight=0, normalise=False, centre_sources=False
)


def segments_of(columns, rows):
    return SegmentColumns(columns.embedding[rows], columns.place[rows], columns.area[rows])


def made(count=700, channels=12, seed=0, most_area=10_000):
    """Regions of three sources that saw one to three of 400 segments each."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(channels, channels))
    source = np.sort(rng.integers(0, 3, 400))
    embedding = rng.normal(size=(400, channels)) @ mixed + 3 + rng.normal(size=(3, 12))[source]
    segments = SegmentColumns(
        embedding.astype(np.float16), rng.random((400, 2)), rng.integers(1, most_area, 400)
    )
    means = [SourceMeans.of([segments_of(segments, source == one)]) for one in range(3)]
    starts = np.concatenate([[0], np.cumsum(rng.integers(1, 4, count))])
    share = rng.random(starts[-1])
    total = np.repeat(np.add.reduceat(share, starts[:-1]), np.diff(starts))
    return RegionColumns(
        segments,
        source,
        SourceMeans.join(means),
        starts,
        rng.integers(0, 400, starts[-1]),
        (share / total).astype(np.float32),
        (rng.random((count, 6)) * 50).astype(np.float16),
        rng.integers(1, 1000, count),
    )


def one_each(columns):
    """A region a segment, which is all that is seen there."""
    count = len(columns.segments.area)
    every = np.arange(count + 1)
    share = np.ones(count, np.float32)
    colour = np.resize(columns.colour, (count, 6))
    own = (every, every[:-1], share, colour, columns.segments.area)
    return RegionColumns(columns.segments, columns.source, columns.means, *own)


def fitted(columns, settings, edges=(0, 400)):
    """Of all segments and colours, piece by piece."""
    fit = FeatureFit(settings)
    for first, end in pairwise(edges):
        fit.add_segments(segments_of(columns.segments, slice(first, end)))
    for first, end in pairwise((0, 3, 3, len(columns))):
        fit.add_colours(columns.colour[first:end])
    return fit.solve()


def by_definition(columns, settings):
    """The vectors in float64, each step as the docstrings say it."""
    segments, entries = columns.segments, list(pairwise(columns.starts))
    weight = segments.area / segments.area.sum()
    x, y = segments.place.T
    # As many frequencies an axis as 40 segments a term allow.
    most = int(np.sqrt(len(x) / 40))
    waves = [
        np.cos(np.pi * i * x) * np.cos(np.pi * j * y) for i in range(most) for j in range(most)
    ]
    basis, root = np.stack(waves, axis=1), np.sqrt(weight)[:, None]
    embedding = segments.embedding.astype(np.float64)
    effect = np.linalg.lstsq(basis * root, embedding * root, rcond=None)[0]
    left = embedding - basis @ effect
    variance, axes = np.linalg.eigh((left * weight[:, None]).T @ left)
    axes = (axes / np.sqrt(variance))[:, ::-1][:, : settings.components]
    axes *= np.sign(axes[np.abs(axes).argmax(0), np.arange(axes.shape[1])])
    for source in range(3):
        own = columns.source == source
        pixels = segments.area[own].sum()
        shared = (left[own] * segments.area[own, None]).sum(0) / pixels
        left[own] -= shared * pixels / (pixels + SETTLED_PIXELS)
    vectors = left @ axes
    rows = [
        sum(columns.share[at] * vectors[columns.entry[at]] for at in range(first, end))
        for first, end in entries
    ]
    rows = np.stack(rows)
    rows /= np.sqrt((rows**2).sum(1))[:, None]
    colour = columns.colour.astype(np.float64)
    scale = settings.colour_weight * np.array([1, 1, 1, 0.5, 0.5, 0.5]) / colour.std(0)
    return np.concatenate([rows, (colour - colour.mean(0)) * scale], axis=1)


def test_vectors_are_what_they_are_said_to_be():
    columns = made()
    found = fitted(columns, EVERYTHING).transform(columns)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, by_definition(columns, EVERYTHING), atol=2e-4)


def test_nothing_asked_for_is_the_embedding():
    columns = one_each(made())
    np.testing.assert_array_equal(
        fitted(columns, PLAIN).transform(columns), columns.segments.embedding
    )


def test_whitened_like_scikit_learn_with_a_row_a_pixel():
    columns = one_each(made(most_area=5))
    settings = ClusterSettings(components=5, colour_weight=0, normalise=False, centre_sources=False)
    model = fitted(columns, settings)
    segments = columns.segments
    without = model.position.remove(segments.embedding, segments.place)
    theirs = PCA(5, whiten=True).fit(np.repeat(without, segments.area, axis=0)).transform(without)
    ours = model.transform(columns)
    np.testing.assert_allclose(ours, theirs * np.sign((ours * theirs).sum(0)), atol=0.02)
    spread = np.cov(np.repeat(ours, segments.area, axis=0).T)
    np.testing.assert_allclose(spread, np.eye(5), atol=0.01)


def test_whitening_without_position_leaves_the_mean_out():
    columns = one_each(made())
    settings = ClusterSettings(
        remove_position=False,
        components=12,
        colour_weight=0,
        normalise=False,
        centre_sources=False,
    )
    vectors = fitted(columns, settings).transform(columns)
    spread = np.cov(vectors.T, aweights=columns.area)
    np.testing.assert_allclose(spread, np.eye(12), atol=0.02)


def test_lengths_and_weights():
    columns = made()
    vectors = fitted(columns, EVERYTHING).transform(columns)
    assert vectors.shape == (700, 11)
    np.testing.assert_allclose(np.linalg.norm(vectors[:, :5], axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(vectors[:, 5:].std(0), [0.6] * 3 + [0.3] * 3, rtol=1e-3)
    np.testing.assert_allclose(vectors[:, 5:].mean(0), 0, atol=1e-3)


def test_pieces_make_no_difference():
    columns = made()
    whole = fitted(columns, EVERYTHING)
    pieces = fitted(columns, EVERYTHING, (0, 100, 100, 250, 400))
    np.testing.assert_allclose(whole.transform(columns), pieces.transform(columns), atol=1e-4)


def test_company_makes_no_difference_to_the_bit():
    columns = made(1300)
    model = fitted(columns, EVERYTHING)
    together = model.transform(columns)
    for rows in (np.arange(1), np.arange(511, 513), np.arange(7, 1300, 3), np.arange(1299, -1, -1)):
        np.testing.assert_array_equal(model.transform(columns.take(rows)), together[rows])
    assert model.transform(columns.take(np.arange(0))).shape == (0, 11)


def test_rows_that_are_taken_keep_what_is_theirs():
    columns = made()
    rows = np.array([5, 699, 0, 5])
    taken = columns.take(rows)
    assert len(taken) == 4
    for place, row in enumerate(rows):
        theirs = slice(columns.starts[row], columns.starts[row + 1])
        ours = slice(taken.starts[place], taken.starts[place + 1])
        np.testing.assert_array_equal(taken.entry[ours], columns.entry[theirs])
        np.testing.assert_array_equal(taken.share[ours], columns.share[theirs])
    np.testing.assert_array_equal(taken.colour, columns.colour[rows])
    np.testing.assert_array_equal(taken.area, columns.area[rows])


@pytest.mark.parametrize("settings", [EVERYTHING, PLAIN, ClusterSettings()])
def test_a_model_goes_to_arrays_and_back(settings, tmp_path):
    columns = made()
    model = fitted(columns, settings)
    np.savez(tmp_path / "model.npz", **model.arrays())
    with np.load(tmp_path / "model.npz") as arrays:
        read = FeatureModel.from_arrays(dict(arrays))
    assert (read.normalise, read.centred) == (settings.normalise, settings.centre_sources)
    np.testing.assert_array_equal(read.transform(columns), model.transform(columns))


def test_what_never_varies_says_nothing():
    columns = made()
    columns.segments.embedding[:] = columns.segments.embedding[0]
    columns.colour[:, 2:] = 7
    vectors = fitted(columns, EVERYTHING).transform(columns)
    assert np.isfinite(vectors).all()
    assert np.ptp(vectors[:, -4:], axis=0).max() == 0


def test_fewer_dimensions_than_components():
    columns = made()
    columns.segments.embedding[:, 4:] = 0
    settings = ClusterSettings(components=9, centre_sources=False)
    assert fitted(columns, settings).axes.shape == (12, 4)
    assert whitening(np.zeros((3, 3)), 2).shape == (3, 1)


@pytest.mark.parametrize("settings", [EVERYTHING, PLAIN, ClusterSettings()])
def test_no_segments_and_no_regions(settings):
    columns = made()
    model = fitted(columns, settings)
    nothing = segments_of(columns.segments, slice(0))
    unseen = RegionColumns(
        nothing,
        columns.source[:0],
        SourceMeans(np.zeros((0, 1)), np.zeros((0, 1)), np.zeros(0)),
        np.zeros(3, np.int64),
        columns.entry[:0],
        columns.share[:0],
        columns.colour[:2],
        columns.area[:2],
    )
    vectors = model.transform(unseen)
    expected = model.transform(columns.take(np.arange(2)))
    assert vectors.shape == expected.shape and np.isfinite(vectors).all()
    colours = 6 if settings.colour_weight else 0
    assert not vectors[:, : vectors.shape[1] - colours].any()
    empty = FeatureFit(settings).solve()
    assert len(empty.transform(unseen.take(np.arange(0)))) == 0


# --- what a source shares


def test_means_of_a_source_part_by_part():
    segments = made().segments
    mean = SourceMeans.of(segments_of(segments, slice(*ends)) for ends in pairwise((0, 9, 9, 400)))
    expected = np.average(segments.embedding.astype(float), axis=0, weights=segments.area)
    np.testing.assert_allclose(mean.embedding, [expected])
    assert mean.pixels.tolist() == [segments.area.sum()]
    waves = np.average(np.cos(np.pi * 5 * segments.place[:, 1]), weights=segments.area)
    assert mean.basis.shape == (1, 36) and mean.basis[0, 5] == pytest.approx(waves, abs=1e-6)
    assert mean.basis[0, 0] == pytest.approx(1)


def test_a_large_source_loses_its_mean_and_a_small_one_keeps_it():
    columns = one_each(made())
    settings = ClusterSettings(
        remove_position=False, components=0, colour_weight=0, normalise=False, centre_sources=True
    )
    for area, left in ((10**9, 0.0), (SETTLED_PIXELS / 400, 0.5), (1, 1.0)):
        own = SegmentColumns(
            columns.segments.embedding, columns.segments.place, np.full(400, float(area))
        )
        zero = np.zeros(400, int)
        rest = (columns.starts, columns.entry, columns.share, columns.colour, own.area)
        one = RegionColumns(own, zero, SourceMeans.of([own]), *rest)
        vectors = fitted(one, settings).transform(one)
        mean = own.embedding.astype(float).mean(0)
        np.testing.assert_allclose(vectors.mean(0), left * mean, atol=0.01)


# --- from a run folder


def test_columns_of_a_run(tmp_path):
    row = {"colour": [50, 1, 2, 3, 4, 5], "area": 9}
    wide = [
        [row | {"embedding": [1, 2, 3, 4], "centre_x": 5, "centre_y": 2.5}],
        [row | {"embedding": [5] * 4, "centre_x": 10}, row | {"embedding": [6] * 4, "area": 27}],
    ]
    folder = make_archive(
        tmp_path / "run",
        {
            "a.png": ([Window(0, 0, 20, 10), Window(20, 0, 20, 10)], wide),
            "b.png": ([Window(0, 0, 10, 5)], [[row | {"embedding": [8] * 4, "centre_y": 10}]]),
        },
    )
    columns = RegionReader(folder).columns(read_table(folder.regions(0), list(REGION_COLUMNS)))
    np.testing.assert_array_equal(columns.segments.place, [[0.25, 0.125], [0.5, 0], [0, 0], [0, 1]])
    np.testing.assert_array_equal(columns.segments.embedding[:, 3], [4, 5, 6, 8])
    assert columns.segments.area.tolist() == [9, 9, 27, 9]
    assert columns.source.tolist() == [0, 0, 0, 1]
    np.testing.assert_allclose(columns.means.embedding[0], (np.array([1, 2, 3, 4]) + 5 + 18) / 5)
    np.testing.assert_allclose(columns.means.embedding[1], 8)
    assert columns.starts.tolist() == [0, 1, 2, 3, 4] and columns.entry.tolist() == [0, 1, 2, 3]
    assert columns.share.tolist() == [1] * 4
    assert columns.area.tolist() == [200, 100, 100, 50]
    some = RegionReader(folder).columns(read_table(folder.regions(0), list(REGION_COLUMNS))[3:])
    assert some.source.tolist() == [0] and some.entry.tolist() == [0]
    assert some.starts.tolist() == [0, 1]
    np.testing.assert_allclose(some.means.embedding, [[8] * 4])


def test_a_region_is_what_windows_saw_there(tmp_path):
    """Two windows see the middle of the source, each its own segment."""
    windows = [Window(0, 0, 20, 4), Window(12, 0, 20, 4)]
    segments = [[{"embedding": [1] * 4}], [{"embedding": [3] * 4}]]
    folder = make_run(tmp_path / "run", windows, segments)
    cut_as(folder, [np.repeat([[0, 1, 2]], 4, 0).repeat([12, 8, 12], axis=1)])
    columns = RegionReader(folder).columns(read_table(folder.regions(0), list(REGION_COLUMNS)))
    vectors = fitted(columns, PLAIN, (0, 2)).transform(columns)
    np.testing.assert_allclose(vectors, [[1] * 4, [2] * 4, [3] * 4], rtol=1e-5)


def test_regions_that_nobody_saw_have_vectors_as_wide_as_others(tmp_path):
    segments = [[{"embedding": [1, 2, 3, 4]}], []]
    folder = make_run(tmp_path / "run", [Window(0, 0, 8, 8), Window(8, 0, 8, 8)], segments)
    cut_as(folder, [np.repeat([[0] * 8 + [1] * 8], 8, 0)])
    table = read_table(folder.regions(0), list(REGION_COLUMNS))
    columns = RegionReader(folder).columns(table)
    model = fitted(columns, PLAIN, (0, 1))
    assert model.transform(columns).tolist() == [[1, 2, 3, 4], [0] * 4]
    unseen = RegionReader(folder).columns(table.slice(1))
    assert model.transform(unseen).tolist() == [[0] * 4]
