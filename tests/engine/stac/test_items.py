"""What an item says: its asset, bands, nodata, place and date; and what of it cannot be."""

import math

import pytest

from alps.engine.base.errors import SourceError
from alps.engine.images.references import Access
from alps.engine.stac.assets import choose_asset
from alps.engine.stac.hrefs import document_at, image_at
from alps.engine.stac.item import item_from
from alps.engine.stac.said import said_by

TIFF = "image/tiff; application=geotiff"
RGB = [{"name": name} for name in ("Red", "Green", "Blue")]


def item(assets, **more):
    values = {"type": "Feature", "id": "a", "stac_version": "1.1.0", "assets": assets}
    return item_from(values | {"properties": {"datetime": "2020-02-03T04:05:06Z"}} | more)


def asset(*roles, **more):
    return {"href": "a.tif", "type": TIFF, "roles": list(roles), **more}


def said(properties=None, own=None):
    found = item({"image": asset("data", **(own or {}))}, properties=properties or {})
    return said_by(found, choose_asset(found, None), "")


@pytest.mark.parametrize(
    ("assets", "key", "rule"),
    [
        ({"image": asset("data"), "thumb": asset("thumbnail")}, "image", "role data"),
        ({"B02": asset("data"), "B03": asset("data"), "visual": asset("visual")}, "visual",
         "role visual"),
        ({"B02": asset("data"), "rgb": asset("data", bands=RGB)}, "rgb",
         "role data, with red, green and blue"),
        ({"x": asset(), "rgb": asset(**{"eo:bands": RGB})}, "rgb", "red, green and blue"),
        ({"x": asset(), "thumb": asset("thumbnail", bands=RGB)}, "x", "the only image"),
        ({"x": {"href": "a/b.JP2?v=1"}, "meta": {"href": "a.xml"}}, "x", "the only image"),
    ],
)  # fmt: skip
def test_the_asset_and_the_rule_that_decided(assets, key, rule):
    chosen = choose_asset(item(assets), None)
    assert (chosen.key, chosen.rule) == (key, rule)


@pytest.mark.parametrize(
    ("assets", "asked", "match"),
    [
        ({"B02": asset("data"), "B03": asset("data")}, None, "2 of its assets.*B02, B03.*--asset"),
        ({"x": {"href": "a.xml", "type": "text/xml"}}, None, "none of its assets is an image: x"),
        ({}, None, "none of its assets is an image: none"),
        ({"x": asset("data")}, "y", "no asset 'y', only x"),
        ({"x": asset("data") | {"roles": [1]}}, None, "roles of an asset cannot be used"),
    ],
)
def test_no_asset(assets, asked, match):
    with pytest.raises(SourceError, match=match):
        choose_asset(item(assets), asked)


def test_an_asset_that_is_asked_for_outranks_its_role():
    found = choose_asset(item({"x": asset("data"), "y": {"href": "b"}}), "y")
    assert (found.key, found.rule) == ("y", "--asset")


def test_place_and_size_in_both_versions_of_the_extension():
    shape = {"proj:shape": [20, 10], "proj:transform": [2, 0, 100, 0, -2, 300]}
    old, new = said(shape | {"proj:epsg": 32633}), said(shape | {"proj:code": "EPSG:32633"})
    assert old == new
    assert (old.crs, old.width, old.height) == ("EPSG:32633", 10, 20)
    assert old.transform == (2, 0, 100, 0, -2, 300)
    box = said({"proj:shape": [20, 10], "proj:bbox": [100, 260, 120, 300], "proj:code": "EPSG:1"})
    assert box.transform == old.transform
    own = said({"proj:shape": [1, 1]}, {"proj:shape": [7, 8]})
    assert (own.width, own.height) == (8, 7)


def test_bands_and_nodata_in_the_words_of_both_versions():
    old = said(own={"eo:bands": [{"name": "1", "common_name": "red"}, {"common_name": "nir"}],
                    "raster:bands": [{"nodata": -1}, {"nodata": "nan"}]})  # fmt: skip
    new = said(own={"bands": [{"eo:common_name": "red", "nodata": -1}, {"eo:common_name": "nir"}]})
    assert old.band_names == new.band_names == ("red", "nir")
    for one in (old, new):
        assert one.nodata[0] == -1 and math.isnan(one.nodata[1])
        assert (one.nodata_of(1, 2), one.nodata_of(2, 2), one.nodata_of(1, 3)) == (-1, None, None)
    assert said(own={"nodata": 0}).nodata_of(3, 4) == 0
    assert said(own={"raster:bands": [{"nodata": 0}] * 4}).nodata_of(2, 3) == 0


@pytest.mark.parametrize(
    ("properties", "date"),
    [
        ({"datetime": "2020-02-03T23:30:00-03:00"}, 20200204),
        ({"datetime": "2020-02-03"}, 20200203),
        ({"datetime": None, "start_datetime": "2020-02-01T00:00:00Z",
          "end_datetime": "2020-02-29T00:00:00Z"}, 20200200),
        ({"datetime": None, "start_datetime": "2020-01-01T00:00:00Z",
          "end_datetime": "2020-12-31T00:00:00Z"}, 20200000),
        ({"datetime": None, "start_datetime": "2019-01-01T00:00:00Z",
          "end_datetime": "2020-12-31T00:00:00Z"}, 0),
        ({}, 0),
    ],
)  # fmt: skip
def test_the_date(properties, date):
    assert said(properties).date == date


@pytest.mark.parametrize(
    ("properties", "own", "match"),
    [
        ({"proj:shape": [0, 10]}, {}, "proj:shape"),
        ({"proj:shape": [10**30, 10]}, {}, "proj:shape"),
        ({"proj:code": "http://127.0.0.1/crs"}, {}, "no AUTHORITY:CODE"),
        ({"proj:code": "/etc/passwd"}, {}, "no AUTHORITY:CODE"),
        ({"proj:wkt2": "/etc/passwd"}, {}, "no WKT"),
        ({"proj:transform": [1, 2, 3]}, {}, "3 numbers, not 6 or 9"),
        ({"proj:transform": [0, 0, 0, 0, 0, 0]}, {}, "leads to no place"),
        ({"proj:transform": [1e300, 0, 0, 0, 1e300, 0]}, {}, "leads to no place"),
        ({"proj:transform": ["a"] * 6}, {}, "proj:transform cannot be used"),
        ({"datetime": "yesterday"}, {}, "no date and time"),
        ({"datetime": 5}, {}, "datetime cannot be used"),
        ({}, {"bands": [1]}, "bands cannot be used"),
        ({}, {"bands": [{}] * 5000}, "5000 bands"),
        ({}, {"bands": [{"nodata": "none"}]}, "nodata cannot be used"),
    ],
)
def test_what_an_item_says_and_cannot_be(properties, own, match):
    with pytest.raises(SourceError, match=match):
        said(properties, own)


@pytest.mark.parametrize(
    "geometry",
    [
        {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 1]]]},  # not closed
        {"type": "Polygon", "coordinates": []},
        {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, "x"], [0, 0]]]},
        {"type": "Polygon", "coordinates": [[[0, 0], [1e40, 0], [1, 1], [0, 0]]]},
        {"type": "Point", "coordinates": [500000, 5000000]},
        {"type": "Circle", "coordinates": [0, 0]},
        {"type": "GeometryCollection", "geometries": [{"type": "Point"}]},
        {},
    ],
)
def test_a_geometry_that_is_none(geometry):
    with pytest.raises(SourceError, match="its geometry"):
        item({}, geometry=geometry)


def test_geometries_that_are_some():
    ring = [[0, 0], [1, 0], [1, 1], [0, 0]]
    for geometry in (None, {"type": "Point", "coordinates": [180, -90]},
                     {"type": "Polygon", "coordinates": [ring]},
                     {"type": "MultiPolygon", "coordinates": [[ring], [ring]]}):  # fmt: skip
        assert item({}, geometry=geometry).geometry == geometry


@pytest.mark.parametrize(
    ("href", "match"),
    [
        ("../../etc/passwd", "outside the archive: --allow-vrt-outside"),
        ("/etc/passwd", "outside the archive"),
        ("file:///etc/passwd", "outside the archive"),
        ("%2e%2e/%2e%2e/etc/passwd", "outside the archive"),
        ("/vsizip/a.zip/a.tif", "only plain files are opened"),
        ("/vsicurl/http://127.0.0.1/a.tif", "--allow-remote"),
        ("https://127.0.0.1/a.tif", "--allow-remote"),
        ("s3://bucket/a.tif", "--allow-remote"),
        ("s3://bucket/../other/a.tif", "href cannot be used: .* without . or .."),
        ("ftp://127.0.0.1/a.tif", "href cannot be used: .* no address that is known"),
        ("https://me:secret@h/a.tif", "with a password"),
        ("a.tif\0.png", "empty, too long, or no name"),
        ("", "empty, too long, or no name"),
        ("x" * 5000, "empty, too long, or no name"),
        ("\ud800.tif", "halves of characters"),
    ],
)
def test_hrefs_that_lead_away(tmp_path, href, match):
    document = str(tmp_path / "items.json")
    with pytest.raises(SourceError, match=match):
        image_at(document, href, Access(str(tmp_path)))


def test_hrefs_that_are_allowed(tmp_path):
    (tmp_path / "a%20b.tif").touch()
    document, access = str(tmp_path / "items.json"), Access(str(tmp_path), remote=True)
    assert image_at(document, "./c/d.tif", access) == tmp_path / "c" / "d.tif"
    assert image_at(document, "c%20d.tif", access) == tmp_path / "c d.tif"
    assert image_at(document, "a%20b.tif", access) == tmp_path / "a%20b.tif"
    assert image_at(document, (tmp_path / "é.tif").as_uri(), access) == tmp_path / "é.tif"
    assert image_at(document, "s3://b/c.tif", access) == "/vsis3/b/c.tif"
    assert image_at(document, "https://h/c.tif?x=1", access) == "/vsicurl/https://h/c.tif?x=1"
    assert image_at(document, "/x/y.tif", Access(outside=True)).as_posix() == "/x/y.tif"


def test_documents_are_read_in_the_folder_of_the_catalogue_alone(tmp_path):
    document = str(tmp_path / "sub" / "catalog.json")
    assert document_at(document, "../a.json", str(tmp_path)) == str(tmp_path / "a.json")
    for href, match in (
        ("../../a.json", "outside the folder"),
        ("https://h/a.json", "not fetched"),
    ):
        with pytest.raises(SourceError, match=match):
            document_at(document, href, str(tmp_path))
