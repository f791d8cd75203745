"""The report: one page, true to the run folder, whatever the file names and the archive hold."""

import base64
import io
import json
import re
import shutil
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_run import cut_as, make_archive, make_run
from PIL import Image

from alps.engine.base.errors import RunFolderError, SourceError
from alps.engine.images.raster import Tile
from alps.engine.images.windows import Window
from alps.engine.labels.palette import palette
from alps.engine.labels.writer import LabelMapWriter, unlabelled_value
from alps.engine.report import build_report, pictures, words
from alps.engine.report.exemplars import pick_exemplars
from alps.engine.report.rows.masks import MaskRow, masks_of_tiles, segment_parts
from alps.engine.report.rows.regions import (
    PLACE,
    SMALL_AREA,
    Candidates,
    RegionRow,
    find_candidates,
    region_parts,
)
from alps.engine.report.rows.shortlist import Shortlist, scatter
from alps.engine.report.rows.tiles import choose_tiles, survey_tiles
from alps.engine.report.run_facts import changed_settings
from alps.engine.run_folder.schemas import STAGES, TILE_SCHEMA
from alps.kernels.masks import coco

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


def square(x, y, width, height):
    mask = np.zeros((SIDE, SIDE), bool)
    mask[y : y + height, x : x + width] = True
    return mask


def write_run(root, *, classes=5, segments=True, sources=3, names="field {}.png"):
    """A run of small PNGs, a tile each; the last source has no segment."""
    rng = np.random.default_rng(7)
    out = root / "out"
    out.mkdir()
    archive = {}
    for index in range(sources):
        boxes = [(2, 2, 20, 30), (6, 4, 5, 5), (30, 0, 18, 20 + index)]
        kept = boxes if segments and index < sources - 1 else []
        own = [
            {"mask": square(*box), "cluster": (classes - 1 - n) % classes, "margin": 0.1 * n,
             "predicted_iou": 0.9}
            for n, box in enumerate(kept)
        ]  # fmt: skip
        archive[names.format(index)] = [Window(0, 0, SIDE, SIDE)], [own]
        pixels = rng.integers(0, 255, (SIDE, SIDE, 3), np.uint8)
        Image.fromarray(pixels).save(out / names.format(index))
    folder = make_archive(out, archive)
    tiles, colours, unlabelled = [], palette(classes), unlabelled_value(classes)
    seen, lines = np.zeros((classes, 2), np.int64), []
    for index, (name, (_, (own,))) in enumerate(archive.items()):
        labels = np.full((SIDE, SIDE), unlabelled, np.uint16 if classes > 255 else np.uint8)
        for segment in own:
            labels[segment["mask"]] = segment["cluster"]
            seen[segment["cluster"], 1] += 1
        with LabelMapWriter(folder.label(name), SIDE, SIDE, colours) as writer:
            writer.write_rows(0, labels)
        pixels = np.bincount(labels[labels != unlabelled], minlength=classes)
        seen[:, 0] += pixels
        lines.append({"source_index": index, "of": "", "reason": "", "nodata": 0,
                      "pixels": [*pixels.tolist(), SIDE**2 - int(pixels.sum())]})  # fmt: skip
        covered = int((labels != unlabelled).sum())
        tiles.append(tile(index, name, str(out / name), len(own), covered))
    for name in (NASTY, "north/two.png"):
        tiles.append(failed(len(tiles), name))
    pq.write_table(pa.Table.from_pylist(tiles, TILE_SCHEMA), folder.tiles)
    folder.painted.write_text("".join(json.dumps(line) + "\n" for line in lines))
    entries = [
        dict(id=i, name=f"class <{i}>", colour=c.tolist(), pixels=int(p), regions=int(s))
        for i, (c, (p, s)) in enumerate(zip(colours, seen, strict=True))
    ]
    content = {"classes": entries, "unlabelled": unlabelled, "nodata_pixels": 200}
    content["unlabelled_pixels"] = sources * SIDE**2 - int(seen[:, 0].sum())
    folder.classes.write_text(json.dumps(content))
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
    valid = 3 * SIDE * SIDE
    assert f"Under masks of SAM {100 * covered / valid:.1f} %" in text
    assert f"Labelled {100 * covered / (valid - 200):.1f} % of pixels with data" in text
    assert "5 sources in 5 tiles, labelled by tiny; 1 March 2025, 08:00 UTC, 15.0 s of work" in text
    assert "Regions 6 with a class, from 6 segments, 2.00 a tile" in text
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
    assert "field 1.png most under masks" in page.text
    assert "field 2.png least under masks" in page.text


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
        assert len(page.images(f"Example of class {class_id} at")) == expected
    assert "2 of 5 classes have no region" in page.text


def test_same_run_same_bytes(run):
    first = build_report(run.root).read_bytes()
    assert build_report(run.root).read_bytes() == first
    assert [p.name for p in (run.root / "report").iterdir()] == ["index.html"]


def test_what_is_labelled_is_unknown_to_older_label_maps(run):
    content = json.loads(run.classes.read_text())
    del content["nodata_pixels"]
    run.classes.write_text(json.dumps(content))
    assert "Labelled – run alps paint once more" in page_of(build_report(run.root)).text


def test_label_maps_that_called_regions_segments_are_shown_as_others(run):
    first = build_report(run.root).read_bytes()
    run.classes.write_text(run.classes.read_text().replace('"regions"', '"segments"'))
    assert build_report(run.root).read_bytes() == first


def test_source_that_is_gone(run, tmp_path):
    (run.root / "field 0.png").unlink()
    page = page_of(build_report(run.root))
    assert "1 source could not be read for this page" in page.text
    assert "Cannot open" in page.text
    assert not page.images("Image of field 0")
    assert len(page.images("Masks of field 0")) == 1  # over grey
    assert page.images("its source is gone")


def test_pixels_through_a_callable(run, tmp_path):
    for path in run.root.glob("*.png"):
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
    assert "None of the 5 classes has a region" in page.text
    assert "Labelled 0.0 %" in page.text and "Under masks of SAM 0.0 %" in page.text
    assert len(page.images("Label map of")) == 3


def test_before_clusters_and_labels(run):
    run.classes.unlink()
    for label in run.root.glob("labels/*.png"):
        label.unlink()
    page = page_of(build_report(run.root))
    assert "There are no classes yet" in page.text
    assert "Labelled – there are no label maps yet" in page.text
    assert page.text.count("There is no label map.") == 3


def test_nothing_but_failures(run):
    run.segments(0).unlink()
    run.regions(0).unlink()
    rows = [failed(0, "a.png")]
    pq.write_table(pa.Table.from_pylist(rows, TILE_SCHEMA), run.tiles)
    text = page_of(build_report(run.root)).text
    assert "Under masks of SAM –" in text
    assert "No tile with data was segmented" in text
    assert "No tile was timed" in text


def test_where_nothing_but_label_maps_was_kept(run):
    """As after one pass."""
    for folder in ("segments", "regions", "clusters"):
        shutil.rmtree(run.root / folder)
    page = page_of(build_report(run.root))
    assert page.text.count("Masks were not kept.") == 3
    assert "Regions were not kept, so there are no examples" in page.text
    assert not page.images("Example of") and len(page.images("Label map of")) == 3
    assert "Classes by source" in page.text


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


@pytest.mark.parametrize(
    "damage", ["segments", "regions", "clusters", "raster", "labels", "tiles", "classes"]
)
def test_damage_is_named(run, damage):
    path = {
        "segments": run.segments(0),
        "regions": run.regions(0),
        "clusters": run.region_classes(0),
        "raster": run.region_raster("field 0.png"),
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


def test_smaller_masks_lie_on_top():
    window = Window(0, 0, 12, 9)
    large, small = np.zeros((9, 12), bool), np.zeros((9, 12), bool)
    large[1:8, 2:10], small[3:5, 4:7] = True, True
    masks = [MaskRow(0, int(m.sum()), 0.9, coco.encode_mask(m)) for m in (small, large)]
    expected = np.where(small, 0, np.where(large, 1, -1))
    assert np.array_equal(pictures.mask_map(masks, window), expected)


def test_what_lies_under_no_mask_is_no_mask(tmp_path):
    own = [{"area": 7}, {"area": 8, "cell": True}, {"area": 9}]
    folder = make_run(tmp_path / "run", [Window(0, 0, 9, 9), Window(9, 0, 9, 9)], [own, own])
    found = masks_of_tiles(segment_parts(folder.root), [1])
    assert [(m.tile_id, m.area) for m in found[1]] == [(1, 7), (1, 9)]


def region(box, source=0, thing=-1):
    return RegionRow(source, 0, *box, box[2] * box[3], thing)


@pytest.mark.parametrize(
    "box", [(0, 0, 10, 3), (190, 170, 10, 10), (40, 40, 2, 2), (0, 0, 200, 80)]
)
def test_exemplar_window_lies_inside_and_holds_the_region(box):
    crop = pictures.exemplar_window(region(box), 200, 180)
    x, y, width, height = box
    assert crop.x >= 0 and crop.x + crop.width <= 200
    assert crop.y >= 0 and crop.y + crop.height <= 180
    assert crop.x <= x and crop.x + crop.width >= x + width
    assert crop.y <= y and crop.y + crop.height >= y + height


def test_one_thing_is_one_exemplar():
    here, near = region((70, 10, 20, 20)), region((90, 30, 10, 20))
    far, elsewhere = region((400, 10, 20, 20)), region((70, 10, 20, 20), source=1)
    assert pick_exemplars(Candidates([here, near], [near, far, elsewhere]), 4) == [
        here, far, elsewhere
    ]  # fmt: skip
    river = [region((1000 * i, 0, 20, 20), thing=3) for i in range(3)]
    same_number = region((0, 0, 20, 20), source=1, thing=3)
    assert pick_exemplars(Candidates(river, [same_number]), 4) == [river[0], same_number]


def test_changed_settings_are_those_that_differ_from_their_defaults():
    run = {
        "settings": {"source": {"tile": 128, "bands": None}, "segment": {"max_area": 0.5}},
        "defaults": {"source": {"tile": 128, "bands": None}, "segment": {"max_area": 0.3}},
    }
    assert changed_settings(run) == [("segment.max_area", "0.5", "0.3")]
    assert changed_settings({"settings": run["settings"]}) is None


def test_the_surest_regions_stand_for_a_class(tmp_path):
    """One a place, large ones first, by margin; those of other classes are not asked."""
    side = 9
    assert side**2 > SMALL_AREA > (side - 2) ** 2
    numbers = np.full((2 * PLACE, 2 * PLACE), -1)
    given = [  # x, y, class, margin
        (0, 0, 1, 0.2), (50, 0, 1, 0.5), (PLACE, 0, 2, 0.9), (PLACE + 9, 0, 1, 0.3),
        (0, PLACE, 1, 0.7), (PLACE, PLACE, 1, 1.0),
    ]  # fmt: skip
    for number, (x, y, _, _) in enumerate(given):
        numbers[y : y + side, x : x + side] = number
    numbers[PLACE : PLACE + side, PLACE + side - 2 : PLACE + side] = -1
    numbers[PLACE + side - 2 : PLACE + side, PLACE : PLACE + side] = -1  # the last is small
    folder = make_run(tmp_path / "run", [Window(0, 0, 2 * PLACE, 2 * PLACE)], [[{}]])
    _, _, clusters, margins = zip(*given, strict=True)
    cut_as(folder, [numbers], [clusters], [margins])
    found = find_candidates(region_parts(folder), [1], 8)[1]
    assert [(r.x, r.y) for r in found.clearest] == [
        (0, PLACE), (50, 0), (PLACE + 9, 0), (PLACE, PLACE)
    ]  # fmt: skip
    assert [r.number for r in found.clearest] == [4, 1, 3, 5]
    assert sorted({(r.x // PLACE, r.y // PLACE) for r in found.drawn}) == [
        (0, 0), (0, 1), (1, 0), (1, 1)
    ]  # fmt: skip


def test_regions_are_numbered_source_by_source(tmp_path, monkeypatch):
    """However the rows are cut into batches."""
    square = np.arange(16).reshape(4, 4) // 2
    sources = {f"{i}.png": ([Window(0, 0, 4, 4)], [[{}]]) for i in range(3)}
    folder = make_archive(tmp_path / "run", sources)
    classes = np.arange(8)
    cut_as(folder, [square] * 3, [classes] * 3)
    for rows in (1, 3, 100):
        monkeypatch.setattr("alps.engine.report.rows.regions.BATCH_ROWS", rows)
        found = find_candidates(region_parts(folder), range(8), 8)
        for class_id in range(8):
            assert sorted((r.source_index, r.number) for r in found[class_id].drawn) == [
                (source, class_id) for source in range(3)
            ]


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
