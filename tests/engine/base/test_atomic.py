"""Files that are whole or not there, also when the power fails."""

import os

import pytest

from alps.engine.base.atomic import sync_folder, whole, write_text
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
