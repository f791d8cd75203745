"""Data sets that hold images: mmseg's layout as our trainer and others read it, and YOLO's."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from labelled_run import HOSTILE, IMAGES
from PIL import Image

import alps
from alps.engine.base.errors import SettingsError, SourceError
from alps.engine.datasets import images as module
from alps.engine.datasets.categories import Categories
from alps.engine.datasets.polygons import rings_of
from alps.engine.run_folder.tables import write_table
from alps.trainer.data.find import find_data
from alps.trainer.data.settings import DataSettings


def values_of(run):
    return [item.value for item in Categories.of(run.folder).items]


def label_of(run, path):
    """The label map of an image, by the file that a link leads to."""
    (row,) = (row for row in run.rows().values() if os.path.samefile(row["path"], path))
    return run.label(row["label"])


# --- mmseg


def test_the_trainer_reads_mmsegs_layout(own_run, tmp_path, export):
    own_run.name_classes(HOSTILE)
    export(own_run, tmp_path / "d", "--format", "mmseg", "--val", 0.4)
    found = find_data(tmp_path / "d", DataSettings())
    items = Categories.of(own_run.folder).items
    assert found.rules.classes == tuple(item.name for item in items) and not found.problems
    assert [len(found.split(name)) for name in ("train", "test")] == [4, 2]
    values = np.array([*values_of(own_run), *[255] * 256])
    for pair in found.pairs:
        assert pair.image.is_symlink()
        with Image.open(pair.label) as mask:
            assert mask.mode == "P"
            assert mask.getpalette()[:3] == list(items[0].colour)
            pixels = np.array(mask)
        assert set(np.unique(pixels)) <= {*range(len(items)), 255}
        assert (values[pixels] == label_of(own_run, pair.image)).all()
    meta = json.loads((tmp_path / "d" / "metainfo.json").read_text())
    assert meta["classes"] == list(found.rules.classes)
    assert meta["palette"] == [list(item.colour) for item in items]


@pytest.mark.parametrize("format", ["mmseg", "yolo"])
def test_images_are_copied_as_they_are_where_that_is_asked_for(finished, tmp_path, export, format):
    export(finished, tmp_path / "d", "--format", format, "--copy")
    copies = [path for path in (tmp_path / "d").rglob("*") if path.suffix in (".jpg", ".png")]
    copies = [path for path in copies if "ann_dir" not in path.parts]
    assert len(copies) == len(IMAGES) and not any(path.is_symlink() for path in copies)
    originals = {(finished.images / name).read_bytes() for name in IMAGES}
    assert {path.read_bytes() for path in copies} == originals
    assert {path.suffix for path in copies} == {".jpg", ".png"}


@pytest.mark.parametrize("format", ["mmseg", "yolo"])
def test_an_image_that_is_gone_is_a_row(own_run, tmp_path, export, format, monkeypatch):
    gone = own_run.rows()[1]["path"]
    real = module.LabelledImage.file
    file = property(lambda self: None if self.path == gone else real.fget(self))
    monkeypatch.setattr(module.LabelledImage, "file", file)
    said = export(own_run, tmp_path / "d", "--format", format)
    assert "5 images" in said and "1 sources are left out" in said
    row = json.loads((tmp_path / "d" / "left_out.jsonl").read_text())
    assert gone in row["reason"] and "no file of this machine" in row["reason"]
    monkeypatch.setattr(module.LabelledImage, "file", None)
    with pytest.raises(SourceError, match="none of 6 images"):
        export(own_run, tmp_path / "e", "--format", format)


@pytest.mark.parametrize("format", ["mmseg", "yolo"])
def test_a_file_that_is_not_the_labelled_image_gets_into_no_data_set(
    own_run, tmp_path, export, format
):
    """A run folder that somebody sent may say any path."""
    (tmp_path / "secret").write_text("secret")
    Image.new("RGB", (40, 30)).save(tmp_path / "other.png")
    plan = pq.read_table(own_run.folder.plan)
    paths = [str(tmp_path / "secret"), str(tmp_path / "other.png")]
    paths += plan.column("path").to_pylist()[2:]
    at = plan.schema.get_field_index("path")
    write_table(plan.set_column(at, "path", [paths]), own_run.folder.plan)
    said = export(own_run, tmp_path / "d", "--format", format, "--copy")
    assert "4 images" in said and "2 sources are left out" in said
    reasons = (tmp_path / "d" / "left_out.jsonl").read_text().splitlines()
    assert "secret" in reasons[0] and "is now 40 x 30 pixels, its label map" in reasons[1]
    files = [path for path in (tmp_path / "d").rglob("*") if path.is_file()]
    assert not any(path.read_bytes() == b"secret" for path in files)


def test_label_maps_of_one_name_and_two_endings_are_told_apart(own_run, tmp_path, export):
    plan = pq.read_table(own_run.folder.plan)
    labels = plan.column("label").to_pylist()
    own_run.folder.label(labels[0]).rename(own_run.folder.label("x.png"))
    own_run.folder.label(labels[1]).rename(own_run.folder.label("x.tif"))
    at = plan.schema.get_field_index("label")
    write_table(
        plan.set_column(at, "label", [["x.png", "x.tif", *labels[2:]]]), own_run.folder.plan
    )
    export(own_run, tmp_path / "d", "--format", "mmseg")
    masks = sorted(path.name for path in (tmp_path / "d" / "ann_dir" / "train").glob("*.png"))
    assert {"x.png.png", "x.tif.png"} < set(masks)
    assert len(find_data(tmp_path / "d", DataSettings()).pairs) == 6


def test_more_classes_than_a_byte_tells_are_refused(own_run, tmp_path, export):
    content = json.loads(own_run.folder.classes.read_text())
    some = content["classes"][0]
    content["classes"] = [some | {"id": i, "pixels": 1, "name": str(i)} for i in range(256)]
    own_run.write_classes(content)
    with pytest.raises(SettingsError, match="256: merge some"):
        export(own_run, tmp_path / "d", "--format", "mmseg")


# --- YOLO


def drawn(image, shape):
    """Class numbers (H, W) as Ultralytics draws them, 255 in none: it cuts off fractions."""
    found = np.full(shape, 255, np.uint8)
    text = str(image)
    labels = "/labels/".join(text.rsplit("/images/", 1)).rsplit(".", 1)[0] + ".txt"
    for line in Path(labels).read_text().splitlines():
        number, *points = line.split()
        assert len(points) >= 6
        shares = np.array(points, np.float32).reshape(-1, 2)
        assert shares.min() >= 0 and shares.max() <= 1
        points = np.asarray(shares * [shape[1], shape[0]], np.int32)
        own = np.zeros(shape, np.uint8)
        cv2.fillPoly(own, [points], 1)
        assert (found[own > 0] == 255).all()  # parts do not overlap
        found[own > 0] = int(number)
    return found


def test_outlines_are_the_label_maps_objects(own_run, tmp_path, export):
    """One of the folders is called images, where labels are looked for in its place."""
    own_run.name_classes(HOSTILE)
    export(own_run, tmp_path / "d", "--format", "yolo", "--val", 0.4)
    about = yaml.safe_load((tmp_path / "d" / "data.yaml").read_text(encoding="utf-8"))
    items = Categories.of(own_run.folder).items
    assert about["names"] == {item.number: item.name for item in items}
    values = np.array([*values_of(own_run), *[255] * 256])
    seen = 0
    for split in ("train", "val"):
        folder = tmp_path / "d" / about[split]
        for image in [path for path in folder.rglob("*") if path.is_file()]:
            expected = label_of(own_run, image)
            assert (values[drawn(image, expected.shape)] == expected).all()
            seen += 1
    assert seen == len(IMAGES)


def test_without_a_part_held_out_validation_is_training(finished, tmp_path, export):
    export(finished, tmp_path / "d", "--format", "yolo")
    about = yaml.safe_load((tmp_path / "d" / "data.yaml").read_text())
    assert about["val"] == about["train"] == "images/train"


def filled(rings, shape):
    found = np.zeros(shape, np.uint8)
    for ring in rings:
        cv2.fillPoly(found, [ring.astype(np.int32)], 1)
    return found > 0


@pytest.mark.parametrize("seed", range(20))
def test_rings_of_parts_with_a_hole_are_the_mask(seed):
    rng = np.random.default_rng(seed)
    mask = np.zeros((40, 50), bool)
    for y, x in rng.integers(2, 25, (3, 2)):
        mask[y : y + 12, x : x + 15] = True
    y, x = np.argwhere(cv2.erode(mask.astype(np.uint8), np.ones((5, 5))))[rng.integers(9)]
    mask[y - 1 : y + 2, x - 1 : x + 1] = False
    rings = rings_of(mask)
    assert (filled(rings, mask.shape) == mask).all()
    assert len(rings) == cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[0] - 1


def test_rings_with_many_holes_differ_by_bridges_alone():
    rng = np.random.default_rng(1)
    mask = cv2.GaussianBlur(rng.random((80, 80)), (0, 0), 2) < 0.53
    found = filled(rings_of(mask), mask.shape)
    assert found[mask].all()
    assert (found != mask).sum() < 0.01 * mask.sum()


def test_a_pixel_and_a_line_are_rings_of_three_points():
    for mask in (np.ones((1, 1), bool), np.ones((1, 5), bool), np.eye(3, dtype=bool)):
        (ring,) = rings_of(mask)
        assert len(ring) >= 3 and (filled([ring], mask.shape) == mask).all()


# --- options


@pytest.mark.parametrize(
    ("format", "options", "why"),
    [
        ("coco", ("--copy",), "--copy has no effect with --format coco"),
        ("yolo", ("--url", "x"), "--url has no effect with --format yolo"),
        ("cvat", ("--val", 0.2), "--val, --seed and --scene have no effect with --format cvat"),
        ("mmseg", ("--seed", 2), "--seed and --scene have no effect .* and no --val"),
    ],
)
def test_an_option_without_effect_is_refused(finished, tmp_path, export, format, options, why):
    with pytest.raises(SettingsError, match=why):
        export(finished, tmp_path / "d", "--format", format, *options)


def test_in_python_too(finished, tmp_path):
    out, target = finished.folder.root, tmp_path / "d"
    with pytest.raises(SettingsError, match="give one of coco, yolo"):
        alps.export_labels(out, target, alps.ExportSettings("voc"))
    with pytest.raises(SettingsError, match="from 0 up to 1"):
        alps.export_labels(out, target, alps.ExportSettings("coco", val=1))
    found = alps.export_labels(out, target, alps.ExportSettings("mmseg"))
    assert found.images == len(IMAGES) and found.root == target
