"""One reader of labels: laid on the image by their place, or refused; headers are outranked."""

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.rpc import RPC
from rasterio.transform import from_origin
from rasterio.windows import Window
from rasters import save_raster

from alps.engine.base.errors import AlpsError, SettingsError, SourceError
from alps.engine.images.georeference import Georeference
from alps.engine.quality.label_file import Grid, LabelFile
from alps.engine.quality.measure import measure_quality
from alps.engine.quality.settings import QualitySettings

UTM = "EPSG:32633"
PLACE = from_origin(500_000, 5_200_000, 0.5, 0.5)
SIDE = 64


@pytest.fixture(scope="module")
def classes():
    """(64, 64) uint8 of 0 to 3, no symmetry."""
    y, x = np.mgrid[:SIDE, :SIDE]
    kinds = (x > 40).astype(np.uint8)
    kinds[y > 48] = 2
    kinds[(y - 12) ** 2 + (x - 15) ** 2 < 80] = 3
    return kinds


@pytest.fixture
def score(tmp_path, classes):
    """A function that scores label maps that are right against labels saved as asked."""
    save_raster(tmp_path / "labels" / "a.tif", classes, crs=UTM, transform=PLACE, nodata=255)

    def run(values, settings=None, **options):
        save_raster(tmp_path / "truth" / "a.tif", values, **options)
        return measure_quality(tmp_path / "labels", tmp_path / "truth", settings)

    return run


def test_labels_stored_from_south_to_north(score, classes):
    upside_down = rasterio.Affine(0.5, 0, 500_000, 0, 0.5, 5_200_000 - SIDE / 2)
    result = score(classes[::-1], crs=UTM, transform=upside_down)
    assert result.miou == 1 and result.pixels == SIDE**2


def test_labels_that_reach_less_far_count_where_they_reach(score, classes):
    result = score(classes[:, 20:], crs=UTM, transform=PLACE * PLACE.translation(20, 0))
    assert result.miou == 1 and result.pixels == SIDE * (SIDE - 20)
    assert result.ignored_pixels == SIDE * 20


def test_labels_of_another_resolution(score, classes):
    fine = classes.repeat(3, 0).repeat(3, 1)
    result = score(fine, crs=UTM, transform=PLACE * PLACE.scale(1 / 3))
    assert result.miou == 1 and result.pixels == SIDE**2


def test_labels_in_another_crs_are_warped(score, classes, tmp_path):
    """To Web Mercator and back, nearest: edges may move by a pixel."""
    from rasterio.warp import Resampling, calculate_default_transform, reproject

    bounds = rasterio.transform.array_bounds(SIDE, SIDE, PLACE)
    transform, width, height = calculate_default_transform(
        UTM, "EPSG:3857", SIDE, SIDE, *bounds, resolution=0.2
    )
    moved = np.full((height, width), 255, np.uint8)
    reproject(
        classes, moved, src_transform=PLACE, src_crs=UTM, dst_transform=transform,
        dst_crs="EPSG:3857", resampling=Resampling.nearest, dst_nodata=255,
    )  # fmt: skip
    result = score(moved, crs="EPSG:3857", transform=transform)
    assert result.miou > 0.95 and result.pixels > 0.97 * SIDE**2


@pytest.mark.parametrize(
    ("crs", "transform", "shown"),
    [
        (UTM, PLACE * PLACE.translation(100, 0), "x 500050 to 500082"),
        ("EPSG:32634", PLACE, "EPSG:32634"),
        (None, from_origin(10, 20, 0.5, 0.5), "no CRS"),
    ],
)
def test_labels_that_lie_elsewhere_are_refused_with_both_extents(
    score, classes, crs, transform, shown
):
    with pytest.raises(SourceError, match="lies elsewhere") as caught:
        score(classes, crs=crs, transform=transform)
    assert shown in str(caught.value)
    assert "x 500000 to 500032, y 5199968 to 5200000 in EPSG:32633" in str(caught.value)


def test_labels_that_say_nothing_of_their_place_go_by_pixels(score, classes):
    assert score(classes).miou == 1
    assert score(classes, transform=rasterio.Affine(1, 0, 0, 0, -1, SIDE)).miou == 1
    assert score(classes, crs=UTM).miou == 1
    nearly = PLACE * PLACE.translation(0.3, -0.4)  # rounding of a header
    assert score(classes, crs=UTM, transform=nearly).pixels == SIDE**2
    with pytest.raises(SourceError, match="must have one size"):
        score(classes[:, 1:])


def test_labels_and_an_image_placed_in_two_ways(tmp_path, classes):
    path = save_raster(tmp_path / "a.tif", classes, crs=UTM, transform=PLACE)
    rpc = RPC(
        height_off=1.0, height_scale=1.0, lat_off=1.0, lat_scale=1.0, line_off=1.0, line_scale=1.0,
        long_off=1.0, long_scale=1.0, samp_off=1.0, samp_scale=1.0, line_den_coeff=[1.0] * 20,
        line_num_coeff=[1.0] * 20, samp_den_coeff=[1.0] * 20, samp_num_coeff=[1.0] * 20,
        err_bias=None, err_rand=None,
    )  # fmt: skip
    with pytest.raises(SourceError, match="two ways"):
        LabelFile(path, Grid("image", SIDE, SIDE, Georeference(rpcs=rpc)))
    plain = save_raster(tmp_path / "b.tif", classes)
    with LabelFile(plain, Grid("image", SIDE, SIDE, Georeference(rpcs=rpc))) as labels:
        pixels, reached = labels.read([1], Window(3, 4, 20, 10))
    assert (pixels[0] == classes[4:14, 3:23]).all() and reached.all()


def test_labels_that_are_stored_sideways_are_named(tmp_path, classes):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(classes).save(tmp_path / "a.png", exif=exif)
    with pytest.raises(SourceError, match=r"a\.png is stored sideways"):
        LabelFile(tmp_path / "a.png")


def test_a_header_that_calls_a_class_nodata(score, classes):
    """Class 0 is half of the image, and lost where the header is believed."""
    assert score(classes, nodata=0).ignored_pixels == (classes == 0).sum()
    for ignore in ((), (255,), (7,)):
        result = score(classes, QualitySettings(truth_ignore=ignore), nodata=0)
        assert result.miou == 1 and result.pixels == SIDE**2 and len(result.classes) == 4
    two = (classes == 3).astype(np.uint8)
    with pytest.raises(SettingsError, match=r"class 1 alone.*--truth-ignore none"):
        score(two, nodata=0)
    result = score(two, QualitySettings(truth_ignore=()), nodata=0)
    assert result.miou == 1 and [one.pixels for one in result.classes] == [
        (two == 0).sum(), two.sum()
    ]  # fmt: skip


@pytest.mark.parametrize("nodata", [None, 0, 255])
def test_masks_of_0_and_255_whatever_their_header_says(score, classes, nodata):
    mask = ((classes == 3) * 255).astype(np.uint8)
    with pytest.raises(AlpsError, match="--truth-threshold 127"):
        score(mask, nodata=nodata)
    result = score(mask, QualitySettings(truth_threshold=127), nodata=nodata)
    assert result.miou == 1 and result.pixels == SIDE**2
    assert [one.pixels for one in result.classes] == [(mask == 0).sum(), (mask == 255).sum()]


def test_a_mask_as_three_bands(score, classes):
    mask = ((classes == 3) * 255).astype(np.uint8)
    result = score(np.stack([mask] * 3), QualitySettings(truth_threshold=127))
    assert result.miou == 1


def test_a_threshold_that_parts_nothing(score, classes):
    two = (classes == 3).astype(np.uint8)
    with pytest.raises(SettingsError, match="below or at"):
        score(two, QualitySettings(truth_threshold=127))


def test_greys_of_a_picture_of_which_one_would_be_ignored(score, classes):
    greys = np.array([0, 0, 128, 255], np.uint8)[classes]
    with pytest.raises(SettingsError, match="0, 128 look like greys"):
        score(greys)
    result = score(greys, QualitySettings(truth_ignore=()))
    assert result.pixels == SIDE**2 and [one.value for one in result.classes] == [0, 128, 255]
    assert score(greys, QualitySettings(truth_ignore=(255,))).pixels == (greys < 255).sum()
