"""Label maps are read back by other programs as they were written, or are not there at all."""

import os
import subprocess
import sys

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rasterio.control import GroundControlPoint

from alps.engine.base.errors import RunFolderError, SettingsError
from alps.engine.images.georeference import Georeference
from alps.engine.images.raster import RasterReader
from alps.engine.labels.palette import palette
from alps.engine.labels.writer import (
    UNLABELLED,
    LabelMapWriter,
    label_dtype,
    unlabelled_value,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore::rasterio.errors.NotGeoreferencedWarning", "ignore::PendingDeprecationWarning"
)
SIZES = [(1, 1), (7, 3), (513, 600), (1100, 520)]
UTM = "EPSG:26914"


def labels_of(width, height, classes, seed=0):
    """(height, width) ids in runs, a tenth of the pixels unlabelled."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(rng.integers(0, classes, (height, -(-width // 9))), 9, axis=1)[:, :width]
    labels[rng.random(labels.shape) < 0.1] = unlabelled_value(classes)
    return labels.astype(label_dtype(classes))


def write(path, labels, classes, strip=100, **options):
    height, width = labels.shape
    with LabelMapWriter(path, width, height, palette(classes), **options) as writer:
        for y in range(0, height, strip):
            writer.write_rows(y, labels[y : y + strip])
    return path


@pytest.mark.parametrize("classes", [1, 46, 255, 256, 3000])
@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_pillow_and_rasterio_read_what_was_written(tmp_path, width, height, classes, suffix):
    labels = labels_of(width, height, classes)
    path = write(tmp_path / f"map{suffix}", labels, classes)
    with Image.open(path) as image:
        image.load()
        assert image.mode == ("P" if classes <= 255 else "I;16")
        assert (np.asarray(image) == labels).all()
        if classes <= 255:
            colours = np.array(image.getpalette()).reshape(-1, 3)
            assert (colours[:classes] == palette(classes)).all()
            assert (colours[UNLABELLED] == 0).all()
    with rasterio.open(path) as file:
        assert (file.read(1) == labels).all() and file.count == 1
        if suffix == ".tif":
            assert file.nodata == unlabelled_value(classes)
            assert file.block_shapes == [(512, 512)] and file.compression.name == "deflate"
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_bytes_do_not_depend_on_the_strips(tmp_path, suffix):
    labels = labels_of(700, 1300, 46)
    first = write(tmp_path / f"a{suffix}", labels, 46, strip=1300).read_bytes()
    for strip in (1, 100, 512, 513):
        assert write(tmp_path / f"b{suffix}", labels, 46, strip).read_bytes() == first


def test_a_geotiff_lies_where_its_source_does(tmp_path, make_raster):
    made = make_raster("uint16", 4, "value", UTM)
    labels = labels_of(60, 40, 46)
    with RasterReader(made.path) as reader:
        with LabelMapWriter.like(reader, tmp_path / "out" / "map.tif", 46) as writer:
            writer.write_rows(0, labels)
        with rasterio.open(tmp_path / "out" / "map.tif") as file:
            assert file.crs == reader.crs and file.transform == reader.transform
            assert file.colormap(1)[3] == (*palette(46)[3], 255)
            assert file.colormap(1)[UNLABELLED][:3] == (0, 0, 0)
            assert (file.read(1) == labels).all()


def test_ground_control_points_are_kept(tmp_path, make_raster):
    made = make_raster()
    points = [GroundControlPoint(0, 0, 5, 6), GroundControlPoint(9, 30, 7, 8)]
    with rasterio.open(made.path, "r+") as file:
        file.gcps = points, rasterio.CRS.from_string(UTM)
    with RasterReader(made.path) as reader:
        write(tmp_path / "m.tif", labels_of(60, 40, 3), 3, georeference=Georeference.of(reader))
    with rasterio.open(tmp_path / "m.tif") as file:
        kept, crs = file.gcps
        assert crs == UTM and [(p.row, p.col, p.x, p.y) for p in kept] == [
            (0, 0, 5, 6),
            (9, 30, 7, 8),
        ]


def test_a_png_of_a_georeferenced_source_is_plain(tmp_path, make_raster):
    with (
        RasterReader(make_raster(crs=UTM).path) as reader,
        LabelMapWriter.like(reader, tmp_path / "out" / "m.png", 5) as writer,
    ):
        writer.write_rows(0, labels_of(60, 40, 5))
    assert os.listdir(tmp_path / "out") == ["m.png"]


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_an_error_leaves_the_old_map_and_nothing_else(tmp_path, suffix):
    path = write(tmp_path / f"m{suffix}", labels_of(50, 40, 5), 5)
    before = path.read_bytes()
    with pytest.raises(KeyError), LabelMapWriter(path, 50, 40, palette(5)) as writer:
        writer.write_rows(0, labels_of(50, 20, 5))
        raise KeyError
    with (
        pytest.raises(ValueError, match="20 of 40 rows"),
        LabelMapWriter(path, 50, 40, palette(5)) as writer,
    ):
        writer.write_rows(0, labels_of(50, 20, 5))
    assert os.listdir(tmp_path) == [path.name] and path.read_bytes() == before


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_what_a_killed_run_left_is_overwritten(tmp_path, suffix):
    (tmp_path / f".m{suffix}.part").write_bytes(b"half a file")
    labels = labels_of(50, 40, 5)
    path = write(tmp_path / f"m{suffix}", labels, 5)
    assert os.listdir(tmp_path) == [path.name]
    assert (np.asarray(Image.open(path)) == labels).all()


@pytest.mark.parametrize(
    ("y", "labels", "text"),
    [
        (1, np.zeros((2, 50), np.uint8), "at row 0"),
        (0, np.zeros((2, 49), np.uint8), r"expected \(h, 50\)"),
        (0, np.zeros((41, 50), np.uint8), "row 41 of 40"),
        (0, np.full((2, 50), 5, np.uint8), "no class of 5"),
        (0, np.full((2, 50), -1), "no class of 5"),
        (0, np.full((2, 50), 65535), "no class of 5"),
    ],
)
def test_wrong_rows_are_refused(tmp_path, y, labels, text):
    with (
        pytest.raises(ValueError, match=text),
        LabelMapWriter(tmp_path / "m.png", 50, 40, palette(5)) as writer,
    ):
        writer.write_rows(y, labels)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_place_that_cannot_be_written(tmp_path, suffix):
    (tmp_path / "file").touch()
    with pytest.raises(RunFolderError, match="Cannot write the label map"):
        write(tmp_path / "file" / f"m{suffix}", labels_of(5, 4, 5), 5)
    (tmp_path / f"taken{suffix}").mkdir()
    with pytest.raises(RunFolderError, match="taken"):
        write(tmp_path / f"taken{suffix}", labels_of(5, 4, 5), 5)
    assert len(list(tmp_path.iterdir())) == 2


FULL_DISK = """
import resource, signal, sys
import numpy as np
from alps.engine.base.errors import RunFolderError
from alps.engine.labels.writer import LabelMapWriter
from alps.engine.labels.palette import palette
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
noise = np.random.default_rng(0).integers(0, 46, (1000, 1000), dtype=np.uint8)
try:
    with LabelMapWriter(sys.argv[1], 1000, 1000, palette(46)) as writer:
        writer.write_rows(0, noise)
except RunFolderError as error:
    print("refused:", error)
"""


# Near its end a TIFF is written by close(), whose errors GDAL logs and does not raise.
@pytest.mark.parametrize("share", [0.2, 0.99])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_full_disk_is_noticed(tmp_path, suffix, share):
    path = tmp_path / f"m{suffix}"
    noise = np.random.default_rng(0).integers(0, 46, (1000, 1000), dtype=np.uint8)
    limit = int(share * write(path, noise, 46).stat().st_size)
    path.unlink()
    command = [sys.executable, "-c", FULL_DISK, str(path), str(limit)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.startswith("refused: Cannot write the label map")
    assert not list(tmp_path.iterdir())


def test_rows_that_a_disk_lost_without_an_error_are_noticed(tmp_path):
    """As where GDAL reports a disk that filled up to its log alone."""

    class Lossy:
        def __init__(self, dataset):
            self._dataset = dataset

        def write(self, rows, band, window):
            if window.row_off == 0:
                self._dataset.write(rows, band, window=window)

        def close(self):
            self._dataset.close()

    path = tmp_path / "m.tif"
    with (
        pytest.raises(RunFolderError, match="rows 512 to 599 read back differently"),
        LabelMapWriter(path, 30, 600, palette(5)) as writer,
    ):
        writer._sink._dataset = Lossy(writer._sink._dataset)
        writer.write_rows(0, labels_of(30, 600, 5))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_the_name_comes_after_the_bytes_and_lasts(tmp_path, disk_calls, suffix):
    path = write(tmp_path / f"m{suffix}", labels_of(40, 30, 5), 5)
    size = path.stat().st_size
    assert disk_calls == [("fsync", size), ("replace", None), ("fsync", None)]


@given(
    st.integers(1, 40), st.integers(1, 40), st.sampled_from([2, 255, 300]),
    st.lists(st.integers(0, 12), max_size=8), st.sampled_from([".png", ".tif"]),
)  # fmt: skip
def test_any_size_and_any_strips(tmp_path_factory, width, height, classes, cuts, suffix):
    labels = labels_of(width, height, classes, seed=width * height)
    path = tmp_path_factory.mktemp("maps") / f"m{suffix}"
    with LabelMapWriter(path, width, height, palette(classes)) as writer:
        y = 0
        for rows in [*cuts, height]:
            rows = min(rows, height - y)
            writer.write_rows(y, labels[y : y + rows])
            y += rows
    with rasterio.open(path) as file:
        assert (file.read(1) == labels).all()


def test_ids_and_the_unlabelled_value():
    assert (label_dtype(255), unlabelled_value(255)) == (np.uint8, 255)
    assert (label_dtype(256), unlabelled_value(256)) == (np.uint16, 65535)
    assert label_dtype(65535) == np.uint16
    for classes in (0, -1, 65536):
        with pytest.raises(SettingsError, match="--clusters"):
            label_dtype(classes)


def test_other_suffixes_and_palettes_are_refused(tmp_path, make_raster):
    with pytest.raises(ValueError, match=r"\.png or a \.tif"):
        LabelMapWriter(tmp_path / "m.jpg", 5, 5, palette(3))
    with RasterReader(make_raster().path) as reader, pytest.raises(ValueError, match="2 colours"):
        LabelMapWriter.like(reader, tmp_path / "m.png", 3, palette(2))


def test_real_naip(shared_data, tmp_path):
    source = sorted((shared_data / "naip").glob("*.tif"))[0]
    with RasterReader(source) as reader:
        labels = labels_of(reader.width, reader.height, 46)
        with LabelMapWriter.like(reader, tmp_path / "m.tif", 46) as writer:
            writer.write_rows(0, labels)
    with rasterio.open(source) as file, rasterio.open(tmp_path / "m.tif") as written:
        assert (written.crs, written.transform) == (file.crs, file.transform)
        assert written.shape == file.shape and written.nodata == UNLABELLED
        assert (written.read(1) == labels).all()


PLACES = {
    "transform": Georeference(
        rasterio.CRS.from_string(UTM), rasterio.Affine(0.5, 0, 500_000, 0, -0.5, 4_000_000)
    ),
    "points": Georeference(
        rasterio.CRS.from_string("EPSG:4326"),
        gcps=tuple(GroundControlPoint(r, c, c / 1e3, r / 1e3) for r in (0, 900) for c in (0, 700)),
    ),
    "camera": Georeference(
        rpcs=rasterio.rpc.RPC(
            height_off=1.0, height_scale=2.0, lat_off=3.0, lat_scale=4.0, line_den_coeff=[1.0] * 20,
            line_num_coeff=[2.0] * 20, line_off=5.0, line_scale=6.0, long_off=7.0, long_scale=8.0,
            samp_den_coeff=[3.0] * 20, samp_num_coeff=[4.0] * 20, samp_off=9.0, samp_scale=10.0,
        )
    ),
}  # fmt: skip


@pytest.mark.parametrize("classes", [46, 300])
@pytest.mark.parametrize("place", PLACES)
def test_cogs(tmp_path, classes, place):
    """All that a plain map says, overviews without a class of their own, and the same bytes."""
    labels = labels_of(1500, 1100, classes)
    labels[:, ::2] = 3  # of each four pixels two at least
    plain = write(tmp_path / "plain.tif", labels, classes, georeference=PLACES[place])
    path = write(tmp_path / "map.tif", labels, classes, georeference=PLACES[place], cog=True)
    other = write(tmp_path / "b.tif", labels, classes, 37, georeference=PLACES[place], cog=True)
    assert path.read_bytes() == other.read_bytes() != plain.read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["b.tif", "map.tif", "plain.tif"]
    with rasterio.open(path) as file, rasterio.open(plain) as wanted:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert (file.read(1) == labels).all() and file.overviews(1) == [2, 4]
        assert (file.nodata, file.crs, file.transform) == (
            wanted.nodata, wanted.crs, wanted.transform
        )  # fmt: skip
        assert [str(p) for p in file.gcps[0]] == [str(p) for p in wanted.gcps[0]]
        assert file.gcps[1] == wanted.gcps[1] and file.rpcs == wanted.rpcs
        if classes <= 255:
            colours, expected = file.colormap(1), wanted.colormap(1)
            assert {i: colours[i] for i in range(classes)} == {
                i: expected[i] for i in range(classes)
            }
    with rasterio.open(path, overview_level=0) as half:
        seen = half.read(1)
    assert set(np.unique(seen)) <= set(np.unique(labels)) and (seen == 3).mean() > 0.9


def test_a_cog_that_reads_back_differently_is_not_published(tmp_path, monkeypatch):
    monkeypatch.setattr(np, "array_equal", lambda *_: False)
    labels = labels_of(60, 40, 5)
    with pytest.raises(RunFolderError, match="read back differently"):
        write(tmp_path / "map.tif", labels, 5, cog=True)
    assert not os.listdir(tmp_path)
