"""Headers that say more pixels than there are."""

import struct
import time

import numpy as np
import pytest
import rasterio

from alps.engine.base.errors import SourceError
from alps.engine.images.raster import RasterReader, probe
from alps.engine.images.sources import Source, find_sources
from alps.engine.images.windows import count_windows, plan_windows
from alps.engine.planning import make
from alps.engine.planning.make import check_windows, make_plan
from alps.engine.settings import FilledSourceSettings

SETTINGS = FilledSourceSettings(tile=1024, overlap=128)
SIDE = 512
TAGS = {"width": 256, "height": 257}


def save(path, pixels=None, side=SIDE, **options):
    if pixels is None:
        pixels = np.random.default_rng(1).integers(0, 255, (3, side, side), np.uint8)
    with rasterio.open(
        path, "w", driver=options.pop("driver", "GTiff"), width=side, height=side,
        count=len(pixels), dtype=pixels.dtype, **options,
    ) as file:  # fmt: skip
        file.write(pixels)
    return path


def flip(path, name, bit):
    """Change one bit of a TIFF's width or height."""
    content = bytearray(path.read_bytes())
    first = struct.unpack("<I", content[4:8])[0]
    for entry in range(struct.unpack("<H", content[first : first + 2])[0]):
        at = first + 2 + 12 * entry
        if struct.unpack("<H", content[at : at + 2])[0] == TAGS[name]:
            content[at + 2 : at + 4] = struct.pack("<H", 4)
            content[at + 8 : at + 12] = struct.pack("<I", SIDE ^ 1 << bit)
    path.write_bytes(content)


LAYOUTS = {
    "strips": {},
    "lzw": {"compress": "lzw", "interleave": "pixel"},
    "tiles": {"tiled": True, "compress": "deflate"},
    "jpeg": {"tiled": True, "compress": "jpeg", "photometric": "ycbcr", "interleave": "pixel"},
}


# A wider image has as many strips as before: none of them can be read, which takes no time.
FLIPS = [
    (layout, name, bit)
    for layout, options in LAYOUTS.items()
    for name in TAGS
    for bit in (12, 20, 30)
    if name == "height" or bit == 30 or "tiled" in options
]


@pytest.mark.parametrize(("layout", "name", "bit"), FLIPS)
def test_a_flipped_bit_in_a_size(tmp_path, layout, name, bit):
    path = save(tmp_path / "a.tif", **LAYOUTS[layout])
    probe(path)
    flip(path, name, bit)
    with pytest.raises(SourceError, match=r"a\.tif.* bytes do not hold them"):
        probe(path)


def huge(path, side, inner="a.tif"):
    path.write_text(
        f'<VRTDataset rasterXSize="{side}" rasterYSize="{side}"><VRTRasterBand dataType="Byte" '
        f'band="1"><SimpleSource><SourceFilename relativeToVRT="1">{inner}</SourceFilename>'
        f'<SourceBand>1</SourceBand><SrcRect xOff="0" yOff="0" xSize="{SIDE}" ySize="{SIDE}"/>'
        f'<DstRect xOff="0" yOff="0" xSize="{SIDE}" ySize="{SIDE}"/></SimpleSource>'
        "</VRTRasterBand></VRTDataset>"
    )


def test_the_other_sources_are_planned_and_it_takes_no_time(tmp_path):
    save(tmp_path / "a.tif")
    huge(tmp_path / "b.vrt", 2_000_000_000)
    (tmp_path / "c.vrt").write_text(
        '<VRTDataset rasterXSize="2000000000" rasterYSize="2000000000">'
        '<VRTRasterBand dataType="Byte" band="1"/></VRTDataset>'
    )
    began = time.perf_counter()
    rows = make_plan(find_sources(tmp_path), SETTINGS).to_pylist()
    assert time.perf_counter() - began < 5
    assert [row["source"] for row in rows] == ["a.tif", "b.vrt", "c.vrt"]
    assert rows[0]["reason"] == "" and all("do not hold" in row["reason"] for row in rows[1:])


def test_images_that_are_mostly_nothing_are_read(tmp_path):
    blank = np.zeros((1, 4096, 4096), np.uint8)
    blank[0, 5, 5] = 1
    options = {"side": 4096, "tiled": True, "blockxsize": 512, "blockysize": 512}
    paths = [
        save(tmp_path / "deflate.tif", blank, compress="deflate", **options),
        save(tmp_path / "zstd.tif", blank, compress="zstd", **options),
        save(tmp_path / "sparse.tif", blank, sparse_ok=True, compress="zstd", **options),
        save(tmp_path / "a.png", blank, side=4096, driver="PNG"),
        save(tmp_path / "a.mrf", blank, side=4096, driver="MRF"),
    ]
    huge(tmp_path / "a.vrt", 5_000, "sparse.tif")  # most of it under no source
    huge(tmp_path / "nested.vrt", 5_000, "a.vrt")
    sizes = []
    for path in [*paths, tmp_path / "a.vrt", tmp_path / "nested.vrt"]:
        with RasterReader(path) as reader:
            sizes.append(reader.width)
    assert sizes == [4096] * 5 + [5_000] * 2


def test_a_file_that_was_cut_off_keeps_its_first_windows(tmp_path):
    half = np.zeros((1, 4096, 4096), np.uint8)
    half[:, :1600] = 7
    path = save(tmp_path / "a.tif", half, side=4096, compress="deflate", interleave="pixel")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert probe(path) == (4096, 4096)


def test_too_many_windows_are_one_row_with_a_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(make, "MOST_WINDOWS", 9)
    save(tmp_path / "a.tif")
    save(tmp_path / "b.tif", side=300)
    settings = FilledSourceSettings(tile=128, overlap=0)
    rows = make_plan(find_sources(tmp_path), settings).to_pylist()
    assert [row["source"] for row in rows] == ["a.tif"] + ["b.tif"] * 9
    assert "512 x 512 pixels, 16 windows" in rows[0]["reason"] and not rows[1]["reason"]


def test_windows_are_counted_before_they_are_made():
    for size in (1, 127, 128, 129, 500, 1000):
        assert count_windows(size, 77, 128, 30) == len(plan_windows(size, 77, 128, 30))
    with pytest.raises(SourceError, match="larger --tile"):
        check_windows(Source("a.tif", "a.tif"), (10**9, 10**9), SETTINGS)
