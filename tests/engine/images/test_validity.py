"""Which pixels hold data, where files lie about it, say nothing, or are told otherwise."""

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.enums import ColorInterp
from rasters import save_raster

from alps.engine.images.facts.validity import find_fills
from alps.engine.images.raster import RasterReader
from alps.engine.images.reading import Reading
from alps.engine.images.windows import Window, plan_windows
from alps.engine.settings import ReadSettings

SIDE = 96
FLOAT_MIN = float(np.finfo(np.float32).min)


@pytest.fixture(scope="module")
def scene():
    """(3, 96, 96) uint8 between 40 and 200, and where the lake is, (96, 96) bool."""
    rng = np.random.default_rng(2)
    y, x = np.mgrid[:SIDE, :SIDE]
    lake = (x - 60) ** 2 + (y - 60) ** 2 < 400
    ground = np.where(lake, 50, 120)[..., None] + rng.normal(0, 8, (SIDE, SIDE, 3))
    return np.moveaxis(np.clip(ground, 40, 200).astype(np.uint8), -1, 0), lake


@pytest.fixture
def save(tmp_path):
    """A function that writes bands (B, H, W) as a GeoTIFF."""

    def write(pixels, colours=None, **options):
        return save_raster(tmp_path / "a.tif", pixels, colours, **options)

    return write


def read(path, **settings):
    with RasterReader(path, Reading(ReadSettings(**settings))) as reader:
        tile = reader.read(Window(0, 0, reader.width, reader.height))
        return tile, {doubt.kind for doubt in reader.describe().doubts}


RGBA = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]


@pytest.fixture
def infrared(scene, save):
    """A file whose fourth band is near infrared, 0 over most of the lake, and called alpha."""
    pixels, lake = scene
    rng = np.random.default_rng(3)
    band = np.where(lake, 0, 150) + rng.normal(0, 4, lake.shape)
    return save(np.concatenate([pixels, band.clip(0, 255).astype(np.uint8)[None]]), RGBA)


def test_infrared_that_is_called_alpha_masks_nothing(infrared, scene):
    tile, doubts = read(infrared)
    assert tile.valid.all() and doubts == {"alpha"}
    assert (tile.rgb == np.moveaxis(scene[0], 0, -1)).all()


def test_the_user_says_what_alpha_is(infrared, scene):
    lake = scene[1]
    tile, doubts = read(infrared, alpha="use")
    assert 0.3 < 1 - tile.valid[lake].mean() < 0.7 and tile.valid[~lake].all() and not doubts
    tile, doubts = read(infrared, alpha="ignore")
    assert tile.valid.all() and not doubts


@pytest.mark.parametrize("feather", [False, True])
def test_alpha_that_is_a_mask_masks_unless_told_otherwise(scene, save, feather):
    pixels, lake = scene
    alpha = np.where(lake, 0, 255).astype(np.uint8)
    if feather:  # a mosaic's soft edge
        alpha[:, 1:33] = np.minimum(alpha[:, 1:33], np.arange(32) * 7 + 20)
    path = save(np.concatenate([pixels, alpha[None]]), RGBA)
    tile, doubts = read(path)
    assert (tile.valid == ~lake).all() and not doubts
    assert read(path, alpha="ignore")[0].valid.all()


FILLED = {
    "-9999 of floats": (np.float32, -9999.0, 0.002),
    "-3.4e38 of floats": (np.float32, FLOAT_MIN, 0.002),
    "1e38 of floats": (np.float32, 1e38, 0.002),
    "-32768": (np.int16, -32768, 8),
    "-999 beside large numbers": (np.int16, -999, 60),
    "-9999 of 32 bits": (np.int32, -9999, 60),
    "-10000, no convention, alone below zero": (np.float64, -10000.0, 0.002),
}


@pytest.mark.parametrize("kind", FILLED)
@pytest.mark.parametrize("share", [0.02, 0.34, 0.6])
def test_a_fill_value_that_nobody_declared(scene, save, kind, share):
    dtype, fill, scale = FILLED[kind]
    empty = np.zeros((SIDE, SIDE), bool)
    empty[:, : int(SIDE * share)] = True
    pixels = (scene[0] * scale).astype(dtype)
    filled = np.where(empty, np.array(fill, dtype), pixels)
    tile, doubts = read(save(filled))
    assert (tile.valid == ~empty).all()
    assert len(doubts) == 1 and next(iter(doubts)).startswith("fill ")
    inside = tile.rgb[~empty]
    assert np.percentile(inside, 2) < 10 and np.percentile(inside, 98) > 245
    assert len(np.unique(inside)) > 20
    declared, doubts = read(save(filled, nodata=fill))
    assert not doubts
    assert (declared.rgb[~empty] == inside).all() and (declared.valid == tile.valid).all()
    kept, _ = read(save(filled), nodata=())
    assert kept.valid.all()


def test_two_fill_values_and_a_declared_one(scene, save):
    pixels = (scene[0] * 0.002).astype(np.float32)
    pixels[:, :10], pixels[:, 10:20], pixels[:, 20:30] = -9999, FLOAT_MIN, -1
    tile, doubts = read(save(pixels, nodata=-1))
    assert not tile.valid[:30].any() and tile.valid[30:].all() and len(doubts) == 2


def test_a_tile_of_nothing_but_fill(save):
    tile, doubts = read(save(np.full((3, 40, 40), -9999, np.float32)))
    assert not tile.valid.any() and {"fill -9999", "empty"} == doubts


def test_saturated_pixels_stay_data_but_set_no_limit(scene, save):
    pixels = scene[0].astype(np.uint16) * 10
    pixels[:, :, :20] = 65535  # cloud
    tile, doubts = read(save(pixels))
    assert tile.valid.all() and (tile.rgb[:, :20] == 255).all()
    assert len(np.unique(tile.rgb[:, 20:])) > 50 and "fill 65535" in doubts


def test_what_is_dense_is_no_fill():
    depths = np.random.default_rng(0).normal(-9000, 500, 5000).round()
    depths = np.append(depths[depths > -9999], [-9999] * 20)
    assert find_fills(depths.astype(np.float32)).all == ()
    assert find_fills(np.repeat(np.array([-1, 0, 1, 2, 50], np.int16), 99)).all == ()
    assert find_fills(np.zeros(0, np.float32)).all == ()
    two_kinds = np.repeat(np.array([0, 65535], np.uint16), 99)
    assert find_fills(two_kinds).all == ()


def test_a_band_that_turns_black_or_white_is_spoken_of(scene, save):
    pixels = scene[0].astype(np.uint16) * 10
    pixels[:, :, :40] = 0  # a collar that the file does not declare, and not far from the rest
    assert "saturated black" in read(save(pixels))[1]
    path = save(scene[0].astype(np.uint16) * 10)
    assert read(path)[1] == set()
    assert "saturated white" in read(path, stretch="0,900")[1]


def test_given_nodata_stands_in_place_of_the_files(scene, save):
    pixels, lake = scene[0].copy(), scene[1].copy()
    pixels[:, lake], pixels[:, 0] = 7, 8
    path = save(pixels, nodata=8)
    assert not read(path)[0].valid[0].any() and read(path)[0].valid[lake].all()
    tile = read(path, nodata=(7.0,))[0]
    assert (tile.valid == ~lake).all()
    tile = read(path, nodata=(7.0, 8.0))[0]
    lake[0] = True
    assert (tile.valid == ~lake).all()
    assert read(path, nodata=())[0].valid.all()
    assert read(path, nodata=(256.0, -1.0, 7.5))[0].valid.all()


@pytest.mark.parametrize("nodata", [0, 255])
@pytest.mark.parametrize("given", [False, True])
def test_the_frayed_edge_of_a_lossy_file_is_no_data(tmp_path, nodata, given):
    y, x = np.mgrid[:200, :200]
    collar = x + 0.4 * y < 70  # a turned scene's
    rgb = np.random.default_rng(0).normal(120, 10, (3, 200, 200)).clip(60, 190)
    rgb[:, collar] = nodata
    profile = {"driver": "GTiff", "width": 200, "height": 200, "count": 3, "dtype": "uint8",
               "photometric": "ycbcr", "compress": "jpeg", "jpeg_quality": 75}  # fmt: skip
    if not given:
        profile["nodata"] = nodata
    path = tmp_path / "a.tif"
    with rasterio.open(path, "w", **profile) as file:
        file.write(rgb.astype(np.uint8))
    with rasterio.open(path) as file:
        stored = file.read()
    exact = (stored != nodata).any(axis=0)
    assert (exact & collar).sum() > 100  # what used to be labelled
    reading = Reading(ReadSettings(nodata=(float(nodata),) if given else None))
    with RasterReader(path, reading) as reader:
        whole = reader.read(Window(0, 0, 200, 200)).valid
        by_windows = np.zeros_like(whole)
        for window in plan_windows(200, 200, 37, 4):
            place = np.s_[window.y : window.y + window.height, window.x : window.x + window.width]
            by_windows[place] = reader.read(window).valid
    assert (by_windows == whole).all()
    assert (whole & collar).sum() < 0.1 * (exact & collar).sum()
    assert whole[~collar].mean() > 0.99


def test_dark_ground_away_from_nodata_stays_in_a_lossy_file(tmp_path):
    rgb = np.full((3, 128, 128), 6, np.uint8)  # open water
    rgb[:, :32] = 0
    profile = {"driver": "GTiff", "width": 128, "height": 128, "count": 3, "dtype": "uint8"}
    with rasterio.open(tmp_path / "a.tif", "w", compress="jpeg", nodata=0, **profile) as file:
        file.write(rgb)
    valid = read(tmp_path / "a.tif")[0].valid
    assert not valid[:32].any() and valid[32 + 16 :].all()


def test_infrared_in_a_png(tmp_path, scene):
    pixels = np.moveaxis(scene[0], 0, -1)
    alpha = np.clip(pixels[..., 0].astype(int) - 50, 0, 255).astype(np.uint8)
    Image.fromarray(np.dstack([pixels, alpha])).save(tmp_path / "a.png")
    assert read(tmp_path / "a.png")[0].valid.all()
