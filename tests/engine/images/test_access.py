"""What an image may open beside itself: nothing outside the archive, nothing over a network."""

import html
import os
import shutil
import struct
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from PIL import Image
from rasterio.transform import from_origin
from rasterio.vrt import WarpedVRT

from alps.engine.base.errors import SourceError
from alps.engine.images.archive import Survey
from alps.engine.images.beside import check_beside
from alps.engine.images.raster import RasterReader
from alps.engine.images.reading import Reading
from alps.engine.images.references import Access
from alps.engine.images.sources import find_sources, root_of
from alps.engine.images.windows import Window
from alps.engine.planning.make import make_plan
from alps.engine.settings import FilledSourceSettings

SIDE = 64
SECRET = b"root:x:0:0:" * 2000


@pytest.fixture(scope="module")
def server():
    """An HTTP server on loopback; ``asked`` are the requests that reached it."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(404)
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *about):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        thread = threading.Thread(target=served.serve_forever, daemon=True)
        thread.start()
        served.asked = asked
        served.address = f"http://127.0.0.1:{served.server_port}"
        yield served
        served.shutdown()
        thread.join()


@pytest.fixture
def place(tmp_path):
    """SRC with an image, and files outside it."""
    (tmp_path / "src" / "sub").mkdir(parents=True)
    (tmp_path / "out").mkdir()
    save(tmp_path / "src" / "i.tif")
    save(tmp_path / "out" / "o.tif")
    (tmp_path / "out" / "secret").write_bytes(SECRET)
    return tmp_path / "src"


def save(path, **options):
    pixels = np.random.default_rng(2).integers(1, 255, (3, SIDE, SIDE), np.uint8)
    profile = {"driver": "GTiff", "width": SIDE, "height": SIDE, "count": 3, "dtype": "uint8"}
    with rasterio.open(path, "w", **(profile | options)) as file:
        file.write(pixels)
    return pixels


def mosaic(path, name, relative="1", extra="", band=""):
    """A VRT whose three bands are those of ``name``."""
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{b}">{band}<SimpleSource>'
        f'<SourceFilename relativeToVRT="{relative}">{name}</SourceFilename>'
        f"<SourceBand>{b}</SourceBand></SimpleSource></VRTRasterBand>"
        for b in (1, 2, 3)
    )
    size = f'rasterXSize="{SIDE}" rasterYSize="{SIDE}"'
    path.write_text(f"<VRTDataset {size}>{extra}{bands}</VRTDataset>")


def raw(path, name):
    path.write_text(
        f'<VRTDataset rasterXSize="{SIDE}" rasterYSize="{SIDE}"><VRTRasterBand dataType="Byte" '
        f'band="1" subClass="VRTRawRasterBand"><SourceFilename relativeToVRT="1">{name}'
        "</SourceFilename><ImageOffset>0</ImageOffset><PixelOffset>1</PixelOffset>"
        f"<LineOffset>{SIDE}</LineOffset></VRTRasterBand></VRTDataset>"
    )


def service(address):
    """A TMS as GDAL describes it."""
    return (
        f'<GDAL_WMS><Service name="TMS"><ServerUrl>{address}/${{z}}/${{x}}/${{y}}.png</ServerUrl>'
        "</Service><DataWindow><UpperLeftX>-180</UpperLeftX><UpperLeftY>90</UpperLeftY>"
        f"<LowerRightX>180</LowerRightX><LowerRightY>-90</LowerRightY><SizeX>{SIDE}</SizeX>"
        f"<SizeY>{SIDE}</SizeY><TileLevel>0</TileLevel></DataWindow><BlockSizeX>{SIDE}</BlockSizeX>"
        f"<BlockSizeY>{SIDE}</BlockSizeY><BandsCount>3</BandsCount></GDAL_WMS>"
    )


def ers(path, data, kind="ERStorage"):
    path.write_text(
        f'DatasetHeader Begin\n\tVersion = "6.0"\n\tDataFile = "{data}"\n\tDataSetType = {kind}\n'
        "\tDataType = Raster\n\tByteOrder = LSBFirst\n\tRasterInfo Begin\n"
        f"\t\tCellType = Unsigned8BitInteger\n\t\tNrOfLines = {SIDE}\n"
        f"\t\tNrOfCellsPerLine = {SIDE}\n\t\tNrOfBands = 1\n\tRasterInfo End\nDatasetHeader End\n"
    )


def mrf(path, before="", inside=""):
    page = f'<Size x="{SIDE}" y="{SIDE}" c="1"/><PageSize x="{SIDE}" y="{SIDE}" c="1"/>'
    path.write_text(
        f"<MRF_META>{before}<Raster>{page}<Compression>NONE</Compression>{inside}</Raster>"
        "</MRF_META>"
    )


def item(text):
    return f'<Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">{text}</MDI></Metadata>'


def of_local_files(src):
    """Images that lead to a file outside SRC, by what they do."""
    secret = src.parent / "out" / "secret"
    raw(src / "raw.vrt", "../out/secret")
    raw(src / "absolute.vrt", secret)
    mosaic(src / "image.vrt", "../out/o.tif")
    mosaic(src / "link.vrt", "link.tif")
    (src / "link.tif").symlink_to(src.parent / "out" / "o.tif")
    mosaic(src / "nested.vrt", "raw.vrt")
    shutil.copy(src / "raw.vrt", src / "named-otherwise.tif")
    mosaic(src / "page.vrt", "GTIFF_DIR:1:../out/o.tif")
    mosaic(src / "entity.vrt", "&#46;&#46;/out/o.tif")
    mosaic(src / "overviews.vrt", "i.tif", extra=item(src.parent / "out" / "o.tif"))
    mosaic(
        src / "overview.vrt",
        "i.tif",
        band='<Overview><SourceFilename relativeToVRT="1">../out/o.tif</SourceFilename>'
        "<SourceBand>1</SourceBand></Overview>",
    )
    mosaic(src / "child.vrt", "i.tif<x/>", extra="")
    mosaic(src / "twice.vrt", '../out/o.tif" RELATIVETOVRT="0')
    mosaic(src / "unknown.vrt", "i.tif", extra=f"<DEMPath>{secret}</DEMPath>")
    ers(src / "e.ers", "../out/secret")
    mrf(src / "m.mrf", inside=f"<DataFile>{secret}</DataFile>")
    (src / "m.idx").write_bytes(struct.pack(">QQ", 0, SIDE * SIDE))
    save(src / "p.pix", driver="PCIDSK", INTERLEAVING="FILE")
    content = (src / "p.pix").read_bytes()
    (src / "p.pix").write_bytes(content.replace(b"p.001" + b" " * 13, b"../out/secret".ljust(18)))
    shutil.copy(src / "i.tif", src / "aux.tif")
    (src / "aux.tif.aux.xml").write_text(
        f"<PAMDataset>{item(src.parent / 'out' / 'o.tif')}</PAMDataset>"
    )
    save(src / "tagged.tif")
    with rasterio.open(src / "tagged.tif", "r+") as file:
        file.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=str(src.parent / "out" / "o.tif"))
    mosaic(src / "tagged.vrt", "tagged.tif")
    names = sorted(path.name for path in src.iterdir() if path.is_file())
    fine = {"i.tif", "link.tif", "m.idx", "p.001", "p.002", "p.003", "aux.tif.aux.xml"}
    return [src / name for name in names if name not in fine]


def of_network(src, address):
    """Images that lead to an address."""
    described = service(address)
    mosaic(src / "curl.vrt", f"/vsicurl/{address}/a.tif", "0")
    mosaic(src / "zip.vrt", f"/vsizip//vsicurl/{address}/a.zip/a.tif", "0")
    mosaic(src / "http.vrt", f"{address}/a.tif", "0")
    mosaic(src / "s3.vrt", "/vsis3/bucket/a.tif", "0")
    mosaic(src / "inline.vrt", html.escape(described), "0")
    (src / "service.tif").write_text(described)
    mosaic(src / "service.vrt", "service.tif")
    ers(src / "service.ers", "service.tif", "Translated")
    mrf(src / "cached.mrf", f"<CachedSource><Source>/vsicurl/{address}/a</Source></CachedSource>")
    for ending in ("ovr", "msk"):
        shutil.copy(src / "i.tif", src / f"{ending}.tif")
        (src / f"{ending}.tif.{ending}").write_text(described)
    shutil.copy(src / "i.tif", src / "aux.tif")
    overview = item(f"/vsicurl/{address}/a.tif")
    (src / "aux.tif.aux.xml").write_text(f"<PAMDataset>{overview}</PAMDataset>")
    names = sorted(path.name for path in src.iterdir() if path.is_file())
    return [src / n for n in names if n != "i.tif" and n.endswith((".vrt", ".tif", ".ers", ".mrf"))]


def read_all(path, reading=None):
    with RasterReader(path, reading) as reader:
        return reader.read(Window(0, 0, reader.width, reader.height)).rgb


def test_files_outside_the_archive_are_not_read(place):
    paths = of_local_files(place)
    assert len(paths) == 19
    for path in paths:
        with pytest.raises(SourceError) as error:
            read_all(path, Reading(access=Access(str(place))))
        assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_nothing_goes_over_the_network(place, server):
    paths = of_network(place, server.address)
    assert len(paths) == 12
    for path in paths:
        with pytest.raises(SourceError):
            read_all(path, Reading(access=Access(str(place))))
    assert server.asked == []


@pytest.mark.parametrize("name", ["curl.vrt", "http.vrt"])
def test_the_network_where_it_is_allowed(place, server, name):
    of_network(place, server.address)
    with pytest.raises(SourceError):
        read_all(place / name, Reading(access=Access(str(place), remote=True)))
    assert server.asked.pop().startswith("/a.tif")
    server.asked.clear()


def test_images_outside_where_they_are_allowed(place):
    mosaic(place / "image.vrt", "../out/o.tif")
    allowed = Reading(access=Access(str(place), outside=True))
    assert (
        read_all(place / "image.vrt", allowed) == read_all(place.parent / "out" / "o.tif")
    ).all()
    # What was found harmless with one allowance is not so without it.
    with pytest.raises(SourceError, match="--allow-vrt-outside"):
        read_all(place / "image.vrt", Reading(access=Access(str(place))))


def test_mosaics_of_an_archive_are_read_as_ever(place):
    pixels = np.moveaxis(read_all(place / "i.tif"), -1, 0)
    crs = {"crs": "EPSG:32631", "transform": from_origin(500_000, 4_000_000, 0.5, 0.5)}
    save(place / "placed.tif", **crs, nodata=0)
    rasterio.shutil.copy(place / "placed.tif", place / "placed.vrt", driver="VRT")
    mosaic(place / "sub" / "up.vrt", "../i.tif")
    mosaic(place / "absolute.vrt", place / "i.tif", "0")
    mosaic(place / "nested.vrt", "sub/up.vrt")
    mosaic(place / "page.vrt", "GTIFF_DIR:1:i.tif")
    (place / "linked.vrt").symlink_to("sub/up.vrt")
    metadata = '<Metadata><MDI key="TIFFTAG_SOFTWARE">a/b\\c</MDI></Metadata>'
    mosaic(place / "talkative.vrt", "i.tif", extra=metadata + "<SRS>EPSG:4326</SRS>")
    reading = Reading(access=Access(str(place)))
    names = ["placed", "sub/up", "absolute", "nested", "page", "linked", "talkative"]
    for name in names:
        assert (np.moveaxis(read_all(place / f"{name}.vrt", reading), -1, 0) == pixels).all(), name
    with WarpedVRT(rasterio.open(place / "placed.tif"), crs="EPSG:4326") as warped:
        rasterio.shutil.copy(warped, place / "warped.vrt", driver="VRT")
        assert read_all(place / "warped.vrt", reading).shape == (warped.height, warped.width, 3)


def test_raw_pixels_in_the_archive_are_read(place):
    values = np.arange(SIDE * SIDE, dtype=np.uint8).reshape(SIDE, SIDE)
    (place / "slc").write_bytes(values.tobytes())
    raw(place / "slc.vrt", "slc")
    ers(place / "e.ers", "slc")
    mrf(place / "m.mrf", inside="<DataFile>slc</DataFile>")
    (place / "m.idx").write_bytes(struct.pack(">QQ", 0, SIDE * SIDE))
    save(place / "p.pix", driver="PCIDSK", INTERLEAVING="FILE")
    save(place / "tiled.pix", driver="PCIDSK", INTERLEAVING="TILED")
    for name in ("slc.vrt", "e.ers", "m.mrf"):
        assert (read_all(place / name)[..., 0] == values).all(), name
    assert (read_all(place / "p.pix") == read_all(place / "tiled.pix")).all()


def test_by_itself_an_image_reads_what_lies_in_its_own_folder(place):
    mosaic(place / "beside.vrt", "i.tif")
    mosaic(place / "sub" / "up.vrt", "../i.tif")
    assert read_all(place / "beside.vrt").any()
    with pytest.raises(SourceError, match="outside the archive"):
        read_all(place / "sub" / "up.vrt")


def test_files_that_name_each_other(place):
    mosaic(place / "a.vrt", "b.vrt")
    mosaic(place / "b.vrt", "a.vrt")
    with pytest.raises(SourceError, match=r"a\.vrt.*name each other"):
        read_all(place / "a.vrt")


@pytest.mark.parametrize("text", ["<VRTDataset", "<!DOCTYPE x [<!ENTITY a 'b'>]><VRTDataset/>"])
def test_what_is_no_well_formed_vrt(place, text):
    (place / "a.vrt").write_text(text)
    with pytest.raises(SourceError, match=r"a\.vrt"):
        read_all(place / "a.vrt")


def test_a_photograph_whose_comment_is_a_vrt_is_a_photograph(place):
    mosaic(place / "a.vrt", "../out/o.tif")
    comment = (place / "a.vrt").read_bytes()
    Image.fromarray(np.full((8, 8, 3), 77, np.uint8)).save(place / "a.jpg", comment=comment)
    assert abs(int(read_all(place / "a.jpg").mean()) - 77) < 3


READ = """
import sys
from alps.engine.images.raster import RasterReader
from alps.engine.images.windows import Window
for path in sys.argv[1:]:
    try:
        with RasterReader(path) as reader:
            reader.read(Window(0, 0, 8, 8))
        print("read")
    except Exception as error:
        print(type(error).__name__, error)
"""


@pytest.mark.parametrize("moment", [-60, 60])
def test_a_pipe_that_came_later_is_seen_too(place, moment):
    """A folder's listing is kept only while the folder stays as it is.

    moment: the folder's last change, in seconds from now; clocks of file systems are coarse, so one
    that is not over tells nothing.
    """
    path = place / "later" / "a.tif"
    path.parent.mkdir()
    path.write_bytes(b"no image")
    changed = time.time_ns() + moment * 10**9
    os.utime(path.parent, ns=(changed, changed))
    check_beside(str(path))
    os.mkfifo(path.with_name("a.tif.ovr"))
    if moment > 0:
        os.utime(path.parent, ns=(changed, changed))
    with pytest.raises(SourceError, match=r"a\.tif\.ovr beside it is a pipe"):
        check_beside(str(path))


def test_pipes_are_not_waited_for(place):
    """In a process of its own: GDAL would wait for ever, and hold Python's lock."""
    os.mkfifo(place / "pipe.tif")
    mosaic(place / "pipe.vrt", "pipe.tif")
    paths = [place / "pipe.tif", place / "pipe.vrt"]
    for ending in ("tif.aux.xml", "tif.ovr", "tif.msk", "tfw", "hdr"):
        (place / ending).mkdir()
        save(place / ending / "a.tif")
        os.mkfifo(place / ending / f"a.{ending}")
        paths.append(place / ending / "a.tif")
    save(place / "sub" / "a.tif")
    os.mkfifo(place / "sub" / "b.ovr")
    os.mkfifo(place / "sub" / "b.tif.aux.xml")
    done = subprocess.run(
        [sys.executable, "-c", READ, *map(str, paths), str(place / "sub" / "a.tif")],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    *refused, fine = done.stdout.splitlines()
    assert len(refused) == len(paths) and fine == "read"
    for line in refused:
        assert line.startswith("SourceError") and "is a pipe" in line


def test_the_root_of_what_is_named(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.tif").touch()
    assert root_of(tmp_path / "a") == root_of(tmp_path / "a" / "x.tif") == str(tmp_path / "a")
    assert root_of(f"{tmp_path}/a/*.tif") == root_of(f"{tmp_path}/a/**/*.tif") == f"{tmp_path}/a"
    assert root_of("s3://bucket/a.tif") is None and root_of(tmp_path / "list.txt") is None


def test_a_run_tells_its_settings_to_whoever_reads_later(place):
    mosaic(place / "sub" / "up.vrt", "../i.tif")
    mosaic(place / "image.vrt", "../out/o.tif")
    settings = FilledSourceSettings(tile=64, overlap=0)
    survey = Survey(Reading.of_archive(place, settings))
    rows = make_plan(find_sources(place), settings, survey).to_pylist()
    assert [bool(row["reason"]) for row in rows] == [False, True, False]  # i.tif, image.vrt, sub
    run = {"source": str(place), "settings": {"source": vars(settings)}}
    assert Reading.of_run(run, None).access == survey.reading.access == Access(str(place))
    open_run = {"source": str(place), "settings": {"source": {"allow_vrt_outside": True}}}
    assert read_all(Path(place, "image.vrt"), Reading.of_run(open_run, None)).any()
