"""The report: one page, true to the run folder, whatever the file names and the archive hold."""

import base64
import io
import json
import re
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_run import make_run
from PIL import Image
from pycocotools import mask as coco

from alps.engine.base.errors import RunFolderError, SourceError
from alps.engine.images.raster import Tile
from alps.engine.images.windows import Window
from alps.engine.labels.palette import palette
from alps.engine.labels.writer import LabelMapWriter, unlabelled_value
from alps.engine.report import build_report, pictures, words
from alps.engine.report.exemplars import pick_exemplars
from alps.engine.report.run_facts import changed_settings
from alps.engine.report.segment_rows import (
    SMALL_AREA,
    Candidates,
    SegmentRow,
    find_candidates,
    segment_parts,
)
from alps.engine.report.shortlist import Shortlist, scatter
from alps.engine.report.tile_rows import TileRow, choose_tiles, survey_tiles
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.schemas import STAGES, TILE_SCHEMA, segment_schema

NASTY = "north/<img src=x onerror=alert(1)>&\"'.png"
SIDE = 48


class Page(HTMLParser):
    """What a browser would see: tags with attributes, and text outside style and script."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self._inside = [], "", None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._inside = tag if tag in ("style", "script") else self._inside
        self._space(tag)

    def handle_endtag(self, tag):
        self._inside = None if tag == self._inside else self._inside
        self._space(tag)

    def _space(self, tag):
        self.text += "" if tag in ("bdi", "span", "code", "strong") else " "

    def handle_data(self, data):
        if self._inside is None:
            self.text += data

    def images(self, alt):
        return [a for tag, a in self.tags if tag == "img" and alt in a.get("alt", "")]


def page_of(path):
    page = Page(path.read_text(encoding="utf-8"))
    page.text = " ".join(page.text.split())  # no-break spaces too
    return page


def pixels_of(uri):
    data = base64.b64decode(uri.removeprefix("data:image/webp;base64,"), validate=True)
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))


def rle_of(mask):
    return coco.encode(np.asfortranarray(mask, np.uint8))["counts"]


def write_run(root, *, classes=5, segments=True, sources=3):
    """A run of small PNGs, a tile each; the last source has no segment."""
    rng = np.random.default_rng(7)
    folder = RunFolder(root / "out")
    (folder.root / "segments").mkdir(parents=True)
    tiles, rows = [], []
    colours, unlabelled = palette(classes), unlabelled_value(classes)
    seen = np.zeros((classes, 2), np.int64)
    for index in range(sources):
        name = f"field {index}.png"
        path = root / name
        Image.fromarray(rng.integers(0, 255, (SIDE, SIDE, 3), np.uint8)).save(path)
        labels = np.full((SIDE, SIDE), unlabelled, np.uint16 if classes > 255 else np.uint8)
        boxes = [(2, 2, 20, 30), (6, 4, 5, 5), (30, 0, 18, 20 + index)]
        kept = boxes if segments and index < sources - 1 else []
        for number, (x, y, width, height) in enumerate(kept):
            mask = np.zeros((SIDE, SIDE), bool)
            mask[y : y + height, x : x + width] = True
            cluster = (classes - 1 - number) % classes
            labels[mask] = cluster
            seen[cluster, 1] += 1
            rows.append(
                dict(
                    tile_id=index, segment_id=number, x=x, y=y, width=width, height=height,
                    area=width * height, predicted_iou=0.9, stability_score=0.95,
                    point_x=0.0, point_y=0.0, counts=rle_of(mask),
                    embedding=np.zeros(4, np.float16), cluster=cluster, margin=0.1 * number,
                )
            )  # fmt: skip
        with LabelMapWriter(folder.label(name), SIDE, SIDE, colours) as writer:
            writer.write_rows(0, labels)
        ids, counts = np.unique(labels[labels != unlabelled], return_counts=True)
        seen[ids, 0] += counts
        tiles.append(tile(index, name, str(path), len(kept), int((labels != unlabelled).sum())))
    for name in (NASTY, "north/two.png"):
        tiles.append(failed(len(tiles), name))
    pq.write_table(pa.Table.from_pylist(tiles, TILE_SCHEMA), folder.tiles)
    if rows:
        table = pa.Table.from_pylist(rows, segment_schema(4))
        pq.write_table(table.slice(0, 2), folder.segments(0))
        pq.write_table(table.slice(2), folder.segments(1), row_group_size=1)
    entries = [
        dict(id=i, name=f"class <{i}>", colour=c.tolist(), pixels=int(p), segments=int(s))
        for i, (c, (p, s)) in enumerate(zip(colours, seen, strict=True))
    ]
    folder.classes.write_text(json.dumps({"classes": entries, "unlabelled": unlabelled}))
    folder.run_json.write_text(
        json.dumps(
            {
                "source": "/archive/<scenes>",
                "started": "2025-03-01T08:00:00+00:00",
                "finished": "2025-03-01T09:00:00+00:00",
                "model": {"name": "tiny", "sha256": "0a1b2c3d4e5f" * 5, "parameters": 6_100_000},
                "settings": {
                    "source": {"bands": None},
                    "cluster": {"clusters": classes, "seed": 4},
                },
                "defaults": {"source": {"bands": None}, "cluster": {"clusters": 46, "seed": 4}},
                "versions": {"torch": "2.13.0"},
                "seed": 4,
                "config_hash": "feedbeef",
                "stages": {"segment": 12.0, "cluster": 1.0, "paint": 2.0},
            }
        )
    )
    return folder


def tile(tile_id, name, path, segments, covered):
    seconds = {f"{stage}_seconds": 0.5 * (i + 1) for i, stage in enumerate(STAGES)}
    return dict(
        tile_id=tile_id, source_index=tile_id, source=name, path=path, label=name,
        source_width=SIDE, source_height=SIDE, x=0, y=0, width=SIDE, height=SIDE,
        status="ok" if segments else "empty", reason="" if segments else "no mask passed the gate",
        segments=segments, points=16, valid_pixels=SIDE * SIDE, covered_pixels=covered, **seconds,
    )  # fmt: skip


def failed(tile_id, name):
    row = tile(tile_id, name, f"/archive/{name}", 0, 0)
    reason = f"Cannot open /archive/{name}: the file is empty (0 bytes)."
    return row | dict(status="failed", reason=reason, width=0, height=0, valid_pixels=0)


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path)


def test_page_needs_nothing_else(run):
    path = build_report(run.root)
    assert path == run.root / "report" / "index.html"
    page = page_of(path)
    for _, attributes in page.tags:
        assert attributes.get("src", "data:").startswith("data:")
        assert attributes.get("href", "#").startswith(("#", "data:"))
    css = path.read_text(encoding="utf-8")
    assert "http:" not in css and "https:" not in css
    assert "url(" not in css and "@import" not in css
    anchors = {a["href"][1:] for _, a in page.tags if a.get("href", "").startswith("#")}
    assert anchors <= {a.get("id") for _, a in page.tags}


def test_page_is_accessible(run):
    page = page_of(build_report(run.root))
    assert all("alt" in a for tag, a in page.tags if tag == "img")
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    assert dict(page.tags)["html"]["lang"] == "en"


def test_names_are_escaped(run):
    page = page_of(build_report(run.root))
    assert NASTY in page.text
    assert "class <4>" in page.text
    assert not any("onerror" in a for _, a in page.tags)


def test_figures(run):
    text = page_of(build_report(run.root)).text
    covered = 2 * 20 * 30 + 18 * (20 + 21)  # the box of 5 x 5 lies inside the first
    assert f"Coverage {100 * covered / (3 * SIDE * SIDE):.1f} %" in text
    assert "5 sources in 5 tiles, labelled by tiny; 1 March 2025, 08:00 UTC, 15.0 s of work" in text
    assert "Segments 6" in text
    assert "Speed 0.250 tiles a second" in text  # 3 of them in 12 s
    assert "2 ok, 1 empty, 2 failed" in text
    assert "10.5 s a tile, added up over its stages, mean over 3 tiles" in text
    assert "decode 1.50 s 14.3 %" in text
    assert "cluster.clusters 5 (default 46)" in text
    assert "0a1b2c3d4e5f…" in text and "6.10 million parameters" in text


def test_failures_of_one_kind_are_one_group(run):
    text = page_of(build_report(run.root)).text
    assert "2 failed Cannot open …: the file is empty (0 bytes)." in text
    assert f"{NASTY}, north/two.png" in text
    assert "1 empty no mask passed the gate field 2.png" in text


def test_many_failures_are_counted_not_listed(run):
    rows = pq.read_table(run.tiles).to_pylist()
    rows += [failed(len(rows) + i, f"more/{i}.png") for i in range(1000)]
    pq.write_table(pa.Table.from_pylist(rows, TILE_SCHEMA), run.tiles)
    text = page_of(build_report(run.root)).text
    assert "1,002 failed Cannot open …" in text
    assert "and 997 more sources" in text
    assert "more/500.png" not in text


def test_failures_of_endless_kinds_are_bounded(run):
    rows = pq.read_table(run.tiles).to_pylist()
    start = len(rows)
    rows += [failed(start + i, f"{i}.png") | {"reason": f"at byte {i}"} for i in range(2000)]
    pq.write_table(pa.Table.from_pylist(rows, TILE_SCHEMA), run.tiles)
    figures, _ = survey_tiles(run.tiles)
    assert len(figures.reasons) <= 510
    assert sum(group.tiles for group in figures.reasons) == 2003
    assert "more reasons" in page_of(build_report(run.root)).text


def test_tiles_from_best_to_worst(run):
    page = page_of(build_report(run.root))
    shown = [a["alt"] for a in page.images("Image of")]
    assert shown == [f"Image of field {i}.png" for i in (1, 0, 2)]
    assert "field 1.png highest coverage" in page.text
    assert "field 2.png lowest coverage" in page.text


@pytest.mark.parametrize("classes", [5, 300])
def test_label_map_has_the_colours_of_its_classes(tmp_path, classes):
    run = write_run(tmp_path, classes=classes)
    page = page_of(build_report(run.root))
    (attributes,) = page.images("Label map of field 0")
    pixels = pixels_of(attributes["src"])
    colours = palette(classes)
    assert pixels.shape[:2] == (SIDE, SIDE)
    assert pixels[25, 3].tolist() == [*colours[classes - 1], 255]
    assert pixels[5, 7].tolist() == [*colours[classes - 2], 255]
    assert pixels[0, 0, 3] == 0  # unlabelled is see-through


def test_exemplars_of_every_class_in_use(run):
    page = page_of(build_report(run.root))
    for class_id, expected in {4: 2, 3: 2, 2: 2, 1: 0}.items():
        assert len(page.images(f"Segment of class {class_id},")) == expected
    assert "2 of 5 classes have no segment" in page.text


def test_same_run_same_bytes(run):
    first = build_report(run.root).read_bytes()
    assert build_report(run.root).read_bytes() == first
    assert [p.name for p in (run.root / "report").iterdir()] == ["index.html"]


def test_source_that_is_gone(run, tmp_path):
    (tmp_path / "field 0.png").unlink()
    page = page_of(build_report(run.root))
    assert "1 source could not be read for this page" in page.text
    assert "Cannot open" in page.text
    assert not page.images("Image of field 0")
    assert len(page.images("Segments of field 0")) == 1  # over grey
    assert page.images("its source is gone")


def test_pixels_through_a_callable(run, tmp_path):
    for path in tmp_path.glob("*.png"):
        path.unlink()
    asked = []

    def read_tile(source, window):
        asked.append((source, window))
        if source == "field 1.png":
            raise SourceError("moved")
        rgb = np.full((window.height, window.width, 3), (10, 200, 30), np.uint8)
        return Tile(rgb, np.ones(rgb.shape[:2], bool))

    page = page_of(build_report(run.root, read_tile))
    assert ("field 0.png", Window(0, 0, SIDE, SIDE)) in asked
    (attributes,) = page.images("Image of field 0")
    assert np.abs(pixels_of(attributes["src"])[..., :3].astype(int) - (10, 200, 30)).max() < 12
    assert "field 1.png: moved" in page.text


def test_no_segments_at_all(tmp_path):
    run = write_run(tmp_path, segments=False)
    page = page_of(build_report(run.root))
    assert "None of the 5 classes has a segment" in page.text
    assert "Coverage 0.0 %" in page.text
    assert len(page.images("Label map of")) == 3


def test_before_clusters_and_labels(run):
    run.classes.unlink()
    for label in run.root.glob("labels/*.png"):
        label.unlink()
    page = page_of(build_report(run.root))
    assert "There are no classes yet" in page.text
    assert page.text.count("There is no label map.") == 3


def test_nothing_but_failures(run):
    run.segments(0).unlink()
    run.segments(1).unlink()
    rows = [failed(0, "a.png")]
    pq.write_table(pa.Table.from_pylist(rows, TILE_SCHEMA), run.tiles)
    text = page_of(build_report(run.root)).text
    assert "Coverage –" in text
    assert "No tile with data was segmented" in text
    assert "No tile was timed" in text


def test_segments_of_an_unknown_tile(run):
    rows = [row for row in pq.read_table(run.tiles).to_pylist() if row["tile_id"] != 1]
    pq.write_table(pa.Table.from_pylist(rows, TILE_SCHEMA), run.tiles)
    with pytest.raises(RunFolderError, match="tile 1"):
        build_report(run.root)


def test_optional_keys_may_be_missing(run):
    run.run_json.write_text("{}")
    text = page_of(build_report(run.root)).text
    assert "How right are the labels" not in text
    assert "Not as by default" not in text


def test_surrogates_in_names(run):
    run.run_json.write_text(json.dumps({"source": "/archive/caf\udce9"}))
    assert "caf\\udce9" in page_of(build_report(run.root)).text


def test_quality_section(run):
    content = json.loads(run.run_json.read_text())
    content["quality"] = {
        "miou": 0.5125, "nmi": None, "images": 12, "mapping": {"0": 1}, "without_truth": [],
        "classes": [
            {"value": 0, "name": "<road>", "pixels": 1200, "iou": 0.25, "pseudo_classes": 2},
            {"value": 1, "name": "water", "pixels": 0, "iou": None, "pseudo_classes": 0},
        ],
    }  # fmt: skip
    run.run_json.write_text(json.dumps(content))
    text = page_of(build_report(run.root)).text
    assert "Mean IoU 0.512" in text and "NMI" not in text
    assert "<road> 1,200 0.250 2" in text
    assert "water 0 – 0" in text
    assert "images: 12" in text


@pytest.mark.parametrize("name", ["run.json", "tiles.parquet"])
def test_no_run_folder(run, name):
    (run.root / name).unlink()
    with pytest.raises(RunFolderError, match=name):
        build_report(run.root)


@pytest.mark.parametrize("damage", ["segments", "labels", "tiles", "classes"])
def test_damage_is_named(run, damage):
    path = {
        "segments": run.segments(1),
        "labels": run.label("field 0.png"),
        "tiles": run.tiles,
        "classes": run.classes,
    }[damage]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(RunFolderError, match=re.escape(str(path))):
        build_report(run.root)


def test_embeddings_are_never_read(run, monkeypatch):
    asked = []
    original = pq.ParquetFile.iter_batches

    def iter_batches(self, *args, columns=None, **kwargs):
        asked.append(columns)
        return original(self, *args, columns=columns, **kwargs)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", iter_batches)
    build_report(run.root)
    assert asked and all(columns and "embedding" not in columns for columns in asked)


def test_page_of_noise_stays_small(tmp_path):
    """Noise in every pixel and many classes: the worst case for the pictures."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (640, 640, 3), np.uint8)
    assert len(pictures.photo_uri(noise, 90_000)) <= 90_000 * 4 / 3 + 40
    labels = rng.integers(0, 200, (640, 640), np.uint8)
    drawn = pictures.labels_picture(labels, palette(200), 255)
    uri = pictures.colours_uri(drawn, 60_000)
    assert len(uri) <= 60_000 * 4 / 3 + 40
    known = {tuple(colour) for colour in palette(200).tolist()}
    assert {tuple(c) for c in pixels_of(uri)[..., :3].reshape(-1, 3).tolist()} <= known


def segment(tile_id, box, *, area=None, counts=b"", segment_id=0):
    x, y, width, height = box
    area = width * height if area is None else area
    return SegmentRow(tile_id, segment_id, x, y, width, height, area, 0.9, counts)


def test_smaller_segments_lie_on_top():
    window = Window(0, 0, 12, 9)
    large, small = np.zeros((9, 12), bool), np.zeros((9, 12), bool)
    large[1:8, 2:10], small[3:5, 4:7] = True, True
    segments = [
        segment(0, (4, 3, 3, 2), counts=rle_of(small)),
        segment(0, (2, 1, 8, 7), counts=rle_of(large)),
    ]
    expected = np.where(small, 0, np.where(large, 1, -1))
    assert np.array_equal(pictures.segment_map(segments, window), expected)


@pytest.mark.parametrize("box", [(0, 0, 10, 3), (90, 70, 10, 10), (40, 40, 2, 2), (0, 0, 100, 80)])
def test_exemplar_window_lies_inside_and_holds_the_segment(box):
    tile_window = Window(500, 700, 100, 80)
    crop = pictures.exemplar_window(segment(0, box), tile_window)
    x, y, width, height = box
    assert crop.x >= 0 and crop.x + crop.width <= 100
    assert crop.y >= 0 and crop.y + crop.height <= 80
    assert crop.x <= x and crop.x + crop.width >= x + width
    assert crop.y <= y and crop.y + crop.height >= y + height


def row(tile_id, window, source="a"):
    return TileRow(tile_id, source, None, None, window, "ok", "", 1, 1.0)


def test_one_thing_in_two_windows_is_one_exemplar():
    rows = {0: row(0, Window(0, 0, 100, 100)), 1: row(1, Window(60, 0, 100, 100))}
    rows[2] = row(2, Window(60, 0, 100, 100), source="b")
    here, again = segment(0, (70, 10, 20, 20)), segment(1, (10, 10, 20, 20))
    elsewhere = segment(2, (10, 10, 20, 20))
    candidates = Candidates([here, again], [again, elsewhere])
    assert pick_exemplars(candidates, rows, 4) == [here, elsewhere]


def test_changed_settings_are_those_that_differ_from_their_defaults():
    run = {
        "settings": {"source": {"tile": 128, "bands": None}, "segment": {"max_area": 0.5}},
        "defaults": {"source": {"tile": 128, "bands": None}, "segment": {"max_area": 0.3}},
    }
    assert changed_settings(run) == [("segment.max_area", "0.5", "0.3")]
    assert changed_settings({"settings": run["settings"]}) is None


def test_the_surest_segments_stand_for_a_class(tmp_path):
    """One a tile, large ones first, by margin; those of other classes are not asked."""
    row = {"cluster": 1, "area": SMALL_AREA, "counts": b"0"}
    windows = [Window(64 * x, 0, 64, 64) for x in range(4)]
    segments = [
        [row | {"margin": 0.2}, row | {"margin": 0.5}],
        [row | {"margin": 0.9, "cluster": 2}, row | {"margin": 0.3}],
        [row | {"margin": 0.7}],
        [row | {"margin": 1.0, "area": SMALL_AREA - 1}],
    ]
    folder = make_run(tmp_path / "run", windows, segments)
    found = find_candidates(segment_parts(folder.root), [1], 4)[1]
    assert [s.tile_id for s in found.clearest] == [2, 0, 1, 3]
    assert [s.segment_id for s in found.clearest] == [0, 1, 1, 0]
    assert sorted(s.tile_id for s in found.drawn) == [0, 1, 2, 3]


def test_shortlist_does_not_depend_on_batches():
    rng = np.random.default_rng(1)
    columns = {
        "group": rng.integers(0, 5, 400),
        "key": rng.integers(0, 40, 400).astype(float),
        "id": np.arange(400),
        "spread": rng.integers(0, 30, 400),
    }
    lists = []
    for batch in (400, 37, 1):
        shortlist = Shortlist(6, spread="spread")
        for start in range(0, 400, batch):
            shortlist.add({n: v[start : start + batch] for n, v in columns.items()})
        lists.append(shortlist.rows())
    best = {}
    for group, key, index, spread in sorted(zip(*columns.values(), strict=True)):
        kept = best.setdefault(group, [])
        if len(kept) < 6 and spread not in {s for _, _, _, s in kept}:
            kept.append((group, key, index, spread))
    expected = [item for group in sorted(best) for item in best[group]]
    for rows in lists:
        assert [tuple(r.values()) for r in rows] == expected


def test_scatter_is_even_and_fixed():
    values = scatter(np.arange(10_000))
    assert np.array_equal(values, scatter(np.arange(10_000)))
    assert np.abs(np.histogram(values, 10, (0, 1))[0] - 1000).max() < 150


def test_chosen_tiles_span_sources_and_coverage(tmp_path):
    rows = []
    for index in range(3000):
        made = tile(index, f"{index // 1000}.png", "", 1, 0)
        made |= dict(source_index=index // 1000, covered_pixels=(index * 7) % (SIDE * SIDE))
        rows.append(made)
    rows[1234]["covered_pixels"] = SIDE * SIDE
    sliver = dict(valid_pixels=3, covered_pixels=3)  # wholly covered, but there is little of it
    rows[77] |= sliver
    rows[2500]["covered_pixels"] = -1  # below all others
    path = tmp_path / "tiles.parquet"
    pq.write_table(pa.Table.from_pylist(rows, TILE_SCHEMA), path, row_group_size=500)
    _, candidates = survey_tiles(path)
    chosen = choose_tiles(candidates, 12)
    assert len(set(chosen)) == 12
    assert {1234, 2500} <= set(chosen) and 77 not in chosen
    assert {i // 1000 for i in chosen} == {0, 1, 2}
    coverage = sorted(rows[i]["covered_pixels"] / SIDE**2 for i in chosen)
    assert np.diff(coverage).max() < 0.35


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (words.share(0.00001), "< 0.1 %"),
        (words.share(0.99999), "> 99.9 %"),
        (words.share(1.0), "100.0 %"),
        (words.share(None), "–"),
        (words.seconds(0.00123), "1.23 ms"),
        (words.seconds(125.0), "125 s"),
        (words.duration(3725), "1 h 2 min"),
        (words.duration(59.99), "60.0 s"),
        (words.duration(200_000), "2 d 7 h"),
        (words.count(1234567), "1,234,567"),
        (words.rate(0.01234), "0.0123"),
    ],
)
def test_words(text, expected):
    assert text.replace("\u00a0", " ") == expected
