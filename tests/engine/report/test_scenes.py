"""Whole scenes, and classes by source and by date."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
from made_run import make_archive, paint_run
from PIL import Image

from alps.engine.images.dates import UNKNOWN, date_in_name, date_in_tags, date_words
from alps.engine.images.windows import Window, plan_windows
from alps.engine.labels.classes import Classes, LabelClass
from alps.engine.regions.raster import open_regions
from alps.engine.report import build_report, exemplars, scenes
from alps.engine.report.rows.regions import RegionRow
from alps.engine.report.rows.sources import read_sources, survey_sources
from alps.engine.report.scenes import draw_scene, planned_tiles
from alps.engine.report.shares import MOST_DATES, classes_by_source
from alps.engine.report.sources import SourcePixels
from alps.engine.run_folder.schemas import TILE_SCHEMA
from alps.engine.run_folder.tables import read_table

SIZE = (60, 100)  # of a scene: height, width
NAMES = ("a_20090818.png", "b_20120731.png", "c.png")
CLASSES = 3


@pytest.fixture
def run(tmp_path):
    """Two scenes of several windows and one of a single window; a class each half of a scene."""
    out = tmp_path / "out"
    out.mkdir()
    archive = {}
    for index, name in enumerate(NAMES):
        windows = plan_windows(SIZE[1], SIZE[0], 40, 12) if index < 2 else [Window(0, 0, 40, 30)]
        segments = []
        for window in windows:
            x = np.arange(window.width) + window.x
            left = np.broadcast_to(x < 50, (window.height, window.width))
            own = [{"mask": left, "cluster": index}, {"mask": ~left, "cluster": 2}]
            segments.append([one for one in own if one["mask"].any()])
        archive[name] = windows, segments
    folder = make_archive(out, archive)
    paint_run(folder, CLASSES)
    rows = []
    for row in read_table(folder.plan).to_pylist():
        area = row["width"] * row["height"]
        rows.append(
            dict.fromkeys(TILE_SCHEMA.names, 0)
            | row
            | {"status": "ok", "segments": 2, "valid_pixels": area, "covered_pixels": area}
        )
    pq.write_table(pa.Table.from_pylist(rows, TILE_SCHEMA), folder.tiles)
    folder.run_json.write_text(json.dumps({"started": "2025-03-01T08:00:00+00:00"}))
    return folder


def card_of(folder, index):
    rows, tiles = read_sources(folder.tiles, [index]), planned_tiles(folder, [index])
    classes = [LabelClass(i, f"class {i}", (50 * i, 9, 9), 1, 1) for i in range(CLASSES)]
    with SourcePixels(None) as sources:
        return draw_scene(folder, rows[index], tiles[index], Classes(classes), sources)


def test_scenes_are_sources_of_several_windows(run):
    survey = survey_sources(run.tiles, 4, 12, 2025)
    assert sorted(survey.scenes) == [0, 1] and sorted(survey.sample) == [0, 1, 2]
    assert survey.dates.tolist() == [20090818, 20120731, UNKNOWN]
    assert len(survey_sources(run.tiles, 1, 2, 2025).scenes) == 1
    text = build_report(run.root).read_text(encoding="utf-8")
    section = text[text.index('id="scenes"') : text.index('id="tiles"')]
    assert [section.count(f'alt="Label map of {name}"') for name in NAMES] == [1, 1, 0]
    assert "18 Aug 2009 · 100 × 60 px in 8 windows · 2 objects" in section


def test_scenes_that_can_be_shown_whole_come_first(run):
    rows = pq.read_table(run.tiles).to_pylist()
    for row in rows:
        row["source_width"] = 7000 if row["source_index"] == 0 else row["source_width"]
    pq.write_table(pa.Table.from_pylist(rows, TILE_SCHEMA), run.tiles, row_group_size=3)
    assert survey_sources(run.tiles, 1, 1, 2025).scenes == [1]
    assert sorted(survey_sources(run.tiles, 2, 1, 2025).scenes) == [0, 1]


def test_a_scene_shows_objects_across_windows(run):
    """Each half is one object, and one colour in the middle, whatever windows saw of it."""
    size = (100, 60)
    numbers, objects = scenes._masks(run, planned_tiles(run, [0])[0], Window(0, 0, *size), size)
    assert objects == 2
    assert (numbers == np.where(np.arange(100) < 50, 0, 1)).all()
    card = card_of(run, 0)
    assert (card.windows, card.objects, card.width, card.height) == (8, 2, 100, 60)
    assert [(c.id, part) for c, part in card.classes] == [(0, 0.5), (2, 0.5)]
    assert card.unlabelled == 0 and not card.is_part
    assert card.image and card.masks and card.labels


def test_an_example_is_what_hangs_together_in_its_class(run):
    """The regions of both sides of a window's border; not what lies elsewhere in that class."""
    crop, row = Window(0, 0, 100, 60), read_sources(run.tiles, [0])[0]
    classes = read_table(run.regions(0))
    _, x = np.indices(SIZE)
    region = RegionRow(0, 0, 0, 0, 50, 60, 3000, 0)
    assert classes.num_rows > 6  # cut along the cores of windows
    assert (exemplars._patch(run, row, region, crop, 0) == (x < 50)).all()
    labels = np.where(x < 50, 0, 2).astype(np.uint8)
    labels[:, 20:30], labels[40:, 60:] = 1, 0  # apart from the region's own
    Image.fromarray(labels).save(run.label(NAMES[0]))
    with open_regions(run.region_raster(NAMES[0])) as raster:
        own = raster.read(0, 0, 100, 60) == 0
    assert own[0, 0] and not own[:, 20:].all()
    assert (exemplars._patch(run, row, region, crop, 0) == (x < 20)).all()
    # Shown in another class, or nowhere yet: the region alone.
    assert (exemplars._patch(run, row, region, crop, 2) == own).all()
    run.label(NAMES[0]).unlink()
    assert (exemplars._patch(run, row, region, crop, 0) == own).all()


def test_masks_before_a_scene_is_cut(run):
    run.objects(0).unlink()
    numbers, objects = scenes._masks(
        run, planned_tiles(run, [0])[0], Window(0, 0, 100, 60), (100, 60)
    )
    assert objects > 2 and (numbers >= 0).all()
    run.segments(0).unlink()
    assert card_of(run, 0).masks is None


def test_of_a_large_scene_the_middle_is_shown(run, monkeypatch):
    monkeypatch.setattr(scenes, "MOST_SIDE", 40)
    card = card_of(run, 0)
    assert card.shown == Window(30, 10, 40, 40) and card.is_part
    assert [part for _, part in card.classes] == [0.5, 0.5]


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_strips_make_one_picture(run, monkeypatch, rows):
    """Scaled down by two, whichever rows are read at once."""
    monkeypatch.setattr(scenes, "STRIP_ROWS", rows)
    y, x = np.indices(SIZE) // 2
    pixels = (x * 3 + y * 2).astype(np.uint8)
    Image.fromarray(np.dstack([pixels] * 3)).save(run.root / NAMES[0])
    row = read_sources(run.tiles, [0])[0]
    with SourcePixels(None) as sources:
        drawn = scenes.scene_image(row, Window(0, 0, 100, 60), (50, 30), sources)
    assert np.abs(drawn[..., 0].astype(int) - pixels[::2, ::2]).max() <= 1


def test_classes_by_source_and_date(run):
    text = build_report(run.root).read_text(encoding="utf-8")
    assert "2 of 3 sources have one" in text
    assert "Classes that differ most between dates" in text
    classes = Classes([LabelClass(i, str(i), (9, 9, 9), 1, 1) for i in range(CLASSES)])
    dates = survey_sources(run.tiles, 4, 12, 2025).dates
    found = classes_by_source(run.painted, classes, dates, dict(enumerate(NAMES)))
    assert [bar.name for bar in found.sources] == list(NAMES)
    assert [bar.pixels for bar in found.sources] == [6000, 6000, 1200]
    assert [[(c.id, part) for c, part in bar.parts] for bar in found.dates] == [
        [(0, 0.5), (2, 0.5)], [(1, 0.5), (2, 0.5)]
    ]  # fmt: skip
    assert [bar.name for bar in found.dates] == ["18 Aug 2009", "31 Jul 2012"]
    assert [(c.label_class.id, c.shares) for c in found.changes] == [(0, [0.5, 0]), (1, [0, 0.5])]


def journal_of(path, days):
    lines = [{"source_index": i, "pixels": [i + 1, 1, 0], "reason": ""} for i in range(len(days))]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    classes = Classes([LabelClass(i, str(i), (9, 9, 9), 1, 1) for i in range(2)])
    return classes_by_source(path, classes, np.array(days, np.int32), {0: "a"})


def test_many_dates_are_months_or_years(tmp_path):
    days = [20100000 + 100 * (1 + i % 3) + 1 + i for i in range(20)]
    assert [bar.name for bar in journal_of(tmp_path / "j", days).dates] == [
        "Jan 2010", "Feb 2010", "Mar 2010"
    ]  # fmt: skip
    days = [10_000 * (2000 + i) + 101 for i in range(20)]
    found = journal_of(tmp_path / "j", days)
    assert (found.date_count, len(found.dates)) == (20, MOST_DATES)
    assert [bar.name for bar in found.dates] == [str(2008 + i) for i in range(12)]  # most pixels
    assert sum(bar.pixels for bar in found.dates) == sum(i + 2 for i in range(8, 20))


def test_dates_of_a_minority_are_not_shown(tmp_path):
    assert not journal_of(tmp_path / "j", [20100000, 20110000, *[UNKNOWN] * 3]).dates
    assert len(journal_of(tmp_path / "j", [20100000, 20110000, *[UNKNOWN] * 2]).dates) == 2


def test_the_last_line_of_a_source_counts(tmp_path):
    journal_of(tmp_path / "j", [UNKNOWN])
    with open(tmp_path / "j", "a") as file:
        file.write('{"source_index": 0, "pixels": [0, 7, 2], "reason": ""}\n{"source_in')
    classes = Classes([LabelClass(i, str(i), (9, 9, 9), 1, 1) for i in range(2)])
    (bar,) = classes_by_source(tmp_path / "j", classes, np.zeros(1, int), {0: "a"}).sources
    assert bar.pixels == 7 and [(c.id, part) for c, part in bar.parts] == [(1, 1.0)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("naip/m_4709963_se_14_1_20120731.tif", 20120731),
        ("scene-2021-03-04.png", 20210304),
        ("2021_03_04/scene.png", 20210304),
        ("S2A_20210304T101112.tif", 20210304),
        ("20210304101112.tif", 20210304),
        ("bishop_2020_0.jpg", 20200000),
        ("2018_SJER_3_252000_4107000_image_477.tif", 20180000),
        ("m_4709963_20129931.tif", UNKNOWN),  # no month 99
        ("before_2019_after_2021.tif", UNKNOWN),
        ("tile_2048_1024.png", UNKNOWN),  # later than the run
        ("20210230.tif", UNKNOWN),
        ("a1.png", UNKNOWN),
    ],
)
def test_dates_in_names(name, expected):
    assert date_in_name(name, 2025) == expected


def test_dates_in_words():
    assert date_words(20120701) == "1 Jul 2012"
    assert date_words(20121200) == "Dec 2012" and date_words(20120000) == "2012"


def test_dates_in_tags(make_raster, tmp_path):
    path = make_raster().path
    assert date_in_tags(str(path), 2025) == UNKNOWN
    with rasterio.open(path, "r+") as file:
        file.update_tags(TIFFTAG_DATETIME="2012:07:31 10:11:12")
    assert date_in_tags(str(path), 2025) == 20120731
    assert date_in_tags(str(tmp_path / "none.tif"), 2025) == UNKNOWN
