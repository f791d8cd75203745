"""STAC in all its forms as an archive: which images, under which names, and what is wrong."""

import gc
import json
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rasterio.transform import from_origin
from rasters import save_raster
from stac_items import collection_of, item_of

from alps.engine.base.errors import RunFolderError, SettingsError, SourceError
from alps.engine.images.facts import said as said_file
from alps.engine.images.facts.said import NOTHING, NamedImage, Said, SaidTable, SaidWriter
from alps.engine.images.raster import RasterReader
from alps.engine.settings import SourceSettings
from alps.engine.stac import split
from alps.engine.stac.archive import open_archive

PLACE = {"crs": "EPSG:32614", "transform": from_origin(500_000, 5_200_000, 1, 1)}


@pytest.fixture
def images(tmp_path):
    """Two images of four bands, of 12 x 10 pixels."""
    (tmp_path / "tiles").mkdir()
    pixels = np.random.default_rng(0).integers(1, 255, (4, 10, 12), np.uint8)
    return [save_raster(tmp_path / "tiles" / f"{n}.tif", pixels, **PLACE) for n in ("a", "b")]


def read(src, **settings):
    """What an archive has: by name the path, and what is said of it."""
    with open_archive(src, SourceSettings(**settings)) as archive:
        return {one.name: (one.path, archive.said.of(one.path)) for one in archive.sources}


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def reasons(found):
    return {name: said.reason for name, (_, said) in found.items() if said.reason}


def catalogue(path, kind="Catalog", **links):
    made = [{"rel": rel, "href": href} for rel, hrefs in links.items() for href in hrefs]
    return write(path, {"type": kind, "stac_version": "1.1.0", "id": "c", "links": made})


def geoparquet(items, path):
    rows = []
    for item in items:
        own = {k: item[k] for k in ("type", "stac_version", "id", "assets", "collection", "links")}
        rows.append(own | item["properties"] | {"geometry": b"\x01\x01"})
    when = pa.array([row.pop("datetime").rstrip("Z") for row in rows]).cast(pa.timestamp("us"))
    table = pa.Table.from_pylist(rows).drop_columns(["links"])
    pq.write_table(table.append_column("datetime", when), path)
    return path


@pytest.mark.parametrize(
    "form", ["item", "collection", "search", "lines", "catalogue", "nested", "geoparquet", "mark"]
)
def test_every_form_gives_the_same_images(form, images, tmp_path):
    items = [item_of(path, tmp_path, version=v) for path, v in zip(images, ("1.0.0", "1.1.0"),
                                                                   strict=True)]  # fmt: skip
    if form == "item":
        src, items = write(tmp_path / "a.json", items[0]), items[:1]
    elif form == "collection":
        src = collection_of(items, tmp_path / "items.geojson")
    elif form == "search":
        src = collection_of(items, tmp_path / "answer", numberMatched=2, context={"returned": 2})
    elif form == "lines":
        src = tmp_path / "items.ndjson"
        src.write_text("".join(json.dumps(item) + "\n" for item in items))
    elif form == "mark":
        src = collection_of(items, tmp_path / "items.json")
        src.write_bytes(b"\xef\xbb\xbf" + src.read_bytes())
    elif form == "geoparquet":
        items = [item_of(path, tmp_path) for path in images]
        src = geoparquet(items, tmp_path / "items.parquet")
    else:
        for item in items:
            item["assets"]["image"]["href"] = f"./{item['id']}.tif"
            write(tmp_path / "tiles" / f"{item['id']}.json", item)
        src = catalogue(tmp_path / "tiles" / "collection.json", "Collection",
                        item=["./a.json", "b.json"], parent=["../top.json"])  # fmt: skip
        if form == "nested":  # and in a circle
            src = catalogue(tmp_path / "top.json", child=["tiles/collection.json", "./top.json"])
    found = read(src)
    assert reasons(found) == {}
    assert found.keys() == {f"naip/{item['id']}.tif" for item in items}
    for image in images[: len(items)]:
        path, said = found[f"naip/{image.name}"]
        assert path == image and said.reason == ""
        assert (said.date, said.band_names[:3]) == (20120731, ("red", "green", "blue"))
        assert (said.crs, said.width, said.height) == ("EPSG:32614", 12, 10)
        assert said.asset == "image" and said.collection == "naip"
    if form in ("item", "catalogue", "nested"):
        place = tmp_path if form == "item" else tmp_path / "tiles"
        assert said.address == str(place / f"{said.id}.json")


def test_a_wrong_item_is_a_row_and_not_an_end(images, tmp_path):
    good = item_of(images[0], tmp_path)
    wrong = {
        "far": {"assets": {"image": {**good["assets"]["image"], "href": "../../etc/passwd"}}},
        "none": {"assets": {"x": {"href": "x.txt"}}},
        "ring": {"geometry": {"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}},
        "huge": {"properties": {"proj:shape": [10**400, 3]}},
        "same": {},
    }
    items = [good | {"id": name} | changes for name, changes in wrong.items()]
    src = collection_of([good, good, *items, {"type": "Feature", "assets": {}}, {"a": [1]}],
                        tmp_path / "items.json")  # fmt: skip
    text = src.read_text().replace('"id": "ring"', '"id": "ring", "x": NaN')
    src.write_text(text.replace('{"a": [1]}', '{"a": ' + "[" * 5000 + "]" * 5000 + "}"))
    found = read(src)
    assert found["naip/a.tif"][1].reason == ""
    said = reasons(found)
    assert len(found) == 8 and len(said) == 7
    assert "outside the archive: --allow-vrt-outside" in said["naip/far.image"]
    assert "item none of" in said["naip/none.image"] and "no image" not in said["naip/none.image"]
    assert "is that of item a already" in said["naip/same.tif"]
    assert "NaN is no number" in said["items/item 5.image"]
    assert "proj:shape" in said["naip/huge.image"] or "no number" in said["naip/huge.image"]
    assert "required field" in said["items/item 8.image"]
    assert "nested too deeply" in said["items/item 9.image"]
    with open_archive(src, SourceSettings()) as archive:
        for source in archive.sources:
            reason = archive.said.of(source.path).reason
            if reason:
                with pytest.raises(SourceError) as caught:
                    RasterReader(source.path, archive.reading)
                assert str(caught.value) == reason
            else:
                RasterReader(source.path, archive.reading).close()


def test_names_follow_collection_and_id_and_are_told_apart(images, tmp_path):
    names = [("x/../y", "c"), ("..", "c"), ("x_.._y", "c"), ("é 雪", None), ("a.b", "d" * 500),
             ("line\nbreak", "c:d")]  # fmt: skip
    items = []
    for number, (name, collection) in enumerate(names):
        path = save_raster(tmp_path / "tiles" / f"n{number}.tif", np.zeros((1, 2, 2), np.uint8))
        items.append(item_of(path, tmp_path, collection=collection) | {"id": name})
    found = list(read(collection_of(items, tmp_path / "items.json")))
    short = f"{'d' * 111}~"
    assert sorted(one for one in found if "~" not in one) == [
        "c/_...tif", "c/x_.._y.tif", "c_d/line_break.tif", "é 雪.tif"]  # fmt: skip
    assert sum(one.startswith("c/x_.._y~") and one.endswith(".tif") for one in found) == 1
    assert sum(one.startswith(short) and one.endswith("/a.b.tif") for one in found) == 1


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ('{"type": "FeatureCollection", "features": [{"type": "Feature", "properties": {}}]}',
         "it is GeoJSON and no STAC"),
        ('{"type": "Feature", "id": "a", "geometry": null}', "it is GeoJSON and no STAC"),
        ('{"a": 1}', "no STAC: give an item"),
        ('{"type": 5}', "no STAC: give an item"),
        ('{"type": "FeatureCollection", "features": []}', "holds no items and links to none"),
        ('{"type": "Catalog", "links": [{"rel": "self", "href": "a"}]}', "links to none"),
        ('{"type": "Feature", ', "ends too early"),
        ("[]", "no JSON object"),
        ("PAR1 and nothing else", "Cannot read"),
        ("", "no JSON object"),
    ],
)  # fmt: skip
def test_what_is_no_stac_is_said_in_a_line(tmp_path, content, match):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(SourceError, match=match) as caught:
        read(tmp_path / "x.json")
    assert "\n" not in str(caught.value)


def test_parquet_of_something_else(tmp_path):
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "x.parquet")
    with pytest.raises(SourceError, match="no stac-geoparquet, which has a column assets"):
        read(tmp_path / "x.parquet")


def test_an_asset_of_what_is_no_stac_has_no_effect_and_is_refused(images, tmp_path):
    with pytest.raises(SettingsError, match=r"--asset image: .* is no STAC"):
        read(tmp_path / "tiles", asset="image")


def test_links_that_lead_away_or_nowhere_are_rows(images, tmp_path):
    write(tmp_path / "c" / "a.json", item_of(images[0], tmp_path / "c"))
    src = catalogue(tmp_path / "c" / "catalog.json", item=["a.json", "gone.json", "../b.json"],
                    child=["https://127.0.0.1:9/catalog.json"])  # fmt: skip
    said = reasons(read(src, allow_vrt_outside=True))
    text = " ".join(said.values())
    assert len(said) == 3
    assert "No such file" in text and "outside the folder" in text and "not fetched" in text


def test_pages_that_are_not_there_are_said(images, tmp_path, capsys):
    links = [{"rel": "next", "href": "https://127.0.0.1:9/search?page=2"}]
    read(collection_of([item_of(images[0], tmp_path)], tmp_path / "items.json", links=links))
    assert "is one page of an answer" in capsys.readouterr().err


def test_memory_does_not_grow_with_a_collection(tmp_path, monkeypatch):
    monkeypatch.setattr(said_file, "ROWS", 256)
    monkeypatch.setattr(split, "CHUNK", 1 << 16)

    def peak(count):
        path = tmp_path / f"{count}.json"
        with path.open("w") as file:
            file.write('{"type": "FeatureCollection", "features": [')
            for number in range(count):
                asset = {"href": f"t/{number}.tif", "type": "image/tiff", "roles": ["data"]}
                item = {"type": "Feature", "id": str(number), "properties": {"x": "y" * 8000},
                        "assets": {"image": asset}}  # fmt: skip
                file.write(("," if number else "") + json.dumps(item))
            file.write("]}")
        gc.freeze()  # what other tests left is no measure of when garbage is looked for
        tracemalloc.start()
        with open_archive(path, SourceSettings()) as archive:
            assert sum(1 for _ in archive.sources) == count
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        gc.unfreeze()
        return most

    peak(10)  # what is loaded once
    small = peak(500)
    # 12 MB more of JSON; twice, for what a thread of another test takes meanwhile counts too.
    assert any(peak(2000) < small + 5e6 for _ in range(2))


# --- the table


def table_of(path, names, **more):
    with SaidWriter(path) as writer:
        writer.write((NamedImage(one, one), Said(id=one, **more)) for one in names)
    return SaidTable(path)


def test_look_ups_in_a_table_of_several_row_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(said_file, "ROWS", 7)
    names = sorted(f"/x/{number}.tif" for number in range(100))
    table = table_of(tmp_path / "t.parquet", names, date=20200101, nodata=(1.0, 2.0))
    assert pq.read_metadata(table.file).num_row_groups == 15
    for name in names:
        assert table.of(name) == Said(id=name, date=20200101, nodata=(1.0, 2.0))
    for name in ("/x/", "/x/5.tif0", "/y", ""):
        assert table.of(name) is NOTHING
    assert table.dates(["/x/3.tif", "/z", "/x/99.tif"]) == [20200101, 0, 20200101]
    assert [image.path for image in table.images()] == names and len(table) == 100


def test_an_empty_table_and_a_damaged_one(tmp_path):
    assert table_of(tmp_path / "e.parquet", []).of("/x") is NOTHING
    (tmp_path / "d.parquet").write_bytes(b"PAR1")
    pq.write_table(pa.table({"path": ["a"]}), tmp_path / "o.parquet")
    for name in ("d", "o", "gone"):
        with pytest.raises(RunFolderError, match="what the catalogue said of the images"):
            SaidTable(tmp_path / f"{name}.parquet").of("/x")
