"""Segmenting as a job: what a worker is told is all that it needs."""

import pickle
from dataclasses import replace

import pyarrow as pa
import pytest
from small_runs import draw

import alps
from alps.engine.base.errors import ModelError, RunFolderError
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.locks import locked
from alps.engine.run_folder.plan import Plan
from alps.engine.run_folder.schemas import PLAN_SCHEMA
from alps.engine.stages.label import segment_stage
from alps.engine.stages.opening import prepare_model
from alps.engine.stages.tiles.job import ChooseRuntime, LookAtDevice, SegmentShards, _to_load
from alps.engine.stages.tiles.pieces import Pieces

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
    plan = Plan.of(folder)
    pieces = Pieces(plan.shards, (range(2, 3), range(3, 4)))
    job = SegmentShards(folder.root, model, None, False, frozenset(), pieces)
    assert pieces.numbers(plan, range(plan.shards)) == [0, 2, 3, 4]
    assert [job.words(number) for number in (0, 2, 3, 4)] == [
        "tiles 0 to 1",
        "tiles 4 to 4",
        "tiles 2 to 2",
        "tiles 3 to 3",
    ]


class Backwards(Here):
    """The last number first, each by a worker of its own, and the first one twice."""

    def __init__(self):
        self.asked = []  # numbers of each job

    def carry_out(self, job, numbers, tell):
        self.asked.append(list(numbers))
        list(super().carry_out(job, self.asked[-1][:1], tell))  # who did it died then
        for number in reversed(self.asked[-1]):
            yield from super().carry_out(job, [number], tell)


def test_the_last_shards_come_in_pieces(images, tmp_path, options, monkeypatch):
    monkeypatch.setattr("alps.engine.stages.tiles.pieces.PIECE_TILES", 2)
    alone = segmented(images, tmp_path / "alone", options)
    crew = Backwards()
    out = segmented(images, tmp_path / "crew", options, crew)
    assert crew.asked[0] == [1, 2, 3]  # of the one shard, 0
    assert segments(out) == segments(alone) and len(segments(out)) == 1


def test_which_shards_are_cut():
    columns = {name: [0] * 100 for name in PLAN_SCHEMA.names}
    columns |= {name: [""] * 100 for name in ("source", "path", "label", "reason")}
    plan = Plan(pa.table(columns | {"tile_id": range(100)}, schema=PLAN_SCHEMA))
    shards = list(range(plan.shards))
    assert plan.tiles == 100 and len(shards) == 4

    def sizes(workers, images, but=()):
        pieces = Pieces.of_last(plan, shards, workers, images, but)
        numbers = pieces.numbers(plan, shards)
        assert [pieces.number_of(plan, pieces.range_of(plan, n)) for n in numbers] == numbers
        assert numbers == sorted(numbers)
        assert sorted(t for n in numbers for t in pieces.range_of(plan, n)) == list(range(100))
        return [len(pieces.range_of(plan, n)) for n in numbers]

    assert sizes(1, 1) == [32, 32, 32, 4]  # the last one is short
    assert sizes(2, 1) == [32, 32, 4, 8, 8, 8, 8]
    assert sizes(2, 6) == [32, 32, 4, 12, 12, 8]
    assert sizes(9, 16) == [4, 16, 16, 16, 16, 16, 16]
    assert sizes(3, 1, {1}) == [32, 32, 4, 8, 8, 8, 8]
    assert sizes(3, 64) == [32, 32, 32, 4]
