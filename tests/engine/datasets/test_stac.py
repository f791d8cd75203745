"""Label maps as STAC: it validates, other libraries open it, and it says what the run knows."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
from labelled_run import IMAGES
from rasterio.transform import from_origin
from rasterio.warp import transform_bounds
from rasters import save_raster
from stac_items import collection_of, item_of
from stac_rules import invalid

from alps.engine.datasets.catalogues import kept, stac
from alps.engine.demo.scenes import SceneSettings, make_scene
from alps.engine.naming.names import Named, Names
from alps.engine.run_folder.folder import RunFolder
from alps.engine.settings import ClusterSettings, RunSettings, SegmentSettings
from alps.engine.stages import single
from alps.engine.stages.label import label_archive
from alps.engine.stages.opening import RunOptions

STAC = ("--format", "stac")
PLACE = {"crs": "EPSG:32614", "transform": from_origin(486_000, 5_209_000, 1, 1)}


def contents(folder):
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def items_in(folder):
    paths = sorted((folder / "items").rglob("*.json"))
    return {str(p.relative_to(folder / "items")): json.loads(p.read_text()) for p in paths}


@pytest.fixture(scope="module")
def placed(tmp_path_factory, speck):
    """A run over two items of images that lie somewhere, and one that is wrong; its source items.

    Not to be changed.
    """
    root = tmp_path_factory.mktemp("placed")
    pixels = np.moveaxis(make_scene(5, SceneSettings(size=96)).image, -1, 0)
    paths = [save_raster(root / "in" / f"m {n}_2012.tif", pixels, **PLACE) for n in (1, 2)]
    items = [item_of(path, root) for path in paths]
    items[0]["links"] = [{"rel": "self", "href": "https://example.org/items/1"}]
    items[1]["properties"]["datetime"] = None
    wrong = items[0] | {"id": "wrong", "assets": {}}
    src = collection_of([*items, wrong], root / "items.json")
    settings = RunSettings(
        segment=SegmentSettings(runtime="torch"), cluster=ClusterSettings(clusters=4)
    )
    options = RunOptions(model=str(speck), device="cpu", max_failed=1.0)
    label_archive(src, root / "out", settings, options)
    return RunFolder(root / "out")


@pytest.fixture
def copied(placed, tmp_path):
    shutil.copytree(placed.root, tmp_path / "out")
    return RunFolder(tmp_path / "out")


def test_what_is_written_validates(placed, finished, export, tmp_path):
    (tmp_path / "schemas").mkdir()
    assert invalid(placed.root / "stac" / "collection.json", tmp_path / "schemas") == ([], 3)
    export(finished, tmp_path / "d", *STAC)
    found = invalid(tmp_path / "d" / "collection.json", tmp_path / "schemas")
    assert found == ([], 1 + len(IMAGES))


def test_the_validation_sees_what_is_wrong(copied, tmp_path):
    folder = copied.root / "stac"
    (tmp_path / "schemas").mkdir()
    path = next((folder / "items").rglob("*.json"))
    item = json.loads(path.read_text())
    wrong = [
        lambda one: one["properties"].pop("label:description"),
        lambda one: one["properties"].pop("datetime"),
        lambda one: one["assets"]["labels"]["classification:classes"][0].update(name="a b"),
        lambda one: one["assets"]["labels"].update({"file:checksum": "12"}),
        lambda one: one["properties"].update({"proj:shape": [1]}),
        lambda one: one.pop("bbox"),
    ]
    for act in wrong:
        changed = json.loads(json.dumps(item))
        act(changed)
        path.write_text(json.dumps(changed))
        assert len(invalid(folder / "collection.json", tmp_path / "schemas")[0]) == 1


def test_other_libraries_open_it(placed):
    pystac = pytest.importorskip("pystac", reason="needs pystac")
    from pystac.extensions.classification import ClassificationExtension
    from pystac.extensions.file import FileExtension
    from pystac.extensions.label import LabelExtension
    from pystac.extensions.projection import ProjectionExtension

    collection = pystac.Collection.from_file(str(placed.root / "stac" / "collection.json"))
    items = list(collection.get_items(recursive=True))
    assert len(items) == 2 and all(item.get_collection().id == collection.id for item in items)
    for item in items:
        asset = item.assets["labels"]
        with rasterio.open(asset.get_absolute_href()) as file:
            values, colours = file.read(1), file.colormap(1)
            box = transform_bounds(file.crs, "EPSG:4326", *file.bounds)
            place = ProjectionExtension.ext(item)
            assert place.epsg == file.crs.to_epsg() and place.shape == list(file.shape)
            assert place.transform == list(file.transform)[:6]
        assert np.allclose(item.bbox, box, atol=1e-6)
        classes = {one.value: one for one in ClassificationExtension.ext(asset).classes}
        assert set(np.unique(values)) <= set(classes)
        for value, one in classes.items():
            if value != 255:
                assert one.color_hint == "{:02X}{:02X}{:02X}".format(*colours[value][:3])
        counts = LabelExtension.ext(item).label_overviews[0].counts
        assert sum(one.count for one in counts) == (values < 255).sum()
        content = Path(asset.get_absolute_href()).read_bytes()
        sums = FileExtension.ext(asset)
        assert sums.size == len(content)
        assert sums.checksum == "1220" + hashlib.sha256(content).hexdigest()


def test_what_an_item_knows_of_its_source(placed):
    first, second = items_in(placed.root / "stac").values()
    assert first["id"] == "naip--m_1_2012-" + first["id"][-16:]
    assert first["properties"]["datetime"] == "2012-07-31T16:00:00Z"
    links = {link["rel"]: link for link in first["links"]}
    assert links["derived_from"]["href"] == links["source"]["href"] == "https://example.org/items/1"
    times = [second["properties"][f"{name}datetime"] for name in ("", "start_", "end_")]
    assert times == [None, "2012-01-01T00:00:00Z", "2012-12-31T23:59:59Z"]
    assert "derived_from" not in {link["rel"] for link in second["links"]}
    left_out = (placed.root / "stac" / "left_out.jsonl").read_text()
    assert "naip/wrong.image" in left_out and "none of its assets is an image" in left_out
    extent = json.loads((placed.root / "stac" / "collection.json").read_text())["extent"]
    assert extent["temporal"]["interval"] == [["2012-01-01T00:00:00Z", "2012-12-31T23:59:59Z"]]
    assert np.allclose(extent["spatial"]["bbox"][0], first["bbox"])


def test_images_that_lie_nowhere_and_no_date(finished, export, tmp_path):
    export(finished, tmp_path / "d", *STAC)
    found = items_in(tmp_path / "d")
    assert set(found) == {f"{item['id']}.json" for item in found.values()}
    assert len(found) == len(IMAGES)
    for item in found.values():
        assert item["geometry"] is None and "bbox" not in item
        assert item["properties"]["datetime"] is None
        assert item["properties"]["start_datetime"] == "1900-01-01T00:00:00Z"
        assert not any(name.startswith("proj:") for name in item["properties"])
        assert item["id"].isascii() and "/" not in item["id"]


def test_the_same_bytes_again_and_elsewhere(placed, export, tmp_path):
    class Run:
        folder = placed

    for name in ("a", "b"):
        export(Run, tmp_path / "x" / name, *STAC)
    assert contents(tmp_path / "x" / "a") == contents(tmp_path / "x" / "b")
    there = items_in(tmp_path / "x" / "a")
    for name, item in items_in(placed.root / "stac").items():
        assert there[name] | {"assets": None} == item | {"assets": None}
    export(Run, tmp_path / "u", *STAC, "--url", "https://example.org/maps/")
    hrefs = {item["assets"]["labels"]["href"] for item in items_in(tmp_path / "u").values()}
    assert "https://example.org/maps/naip/m%201_2012.tif" in hrefs


def test_many_items_stand_in_catalogues(finished, export, tmp_path, monkeypatch):
    pystac = pytest.importorskip("pystac", reason="needs pystac")
    monkeypatch.setattr(stac, "PART_LINKS", 4)
    export(finished, tmp_path / "d", *STAC)
    (tmp_path / "schemas").mkdir()
    found = invalid(tmp_path / "d" / "collection.json", tmp_path / "schemas")
    assert found == ([], 3 + len(IMAGES))
    collection = pystac.Collection.from_file(str(tmp_path / "d" / "collection.json"))
    assert [len(list(part.get_items())) for part in collection.get_children()] == [4, 2]
    for item in collection.get_items(recursive=True):
        assert item.get_parent().get_parent().id == collection.id


def test_names_of_classes_are_written_anew(copied, capsys):
    before = contents(copied.root / "stac")
    single.paint(copied.root, max_failed=1.0)  # nothing is new
    assert contents(copied.root / "stac") == before
    names = Names((Named((0,), "água & <b>", "#0102ff"), Named((1, 2), "Bäume")))
    copied.names.write_text(names.text())
    single.paint(copied.root, max_failed=1.0)
    (item, _) = items_in(copied.root / "stac").values()
    classes = item["assets"]["labels"]["classification:classes"]
    titles = {one["title"]: (one["name"], one.get("color_hint")) for one in classes}
    assert titles["água & <b>"] == ("agua-b", "0102FF")
    assert titles["Bäume"][0] == "Baume"
    assert item["properties"]["label:classes"][0]["classes"] == [
        one["title"] for one in classes[:-1]
    ]  # fmt: skip


def test_what_somebody_put_in_its_place_is_left_alone(copied, capsys):
    shutil.rmtree(copied.root / "stac")
    (copied.root / "stac").mkdir()
    (copied.root / "stac" / "mine.txt").write_text("mine")
    copied.update_run(stac="")
    kept.write_catalogue(copied)
    assert contents(copied.root / "stac") == {"mine.txt": b"mine"}
    assert "warning: no STAC items of the label maps" in capsys.readouterr().err
