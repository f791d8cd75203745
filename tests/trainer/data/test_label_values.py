"""What the values of label images mean: guards and ways out, the same for every command."""

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import from_origin
from rasters import save_raster

from alps.engine.base.errors import AlpsError, SettingsError, SourceError
from alps.trainer.data.cache import build_cache
from alps.trainer.data.decode import DecodeRequest
from alps.trainer.data.find import find_data
from alps.trainer.data.settings import DataSettings

SIDE = 48
PLACE = from_origin(500_000, 5_200_000, 0.5, 0.5)


@pytest.fixture(scope="module")
def kinds():
    """(48, 48) uint8: ground 0, road 2, roofs 3."""
    kinds = np.zeros((SIDE, SIDE), np.uint8)
    kinds[20:26] = 2
    kinds[4:16, 6:20] = kinds[30:44, 25:45] = 3
    return kinds


@pytest.fixture
def cached(tmp_path, kinds):
    """A function that decodes two images beside these labels: the class ids of one of them."""

    def run(labels, **settings):
        for folder in ("images", "masks"):
            (tmp_path / folder).mkdir(exist_ok=True)
        for name in ("a", "b"):
            Image.fromarray(np.dstack([kinds * 50] * 3)).save(tmp_path / "images" / f"{name}.png")
            Image.fromarray(labels).save(tmp_path / "masks" / f"{name}.png")
        asked = DataSettings(hold_out=0, **settings)
        request = DecodeRequest(find_data(tmp_path, asked), asked, 16)
        cache = build_cache(request, tmp_path / "cache")
        assert not cache.problems
        return cache.rules, np.array(cache.pairs[0].labels(cache.root))

    return run


@pytest.mark.parametrize("bands", [1, 3])
def test_a_mask_of_0_and_255_is_refused_and_read_by_a_threshold(cached, kinds, bands):
    mask = ((kinds == 3) * 255).astype(np.uint8)
    labels = np.dstack([mask] * 3) if bands == 3 else mask
    with pytest.raises(SourceError, match="--label-threshold 127"):
        cached(labels)
    rules, ids = cached(labels, label_threshold=127.0)
    assert rules.classes == ("background", "foreground") and (ids == (kinds == 3)).all()


def test_naming_the_classes_does_not_hide_a_mask(cached, kinds):
    mask = ((kinds == 3) * 255).astype(np.uint8)
    with pytest.raises(SourceError, match="the labels show ground alone"):
        cached(mask, classes="ground,roof")


def test_a_mask_of_0_and_1_needs_no_word(cached, kinds):
    rules, ids = cached((kinds == 3).astype(np.uint8))
    assert len(rules.classes) == 2 and (ids == (kinds == 3)).all()


def test_greys_are_no_class_numbers_until_their_values_are_named(cached, kinds):
    greys = np.array([0, 0, 128, 255], np.uint8)[kinds]
    with pytest.raises(SourceError, match="--label-values 0,128,255"):
        cached(greys)
    rules, ids = cached(greys, label_values="0,128,255")
    assert rules.classes == ("0", "128", "255") and rules.ignore == ()
    assert (ids == np.array([0, 0, 1, 2])[kinds]).all()
    rules, ids = cached(greys, label_values="255,0", label_ignore=128, classes="roof,rest")
    assert (ids == np.array([1, 1, 255, 0])[kinds]).all()


def test_a_value_that_is_not_named_is_reported(tmp_path, cached, kinds):
    greys = np.array([0, 0, 128, 255], np.uint8)[kinds]
    with pytest.raises(AssertionError):  # the fixture's: there are problems
        cached(greys, label_values="0,128", label_ignore=7)


@pytest.mark.parametrize("text", ["", "1,x", "1,1", "1.5"])
def test_values_that_are_none(cached, kinds, text):
    with pytest.raises(SettingsError, match="--label-values"):
        cached(kinds, label_values=text)


def test_as_many_values_as_classes(cached, kinds):
    with pytest.raises(SettingsError, match="names 2 values, but there are 3 classes"):
        cached(kinds, label_values="0,1", classes="a,b,c")


def save(path, bands, transform, **options):
    save_raster(path, bands, crs="EPSG:32633", transform=transform, **options)


@pytest.fixture
def placed(tmp_path, kinds):
    """A function that decodes a GeoTIFF beside labels that know where they lie."""

    def run(labels, transform, settings=None, **options):
        save(tmp_path / "images" / "a.tif", np.stack([kinds * 50 + 9] * 3), PLACE)
        save(tmp_path / "labels" / "a.tif", labels[None], transform, **options)
        asked = settings or DataSettings(hold_out=0, classes="a,b,c,d")
        cache = build_cache(
            DecodeRequest(find_data(tmp_path, asked), asked, 16), tmp_path / "cache"
        )
        if cache.problems:
            raise SourceError(cache.problems[0].text)
        return np.array(cache.pairs[0].labels(cache.root))

    return run


def test_labels_are_laid_on_their_image(placed, kinds):
    upside_down = rasterio.Affine(0.5, 0, 500_000, 0, 0.5, 5_200_000 - SIDE / 2)
    assert (placed(kinds[::-1], upside_down) == kinds).all()
    part = placed(kinds[:, 10:], PLACE * PLACE.translation(10, 0))
    assert (part[:, 10:] == kinds[:, 10:]).all() and (part[:, :10] == 255).all()
    with pytest.raises(AlpsError, match="lies elsewhere"):
        placed(kinds, PLACE * PLACE.translation(200, 0))


def test_a_header_that_calls_a_class_nodata_is_outranked(placed, kinds):
    believed = placed(kinds, PLACE, nodata=0)
    assert (believed == np.where(kinds == 0, 255, kinds)).all()
    asked = DataSettings(hold_out=0, classes="a,b,c,d", label_ignore=255)
    assert (placed(kinds, PLACE, asked, nodata=0) == kinds).all()
    two = (kinds == 3).astype(np.uint8)
    with pytest.raises(SourceError, match="alone"):
        placed(two, PLACE, DataSettings(hold_out=0), nodata=0)


def test_photographs_that_are_stored_sideways_meet_labels_as_they_are_shown(tmp_path, kinds):
    """Square: the sizes agree whichever way the photograph is turned."""
    exif = Image.Exif()
    exif[0x0112] = 6
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    shown = Image.fromarray(np.dstack([kinds * 50] * 3))
    shown.rotate(90, expand=True).save(tmp_path / "images" / "a.png", exif=exif)
    Image.fromarray(kinds).save(tmp_path / "labels" / "a.png")
    asked = DataSettings(hold_out=0)
    cache = build_cache(DecodeRequest(find_data(tmp_path, asked), asked, 16), tmp_path / "cache")
    (pair,) = cache.pairs
    assert (pair.pixels(cache.root)[..., 0] == kinds * 50).all()
    assert (pair.labels(cache.root) == kinds).all()
