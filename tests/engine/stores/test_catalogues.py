"""STAC documents in stores and on web servers: fetched whole, their hrefs are addresses."""

import json

import numpy as np
import pytest
from rasterio.transform import from_origin
from rasters import save_raster
from s3_server import Rule
from stac_items import collection_of, item_of

from alps.engine.base.errors import SourceError, StoreError
from alps.engine.images.raster import RasterReader
from alps.engine.images.references import Access
from alps.engine.images.windows import Window
from alps.engine.settings import SourceSettings
from alps.engine.stac.archive import open_archive
from alps.engine.stac.hrefs import image_at

PIXELS = np.random.default_rng(0).integers(1, 255, (4, 10, 12), np.uint8)


@pytest.fixture(params=["s3", "http"])
def folder(request, s3, prefix, tmp_path):
    """The address of a folder of keys."""
    read.keep = tmp_path / "kept.parquet"
    return f"s3://bucket/{prefix}" if request.param == "s3" else f"{s3.url}/bucket/{prefix}"


@pytest.fixture
def put(s3, prefix, tmp_path):
    """A function that puts a collection of two items, and their images, into that folder."""
    place = {"crs": "EPSG:32614", "transform": from_origin(500_000, 5_200_000, 1, 1)}
    images = [save_raster(tmp_path / f"{name}.tif", PIXELS, **place) for name in "ab"]

    def write(**changes):
        items = [item_of(path, tmp_path) for path in images]
        items[1] |= changes
        document = collection_of(items, tmp_path / "items.json")
        for path in (document, *images):
            s3.put(f"{prefix}/{path.name}", path)

    return write


def read(src, **settings):
    """Paths of an archive's images, by name, what is said of each, and how they are read."""
    with open_archive(src, SourceSettings(**settings), read.keep) as archive:
        sources = list(archive.sources)
        said = {one.name: archive.said.of(one.path) for one in sources}
        return {one.name: str(one.path) for one in sources}, said, archive.reading


def test_its_images_are_found_beside_it_and_read(folder, put):
    put()
    found, said, reading = read(f"{folder}/items.json")
    assert list(found) == ["naip/a.tif", "naip/b.tif"]
    assert found["naip/a.tif"].endswith(f"{folder.partition('://')[2]}/a.tif")
    assert not any(one.reason for one in said.values())
    with RasterReader(found["naip/b.tif"], reading) as reader:
        np.testing.assert_array_equal(reader.read(Window(0, 0, 12, 10)).rgb[..., 0], PIXELS[0])


def test_what_lies_elsewhere_has_to_be_allowed(folder, put):
    put(assets={"image": {"href": "https://elsewhere.example/b.tif", "roles": ["data"]}})
    found, said, reading = read(f"{folder}/items.json")
    assert "--allow-remote, where it is trusted" in said["naip/b.image"].reason
    with pytest.raises(SourceError, match="--allow-remote, where it is trusted"):
        RasterReader(found["naip/b.image"], reading)
    found, said, _ = read(f"{folder}/items.json", allow_remote=True)
    assert found["naip/b.tif"] == "/vsicurl/https://elsewhere.example/b.tif"


@pytest.mark.parametrize(
    ("document", "href", "path"),
    [
        ("s3://b/x/i.json", "a%20b.tif", "/vsis3/b/x/a%20b.tif"),
        ("s3://b/x/i.json", "./y/../a.tif", "/vsis3/b/x/a.tif"),
        ("s3://b/i.json", "/a.tif", "/vsis3/b/a.tif"),
        ("https://h/x/i.json?key=/1", "y/a.tif?sig=2", "/vsicurl/https://h/x/y/a.tif?sig=2"),
        ("https://h/x/i.json", "//h/x/a.tif", "/vsicurl/https://h/x/a.tif"),
    ],
)
def test_where_relative_hrefs_lead(document, href, path):
    assert image_at(document, href, Access()) == path


@pytest.mark.parametrize("document", ["s3://b/x/i.json", "https://h/x/i.json"])
@pytest.mark.parametrize("href", ["../a.tif", "/xy/a.tif", "s3://other/x/a.tif", "../../../etc/a"])
def test_what_does_not_lie_in_its_folder(document, href):
    with pytest.raises(SourceError, match="--allow-remote"):
        image_at(document, href, Access())
    with pytest.raises(SourceError, match="--allow-vrt-outside"):  # a file of this machine
        image_at(document, "file:///etc/passwd", Access(remote=True))


def test_what_cannot_be_fetched_or_is_none(folder, put, s3, prefix, tmp_path):
    with pytest.raises(StoreError, match=r"cannot read .*/none.json: it is not there"):
        read(f"{folder}/none.json")
    links = [{"rel": "item", "href": "a.json"}]
    for name, content, words in (
        ("c.json", {"type": "Catalog", "id": "c", "links": links}, "links to its items, and"),
        ("d.json", {"type": "Thing"}, f"Cannot read {folder}/d.json: it is no STAC"),
    ):
        (tmp_path / name).write_text(json.dumps(content))
        s3.put(f"{prefix}/{name}", tmp_path / name)
        with pytest.raises(SourceError, match=words) as caught:
            read(f"{folder}/{name}")
        assert "\n" not in str(caught.value)
    put()
    s3.misbehave(Rule("items.json", bytes_sent=300, times=1))
    assert len(read(f"{folder}/items.json")[0]) == 2  # broken off, it is asked for again
