"""Vectors of regions: what a region takes up from those around it."""

from unittest import mock

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_run import cut_as, make_archive
from PIL import Image

from alps.engine.base.errors import RunFolderError
from alps.engine.clusters.features import FeatureModel
from alps.engine.clusters.region_reader import REGION_COLUMNS, RegionReader
from alps.engine.clusters.vectors import FADES, HALF, Touching, VectorFile, mixed, write_vectors
from alps.engine.images.windows import Window
from alps.engine.run_folder.region_schemas import BORDER_SCHEMA
from alps.engine.run_folder.sums import record
from alps.engine.run_folder.tables import note_table, read_table, write_table

MOST = 0.7


def neighbours_mixed(vectors, pairs, lengths, weights):
    """As ``mixed``, of all regions at once, by a matrix of weights."""
    matrix, along = np.zeros((2, len(vectors), len(vectors)))
    for (a, b), length, weight in zip(pairs, lengths, weights, strict=True):
        matrix[a, b] = matrix[b, a] = weight
        along[a, b] = along[b, a] = length
    total = matrix.sum(1, keepdims=True)
    seen_through = total / np.maximum(along.sum(1, keepdims=True), 1)
    share = MOST * seen_through / (seen_through + HALF)
    mean = np.divide(matrix @ vectors, total, where=total > 0, out=np.zeros(vectors.shape))
    return np.where(total > 0, (1 - share) * vectors + share * mean, vectors)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=5), st.data())
def test_pieces_give_what_the_whole_gives(sizes, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    ends = np.cumsum(sizes)
    part_of = np.repeat(np.arange(len(sizes)), sizes)
    vectors = rng.normal(size=(ends[-1], 3)).astype(np.float32)
    every = [(a, b) for a in range(ends[-1]) for b in range(a + 1, ends[-1])]
    near = [(a, b) for a, b in every if part_of[b] - part_of[a] <= 1 and rng.random() < 0.5]
    lengths = rng.integers(1, 30, len(near)).astype(np.float32)
    weights = (lengths * rng.uniform(0, 1, len(near))).astype(np.float32)
    borders = []
    for part in range(len(sizes)):
        own = [n for n, (_, b) in enumerate(near) if part_of[b] == part]
        pairs = np.array([near[n] for n in own], np.int64).reshape(-1, 2)
        borders.append(Touching(*pairs.T, lengths[own], weights[own], int(ends[part])))
    parts = np.split(vectors, ends[:-1])
    found = np.concatenate(list(mixed(iter(parts), iter(borders), MOST)))
    expected = neighbours_mixed(vectors, near, lengths, weights)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    with mock.patch("alps.engine.clusters.vectors.AT_ONCE", 2):
        others = np.array_split(vectors, data.draw(st.integers(1, 4)))
        again = np.concatenate(list(mixed(iter(others), iter(borders), MOST)))
    assert again.tobytes() == found.tobytes()


def test_of_a_wide_scene_a_stretch_of_regions_is_held():
    """Not the row group: its borders come in order, and reach over a row of regions."""
    wide, rows = 40, 60
    vectors = np.random.default_rng(0).normal(size=(wide * rows, 2)).astype(np.float32)
    below = np.arange(wide * (rows - 1))
    ones = np.ones(len(below), np.float32)
    borders = Touching(below, below + wide, ones, ones, len(vectors))
    taken = 0

    def parts():
        nonlocal taken
        for part in np.split(vectors, rows):
            taken += len(part)
            yield part

    given, most = 0, 0
    with mock.patch("alps.engine.clusters.vectors.AT_ONCE", wide):
        for found in mixed(parts(), iter([borders]), MOST):
            most = max(most, taken - given)
            given += len(found)
    assert given == len(vectors) and most <= 4 * wide


# --- of a run folder: three windows' sources, cut into columns of pixels

# Regions of three sources: four in a row, one alone, three of which one touches nobody.
NUMBERS = [
    np.array([[0, 1, 2, 3], [-1, 1, 2, 3]]).repeat(2, axis=0).repeat(2, axis=1),
    np.zeros((4, 8), int),
    np.repeat([[0, 1, -1, 2]], 4, 0).repeat(2, axis=1),
]
PAIRS = [(0, 1), (1, 2), (2, 3), (5, 6)]  # by rows of the table
FEATURES = FeatureModel(
    normalise=True,
    centred=False,
    position=None,
    axes=None,
    colour_offset=np.full(6, 50, np.float32),
    colour_scale=np.full(6, 0.1, np.float32),
    neighbours=MOST,
)


@pytest.fixture(params=[1, 1 << 16], ids=["a row group a source", "one row group"])
def folder(request, tmp_path, monkeypatch):
    monkeypatch.setattr("alps.engine.stages.regions.ROW_GROUP", request.param)
    rng = np.random.default_rng(0)
    window = [Window(0, 0, 8, 4)]
    (tmp_path / "run").mkdir()
    for name in "abc":  # in light that differs from column to column: so do borders
        light = np.array([100, 104, 102, 140], np.uint8).repeat(2)
        pixels = np.broadcast_to(light[None, :, None], (4, 8, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "run" / f"{name}.png")

    def segments():
        left = np.zeros((4, 8), bool)
        left[:, :4] = True
        return [[{"mask": m, "embedding": rng.normal(size=4).tolist()} for m in (left, ~left)]]

    folder = make_archive(tmp_path / "run", {f"{n}.png": (window, segments()) for n in "abc"})
    cut_as(folder, NUMBERS)
    return folder


def vectors_of(folder):
    return np.load(folder.region_vectors(0))["vector"]


def test_vectors_take_up_what_lies_around(folder):
    reader = RegionReader(folder)
    write_vectors(folder, 0, FEATURES, reader)
    expected = FEATURES.transform(
        reader.columns(read_table(folder.regions(0), list(REGION_COLUMNS)))
    )
    assert len(expected) == 8
    table = read_table(folder.borders(0))
    assert table.num_rows == len(PAIRS)
    contrast = table["contrast"].to_numpy().astype(float)
    length = table["length"].to_numpy()
    assert len(set(length)) > 1 and len(set(contrast)) > 1  # or neither would show
    weights = length * np.exp(-contrast / FADES)
    expected = neighbours_mixed(expected, PAIRS, length, weights)
    lengths = np.linalg.norm(expected[:, :4], axis=1, keepdims=True)
    expected[:, :4] /= lengths
    assert (lengths < 0.99).any()  # or scaling would not show
    np.testing.assert_allclose(vectors_of(folder), expected, atol=2e-3)  # float16


def test_none_are_their_own(folder):
    alone = FeatureModel.from_arrays(FEATURES.arrays() | {"most_of_neighbours": np.float64(0)})
    reader = RegionReader(folder)
    write_vectors(folder, 0, alone, reader)
    columns = reader.columns(read_table(folder.regions(0), list(REGION_COLUMNS)))
    assert (vectors_of(folder) == alone.transform(columns).astype(np.float16)).all()


def test_a_region_that_is_clear_on_all_sides_keeps_to_itself():
    """Two pairs of regions: a border that cannot be seen, and one that can."""
    vectors = np.array([[0.0], [1], [0], [1]], np.float32)
    pairs = np.array([[0, 2], [1, 3]])
    weights = np.array([10, 0.1], np.float32)
    borders = Touching(*pairs, np.full(2, 10, np.float32), weights, len(vectors))
    found = np.concatenate(list(mixed(iter([vectors]), iter([borders]), MOST)))
    hidden, clear = MOST / 1.1, MOST / 11
    expected = [hidden, 1 - hidden, clear, 1 - clear]
    np.testing.assert_allclose(found.ravel(), expected, rtol=1e-5)


def test_a_group_without_regions_needs_no_segments_of_others(tmp_path, monkeypatch):
    """In one pass those are dropped by then."""
    monkeypatch.setattr("alps.engine.run_folder.plan.SHARD_TILES", 1)
    segment = {"mask": np.ones((4, 8), bool), "embedding": [1.0] * 4}
    source = ([Window(0, 0, 8, 4)], [[segment]])
    folder = make_archive(tmp_path / "run", {"a.png": source, "b.png": source})
    cut_as(folder, [np.zeros((4, 8), int), np.full((4, 8), -1)])
    folder.segments(0).unlink()
    write_vectors(folder, 1, FEATURES, RegionReader(folder))
    assert np.load(folder.region_vectors(1))["vector"].shape == (0, 10)


def test_borders_of_other_regions_are_refused(folder):
    table = read_table(folder.borders(0))
    others = table.set_column(2, table.schema.field(2), [np.full(len(table), 99, np.int32)])
    write_table(others, folder.borders(0))
    with pytest.raises(RunFolderError, match=r"-00000\.parquet is damaged: its?.*remove it"):
        write_vectors(folder, 0, FEATURES, RegionReader(folder))
    assert not folder.region_vectors(0).exists()


def test_borders_of_a_source_without_regions_are_refused(folder):
    with pq.ParquetFile(folder.borders(0)) as file:
        groups = [file.read_row_group(number) for number in range(file.num_row_groups)]
    with pq.ParquetWriter(folder.borders(0), BORDER_SCHEMA) as writer:
        for group in groups:
            others = np.full(len(group), 7, np.int32)
            writer.write_table(group.set_column(0, BORDER_SCHEMA.field(0), [others]))
    record(folder, folder.borders(0))
    with pytest.raises(RunFolderError, match=r"borders-00000.*of other sources; remove it"):
        write_vectors(folder, 0, FEATURES, RegionReader(folder))


def test_borders_in_other_row_groups_are_refused(folder):
    with pq.ParquetWriter(folder.borders(0), BORDER_SCHEMA) as writer:
        for _ in range(7):
            writer.write_table(BORDER_SCHEMA.empty_table())
    note_table(folder.borders(0))
    with pytest.raises(RunFolderError, match=r"damaged: its borders were written otherwise"):
        write_vectors(folder, 0, FEATURES, RegionReader(folder))


@pytest.mark.parametrize("damage", ["missing", "empty", "text", "cut", "long", "flat", "objects"])
def test_vectors_that_cannot_be_read_are_named(folder, damage):
    write_vectors(folder, 0, FEATURES, RegionReader(folder))
    path = folder.region_vectors(0)
    good = path.read_bytes()
    assert VectorFile(path).count == 8
    if damage in ("flat", "objects"):
        np.save(path, np.zeros(8, [("vector", "f2" if damage == "flat" else "O"), ("area", "i4")]))
    else:
        bad = {"empty": b"", "text": b"vectors", "cut": good[:-1], "long": good + b"0"}
        path.unlink() if damage == "missing" else path.write_bytes(bad[damage])
    with pytest.raises(RunFolderError, match=r"cannot read .*part-00000\.npy.*alps cluster OUT"):
        VectorFile(path)
