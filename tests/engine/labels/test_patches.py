"""The minimum mapping unit: no patch of a label map is smaller."""

from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rasterio import CRS, Affine
from scipy import ndimage

from alps.engine.base.errors import SettingsError
from alps.engine.images.georeference import Georeference
from alps.engine.labels.patches import join_small_patches, parse_unit, pixels_of
from alps.engine.run_folder.region_schemas import BORDER_SCHEMA
from alps.kernels.regions import borders, pieces


def tables_of(regions, lab, parts=2):
    """The borders of regions as tables."""
    found = borders(regions, lab)
    length = np.maximum(found.length, 1)
    columns = {
        "source_index": np.zeros(len(length), np.int32),
        "region": found.pairs[:, 0].astype(np.int32),
        "other": found.pairs[:, 1].astype(np.int32),
        "length": found.length.astype(np.int32),
        "contrast": (found.contrast / length / 16).astype(np.float16),
    }
    table = pa.table(columns, schema=BORDER_SCHEMA)
    step = max(-(-len(length) // parts), 1)
    return [table.slice(start, step) for start in range(0, len(length), step)]


def patches_on(painted):
    """Area of each patch of a label map, by what surrounds nothing: (class, pixels, touches)."""
    found = []
    for value in np.unique(painted[painted >= 0]):
        labels, number = ndimage.label(painted == value)
        for n in range(1, number + 1):
            own = labels == n
            around = ndimage.binary_dilation(own) & ~own
            found.append((value, int(own.sum()), bool((painted[around] >= 0).any())))
    return found


@given(st.integers(0, 2**32), st.integers(1, 40), st.sampled_from([0, 0.1, 0.4]))
def test_no_patch_stays_below(seed, least, missing):
    rng = np.random.default_rng(seed)
    size = rng.integers(1, 25, 2)
    values = rng.integers(0, 5, size)
    values[rng.random(size) < missing] = -1
    regions, first = pieces(values)
    area = np.bincount(regions[regions >= 0], minlength=len(first))
    classes = rng.integers(-1, 4, len(first)).astype(np.int32)
    lab = rng.integers(0, 3000, (*size, 3)).astype(np.int16)
    tables = tables_of(regions, lab)
    joined = join_small_patches(classes.copy(), area, lambda: iter(tables), least)
    assert joined.dtype == np.int32
    painted = np.append(joined, -1)[regions]
    assert all(pixels >= least for _, pixels, _ in patches_on(painted))
    assert (joined[classes < 0] == -1).all()
    before = np.append(classes, -1)[regions]
    if all(pixels >= least for _, pixels, _ in patches_on(before)):
        assert (joined == classes).all()
    # Only an island in what has no class loses its own.
    lost = (before >= 0) & (painted < 0)
    labelled, number = ndimage.label(before >= 0)
    for n in range(1, number + 1):
        assert not lost[labelled == n].any() or (labelled == n).sum() < least
    with mock.patch("alps.engine.labels.patches.AT_ONCE", 3):
        again = join_small_patches(classes, area, lambda: tables_of(regions, lab, 9), least)
    assert again is classes and (again == joined).all()


def test_a_patch_joins_the_neighbour_most_like_it():
    values = np.repeat([[0] * 5 + [1] + [2] * 5], 3, 0)
    regions, _ = pieces(values)
    lab = np.zeros((3, 11, 3), np.int16)
    lab[:, :5, 0], lab[:, 5, 0], lab[:, 6:, 0] = 1000, 2000, 2500
    classes, area = np.array([7, 8, 9]), np.array([15, 3, 15])
    tables = tables_of(regions, lab)
    assert join_small_patches(classes, area, lambda: tables, 4).tolist() == [7, 9, 9]
    assert join_small_patches(classes, area, lambda: tables, 3).tolist() == [7, 8, 9]
    same = tables_of(regions, np.zeros_like(lab))
    assert join_small_patches(classes, area, lambda: same, 4).tolist() == [7, 7, 9]


def test_a_patch_joins_the_neighbour_along_most_of_its_border():
    values = np.repeat([[0] * 5 + [1] + [2] * 5], 3, 0)
    values[[0, 2], 4] = 3  # in no class
    regions, first = pieces(values)
    classes = np.array([7, 8, 9, -1])[values.ravel()[first]]
    area = np.bincount(regions.ravel())
    tables = tables_of(regions, np.zeros((3, 11, 3), np.int16))
    joined = join_small_patches(classes, area, lambda: tables, 4)
    assert joined[regions[1]].tolist() == [7] * 5 + [9] * 6


def test_a_long_chain_of_small_patches_ends_in_its_largest():
    """Each patch is smaller than the unit and than the next, up to the last, which is not."""
    count = 120
    regions = np.repeat(np.arange(count), np.arange(1, count + 1))[None].astype(np.int32)
    tables, asked = tables_of(regions, np.zeros((*regions.shape, 3), np.int16)), []
    joined = join_small_patches(
        np.arange(count), np.arange(1, count + 1), lambda: asked.append(1) or tables, count
    )
    assert (joined == count - 1).all()
    assert len(asked) < 150  # twice a round


@given(st.integers(0, 2**32))
def test_chains_that_are_followed_to_their_end_leave_no_small_patch(seed):
    rng = np.random.default_rng(seed)
    area = rng.integers(1, 9, 40)
    regions = np.repeat(np.arange(40), area)[None].astype(np.int32)
    tables = tables_of(regions, rng.integers(0, 3000, (*regions.shape, 3)).astype(np.int16))
    with mock.patch("alps.engine.labels.patches.SINGLE_STEPS", 0):
        joined = join_small_patches(np.arange(40), area, lambda: tables, 9)
    assert all(pixels >= 9 for _, pixels, _ in patches_on(joined[regions]))
    assert (joined >= 0).all()


def test_never_across_pixels_without_data():
    regions = np.array([[0, -1, 1, 1, 1]], np.int32)
    tables = tables_of(regions, np.zeros((1, 5, 3), np.int16))
    joined = join_small_patches(np.array([4, 5]), np.array([1, 3]), lambda: tables, 3)
    assert joined.tolist() == [-1, 5]


UTM, FEET, DEGREES = (CRS.from_epsg(code) for code in (32631, 2263, 4326))


@pytest.mark.parametrize(
    ("text", "crs", "step", "pixels"),
    [
        ("64", None, 1, 64),
        (" 12.2 px ", None, 1, 13),
        ("0", UTM, 0.5, 0),
        ("25m2", UTM, 0.5, 100),
        ("25 m²", UTM, 2, 7),
        ("0.1m2", UTM, 10, 1),
        ("9.2903m2", FEET, 1, 100),
        ("10000m2", DEGREES, 1e-4, 162),
    ],
)
def test_a_minimum_mapping_unit_in_pixels(text, crs, step, pixels):
    y = 60 if crs == DEGREES else 4_000_000
    place = Georeference(crs, Affine(step, 0, 5, 0, -step, y) if crs else None)
    assert pixels_of(text, place) == pixels


@pytest.mark.parametrize("crs", [None, UTM])
def test_an_area_needs_a_scale(crs):
    with pytest.raises(SettingsError, match=r"--min-patch 25m2: the image has no scale"):
        pixels_of("25m2", Georeference(crs, None))


@pytest.mark.parametrize("text", ["", "m2", "-3", "5 km2", "1e3", "5m", "5m2 or so", "nan"])
def test_what_is_no_unit_is_refused(text):
    with pytest.raises(SettingsError, match=r"--min-patch .*64 say, or an area, 25m2 say"):
        parse_unit(text)


def test_units():
    assert parse_unit("25m2") == parse_unit("25 m²") == (25.0, "m2")
    assert parse_unit("64") == parse_unit("64px") == (64.0, "")
