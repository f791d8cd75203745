"""Outlines on the globe: in their place, valid, and cut where GeoJSON wants it."""

import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.transform import Affine
from rasterio.warp import transform_bounds

from alps.engine.images.georeference import Georeference
from alps.engine.stac.footprint import footprint_of
from alps.engine.stac.label_item import bounds_joined, id_of, label_values, times_of

shapely = pytest.importorskip("shapely", reason="needs shapely, of the extra `vectors`")
SIZE = (1000, 800)


def outline(code, transform, size=SIZE):
    return footprint_of(Georeference(rasterio.CRS.from_epsg(code), transform), size)


@pytest.mark.parametrize(
    ("code", "transform", "kind"),
    [
        (32614, Affine(1, 0, 486_000, 0, -1, 5_209_000), "Polygon"),
        (32614, Affine(0, 1, 486_000, 1, 0, 5_209_000), "Polygon"),  # turned
        (32614, Affine(1, 0, 486_000, 0, 1, 5_209_000), "Polygon"),  # south is up
        (4326, Affine(0.01, 0, 170, 0, -0.01, 10), "Polygon"),
        (3035, Affine(1000, 0, 4_000_000, 0, -1000, 3_000_000), "Polygon"),  # edges are bent
    ],
)
def test_an_outline_is_where_the_image_is(code, transform, kind):
    found = outline(code, transform)
    corners = [transform * (x, y) for x in (0, SIZE[0]) for y in (0, SIZE[1])]
    box = (*np.min(corners, axis=0), *np.max(corners, axis=0))
    expected = transform_bounds(rasterio.CRS.from_epsg(code), "EPSG:4326", *box, densify_pts=21)
    assert np.allclose(found.bbox, expected, atol=2e-3 * max(np.ptp(expected), 1e-3))
    shape = shapely.geometry.shape(found.geometry)
    assert found.geometry["type"] == kind and shape.is_valid
    assert np.allclose(shape.bounds, found.bbox)
    (ring,) = found.geometry["coordinates"]
    assert ring[0] == ring[-1] and shapely.geometry.polygon.LinearRing(ring).is_ccw
    if code == 32614:
        assert len(ring) == 5


@pytest.mark.parametrize(
    ("code", "transform", "west", "east"),
    [
        (4326, Affine(0.01, 0, 175, 0, -0.01, 10), 175.0, -175.0),
        (4326, Affine(0.01, 0, -185, 0, -0.01, 10), 175.0, -175.0),
        (32601, Affine(100, 0, 250_000, 0, -100, 7_000_000), None, None),
        (3832, Affine(1000, 0, 3_000_000, 0, -1000, 0), None, None),  # around 150 degrees
    ],
)
def test_what_goes_past_180_degrees_is_cut_there(code, transform, west, east):
    found = outline(code, transform)
    shape = shapely.geometry.shape(found.geometry)
    assert found.geometry["type"] == "MultiPolygon" and shape.is_valid
    assert found.bbox[0] > 0 > found.bbox[2]
    first, second = (part.bounds for part in shape.geoms)
    assert first[2] == 180 and second[0] == -180
    assert (found.bbox[0], found.bbox[2]) == (first[0], second[2])
    if west is not None:
        assert (found.bbox[0], found.bbox[2]) == (west, east)
        assert np.isclose(shape.area, 10 * 8)


@pytest.mark.parametrize(("code", "pole"), [(3413, 90), (3031, -90)])
def test_a_pole_inside(code, pole):
    found = outline(code, Affine(1000, 0, -500_000, 0, -1000, 400_000))
    shape = shapely.geometry.shape(found.geometry)
    assert shape.is_valid and found.bbox[0] == -180 and found.bbox[2] == 180
    assert pole in found.bbox and shape.area > 300 * 3


def test_the_whole_earth():
    found = outline(4326, Affine(0.36, 0, -180, 0, -0.225, 90))
    assert found.bbox == (-180, -90, 180, 90)
    assert shapely.geometry.shape(found.geometry).area == 360 * 180


def test_what_has_no_place():
    crs = rasterio.CRS.from_epsg(32614)
    assert footprint_of(Georeference(), SIZE) is None
    assert footprint_of(Georeference(None, Affine(1, 0, 5, 0, -1, 5)), SIZE) is None
    assert footprint_of(Georeference(crs, Affine(1e12, 0, 0, 0, -1, 0)), SIZE) is None
    assert footprint_of(Georeference(crs, Affine(np.nan, 0, 0, 0, -1, 0)), SIZE) is None


def test_ground_control_points():
    crs = rasterio.CRS.from_epsg(32614)
    transform = Affine(1, 0, 486_000, 0, -1, 5_209_000)
    points = [
        GroundControlPoint(row, column, *(transform * (column, row)))
        for row in (0, 800) for column in (0, 1000)
    ]  # fmt: skip
    found = footprint_of(Georeference(crs, None, tuple(points)), SIZE)
    assert np.allclose(found.bbox, outline(32614, transform).bbox, atol=1e-6)


def test_bounds_of_several():
    assert bounds_joined(None, None) is None
    assert bounds_joined(None, [1, 2, 3, 4]) == (1, 2, 3, 4)
    assert bounds_joined((0, 0, 1, 1), [1, -1, 3, 0.5]) == (0, -1, 3, 1)
    assert bounds_joined((175, 0, -175, 1), [1, 2, 3, 4]) == (-180, 0, 180, 4)


def test_ids_are_plain_and_no_two_are_alike():
    names = ["a.tif", "a.png", "a.png.tif", "a.tif.tif", "x/a.tif", "x--a.tif", "x -a.tif", "é.tif",
             "e.tif", "é/雪.png", "x_-a.tif"]  # fmt: skip
    ids = [id_of(name) for name in names]
    assert ids[:2] == ["a", "a.png"] and ids[4] == "x--a"
    assert len(set(ids)) == len(names)
    assert all(one.isascii() and not set(one) & set("/ #?%") for one in ids)


def test_words_for_machines():
    found = label_values([(0, "a b", "0"), (1, "a-b", "0"), (2, "雪", "0"), (3, "class-2", "0")])
    assert [one.word for one in found] == ["a-b", "a-b-1", "class-2", "class-2-3"]


@pytest.mark.parametrize(
    ("date", "begin", "end"),
    [
        (20200229, "2020-02-29T00:00:00Z", "2020-02-29T23:59:59Z"),
        (20200200, "2020-02-01T00:00:00Z", "2020-02-29T23:59:59Z"),
        (20210000, "2021-01-01T00:00:00Z", "2021-12-31T23:59:59Z"),
        (0, "1900-01-01T00:00:00Z", "2099-12-31T23:59:59Z"),
    ],
)
def test_a_date_is_what_lies_within_it(date, begin, end):
    from alps.engine.images.facts.said import Said

    expected = {"datetime": None, "start_datetime": begin, "end_datetime": end}
    assert times_of(Said(), date) == expected
    known = Said(datetime="2019-05-06T07:08:09Z", start_datetime="x")
    assert times_of(known, date) == {"datetime": "2019-05-06T07:08:09Z"}
