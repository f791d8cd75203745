"""A run folder opened from Python: what it shows, and what it says where it cannot."""

import json
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
from pages import small_archive
from PIL import Image
from pycocotools import mask as coco
from rasterio.transform import from_origin
from rasters import save_raster

import alps
from alps.engine.demo.scenes import SceneSettings, make_scene
from alps.engine.quality.measure import measure_quality
from alps.engine.run_folder.folder import RunFolder
from alps.engine.views import tables

PLACED = "north/c.tif"
NAMES = ["0.png", "a.png", PLACED, "torn.png"]
CLASSES = 5


@pytest.fixture(scope="module")
def out(tmp_path_factory, speck):
    """A run of three sources, the last in four windows, and of one that is no image."""
    folder = tmp_path_factory.mktemp("opened")
    small_archive(folder / "images")
    image = make_scene(9, SceneSettings(size=230)).image
    place = {"crs": "EPSG:32631", "transform": from_origin(500_000, 4_000_000, 0.5, 0.5)}
    save_raster(folder / "images" / PLACED, image.transpose(2, 0, 1), **place)
    (folder / "images" / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    settings = alps.RunSettings(
        source=alps.SourceSettings(tile=160, overlap=32),
        cluster=alps.ClusterSettings(clusters=CLASSES),
    )
    options = alps.RunOptions(model=str(speck), device="cpu", max_failed=0.5)
    with mock.patch("alps.engine.run_folder.plan.SHARD_TILES", 2):
        alps.label_archive(folder / "images", folder / "out", settings, options)
    return folder / "out"


@pytest.fixture
def run(out, monkeypatch):
    monkeypatch.setattr("alps.engine.run_folder.plan.SHARD_TILES", 2)
    return alps.open_run(out)


@pytest.fixture
def copied(run, tmp_path):
    """A copy of the run, to be damaged."""
    shutil.copytree(run.folder.root, tmp_path / "out")
    return alps.open_run(tmp_path / "out")


def stored(out, pattern):
    return pa.concat_tables([pq.read_table(path) for path in sorted(out.glob(pattern))])


# --- tables


def test_sources_and_tiles_are_those_of_the_plan(run, out):
    assert run.sources == NAMES
    assert run.tiles().equals(pq.read_table(out / "tiles.parquet"))
    assert run.tiles(["width", "status"]).column_names == ["width", "status"]
    assert run.archive == str(out.parent / "images")
    assert repr(run) == f"Run({str(out)!r}, 4 sources)"


def test_segments_are_what_the_files_hold_beside_their_tiles(run, out):
    found, files = run.segments(), stored(out, "segments/part-*.parquet")
    assert found.column_names == list(tables.SEGMENT_COLUMNS) and len(found) == len(files) > 20
    for name in files.column_names:
        # As text: of what lies under no mask the point is nan, which equals nothing.
        assert str(found.column(name).to_pylist()) == str(files.column(name).to_pylist()), name
    tiles = {tile["tile_id"]: tile for tile in run.tiles().to_pylist()}
    objects = stored(out, "regions/objects-*.parquet").to_pylist()
    objects = {(row["tile_id"], row["segment_id"]): row["object"] for row in objects}
    for row in found.to_pylist():
        tile = tiles[row["tile_id"]]
        assert row["source"] == tile["source"]
        place = tuple(row[f"tile_{side}"] for side in ("x", "y", "width", "height"))
        assert place == tuple(tile[side] for side in ("x", "y", "width", "height"))
        assert row["object"] == objects[row["tile_id"], row["segment_id"]]
    assert max(objects.values()) > 3 and found.column("tile_x").to_numpy().max() > 0


def test_regions_are_what_the_files_hold_beside_their_classes(run, out):
    found = run.regions()
    assert found.column_names == list(tables.REGION_COLUMNS) and len(found) > 20
    for pattern in ("regions/part-*.parquet", "clusters/part-*.parquet"):
        files = stored(out, pattern)
        for name in files.column_names:
            assert found.column(name).to_pylist() == files.column(name).to_pylist(), name
    for index, source in enumerate(NAMES[:3]):
        own = [row for row in found.to_pylist() if row["source"] == source]
        assert {row["source_index"] for row in own} == {index}
        numbers, counts = np.unique(run.region_map(source), return_counts=True)
        assert [row["region"] for row in own] == list(range(len(own)))
        assert [row["area"] for row in own] == counts[: len(own)].tolist()
        assert numbers[: len(own)].tolist() == list(range(len(own)))


@pytest.mark.parametrize("kind", ["segments", "regions"])
def test_parts_add_up_to_the_whole(run, out, kind):
    parts = list(getattr(run, f"iter_{kind}")(["area", "source"]))
    assert len(parts) == len(list((out / kind).glob("part-*.parquet"))) > 1
    assert pa.concat_tables(parts).equals(getattr(run, kind)(["area", "source"]))


def test_the_order_of_columns_is_the_one_asked_for(run):
    assert run.segments(["area", "object", "tile_x"]).column_names == ["area", "object", "tile_x"]
    assert run.regions(["margin", "region"]).column_names == ["margin", "region"]


def test_tables_become_data_frames(run):
    pandas = pytest.importorskip("pandas", reason="needs pandas, of the extra `notebook`")
    frame = run.regions(["source", "cluster", "area"]).to_pandas()
    assert isinstance(frame, pandas.DataFrame) and set(frame.source) == set(NAMES[:3])
    row = run.segments().to_pandas().iloc[3]
    assert run.mask(row).sum() == row.area > 0


@pytest.mark.parametrize("table", ["tiles", "segments", "iter_segments", "regions", "iter_regions"])
def test_unknown_columns_are_named_at_the_call(run, table):
    with pytest.raises(alps.SettingsError, match=r"no column 'aera'; there are .*source"):
        getattr(run, table)(["source", "aera"])
    with pytest.raises(alps.SettingsError, match=r"as a list: \['area'\]"):
        getattr(run, table)("area")


def test_masks_are_those_of_pycocotools(run):
    for row in run.segments().to_pylist()[::7]:
        size = [row["tile_height"], row["tile_width"]]
        expected = coco.decode({"size": size, "counts": row["counts"]})
        found = run.mask(row)
        assert found.dtype == bool and np.array_equal(found, expected)
    with pytest.raises(alps.SettingsError, match=r"needs the column 'tile_height'"):
        run.mask({"counts": b""})
    with pytest.raises(alps.RunFolderError, match=r"damaged.*alps verify"):
        run.mask({"counts": b"1", "tile_height": 5, "tile_width": 5})


# --- maps


@pytest.mark.parametrize("source", NAMES[:3])
def test_label_maps_are_the_files(run, out, source):
    found = run.label_map(source)
    with rasterio.open(out / "labels" / source) as file:
        assert np.array_equal(found.pixels, file.read(1))
        assert found.profile["crs"] == file.crs and found.profile["transform"] == file.transform
    assert (found.unlabelled, found.source) == (255, source)
    assert found.georeference.is_known == (source == PLACED)
    assert repr(found) == f"LabelMap('{source}', {file.width} x {file.height} pixels of uint8)"
    picture = found.picture()
    labelled = found.pixels != 255
    assert np.array_equal(picture[labelled, :3], found.colours[found.pixels[labelled]])
    assert np.array_equal(picture[..., 3] == 255, labelled)


def test_a_box_is_part_of_all_and_lies_where_it_does(run, tmp_path):
    box = (31, 60, 90, 40)
    here = np.s_[60:100, 31:121]
    whole, part = run.label_map(PLACED), run.label_map(PLACED, box)
    assert np.array_equal(part.pixels, whole.pixels[here])
    assert np.array_equal(run.region_map(PLACED, box), run.region_map(PLACED)[here])
    assert np.array_equal(run.image(PLACED, box).rgb, run.image(PLACED).rgb[here])
    with rasterio.open(tmp_path / "part.tif", "w", **part.profile) as file:
        file.write(part.pixels, 1)
    with rasterio.open(tmp_path / "part.tif") as file:
        assert file.crs == whole.georeference.crs and file.shape == (40, 90)
        assert file.xy(0, 0) == pytest.approx((500_000 + 31.5 / 2, 4_000_000 - 60.5 / 2))


@pytest.mark.parametrize(
    "box", [(-1, 0, 5, 5), (0, 0, 0, 5), (0, 0, 161, 5), (0, 0, 5, 161), (170, 0, 1, 1)]
)
@pytest.mark.parametrize("read", ["image", "label_map", "region_map"])
def test_boxes_outside_are_refused(run, box, read):
    with pytest.raises(alps.SettingsError, match=r"does not lie in 0\.png of 160 x 160 pixels"):
        getattr(run, read)("0.png", box)


@pytest.mark.parametrize("read", ["image", "label_map", "region_map"])
def test_sources_that_are_not_there_are_named(run, read):
    with pytest.raises(alps.SettingsError, match=r"no source 'z\.png'; it has 0\.png, a\.png"):
        getattr(run, read)("z.png")
    with pytest.raises(alps.SourceError, match=r"torn\.png was not read: Cannot open"):
        getattr(run, read)("torn.png")


def test_images_are_what_the_run_read(run, out):
    tile = run.image("a.png")
    with Image.open(out.parent / "images" / "a.png") as image:
        assert np.array_equal(tile.rgb, np.asarray(image)) and tile.valid.all()


def test_an_image_that_was_replaced_is_refused(run, tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    planned = replace(run._firsts["a.png"], path=str(tmp_path / "a.png"))
    with pytest.raises(alps.SourceError, match="is now 9 x 9 pixels"):
        alps.Run(run.folder, run.archive, {"a.png": planned}).image("a.png")


# --- what else is known


def test_classes_quality_and_summary_are_the_commands(run, out, tmp_path):
    assert [c.id for c in run.classes] == list(range(CLASSES))
    assert sum(c.pixels for c in run.classes) > 0
    truth = tmp_path / "truth"
    for source in NAMES[:2]:
        pixels = run.label_map(source).pixels // 2
        truth.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(truth / source)
    settings = alps.QualitySettings(class_names=("<b>low</b>", "middle"))
    found = run.quality(truth, settings)
    assert found == measure_quality(out, truth, settings) and found.miou == 1
    assert "&lt;b&gt;low&lt;/b&gt;" in found._repr_html_() and "<b>" not in found._repr_html_()
    assert run.verify().is_right
    assert run.report == out / "report" / "index.html"
    assert run.summary.sources == 4 and run.summary.tiles["failed"] == 1


def test_names_that_people_gave_come_along(copied):
    before = copied.label_map(PLACED).pixels
    kept, joined = np.unique(before)[:2].tolist()
    names = [{"clusters": [kept, joined], "name": "water", "colour": "#010203"}]
    copied.folder.names.write_text(json.dumps({"classes": names}))
    with pytest.raises(alps.RunFolderError, match=r"older than its names of classes; run: alps pa"):
        copied.label_map(PLACED)
    alps.paint(copied.folder.root, max_failed=1.0)
    named = {c.id for c in copied.classes if (c.name, c.colour) == ("water", (1, 2, 3))}
    assert named == {kept, joined}
    after = copied.label_map(PLACED)
    assert np.array_equal(after.pixels, np.where(before == joined, kept, before))
    assert after.picture()[before == joined].max(0).tolist() == [1, 2, 3, 255]


@pytest.mark.slow
def test_looking_needs_no_torch(out):
    code = (
        "import alps, sys; assert 'numpy' not in sys.modules\n"
        f"run = alps.open_run({str(out)!r}); run.regions(); run.label_map('a.png'); run.classes\n"
        "run._repr_html_(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def plain(value):
    """Whether a value is of Python's own types all through."""
    if type(value) is dict:
        return all(plain(each) for pair in value.items() for each in pair)
    return type(value) in (int, float, str, type(None)) or isinstance(value, Path)


def test_a_summary_is_of_plain_types(run):
    found = asdict(run.summary)
    assert {name: value for name, value in found.items() if not plain(value)} == {}
    assert list(found["tiles"]) == sorted(found["tiles"])
    json.dumps({name: value for name, value in found.items() if name != "folder"})


def test_notebooks_show_tables_in_which_nothing_is_markup(copied, monkeypatch):
    hostile = "<script>alert(1)</script>\n" + "x" * 10_000
    copied.folder.update_run(source=hostile, model={"name": hostile, "sha256": "0"})
    run = alps.open_run(copied.folder.root)
    monkeypatch.chdir(copied.folder.root.parent)
    link = '<a href="out/report/index.html">index.html</a>'
    for page in (run._repr_html_(), run.summary._repr_html_()):
        assert link in page and "<script" not in page and len(page) < 5000
        assert page.startswith("<table>") and page.endswith("</table>")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\\x0ax" in run._repr_html_()
    page = run.label_map("a.png")._repr_html_()
    assert page.startswith('<figure><img src="data:image/webp;base64,') and "a.png" in page


# --- what is not there, or not right


def test_foreign_folders_are_refused(tmp_path):
    for folder in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(alps.RunFolderError, match=r"is not a run folder.*alps label SRC OUT"):
            alps.open_run(folder)
    (tmp_path / "run.json").write_text('{"source": 3}')
    with pytest.raises(alps.RunFolderError, match=r"run\.json"):
        alps.open_run(tmp_path)


def test_a_run_that_is_not_painted_says_what_to_run(copied):
    done = copied.folder.read_run()["done"]
    copied.folder.update_run(done={"cluster": "newer", "paint": done["paint"]})
    reads = (
        lambda: copied.classes,
        lambda: copied.label_map("a.png"),
        lambda: copied.quality("truth"),
    )
    for read in reads:
        with pytest.raises(alps.RunFolderError, match=r"older than its clusters; run: alps paint"):
            read()
    copied.folder.update_run(done={})
    for read in (*reads, copied.regions):
        with pytest.raises(alps.RunFolderError, match=r"has no clusters yet; run: alps cluster"):
            read()
    assert len(copied.regions(["area"])) > 20 and "classes" in copied._repr_html_()
    copied.folder.regions(0).unlink()
    with pytest.raises(alps.RunFolderError, match=r"not cut yet; run: alps cluster"):
        copied.regions(["area"])


def test_a_run_that_is_not_finished_says_what_to_run(copied):
    copied.folder.tiles.unlink()
    copied.report.unlink()
    reads = (copied.tiles, copied.segments, copied.regions, lambda: copied.summary)
    for read in reads:
        with pytest.raises(alps.RunFolderError, match=r"not segmented to the end; .*alps label"):
            read()
    with pytest.raises(alps.RunFolderError, match=r"index\.html is not there; run: alps report"):
        _ = copied.report
    assert "href" not in copied._repr_html_()


def test_what_one_pass_dropped_is_said(copied):
    copied.folder.update_run(also={"keep_segments": False})
    for read in (copied.segments, copied.regions, lambda: copied.region_map("a.png")):
        with pytest.raises(alps.RunFolderError, match=r"in one pass.*--keep-segments"):
            read()
    assert copied.label_map("a.png").pixels.shape == (160, 160)


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("segments/part-00000.parquet", lambda run: run.segments()),
        ("regions/objects-00000.parquet", lambda run: run.segments()),
        ("regions/part-00000.parquet", lambda run: run.regions()),
        ("clusters/part-00000.parquet", lambda run: run.regions()),
        ("tiles.parquet", lambda run: run.tiles()),
        ("journal/plan.parquet", lambda run: alps.open_run(run.folder.root)),
        ("classes.json", lambda run: run.classes),
        ("labels/a.png", lambda run: run.label_map("a.png")),
        ("labels/north/c.tif", lambda run: run.label_map(PLACED)),
        ("regions/rasters/a.png.tif", lambda run: run.region_map("a.png")),
    ],
)
def test_files_that_are_cut_short_are_named(copied, name, read):
    path = copied.folder.root / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(alps.RunFolderError, match=path.name) as caught:
        read(copied)
    assert "\n" not in str(caught.value)
    assert not copied.verify().is_right


def exchanged(folder: RunFolder, one: Path, other: Path) -> None:
    """Two files in each other's place, without their checksums."""
    for path in folder.journal.glob("sums*.jsonl"):
        path.unlink()
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


def test_tables_that_belong_elsewhere_are_named(copied):
    folder = copied.folder
    exchanged(folder, folder.region_classes(0), folder.region_classes(1))
    with pytest.raises(alps.RunFolderError, match="it is of other regions than"):
        copied.regions()
    exchanged(folder, folder.objects(0), folder.objects(1))
    with pytest.raises(alps.RunFolderError, match="it is of other segments than"):
        copied.segments()
    exchanged(folder, folder.segments(0), folder.segments(1))
    with pytest.raises(alps.RunFolderError, match="it has segments of other tiles"):
        copied.segments(["area"])


def test_a_label_map_that_was_changed_is_named(copied):
    path = copied.folder.label("a.png")
    data = bytearray(path.read_bytes())
    data[60] ^= 1  # of the palette: it can be read all the same
    path.write_bytes(data)
    with pytest.raises(alps.RunFolderError, match=r"a\.png is damaged: its SHA-256 is not"):
        copied.label_map("a.png")


def test_a_label_map_of_another_size_is_named(copied):
    """Of a run whose journal has no checksums yet."""
    lines = map(json.loads, copied.folder.painted.read_text().splitlines())
    copied.folder.painted.write_text("".join(f"{json.dumps(x | {'files': []})}\n" for x in lines))
    Image.new("L", (9, 8)).save(copied.folder.label("a.png"))
    with pytest.raises(alps.RunFolderError, match=r"a\.png is damaged: it has 9 x 8 pixels"):
        copied.label_map("a.png")


def test_why_a_source_has_no_label_map(copied):
    lines = copied.folder.painted.read_text().splitlines()
    refused = {"source_index": 1, "reason": "its raster is gone"}
    copied.folder.painted.write_text("\n".join([*lines, json.dumps(refused)]) + "\n")
    copied.folder.label("a.png").unlink()
    with pytest.raises(alps.SourceError, match=r"a\.png has no label map: its raster is gone"):
        copied.label_map("a.png")
    copied.folder.label("0.png").unlink()
    with pytest.raises(alps.RunFolderError, match=r"0\.png is not there; run: alps paint"):
        copied.label_map("0.png")
