"""COCO's JSON, read by pycocotools: its masks are the label maps' objects."""

import json

import numpy as np
import pytest
from labelled_run import HOSTILE
from pycocotools.coco import COCO

from alps.engine.base.errors import SourceError
from alps.engine.datasets import coco as module


def read(target, split="train"):
    return COCO(str(target / "annotations" / f"instances_{split}.json"))


def test_masks_are_the_label_maps_objects(finished, tmp_path, export):
    said = export(finished, tmp_path / "d", "--format", "coco")
    found = read(tmp_path / "d")
    with_objects = 0
    for index, row in finished.rows().items():
        image = found.imgs[index + 1]
        assert (finished.images / image["file_name"]).samefile(row["path"])
        shape = finished.label(row["label"]).shape
        assert (image["height"], image["width"]) == shape
        expected = {np.packbits(mask).tobytes(): value for value, mask in finished.expected(row)}
        with_objects += (finished.objects(row) >= 0).any()
        own = found.loadAnns(found.getAnnIds(imgIds=[index + 1]))
        masks = {np.packbits(found.annToMask(one)).tobytes(): one for one in own}
        assert {key: one["category_id"] - 1 for key, one in masks.items()} == expected
        assert len(own) == len(expected) > 1
        for one in own:
            mask = found.annToMask(one)
            y, x = np.nonzero(mask)
            box = [x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1]
            assert one["area"] == mask.sum() and one["bbox"] == box and one["iscrowd"] == 0
    assert with_objects == 6 and len(found.anns) > 40
    assert sorted(found.anns) == list(range(1, len(found.anns) + 1))
    assert f"6 images, {len(found.anns)} annotations" in said and "patches" not in said


def test_categories_are_the_classes_that_occur(own_run, tmp_path, export):
    own_run.name_classes(HOSTILE)
    export(own_run, tmp_path / "d", "--format", "coco")
    content = json.loads((tmp_path / "d" / "annotations" / "instances_train.json").read_text())
    classes = json.loads(own_run.folder.classes.read_text())["classes"]
    used = [one for one in classes if one["pixels"]]
    assert [one["id"] for one in content["categories"]] == [one["id"] + 1 for one in used]
    names = [one["name"].replace("\ud83d", "\ufffd") for one in used]
    shown = [one["name"].replace("\ufffd\ufffd\ufffd", "\ufffd") for one in content["categories"]]
    assert shown == names
    assert {one["category_id"] for one in content["annotations"]} == {one["id"] + 1 for one in used}


def test_a_part_of_the_scenes_is_held_out(finished, tmp_path, export):
    export(finished, tmp_path / "a", "--format", "coco")
    export(finished, tmp_path / "b", "--format", "coco", "--val", 0.4)
    whole = read(tmp_path / "a")
    train, val = (read(tmp_path / "b", split) for split in ("train", "val"))
    assert len(val.imgs) == 2 and train.imgs | val.imgs == whole.imgs
    assert train.anns.keys() | val.anns.keys() == whole.anns.keys()
    assert len(train.anns) + len(val.anns) == len(whole.anns)
    export(finished, tmp_path / "c", "--format", "coco", "--val", 0.4, "--seed", 1)
    assert read(tmp_path / "c", "val").imgs != val.imgs


def test_images_of_one_scene_stay_together(finished, tmp_path, export):
    options = ("--format", "coco", "--val", 0.5, "--scene", "^(images/|)")
    export(finished, tmp_path / "d", *options)
    for split in ("train", "val"):
        names = [one["file_name"] for one in read(tmp_path / "d", split).imgs.values()]
        assert len({name.startswith("images/") for name in names}) == 1


def test_an_image_that_run_lengths_cannot_count_is_a_row(finished, tmp_path, export, monkeypatch):
    monkeypatch.setattr(module, "PIXEL_LIMIT", 96 * 96)
    said = export(finished, tmp_path / "d", "--format", "coco")
    assert [one["file_name"] for one in read(tmp_path / "d").imgs.values()] == ["a b.png"]
    rows = (tmp_path / "d" / "left_out.jsonl").read_text().splitlines()
    assert len(rows) == 5 and "96 x 96 pixels" in json.loads(rows[0])["reason"]
    assert "5 sources are left out" in said
    monkeypatch.setattr(module, "PIXEL_LIMIT", 1)
    with pytest.raises(SourceError, match=r"none of 6 images can be written: .* pixels"):
        export(finished, tmp_path / "e", "--format", "coco")
    assert not (tmp_path / "e").exists()
