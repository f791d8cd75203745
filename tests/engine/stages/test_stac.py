"""Runs whose SRC is STAC: the label maps that plain files give, and what only an item knows."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin
from rasters import save_raster
from small_runs import results
from stac_items import collection_of, item_of

from alps.engine.base.errors import RunFolderError
from alps.engine.demo.scenes import SceneSettings, make_scene
from alps.engine.images.dates import date_of
from alps.engine.report.rows.sources import survey_sources
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.items import reading_of, said_of
from alps.engine.run_folder.plan import Plan
from alps.engine.settings import ClusterSettings, RunSettings, SegmentSettings, SourceSettings
from alps.engine.stages.label import label_archive
from alps.engine.stages.verify import repair, verify_archive

SIDE = 96
PLACE = {"crs": "EPSG:26914", "transform": from_origin(486_000, 5_209_000, 1, 1)}

pytestmark = pytest.mark.usefixtures("one_thread", "without_reports")


@pytest.fixture
def image():
    """(4, 96, 96) uint8: red, green, blue and infrared."""
    pixels = make_scene(5, SceneSettings(size=SIDE)).image.clip(1, 254)
    return np.concatenate([np.moveaxis(pixels, -1, 0), pixels[None, ..., 1] // 2 + 60])


@pytest.fixture
def label(tmp_path, options):
    def run(src, out, **source):
        settings = RunSettings(
            source=SourceSettings(**source),
            segment=SegmentSettings(runtime="torch"),
            cluster=ClusterSettings(clusters=2),
        )
        label_archive(src, tmp_path / out, settings, options)
        return RunFolder(tmp_path / out)

    return run


def labels(folder):
    """Label maps by the name of their file."""
    return {path.name: path.read_bytes() for path in (folder.root / "labels").rglob("*.tif")}


def plan_of(folder):
    return {tile.source: tile for tile in Plan.of(folder).firsts()}


def test_items_that_say_what_files_say_give_the_same_label_maps(tmp_path, image, label):
    paths = [
        save_raster(tmp_path / "in" / f"m_{n}.tif", np.roll(image, n, 2), nodata=0, **PLACE)
        for n in (3, 40)
    ]
    items = [item_of(p, tmp_path, version=v) for p, v in zip(paths, ("1.0.0", "1.1.0"),
                                                             strict=True)]  # fmt: skip
    wrong = item_of(paths[0], tmp_path) | {"id": "wrong", "assets": {}}
    src = collection_of([items[1], wrong, items[0]], tmp_path / "items.json")
    plain, stac = label(tmp_path / "in", "plain"), label(src, "stac")
    assert labels(stac) == labels(plain) and len(labels(plain)) == 2
    planned = plan_of(stac)
    assert planned.keys() == {"naip/m_3.tif", "naip/m_40.tif", "naip/wrong.image"}
    assert "none of its assets is an image" in planned["naip/wrong.image"].reason
    assert planned["naip/m_3.tif"].label == "naip/m_3.tif"
    # Given again it has nothing to do, and says nothing of what it knew.
    before = results(stac.root)
    label(src, "stac")
    assert results(stac.root) == before


def test_real_naip_by_items_is_real_naip(tmp_path, shared_data, label):
    (tmp_path / "in").mkdir()
    found = sorted((shared_data / "naip").glob("*.tif"))[:2]
    for path in found:
        with rasterio.open(path) as file:
            window = rasterio.windows.Window(300, 300, SIDE, SIDE)
            pixels, transform = file.read(window=window), file.window_transform(window)
            save_raster(tmp_path / "in" / path.name, pixels, nodata=file.nodata, crs=file.crs,
                        transform=transform)  # fmt: skip
    items = [item_of(tmp_path / "in" / path.name, tmp_path) for path in found]
    src = collection_of(items, tmp_path / "items.json")
    assert labels(label(src, "stac")) == labels(label(tmp_path / "in", "plain"))


def test_nodata_that_only_the_item_knows_is_believed(tmp_path, image, label):
    image[:, :, :30] = 7
    path = save_raster(tmp_path / "a" / "x.tif", image[:3], **PLACE)
    knows = save_raster(tmp_path / "b" / "x.tif", image[:3], nodata=7, **PLACE)
    item = item_of(path, tmp_path)
    for band in item["assets"]["image"]["raster:bands"]:
        band["nodata"] = 7
    stac = label(collection_of([item], tmp_path / "items.json"), "stac")
    assert labels(stac) == labels(label(knows.parent, "plain"))
    with rasterio.open(next((stac.root / "labels").rglob("*.tif"))) as file:
        assert (file.read(1)[:, :30] == 255).all() and (file.read(1)[:, 30:] < 255).all()
    said = json.loads(stac.run_json.read_text())["read"][0]
    assert said["validity"] == ["nodata 7 (its item)"] and said["asset"].startswith("image (")
    # What the user says outranks it, and so does the file.
    everything = label(tmp_path / "items.json", "all", nodata=())
    with rasterio.open(next((everything.root / "labels").rglob("*.tif"))) as file:
        assert (file.read(1) < 255).all()
    item["assets"]["image"]["href"] = "b/x.tif"
    for band in item["assets"]["image"]["raster:bands"]:
        band["nodata"] = 200
    mended = label(collection_of([item], tmp_path / "file.json"), "file")
    assert labels(mended) == labels(stac)


def test_bands_that_only_the_item_names_are_believed(tmp_path, image, label):
    shuffled = image[[3, 2, 0, 1]].astype(np.uint16) * 9
    path = save_raster(tmp_path / "a" / "x.tif", shuffled, **PLACE)
    item = item_of(path, tmp_path)
    item["assets"]["image"]["eo:bands"] = [
        {"name": f"B{n}", "common_name": c} for n, c in enumerate(("nir", "blue", "red", "green"))
    ]
    src = collection_of([item], tmp_path / "items.json")
    stac = label(src, "stac")
    assert labels(stac) == labels(label(path.parent, "told", bands=(3, 4, 2)))
    assert labels(stac) != labels(label(path.parent, "untold"))
    # All who read the run's images read them so, later too.
    run = stac.read_run()
    assert said_of(stac, run).of(path).band_names == ("nir", "blue", "red", "green")
    assert reading_of(stac, run).said_of(path).id == "x"


def test_a_place_that_only_the_item_knows_is_believed(tmp_path, image, label):
    placed = save_raster(tmp_path / "b" / "x.tif", image[:3], **PLACE)
    path = save_raster(tmp_path / "a" / "x.tif", image[:3])
    item = item_of(placed, tmp_path)
    item["assets"]["image"]["href"] = "a/x.tif"
    stac = label(collection_of([item], tmp_path / "items.json"), "stac")
    assert labels(stac) == labels(label(placed.parent, "plain"))
    assert labels(stac) != labels(label(path.parent, "nowhere"))


def test_a_size_that_the_file_has_not_is_a_row_with_a_reason(tmp_path, image, label):
    paths = [save_raster(tmp_path / "in" / f"{n}.tif", image, **PLACE) for n in "ab"]
    items = [item_of(path, tmp_path) for path in paths]
    items[1]["properties"]["proj:shape"] = [SIDE, SIDE + 1]
    stac = label(collection_of(items, tmp_path / "items.json"), "stac")
    assert plan_of(stac)["naip/a.tif"].reason == ""
    assert "97 x 96 pixels (proj:shape)" in plan_of(stac)["naip/b.tif"].reason
    assert list(labels(stac)) == ["a.tif"]


def test_a_run_takes_up_items_that_came_later_or_were_mended(
    tmp_path, image, label, options, capsys
):
    paths = [
        save_raster(tmp_path / "in" / f"{n}.tif", np.roll(image[:3], ord(n), 2), **PLACE)
        for n in "abcd"
    ]
    items = [item_of(path, tmp_path) for path in paths]
    good = json.loads(json.dumps(items))
    items[1]["properties"]["proj:shape"] = [5, 5]  # mended later
    src = collection_of(items[:2], tmp_path / "items.json")
    run = label(src, "out")
    first = labels(run)
    assert list(first) == ["a.tif"]
    for band in good[0]["assets"]["image"]["raster:bands"]:  # and what is known stays
        band["nodata"] = 99
    collection_of([*good[:3]], src)
    label(src, "out")
    assert "1 images at SRC came after this run was planned" in capsys.readouterr().err
    collection_of([good[3], good[2], good[1]], src)  # and what is gone stays too
    label(src, "out")
    assert "2 images at SRC came after this run was planned" in capsys.readouterr().err
    settings = RunSettings(
        segment=SegmentSettings(runtime="torch"), cluster=ClusterSettings(clusters=2)
    )
    label_archive(src, run.root, settings, replace(options, update=True, retry_failed=True))
    assert "are no more at SRC (naip/a.tif)" in capsys.readouterr().err
    assert labels(run).keys() == {"a.tif", "b.tif", "c.tif", "d.tif"}
    assert labels(run)["a.tif"] == first["a.tif"]
    said = said_of(run, run.read_run())
    assert [said.of(path).id for path in paths] == list("abcd") and len(said) == 4
    assert said.of(paths[0]).nodata == () or 99 not in said.of(paths[0]).nodata
    assert (said.of(paths[1]).width, said.of(paths[1]).height) == (SIDE, SIDE)
    assert run.read_run()["items"] == 4 and verify_archive(run).is_right
    assert not list(run.journal.glob(".later*"))
    assert len(list((run.root / "stac" / "items").iterdir())) == 4
    label(src, "out")
    assert "came after" not in capsys.readouterr().err.rpartition("painting")[2]


def test_the_date_of_the_item_outranks_the_name(tmp_path, image, label):
    path = save_raster(tmp_path / "in" / "x_19990101.tif", image, **PLACE)
    stac = label(collection_of([item_of(path, tmp_path)], tmp_path / "items.json"), "stac")
    said = said_of(stac, stac.read_run())
    assert survey_sources(stac.tiles, 1, 1, 2025, said).dates.tolist() == [20120731]
    assert survey_sources(stac.tiles, 1, 1, 2025).dates.tolist() == [19990101]
    assert date_of("x_19990101.tif", str(path), 2025, said) == 20120731
    assert date_of("x_19990101.tif", str(path), 2025, None) == 19990101


def test_a_run_without_what_its_items_said_does_not_go_on_as_if_nothing_was(tmp_path, image, label):
    path = save_raster(tmp_path / "in" / "x.tif", image, **PLACE)
    src = collection_of([item_of(path, tmp_path)], tmp_path / "items.json")
    stac = label(src, "stac")
    copy = stac.items.read_bytes()
    assert verify_archive(stac).is_right
    stac.items.write_bytes(copy[:-9] + b"?" + copy[-8:])
    with pytest.raises(RunFolderError, match=r"items.parquet is damaged"):
        reading_of(stac, stac.read_run())
    shutil.copytree(stac.root, tmp_path / "copy")
    found, lost = repair(RunFolder(tmp_path / "copy"))
    assert [one.name for one in found.findings] == lost == ["journal/items.parquet"]
    stac.items.unlink()
    for act in (lambda: reading_of(stac, stac.read_run()), lambda: label(src, "stac")):
        with pytest.raises(RunFolderError, match=r"items.parquet is missing.*put back a copy"):
            act()
    stac.items.write_bytes(copy)
    label(src, "stac")
