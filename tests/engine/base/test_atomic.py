"""Files that are whole or not there, also when the power fails."""

import os

import pytest

from alps.engine.base.atomic import (
    publish_folder,
    remove,
    spare_name,
    sync_folder,
    whole,
    write_text,
)
from alps.engine.base.errors import RunFolderError


def test_the_name_comes_after_the_bytes_and_lasts(tmp_path, disk_calls):
    write_text(tmp_path / "a.json", "12345")
    assert disk_calls == [("fsync", 5), ("replace", None), ("fsync", None)]
    assert (tmp_path / "a.json").read_text() == "12345"


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_what_is_interrupted_leaves_the_old_file_alone(tmp_path, error):
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(error), whole(path) as part:
        part.write_text("half")
        assert part.parent == tmp_path and path.read_text() == "old"
        raise error
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"] and path.read_text() == "old"


def test_a_full_disk_is_said_with_the_file_and_the_way_to_go_on(tmp_path):
    with (
        pytest.raises(RunFolderError, match=r"a\.json: No space left.* same command again"),
        whole(tmp_path / "a.json") as part,
    ):
        part.write_text("half")
        raise OSError(28, os.strerror(28))
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_that_cannot_sync_folders_is_no_error(tmp_path, monkeypatch):
    def refuse(handle):
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "fsync", refuse)
    sync_folder(tmp_path)
    sync_folder(tmp_path / "missing")


def folder_of(path, **files):
    (path / "inner").mkdir(parents=True)
    for name, text in files.items():
        (path / "inner" / name).write_text(text)
    return path


def names(path):
    return sorted(found.name for found in path.iterdir())


def test_a_folder_gets_its_name_after_all_its_files_are_on_the_disk(tmp_path, disk_calls):
    part = folder_of(tmp_path / "part", a="12", b="1234")
    publish_folder(part, tmp_path / "done")
    synced = [size for _, size in disk_calls[: disk_calls.index(("replace", None))]]
    assert sorted(size for size in synced if size) == [2, 4]
    assert synced.count(None) == 2  # the folder within, and the folder
    assert disk_calls[len(synced) :] == [("replace", None), ("fsync", None)]
    assert names(tmp_path) == ["done"] and names(tmp_path / "done" / "inner") == ["a", "b"]


def test_a_folder_takes_the_place_of_an_older_one(tmp_path):
    old = folder_of(tmp_path / "done", a="old")
    publish_folder(folder_of(tmp_path / "part", b="new"), old)
    assert names(tmp_path) == ["done"] and names(old / "inner") == ["b"]


def test_killed_between_two_renames_the_older_folder_is_still_there(tmp_path, monkeypatch):
    old = folder_of(tmp_path / "done", a="old")
    part, replace = folder_of(tmp_path / "part", b="new"), os.replace

    def killed(source, target):
        if source == part:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        publish_folder(part, old)
    kept = old if old.exists() else spare_name(old)
    assert (kept / "inner" / "a").read_text() == "old"
    monkeypatch.undo()
    publish_folder(part, old)
    assert names(old / "inner") == ["b"] and not spare_name(old).exists()


def test_what_cannot_be_removed_is_named(tmp_path):
    remove(tmp_path / "nothing")
    (tmp_path / "file").touch()
    remove(tmp_path / "file")
    assert not (tmp_path / "file").exists()
    (tmp_path / "folder").mkdir()
    with pytest.raises(RunFolderError, match=r"cannot remove .*folder: .*by hand"):
        remove(tmp_path / "folder")


def test_where_nothing_can_be_there_is_nothing_to_remove(tmp_path):
    (tmp_path / "file").touch()
    remove(tmp_path / ("x" * 300))
    remove(tmp_path / "file" / "below")
    remove(tmp_path / "none")
    with pytest.raises(RunFolderError, match="cannot remove"):
        remove(tmp_path)
