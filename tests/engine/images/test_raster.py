"""Any image comes out as 8-bit RGB and a mask; a bad file comes out as one clear sentence."""

import io
import itertools
import os
import struct
import subprocess
import sys
import warnings
import zlib

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.enums import ColorInterp

from alps.engine.base.errors import SourceError
from alps.engine.images import raster
from alps.engine.images.raster import RasterReader
from alps.engine.images.reading import Reading
from alps.engine.images.sources import find_sources
from alps.engine.images.windows import Window, plan_windows
from alps.engine.settings import ReadSettings

pytestmark = pytest.mark.filterwarnings(
    "ignore::rasterio.errors.NotGeoreferencedWarning", "ignore::PendingDeprecationWarning"
)
WHOLE = Window(0, 0, 60, 40)
UTM = "EPSG:26914"


def read(path, window=None, bands=None):
    with RasterReader(path, Reading(ReadSettings(bands=bands))) as reader:
        return reader.read(window or Window(0, 0, reader.width, reader.height))


@pytest.fixture(scope="module")
def photo():
    """(40, 60, 3) uint8, smooth enough for JPEG."""
    rng = np.random.default_rng(5)
    coarse = Image.fromarray(rng.integers(0, 255, (5, 8, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((60, 40), Image.Resampling.BICUBIC))


def encoded(image, **options):
    file = io.BytesIO()
    image.save(file, **options)
    return file.getvalue()


def by_windows(reader):
    rgb = np.zeros((reader.height, reader.width, 3), np.uint8)
    valid = np.zeros((reader.height, reader.width), bool)
    for window in plan_windows(reader.width, reader.height, 23, 5):
        tile = reader.read(window)
        place = np.s_[window.y : window.y + window.height, window.x : window.x + window.width]
        rgb[place], valid[place] = tile.rgb, tile.valid
    return rgb, valid


KINDS = [
    (dtype, missing, bands, crs)
    for dtype, missing, bands, crs in itertools.product(
        ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"],
        ["none", "value", "nan", "alpha", "mask"],
        [1, 2, 3, 5],
        [None, UTM],
    )
    if not (missing == "nan" and "int" in dtype)
    and not (missing == "alpha" and (dtype not in ("uint8", "uint16") or bands not in (1, 3)))
    and (crs is None or bands == 3)
]


@pytest.mark.parametrize(("dtype", "missing", "bands", "crs"), KINDS)
def test_every_kind_of_raster(make_raster, dtype, missing, bands, crs):
    made = make_raster(dtype, bands, missing, crs)
    with RasterReader(made.path) as reader:
        assert (reader.width, reader.height, reader.dtype) == (60, 40, dtype)
        assert reader.band_count == bands + (missing == "alpha")
        assert reader.is_georeferenced == (crs is not None)
        assert reader.crs == crs
        tile = reader.read(WHOLE)
        rgb, valid = by_windows(reader)
    assert tile.rgb.dtype == np.uint8 and tile.rgb.shape == (40, 60, 3)
    assert (tile.valid == made.valid).all()
    chosen = made.pixels[[0, 1, 2] if bands >= 3 else [0, 0, 0]]
    if dtype == "uint8":
        assert (tile.rgb == np.moveaxis(chosen, 0, -1)).all()
    else:
        assert tile.rgb[made.valid].min() == 0 and tile.rgb[made.valid].max() == 255
        for channel in range(3):  # brighter stays brighter
            order = np.argsort(chosen[channel][made.valid])
            assert (np.diff(tile.rgb[..., channel][made.valid][order].astype(int)) >= 0).all()
    assert (rgb == tile.rgb).all() and (valid == tile.valid).all()


def test_windows_of_a_stretched_scene_agree_whichever_is_read_first(make_raster):
    made = make_raster("uint16", 3, "value")
    corner = Window(50, 30, 10, 10)
    assert (read(made.path, corner).rgb == read(made.path).rgb[30:40, 50:60]).all()


def test_nodata_does_not_reach_the_stretch(make_raster):
    with_hole, without = make_raster("int16", 1, "value"), make_raster("int16", 1, "none")
    inside = Window(7, 0, 53, 40)
    with RasterReader(with_hole.path) as reader:
        low = reader._scene_limits().arrays()[0]
    assert low.min() >= without.pixels.min()
    assert read(with_hole.path, inside).valid.all()


def test_bands_are_chosen_by_number(make_raster):
    made = make_raster("uint8", 5)
    tile = read(made.path, bands=(4, 3, 2))
    assert (tile.rgb == np.moveaxis(made.pixels[[3, 2, 1]], 0, -1)).all()
    assert (read(made.path, bands=(5,)).rgb == made.pixels[4][..., None]).all()
    assert (read(made.path, bands=(2, 2, 1)).rgb[..., 1] == made.pixels[1]).all()


@pytest.mark.parametrize(
    ("bands", "text"),
    [
        ((4, 3, 9), "the file has 5 bands"),
        ((0, 1, 2), "has 5 bands"),
        ((6,), "has 5 bands"),
        ((1, 2), "1 .grey. or 3"),
    ],
)
def test_bands_that_do_not_fit(make_raster, bands, text):
    made = make_raster("uint8", 5)
    with pytest.raises(SourceError, match=text) as caught:
        RasterReader(made.path, Reading(ReadSettings(bands=bands)))
    assert str(made.path) in str(caught.value)


def test_bands_in_another_order_are_found_by_their_meaning(make_raster):
    made = make_raster("uint8", 4)
    with rasterio.open(made.path, "r+") as file:
        file.colorinterp = [
            ColorInterp.blue, ColorInterp.green, ColorInterp.red, ColorInterp.undefined,
        ]  # fmt: skip
    assert (read(made.path).rgb == np.moveaxis(made.pixels[[2, 1, 0]], 0, -1)).all()


def test_alpha_is_no_colour_unless_asked_for(make_raster):
    made = make_raster("uint8", 1, "alpha")
    tile = read(made.path)
    assert (tile.rgb == made.pixels[0][..., None]).all() and (tile.valid == made.valid).all()
    # Asked for by number it is near infrared that someone called alpha, and no mask.
    asked = read(made.path, bands=(2, 1, 1))
    assert (asked.rgb[..., 0] == made.valid * 255).all() and asked.valid.all()


def test_one_missing_band_of_three_leaves_a_pixel_valid(make_raster):
    made = make_raster("float32", 4, nodata=-9)
    pixels = made.pixels.copy()
    pixels[0, 0, 0] = np.nan
    pixels[1, 0, 1] = -9
    pixels[:3, 0, 2] = [np.inf, np.nan, -9]  # band 4 has data, and is not selected
    with rasterio.open(made.path, "r+") as file:
        file.write(pixels)
    tile = read(made.path)
    assert tile.valid[0].tolist()[:4] == [True, True, False, True]
    assert tile.rgb[0, 0, 0] == 0 and tile.rgb[0, 1, 1] == 0
    assert read(made.path, bands=(1,)).valid[0, :3].tolist() == [False, True, False]


def test_black_is_valid_where_no_nodata_is_declared(tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "black.png")
    assert read(tmp_path / "black.png").valid.all()


def test_a_scene_without_a_valid_pixel(make_raster):
    made = make_raster("uint16", 3, nodata=5)
    with rasterio.open(made.path, "r+") as file:
        file.write(np.full((3, 40, 60), 5, np.uint16))
    assert not read(made.path).valid.any()


def test_a_large_scene_is_sampled_by_patches(make_raster, monkeypatch):
    made = make_raster("uint16", 3, "value", width=1500, height=1100, tiled=True)
    with RasterReader(made.path) as reader:
        expected = reader._scene_limits().arrays()[0]
    monkeypatch.setattr(raster, "SAMPLE_WHOLE_BELOW", 1000)
    with RasterReader(made.path) as reader:
        seen = []
        read_bands = reader._read_bands
        monkeypatch.setattr(
            reader, "_read_bands", lambda window, *_: seen.append(window) or read_bands(window)
        )
        low, high = reader._scene_limits().arrays()
    assert len(seen) == 1024 and all(w.width == w.height == 32 for w in seen)
    assert (np.abs(low - expected) <= 200).all() and (high > low).all()


def test_patches_that_miss_all_data_fall_back_to_the_whole_scene(make_raster, monkeypatch):
    made = make_raster("uint16", 1, nodata=0, width=1500, height=1100)
    island = np.zeros((1, 1100, 1500), np.uint16)
    island[0, 70, 40:46] = [500, 600, 700, 800, 900, 1000]
    with rasterio.open(made.path, "r+") as file:
        file.write(island)
    monkeypatch.setattr(raster, "SAMPLE_WHOLE_BELOW", 1000)
    monkeypatch.setattr(raster, "SAMPLE_SIDE", 1500)
    monkeypatch.setattr(raster, "SAMPLE_PATCHES", 10)
    monkeypatch.setattr(raster, "_patches", lambda *_: [Window(500, 500, 9, 9)] * 2)
    assert read(made.path).rgb[70, 40:46, 0].max() == 255


def test_a_band_that_the_patches_miss_is_stretched_over_the_whole_scene(make_raster, monkeypatch):
    made = make_raster("uint16", 3, nodata=0, width=200, height=100)
    last = np.zeros((100, 200), np.uint16)
    last[70:80, 40:50] = np.linspace(500, 1000, 10)
    with rasterio.open(made.path, "r+") as file:
        file.write(last, 3)
    monkeypatch.setattr(raster, "SAMPLE_WHOLE_BELOW", 1000)
    monkeypatch.setattr(raster, "_patches", lambda *_: [Window(0, 0, 9, 9)] * 2)
    shown = read(made.path).rgb[75, 40:50, 2]
    assert shown[0] == 0 and shown[-1] == 255 and len(np.unique(shown)) == 10


FORMATS = {
    "a.png": {"format": "PNG"},
    "a.bmp": {"format": "BMP"},
    "a.webp": {"format": "WEBP", "lossless": True},
    "a.jp2": {"format": "JPEG2000"},
    "lzw.tif": {"format": "TIFF", "compression": "tiff_lzw"},
    "plain.tif": {"format": "TIFF"},
    "mislabelled.jpg": {"format": "PNG"},
}


@pytest.mark.parametrize("name", FORMATS)
def test_lossless_formats(tmp_path, photo, name):
    (tmp_path / name).write_bytes(encoded(Image.fromarray(photo), **FORMATS[name]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        tile = read(tmp_path / name)
    assert (tile.rgb == photo).all() and tile.valid.all()


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_jpeg_agrees_with_pillow(tmp_path, photo, options):
    Image.fromarray(photo).save(tmp_path / "a.jpg", quality=95, subsampling=0, **options)
    expected = np.asarray(Image.open(tmp_path / "a.jpg"))
    difference = read(tmp_path / "a.jpg").rgb.astype(int) - expected
    assert np.abs(difference).max() <= 2


@pytest.mark.parametrize(
    "options", [{"photometric": "ycbcr"}, {"photometric": "rgb"}, {"interleave": "band"}]
)
def test_jpeg_in_tiff(tmp_path, photo, options):
    path = tmp_path / "tiled.tif"
    options = {"interleave": "pixel", "tiled": True, "blockxsize": 16, "blockysize": 16, **options}
    profile = {"driver": "GTiff", "width": 60, "height": 40, "count": 3, "dtype": "uint8"}
    with rasterio.open(path, "w", compress="jpeg", jpeg_quality=95, **profile, **options) as file:
        file.write(np.moveaxis(photo, -1, 0))
    assert np.abs(read(path).rgb.astype(int) - photo).mean() < 4


@pytest.mark.parametrize("name", ["a.jpg", "a.tif"])
def test_cmyk_becomes_rgb_as_pillow_does_it(tmp_path, photo, name):
    Image.fromarray(photo).convert("CMYK").save(tmp_path / name)
    expected = np.asarray(Image.open(tmp_path / name).convert("RGB"))
    tile = read(tmp_path / name)
    assert np.abs(tile.rgb.astype(int) - expected).max() <= 3 and tile.valid.all()


@pytest.mark.parametrize("colours", [2, 4, 16, 200])
@pytest.mark.parametrize("name", ["p.png", "p.gif", "p.tif", "p.bmp"])
def test_palettes_are_expanded(tmp_path, photo, name, colours):
    image = Image.fromarray(photo).quantize(colours)
    image.save(tmp_path / name)
    tile = read(tmp_path / name)
    assert (tile.rgb == np.asarray(image.convert("RGB"))).all() and tile.valid.all()


@pytest.mark.parametrize("transparency", [3, bytes([0, 255, 0, 128] + [255] * 12)])
def test_transparent_palette_colours_are_invalid(tmp_path, photo, transparency):
    image = Image.fromarray(photo).quantize(16)
    image.save(tmp_path / "p.png", transparency=transparency)
    expected = np.asarray(Image.open(tmp_path / "p.png").convert("RGBA"))[..., 3] > 0
    assert (read(tmp_path / "p.png").valid == expected).all() and not expected.all()


@pytest.mark.parametrize("name", ["one.png", "one.tif"])
def test_one_bit_images_are_black_and_white(tmp_path, photo, name):
    image = Image.fromarray(photo).convert("1")
    image.save(tmp_path / name)
    expected = np.asarray(image)[..., None] * np.uint8(255)
    assert (read(tmp_path / name).rgb == expected).all()


def test_grey_and_alpha_png(tmp_path, photo):
    image = Image.fromarray(photo).convert("LA")
    alpha = np.arange(2400).reshape(40, 60) % 5 > 0
    image.putalpha(Image.fromarray(alpha.astype(np.uint8) * 9))
    image.save(tmp_path / "la.png")
    tile = read(tmp_path / "la.png")
    assert (tile.rgb == np.asarray(image)[..., :1]).all() and (tile.valid == alpha).all()


def test_an_animated_gif_shows_its_first_frame(tmp_path, photo):
    frames = [Image.fromarray(image).quantize(16) for image in (photo, 255 - photo, photo // 2)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert (read(tmp_path / "a.gif").rgb == np.asarray(frames[0].convert("RGB"))).all()


def test_sixteen_bit_png(tmp_path, photo):
    Image.fromarray(photo[..., 0].astype(np.uint16) * 13 + 300).save(tmp_path / "g.png")
    tile = read(tmp_path / "g.png")
    assert tile.rgb.min() == 0 and tile.rgb.max() == 255
    assert (tile.rgb[..., 0] == tile.rgb[..., 2]).all()


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
@pytest.mark.parametrize(
    "name", [*FORMATS, "a.jpg", "progressive.jpg", "a.gif", "grey.png", "p.png", "rgba.png"]
)
def test_truncated_files_never_give_pixels(tmp_path, photo, name, kept):
    noise = np.random.default_rng(0).integers(0, 255, (200, 60, 3), dtype=np.uint8)
    image = Image.fromarray(np.concatenate([photo, noise]))
    options = FORMATS.get(name, {"progressive": name.startswith("progressive")})
    convert = {"a.gif": "P", "grey.png": "L", "p.png": "P", "rgba.png": "RGBA"}.get(name)
    image = image.convert(convert) if convert else image
    options = {"format": "GIF" if name == "a.gif" else name[-3:].upper(), **options}
    options["format"] = options["format"].replace("JPG", "JPEG")
    whole = encoded(image, **options)
    (tmp_path / name).write_bytes(whole)
    read(tmp_path / name)
    (tmp_path / name).write_bytes(whole[: int(len(whole) * kept)])
    lost = 0 if name == "a.bmp" else 200  # BMP begins with the bottom row
    for window in (None, Window(0, lost, 30, 40)):
        with pytest.raises(SourceError) as caught:
            read(tmp_path / name, window)
        message = str(caught.value)
        assert name in message and "\n" not in message and "previous exception" not in message


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("empty.png", b"", "empty"),
        ("text.jpg", b"hello world\n" * 50, "not recognized"),
        ("numbers.jpg", b"1 2 3\n2 2 3\n1 3 3\n2 3 3\n", "not recognized"),  # GDAL's XYZ format
        ("zeros.tif", bytes(5000), "not recognized"),
        ("page.tif", b"<html>404</html>", "not recognized"),
    ],
)
def test_what_is_no_image(tmp_path, name, content, text):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(SourceError, match=text) as caught:
        RasterReader(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_what_cannot_be_opened(tmp_path):
    with pytest.raises(SourceError, match=r"gone\.png: No such file"):
        RasterReader(tmp_path / "gone.png")
    with pytest.raises(SourceError, match="folder"):
        RasterReader(tmp_path)
    with pytest.raises(SourceError, match="null"):
        RasterReader("a\0b.png")
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")
    with pytest.raises(SourceError, match=r"xff\.png") as caught:
        RasterReader(odd)
    assert str(caught.value).encode()


def test_complex_numbers_are_refused(make_raster):
    with pytest.raises(SourceError, match="amplitude"):
        RasterReader(make_raster("complex64", 1).path)


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize("colour_type", [0, 2, 6])
@pytest.mark.parametrize("interlaced", [0, 1])
def test_a_header_that_promises_too_much(tmp_path, colour_type, interlaced):
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, colour_type, 0, 0, interlaced)
    data = zlib.compress(bytes(1000))
    (tmp_path / "bomb.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", data) + png_chunk(b"IEND", b"")
    )  # fmt: skip
    with pytest.raises(SourceError, match=r"bomb\.png"):
        read(tmp_path / "bomb.png", Window(0, 0, 256, 256))


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_header_that_promises_too_much(tmp_path, photo, progressive):
    data = bytearray(encoded(Image.fromarray(photo), format="JPEG", progressive=progressive))
    at = data.index(b"\xff\xc2" if progressive else b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", 65_000, 65_000)
    (tmp_path / "bomb.jpg").write_bytes(data)
    for window in (Window(0, 0, 256, 256), Window(60_000, 60_000, 9, 9)):
        with pytest.raises(SourceError):
            read(tmp_path / "bomb.jpg", window)


def test_a_damaged_png_is_noticed(tmp_path, photo):
    data = bytearray(encoded(Image.fromarray(photo), format="PNG"))
    data[len(data) // 2] ^= 255
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(SourceError):
        read(tmp_path / "a.png")


def test_a_window_outside_the_image_is_a_mistake_of_the_caller(make_raster):
    with RasterReader(make_raster().path) as reader:
        for window in (Window(-1, 0, 5, 5), Window(50, 0, 11, 5), Window(0, 0, 0, 5)):
            with pytest.raises(ValueError, match="not inside"):
                reader.read(window)


def test_reading_leaves_no_file_behind(make_raster, tmp_path):
    made = make_raster("uint16", 3, "value")
    before = sorted(tmp_path.iterdir())
    read(made.path)
    assert sorted(tmp_path.iterdir()) == before


BUCKET = """
import http.server, sys

content = open(sys.argv[1], "rb").read()

class Bucket(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path != "/bucket/scenes/one.tif":
            return self.send_error(404)
        first, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")
        part = content[int(first) : int(last or len(content)) + 1]
        self.send_response(206)
        end = int(first) + len(part) - 1
        self.send_header("Content-Range", f"bytes {first}-{end}/{len(content)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Bucket)
print(server.server_port, flush=True)
server.serve_forever()
"""


def test_an_object_on_s3_is_read_by_ranges(make_raster, monkeypatch):
    """A server on loopback stands in for S3; a process, because GDAL opens holding the GIL."""
    made = make_raster("uint16", 3, "value", width=700, height=600, tiled=True)
    command = [sys.executable, "-c", BUCKET, str(made.path)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        settings = {
            "AWS_S3_ENDPOINT": f"127.0.0.1:{server.stdout.readline().strip()}",
            "AWS_HTTPS": "NO", "AWS_VIRTUAL_HOSTING": "FALSE", "AWS_NO_SIGN_REQUEST": "YES",
            "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1",
        }  # fmt: skip
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        (source,) = find_sources("s3://bucket/scenes/one.tif")
        tile = read(source.path)
        (gone,) = find_sources("s3://bucket/scenes/gone.tif")
        with pytest.raises(SourceError, match="gone"):
            read(gone.path)
    finally:
        server.kill()
        server.communicate()
    assert (tile.valid == made.valid).all() and (tile.rgb == read(made.path).rgb).all()


def test_ground_control_points_are_a_georeference(make_raster):
    made = make_raster()
    points = [
        rasterio.control.GroundControlPoint(0, 0, 5, 6),
        rasterio.control.GroundControlPoint(9, 9, 7, 8),
    ]
    with rasterio.open(made.path, "r+") as file:
        file.gcps = points, rasterio.CRS.from_string(UTM)
    with RasterReader(made.path) as reader:
        assert reader.is_georeferenced and len(reader.gcps[0]) == 2 and reader.crs is None


def test_real_naip(shared_data):
    path = sorted((shared_data / "naip").glob("*.tif"))[0]
    with RasterReader(path) as reader, rasterio.open(path) as file:
        assert reader.crs == UTM and reader.nodata == 0 and reader.band_count == 4
        window = Window(100, 90, 300, 200)
        tile = reader.read(Window(0, 0, reader.width, reader.height))
        part = reader.read(window)
        pixels = file.read([1, 2, 3])
    assert (part.rgb == tile.rgb[90:290, 100:400]).all()
    assert (tile.rgb == np.moveaxis(pixels, 0, -1)).all()
    assert (tile.valid == (pixels > 0).any(axis=0)).all()


@pytest.mark.parametrize("missing", [None, 0, 255])
def test_real_neon(shared_data, missing):
    for path in sorted((shared_data / "neon").glob("*.tif")):
        with RasterReader(path) as reader, rasterio.open(path) as file:
            if reader.nodata != missing:
                continue
            rgb, valid = by_windows(reader)
            pixels = file.read()
        assert (rgb == np.moveaxis(pixels, 0, -1)).all()
        expected = np.ones(valid.shape, bool) if missing is None else (pixels != missing).any(0)
        assert (valid == expected).all()
        break
    else:
        pytest.fail(f"no file with nodata {missing}")
