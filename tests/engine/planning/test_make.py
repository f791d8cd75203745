"""Sources are opened by many threads, and the plan is the same whichever is done first."""

import random
import time

import numpy as np
import pytest
from PIL import Image

from alps.engine.images.archive import Survey
from alps.engine.images.raster import RasterReader
from alps.engine.images.reading import Reading
from alps.engine.images.sources import iter_sources
from alps.engine.planning import make
from alps.engine.run_folder import plan as planning
from alps.engine.run_folder import tables
from alps.engine.run_folder.plan import Plan, shard_tiles_for, write_plan
from alps.engine.settings import FilledSourceSettings

SETTINGS = FilledSourceSettings(tile=16, overlap=4)


@pytest.fixture
def images(tmp_path):
    """Sixty images of several kinds and sizes, three of them broken."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(60):
        shape = (16 + number % 5, 16 + 7 * (number % 3), *((3,) if number % 4 else ()))
        Image.fromarray(np.full(shape, number, np.uint8)).save(folder / f"{number:02d}.png")
    for number in (7, 8, 50):
        (folder / f"{number:02d}.png").write_text("no image")
    return folder


def planned(images, tmp_path, survey=None):
    survey = survey or Survey(Reading(SETTINGS))
    with make.opened_sources(iter_sources(images), SETTINGS, survey, tmp_path / "index") as index:
        make.write_plan_of(index, SETTINGS, tmp_path / "plan.parquet")
    return (tmp_path / "plan.parquet").read_bytes(), survey


def test_the_order_of_threads_does_not_show(images, tmp_path, monkeypatch):
    expected, survey = planned(images, tmp_path)
    real, order = RasterReader.__init__, []

    def slow(self, path, reading=None):
        time.sleep(random.random() / 100)
        order.append(path)
        real(self, path, reading)

    monkeypatch.setattr(make.RasterReader, "__init__", slow)
    found, again = planned(images, tmp_path)
    assert order != sorted(order)  # or nothing was shown
    assert found == expected and again.kinds() == survey.kinds()
    assert [kind["first"] for kind in again.kinds()] == ["00.png", "01.png"]


def test_no_more_sources_are_open_than_wait_for_their_turn(images, tmp_path, monkeypatch):
    monkeypatch.setattr(make, "THREADS", 2)
    monkeypatch.setattr(make, "AHEAD", 4)
    seen, real = [], make.SourceIndex.note

    def look(self, reader):
        seen.append(reader.path)
        return survey_look(self, reader)

    survey_look = Survey.look
    monkeypatch.setattr(Survey, "look", look)

    def note(self, opened):
        def counted():
            for number, one in enumerate(opened):
                assert len(seen) <= number + 1 + 4
                yield one

        real(self, counted())

    monkeypatch.setattr(make.SourceIndex, "note", note)
    planned(images, tmp_path)
    assert len(seen) == 57


def test_an_error_that_is_no_sources_own_ends_planning_and_its_threads(
    images, tmp_path, monkeypatch
):
    import threading

    def fails(self, reader):
        if str(reader.path).endswith("20.png"):
            raise MemoryError
        return survey_look(self, reader)

    survey_look = Survey.look
    monkeypatch.setattr(Survey, "look", fails)
    with pytest.raises(MemoryError):
        planned(images, tmp_path)
    assert not [t for t in threading.enumerate() if t.name.startswith("alps-open")]
    assert not (tmp_path / "index").exists() and not (tmp_path / "plan.parquet").exists()


@pytest.mark.parametrize("rows", [2, 7, 64])
def test_a_plan_in_blocks_is_read_as_one_in_a_piece(images, tmp_path, monkeypatch, rows):
    monkeypatch.setattr(planning, "SHARD_TILES", 5)
    table = make.make_plan(iter_sources(images), SETTINGS)
    for room in (planning, tables, make):
        monkeypatch.setattr(room, "BLOCK_ROWS", rows)
    monkeypatch.setattr(planning, "AT_ONCE", 4)
    (tmp_path / "journal").mkdir()
    write_plan(tmp_path / "journal" / "plan.parquet", [table])
    whole, parts = Plan(table), Plan(tmp_path / "journal" / "plan.parquet")
    assert (parts.tiles, parts.shards, parts.sources_count) == (len(table), whole.shards, 60)
    for name in ("sources", "groups", "firsts"):
        assert list(getattr(parts, name)()) == list(getattr(whole, name)())
    for shard in range(whole.shards):
        assert parts.tiles_of(shard) == whole.tiles_of(shard)
        assert parts.group(shard) == whole.group(shard)
    for source in (-1, 0, 17, 59, 60):
        assert parts.tiles_of_source(source) == whole.tiles_of_source(source)
    assert parts.group_numbers() == whole.group_numbers()
    assert (parts.column("source_index") == whole.column("source_index")).all()
    assert parts.rows(2, 9).equals(whole.rows(2, 9))


@pytest.mark.parametrize(
    ("tiles", "size"),
    [
        (1, 32),
        (4096 * 32, 32),
        (4096 * 32 + 1, 64),
        (4096 * 64 + 1, 128),
        (10**7, 256),
        (10**9, 256),
    ],
)
def test_shards_of_huge_archives_are_larger(tiles, size):
    assert shard_tiles_for(tiles) == size
