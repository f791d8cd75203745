"""Names beside a GeoTIFF of labels, as GDAL and QGIS read them."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest

from alps.engine.labels import categories
from alps.engine.labels.palette import palette
from alps.engine.naming.names import Named, Names, shown_classes

NAMES = Names((Named((1, 3), '<water> & "mud"', "#010203"), Named((2,), "cloud", ignore=True)))
SHOWN = shown_classes(NAMES, palette(5))


@pytest.fixture
def label_map(tmp_path):
    rasterio = pytest.importorskip("rasterio")
    path = tmp_path / "a b.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=4, height=4, count=1, dtype="uint8", nodata=255,
        crs="EPSG:32631", transform=rasterio.transform.from_origin(0, 4, 1, 1),
    ) as dataset:  # fmt: skip
        dataset.write(np.ones((1, 4, 4), np.uint8))
    return path


def style_of(label_map):
    return label_map.with_suffix(".qml")


def test_gdal_and_qgis_have_the_names(label_map):
    import rasterio

    categories.write(label_map, SHOWN)
    with rasterio.open(label_map) as dataset:
        assert f"{label_map}.aux.xml" in dataset.files
        assert dataset.read(1).tolist() == [[1] * 4] * 4
    band = ET.parse(f"{label_map}.aux.xml").getroot().find("PAMRasterBand")
    names = [one.text or "" for one in band.find("CategoryNames")]
    assert names == ["cluster 0", '<water> & "mud"', "", "", "cluster 4"]
    rows = [[cell.text for cell in row] for row in band.iter("Row")]
    assert rows[1] == ["1", '<water> & "mud"', "1", "2", "3"] and len(rows) == 3
    entries = ET.parse(style_of(label_map)).getroot().findall(".//paletteEntry")
    assert [entry.get("value") for entry in entries] == ["0", "1", "4"]
    assert entries[1].get("label") == '<water> & "mud"' and entries[1].get("color") == "#010203"


def test_names_that_were_taken_back_are_gone(label_map):
    categories.write(label_map, SHOWN)
    categories.write(label_map, None)
    assert [path.name for path in label_map.parent.iterdir()] == ["a b.tif"]


def test_what_others_wrote_there_stays(label_map):
    style, statistics = style_of(label_map), label_map.with_name("a b.tif.aux.xml")
    style.write_text("<qgis>mine</qgis>")
    statistics.write_text("<PAMDataset/>")
    categories.write(label_map, None)
    assert statistics.read_text() == "<PAMDataset/>"
    categories.write(label_map, SHOWN)
    assert style.read_text() == "<qgis>mine</qgis>" and "water" in statistics.read_text()
    categories.write(label_map, None)
    assert style.exists() and not statistics.exists()


def test_nothing_is_beside_a_png(tmp_path):
    categories.write(tmp_path / "a.png", SHOWN)
    assert list(tmp_path.iterdir()) == []
