"""The plan of a run, and the shards that it falls into."""

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from alps.engine.base.errors import RunFolderError, SourceError
from alps.engine.images.raster import RasterReader
from alps.engine.images.sources import find_sources
from alps.engine.images.windows import Window
from alps.engine.planning.make import make_plan
from alps.engine.run_folder import plan as planning
from alps.engine.run_folder.plan import Plan
from alps.engine.run_folder.schemas import PLAN_SCHEMA
from alps.engine.settings import SourceSettings

SETTINGS = SourceSettings(tile=16, overlap=4)


@pytest.fixture(autouse=True)
def shards_of_three(monkeypatch):
    monkeypatch.setattr(planning, "SHARD_TILES", 3)


@pytest.fixture
def archive(tmp_path):
    """One grey and one coloured image, and a file that is none."""
    Image.fromarray(np.zeros((20, 40), np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(tmp_path / "b.png")
    (tmp_path / "c.png").write_text("no image")
    return tmp_path


def plan_of(tiles):
    """A plan of so many windows."""
    columns = {name: [0] * tiles for name in PLAN_SCHEMA.names}
    columns |= {name: [""] * tiles for name in ("source", "path", "label", "reason")}
    return pa.table(columns | {"tile_id": list(range(tiles))}, schema=PLAN_SCHEMA)


def test_windows_of_every_source_in_order(archive):
    plan = make_plan(find_sources(archive), SETTINGS)
    rows = plan.to_pylist()
    assert [row["tile_id"] for row in rows] == list(range(8))
    assert [row["source"] for row in rows] == ["a.png"] * 6 + ["b.png", "c.png"]
    assert [(r["x"], r["y"]) for r in rows[:6]] == [(x, y) for y in (0, 4) for x in (0, 12, 24)]
    assert (rows[0]["source_width"], rows[0]["source_height"]) == (40, 20)
    assert not any(row["reason"] for row in rows[:7]) and "c.png" in rows[7]["reason"]
    assert rows[7]["width"] == 0
    tiles = list(Plan(plan).sources())
    assert [len(of_source) for of_source in tiles] == [6, 1, 1]
    assert tiles[0][2].window == Window(24, 0, 16, 16)


def test_bands_that_a_source_has_not_are_found_while_planning(archive):
    bands = SourceSettings(tile=16, overlap=4, bands=(3, 2, 1))
    rows = make_plan(find_sources(archive), bands).to_pylist()
    assert [bool(row["reason"]) for row in rows] == [True, False, True]
    assert "--bands 3,2,1" in rows[0]["reason"]


@pytest.mark.parametrize(("tiles", "shards"), [(0, 0), (1, 1), (2, 1), (3, 1), (4, 2), (6, 2)])
def test_every_tile_lies_in_one_shard(tiles, shards):
    plan = Plan(plan_of(tiles))
    assert plan.shards == shards
    rows = [row for shard in range(shards) for row in plan.ids_of(shard)]
    assert rows == list(range(tiles))
    for shard in range(shards):
        own = [tile.tile_id for tile in plan.tiles_of(shard)]
        assert own == list(plan.ids_of(shard))
        assert {plan.shard_of(tile) for tile in own} == {shard}


@pytest.mark.parametrize(
    ("first", "end", "shards"),
    [(0, 1, [0]), (0, 3, [0]), (2, 3, [0]), (2, 4, [0, 1]), (3, 6, [1]), (1, 8, [0, 1, 2])],
)
def test_shards_that_a_source_lies_in(first, end, shards):
    assert list(Plan(plan_of(9)).shards_of(first, end)) == shards


def plan_of_sources(*counts):
    """A plan of sources of so many tiles each."""
    source = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
    at = PLAN_SCHEMA.get_field_index("source_index")
    return plan_of(len(source)).set_column(at, PLAN_SCHEMA.field(at), pa.array(source))


@pytest.mark.parametrize(
    ("counts", "groups"),
    [
        ((), {}),
        ((1,), {0: [[0]]}),
        ((1, 1, 1), {0: [[0], [1], [2]]}),
        ((2, 2, 1), {0: [[0, 1], [2, 3]], 1: [[4]]}),
        # The first source ends in the third shard; the second one no source begins in.
        ((8, 1, 3), {0: [[*range(8)]], 2: [[8]], 3: [[9, 10, 11]]}),
    ],
)
def test_a_group_is_the_sources_that_begin_in_a_shard(counts, groups):
    plan = Plan(plan_of_sources(*counts))
    found = list(plan.groups())
    names = {
        group.number: [[tile.tile_id for tile in tiles] for tiles in group.sources]
        for group in found
    }
    assert names == groups and plan.group_numbers() == sorted(groups)
    for group in found:
        assert {plan.group_of(tiles) for tiles in group.sources} == {group.number}
    for number in range(plan.shards):
        one = plan.group(number)
        assert [[tile.tile_id for tile in tiles] for tiles in one.sources] == groups.get(number, [])


@pytest.mark.parametrize(("width", "height"), [(20, 40), (41, 20), (40, 19), (400, 2)])
def test_a_source_of_another_size_is_refused(archive, width, height):
    (tiles, *_) = Plan(make_plan(find_sources(archive), SETTINGS)).sources()
    with RasterReader(archive / "a.png") as reader:
        planning.check_size(reader, tiles[0])
    Image.fromarray(np.zeros((height, width), np.uint8)).save(archive / "a.png")
    with (
        RasterReader(archive / "a.png") as reader,
        pytest.raises(SourceError, match=f"now {width} x {height} .* for 40 x 20"),
    ):
        planning.check_size(reader, tiles[0])


def test_a_plan_that_leaves_out_a_part_of_a_source_is_refused(archive):
    plan = make_plan(find_sources(archive), SETTINGS)
    planning.refuse_partial(Plan(plan))
    planning.refuse_partial(Plan(plan.slice(0, 0)))
    sides = {name: plan.column(name).to_numpy() for name in planning.EXTENT_COLUMNS[:-1]}
    for start, length, most in (("x", "width", "source_width"), ("y", "height", "source_height")):
        last = sides[start] + sides[length] == sides[most]
        for lacking in (last, sides[start] == 0):
            if not (~lacking).any():
                continue
            with pytest.raises(RunFolderError, match="has not all windows of source"):
                planning.refuse_partial(Plan(plan.filter(pa.array(~lacking))))


def test_larger_shards_are_told_by_the_plan_itself(tmp_path):
    (tmp_path / "journal").mkdir()
    path = tmp_path / "journal" / "plan.parquet"
    planning.write_plan(path, [plan_of(20)], 8)
    plan = Plan(path)
    assert (plan.shard_tiles, plan.shards) == (8, 3)
    assert [plan.shard_of(tile) for tile in (0, 7, 8, 19)] == [0, 0, 1, 2]


@pytest.mark.parametrize("size", ["0", "-3", "1", "257", "many", ""])
def test_a_plan_whose_shards_have_no_size_is_refused(tmp_path, size):
    (tmp_path / "journal").mkdir()
    path = tmp_path / "journal" / "plan.parquet"
    planning.write_tables([plan_of(20)], path, {planning.SHARD_KEY: size})
    with pytest.raises(RunFolderError, match=r"shards have .* tiles; alps verify OUT --repair"):
        Plan(path)
