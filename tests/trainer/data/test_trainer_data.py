"""Pairs found and split, labels decoded, the cache, the report of bad data, and the samples."""

import json
from dataclasses import replace

import numpy as np
import pytest
import teaching
from PIL import Image
from teaching import save_data, save_image

from alps.engine.base.errors import SettingsError, SourceError
from alps.engine.images.windows import Window
from alps.trainer.data import cache as caching
from alps.trainer.data.cache import build_cache
from alps.trainer.data.decode import DecodeRequest
from alps.trainer.data.find import find_data
from alps.trainer.data.labels import LabelReader
from alps.trainer.data.report import check
from alps.trainer.data.rules import LabelRules
from alps.trainer.data.samples import (
    Augmentation,
    Cells,
    Samples,
    recoloured,
    turned,
)
from alps.trainer.data.settings import DataSettings

PLAIN = Augmentation(orientations=False, scale=1.0, colour=0.0)


def cached(folder, where, settings=None, cell=32):
    settings = settings or DataSettings(test="c*")
    return build_cache(DecodeRequest(find_data(folder, settings), settings, cell), where)


def kinds(problems):
    return sorted(problem.kind for problem in problems)


# --- pairs and splits


def names(data, split):
    return [pair.name for pair in data.split(split)]


def test_globs_split(tmp_path):
    data = find_data(save_data(tmp_path), DataSettings(train="a*", test="c*"))
    assert names(data, "train") == ["a1", "a2"] and names(data, "test") == ["c1"]
    assert names(find_data(tmp_path, DataSettings(test="c*")), "train") == ["a1", "a2", "b1"]


def test_some_of_the_images_to_learn_from_are_held_out(tmp_path):
    data = find_data(save_data(tmp_path), DataSettings(train="a*", hold_out=0.5))
    assert len(names(data, "train")) == len(names(data, "test")) == 1
    assert {pair.name for pair in data.pairs} == {"a1", "a2"}


def test_scenes_are_held_out_whole(tmp_path):
    save_data(tmp_path, [f"{scene}{part}" for scene in "abcd" for part in range(3)])
    data = find_data(tmp_path, DataSettings(scene="^[a-d]", hold_out=0.5))
    scenes = [{pair.scene for pair in data.split(split)} for split in ("train", "test")]
    assert scenes[0] | scenes[1] == set("abcd") and not scenes[0] & scenes[1]
    assert len(scenes[1]) == 2 and len(data.split("test")) == 6
    again = find_data(tmp_path, DataSettings(scene="^[a-d]", hold_out=0.5))
    assert again == data


@pytest.mark.parametrize(("pattern", "text"), [("(", "no regular"), ("x", "does not match")])
def test_scenes_that_cannot_be_told(tmp_path, pattern, text):
    with pytest.raises(SettingsError, match=text):
        find_data(save_data(tmp_path), DataSettings(scene=pattern))


def test_mmseg_layout(tmp_path):
    for split, seed in (("train", 0), ("train", 1), ("val", 2)):
        image, labels = teaching.make_pair(seed)
        save_image(tmp_path / "img_dir" / split / f"x{seed}.png", image)
        save_image(tmp_path / "ann_dir" / split / f"x{seed}.png", labels)
    save_image(tmp_path / "img_dir" / "test" / "secret.png", image)  # no labels are public
    data = find_data(tmp_path, DataSettings())
    assert names(data, "train") == ["train/x0", "train/x1"]
    assert names(data, "test") == ["val/x2"] and not data.problems


def test_names_may_end_differently(tmp_path):
    image, labels = teaching.make_pair(0)
    save_image(tmp_path / "images" / "t_1_RGB.png", image)
    save_image(tmp_path / "masks" / "t_1_label.png", labels)
    data = find_data(tmp_path, DataSettings(image_suffix="_RGB", label_suffix="_label"))
    assert [pair.name for pair in data.pairs] == ["t_1"]


def test_what_has_no_counterpart_is_told(tmp_path):
    save_data(tmp_path)
    (tmp_path / "labels" / "a1.png").unlink()
    (tmp_path / "images" / "b1.png").unlink()
    save_image(tmp_path / "images" / "a2.jpg", teaching.make_pair(0)[0])
    data = find_data(tmp_path, DataSettings())
    assert kinds(data.problems) == ["ambiguous name", "no image", "no labels"]


def test_a_folder_of_no_known_layout(tmp_path):
    with pytest.raises(SourceError, match="no layout that is known"):
        find_data(tmp_path, DataSettings())


def test_dataset_json_is_read_and_checked(tmp_path):
    save_data(tmp_path)
    rules = LabelRules(("x", "y"), ((1, 2, 3), (4, 5, 6)), left_out=("y",))
    rules.save(tmp_path)
    assert find_data(tmp_path, DataSettings()).rules == rules
    for wrong, text in (
        ({"classes": ["x"], "palete": []}, "unknown key palete"),
        ({"classes": ["x"], "palette": [[0, 0, 300]]}, r"<= 255 - at \$\.palette"),
        ({"classes": ["x"], "palette": []}, "1 classes but 0"),
        ({"classes": ["x"], "left_out": ["z"]}, "left_out"),
    ):
        (tmp_path / "dataset.json").write_text(json.dumps(wrong))
        with pytest.raises(SourceError, match=text):
            find_data(tmp_path, DataSettings())


# --- labels


def decoded(path, rules):
    with LabelReader(path, rules) as reader:
        width, height = reader.size
        return reader.read(Window(0, 0, width, height)), reader.complaint()


def test_numbers(tmp_path):
    path = save_image(tmp_path / "x.png", np.array([[0, 1, 2], [3, 9, 255]]))
    ids, complaint = decoded(path, LabelRules(("a", "b", "c", "d")))
    assert ids.tolist() == [[0, 1, 2], [3, 255, 255]] and ids.dtype == np.uint8
    assert complaint == (
        "class ids out of range", "1 pixels of values 9; 4 classes are 0 … 3"
    )  # fmt: skip


def test_zero_may_be_no_class(tmp_path):
    path = save_image(tmp_path / "x.png", np.array([[0, 1, 2]]))
    ids, complaint = decoded(path, LabelRules(("a", "b"), reduce_zero=True))
    assert ids.tolist() == [[255, 0, 1]] and complaint is None


def test_colours(tmp_path):
    rules = LabelRules(("a", "b"), ((255, 0, 0), (0, 0, 9)), ignore_colours=((0, 0, 0),))
    pixels = np.array([[(255, 0, 0), (0, 0, 9)], [(0, 0, 0), (7, 7, 7)]])
    ids, complaint = decoded(save_image(tmp_path / "x.png", pixels), rules)
    assert ids.tolist() == [[0, 1], [255, 255]]
    assert complaint == ("unknown colours", "1 pixels of 1 colours: (7, 7, 7)")


def test_colours_of_a_palette(tmp_path):
    image = Image.fromarray(np.array([[3, 1]], np.uint8), "P")
    image.putpalette([0, 0, 0, 0, 0, 9, 5, 5, 5, 255, 0, 0])
    image.save(tmp_path / "x.png")
    rules = LabelRules(("a", "b"), ((255, 0, 0), (0, 0, 9)))
    assert decoded(tmp_path / "x.png", rules)[0].tolist() == [[0, 1]]


def test_masks_of_grey_values(tmp_path):
    Image.fromarray(np.kron([[0, 255]], np.ones((16, 16))).astype(np.uint8)).save(
        tmp_path / "x.jpg", quality=60
    )
    ids, _ = decoded(tmp_path / "x.jpg", LabelRules(("no", "yes"), threshold=127))
    assert ids[:, :16].max() == 0 and ids[:, 16:].min() == 1


# --- the cache


def test_arrays_are_what_the_files_hold(tmp_path):
    cache = cached(save_data(tmp_path / "data"), tmp_path / "cache")
    pair = cache.split("train")[0]
    image, labels = teaching.make_pair(0)
    assert (pair.pixels(cache.root) == image).all() and (pair.labels(cache.root) == labels).all()
    assert pair.weights(cache.root) is None
    assert pair.class_pixels == tuple(np.bincount(labels[labels < 255], minlength=3))
    assert sum(map(sum, pair.labelled)) == (labels < 255).sum()
    assert len(pair.labelled) == 2 and len(pair.labelled[0]) == 3  # cells of 35 x 30


def test_strips_make_no_difference(tmp_path, monkeypatch):
    save_data(tmp_path / "data")
    settings = DataSettings(test="c*", shrink=3)
    whole = cached(tmp_path / "data", tmp_path / "whole", settings)
    monkeypatch.setattr(
        "alps.trainer.data.decode.strips",
        lambda width, height, multiple: [
            Window(0, y, width, min(12, height - y)) for y in range(0, height, 12)
        ],
    )
    parts = cached(tmp_path / "data", tmp_path / "parts", settings)
    assert len(whole.pairs) == len(parts.pairs) == 4
    for one, two in zip(whole.pairs, parts.pairs, strict=True):
        assert (one.width, one.height) == (30, 23)
        assert (one.labels(whole.root) == two.labels(parts.root)).all()
        difference = one.pixels(whole.root).astype(int) - two.pixels(parts.root)
        assert abs(difference).max() <= 1


def test_nodata_teaches_nothing(make_raster, tmp_path):
    raster = make_raster(missing="value")
    (tmp_path / "images").mkdir()
    raster.path.rename(tmp_path / "images" / "a.tif")
    save_image(tmp_path / "labels" / "a.png", np.zeros((40, 60)))
    cache = cached(tmp_path, tmp_path / "cache", DataSettings(hold_out=0))
    labels = cache.pairs[0].labels(cache.root)
    assert (labels[:, :7] == 255).all() and (labels[:, 7:] == 0).all()


def test_a_second_call_decodes_nothing(tmp_path, monkeypatch):
    first = cached(save_data(tmp_path / "data"), tmp_path / "cache")
    monkeypatch.setattr(caching, "decode_pair", lambda *_: pytest.fail("decoded again"))
    assert cached(tmp_path / "data", tmp_path / "cache") == first
    save_image(tmp_path / "data" / "images" / "a1.png", teaching.make_pair(8)[0])
    monkeypatch.undo()
    changed = cached(tmp_path / "data", tmp_path / "cache")
    assert changed.root != first.root  # another file, another cache


def test_a_killed_call_is_gone_on_with(tmp_path, monkeypatch):
    save_data(tmp_path / "data")
    real, seen = caching.decode_pair, []

    def stops(request, targets, pair, root, stem):
        if pair.name == "b1":
            raise KeyboardInterrupt
        return real(request, targets, pair, root, stem)

    def counts(request, targets, pair, root, stem):
        before = (root / f"{stem}.json").exists()
        seen.append((pair.name, before))
        return real(request, targets, pair, root, stem)

    monkeypatch.setattr(caching, "THREADS", 1)
    monkeypatch.setattr(caching, "decode_pair", stops)
    with pytest.raises(KeyboardInterrupt):
        cached(tmp_path / "data", tmp_path / "cache")
    monkeypatch.setattr(caching, "decode_pair", counts)
    cache = cached(tmp_path / "data", tmp_path / "cache")
    assert seen[:2] == [("a1", True), ("a2", True)] and ("b1", False) in seen
    assert len(cache.pairs) == 4 and not list(cache.root.glob("0*.json"))


# --- the report


def spoil(folder):
    """One of each thing that can be wrong with a pair."""
    (folder / "images" / "a1.png").write_bytes(b"no image")
    save_image(folder / "labels" / "a2.png", np.zeros((3, 4)))
    labels = teaching.make_pair(2)[1]
    labels[5, 5] = 77
    save_image(folder / "labels" / "b1.png", labels)
    (folder / "labels" / "b2.png").unlink()
    return folder


def test_all_that_is_wrong_is_said_at_once(tmp_path, capsys):
    folder = spoil(save_data(tmp_path / "data", ("a1", "a2", "b1", "b2", "b3", "c1")))
    cache = cached(folder, tmp_path / "cache", DataSettings(test="c*", classes="x,y,z"))
    with pytest.raises(SourceError, match=r"4 problems .*--skip-bad"):
        check(cache, ("train", "test"), tmp_path / "report.txt", skip_bad=False)
    said = capsys.readouterr().err
    for kind in ("unreadable: 1", "sizes differ: 1", "class ids out of range: 1", "no labels: 1"):
        assert kind in said
    assert "b1: 1 pixels of values 77" in said
    assert (tmp_path / "report.txt").read_text() in said
    check(cache, ("train", "test"), tmp_path / "report.txt", skip_bad=True)
    assert [pair.name for pair in cache.pairs] == ["b3", "c1"]


@pytest.mark.parametrize("test", ["nothing*", "c*"])
def test_an_empty_split_is_told(tmp_path, test):
    save_data(tmp_path / "data")
    save_image(tmp_path / "data" / "labels" / "c1.png", np.full((70, 90), 255))
    cache = cached(tmp_path / "data", tmp_path / "cache", DataSettings(test=test))
    with pytest.raises(SourceError, match="no usable pair" if test == "nothing*" else "no pixel"):
        check(cache, ("train", "test"), tmp_path / "report.txt", skip_bad=True)


def test_a_jpeg_of_labels_needs_a_threshold(tmp_path):
    save_data(tmp_path / "data", ("a1",))
    (tmp_path / "data" / "labels" / "a1.png").unlink()
    save_image(tmp_path / "data" / "labels" / "a1.jpg", np.zeros((70, 90)))
    with pytest.raises(SettingsError, match="threshold"):
        cached(tmp_path / "data", tmp_path / "cache", DataSettings(classes="x,y"))


# --- samples


def samples_of(folder, where, how=PLAIN, fraction=1.0, crop=32, seed=0, unit="crop"):
    cells = Cells(cached(folder, where), "train")
    cells.take(fraction, unit, seed)
    return cells, Samples(cells, crop, how, seed)


def test_an_epoch_has_each_cell_once(tmp_path):
    cells, samples = samples_of(save_data(tmp_path / "d"), tmp_path / "c")
    places = [samples.place(number) for number in range(2 * len(cells))]
    assert sorted(places[: len(cells)]) == sorted(places[len(cells) :]) == list(range(len(cells)))
    assert places[: len(cells)] != places[len(cells) :]
    assert samples.place(3) == places[3]  # whatever was asked before


def test_crops_are_parts_of_their_image(tmp_path):
    cells, samples = samples_of(save_data(tmp_path / "d"), tmp_path / "c")
    for number in range(6):
        place = samples.place(number)
        sample = samples.make(number, place)
        again = samples.make(number, place)
        assert (sample.pixels == again.pixels).all() and (sample.labels == again.labels).all()
        pair = cells.pairs[cells.chosen[place][0]]
        windows = np.lib.stride_tricks.sliding_window_view(
            pair.pixels(cells.root), (32, 32), axis=(0, 1)
        )
        same = (windows == sample.pixels.transpose(2, 0, 1)).all(axis=(2, 3, 4))
        assert same.sum() == 1
        y, x = np.argwhere(same)[0]
        labels = pair.labels(cells.root)[y : y + 32, x : x + 32].astype(int)
        assert (np.where(labels == 255, -1, labels) == sample.labels).all()
        assert (sample.weights == 1).all()


def test_weights_are_turned_and_scaled_with_their_crop(tmp_path):
    how = Augmentation(orientations=True, scale=1.5, colour=0.0)
    cells, samples = samples_of(save_data(tmp_path / "d"), tmp_path / "c", how)
    for pair in cells.pairs:  # a weight for each class, so that labels tell where it belongs
        classes = np.array(pair.labels(cells.root))
        weights = np.where(classes == 255, 0, 50 * (classes.astype(int) + 1)).astype(np.uint8)
        np.save(cells.root / f"{pair.stem}.weights.npy", weights)
    for number in range(16):
        sample = samples.make(number, samples.place(number))
        inside = sample.labels >= 0
        expected = (50 * (sample.labels + 1) / 255)[inside]
        np.testing.assert_allclose(sample.weights[inside], expected, rtol=1e-6)
        assert (sample.weights[~inside] == 0).all() and len(np.unique(sample.labels)) > 1


def test_labels_outside_of_a_fraction_are_not_seen(tmp_path):
    folder = save_data(tmp_path / "d", ("a1", "a2", "b1", "c1"), (200, 200))
    cells, samples = samples_of(folder, tmp_path / "c", fraction=0.1, crop=64)
    whole, _ = samples_of(folder, tmp_path / "c")
    assert len(whole) == 108 and len(cells) == 11
    seen = sum(
        int((samples.make(n, samples.place(n)).labels >= 0).sum()) for n in range(len(cells))
    )
    assert 0 < seen < 11 * 64 * 64 * 0.6  # a crop is four cells large, most of them hidden
    counted = cells.class_pixels().sum()
    assert counted <= 11 * 34 * 34 and whole.class_pixels().sum() == 3 * 200 * 199


@pytest.mark.parametrize("unit", ["crop", "image", "scene"])
def test_smaller_fractions_are_parts_of_larger_ones(tmp_path, unit):
    folder = save_data(tmp_path / "d", [f"{s}{p}" for s in "abcde" for p in range(3)])
    taken = []
    for fraction in (0.01, 0.2, 0.5, 1.0):
        cells, _ = samples_of(folder, tmp_path / "c", fraction=fraction, unit=unit, seed=4)
        taken.append({tuple(row) for row in cells.chosen.tolist()})
    assert taken[0] < taken[1] < taken[2] < taken[3]
    size = {"crop": 1, "image": 6, "scene": 6}[unit]  # without --scene an image is one
    assert len(taken[0]) == size and len(taken[3]) == 12 * 6
    assert abs(len(taken[2]) - 36) <= size


def test_small_images_are_mirrored_and_have_no_labels_beyond(tmp_path):
    folder = save_data(tmp_path / "d", ("a1", "c1"), (20, 26))
    _, samples = samples_of(folder, tmp_path / "c", crop=64)
    sample = samples.make(0, samples.place(0))
    assert sample.pixels.shape == (64, 64, 3) and (sample.pixels.max(axis=2) > 0).all()
    assert (sample.labels >= 0).sum() == 20 * 25


def test_all_eight_orientations():
    image = np.arange(12).reshape(2, 6).astype(np.uint8)[:, :2]
    seen = {turned(image, orientation).tobytes() for orientation in range(8)}
    assert len(seen) == 8


def test_colours_change_but_not_much():
    image = np.full((8, 8, 3), (200, 100, 50), np.uint8)
    random = np.random.default_rng(0)
    changed = [recoloured(image, 0.2, random)[0, 0].astype(int) for _ in range(20)]
    assert len({tuple(c) for c in changed}) > 15
    assert all(c[0] > c[1] > c[2] for c in changed)
    assert abs(np.mean(changed, axis=0) - (200, 100, 50)).max() < 20
    assert (recoloured(image, 0.0, random) == image).all()


def test_scale_keeps_labels_on_their_pixels(tmp_path):
    """Colours are classes in these images, at every scale and turn."""
    folder = save_data(tmp_path / "d", size=(120, 120))
    how = replace(PLAIN, orientations=True, scale=2.0)
    _, samples = samples_of(folder, tmp_path / "c", how)
    right = total = 0
    for number in range(12):
        sample = samples.make(number, samples.place(number))
        distance = abs(sample.pixels[:, :, None].astype(int) - teaching.COLOURS).sum(axis=3)
        known = sample.labels >= 0
        right += (distance.argmin(axis=2) == sample.labels)[known].sum()
        total += known.sum()
    assert right / total > 0.9
