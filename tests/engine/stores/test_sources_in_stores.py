"""A whole run whose images lie in a store: the bytes of one on disk, and no request in vain."""

import pytest
from runs_in_stores import SETTINGS, content
from s3_server import Rule

from alps.engine.base.errors import SourceAwayError, TooManyFailuresError
from alps.engine.images import gdal
from alps.engine.images.sources import find_sources
from alps.engine.planning import make
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.tables import read_table
from alps.engine.stages.label import RunOptions, label_archive


@pytest.fixture
def src(s3, archive, prefix, monkeypatch):
    monkeypatch.setattr("alps.engine.stores.client.RETRIES", 1)
    monkeypatch.setitem(gdal.GDAL_OPTIONS, "GDAL_HTTP_RETRY_DELAY", "0.02")
    for path in archive.rglob("*.*"):
        s3.put(f"{prefix}/{path.relative_to(archive).as_posix()}", path)
    s3.take_log()
    return f"s3://bucket/{prefix}/"


def statuses(out):
    return read_table(RunFolder(out).tiles, ["source", "status", "reason"]).to_pylist()


def test_the_bytes_are_those_of_a_run_on_disk(s3, src, on_disk, speck, tmp_path):
    label_archive(src, tmp_path / "out", SETTINGS, RunOptions(str(speck), "cpu"))
    assert content(tmp_path / "out") == on_disk
    requests = s3.take_log()
    assert sum("list-type" in request.path for request in requests) == 1
    tiles = len(statuses(tmp_path / "out"))
    # Of each image once in the plan, in a few when it is segmented and again when it is cut, once
    # when it is painted, and for the report's pictures.
    assert len(requests) <= 1 + 5 * 9, requests
    print(f"{len(requests)} requests for {tiles} tiles of 5 images")
    label_archive(src, tmp_path / "out", SETTINGS, RunOptions(str(speck), "cpu"))
    again = s3.take_log()
    assert sum("list-type" in request.path for request in again) == 1  # is there anything new?
    assert len(again) <= 1 + 5 * 5, again  # the report's pictures


@pytest.mark.slow
def test_an_image_that_fails_is_a_row_with_a_reason(s3, src, speck, tmp_path):
    s3.misbehave(Rule("b.jpg", times=1), Rule("b.jpg", bytes_sent=3000))
    options = RunOptions(str(speck), "cpu", max_failed=0.9)
    label_archive(src, tmp_path / "out", SETTINGS, options)
    rows = statuses(tmp_path / "out")
    failed = {row["source"]: row["reason"] for row in rows if row["status"] == "failed"}
    assert failed.keys() == {"b.jpg"} and "s3://bucket/" in failed["b.jpg"]


@pytest.mark.slow
def test_a_store_that_went_away_stops_the_run_which_goes_on(
    s3, src, on_disk, speck, tmp_path, monkeypatch
):
    monkeypatch.setattr("alps.engine.stages.absences.MOST_AWAY", 2)
    options = RunOptions(str(speck), "cpu")
    s3.misbehave(Rule(r"\.(png|jpg|tif)$", "GET", times=5),
                 Rule(r"\.(png|jpg|tif)$", status=503))  # fmt: skip
    with pytest.raises((SourceAwayError, TooManyFailuresError)) as error:
        label_archive(src, tmp_path / "out", SETTINGS, options)
    assert "503" in str(error.value) and "\n" not in str(error.value)
    s3.misbehave()
    label_archive(src, tmp_path / "out", SETTINGS, options)
    assert content(tmp_path / "out") == on_disk


def test_a_store_that_fails_while_a_run_is_planned_makes_no_plan(s3, src, monkeypatch):
    """A plan would leave for good out what it cannot open; some images that fail are rows."""
    monkeypatch.setattr(make, "MOST_AWAY", 3)
    settings = SETTINGS.source
    s3.misbehave(Rule(r"(b\.jpg|c\.png)$", status=503))
    rows = make.make_plan(find_sources(src), settings).to_pylist()
    assert {row["source"] for row in rows if row["reason"]} == {"b.jpg", "north/c.png"}
    s3.misbehave(Rule(r"(b\.jpg|[cd]\.png)$", status=503))
    with pytest.raises(SourceAwayError, match=r"3 images one after the other.*answers 503"):
        make.make_plan(find_sources(src), settings)
    s3.misbehave(Rule(r"(b\.jpg|[cd]\.png)$", status=404))  # gone is no fault of the store
    rows = make.make_plan(find_sources(src), settings).to_pylist()
    assert len([row for row in rows if row["reason"]]) == 3
