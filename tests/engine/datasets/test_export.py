"""What all formats share: DIR whole or not at all, going on, what is left out, instances."""

import errno
import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pycocotools.coco import COCO

from alps.engine.base.errors import RunFolderError, SettingsError
from alps.engine.base.stopping import Stopped
from alps.engine.cli.export_labels import FORMATS
from alps.engine.datasets import draft
from alps.engine.datasets.coco import CocoFormat
from alps.engine.datasets.export import KINDS
from alps.engine.images.georeference import Georeference
from alps.engine.images.tiff import whole_tiff
from alps.engine.regions.packing import NOWHERE
from alps.engine.run_folder.tables import write_table

COCO_FORMAT = ("--format", "coco")


def contents(folder):
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture
def stopped_at(monkeypatch):
    """A function after which the n-th image raises an error once; it returns those added."""
    added = []

    def stop(number, error):
        real = CocoFormat.add

        def add(self, image, before):
            added.append(image.index)
            if len(added) == number + 1:
                raise error
            return real(self, image, before)

        monkeypatch.setattr(CocoFormat, "add", add)
        return added

    return stop


def test_a_folder_that_holds_anything_else_is_left_alone(finished, tmp_path, export):
    target = tmp_path / "d"
    target.mkdir()
    (target / "mine.txt").write_text("mine")
    for options in ((), ("--overwrite",)):
        with pytest.raises(SettingsError, match="is not empty and holds no export"):
            export(finished, target, *COCO_FORMAT, *options)
    assert contents(target) == {"mine.txt": b"mine"}
    (tmp_path / "link").symlink_to(target)
    for name in ("link", "d/mine.txt"):
        with pytest.raises(SettingsError, match="no folder, or a link"):
            export(finished, tmp_path / name, *COCO_FORMAT, "--overwrite")


def test_an_export_is_replaced_where_that_is_asked_for(finished, tmp_path, export):
    target = tmp_path / "new" / "d"
    target.mkdir(parents=True)  # an empty one is as good as none
    export(finished, target, *COCO_FORMAT, "--val", 0.4)
    with pytest.raises(SettingsError, match="--overwrite"):
        export(finished, target, *COCO_FORMAT)
    export(finished, target, *COCO_FORMAT, "--overwrite")
    assert sorted(contents(target)) == ["annotations/instances_train.json", "export.json"]
    assert [path.name for path in target.parent.iterdir()] == ["d"]


@pytest.mark.parametrize("error", [Stopped, MemoryError])
def test_a_stopped_export_goes_on_where_it_was(
    finished, tmp_path, export, monkeypatch, stopped_at, error
):
    monkeypatch.setattr(draft, "SECONDS_BETWEEN_NOTES", 0)
    export(finished, tmp_path / "whole", *COCO_FORMAT, "--val", 0.4)
    added = stopped_at(3, error)
    with pytest.raises(error):
        export(finished, tmp_path / "d", *COCO_FORMAT, "--val", 0.4)
    assert not (tmp_path / "d").exists()
    (part,) = tmp_path.glob(".d.part")
    for path in part.glob("annotations/*.json"):  # what came after the last note
        path.write_bytes(path.read_bytes() + b"torn")
    export(finished, tmp_path / "d", *COCO_FORMAT, "--val", 0.4)
    assert added == [0, 1, 2, 3, 3, 4, 5]
    assert contents(tmp_path / "d") == contents(tmp_path / "whole")
    assert not part.exists()


@pytest.mark.parametrize("change", ["options", "lost bytes", "torn journal"])
def test_a_draft_of_something_else_is_begun_anew(
    finished, tmp_path, export, monkeypatch, stopped_at, change
):
    monkeypatch.setattr(draft, "SECONDS_BETWEEN_NOTES", 0)
    options = ("--val", 0.4) if change == "options" else ()
    export(finished, tmp_path / "whole", *COCO_FORMAT, *options)
    added = stopped_at(3, Stopped)
    with pytest.raises(Stopped):
        export(finished, tmp_path / "d", *COCO_FORMAT)
    if change != "options":
        name = "annotations/instances_train.json" if change == "lost bytes" else ".journal"
        path = tmp_path / ".d.part" / name
        path.write_bytes(path.read_bytes()[:20])
    export(finished, tmp_path / "d", *COCO_FORMAT, *options)
    assert added[4:] == [0, 1, 2, 3, 4, 5]
    assert contents(tmp_path / "d") == contents(tmp_path / "whole")


def test_a_row_of_what_was_left_out_after_the_last_note_is_not_kept(
    finished, tmp_path, export, monkeypatch, stopped_at
):
    monkeypatch.setattr(draft, "SECONDS_BETWEEN_NOTES", 0)
    stopped_at(3, Stopped)
    with pytest.raises(Stopped):
        export(finished, tmp_path / "d", *COCO_FORMAT)
    (tmp_path / ".d.part" / "left_out.jsonl").write_text("x")
    export(finished, tmp_path / "d", *COCO_FORMAT)
    assert sorted(contents(tmp_path / "d")) == ["annotations/instances_train.json", "export.json"]


def test_a_full_disk_is_one_line(finished, tmp_path, export, stopped_at):
    stopped_at(2, OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(RunFolderError, match=r"cannot write .*: No space left on device; check"):
        export(finished, tmp_path / "d", *COCO_FORMAT)


def test_two_exports_do_not_write_one_folder(finished, tmp_path, export, monkeypatch):
    real, tried = CocoFormat.add, []

    def add(self, image, before):
        if before == 0:
            with pytest.raises(RunFolderError, match="another export is writing"):
                draft.Draft(tmp_path / "d", "x").__enter__()
            tried.append(image.index)
        return real(self, image, before)

    monkeypatch.setattr(CocoFormat, "add", add)
    export(finished, tmp_path / "d", *COCO_FORMAT)
    assert tried == [0]


def test_without_regions_instances_are_patches_and_that_is_said(own_run, tmp_path, export):
    """As after one pass."""
    shutil.rmtree(own_run.folder.root / "regions")
    said = export(own_run, tmp_path / "d", *COCO_FORMAT)
    assert "of 6 images the run kept no objects: their annotations are patches of a class" in said
    assert json.loads((tmp_path / "d" / "export.json").read_text())["patched"] == 6
    found = COCO(str(tmp_path / "d/annotations/instances_train.json"))
    row = own_run.rows()[0]
    none = np.full(own_run.label(row["label"]).shape, -1)
    own = found.loadAnns(found.getAnnIds(imgIds=[1]))
    masks = {np.packbits(found.annToMask(one)).tobytes() for one in own}
    assert masks == {np.packbits(mask).tobytes() for _, mask in own_run.expected(row, none)}


def test_an_object_map_says_what_objects_are(own_run, tmp_path, export):
    shutil.rmtree(own_run.folder.root / "regions")
    row = own_run.rows()[1]
    labels = own_run.label(row["label"])
    numbers = np.full(labels.shape, NOWHERE, np.uint32)
    numbers[:50], numbers[70:] = 7, 0
    path = own_run.folder.object_map(row["label"])
    path.parent.mkdir(parents=True)
    with whole_tiff(
        path, labels.shape[::-1], NOWHERE, np.dtype(np.uint32), Georeference()
    ) as writer:
        writer.write(0, numbers)
    said = export(own_run, tmp_path / "d", *COCO_FORMAT)
    assert "of 5 images" in said
    found = COCO(str(tmp_path / "d/annotations/instances_train.json"))
    own = found.loadAnns(found.getAnnIds(imgIds=[2]))
    masks = {np.packbits(found.annToMask(one)).tobytes() for one in own}
    expected = own_run.expected(row, numbers.view(np.int32))
    assert masks == {np.packbits(mask).tobytes() for _, mask in expected}


def test_a_source_without_label_map_is_a_row(own_run, tmp_path, export):
    row = own_run.rows()[2]
    own_run.folder.label(row["label"]).unlink()
    said = export(own_run, tmp_path / "d", *COCO_FORMAT)
    assert "1 sources are left out" in said and "5 images" in said
    rows = (tmp_path / "d" / "left_out.jsonl").read_text()
    assert json.loads(rows)["image"] == row["source"] and "alps verify" in rows


def test_images_that_are_gone_are_counted(own_run, tmp_path, export):
    rows = own_run.rows().values()
    moved = {row["path"]: tmp_path / str(index) for index, row in enumerate(rows) if index < 2}
    try:
        for path, to in moved.items():
            shutil.move(path, to)
        said = export(own_run, tmp_path / "d", *COCO_FORMAT)
    finally:
        for path, to in moved.items():
            shutil.move(to, path)
    assert "2 images are named, and are not files of this machine" in said


@pytest.mark.parametrize("damage", ["other class", "other size", "no image"])
def test_a_label_map_that_is_not_the_runs_ends_the_export(own_run, tmp_path, export, damage):
    path = own_run.folder.label(own_run.rows()[1]["label"])
    pixels = {"other class": np.full((96, 96), 200), "other size": np.zeros((96, 95))}
    if damage in pixels:
        Image.fromarray(pixels[damage].astype(np.uint8)).save(path)
    else:
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(RunFolderError, match=path.name) as found:
        export(own_run, tmp_path / "d", *COCO_FORMAT)
    assert "\n" not in str(found.value) and not (tmp_path / "d").exists()


def test_a_run_that_is_not_painted_is_refused(own_run, tmp_path, export):
    own_run.folder.update_run(done=own_run.folder.read_run()["done"] | {"cluster": "other"})
    with pytest.raises(RunFolderError, match="alps paint"):
        export(own_run, tmp_path / "d", *COCO_FORMAT)
    with pytest.raises(RunFolderError, match="not a run folder"):
        own_run.folder.run_json.unlink()
        export(own_run, tmp_path / "d", *COCO_FORMAT)


def test_a_run_that_is_painted_anew_meanwhile_is_not_published(
    own_run, tmp_path, export, monkeypatch
):
    real = CocoFormat.finish

    def finish(self, done):
        own_run.folder.update_run(done={"cluster": "other", "paint": "other"})
        real(self, done)

    monkeypatch.setattr(CocoFormat, "finish", finish)
    with pytest.raises(RunFolderError, match="painted anew meanwhile"):
        export(own_run, tmp_path / "d", *COCO_FORMAT)
    assert not (tmp_path / "d").exists()


def test_the_command_offers_all_formats():
    assert tuple(KINDS) == FORMATS


def test_splits_that_cannot_be_are_refused(finished, tmp_path, export):
    for options, why in (
        (("--val", 0.5, "--scene", "("), "no regular expression"),
        (("--val", 0.5, "--scene", "nowhere"), "does not match"),
        (("--val", 0.5, "--scene", "^"), "needs two scenes"),
    ):
        with pytest.raises(SettingsError, match=why):
            export(finished, tmp_path / "d", *COCO_FORMAT, *options)


def test_a_remote_image_is_named_as_it_is_there_and_is_no_file(own_run, tmp_path, export):
    plan = pq.read_table(own_run.folder.plan)
    names = {"source": "s3/bucket/a b.tif", "path": "/vsis3/bucket/a b.tif"}
    for name, value in names.items():
        column = [value, *plan.column(name).to_pylist()[1:]]
        plan = plan.set_column(plan.schema.get_field_index(name), name, [column])
    write_table(plan, own_run.folder.plan)
    said = export(own_run, tmp_path / "d", *COCO_FORMAT)
    assert "1 images are named, and are not files of this machine" in said
    found = COCO(str(tmp_path / "d/annotations/instances_train.json"))
    assert found.imgs[1]["file_name"] == "s3/bucket/a b.tif"
    said = export(own_run, tmp_path / "e", "--format", "yolo")
    assert "1 sources are left out" in said and "5 images" in said
    rows = json.loads((tmp_path / "e" / "left_out.jsonl").read_text())
    assert "/vsis3/bucket/a b.tif is no file of this machine" in rows["reason"]
