"""Images that are away for a while, and one odd source among good ones."""

import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from PIL import Image
from rasterio.control import GroundControlPoint
from small_runs import SIDE, draw, results

from alps.engine.base.errors import SourceAwayError, SourceError, TooManyFailuresError
from alps.engine.cli import main as cli
from alps.engine.images.raster import RasterReader
from alps.engine.labels.paint import Painter
from alps.engine.planning import make
from alps.engine.regions import scenes
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.tables import read_table
from alps.engine.settings import ClusterSettings, RunSettings
from alps.engine.stages import absences, single
from alps.engine.stages.absences import Absences
from alps.engine.stages.label import label_archive
from alps.engine.stages.one_pass import OnePass
from alps.engine.stages.opening import RunOptions
from alps.engine.stages.tiles import reading as tile_reading

SETTINGS = RunSettings(cluster=ClusterSettings(clusters=3))
NAMES = ("a.png", "b.png", "c.png", "d.png")

pytestmark = pytest.mark.usefixtures("one_thread", "without_reports", "shards_of_two")


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for seed, name in enumerate(NAMES):
        draw(folder / name, seed)
    return folder


@pytest.fixture
def expected(images, tmp_path, options):
    """What an undisturbed run writes."""
    label_archive(images, tmp_path / "undisturbed", SETTINGS, options)
    return results(tmp_path / "undisturbed")


def labels(out):
    return {path.name: path.read_bytes() for path in (out / "labels").iterdir()}


def statuses(out):
    table = read_table(out / "tiles.parquet").to_pylist()
    return {row["source"]: row["status"] for row in table}


@pytest.fixture
def away(images, monkeypatch):
    """A function that takes an image away as soon as a run has opened it so many times, and back.

    A run opens images to plan, to segment and to cut.
    """
    left, real = {}, RasterReader.__init__

    def counting(self, path, reading=None):
        name = os.path.basename(path)
        if name in left:
            left[name] -= 1
            if left[name] < 0 and (images / name).exists():
                (images / name).rename(images.parent / name)
        real(self, path, reading)

    monkeypatch.setattr(RasterReader, "__init__", counting)

    def take(name, times):
        left[name] = times

    def back(name):
        del left[name]
        (images.parent / name).rename(images / name)

    take.back = back
    return take


@pytest.mark.parametrize("times", [1, 2])
def test_an_image_that_comes_back_is_labelled(images, tmp_path, options, expected, away, times):
    out = tmp_path / "out"
    away("b.png", times)
    label_archive(images, out, SETTINGS, options)
    assert statuses(out)["b.png"] == ("failed" if times == 1 else "ok")
    assert results(out) != expected
    label_archive(images, out, SETTINGS, options)  # still away: nothing is lost, nothing hangs
    away.back("b.png")
    label_archive(images, out, SETTINGS, options)
    assert results(out) == expected
    assert set(statuses(out).values()) <= {"ok", "empty"}


@pytest.mark.slow
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("times", [1, 2])
def test_so_it_is_in_one_pass(images, tmp_path, options, expected, away, times, keep):
    out, one_pass = tmp_path / "out", OnePass(tmp_path / "undisturbed" / "clusters.npz", keep)
    away("b.png", times)
    label_archive(images, out, SETTINGS, options, one_pass)
    undisturbed = labels(tmp_path / "undisturbed")
    assert labels(out) != undisturbed
    away.back("b.png")
    label_archive(images, out, SETTINGS, options, one_pass)
    assert labels(out) == undisturbed
    assert (out / "classes.json").read_bytes() == expected["classes.json"]


def test_what_is_damaged_is_not_segmented_again_and_again(images, tmp_path, options, monkeypatch):
    content = (images / "b.png").read_bytes()
    (images / "b.png").write_bytes(content[: len(content) // 2])
    out = tmp_path / "out"
    label_archive(images, out, SETTINGS, options)
    before = {path: path.stat().st_mtime_ns for path in (out / "segments").iterdir()}
    label_archive(images, out, SETTINGS, options)
    assert {path: path.stat().st_mtime_ns for path in (out / "segments").iterdir()} == before
    (images / "b.png").write_bytes(content)  # copied again
    label_archive(images, out, SETTINGS, options)
    assert statuses(out)["b.png"] in ("ok", "empty")


def test_many_that_go_away_at_once_stop_the_run(
    images, tmp_path, options, expected, away, monkeypatch
):
    monkeypatch.setattr(absences, "MOST_AWAY", 2)
    out = tmp_path / "out"
    away("b.png", 1)
    away("c.png", 1)
    with pytest.raises(SourceAwayError, match=r"2 images are away.*goes on"):
        label_archive(images, out, SETTINGS, options)
    assert not (out / "labels").exists()
    away.back("b.png")
    away.back("c.png")
    label_archive(images, out, SETTINGS, options)
    assert results(out) == expected


def test_when_images_are_away():
    seen, gone = Absences(), SourceAwayError("a.png: gone.")
    for number in range(absences.MOST_AWAY - 1):
        seen.note(f"{number}.png", gone)
    for _ in range(50):
        seen.note("0.png", gone)  # windows of one image are one
    seen.note("x.png", SourceError("damaged, which stops nothing"))
    for number in range(absences.MOST_AWAY - 1):
        seen.note(f"{number}.png", gone)
    with pytest.raises(SourceAwayError, match="10 images are away"):
        seen.note("last.png", gone)
    with pytest.raises(SourceAwayError, match="/nowhere is away"):
        Absences("/nowhere").note("a.png", gone)


def test_segment_reports_what_failed(images, tmp_path, speck):
    (images / "b.png").write_bytes(b"no image")
    arguments = ["segment", str(images), str(tmp_path / "out"), "--model", str(speck)]
    found = CliRunner().invoke(cli.commands, [*arguments, "--max-failed", "1"])
    assert found.exit_code == 0 and "1 failed" in found.output
    assert "failed (1 tiles): Cannot open a file" in found.output
    with pytest.raises(TooManyFailuresError, match="1 of 4 tiles failed, more than --max-failed"):
        CliRunner().invoke(cli.commands, arguments, catch_exceptions=False)
    options = RunOptions(model=str(speck), device="cpu", max_failed=0.5, share=(0, 2))
    done = single.segment(images, tmp_path / "out", SETTINGS, options)
    assert done.tiles["failed"] == 1 and sum(done.tiles.values()) == 2 and done.missing == 0


def test_one_odd_source_stops_nothing(images, tmp_path, options):
    points = [GroundControlPoint(y, x, 3 * x, 2 * y) for y, x in ((0, 0), (0, 90), (90, 0))]
    pixels = np.asarray(Image.open(images / "a.png")).transpose(2, 0, 1)
    with rasterio.open(
        images / "points.tif", "w", driver="GTiff", width=SIDE, height=SIDE, count=3,
        dtype="uint8", gcps=points, crs=rasterio.CRS(),
    ) as file:  # fmt: skip
        file.write(pixels)
    for length in (250, 255):
        shutil.copy(images / "a.png", images / ("x" * (length - 4) + ".png"))
    shutil.copy(images / "a.png", images / ("ü" * 125 + ".png"))
    out = tmp_path / "out"
    summary = label_archive(images, out, SETTINGS, options)
    assert summary.sources == 8 and "failed" not in summary.tiles
    assert len(labels(out)) == 8
    with rasterio.open(out / "labels" / "points.tif") as file:
        assert [(p.row, p.col, p.x, p.y) for p in file.gcps[0]] == [
            (p.row, p.col, p.x, p.y) for p in points
        ]


ODD = {
    "opened": (make, "check_windows", lambda source, *rest: source.name),
    "read": (tile_reading, "check_size", lambda reader, tile: tile.source),
    "cut": (scenes, "check_size", lambda reader, tile: tile.source),
    "painted": (Painter, "_shown", lambda painter, tile, *rest: tile.source),
}


@pytest.mark.parametrize("stage", ODD)
def test_any_failure_of_one_source_is_its_own(images, tmp_path, options, monkeypatch, stage):
    place, name, source_of = ODD[stage]
    real = getattr(place, name)

    def failing(*given):
        if source_of(*given) == "b.png":
            raise AttributeError("'NoneType' object has no attribute 'to_wkt'")
        return real(*given)

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(place, name, failing)
        if stage in ("cut", "painted"):
            with pytest.raises(TooManyFailuresError, match=r"1 of 4 label maps.*of b\.png"):
                label_archive(images, out, SETTINGS, replace(options, max_failed=0.0))
        else:
            label_archive(images, out, SETTINGS, options)
            reasons = [row["reason"] for row in read_table(RunFolder(out).tiles).to_pylist()]
            assert [("to_wkt" in reason) for reason in reasons] == [False, True, False, False]
    assert {"a.png", "c.png", "d.png"} <= labels(out).keys()
    label_archive(images, out, SETTINGS, options)
    assert len(labels(out)) == (3 if stage == "opened" else 4)
