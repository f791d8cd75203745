"""Images read out of a store: few requests, whatever the server does, and nothing but the image."""

import numpy as np
import pytest
import rasterio.shutil
from rasterio.transform import from_origin
from rasters import save_raster
from s3_server import REFUSED_KEY, Rule

from alps.engine.base.errors import SourceAwayError, SourceError
from alps.engine.images import gdal
from alps.engine.images.raster import RasterReader
from alps.engine.images.reading import Reading
from alps.engine.images.references import Access
from alps.engine.images.windows import Window

SIDE = 512
TILED = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate"}
# A format, how it is written, and the most requests that a window of 512 x 512 takes, the header's
# included, where three bands of noise are 768 KiB.
FORMATS = {
    "tiled.tif": ("GTiff", TILED, 3),
    "strips.tif": ("GTiff", {}, 2),
    "cog.tif": ("COG", {}, 3),
    "a.png": ("PNG", {}, 5),
    "a.jpg": ("JPEG", {}, 3),
    "a.jp2": ("JP2OpenJPEG", {}, 4),
    "a.webp": ("WEBP", {}, 2),
    "a.bmp": ("BMP", {}, 3),
    "a.ppm": ("PNM", {}, 2),
}


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    pixels = np.random.default_rng(0).integers(0, 255, (3, SIDE, SIDE), np.uint8)
    for name, (driver, options, _) in FORMATS.items():
        save_raster(folder / name, pixels, driver=driver, **options)
    return folder


@pytest.fixture
def stored(s3, images, prefix, monkeypatch):
    """A function that places an image and returns GDAL's name of it."""
    monkeypatch.setitem(gdal.GDAL_OPTIONS, "GDAL_HTTP_RETRY_DELAY", "0.02")
    monkeypatch.setitem(gdal.GDAL_OPTIONS, "GDAL_HTTP_LOW_SPEED_TIME", "1")
    monkeypatch.setattr("alps.engine.stores.client.RETRIES", 1)

    def place(name):
        s3.put(f"{prefix}/{name}", images / name)
        s3.take_log()
        return f"/vsis3/bucket/{prefix}/{name}"

    return place


def read(path, reading=None):
    with RasterReader(path, reading) as reader:
        return reader.read(Window(0, 0, reader.width, reader.height)).rgb


@pytest.mark.parametrize("name", FORMATS)
def test_requests_a_tile(s3, stored, images, name, record_property):
    assert (read(stored(name)) == read(images / name)).all()
    requests = s3.take_log()
    record_property("requests", len(requests))
    print(f"{name}: {len(requests)} requests")
    assert len(requests) <= FORMATS[name][2], requests
    assert {request.method for request in requests} == {"GET"}
    assert all(request.path.endswith(name) for request in requests)  # nothing beside it


def test_a_header_is_one_request(s3, stored):
    path = stored("tiled.tif")
    with RasterReader(path) as reader:
        assert reader.width == SIDE and reader.header
    assert len(s3.take_log()) == 1


@pytest.mark.parametrize("honest", [False, True])
@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("name", FORMATS)
def test_a_body_cut_short_once_is_asked_for_again(s3, stored, images, name, first, honest):
    """Whether the connection breaks, or a server says that these few bytes are all."""
    path = stored(name)
    s3.misbehave(Rule(name, times=first), Rule(name, bytes_sent=1000, honest=honest, times=1))
    assert (read(path) == read(images / name)).all()


@pytest.mark.parametrize("honest", [False, True])
@pytest.mark.parametrize("name", FORMATS)
def test_bodies_that_are_always_cut_short_are_no_pixels(s3, stored, name, honest):
    path = stored(name)
    s3.misbehave(Rule(name, times=1), Rule(name, bytes_sent=1000, honest=honest))
    with pytest.raises(SourceError) as error:
        read(path)
    assert "\n" not in str(error.value) and f"{name}: " in str(error.value)


@pytest.mark.parametrize("first", [0, 1])
def test_a_store_that_fails_is_away(s3, stored, images, first):
    path, name = stored("tiled.tif"), "tiled.tif"
    s3.misbehave(Rule(name, times=first), Rule(name, status=503, times=3))
    assert (read(path) == read(images / name)).all()
    s3.misbehave(Rule(name, times=first), Rule(name, status=500))
    with pytest.raises(SourceAwayError, match=f"{name}: the store answers 500"):
        read(path)
    s3.misbehave()
    assert (read(path) == read(images / name)).all()  # GDAL does not keep that it failed


def test_refused_or_gone_is_away(s3, stored, images, monkeypatch):
    path, name = stored("tiled.tif"), "tiled.tif"
    s3.misbehave(Rule(name, status=403))
    with pytest.raises(SourceAwayError, match=r"s3://bucket/.* refuses it \(403\); check AWS_"):
        read(path)
    s3.misbehave()
    with pytest.raises(SourceAwayError, match=r"gone\.tif: it is not there"):
        read(path.replace(name, "gone.tif"))
    assert (read(path) == read(images / name)).all()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", REFUSED_KEY)
    with pytest.raises(SourceAwayError, match="refuses it"):
        read(path)


@pytest.mark.slow
def test_a_server_that_fell_silent(s3, stored, monkeypatch):
    monkeypatch.setattr("alps.engine.stores.client.SILENCE_TIMEOUT", "1s")
    path = stored("tiled.tif")
    s3.misbehave(Rule("tiled.tif", times=1), Rule("tiled.tif", seconds=3))
    with pytest.raises(SourceAwayError, match="check the endpoint and the network"):
        read(path)


def test_a_server_that_is_gone(stored, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(SourceAwayError, match="check the endpoint"):
        read("/vsis3/bucket/a.tif")


def test_a_file_of_a_web_server(s3, stored, images):
    path = stored("tiled.tif").replace("/vsis3/", f"/vsicurl/{s3.url}/")
    assert (read(path) == read(images / "tiled.tif")).all()
    assert len(s3.take_log()) <= 4
    with pytest.raises(SourceAwayError, match=f"{s3.url}.*gone.tif: it is not there"):
        read(path.replace("tiled", "gone"))


def test_an_object_leads_gdal_nowhere(s3, images, prefix, tmp_path):
    """Neither by a description of a mosaic, nor by metadata, nor by what lies beside it."""
    s3.put(f"{prefix}/secret.tif", images / "tiled.tif")
    secret = f"/vsis3/bucket/{prefix}/secret.tif"
    place = {"crs": "EPSG:32631", "transform": from_origin(500_000, 4_000_000, 1, 1)}
    save_raster(tmp_path / "a.tif", np.ones((3, 64, 64), np.uint8), **place)
    rasterio.shutil.copy(tmp_path / "a.tif", tmp_path / "a.vrt", driver="VRT")
    described = (tmp_path / "a.vrt").read_text().replace('relativeToVRT="1">a.tif', f">{secret}")
    assert secret in described
    s3.put(f"{prefix}/mosaic.tif", described.encode())
    s3.put(f"{prefix}/mosaic.vrt", described.encode())
    with rasterio.open(tmp_path / "a.tif", "r+") as file:
        file.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=secret)
    s3.put(f"{prefix}/tagged.tif", tmp_path / "a.tif")
    save_raster(tmp_path / "plain.tif", np.ones((3, 64, 64), np.uint8))
    s3.put(f"{prefix}/plain.tif", tmp_path / "plain.tif")
    s3.put(f"{prefix}/plain.tif.ovr", described.encode())
    s3.put(f"{prefix}/plain.tif.msk", described.encode())
    for name in ("mosaic.tif", "mosaic.vrt", "tagged.tif"):
        with pytest.raises(SourceError):
            read(f"/vsis3/bucket/{prefix}/{name}")
    assert (read(f"/vsis3/bucket/{prefix}/plain.tif") == 1).all()
    assert not [r for r in s3.take_log() if "secret" in r.path or ".ovr" in r.path]
    allowed = Reading(access=Access(remote=True))
    with RasterReader(f"/vsis3/bucket/{prefix}/mosaic.vrt", allowed) as reader:
        assert reader.width == 64


@pytest.mark.parametrize("path", ["/vsizip/a.zip/a.tif", "/vsimem/a.tif", "/vsistdin/"])
def test_other_handlers_of_gdals_are_not_used(path):
    with pytest.raises(SourceError, match="only files and objects"):
        RasterReader(path)
