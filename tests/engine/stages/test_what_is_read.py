"""Whole runs over files that lie: right label maps, or a word that says what to do."""

import json

import numpy as np
import pytest
import rasterio
from PIL import Image, ImageOps
from rasterio.enums import ColorInterp
from rasterio.transform import from_origin
from rasters import save_raster

from alps.engine.base.errors import RunFolderError
from alps.engine.demo.scenes import SceneSettings, make_scene
from alps.engine.images.raster import RasterReader
from alps.engine.images.reading import Reading
from alps.engine.images.windows import Window
from alps.engine.settings import ClusterSettings, RunSettings, SegmentSettings, SourceSettings
from alps.engine.stages.label import label_archive

SIDE = 96
PLACE = {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_200_000, 0.5, 0.5)}

pytestmark = pytest.mark.usefixtures("one_thread", "without_reports")


@pytest.fixture(scope="module")
def image():
    """(96, 96, 3) uint8."""
    return make_scene(5, SceneSettings(size=SIDE)).image.clip(1, 254)


@pytest.fixture
def label(tmp_path, options):
    """A function that labels tmp_path/in with these settings of sources; the run folder."""

    def run(out="out", **source):
        settings = RunSettings(
            source=SourceSettings(**source),
            segment=SegmentSettings(runtime="torch"),
            cluster=ClusterSettings(clusters=2),
        )
        label_archive(tmp_path / "in", tmp_path / out, settings, options)
        return tmp_path / out

    (tmp_path / "in").mkdir()
    return run


def labels_of(path):
    with rasterio.open(path) as file:
        return file.read(1)


def facts(out):
    return json.loads((out / "run.json").read_text())


def test_a_lake_in_infrared_that_is_called_alpha(tmp_path, image, label, capsys):
    y, x = np.mgrid[:SIDE, :SIDE]
    lake = (x - 60) ** 2 + (y - 60) ** 2 < 500
    infrared = np.where(lake, 0, image[..., 1] // 2 + 60).astype(np.uint8)
    names = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    bands = np.concatenate([np.moveaxis(image, -1, 0), infrared[None]])
    save_raster(tmp_path / "in" / "m.tif", bands, names, **PLACE)
    out = label()
    assert (labels_of(out / "labels" / "m.tif") != 255).all()
    said = capsys.readouterr().err
    assert "reading GTiff uint8, bands 1,2,3 of 4 as red, green, blue" in said
    assert said.count("called alpha but has the values of an image") == 1
    assert "called alpha" in facts(out)["warnings"]["alpha"]
    (kind,) = facts(out)["read"]
    assert (kind["bands"], kind["sources"], kind["place"]) == ([1, 2, 3], 1, "EPSG:32633")
    masked = labels_of(label("masked", alpha="use") / "labels" / "m.tif")
    assert (masked[lake] == 255).all() and (masked[~lake] != 255).all()


def test_fill_that_nobody_declared_is_not_labelled(tmp_path, image, label):
    pixels = np.moveaxis(image, -1, 0).astype(np.float32) / 255 * 0.4
    pixels[:, :, :30] = -9999
    save_raster(tmp_path / "in" / "r.tif", pixels, **PLACE)
    labels = labels_of(label() / "labels" / "r.tif")
    assert (labels[:, :30] == 255).all() and (labels[:, 30:] != 255).all()


def test_pieces_share_a_stretch_from_the_plan_to_the_regions(tmp_path, image, label):
    whole = np.moveaxis(image, -1, 0).astype(np.uint16) * 40
    for number, columns in enumerate((np.s_[:48], np.s_[48:])):
        save_raster(tmp_path / "in" / f"t{number}.tif", whole[:, :, columns].copy(), **PLACE)
    out = label()
    run = facts(out)
    (limits,) = run["stretches"].values()
    expected = np.percentile(whole.reshape(3, -1), [2, 98], axis=1)
    assert np.allclose([limits["low"], limits["high"]], expected)
    with RasterReader(tmp_path / "in" / "t0.tif", Reading.of_run(run, None)) as reader:
        assert reader.describe().stretch == "archive"
    with pytest.raises(RunFolderError, match="stretch auto there, scene now"):
        label(stretch="scene")


def test_an_orthophoto_with_a_world_file_stays_in_its_place(tmp_path, image, label):
    Image.fromarray(image).save(tmp_path / "in" / "a.jpg", quality=95)
    (tmp_path / "in" / "a.jgw").write_text("0.5\n0\n0\n-0.5\n500000.25\n5199999.75\n")
    out = label()
    with rasterio.open(out / "labels" / "a.tif") as file:
        assert file.transform == PLACE["transform"] and file.shape == (SIDE, SIDE)


def test_a_photograph_that_is_stored_sideways_has_its_labels_as_it_is_shown(tmp_path, image, label):
    shown = Image.fromarray(image[:64])
    exif = Image.Exif()
    exif[0x0112] = 6
    shown.rotate(90, expand=True).save(tmp_path / "in" / "a.png", exif=exif)
    out = label()
    with Image.open(out / "labels" / "a.png") as labels, Image.open(tmp_path / "in" / "a.png") as a:
        assert labels.size == ImageOps.exif_transpose(a).size == shown.size
    with RasterReader(tmp_path / "in" / "a.png") as reader:
        tile = reader.read(Window(0, 0, SIDE, 64))
    assert (tile.rgb == image[:64]).all()


def test_an_archive_without_a_valid_pixel_is_not_told_to_lower_the_gate(tmp_path, label):
    save_raster(tmp_path / "in" / "n.tif", np.zeros((3, 64, 64), np.uint8), nodata=0)
    with pytest.raises(RunFolderError, match="no pixel of the archive is valid") as caught:
        label()
    assert "pred-iou" not in str(caught.value) and "--nodata none" in str(caught.value)
