"""What a run is known by: all that its segments depend on, and nothing else."""

import json
from dataclasses import fields

import pytest
from speck import save_speck

from alps.engine.base.errors import RunFolderError
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.locks import locked
from alps.engine.settings import (
    ALLOWANCES,
    ClusterSettings,
    PaintSettings,
    RunSettings,
    SegmentSettings,
    SourceSettings,
    deciding,
)
from alps.engine.stages.opening import RunOptions, open_run, prepare_model

GIVEN = RunSettings(SourceSettings(bands=(3, 2, 1)), SegmentSettings(runtime="torch"))
# Of each setting of sources and segments another value than the run has.
OTHERS = {
    "tile": 64,
    "overlap": 8,
    "bands": (1, 2, 3),
    "alpha": "use",
    "nodata": (7.0,),
    "stretch": "0,200",
    "allow_remote": True,
    "allow_vrt_outside": True,
    "asset": "visual",
    "points_per_side": 7,
    "points_per_batch": 32,
    "pred_iou_thresh": 0.5,
    "stability_score_thresh": 0.5,
    "stability_score_offset": 2.0,
    "box_nms_thresh": 0.5,
    "max_area": 0.5,
    "min_area": 5,
    "superpixels": 900.0,
    "precision": "bf16",
    "coarse_to_fine": True,
    "runtime": "onnxruntime",
}


@pytest.fixture
def begin(archive, tmp_path, speck):
    """A function that plans a run, or finds it again; nothing is segmented."""

    def start(settings=GIVEN, model=speck, src=archive):
        folder = RunFolder(tmp_path / "out")
        with locked(folder):
            loaded = prepare_model(settings, RunOptions(model=str(model), device="cpu"))
            return open_run(folder, src, loaded)[0]

    return start


def with_setting(name, value):
    """GIVEN with one setting changed."""
    source, segment = dict(vars(GIVEN.source)), dict(vars(GIVEN.segment))
    (source if name in source else segment)[name] = value
    return RunSettings(SourceSettings(**source), SegmentSettings(**segment))


def test_every_setting_of_segments_is_tried():
    names = {item.name for table in (SourceSettings, SegmentSettings) for item in fields(table)}
    assert names == set(OTHERS)


@pytest.mark.parametrize("name", OTHERS)
def test_another_setting_is_refused_and_named(begin, name):
    begin()
    with pytest.raises(RunFolderError, match=rf"other settings \({name} .* there, .* now\)"):
        begin(with_setting(name, OTHERS[name]))
    begin()


def test_runs_of_before_know_no_allowances(begin, tmp_path):
    """They are found again as long as nothing is allowed."""
    path = tmp_path / "out" / "run.json"
    begin()
    run = json.loads(path.read_text())
    for name in ALLOWANCES:
        del run["settings"]["source"][name]
    run.pop("sum")
    path.write_text(json.dumps(run))
    assert begin()["config_hash"] == run["config_hash"]
    source = {name: value for name, value in OTHERS.items() if name not in ALLOWANCES}
    assert deciding(source | dict.fromkeys(ALLOWANCES)) == source


def test_another_model_is_refused(begin, tmp_path):
    first = begin()["model"]["sha256"]
    other = save_speck(tmp_path / "speck.safetensors", seed=6)  # of the same name
    with pytest.raises(RunFolderError, match=rf"model {first} there, [0-9a-f]{{64}} now"):
        begin(model=other)


def test_another_archive_is_refused(begin, archive):
    begin()
    with pytest.raises(RunFolderError, match=r"SRC .* there, .*north now"):
        begin(src=archive / "north")


def test_clusters_and_paint_may_change(begin):
    run = begin()
    others = RunSettings(
        GIVEN.source, GIVEN.segment, ClusterSettings(clusters=3, seed=4), PaintSettings(0.5)
    )
    assert begin(others)["config_hash"] == run["config_hash"]


def test_values_that_were_given_and_those_of_the_model_are_one(begin, speck):
    """A run that was begun without a value goes on with the same one given."""
    run = begin()
    filled = run["settings"]["segment"]["points_per_side"]
    assert begin(with_setting("points_per_side", filled)) == run


def test_run_json_keeps_what_reproduces_the_run(begin, archive, tmp_path):
    run = begin()
    assert run == json.loads((tmp_path / "out" / "run.json").read_text())
    assert run["source"] == str(archive) and run["settings"]["source"]["bands"] == [3, 2, 1]
    assert run["defaults"]["source"]["bands"] is None
    assert run["done"] == {} and set(run["model"]) == {"name", "sha256", "parameters"}
