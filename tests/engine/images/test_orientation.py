"""Photographs that are stored sideways come out as viewers show them, window by window."""

import numpy as np
import pytest
import rasterio
from PIL import Image, ImageOps
from rasterio.transform import from_origin

from alps.engine.images.raster import RasterReader
from alps.engine.images.windows import Window, plan_windows

NAMES = ("a.jpg", "a.png", "a.webp", "a.tif")


@pytest.fixture(scope="module")
def photo():
    """(48, 72, 3) uint8, no two corners alike."""
    rng = np.random.default_rng(5)
    coarse = Image.fromarray(rng.integers(0, 255, (4, 6, 3), dtype=np.uint8))
    return coarse.resize((72, 48), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("code", range(1, 9))
@pytest.mark.parametrize("name", NAMES)
def test_windows_of_a_turned_photograph_are_those_of_the_shown_one(tmp_path, photo, name, code):
    exif = Image.Exif()
    exif[0x0112] = code
    options = {"quality": 95, "subsampling": 0} if name == "a.jpg" else {}
    options |= {"lossless": True} if name == "a.webp" else {}
    photo.save(tmp_path / name, exif=exif, **options)
    with Image.open(tmp_path / name) as image:
        shown = np.asarray(ImageOps.exif_transpose(image)).astype(int)
    found = np.zeros(shown.shape, int)
    with RasterReader(tmp_path / name) as reader:
        assert (reader.height, reader.width) == shown.shape[:2]
        assert reader.header.orientation == code
        for window in plan_windows(reader.width, reader.height, 31, 5):
            place = np.s_[window.y : window.y + window.height, window.x : window.x + window.width]
            found[place] = reader.read(window).rgb
    assert np.abs(found - shown).max() <= (2 if name == "a.jpg" else 0)


def test_a_map_stays_as_it_is_stored_and_says_so(tmp_path, photo):
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.save(tmp_path / "a.jpg", exif=exif)
    (tmp_path / "a.jgw").write_text("0.5\n0\n0\n-0.5\n500000.25\n5199999.75\n")
    with RasterReader(tmp_path / "a.jpg") as reader:
        assert reader.is_georeferenced and (reader.width, reader.height) == (72, 48)
        assert reader.transform == from_origin(500_000, 5_200_000, 0.5, 0.5)
        assert [doubt.kind for doubt in reader.header.doubts] == ["orientation"]
        reader.read(Window(0, 0, 72, 48))


def test_an_orientation_that_is_none_is_upright(tmp_path, photo):
    exif = Image.Exif()
    exif[0x0112] = 9
    photo.save(tmp_path / "a.jpg", exif=exif)
    with RasterReader(tmp_path / "a.jpg") as reader, rasterio.open(tmp_path / "a.jpg") as file:
        assert reader.header.orientation == 1 and (reader.height, reader.width) == file.shape
