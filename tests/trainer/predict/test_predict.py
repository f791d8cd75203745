"""Label maps of a model: what they hold, and that they are those of whole images."""

import json
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image
from predicting import CARD, COLOURS, NAMES, blobs, make_model, results, save_tiff

from alps.engine.base.errors import ModelError, SettingsError
from alps.engine.images.windows import plan_windows
from alps.engine.labels.classes import read_classes
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.tables import read_table
from alps.engine.settings import ReadSettings, SourceSettings
from alps.trainer.numerics import autocast_for
from alps.trainer.predict import shards
from alps.trainer.predict.job import predict_archive
from alps.trainer.predict.recipe import PredictSettings, filled
from alps.trainer.segmentation.blend import RowSums, hann, probabilities
from alps.trainer.segmentation.card import ModelCard, read_card
from alps.trainer.segmentation.models import open_model
from alps.trainer.segmentation.predict import predict
from alps.trainer.segmentation.recipe import EvaluationSettings

pytestmark = pytest.mark.usefixtures("one_thread", "without_reports")
BOTH = PredictSettings(confidence=True, probabilities=True)
OVERLAP = 10  # of windows of 32 pixels: int(0.34 * 32)
PLAIN = autocast_for(torch.device("cpu"), "float32")


def labels_of(out, name):
    with rasterio.open(out / "labels" / name) as file:
        return file.read(1)


def pixels_of(path):
    with rasterio.open(path) as file:
        return np.moveaxis(file.read(), 0, -1)


def blended(model, pixels, valid, side=32, overlap=OVERLAP, batch=4):
    """Probabilities (C, H, W) of an image, all of it in memory."""
    height, width = pixels.shape[:2]
    sums, weights = np.zeros((len(NAMES), height, width)), np.zeros((height, width))
    weight = hann(side, torch.device("cpu")).numpy()
    windows = plan_windows(width, height, side, overlap)
    windows = [w for w in windows if valid[w.y : w.y + w.height, w.x : w.x + w.width].any()]
    for w in windows:
        place = np.s_[w.y : w.y + w.height, w.x : w.x + w.width]
        own = weight[: w.height, : w.width]
        with torch.inference_mode():
            share = probabilities(model, [pixels[place]], side, PLAIN)[0].numpy()
        sums[:, *place] += share[:, : w.height, : w.width] * own
        weights[place] += own
    return sums / np.maximum(weights, 1e-300)


# --- blending


def test_weights_fall_to_the_edges_and_are_never_nothing():
    weight = hann(32, torch.device("cpu"))
    assert (weight > 0).all() and torch.equal(weight, weight.flip(0)) and weight.argmax() == 15 * 33
    # Half a window on they add up to 1, everywhere.
    along = weight.sum(dim=0) / weight.sum(dim=0).max()
    torch.testing.assert_close(along[:16] + along[16:], torch.full((16,), 1.0), atol=1e-2, rtol=0)


def test_row_sums_keep_what_is_in_flight():
    """Windows that overlap by more than half, as the last two of an image may."""
    values = torch.ones(2, 8, 5)
    windows = [w for y in (0, 3, 4) for w in plan_windows(5, 8, 9, 0) for w in [replace(w, y=y)]]
    sums = RowSums(values, 8, 5)
    found = []
    for window, below in zip(windows, (3, 4, 12), strict=True):
        sums.add(window, values)
        found.append(sums.above(below).clone())
        sums.drop(below)
    rows = torch.cat(found, dim=1)[0, :, 0]
    assert rows.tolist() == [1, 1, 1, 2, 3, 3, 3, 3, 2, 2, 2, 1]
    assert sums.top == 12 and not sums.above(20).any()


def test_it_is_what_evaluation_predicts_for_the_same_windows(scenes, tmp_path, options, checkpoint):
    """But for the weights of pixels inside a window: with equal ones it is the same, bit by bit."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "hann", lambda side, device: torch.ones(side, side))
        predict_archive(scenes, tmp_path / "out", options=options)
    model = open_model(checkpoint).eval()
    settings = EvaluationSettings(eval_batch=4)
    for source, name in (("b.png", "b.png"), ("north/c.png", "north/c.png")):
        rows = list(predict(model, pixels_of(scenes / source), 32, settings, PLAIN))
        expected = np.concatenate([row for _, row in rows])
        np.testing.assert_array_equal(labels_of(tmp_path / "out", name), expected)
        assert len(np.unique(expected)) > 1


def test_strips_are_the_whole_in_memory(scenes, tmp_path, options, checkpoint):
    """Labels, confidence and probabilities of a scene of many rows of windows."""
    out = tmp_path / "out"
    predict_archive(scenes, out, settings=BOTH, options=options)
    pixels = pixels_of(scenes / "a.tif")
    valid = (pixels > 0).any(axis=2)
    share = blended(open_model(checkpoint).eval(), pixels, valid)
    labels = labels_of(out, "a.tif")
    sure = np.diff(np.sort(share, axis=0)[-2:], axis=0)[0] > 1e-5  # rounding may turn the others
    assert sure.mean() > 0.99 and (~valid).sum() == 1200
    np.testing.assert_array_equal(labels[valid & sure], share.argmax(axis=0)[valid & sure])
    with rasterio.open(out / "probabilities" / "a.tif.tif") as file:
        assert file.descriptions == NAMES and file.nodata == 255
        found = file.read() * np.array(file.scales)[:, None, None]
        assert file.crs.to_epsg() == 32631 and file.transform.c == 5e5
        assert (file.read()[:, ~valid] == 255).all()
    assert np.abs(found - share)[:, valid].max() < 1 / 254 / 2 + 1e-4
    with rasterio.open(out / "confidence" / "a.tif.tif") as file:
        sureness = file.read(1)
    assert (sureness[~valid] == 255).all()
    assert np.abs(sureness / 254 - share.max(axis=0))[valid].max() < 1 / 254 / 2 + 1e-4
    assert len(np.unique(labels)) == 4 and len(np.unique(sureness)) > 20


@pytest.mark.usefixtures("shards_of_five")
@pytest.mark.parametrize("overlap", [0, 15])
def test_shards_do_not_show(scenes, tmp_path, options, overlap):
    """Neither where they end, nor that rows overlap more than they were asked to."""
    source = SourceSettings(overlap=overlap)
    predict_archive(scenes, tmp_path / "small", source, BOTH, options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("alps.engine.run_folder.plan.SHARD_TILES", 1000)
        predict_archive(scenes, tmp_path / "large", source, BOTH, options)
    assert len(list((tmp_path / "small" / "journal").glob("tiles-*"))) > 4
    assert results(tmp_path / "small") == results(tmp_path / "large")


# --- the run folder


def test_the_run_folder(scenes, tmp_path, options):
    out = tmp_path / "out"
    summary = predict_archive(scenes, out, options=options)
    assert summary.sources == 3 and summary.tiles == {"ok": summary.tiles["ok"]}
    assert summary.labelled == 1.0
    classes = read_classes(out / "classes.json")
    assert tuple(one.name for one in classes.classes) == NAMES
    assert tuple(one.colour for one in classes.classes) == COLOURS
    maps = {name: labels_of(out, name) for name in ("a.tif", "b.png", "north/c.png")}
    assert maps["a.tif"].shape == (150, 70) and maps["b.png"].shape == (25, 20)
    shown = np.concatenate([labels.ravel() for labels in maps.values()])
    assert [one.pixels for one in classes.classes] == np.bincount(shown)[:3].tolist()
    assert classes.nodata_pixels == classes.unlabelled_pixels == (shown == 255).sum() == 1200
    with rasterio.open(out / "labels" / "a.tif") as file:
        assert file.nodata == 255 and file.colormap(1)[2][:3] == COLOURS[2]
        assert file.crs.to_epsg() == 32631
    assert Image.open(out / "labels" / "b.png").getpalette()[:9] == [v for c in COLOURS for v in c]
    tiles = read_table(out / "tiles.parquet")
    assert set(tiles["status"].to_pylist()) == {"ok"}
    assert set(tiles["width"].to_pylist()) == {20, 32}
    assert not any((out / "predicted").iterdir()) and not (out / "confidence").exists()
    RunFolder(out).refuse_unpainted()


@pytest.mark.report
def test_the_report_speaks_of_no_masks(scenes, tmp_path, options):
    predict_archive(scenes, tmp_path / "out", options=options)
    page = (tmp_path / "out" / "report" / "index.html").read_text()
    assert (
        "predictions of a model" in page
        and "grass" in page
        and page.count("<figure>") == 2 * (page.count("<figcaption>Label map</figcaption>"))
    )
    body = page.split("<body>")[1].split("<script>")[0]
    for word in ("SAM", "Masks", "masks", "Regions", "segment"):
        assert word not in body, word


def test_nodata_is_unlabelled_and_a_source_of_nothing_else_has_its_map(tmp_path, options):
    pixels = blobs(1, (60, 60))
    pixels[10:20, 5:50] = 0
    (tmp_path / "in").mkdir()
    save_tiff(tmp_path / "in" / "hole.tif", pixels)
    save_tiff(tmp_path / "in" / "void.tif", np.zeros_like(pixels))
    summary = predict_archive(tmp_path / "in", tmp_path / "out", settings=BOTH, options=options)
    hole = labels_of(tmp_path / "out", "hole.tif")
    np.testing.assert_array_equal(hole == 255, (pixels == 0).all(axis=2))
    assert (labels_of(tmp_path / "out", "void.tif") == 255).all()
    assert summary.tiles == {"ok": 9, "skipped": 9} and summary.labelled == 1.0


def test_what_the_model_says_is_what_is_done(tmp_path, scenes):
    """Settings that are left open; what is given outranks it."""
    card = ModelCard(64, "float32", 2, ReadSettings((3, 2, 1), "ignore", (7.0,), "0,100"))
    source = filled(SourceSettings(), card)
    assert (source.tile, source.overlap, source.bands) == (128, 43, (3, 2, 1))
    assert (source.alpha, source.nodata, source.stretch) == ("ignore", (7.0,), "0,100")
    source = filled(SourceSettings(tile=96, overlap=5, bands=(1,), nodata=(), alpha="use"), card)
    assert (source.tile, source.overlap, source.bands) == (96, 5, (1,))
    assert (source.alpha, source.nodata, source.stretch) == ("use", (), "0,100")
    for tile, words in ((62, "at least 64"), (97, "multiple of 2")):
        with pytest.raises(SettingsError, match=f"--tile {tile}: .*{words}"):
            filled(SourceSettings(tile=tile, overlap=0), card)


def test_a_model_that_saw_smaller_images_sees_smaller_ones_here(tmp_path, options):
    """Of an image made larger by 2 it says what it says of the small one, made larger."""
    small = blobs(4, (48, 48))
    (tmp_path / "in").mkdir()
    Image.fromarray(small).save(tmp_path / "in" / "s.png")
    (tmp_path / "large").mkdir()
    Image.fromarray(small.repeat(2, 0).repeat(2, 1)).save(tmp_path / "large" / "s.png")
    model = make_model(tmp_path / "halved", card=replace(CARD, shrink=2))
    predict_archive(tmp_path / "in", tmp_path / "one", options=options)
    predict_archive(
        tmp_path / "large", tmp_path / "two", options=replace(options, model=str(model))
    )
    one, two = labels_of(tmp_path / "one", "s.png"), labels_of(tmp_path / "two", "s.png")
    assert two.shape == (96, 96) and (two[::2, ::2] == one).mean() > 0.95
    assert len(np.unique(one)) > 1


HOSTILE = ("<script>alert(1)</script>", "a\nb\r\x1b[31m", "=1+2", "\u202eevil", "x" * 10_000, "")


SHOWN = (HOSTILE[0], "a b [31m", "=1+2", "evil", "x" * 99 + "…", "class 2")


@pytest.mark.slow
@pytest.mark.report
def test_hostile_names_change_nothing_but_the_name_shown(scenes, tmp_path, options):
    model = make_model(tmp_path / "model", HOSTILE[:3], CARD)
    predict_archive(scenes, tmp_path / "plain", settings=BOTH, options=options)
    others = make_model(tmp_path / "others", HOSTILE[3:], CARD)
    for number, named in enumerate((model, others)):
        out = tmp_path / f"out{number}"
        predict_archive(scenes, out, settings=BOTH, options=replace(options, model=str(named)))
        found = json.loads((out / "classes.json").read_text())["classes"]
        assert [one["name"] for one in found] == list(SHOWN[3 * number :][:3])
        page = (out / "report" / "index.html").read_text()
        assert "<script>alert" not in page and "\x1b" not in page
        plain = results(tmp_path / "plain")
        for name, content in results(out).items():
            if name.startswith(("labels/", "confidence/")) and name.endswith((".tif", ".png")):
                assert content == plain[name]
        with rasterio.open(out / "probabilities" / "a.tif.tif") as file:
            bands = "".join(name or "" for name in file.descriptions)
        assert bands == "".join(SHOWN[3 * number :][:3])
        assert ET.parse(out / "labels" / "a.tif.aux.xml").getroot().tag == "PAMDataset"


# --- the model


def test_the_card_goes_with_the_model_and_older_ones_have_a_training(tmp_path, checkpoint):
    assert read_card(checkpoint, checkpoint) == CARD
    old = make_model(tmp_path / "old" / "model", card=None).parent
    assert read_card(old, old / "model") == ModelCard()
    settings = {"crop": 96, "precision": "bfloat16", "bands": [2, 1, 3], "shrink": 3, "rate": 1.0}
    (old / "training.json").write_text(json.dumps({"settings": settings}))
    card = read_card(old, old / "model")
    assert card == ModelCard(96, "auto", 3, ReadSettings((2, 1, 3)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"alps": {"crop": -3}}, "cannot read .*config.json"),
        ({"alps": {"colours": [[1, 2, 999]] * 3}}, "cannot read .*config.json"),
        ({"alps": {"colours": [[1, 2, 3]]}}, "knows 3 classes and colours of 1"),
    ],
)
def test_a_card_that_lies_is_refused(tmp_path, scenes, options, change, words):
    model = make_model(tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ModelError, match=words):
        predict_archive(scenes, tmp_path / "out", options=replace(options, model=str(model)))
    assert not (tmp_path / "out").exists()
