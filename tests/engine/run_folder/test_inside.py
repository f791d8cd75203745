"""A run folder that somebody sent: nothing outside it is written, moved or removed."""

import numpy as np
import pyarrow as pa
import pytest
from made_run import make_run, paint_run

from alps.engine.base.atomic import write_text
from alps.engine.base.errors import RunFolderError
from alps.engine.images.windows import Window
from alps.engine.labels.writer import LabelMapWriter
from alps.engine.report import build_report
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.locks import locked
from alps.engine.run_folder.tables import read_table, write_table

OUTWARD = ["../../victim.png", "/victim.png", "a/../../../victim.png", "..", ""]


@pytest.fixture
def victim(tmp_path):
    path = tmp_path / "victim.png"
    path.write_bytes(b"not an image of this run")
    return path


def received(tmp_path, label):
    """A run of one tile whose plan calls its label map ``label``."""
    out = tmp_path / "out"
    folder = make_run(out, [Window(0, 0, 8, 8)], [[{"cluster": 0}]])
    plan = read_table(folder.plan)
    at = plan.schema.get_field_index("label")
    write_table(plan.set_column(at, plan.schema.field(at), pa.array([label])), folder.plan)
    return folder


@pytest.mark.parametrize("is_cut", [True, False])
@pytest.mark.parametrize("absolute", [True, False])
def test_a_plan_cannot_name_a_label_map_outside(tmp_path, victim, is_cut, absolute):
    folder = received(tmp_path, str(victim) if absolute else "../../victim.png")
    if is_cut:  # where the name would have its raster
        raster = folder.root / "regions" / "rasters" / "../../victim.png.tif"
        raster.write_bytes(next(raster.parent.parent.parent.rglob("*.tif")).read_bytes())
    before = victim.read_bytes()
    with pytest.raises(RunFolderError, match=r"victim\.png.*lies outside"):
        paint_run(folder, 2)
    assert victim.read_bytes() == before


@pytest.mark.parametrize("name", [*OUTWARD, "a\0b"])
def test_names_that_lead_nowhere_in_it(tmp_path, name):
    folder = RunFolder(tmp_path / "out")
    with pytest.raises(RunFolderError, match="lies outside"):
        folder.label(name)
    for path in (folder.region_raster, folder.object_map):
        if name.strip("."):  # else .tif behind it makes a name
            with pytest.raises(RunFolderError, match="lies outside"):
                path(name)


@pytest.mark.parametrize("name", ["a.png", "a/b..c/..d.png", "~root.png", "a\nb.png", " "])
def test_names_that_are_odd_and_lie_in_it(tmp_path, name):
    folder = RunFolder(tmp_path / "out")
    assert folder.label(name) == tmp_path / "out" / "labels" / name


def test_a_folder_of_label_maps_that_is_a_link(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    folder = RunFolder(tmp_path / "out")
    (folder.root / "labels").mkdir(parents=True)
    (folder.root / "labels" / "north").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunFolderError, match=r"labels/north is a link that leads out"):
        folder.label("north/a.png")
    assert folder.label("a.png").parent == folder.root / "labels"


@pytest.mark.parametrize(
    "place", ["labels", "journal", "segments", "journal/lock", "journal/painted.jsonl", "report"]
)
def test_what_a_run_writes_is_no_link_to_outside(tmp_path, victim, place):
    folder = RunFolder(tmp_path / "out")
    path = folder.root / place
    path.parent.mkdir(parents=True)
    path.symlink_to(victim)
    with pytest.raises(RunFolderError, match=f"{place} is a link"), locked(folder):
        pass
    assert victim.read_bytes() == b"not an image of this run"


def test_a_report_goes_to_no_link(tmp_path):
    folder = RunFolder(tmp_path / "out")
    folder.root.mkdir()
    (tmp_path / "site").mkdir()
    (folder.root / "report").symlink_to(tmp_path / "site")
    folder.update_run(done={})
    with pytest.raises(RunFolderError, match="report is a link"):
        build_report(folder.root)


def test_a_link_as_out_itself_and_one_within_are_fine(tmp_path):
    (tmp_path / "disk" / "labels-1").mkdir(parents=True)
    (tmp_path / "disk" / "labels").symlink_to("labels-1")
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    folder = RunFolder(tmp_path / "out")
    with locked(folder):
        assert folder.label("a/b.png").parent.name == "a"


def test_a_file_half_written_is_no_way_out(tmp_path, victim):
    for name in (".run.json.part", ".a.png.part", ".a.tif.part"):
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / name).symlink_to(victim)
    write_text(tmp_path / "out" / "run.json", "{}")
    for name in ("a.png", "a.tif"):
        with LabelMapWriter(tmp_path / "out" / name, 4, 4, np.zeros((2, 3))) as writer:
            writer.write_rows(0, np.zeros((4, 4), np.uint8))
    assert victim.read_bytes() == b"not an image of this run"
