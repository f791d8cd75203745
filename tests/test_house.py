"""Who imports whom, and how much lies side by side."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from package_view import REPOSITORY, link_rooms

MOST_SIDE_BY_SIDE = 12  # entries of a folder that can be read at a glance


@pytest.fixture(scope="module")
def view(tmp_path_factory):
    return link_rooms(tmp_path_factory.mktemp("view"))


def in_view(view, *command):
    environment = os.environ | {"PYTHONPATH": str(view)}
    return subprocess.run(
        [sys.executable, *command], cwd=REPOSITORY, env=environment, capture_output=True, text=True
    )


def test_import_contracts_hold(view):
    pytest.importorskip("importlinter", reason="needs import-linter, of the extra `dev`")
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = in_view(view, "-c", code, "--no-cache")
    contracts = (REPOSITORY / "pyproject.toml").read_text().count("[[tool.importlinter.contracts]]")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{contracts} kept, 0 broken" in done.stdout


def test_no_files_import_each_other_in_a_circle(view):
    pytest.importorskip("grimp", reason="needs import-linter, of the extra `dev`")
    code = (
        "import grimp, json\n"
        "graph = grimp.build_graph('alps', cache_dir=None)\n"
        "print(json.dumps({m: sorted(graph.find_modules_directly_imported_by(m))"
        " for m in graph.modules}))"
    )
    done = in_view(view, "-c", code)
    assert done.returncode == 0, done.stderr

    left = {name: set(imports) for name, imports in json.loads(done.stdout).items()}
    assert len(left) > 250 and "alps.engine.stages.label" in left
    # Take away what imports nothing that is left, again and again; a circle is never taken.
    while free := {name for name, imports in left.items() if not imports & left.keys()}:
        left = {name: imports for name, imports in left.items() if name not in free}
    circle = {name: sorted(imports & left.keys()) for name, imports in left.items()}
    assert not circle


def test_files_of_the_engine_lie_in_its_rooms():
    # One file alone: settings belong to all of them.
    assert [path.name for path in sorted((REPOSITORY / "engine").glob("*.py"))] == [
        "__init__.py",
        "settings.py",
    ]
    for folder in {path.parent for path in (REPOSITORY / "engine").rglob("*.py")}:
        files = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
        # Kinds of scenes, one a file, are alike.
        if folder.name != "scenes":
            assert len(files) <= MOST_SIDE_BY_SIDE, folder


def test_every_requirement_is_bounded():
    named = {
        target.id: ast.literal_eval(node.value)
        for node in ast.parse(_text(REPOSITORY / "setup.py")).body
        if isinstance(node, ast.Assign) and isinstance(target := node.targets[0], ast.Name)
        if target.id in ("REQUIRES", "EXTRAS")
    }
    for requirement in sum(named["EXTRAS"].values(), named["REQUIRES"]):
        assert re.search(r"==|>=[\w.]+,<", requirement), f"{requirement} has no bounds in setup.py"


def test_paths_named_for_developers_exist():
    """Paths that the pages for developers name exist."""
    pages = [REPOSITORY / "CONTRIBUTING.md", REPOSITORY / "docs" / "architecture.md"]
    for page in pages:
        named = re.findall(
            r"`((?:engine|kernels|export|trainer|bench|tests)/[\w./]*)`", _text(page)
        )
        assert len(named) > 5
        for path in named:
            if "NAME" not in path:
                assert (REPOSITORY / path).exists(), f"{page.name} names {path}"


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")
