"""Rasters of regions: read back where they lie, or an error that says what to do."""

import numpy as np
import pytest
from rasterio import CRS, Affine
from rasterio.control import GroundControlPoint

from alps.engine.base.errors import RunFolderError
from alps.engine.images.georeference import Georeference
from alps.engine.images.tiff import whole_tiff
from alps.engine.regions.packing import NOWHERE
from alps.engine.regions.raster import open_regions

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
WHAT_TO_DO = "delete the folder regions/ and give the command that made it again"
UTM = CRS.from_epsg(32631)


def numbers(height=20, width=30):
    found = np.arange(height * width, dtype=np.uint32).reshape(height, width) // 7
    found[3:5, 2:9] = NOWHERE
    return found


def written(path, content, place=None):
    size = (content.shape[1], content.shape[0])
    kind = np.dtype(np.uint32)
    with whole_tiff(path, size, NOWHERE, kind, place or Georeference()) as writer:
        for y in range(0, len(content), 512):
            writer.write(y, content[y : y + 512])
    return path


@pytest.mark.parametrize("height", [1, 511, 512, 513, 1030])
def test_strips_are_the_whole_scene(tmp_path, height):
    content = numbers(height, 3)
    with open_regions(written(tmp_path / "a.tif", content), (3, height)) as raster:
        found = list(raster.strips())
        assert raster.size == (3, height)
    assert [y for y, _ in found] == list(range(0, height, 512))
    np.testing.assert_array_equal(np.concatenate([strip for _, strip in found]), content)


def test_a_scene_has_its_place(tmp_path):
    transform = Affine(0.5, 0, 500_000, 0, -0.5, 4_000_000)
    points = (GroundControlPoint(0, 0, 5, 6), GroundControlPoint(9, 9, 7, 8))
    for place in (
        Georeference(),
        Georeference(UTM, transform),
        Georeference(None, transform),
        Georeference(UTM, None, points),
    ):
        with open_regions(written(tmp_path / "a.tif", numbers(), place)) as raster:
            found = raster.place
        assert (found.crs, found.transform) == (place.crs, place.transform)
        kept = [(p.row, p.col, p.x, p.y) for p in found.gcps]
        assert kept == [(p.row, p.col, p.x, p.y) for p in place.gcps]


def test_each_pixel_has_the_value_of_its_region(tmp_path):
    content = numbers()
    values = np.random.default_rng(0).integers(0, 200, content[content != NOWHERE].max() + 1)
    with open_regions(written(tmp_path / "a.tif", content)) as raster:
        ((_, found),) = raster.values(values.astype(np.uint8), 255)
    assert found.dtype == np.uint8
    expected = np.where(content == NOWHERE, 255, np.append(values, 0)[content.clip(0, len(values))])
    np.testing.assert_array_equal(found, expected)


def test_a_few_pixels_of_a_part_are_picked(tmp_path):
    content = numbers(600, 900)
    with open_regions(written(tmp_path / "a.tif", content)) as raster:
        found = raster.read(100, 50, 600, 400, (60, 40))
    part = content[50:450, 100:700]
    assert found.shape == (40, 60) and np.isin(found, part).all()
    np.testing.assert_allclose(found.astype(int), part[5::10, 5::10].astype(int), atol=900)


def test_regions_that_the_tables_do_not_know_are_no_silent_gap(tmp_path):
    content = numbers()
    known = int(content[content != NOWHERE].max()) + 1
    with (
        open_regions(written(tmp_path / "a.tif", content)) as raster,
        pytest.raises(RunFolderError, match=rf"a\.tif: .* tables do not know; {WHAT_TO_DO}"),
    ):
        list(raster.values(np.zeros(known - 1, int), -1))


def test_what_is_no_raster_says_what_to_do(tmp_path):
    path = tmp_path / "a.tif"
    with pytest.raises(RunFolderError, match=rf"a\.tif: .*; {WHAT_TO_DO}"), open_regions(path):
        pass
    path.write_bytes(b"no raster")
    with pytest.raises(RunFolderError, match=rf"a\.tif: .*; {WHAT_TO_DO}"), open_regions(path):
        pass


def test_a_damaged_raster_says_what_to_do(tmp_path):
    noise = np.random.default_rng(0).integers(0, 1 << 30, (700, 20)).astype(np.uint32)
    path = written(tmp_path / "a.tif", noise)
    whole = path.read_bytes()
    at = len(whole) // 4
    path.write_bytes(whole[:at] + bytes(len(whole) // 2) + whole[at + len(whole) // 2 :])
    with (
        pytest.raises(RunFolderError, match=rf"a\.tif: .*; {WHAT_TO_DO}"),
        open_regions(path) as raster,
    ):
        list(raster.strips())


def test_a_raster_of_another_size_says_what_to_do(tmp_path):
    path = written(tmp_path / "a.tif", numbers())
    message = rf"it has 30 x 20 pixels, its source 20 x 30; {WHAT_TO_DO}"
    with pytest.raises(RunFolderError, match=message), open_regions(path, (20, 30)):
        pass
