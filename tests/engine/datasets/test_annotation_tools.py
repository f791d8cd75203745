"""Label Studio's tasks and CVAT's XML, read by decoders written from their specifications."""

import json
import xml.etree.ElementTree as ET
from urllib.parse import unquote

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from labelled_run import HOSTILE

from alps.engine.base.errors import SourceError
from alps.engine.datasets import labelstudio
from alps.engine.datasets.categories import MOST_LETTERS, Categories, _labels
from alps.engine.datasets.cvat import _attribute, row_counts
from alps.engine.datasets.labelstudio import mask_code


def words_of(code):
    """The words in a code of @thi.ng/rle-pack, bit by bit."""
    bits = "".join(f"{byte:08b}" for byte in code)
    at = 0

    def read(size):
        nonlocal at
        at += size
        return int(bits[at - size : at], 2)

    count, word = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    found = []
    while len(found) < count:
        is_run = read(1)
        length = read(sizes[read(2)]) + 1
        found += [read(word)] * length if is_run else [read(word) for _ in range(length)]
    assert len(bits) - at < 8
    return np.array(found, np.uint8)


def classes(run):
    return {item.label: item for item in Categories.of(run.folder).items}


def rows_by_name(run):
    return {row["path"].removeprefix(f"{run.images}/"): row for row in run.rows().values()}


# --- Label Studio


def test_brush_masks_are_the_label_map(own_run, tmp_path, export):
    own_run.name_classes(HOSTILE)
    export(own_run, tmp_path / "d", "--format", "labelstudio", "--url", "s3://bucket/")
    tasks = json.loads((tmp_path / "d" / "tasks.json").read_text())
    known, rows = classes(own_run), rows_by_name(own_run)
    names = [unquote(task["data"]["image"].removeprefix("s3://bucket/")) for task in tasks]
    assert sorted(names) == sorted(rows)
    for name, task in zip(names, tasks, strict=True):
        expected = own_run.label(rows[name]["label"])
        found = np.full(expected.shape, 255)
        for region in task["predictions"][0]["result"]:
            size = region["original_height"], region["original_width"]
            assert size == expected.shape and region["value"]["format"] == "rle"
            pixels = words_of(region["value"]["rle"]).reshape(*size, 4)
            assert (pixels == pixels[..., :1]).all() and set(np.unique(pixels)) == {0, 255}
            (label,) = region["value"]["brushlabels"]
            assert (found[pixels[..., 3] > 0] == 255).all()
            found[pixels[..., 3] > 0] = known[label].value
        assert (found == expected).all()


def test_the_interface_has_the_labels(own_run, tmp_path, export):
    own_run.name_classes(HOSTILE)
    export(own_run, tmp_path / "d", "--format", "labelstudio")
    view = ET.parse(tmp_path / "d" / "config.xml").getroot()
    labels = {one.get("value"): one.get("background") for one in view.iter("Label")}
    assert labels == {label: item.hex for label, item in classes(own_run).items()}
    brush, image = view.find("BrushLabels"), view.find("Image")
    tasks = json.loads((tmp_path / "d" / "tasks.json").read_text())
    region = tasks[0]["predictions"][0]["result"][0]
    assert (region["from_name"], region["to_name"]) == (brush.get("name"), image.get("name"))
    assert brush.get("toName") == image.get("name") and image.get("value") == "$image"
    assert tasks[1]["data"]["image"] == "/data/local-files/?d=a%20b.png"


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 70)), min_size=1, max_size=40))
def test_codes_hold_any_runs(runs):
    is_on, lengths = (np.array(part) for part in zip(*runs, strict=True))
    words = words_of(mask_code(is_on, lengths))
    assert (words == np.repeat(np.where(is_on, 255, 0), 4 * lengths)).all()


@pytest.mark.parametrize("pixels", [2, 4, 64, 16_384, 16_385, 40_000])
def test_codes_of_runs_as_long_as_each_size_counts(pixels):
    words = words_of(mask_code(np.array([True, False]), np.array([pixels, 1])))
    assert (words == np.repeat([255, 0], [4 * pixels, 4])).all()


def test_an_image_that_the_code_cannot_count_is_a_row(finished, tmp_path, export, monkeypatch):
    monkeypatch.setattr(labelstudio, "MOST_WORDS", 4 * 96 * 96 + 1)
    assert "4 images" not in export(finished, tmp_path / "d", "--format", "labelstudio")
    monkeypatch.setattr(labelstudio, "MOST_WORDS", 4)
    with pytest.raises(SourceError, match="96 x 96 pixels are more"):
        export(finished, tmp_path / "e", "--format", "labelstudio")


def test_what_a_browser_does_not_show_is_said(own_run, tmp_path, export):
    kinds = own_run.folder.read_run()["read"]
    own_run.folder.update_run(read=[kinds[0] | {"dtype": "uint16", "band_count": 8}, *kinds[1:]])
    for format, is_said in (("labelstudio", True), ("cvat", True), ("coco", False)):
        said = export(own_run, tmp_path / format, "--format", format)
        assert ("uint16, 8 bands" in said) == is_said
        doubts = json.loads((tmp_path / format / "export.json").read_text())["doubts"]
        assert len(doubts) == is_said


# --- CVAT


def test_masks_in_their_boxes_are_the_objects(own_run, tmp_path, export):
    own_run.name_classes(HOSTILE)
    export(own_run, tmp_path / "d", "--format", "cvat")
    root = ET.parse(tmp_path / "d" / "annotations.xml").getroot()
    assert root.tag == "annotations" and root.findtext("version") == "1.1"
    known, rows = classes(own_run), rows_by_name(own_run)
    labels = {one.findtext("name"): one.findtext("color") for one in root.iter("label")}
    assert labels == {label: item.hex for label, item in known.items()}
    raw = json.loads((tmp_path / "d" / "labels.json").read_text())
    assert {one["name"]: one["color"] for one in raw} == labels
    images = list(root.iter("image"))
    assert sorted(image.get("name") for image in images) == sorted(rows)
    for image in images:
        row = rows[image.get("name")]
        expected = {np.packbits(mask).tobytes(): value for value, mask in own_run.expected(row)}
        shape = int(image.get("height")), int(image.get("width"))
        found = {}
        for one in image.iter("mask"):
            box = [int(one.get(name)) for name in ("left", "top", "width", "height")]
            x, y, width, height = box
            counts = [int(count) for count in one.get("rle").split(",")]
            flat = np.repeat(np.arange(len(counts)) % 2, counts)
            mask = np.zeros(shape, bool)
            mask[y : y + height, x : x + width] = flat.reshape(height, width)
            found[np.packbits(mask).tobytes()] = known[one.get("label")].value
        assert found == expected


def test_row_counts_begin_with_what_is_not_of_the_mask():
    assert row_counts(np.array([[True, True], [False, True]])).tolist() == [0, 2, 1, 1]
    assert row_counts(np.array([[False, True], [True, False]])).tolist() == [1, 2, 1]


def test_names_of_images_that_xml_cannot_hold_do_not_break_it():
    text = _attribute('\x01&<"\n\uffff😀')
    assert ET.fromstring(f"<a b={text}/>").get("b") == '\ufffd&<"\n\ufffd😀'


# --- names


def test_labels_are_lines_that_differ():
    names = ["a\nb", "a b", "x" * 100, "x" * 99, " ", "class 4", "a b (1)"]
    found = _labels(names, range(7))
    assert found[:2] == ["a b", "a b (1)"] and found[4] == "class 4"
    assert len(set(found)) == 7 and all(0 < len(label) <= MOST_LETTERS for label in found)
    assert not any(label != " ".join(label.split()) for label in found)
