"""Photographs that are stored sideways come out as viewers show them, window by window."""

import struct
import zlib

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


def chunks_of(png):
    """The chunks of a PNG, whole, by their names; pixels may be several."""
    found, at = [], 8
    while at < len(png):
        length, kind = struct.unpack(">I4s", png[at : at + 8])
        found.append((kind, png[at : at + length + 12]))
        at += length + 12
    return found


def chunk(kind, data):
    return struct.pack(">I4s", len(data), kind) + data + struct.pack(">I", zlib.crc32(kind + data))


def test_a_png_that_says_it_last(tmp_path, photo):
    exif, path = Image.Exif(), tmp_path / "a.png"
    exif[0x0112] = 6
    photo.save(path, exif=exif)
    png = path.read_bytes()
    parts = dict(chunks_of(png))
    others = [part for kind, part in chunks_of(png) if kind not in (b"eXIf", b"IEND")]
    path.write_bytes(png[:8] + b"".join([*others, parts[b"eXIf"], parts[b"IEND"]]))
    with RasterReader(path) as reader:
        assert reader.header.orientation == 6 and (reader.width, reader.height) == (48, 72)


@pytest.mark.parametrize("kind", [b"iTXt", b"tEXt"])
def test_a_png_that_says_it_in_a_text(tmp_path, photo, kind):
    path = tmp_path / "a.png"
    photo.save(path)
    png = path.read_bytes()
    xmp = b'<x tiff:Orientation="3"/>'
    text = b"XML:com.adobe.xmp\0" + (b"\0\0\0\0" if kind == b"iTXt" else b"") + xmp
    head, *rest = [part for _, part in chunks_of(png)]
    path.write_bytes(png[:8] + head + chunk(kind, text) + b"".join(rest))
    with Image.open(path) as image:
        expected = image.getexif().get(0x0112, 1)
    with RasterReader(path) as reader:
        assert reader.header.orientation == expected == 3


def test_of_other_pngs_no_pixel_is_decoded_for_it(tmp_path, photo, monkeypatch):
    photo.save(tmp_path / "a.png")
    opened = []
    monkeypatch.setattr(Image, "open", opened.append)
    with RasterReader(tmp_path / "a.png") as reader:
        assert reader.header.orientation == 1
        assert (reader.read(Window(0, 0, 72, 48)).rgb == np.asarray(photo)).all()
    assert not opened


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
