"""Segmenting as a job: what a worker is told is all that it needs."""

import pickle
from dataclasses import replace

import pytest
from small_runs import draw

import alps
from alps.engine.base.errors import ModelError, RunFolderError
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.locks import locked
from alps.engine.run_folder.plan import Plan
from alps.engine.stages.label import segment_stage
from alps.engine.stages.opening import prepare_model
from alps.engine.stages.tiles.job import ChooseRuntime, LookAtDevice, SegmentShards, _to_load

pytestmark = pytest.mark.usefixtures("one_thread")
SETTINGS = alps.RunSettings(segment=alps.SegmentSettings(points_per_side=4, runtime="torch"))


class Here:
    """A crew whose jobs go through pickle and are carried out in this process."""

    size, device = 2, "cpu"

    def carry_out(self, job, numbers, tell):
        return pickle.loads(pickle.dumps(job)).run(iter(list(numbers)), tell)


@pytest.fixture
def images(tmp_path):
    (tmp_path / "images").mkdir()
    for seed in range(5):
        draw(tmp_path / "images" / f"{seed}.png", seed)
    return tmp_path / "images"


def segments(folder):
    return {p.name: p.read_bytes() for p in sorted((folder.root / "segments").iterdir())}


def segmented(images, out, options, crew=None):
    folder = RunFolder(out)
    with locked(folder):
        segment_stage(folder, images, SETTINGS, options, crew)
    return folder


@pytest.mark.usefixtures("shards_of_two")
def test_a_crews_segments_are_those_of_this_process(images, tmp_path, options):
    alone = segmented(images, tmp_path / "alone", options)
    crew = segmented(images, tmp_path / "crew", options, Here())
    assert len(segments(alone)) == 3 and segments(crew) == segments(alone)
    assert crew.read_run()["computed_on"] == alone.read_run()["computed_on"]
    assert crew.read_run()["computed_on"]["device"] == "cpu"


def test_another_device_is_refused_by_workers_too(images, tmp_path, options):
    folder = segmented(images, tmp_path / "out", options)
    began = folder.read_run()["computed_on"]
    folder.update_run(computed_on=began | {"device": "a card"})
    folder.segments(0).unlink()
    with pytest.raises(RunFolderError, match=r"begun on a card, and this is cpu.*--any-device"):
        segmented(images, tmp_path / "out", options, Here())
    segmented(images, tmp_path / "out", replace(options, any_device=True), Here())
    assert folder.segments(0).exists()


def test_what_workers_are_asked_before(options):
    loaded = prepare_model(SETTINGS, options)
    model = _to_load(Here(), loaded, options)
    ((_, on),) = Here().carry_out(LookAtDevice(model), [0], print)
    assert (on.device, on.images_at_once) == ("cpu", 1)
    assert list(Here().carry_out(ChooseRuntime(model), [0], print)) == [(0, "torch")]
    with pytest.raises(ModelError, match="another one for a worker than for the run"):
        replace(model, sha256="0" * 64).load()


@pytest.mark.usefixtures("shards_of_two")
def test_words_of_a_piece_are_its_tiles(images, tmp_path, options):
    folder = segmented(images, tmp_path / "out", options)
    model = _to_load(Here(), prepare_model(SETTINGS, options), options)
    job = SegmentShards(folder.root, model, None, False, frozenset())
    assert [job.words(shard) for shard in range(Plan.of(folder).shards)] == [
        "tiles 0 to 1",
        "tiles 2 to 3",
        "tiles 4 to 4",
    ]
