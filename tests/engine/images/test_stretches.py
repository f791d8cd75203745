"""Stretches: of one scene, of several files, or given; never one that magnifies noise."""

import numpy as np
import pytest
import rasterio
from rasters import save_raster

from alps.engine.base.errors import SettingsError
from alps.engine.images.archive import Survey, plain_limits, read_together, survey
from alps.engine.images.raster import RasterReader
from alps.engine.images.reading import Reading, limits_from
from alps.engine.images.windows import Window
from alps.engine.settings import ReadSettings

SIDE = 48
WATER, SALT = 300, 11000


@pytest.fixture
def save(tmp_path):
    """A function that writes bands (B, H, W) below the test's folder."""

    def write(name, pixels, **options):
        return save_raster(tmp_path / name, pixels, **options)

    return write


def even(value, seed=0, deviation=6):
    """A surface of nothing but noise."""
    noise = np.random.default_rng(seed).normal(0, deviation, (3, SIDE, SIDE))
    return (value + noise).astype(np.uint16)


def land(seed=0):
    """Fields of many values, smooth inside."""
    fields = np.random.default_rng(seed).integers(1000, 8000, (3, 4, 4))
    return np.kron(fields, np.ones((SIDE // 4, SIDE // 4))).astype(np.uint16)


@pytest.fixture
def tiles(save):
    """Six pieces of one scene: water, salt, land."""
    kinds = [even(WATER), even(WATER, 1), even(SALT), even(SALT, 1), land(), land(1)]
    return [save(f"tiles/r0c{i}.tif", pixels) for i, pixels in enumerate(kinds)]


def shown(path, reading):
    with RasterReader(path, reading) as reader:
        return reader.read(Window(0, 0, SIDE, SIDE)).rgb.astype(int)


def test_pieces_of_one_scene_share_a_stretch(tiles):
    reading = read_together(Reading(ReadSettings()), tiles)
    assert len(reading.shared) == 1
    water, _, salt, _, fields, _ = (shown(path, reading) for path in tiles)
    assert water.max() < 20 and salt.min() > 235
    assert np.ptp(water) < 5 and np.ptp(salt) < 5  # no noise to be seen
    assert len(np.unique(fields)) > 20


def test_a_piece_alone_shows_no_noise_either(tiles):
    for path in tiles[:4]:
        pixels = shown(path, Reading())
        assert pixels.std() < 6 and 110 < pixels.mean() < 145
    fields = shown(tiles[4], Reading())
    assert fields.min() == 0 and fields.max() == 255


@pytest.mark.parametrize("value", [40, 300])
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_few_steps_of_noise_are_not_magnified(save, value, dtype):
    pixels = even(value, deviation=1).astype(dtype)
    assert shown(save("a.tif", pixels), Reading()).std() < 6


def test_a_faint_thing_in_a_narrow_range_stays_visible(save):
    """Terrain of a plain: a narrow range, but surfaces and not noise."""
    y, x = np.mgrid[:SIDE, :SIDE]
    heights = (250 + 3 * np.sin(x / 9) * np.cos(y / 7)).astype(np.float32)
    pixels = shown(save("a.tif", heights[None]), Reading())
    assert pixels.min() == 0 and pixels.max() == 255


def test_what_is_not_one_product_keeps_its_own_stretch(save):
    save("x/a1.tif", land(1))
    save("x/a2.tif", land(2))
    others = [
        save("x/b1.tif", land(3)),  # another name
        save("x/a3.tif", land(4).astype(np.int16)),  # another type
        save("x/a4.tif", land(5)[:1]),  # other bands
        save("y/a1.tif", land(6)),  # another folder
        save("x/a5.tif", land(7), crs="EPSG:32633", transform=rasterio.Affine(1, 0, 9, 0, -1, 9)),
        save("x/a6.tif", land(8), crs="EPSG:32633", transform=rasterio.Affine(2, 0, 9, 0, -2, 9)),
        save("x/a7.tif", land(9).clip(0, 255).astype(np.uint8)),
    ]
    root = others[0].parent.parent
    paths = sorted(root.glob("?/*.tif"))
    reading = read_together(Reading(ReadSettings()), paths)
    assert len(reading.shared) == 1
    for path in others:
        assert (shown(path, reading) == shown(path, Reading())).all(), path
    # Not what each of them would have had.
    assert (shown(root / "x" / "a1.tif", reading) != shown(root / "x" / "a1.tif", Reading())).any()
    scene = read_together(Reading(ReadSettings(stretch="scene")), paths)
    assert not scene.shared


def test_one_stretch_for_all_of_a_type_where_asked_for(save):
    paths = [save("x/a.tif", land(1)), save("y/b.tif", land(2)), save("y/c.tif", even(SALT))]
    reading = read_together(Reading(ReadSettings(stretch="archive")), paths)
    assert len(reading.shared) == 1 and shown(paths[2], reading).min() > 235
    with RasterReader(paths[2], reading) as reader:
        assert reader.describe().stretch == "archive"


def test_a_fitted_stretch_is_the_same_after_json(tiles):
    import json

    found = survey(Reading(ReadSettings()), tiles)
    text = json.dumps(plain_limits(found.shared_limits()))
    again = Reading(ReadSettings(), limits_from(json.loads(text)))
    assert again.shared == found.shared_limits()
    assert (
        shown(tiles[0], again) == shown(tiles[0], read_together(Reading(ReadSettings()), tiles))
    ).all()


def test_fills_do_not_reach_a_shared_stretch(save):
    filled = [land(seed).astype(np.float32) for seed in range(3)]
    for pixels in filled:
        pixels[:, :, :20] = -9999
    paths = [save(f"t{i}.tif", pixels) for i, pixels in enumerate(filled)]
    (limits,) = read_together(Reading(ReadSettings()), paths).shared.values()
    assert min(limits.low) >= 1000


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_given_limits_are_taken_whatever_the_type(save, dtype):
    ramp = np.tile(np.arange(SIDE) * 5, (3, SIDE, 1)).astype(dtype)
    pixels = shown(save("a.tif", ramp), Reading(ReadSettings(stretch="50,150")))
    assert (pixels[:, :11] == 0).all() and (pixels[:, 30:] == 255).all()
    assert (pixels[0, 22, 0], pixels[0, 12, 0]) == (153, 26)


@pytest.mark.parametrize("text", ["1", "1,2,3", "5,5", "9,1", "nan,1", "0,inf", "scenes", ""])
def test_stretches_that_cannot_work(text):
    with pytest.raises(SettingsError, match="--stretch"):
        ReadSettings(stretch=text).limits()


def test_kinds_of_sources_are_counted(tiles, save):
    found = Survey(Reading(ReadSettings()))
    for path in [*tiles, save("z.tif", land().astype(np.float32))]:
        with RasterReader(path) as reader:
            found.add(path.name, reader)
    kinds = found.kinds()
    assert [(kind["dtype"], kind["sources"], kind["first"]) for kind in kinds] == [
        ("uint16", 6, "r0c0.tif"),
        ("float32", 1, "z.tif"),
    ]
    assert "6 sources (r0c0.tif, say)" in found.words()[0]
    assert "bands 1,2,3 of 3 as red, green, blue" in found.words()[0]
