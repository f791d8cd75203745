"""`alps vectors`: polygons of label maps and objects, opened by others and laid back on pixels."""

import contextlib
import io
import json
import os
import resource
import sqlite3
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import geopandas
import numpy as np
import pyarrow.parquet as pq
import pyogrio
import pyproj
import pytest
import rasterio
import shapely
from click.testing import CliRunner
from filelock import FileLock
from made_run import cut_as, make_archive, paint_run
from rasterio.control import GroundControlPoint
from rasterio.features import rasterize
from rasterio.transform import Affine, from_gcps, from_origin

from alps.engine.base.errors import AlpsError, RunFolderError, SettingsError, SourceError
from alps.engine.cli.vectors import vectors
from alps.engine.images.windows import Window
from alps.engine.polygons import export, formats
from alps.engine.polygons.export import write_polygons
from alps.engine.polygons.settings import PolygonSettings
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.sums import record

UTM = "EPSG:32633"
PLACE = from_origin(500_000, 5_200_000, 2, 2)
WIDTH, HEIGHT = 40, 30
SUFFIXES = ("gpkg", "parquet", "fgb", "geojson")
PLAIN = PolygonSettings()


def image(path, crs=UTM, transform=PLACE, **more):
    """An image of one grey, so that a run has a source that lies somewhere."""
    size = {"width": WIDTH, "height": HEIGHT, "count": 1, "dtype": "uint8"}
    place = {"crs": crs} | ({} if transform is None else {"transform": transform}) | more
    with rasterio.open(path, "w", driver="GTiff", **size, **place) as file:
        file.write(np.full((1, HEIGHT, WIDTH), 90, np.uint8))


def make(root, names=("a_20200831.tif",), places=None, objects=0, **painted):
    """A painted run; regions are 4 x 5 blocks, their classes 0 to 3, the first unlabelled.

    ``objects``: that many masks in each window, which regions belong to.
    """
    root.mkdir(parents=True, exist_ok=True)
    for name, place in zip(names, places or [{}] * len(names), strict=True):
        if name.endswith(".tif"):
            image(root / name, **place)
    rng = np.random.default_rng(3)
    window = Window(0, 0, WIDTH, HEIGHT)
    masks = [{"mask": mask} for mask in _masks(objects)] or [
        {"mask": np.ones((HEIGHT, WIDTH), bool)}
    ]
    folder = make_archive(root, {name: ([window], [masks]) for name in names})
    y, x = np.indices((HEIGHT, WIDTH))
    numbers = np.where((y < 4) & (x < 5), -1, y // 4 * 8 + x // 5)
    clusters = [rng.integers(0, 4, 64) for _ in names]
    margins = [rng.random(64).astype(np.float32) for _ in names]
    cut_as(folder, [numbers] * len(names), clusters, margins)
    paint_run(folder, 4, objects=objects > 0, **painted)
    folder.update_run(started="2021-05-01")
    return folder


def _masks(count):
    """Upright stripes: the first, in two pieces, lies over the second."""
    masks = np.zeros((count, HEIGHT, WIDTH), bool)
    for index in range(count):
        masks[index, :, index * 10 : index * 10 + 10] = True
    if count > 1:
        masks[0, :4, 20:25] = True
        masks[2:, :4, 20:25] = False
    return masks


def labels_of(folder, name="a_20200831.tif"):
    with rasterio.open(folder.label(name)) as file:
        return file.read(1), file.transform


def opened(path, layer=None):
    if path.suffix == ".parquet":
        return geopandas.read_parquet(path)
    return geopandas.read_file(path, layer=layer or pyogrio.list_layers(path)[0, 0])


def rename(folder, names, **more):
    """Other names, and other keys, of the class 3."""
    content = json.loads(folder.classes.read_text())
    for entry in content["classes"]:
        entry["name"] = names.get(entry["id"], entry["name"])
    content["classes"][3] |= more
    folder.classes.write_text(json.dumps(content))
    record(folder, folder.classes)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make(tmp_path_factory.mktemp("run"))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_has_every_pixel_in_its_class(run, tmp_path, suffix):
    path = tmp_path / f"found.{suffix}"
    done = write_polygons(run.root, path, PLAIN)
    found = opened(path)
    labels, transform = labels_of(run)
    assert len(found) == done.count and (labels == 255).sum() == 20
    assert found.is_valid.all() and (found.geom_type == "Polygon").all()
    if suffix == "geojson":
        assert found.crs == "EPSG:4326" and json.loads(path.read_text())["type"] == (
            "FeatureCollection"
        )
        found = found.to_crs(UTM)
        np.testing.assert_allclose(found.area, found.area_m2, rtol=1e-4)  # 0.1 mm
    else:
        assert found.crs == UTM and shapely.coverage_is_valid(found.geometry.values)
        np.testing.assert_array_equal(found.area, found.area_m2)
        assert found.area_m2.sum() == (labels != 255).sum() * 4
    pairs = zip(found.geometry, found["class"], strict=True)
    back = rasterize(pairs, labels.shape, fill=255, transform=transform, dtype="uint8")
    np.testing.assert_array_equal(back, labels)
    assert set(found.source) == {"a_20200831.tif"}
    assert set(found.date.astype(str).str[:10]) == {"2020-08-31"}
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_columns_of_a_patch(run, tmp_path):
    path = tmp_path / "found.parquet"
    write_polygons(run.root, path, PLAIN)
    found = geopandas.read_parquet(path)
    labels, _ = labels_of(run)
    with rasterio.open(run.region_raster("a_20200831.tif")) as file:
        regions = file.read(1)
    margin = pq.read_table(run.region_classes(0))["margin"].to_numpy()
    colours = {c["id"]: c["colour"] for c in json.loads(run.classes.read_text())["classes"]}
    for row in found.itertuples():
        inside = rasterize([row.geometry], labels.shape, transform=PLACE).astype(bool)
        assert row.pixels == inside.sum()
        assert row.margin == pytest.approx(margin[regions[inside]].mean(), rel=1e-6)
        (kind,) = np.unique(labels[inside])
        assert row.name == f"cluster {kind}"
        assert tuple(bytes.fromhex(row.colour[1:])) == tuple(colours[kind])


def test_objects_are_one_feature_each(tmp_path):
    folder = make(tmp_path / "run", objects=4)
    path = tmp_path / "found.gpkg"
    write_polygons(folder.root, path, PolygonSettings(objects=True))
    found = opened(path, "objects")
    with rasterio.open(folder.object_map("a_20200831.tif")) as file:
        objects = file.read(1)
    labels, _ = labels_of(folder)
    known = np.unique(objects[objects != 2**32 - 1])
    assert len(known) > 2 and sorted(found.object) == known.tolist()
    assert (found.geom_type == "MultiPolygon").all() and found.is_valid.all()
    assert max(len(one.geoms) for one in found.geometry) == 2
    for row in found.itertuples():
        inside = rasterize([row.geometry], labels.shape, transform=PLACE).astype(bool)
        np.testing.assert_array_equal(inside, objects == row.object)
        counts = np.bincount(labels[inside])
        assert counts[int(row.name.split()[1])] == counts.max() and row.pixels == inside.sum()


@pytest.mark.parametrize("kept", ["regions", "maps"])
def test_objects_come_from_regions_or_from_maps(tmp_path, kept):
    folder = make(tmp_path / "run", objects=4)
    both = tmp_path / "both.parquet"
    write_polygons(folder.root, both, PolygonSettings(objects=True))
    if kept == "regions":
        folder.object_map("a_20200831.tif").unlink()
    else:
        folder.regions(0).unlink()
    path = tmp_path / "one.parquet"
    write_polygons(folder.root, path, PolygonSettings(objects=True))
    expected, found = geopandas.read_parquet(both), geopandas.read_parquet(path)
    if kept == "maps":
        assert found.margin.isna().all() and expected.margin.notna().all()
        expected, found = expected.drop(columns="margin"), found.drop(columns="margin")
    assert found.equals(expected)


def test_without_regions_and_maps_objects_are_refused(tmp_path):
    folder = make(tmp_path / "run")
    folder.regions(0).unlink()
    with pytest.raises(RunFolderError, match="--objects"):
        write_polygons(folder.root, tmp_path / "a.gpkg", PolygonSettings(objects=True))
    write_polygons(folder.root, tmp_path / "b.gpkg", PLAIN)
    assert opened(tmp_path / "b.gpkg").margin.isna().all()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.gpkg", "run"]


def test_scenes_of_several_strips_and_more_classes_than_a_byte_holds(tmp_path):
    height = 1100
    folder = make_archive(
        tmp_path / "tall", {"a.png": ([Window(0, 0, 8, height)], [[{"cluster": 0}]])}
    )
    numbers = np.arange(height)[:, None] // 3 + np.zeros((1, 8), int)
    margins = np.linspace(0, 1, numbers.max() + 1).astype(np.float32)
    cut_as(folder, [numbers], [np.arange(numbers.max() + 1)], [margins])
    paint_run(folder, 400)
    folder.update_run(started="2021-05-01")
    write_polygons(folder.root, tmp_path / "a.parquet", PLAIN)
    found = geopandas.read_parquet(tmp_path / "a.parquet")
    assert found["class"].tolist() == list(range(numbers.max() + 1))
    np.testing.assert_allclose(found.margin, margins)
    assert found.total_bounds.tolist() == [0, -height, 8, 0]
    assert (found.pixels[:-1] == 24).all()


# --- simpler, and fewer


@pytest.mark.parametrize("by", ["6", "12m"])
def test_simplified_neighbours_keep_their_common_border(run, tmp_path, by):
    write_polygons(run.root, tmp_path / "all.parquet", PLAIN)
    write_polygons(run.root, tmp_path / "few.parquet", PolygonSettings(simplify=by))
    every, few = (geopandas.read_parquet(tmp_path / f"{n}.parquet") for n in ("all", "few"))
    corners = [shapely.get_num_coordinates(one.geometry.values).sum() for one in (every, few)]
    assert corners[1] < corners[0] * 0.9
    assert few.is_valid.all() and shapely.coverage_is_valid(few.geometry.values)
    assert few.pixels.equals(every.pixels) and few.area_m2.equals(every.area_m2)
    assert not few.geometry.equals(every.geometry)
    # The frame stays: the fourth corner has no class.
    shown = few.geometry.union_all()
    for corner in ((WIDTH, 0), (0, HEIGHT), (WIDTH, HEIGHT)):
        assert shown.intersects(shapely.Point(PLACE * corner))
    if by == "12m":  # 6 pixels of 2 metres
        write_polygons(run.root, tmp_path / "same.parquet", PolygonSettings(simplify="6"))
        assert geopandas.read_parquet(tmp_path / "same.parquet").equals(few)


def test_what_has_no_class_is_simplified_as_a_neighbour_and_the_frame_stays(tmp_path):
    """A wedge without data has straight borders then; scenes side by side still meet."""
    folder = make(tmp_path / "run")
    y, x = np.indices((HEIGHT, WIDTH))
    cut_as(folder, [np.where(x < y, -1, 0)], [np.zeros(1, int)])
    paint_run(folder, 4, "again")
    path = tmp_path / "a.parquet"
    write_polygons(folder.root, path, PolygonSettings(simplify="2"))
    (found,) = geopandas.read_parquet(path).geometry
    wedge = [(0, 0), (WIDTH, 0), (WIDTH, HEIGHT), (HEIGHT, HEIGHT)]
    expected = shapely.Polygon([PLACE * point for point in wedge])
    assert found.hausdorff_distance(expected) < 3
    assert len(found.exterior.coords) < 10
    assert found.bounds == expected.bounds


@pytest.mark.parametrize("least", ["41", "164m2"])
def test_small_patches_leave_gaps(run, tmp_path, least):
    write_polygons(run.root, tmp_path / "all.parquet", PLAIN)
    path = tmp_path / "few.parquet"
    done = write_polygons(run.root, path, PolygonSettings(min_area=least))
    every, few = geopandas.read_parquet(tmp_path / "all.parquet"), geopandas.read_parquet(path)
    assert 0 < len(few) < len(every) and done.left_out == len(every) - len(few)
    assert few.equals(every[every.pixels >= 41].reset_index(drop=True))


def test_of_objects_all_pieces_count(tmp_path):
    folder = make(tmp_path / "run", objects=4)
    path = tmp_path / "few.parquet"
    write_polygons(folder.root, path, PolygonSettings(objects=True, min_area="290"))
    found = geopandas.read_parquet(path)
    assert len(found) and (found.pixels >= 290).all()
    pieces = [piece.area / 4 for one in found.geometry for piece in one.geoms]
    assert min(pieces) < 290


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (PolygonSettings(simplify="2m2"), "--simplify 2m2"),
        (PolygonSettings(simplify="-1"), "--simplify -1"),
        (PolygonSettings(min_area="x"), "--min-area x"),
        (PolygonSettings(crs="EPSG:0"), "--crs EPSG:0"),
        (PolygonSettings(crs="\n"), "--crs"),
    ],
)
def test_settings_that_cannot_work(run, tmp_path, settings, words):
    with pytest.raises(SettingsError, match=words):
        write_polygons(run.root, tmp_path / "a.gpkg", settings)
    assert not list(tmp_path.iterdir())


# --- where they lie


def test_degrees_have_areas_on_the_ellipsoid(tmp_path):
    transform = from_origin(10, 50, 1e-4, 1e-4)
    folder = make(tmp_path / "run", places=[{"crs": "EPSG:4326", "transform": transform}])
    write_polygons(folder.root, tmp_path / "a.parquet", PLAIN)
    found = geopandas.read_parquet(tmp_path / "a.parquet")
    equal = found.to_crs("+proj=laea +lat_0=50 +lon_0=10")
    np.testing.assert_allclose(found.area_m2, equal.area, rtol=1e-5)
    # A pixel is 1e-4 degrees of 111.2 km high, and narrower by the cosine of 50 degrees.
    assert found.area_m2.sum() / found.pixels.sum() == pytest.approx(79.8, rel=0.01)


def test_feet_are_squared(tmp_path):
    folder = make(tmp_path / "run", places=[{"crs": "EPSG:2263"}])  # New York, US survey feet
    write_polygons(folder.root, tmp_path / "a.parquet", PLAIN)
    found = geopandas.read_parquet(tmp_path / "a.parquet")
    np.testing.assert_allclose(found.area_m2, found.pixels * 4 * (1200 / 3937) ** 2, rtol=1e-9)


def test_turned_images_lie_as_they_are_turned(tmp_path):
    transform = PLACE @ Affine.rotation(30) @ Affine.scale(1, 2)
    folder = make(tmp_path / "run", places=[{"transform": transform}])
    write_polygons(folder.root, tmp_path / "a.gpkg", PLAIN)
    found = opened(tmp_path / "a.gpkg")
    labels, placed = labels_of(folder)
    assert placed == transform
    pairs = zip(found.geometry, found["class"], strict=True)
    back = rasterize(pairs, labels.shape, fill=255, transform=transform, dtype="uint8")
    np.testing.assert_array_equal(back, labels)
    np.testing.assert_allclose(found.area_m2, found.pixels * 8)
    assert shapely.coverage_is_valid(found.geometry.values)


def test_ground_control_points_place_polygons(tmp_path):
    """As GDAL's own transform through the same points does."""
    corners = [(0, 0), (0, WIDTH), (HEIGHT, 0), (HEIGHT, WIDTH)]
    points = [GroundControlPoint(r, c, *(PLACE * (c, r))) for r, c in corners]
    folder = make(tmp_path / "run", places=[{"transform": None, "gcps": points}])
    write_polygons(folder.root, tmp_path / "a.gpkg", PLAIN)
    found = opened(tmp_path / "a.gpkg")
    labels, _ = labels_of(folder)
    pairs = zip(found.geometry, found["class"], strict=True)
    back = rasterize(pairs, labels.shape, fill=255, transform=from_gcps(points), dtype="uint8")
    np.testing.assert_array_equal(back, labels)
    assert found.crs == UTM
    np.testing.assert_allclose(found.area_m2, found.pixels * 4, rtol=1e-6)


def test_images_that_lie_nowhere_give_pixels_as_qgis_shows_them(tmp_path):
    folder = make(tmp_path / "run", names=("a.png", "b_2019.png"))
    write_polygons(folder.root, tmp_path / "a.gpkg", PLAIN)
    found = opened(tmp_path / "a.gpkg")
    assert found.crs is None or found.crs.name == "Undefined Cartesian SRS"
    assert found.area_m2.isna().all()
    dated = found.date.notna()
    assert set(found.source[~dated]) == {"a.png"} and set(found.source[dated]) == {"b_2019.png"}
    assert set(found.date[dated]) == {"2019"}
    for name, own in found.groupby("source"):
        labels, _ = labels_of(folder, name)
        upwards = Affine(1, 0, 0, 0, -1, 0)
        pairs = zip(own.geometry, own["class"], strict=True)
        back = rasterize(pairs, labels.shape, fill=255, transform=upwards, dtype="uint8")
        np.testing.assert_array_equal(back, labels)
        assert own.total_bounds.tolist() == [0, -HEIGHT, WIDTH, 0]
    with pytest.raises(SourceError, match=r"a\.png and 1 more lies nowhere on Earth"):
        write_polygons(folder.root, tmp_path / "a.geojson", PLAIN)
    with pytest.raises(SettingsError, match="--simplify 2m: the image has no scale"):
        write_polygons(folder.root, tmp_path / "b.gpkg", PolygonSettings(simplify="2m"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.gpkg", "run"]


def test_zones_come_into_one(tmp_path):
    other = {"crs": "EPSG:32634", "transform": from_origin(40_000, 5_210_000, 2, 2)}
    folder = make(tmp_path / "run", names=("a.tif", "b.tif"), places=[{}, other])
    path = tmp_path / "a.gpkg"
    done = write_polygons(folder.root, path, PLAIN)
    found = opened(path)
    assert found.crs == UTM and done.reprojected == {"EPSG:32634": 1}
    assert found.is_valid.all()
    second = found[found.source == "b.tif"]
    back = second.to_crs("EPSG:32634").total_bounds
    assert back == pytest.approx([40_000, 5_210_000 - 2 * HEIGHT, 40_000 + 2 * WIDTH, 5_210_000])
    # What they share is still shared, to the last bit.
    assert shapely.coverage_is_valid(second.geometry.values)
    write_polygons(folder.root, tmp_path / "b.gpkg", PolygonSettings(crs="EPSG:3035"))
    assert opened(tmp_path / "b.gpkg").crs == "EPSG:3035"


def test_what_lies_nowhere_does_not_go_beside_what_lies_somewhere(tmp_path):
    folder = make(tmp_path / "run", names=("a.png", "b.tif"), places=[{}, {}])
    with pytest.raises(SourceError, match=r"a\.png lies nowhere on Earth.*--only"):
        write_polygons(folder.root, tmp_path / "a.gpkg", PLAIN)
    for pattern, name in (("*.png", "a.png"), ("b*", "b.tif")):
        path = tmp_path / f"{name}.gpkg"
        write_polygons(folder.root, path, PolygonSettings(only=pattern))
        assert set(opened(path).source) == {name}
    with pytest.raises(SettingsError, match="--only c matches no image"):
        write_polygons(folder.root, tmp_path / "c.gpkg", PolygonSettings(only="c"))


def test_geojson_is_in_wgs_84_alone(run, tmp_path):
    with pytest.raises(SettingsError, match="GeoJSON"):
        write_polygons(run.root, tmp_path / "a.geojson", PolygonSettings(crs="EPSG:3857"))
    write_polygons(run.root, tmp_path / "a.geojson", PolygonSettings(crs="EPSG:4326"))
    there = pyproj.Transformer.from_crs(UTM, "OGC:CRS84").transform(500_000 + 10, 5_200_000)
    first = json.loads((tmp_path / "a.geojson").read_text())["features"][0]
    assert np.abs(np.array(first["geometry"]["coordinates"][0]) - there).max() < 1e-3


def test_past_180_degrees_polygons_do_not_go_around_the_earth(tmp_path):
    zone = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:32660", always_xy=True)
    x, y = zone.transform(180, 60)
    edge = from_origin(x - WIDTH, y, 2, 2)
    folder = make(tmp_path / "run", places=[{"crs": "EPSG:32660", "transform": edge}])
    path = tmp_path / "a.gpkg"
    write_polygons(folder.root, path, PolygonSettings(crs="EPSG:4326"))
    bounds = opened(path).total_bounds
    assert 179.99 < bounds[0] < 180 < bounds[2] < 180.01


# --- names


HOSTILE = {
    0: "<script>alert('x')</script>&amp;\"]]>",
    1: "n" * 10_000,
    2: "two\nlines\x07",
    3: '=HYPERLINK("http://x")\u202e\u05d0',
}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_hostile_names_change_nothing_but_the_name(run, tmp_path, suffix):
    folder = make(tmp_path / "run")
    plain, path = tmp_path / f"plain.{suffix}", tmp_path / f"hostile.{suffix}"
    write_polygons(folder.root, plain, PLAIN)
    rename(folder, HOSTILE)
    write_polygons(folder.root, path, PLAIN)
    found, expected = opened(path), opened(plain)
    assert found["name"].tolist() == [HOSTILE[kind] for kind in expected["class"]]
    assert found.drop(columns="name").equals(expected.drop(columns="name"))


def test_qgis_finds_its_style(tmp_path):
    folder = make(tmp_path / "run")
    rename(folder, HOSTILE)
    write_polygons(folder.root, tmp_path / "a.gpkg", PLAIN)
    columns = "f_table_catalog, f_table_schema, f_table_name, f_geometry_column, useAsDefault"
    with sqlite3.connect(tmp_path / "a.gpkg") as base:
        (row,) = base.execute(f"SELECT {columns}, styleQML FROM layer_styles").fetchall()
        (geometry,) = base.execute("SELECT column_name FROM gpkg_geometry_columns").fetchone()
    assert row[:5] == ("", "", "classes", geometry, 1)
    style = ElementTree.fromstring(row[5])
    assert style.find("renderer-v2").get("attr") == "class"
    symbols = {one.get("name"): one for one in style.iter("symbol")}
    known = {c["id"]: c["colour"] for c in json.loads(folder.classes.read_text())["classes"]}
    labels = {}
    for category in style.iter("category"):
        value = int(category.get("value"))
        labels[value] = category.get("label")
        (colour,) = [
            option.get("value")
            for option in symbols[category.get("symbol")].iter("Option")
            if option.get("name") == "color"
        ]
        assert colour == ",".join(map(str, (*known[value], 255)))
    assert labels[0] == HOSTILE[0] and labels[1] == "n" * 199 + "…"
    assert labels[2] == r"two\x0alines\x07" and labels[3].endswith("\\u202e\u05d0")


@pytest.mark.parametrize("key", [{"ignored": True}, {"part_of": 1}])
def test_classes_that_no_pixel_has_are_not_in_the_legend(tmp_path, key):
    folder = make(tmp_path / "run")
    rename(folder, {}, **key)
    write_polygons(folder.root, tmp_path / "a.gpkg", PLAIN)
    with sqlite3.connect(tmp_path / "a.gpkg") as base:
        (text,) = base.execute("SELECT styleQML FROM layer_styles").fetchone()
    values = [c.get("value") for c in ElementTree.fromstring(text).iter("category")]
    assert values == ["0", "1", "2"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_no_text_can_hold_is_written_out(tmp_path, suffix):
    """A zero would end it in SQLite; half of a letter is no UTF-8."""
    folder = make(tmp_path / "run")
    rename(folder, {kind: f"a\0\ud83d{kind}" for kind in range(4)})
    write_polygons(folder.root, tmp_path / f"a.{suffix}", PLAIN)
    found = opened(tmp_path / f"a.{suffix}")
    assert (found["name"] == "a\\x00\\ud83d" + found["class"].astype(str)).all()


# --- files


def test_a_file_that_is_there_is_kept(run, tmp_path):
    path = tmp_path / "a.gpkg"
    path.write_text("mine")
    with pytest.raises(SettingsError, match="--overwrite"):
        write_polygons(run.root, path, PLAIN)
    assert path.read_text() == "mine"
    write_polygons(run.root, path, PLAIN, overwrite=True)
    assert len(opened(path))


@pytest.mark.parametrize("name", ["a", "a.shp", "a.json", "a.gpkg.zip"])
def test_other_formats_are_refused(run, tmp_path, name):
    with pytest.raises(SettingsError, match=r"ends in \.gpkg"):
        write_polygons(run.root, tmp_path / name, PLAIN)


@pytest.mark.parametrize("name", ["tiles.parquet", "labels/a.parquet", "x/../regions/a.parquet"])
def test_files_of_the_run_are_not_replaced(tmp_path, name):
    folder = make(tmp_path / "run")
    with pytest.raises(SettingsError, match="files of the run"):
        write_polygons(folder.root, folder.root / name, PLAIN, overwrite=True)
    write_polygons(folder.root, folder.root / "mine.parquet", PLAIN)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_full_disk_is_noticed_to_the_last_byte(run, tmp_path, suffix):
    """GDAL says nothing of what it could not write while it closed a file."""
    path = tmp_path / f"a.{suffix}"
    write_polygons(run.root, path, PLAIN)
    size, content = path.stat().st_size, path.read_bytes()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for less in (1, 100, 2000, 8192, 12_288, 20_000, size // 2):
        if less >= size:
            continue
        path.write_bytes(b"older")
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size - less, before[1]))
            with (
                contextlib.redirect_stderr(io.StringIO()),  # or what pytest keeps of it is full too
                pytest.raises(RunFolderError, match="cannot write") as raised,
            ):
                write_polygons(run.root, path, PLAIN, overwrite=True)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert "\n" not in str(raised.value) and path.read_bytes() == b"older"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    write_polygons(run.root, path, PLAIN, overwrite=True)
    if suffix != "gpkg":  # says when it was made
        assert path.read_bytes() == content


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("objects", [False, True])
def test_without_a_class_there_is_no_polygon(tmp_path, suffix, objects):
    folder = make(tmp_path / "run", min_margin=1.0)
    path = tmp_path / f"a.{suffix}"
    settings = PolygonSettings(objects=objects, simplify="2")
    assert write_polygons(folder.root, path, settings).count == 0
    assert len(opened(path)) == 0


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("error", [RunFolderError("no"), KeyboardInterrupt()])
def test_what_ends_halfway_leaves_nothing(run, tmp_path, monkeypatch, suffix, error):
    """An error of ours reaches whoever called as it was, through the libraries that write."""
    path = tmp_path / f"a.{suffix}"
    path.write_text("older")
    before = export._Export._batch
    calls = []

    def failing(self, *arguments):
        if calls:
            raise error
        calls.append(1)
        return before(self, *arguments)

    monkeypatch.setattr(export._Export, "_batch", failing)
    monkeypatch.setattr("alps.engine.polygons.geometry.CORNERS_AT_ONCE", 20)
    monkeypatch.setattr(export, "portions", lambda sizes: ((i, i + 1) for i in range(len(sizes))))
    with pytest.raises(type(error)) as raised:
        write_polygons(run.root, path, PLAIN, overwrite=True)
    assert raised.value is error and calls
    assert path.read_text() == "older" and [p.name for p in tmp_path.iterdir()] == [path.name]


def test_what_a_killed_process_left_is_gone_and_a_living_one_is_let_be(run, tmp_path):
    path, part = tmp_path / "a.gpkg", tmp_path / ".a.gpkg.part"
    part.mkdir()
    for name in ("a.gpkg", "a.gpkg-journal"):
        (part / name).write_bytes(b"half")
    with (
        FileLock(part / "lock"),
        pytest.raises(RunFolderError, match="another process is writing"),
    ):
        write_polygons(run.root, path, PLAIN)
    assert (part / "a.gpkg").read_bytes() == b"half"
    write_polygons(run.root, path, PLAIN)
    assert len(opened(path)) and [p.name for p in tmp_path.iterdir()] == ["a.gpkg"]


def test_nothing_is_removed_through_a_link(run, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "a.gpkg").write_text("mine")
    (tmp_path / ".a.gpkg.part").symlink_to(mine)
    write_polygons(run.root, tmp_path / "a.gpkg", PLAIN)
    assert (mine / "a.gpkg").read_text() == "mine" and len(opened(tmp_path / "a.gpkg"))


def test_a_few_at_a_time_are_the_same(run, tmp_path, monkeypatch):
    settings = PolygonSettings(simplify="2", min_area="21")
    write_polygons(run.root, tmp_path / "one.parquet", settings)
    monkeypatch.setattr(export, "portions", lambda sizes: ((i, i + 1) for i in range(len(sizes))))
    write_polygons(run.root, tmp_path / "many.parquet", settings)
    one, many = (geopandas.read_parquet(tmp_path / f"{n}.parquet") for n in ("one", "many"))
    assert len(one) > 5 and one.equals(many)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_place_that_cannot_be_written_is_one_line(run, tmp_path, suffix, monkeypatch):
    with pytest.raises(SettingsError, match="is no folder"):
        write_polygons(run.root, tmp_path / "nowhere" / f"a.{suffix}", PLAIN)
    monkeypatch.setattr(
        formats, "_apart", lambda path: OpenElsewhere(tmp_path / "gone" / path.name)
    )
    with pytest.raises(RunFolderError, match="cannot write") as raised:
        write_polygons(run.root, tmp_path / f"a.{suffix}", PLAIN)
    assert "\n" not in str(raised.value)


class OpenElsewhere:
    def __init__(self, path):
        self.path = path

    def __enter__(self):
        return self.path

    def __exit__(self, *exc_info):
        pass


def test_a_label_map_that_was_changed_is_refused(tmp_path):
    folder = make(tmp_path / "run")
    path = folder.label("a_20200831.tif")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    os.utime(path)
    path.write_bytes(content)
    with pytest.raises(RunFolderError, match="damaged"):
        write_polygons(folder.root, tmp_path / "a.gpkg", PLAIN)


def test_a_run_that_is_none_or_not_painted_is_refused(tmp_path):
    with pytest.raises(RunFolderError, match="not a run folder"):
        write_polygons(tmp_path, tmp_path / "a.gpkg", PLAIN)
    folder = make(tmp_path / "run")
    folder.update_run(done={"cluster": "new", "paint": "old"})
    with pytest.raises(RunFolderError, match="alps paint"):
        write_polygons(folder.root, tmp_path / "a.gpkg", PLAIN)
    folder.update_run(done={})
    folder.label("a_20200831.tif").unlink()
    with pytest.raises(RunFolderError, match="no label maps"):
        write_polygons(folder.root, tmp_path / "a.gpkg", PLAIN)


def test_the_command_says_what_it_did(tmp_path):
    other = {"crs": "EPSG:32634", "transform": from_origin(40_000, 5_210_000, 2, 2)}
    folder = make(tmp_path / "run", names=("a.tif", "b.tif", "c.tif"), places=[{}, other, {}])
    folder.label("c.tif").unlink()
    path = tmp_path / "a.gpkg"
    arguments = [str(folder.root), str(path), "--min-area", "41"]
    done = CliRunner().invoke(vectors, arguments, catch_exceptions=False)
    count = len(opened(path))
    assert done.exit_code == 0 and f"{count} polygons of 2 sources, EPSG:32633: {path}\n" in (
        done.output
    )
    assert "are smaller than --min-area and left out\n" in done.output
    assert "1 sources were brought from EPSG:32634 to EPSG:32633\n" in done.output
    assert "1 sources have no label map: c.tif: its label map is gone\n" in done.output
    with pytest.raises(AlpsError, match="--overwrite"):
        CliRunner().invoke(vectors, arguments, catch_exceptions=False)
    done = CliRunner().invoke(vectors, [*arguments, "--overwrite", "--crs", "EPSG:3035",
        "--simplify", "2", "--objects"], catch_exceptions=False)  # fmt: skip
    assert done.exit_code == 0 and "EPSG:3035" in done.output


@pytest.mark.parametrize("name", ["pyogrio", "pyproj", "shapely"])
def test_without_the_extra_one_line_says_what_to_install(monkeypatch, name, tmp_path):
    import builtins
    import sys

    usual = builtins.__import__

    def without(module, *arguments, **more):
        if module.split(".")[0] == name:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return usual(module, *arguments, **more)

    for module in [m for m in sys.modules if m.startswith("alps.engine.polygons.")]:
        if not module.endswith("settings"):
            monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(SettingsError, match=rf"{name}.*pip install 'alps-engine\[vectors\]'"):
        CliRunner().invoke(
            vectors, [str(tmp_path), str(Path(tmp_path, "a.gpkg"))], catch_exceptions=False
        )


def test_a_run_folder_is_only_read(run, tmp_path):
    def state():
        return {p: p.stat().st_mtime_ns for p in RunFolder(run.root).root.rglob("*")}

    before = state()
    write_polygons(run.root, tmp_path / "a.gpkg", PolygonSettings(objects=True))
    assert state() == before
