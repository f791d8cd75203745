"""Where files lie, and which of their bands are colours: what the opened file says decides."""

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.rpc import RPC
from rasterio.transform import from_origin, get_transformer
from rasters import save_raster

from alps.engine.base.errors import SourceError
from alps.engine.images.georeference import Georeference
from alps.engine.images.raster import RasterReader
from alps.engine.images.reading import Reading
from alps.engine.images.sources import find_sources
from alps.engine.labels.writer import LabelMapWriter
from alps.engine.planning.make import make_plan
from alps.engine.settings import ReadSettings, SourceSettings

UTM = "EPSG:32633"
PLACE = from_origin(500_000, 5_200_000, 0.5, 0.5)
SETTINGS = SourceSettings(tile=64, overlap=8)
POLYNOMIALS = RPC(
    height_off=500.0, height_scale=500.0, lat_off=47.0, lat_scale=0.01, line_off=16.0,
    line_scale=16.0, long_off=15.0, long_scale=0.015, samp_off=16.0, samp_scale=16.0,
    line_den_coeff=[1.0] + [0.0] * 19, line_num_coeff=[0.0, 0.0, -1.0] + [0.0] * 17,
    samp_den_coeff=[1.0] + [0.0] * 19, samp_num_coeff=[0.0, 1.0] + [0.0] * 18,
    err_bias=None, err_rand=None,
)  # fmt: skip


def pixels(bands=3, side=32, dtype=np.uint8):
    return np.random.default_rng(1).integers(1, 250, (bands, side, side)).astype(dtype)


def labels_of(folder):
    """Label map of each source, as planned."""
    rows = make_plan(find_sources(folder), SETTINGS).to_pylist()
    assert not any(row["reason"] for row in rows), rows
    return {row["source"]: row["label"] for row in rows}


def painted_like(path, out):
    with RasterReader(path) as reader, LabelMapWriter.like(reader, out, 4) as writer:
        writer.write_rows(0, np.zeros((reader.height, reader.width), np.uint8))
    return rasterio.open(out)


def test_rational_polynomials_travel(tmp_path):
    path = save_raster(tmp_path / "l1b.tif", pixels(), rpcs=POLYNOMIALS)
    with RasterReader(path) as reader:
        assert reader.is_georeferenced and reader.header.place == "RPCs"
    with painted_like(path, tmp_path / "out.tif") as written:
        assert written.rpcs is not None
        assert written.rpcs.to_dict() == rasterio.open(path).rpcs.to_dict()
        assert Georeference.of(written).rpcs is not None


def test_a_part_lies_where_it_does_in_the_whole():
    """Whichever way that is said: a point on Earth is so many pixels nearer to its corner."""
    corners = [(0, 0), (0, 32), (32, 0), (32, 32)]
    points = [GroundControlPoint(row, col, 15 + col / 64, 47 - row / 64) for row, col in corners]
    for whole in (
        Georeference(rasterio.CRS.from_string(UTM), PLACE),
        Georeference(rasterio.CRS.from_epsg(4326), gcps=tuple(points)),
        Georeference(rpcs=POLYNOMIALS),
    ):
        part = whole.seen_from(9, 4)
        seen = []
        for place in (whole, part):
            said = place.transform or list(place.gcps) or place.rpcs
            with get_transformer(said)() as transformer:
                x, y = (500_010, 5_199_990) if place.transform else (15.003, 47.002)
                seen.append(transformer.rowcol(x, y, op=float))
        (row, col), (row_of_part, col_of_part) = seen
        assert (row_of_part, col_of_part) == pytest.approx((row - 4, col - 9), abs=1e-3)
        assert part.crs == whole.crs
    assert POLYNOMIALS.line_off == 16  # what is handed on is a copy
    assert Georeference().seen_from(3, 4) == Georeference()


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.bmp"])
def test_world_files_make_label_maps_geotiff(tmp_path, name):
    """As map services deliver orthophotos; without one the label map is a PNG."""
    Image.fromarray(np.moveaxis(pixels(), 0, -1)).save(tmp_path / name)
    assert labels_of(tmp_path) == {name: "a.png"}
    letters = {"a.jpg": "jgw", "a.png": "pgw", "a.bmp": "bpw"}[name]
    (tmp_path / f"a.{letters}").write_text("0.5\n0\n0\n-0.5\n500000.25\n5199999.75\n")
    wkt = rasterio.CRS.from_string(UTM).to_wkt().replace('"', "&quot;")
    sidecar = f"<PAMDataset><SRS>{wkt}</SRS></PAMDataset>"
    (tmp_path / f"{name}.aux.xml").write_text(sidecar)
    assert labels_of(tmp_path) == {name: "a.tif"}
    with painted_like(tmp_path / name, tmp_path / "out.tif") as written:
        assert written.crs == UTM and written.transform == PLACE


def test_labels_of_two_files_never_share_a_name_once_one_lies_somewhere(tmp_path):
    Image.fromarray(pixels(1)[0]).save(tmp_path / "a.png")
    (tmp_path / "a.pgw").write_text("1\n0\n0\n-1\n0\n0\n")
    save_raster(tmp_path / "a.tif", pixels())
    assert labels_of(tmp_path) == {"a.png": "a.png.tif", "a.tif": "a.tif.tif"}


FORMATS = {"a.img": "HFA", "a.dat": "ENVI", "a": "ENVI", "a.bil": "EHdr", "a.ntf": "NITF",
           "a.mrf": "MRF", "a.ers": "ERS", "a.pix": "PCIDSK"}  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("how", ["folder", "glob"])
def test_every_format_that_is_read_is_found(tmp_path, name, how):
    """None of the files beside it is taken for an image: headers, indices, statistics."""
    place = {} if FORMATS[name] == "NITF" else {"crs": UTM, "transform": PLACE}
    save_raster(tmp_path / name, pixels(), driver=FORMATS[name], **place)
    sources = find_sources(tmp_path if how == "folder" else str(tmp_path / "*"))
    assert [source.name for source in sources] == [name]
    with RasterReader(sources[0].path) as reader:
        assert reader.header.driver == FORMATS[name] and reader.header.bands == (1, 2, 3)
        assert reader.is_georeferenced == bool(place)
    (row,) = make_plan(sources, SETTINGS).to_pylist()
    assert row["label"] == ("a.tif" if place else "a.png") and not row["reason"]


def test_a_header_of_its_own_is_no_image(tmp_path):
    (tmp_path / "notes.hdr").write_text("text")
    (tmp_path / "notes.txt").write_text("text")
    with pytest.raises(SourceError, match="No images"):
        find_sources(tmp_path)


NAMED = {
    ("Blue", "Green", "Red", "NIR"): (3, 2, 1),
    ("band_red", "band-green", "BAND BLUE", "red edge"): (1, 2, 3),
    ("near infra-red", "blue", "green", "red"): (4, 3, 2),
}


@pytest.mark.parametrize("names", NAMED)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_descriptions_name_the_colours(tmp_path, names, dtype):
    path = save_raster(tmp_path / "a.tif", pixels(4, dtype=dtype))
    with rasterio.open(path, "r+") as file:
        file.descriptions = names
    with RasterReader(path) as reader:
        assert reader.header.bands == NAMED[names]
        said = [doubt.text for doubt in reader.header.doubts]
        # Writers call bands of bytes red, green and blue unasked: a contradiction is spoken of.
        contradicts = dtype == np.uint8 and NAMED[names] != (1, 2, 3)
        assert len(said) == contradicts


@pytest.mark.parametrize(
    "names",
    [("red edge", "green", "blue", "x"), ("red", "red", "green", "blue"), ("r", "g", "b", "n")],
)
def test_descriptions_that_name_no_colours_decide_nothing(tmp_path, names):
    path = save_raster(tmp_path / "a.tif", pixels(4, dtype=np.uint16), photometric="minisblack")
    with rasterio.open(path, "r+") as file:
        file.descriptions = names
    with RasterReader(path) as reader:
        assert reader.header.bands == (1, 2, 3) and reader.header.bands_why == "the first three"
        assert "--bands" in reader.header.doubts[0].text
    with RasterReader(path, Reading(ReadSettings(bands=(4, 3, 2)))) as reader:
        assert reader.header.bands == (4, 3, 2) and not reader.header.doubts


def test_pages_are_spoken_of(tmp_path):
    pages = [Image.fromarray(page) for page in pixels()]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    pages[0].save(tmp_path / "one.tif")
    with RasterReader(tmp_path / "a.tif") as reader:
        (doubt,) = reader.header.doubts
        assert doubt.kind == "pages" and "holds 3 images" in doubt.text
    with RasterReader(tmp_path / "one.tif") as reader:
        assert not reader.header.doubts


def test_what_decides_validity_and_place_is_named(tmp_path):
    path = save_raster(tmp_path / "a.tif", pixels(4), nodata=0, crs=UTM, transform=PLACE)
    with rasterio.open(path, "r+") as file:
        file.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    with RasterReader(path) as reader:
        assert reader.header.validity == ("nodata 0", "band 4, called alpha (--alpha auto)")
        assert reader.header.place == UTM
    with RasterReader(path, Reading(ReadSettings(nodata=(3.0, 0.5), alpha="ignore"))) as reader:
        assert reader.header.validity == ("--nodata 3,0.5",)
