"""The wheel: what it holds, what it says of itself, and that nothing of it is missing."""

import email
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
ROOMS = ("engine", "kernels", "export", "trainer", "bench")
MOST_BYTES = 60 << 20  # what an index takes without asking is 100 MB


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built in a folder that leads to the rooms, so that the checkout stays as it is."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, folder)
    for room in ROOMS:
        (folder / room).symlink_to(REPOSITORY / room)
    code = "import sys\nfrom setuptools import build_meta\nbuild_meta.build_wheel(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", code, "dist"], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (path,) = (folder / "dist").glob("*.whl")
    return path


@pytest.fixture(scope="module")
def about(wheel):
    with zipfile.ZipFile(wheel) as file:
        (name,) = [name for name in file.namelist() if name.endswith(".dist-info/METADATA")]
        return email.message_from_bytes(file.read(name))


@pytest.mark.slow
def test_every_file_of_the_rooms_is_in_it_and_nothing_else(wheel):
    assert wheel.name.endswith("-py3-none-any.whl") and wheel.stat().st_size < MOST_BYTES
    with zipfile.ZipFile(wheel) as file:
        found = {name for name in file.namelist() if ".dist-info/" not in name}
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *ROOMS],
        cwd=REPOSITORY, capture_output=True, text=True,
    )  # fmt: skip
    if tracked.returncode:
        pytest.skip("what belongs to the checkout is asked of git")
    modules = {f"alps/{n}" for n in tracked.stdout.splitlines() if n.endswith(".py")}
    modules = {name.replace("alps/engine/public/", "alps/") for name in modules}
    packaged = {
        name for name in modules if f"{Path(name).parent.as_posix()}/__init__.py" in modules
    }
    assert packaged == {name for name in found if name.endswith(".py")}
    others = {name for name in found if not name.endswith(".py")}
    assert "alps/py.typed" in others
    for part in ("models/weights/tiny.safetensors", "report/", "browser/page/"):
        assert any(name.startswith(f"alps/engine/{part}") for name in others), part


@pytest.mark.slow
def test_what_it_says_of_itself(about):
    assert about["Name"] == "alps-engine" and about["Author"] == "ALPS developers"
    assert about["License-Expression"] == "Apache-2.0" or about["License"] == "Apache-2.0"
    kinds = about.get_all("Classifier")
    assert {f"Programming Language :: Python :: 3.{n}" for n in (11, 12, 13)} <= set(kinds)
    assert "Typing :: Typed" in kinds and about["Requires-Python"] == ">=3.11"
    needs = {re.match(r"[\w.-]+", line)[0]: line for line in about.get_all("Requires-Dist")}
    assert re.search(r"<2\.15.*>=2\.11|>=2\.11.*<2\.15", needs["torch"])
    assert "torchvision" not in needs  # whichever stands beside torch stays


@pytest.mark.slow
def test_its_page_shows_nothing_that_is_not_there(about):
    page = about.get_payload()
    assert about["Description-Content-Type"] == "text/markdown" and page.startswith("# ALPS")
    assert "![" not in page and "](docs/" not in page and "](bench/" not in page
    assert "](https://arxiv.org" in page and "alps label TILES OUT" in page
    for target in re.findall(r"\]\(([^)]+)\)", page):
        assert target.startswith("https://"), target
