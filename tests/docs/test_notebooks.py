"""Notebooks in examples/ run from top to bottom, and are kept without what they print."""

import os

import pytest
from pages import REPOSITORY

NOTEBOOKS = sorted((REPOSITORY / "examples").rglob("*.ipynb"))
LONGEST = 300  # seconds of one cell, on a machine with much else to do


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    nbformat = pytest.importorskip("nbformat", reason="needs nbformat, of the extra `dev`")
    return nbformat.read(request.param, as_version=4)


def test_there_is_one():
    assert NOTEBOOKS


def test_it_is_whole_and_without_outputs(notebook):
    import nbformat

    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) > 3
    for cell in code:
        assert (cell.outputs, cell.execution_count) == ([], None), cell.source
    assert notebook.metadata.keys() == {"kernelspec", "language_info"}
    assert notebook.metadata.language_info == {"name": "python"}  # of no machine's version


@pytest.mark.slow
def test_it_runs(notebook, tmp_path, monkeypatch):
    for cell in notebook.cells:  # as it is, with fewer prompts
        cell.source = cell.source.replace("points_per_side=16", "points_per_side=10")
    client = pytest.importorskip("nbclient", reason="needs nbclient, of the extra `dev`")
    pytest.importorskip("ipykernel", reason="needs ipykernel, of the extra `notebook`")
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "MPLCONFIGDIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    # From the checkout that is tested, wherever the kernel starts.
    here = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join(os.path.abspath(path) for path in here if path)
    )
    place = {"metadata": {"path": str(tmp_path)}}
    client.NotebookClient(
        notebook, timeout=LONGEST, kernel_name="python3", resources=place
    ).execute()
    shown = [
        kind
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        for kind in output.get("data", {})
    ]
    assert shown.count("image/png") == 3 and shown.count("text/html") >= 5
