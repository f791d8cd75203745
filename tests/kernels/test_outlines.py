"""Outlines of patches: compiled against plain ones, GDAL's polygons, and the pixels themselves."""

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from rasterio.features import rasterize, shapes
from scipy import ndimage

from alps.kernels.outlines import OutlineTracer, outlines, reference_outlines


@st.composite
def images(draw, most=8):
    size = draw(st.tuples(st.integers(1, most), st.integers(1, most)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    # Few values make patches that touch themselves at corners, and holes in holes.
    return rng.integers(-1, draw(st.sampled_from([1, 2, 3, 40])), size)


def rings_of(found):
    """Rings of each patch as lists of (x, y)."""
    points = [(int(found.x[corner]), int(found.y[corner])) for corner in found.corners]
    rings = [points[a:b] for a, b in zip(found.ring_starts, found.ring_starts[1:], strict=False)]
    return [rings[a:b] for a, b in zip(found.patch_starts, found.patch_starts[1:], strict=False)]


def polygons(found):
    return np.array(
        [shapely.Polygon(outer, holes) for outer, *holes in rings_of(found)], dtype=object
    )


@given(images())
def test_rings_are_those_of_the_plain_version(values):
    assert rings_of(outlines(values)) == reference_outlines(values)


@given(images(30))
def test_polygons_are_valid_and_give_back_every_pixel(values):
    found = outlines(values)
    drawn = polygons(found)
    assert shapely.is_valid(drawn).all() and shapely.coverage_is_valid(drawn)
    np.testing.assert_array_equal(shapely.area(drawn), found.pixels)
    assert found.pixels.sum() == (values >= 0).sum()
    back = np.full(values.shape, -1)
    if len(drawn):
        pairs = zip(drawn, found.values.tolist(), strict=True)
        back = rasterize(pairs, values.shape, fill=-1, dtype="int32")
    np.testing.assert_array_equal(back, np.maximum(values, -1))


@given(images(20))
def test_polygons_are_those_of_gdal(values):
    pixels = values.astype(np.int32)
    theirs = {
        (shapely.geometry.shape(one).normalize().simplify(0).wkt, int(value))
        for one, value in shapes(pixels, mask=pixels >= 0, connectivity=4)
    }
    found = outlines(values)
    # What neighbours alone turn at is a corner here, and is none there.
    ours = {
        (one.normalize().simplify(0).wkt, int(value))
        for one, value in zip(polygons(found), found.values, strict=True)
    }
    assert len(ours) == len(found)
    assert ours == theirs


@given(images(), st.integers(1, 5), st.integers(0, 2**32))
def test_however_it_is_cut_into_strips(values, rows, seed):
    weights = np.random.default_rng(seed).random(values.shape).astype(np.float32)
    weights[weights < 0.2] = np.nan
    tracer = OutlineTracer(values.shape[1])
    for y in range(0, len(values), rows):
        tracer.add(values[y : y + rows], weights[y : y + rows])
    found, whole = tracer.finish(), outlines(np.asfortranarray(values), weights)
    for name, expected in vars(whole).items():
        given_ = getattr(found, name)
        if name == "sums":  # added up in another order
            np.testing.assert_allclose(given_, expected, rtol=1e-12)
        else:
            np.testing.assert_array_equal(given_, expected)


def test_weights_are_summed_where_pixels_have_one():
    rng = np.random.default_rng(0)
    values = rng.integers(-1, 3, (40, 50))
    weights = rng.random(values.shape).astype(np.float32)
    weights[rng.random(values.shape) < 0.3] = np.nan
    found = outlines(values, weights)
    labels, count = np.zeros(values.shape, int), 0
    for value in range(3):
        own, number = ndimage.label(values == value)
        labels[own > 0] = own[own > 0] + count
        count += number
    known = ~np.isnan(weights)
    index = np.arange(1, count + 1)
    sums = ndimage.sum_labels(np.where(known, weights, 0).astype(float), labels, index)
    order = np.argsort(ndimage.minimum(np.arange(values.size).reshape(values.shape), labels, index))
    np.testing.assert_allclose(found.sums, sums[order])
    np.testing.assert_array_equal(found.weighed, ndimage.sum_labels(known, labels, index)[order])


def test_a_patch_that_touches_itself_at_a_corner_has_a_hole_there():
    values = np.array([[0, 0, 0], [0, 1, 0], [0, 0, 1]])
    found = outlines(np.where(values == 0, 0, -1))
    (outer, hole), *others = rings_of(found)
    assert not others and sorted(hole) == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert (2, 2) in outer
    assert shapely.Polygon(outer, [hole]).is_valid


@pytest.mark.parametrize("size", [(1, 1), (0, 3), (1, 9), (9, 1)])
@pytest.mark.parametrize("value", [-1, 7])
def test_of_one_value(size, value):
    found = outlines(np.full(size, value))
    if value < 0 or 0 in size:
        assert len(found) == len(found.x) == len(found.corners) == 0
        return
    height, width = size
    assert rings_of(found) == [[[(0, 0), (width, 0), (width, height), (0, height)]]]
    assert found.values.tolist() == [7] and found.pixels.tolist() == [height * width]


def test_rows_that_do_not_fit_are_refused():
    tracer = OutlineTracer(3)
    with pytest.raises(ValueError, match="3 pixels wide"):
        tracer.add(np.zeros((2, 4), int))
    with pytest.raises(ValueError, match="weights"):
        tracer.add(np.zeros((2, 3), int), np.zeros((1, 3), np.float32))
