"""Where everything lies in OUT."""

from pathlib import Path

from alps.engine.run_folder.folder import RunFolder


def test_out_may_be_given_as_text(tmp_path):
    folder = RunFolder(str(tmp_path))
    assert folder == RunFolder(tmp_path) and folder.root == tmp_path
    assert isinstance(folder.run_json, Path)
    folder.update_run(done={"paint": "a"})
    assert folder.read_run()["done"] == {"paint": "a"}
