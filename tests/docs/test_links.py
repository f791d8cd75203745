"""Links of the documentation lead somewhere; every command, file and column has its place."""

import json
import os
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest
from pages import PAGES, RECORDS, REPOSITORY, prose, small_archive

import alps
from alps.engine.run_folder.region_schemas import BORDER_SCHEMA, OBJECT_SCHEMA, REGION_SCHEMA
from alps.engine.run_folder.schemas import CLASS_SCHEMA, TILE_SCHEMA, segment_schema

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def links_of(page):
    return [target for target in LINK.findall(prose(page)) if not re.match(r"\w+:", target)]


def anchors_of(page):
    """Headings as GitHub and mkdocs both name them."""
    found = set()
    for heading in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE):
        plain = re.sub(r"[^\w\s-]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower())
        found.add(re.sub(r"\s+", "-", plain.strip()))
    return found


@pytest.mark.parametrize(
    "page", PAGES + RECORDS, ids=lambda page: page.relative_to(REPOSITORY).as_posix()
)
def test_links_lead_somewhere(page):
    for target in links_of(page):
        path, _, anchor = target.partition("#")
        aim = (page.parent / path).resolve() if path else page
        # Pages a command are made while the site is built, which is tested below.
        if aim.parent == REPOSITORY / "docs" / "commands":
            name = aim.stem
            assert name == "index" or name in {p.name for p in entry_points(group="alps.commands")}
            continue
        assert aim.exists(), f"{page.name}: {target}"
        assert aim.is_relative_to(REPOSITORY), f"{page.name}: {target} leaves the repository"
        if anchor:
            assert anchor in anchors_of(aim), f"{page.name}: {target}"


def test_pages_are_all_reached_from_the_first():
    """Over links alone, in the repository, without the site's menu."""
    reached, left = set(), [REPOSITORY / "README.md"]
    while left:
        page = left.pop()
        if page in reached:
            continue
        reached.add(page)
        aims = [(page.parent / target.partition("#")[0]).resolve() for target in links_of(page)]
        left += [aim for aim in aims if aim.suffix == ".md" and aim.exists()]
    assert not {*PAGES, *RECORDS} - reached


def test_what_the_walks_pass_through_is_there():
    text = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    steps = re.findall(r"^\| \d+ \| `([\w.]+)` \| `([\w/.]+)` \|", text, re.MULTILINE)
    assert len(steps) > 20
    for name, path in steps:
        code = (REPOSITORY / path).read_text(encoding="utf-8")
        for part in name.split("."):
            assert re.search(rf"^\s*(def|class) {part}\b", code, re.MULTILINE), f"{path}: {name}"


# --- the site


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site; building it fails on any warning."""
    pytest.importorskip("mkdocs", reason="needs mkdocs: pip install 'alps-engine[docs]'")
    pytest.importorskip("material", reason="needs mkdocs-material: pip install 'alps-engine[docs]'")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(
        command,
        cwd=REPOSITORY,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr
    return folder


@pytest.mark.slow
def test_every_command_has_a_page(site):
    for point in entry_points(group="alps.commands"):
        page = site / "commands" / f"{point.name}.html"
        assert page.exists(), f"no page of alps {point.name}"
        text = page.read_text(encoding="utf-8")
        command = point.load()
        for name, each in {"": command, **getattr(command, "commands", {})}.items():
            words = f"alps {point.name} {name}".strip()
            assert f'id="{words.replace(" ", "-")}"' in text, f"{page.name} lacks {words}"
            for option in each.params:
                if option.param_type_name == "option":
                    assert option.opts[0] in text, f"{page.name} lacks {option.opts[0]}"


@pytest.mark.slow
def test_every_public_name_has_its_entry(site):
    text = (site / "python.html").read_text(encoding="utf-8")
    for name in alps.__all__:
        if name != "__version__":
            assert f'id="{name.lower()}"' in text, f"python.html lacks {name}"


@pytest.mark.slow
def test_pages_fetch_nothing(site):
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        fetched = re.findall(r'<(?:script|img|link)[^>]*(?:src|href)="(https?:[^"]*)"', text)
        assert not fetched, f"{page.name} fetches {fetched}"


# --- the run folder's page


def table_under(heading):
    """Rows of the first table under a heading of run-folder.md, without its head."""
    text = (REPOSITORY / "docs" / "run-folder.md").read_text(encoding="utf-8")
    below = text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in below.splitlines() if line[:1] == "|"]
    assert rows, f"run-folder.md has no table under {heading}"
    return [[cell.strip().strip("`") for cell in row] for row in rows[2:]]


def type_name(field):
    """As the page writes Arrow's types."""
    values = getattr(field.type, "value_type", None)
    return str(field.type) if values is None else f"{values} list"


@pytest.mark.parametrize(
    ("heading", "schema"),
    [
        ("tiles.parquet", TILE_SCHEMA),
        ("segments/part-*.parquet", segment_schema(128)),
        ("regions/part-*.parquet", REGION_SCHEMA),
        ("regions/borders-*.parquet", BORDER_SCHEMA),
        ("regions/objects-*.parquet", OBJECT_SCHEMA),
        ("clusters/part-*.parquet", CLASS_SCHEMA),
    ],
)
def test_every_column_is_described(heading, schema):
    described = [row[:2] for row in table_under(heading)]
    assert described == [[field.name, type_name(field)] for field in schema]


@pytest.fixture(scope="module")
def run(tmp_path_factory, speck):
    folder = tmp_path_factory.mktemp("described")
    small_archive(folder / "tiles")
    settings = alps.RunSettings(
        cluster=alps.ClusterSettings(clusters=5), paint=alps.PaintSettings(objects=True)
    )
    options = alps.RunOptions(model=str(speck), device="cpu")
    alps.label_archive(folder / "tiles", folder / "out", settings, options)
    names = {
        "classes": [{"clusters": [1], "name": "water"}],
        "splits": [{"cluster": 0, "into": [0, 5]}],  # a number that no cluster has
    }
    (folder / "out" / "names.json").write_text(json.dumps(names))
    alps.paint(folder / "out")
    return folder / "out"


def test_every_file_of_a_run_is_described(run):
    text = (REPOSITORY / "docs" / "run-folder.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([^`]+)` \|", text.split("\n## ")[0], re.MULTILINE)
    for path in run.rglob("*"):
        if path.is_file():
            name = path.relative_to(run).as_posix()
            assert any(name.startswith(row.rstrip("…")) for row in rows), f"no row for {name}"
    for row in rows:
        assert (run / row.rstrip("…")).exists(), f"a run has no {row}"


@pytest.mark.parametrize("name", ["run.json", "classes.json"])
def test_every_key_is_described(run, name):
    described = {key for row in table_under(name) for key in re.findall(r"[\w-]+", row[0])}
    assert set(json.loads((run / name).read_text())) == described


def test_every_array_is_described(run):
    described = {row[0] for row in table_under("clusters.npz")}
    with np.load(run / "clusters.npz", allow_pickle=False) as arrays:
        found = {re.sub("^(feature|split)_.*", r"\1_*", name) for name in arrays}
    assert found == described


def test_the_front_door_is_short():
    assert len(Path(REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines()) < 180
