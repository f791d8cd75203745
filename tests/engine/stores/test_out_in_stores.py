"""Runs whose OUT lies in a store: the bytes of one on disk, from any machine, whatever happens."""

import json
import re
import shutil
from dataclasses import replace

import pytest
import rasterio
from click.testing import CliRunner
from runs_in_stores import AS_COG, SETTINGS, content
from s3_server import Rule
from stac_items import collection_of, item_of

from alps.engine.base.errors import SettingsError, StoreError
from alps.engine.cli.main import commands
from alps.engine.images import gdal
from alps.engine.naming.names import Named, Names
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.items import said_of
from alps.engine.settings import ClusterSettings, SourceSettings
from alps.engine.stages import single
from alps.engine.stages.label import RunOptions, label_archive
from alps.engine.stores import client
from alps.engine.stores.out import opened


@pytest.fixture
def out(s3, prefix, tmp_path, monkeypatch):
    monkeypatch.setattr(client, "RETRIES", 0)
    monkeypatch.setenv("ALPS_HOME", str(tmp_path / "home"))
    return f"s3://bucket/{prefix}"


@pytest.fixture
def options(speck):
    return RunOptions(str(speck), "cpu")


def fetched(s3, out, folder):
    """A copy of what is in the store."""
    shutil.rmtree(folder, ignore_errors=True)
    start = out.removeprefix("s3://bucket/") + "/"
    for key in s3.keys(start):
        path = folder / key.removeprefix(start)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(s3.get(key))
    return folder


def test_a_run_in_a_store_is_one_on_disk(s3, out, archive, options, on_disk_as_cog, tmp_path):
    for path in archive.rglob("*.*"):
        s3.put(f"{out[12:]}-src/{path.relative_to(archive).as_posix()}", path)
    s3.take_log()
    label_archive(f"{out}-src", out, SETTINGS, options)
    requests = s3.take_log()
    assert sum("list-type" in request.path for request in requests) == 2  # SRC and OUT, once each
    run = fetched(s3, out, tmp_path / "copy")
    assert content(run) == on_disk_as_cog
    assert not (run / "journal" / "lease.json").exists()
    files = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    assert {"report/index.html", "journal/painted.jsonl", "tiles.parquet"} <= files
    # Other programs open the maps where they lie.
    path = f"/vsis3/{out[5:]}/labels/north/e.tif"
    with rasterio.Env(**gdal._options_for(path)), rasterio.open(path) as map_:
        assert map_.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert map_.nodata == 255 and map_.crs == "EPSG:32631" and map_.colormap(1)
    label_archive(f"{out}-src", out, SETTINGS, options)  # nothing is left to do
    assert content(fetched(s3, out, run)) == on_disk_as_cog


def test_a_run_over_stac_in_a_store(s3, out, archive, options, tmp_path):
    """What items say is there for any machine, and the items of label maps."""
    address = f"{out[12:]}-src/e.tif"
    s3.put(address, archive / "north" / "e.tif")
    item = item_of(archive / "north" / "e.tif", tmp_path)
    for band in item["assets"]["image"]["raster:bands"]:
        band["nodata"] = 0
    item["assets"]["image"]["href"] = f"s3://bucket/{address}"
    src = collection_of([item], tmp_path / "items.json")
    allowed = replace(SETTINGS, source=replace(SETTINGS.source, allow_remote=True))
    with pytest.raises(SettingsError, match="over the network: --allow-remote"):
        label_archive(src, f"{out}-refused", SETTINGS, options)
    label_archive(src, out, allowed, options)
    assert not [request.path for request in s3.take_log() if ".part" in request.path]
    run = fetched(s3, out, tmp_path / "copy")
    (path,) = (run / "stac" / "items").iterdir()
    found = json.loads(path.read_text())
    assert found["id"] == "naip--e" and (run / "stac" / "collection.json").exists()
    assert (path.parent / found["assets"]["labels"]["href"]).resolve().is_file()
    # Another machine, which has but the store, reads images by what their items said.
    with opened(out, writes=False) as folder:
        said = said_of(RunFolder(folder), RunFolder(folder).read_run())
        assert said.of(f"/vsis3/bucket/{address}").id == "e"
    names = Names((Named((0,), "water"),))
    s3.put(f"{out[12:]}/names.json", names.text().encode())
    single.paint(out, AS_COG.paint)
    again = json.loads((fetched(s3, out, run) / "stac" / "items" / path.name).read_text())
    assert "water" in again["properties"]["label:classes"][0]["classes"]


@pytest.mark.slow
def test_another_machine_goes_on(s3, out, archive, options, tmp_path, monkeypatch):
    """Segmented here, clustered there, painted at a third; and painted anew without COG."""
    six = ClusterSettings(clusters=6)
    single.segment(archive, out, SETTINGS, options)
    monkeypatch.setenv("ALPS_HOME", str(tmp_path / "second"))
    single.cluster(out, six, "cpu")
    monkeypatch.setenv("ALPS_HOME", str(tmp_path / "third"))
    single.paint(out)
    single.segment(archive, tmp_path / "local", SETTINGS, options)
    single.cluster(tmp_path / "local", six, "cpu")
    single.paint(tmp_path / "local", AS_COG.paint)
    assert content(fetched(s3, out, tmp_path / "copy")) == content(tmp_path / "local")


@pytest.mark.slow
@pytest.mark.parametrize("good", [3, 9, 17, 26])
def test_a_store_that_fails_in_the_middle(
    s3, out, archive, options, on_disk_as_cog, tmp_path, monkeypatch, good
):
    """After so many puts all fail; the same command goes on, on another machine too."""
    s3.misbehave(Rule("lease.json"), Rule("/", "PUT", times=good), Rule("/", "PUT", status=503))
    with pytest.raises(StoreError, match="answers 503 OnOrder") as error:
        label_archive(archive, out, SETTINGS, options)
    assert "\n" not in str(error.value) and "home" not in str(error.value)
    s3.misbehave()
    if good % 2:
        monkeypatch.setenv("ALPS_HOME", str(tmp_path / "elsewhere"))
        s3.delete(f"{out[12:]}/journal/lease.json")  # as if it had run out
    label_archive(archive, out, SETTINGS, options)
    assert content(fetched(s3, out, tmp_path / "copy")) == on_disk_as_cog


@pytest.mark.slow
def test_requests_of_a_failing_store_are_tried_again(
    s3, out, archive, options, on_disk_as_cog, tmp_path, monkeypatch
):
    monkeypatch.setattr(client, "RETRIES", 5)
    s3.misbehave(*(Rule(rf"{word}", "PUT", status=500, times=2, after=word == "sums")
                   for word in ("segments", "plan", "sums", "labels", "run.json")))  # fmt: skip
    label_archive(archive, out, SETTINGS, options)
    assert content(fetched(s3, out, tmp_path / "copy")) == on_disk_as_cog


def invoke(*words):
    return CliRunner().invoke(commands, [str(word) for word in words], prog_name="alps")


@pytest.mark.slow
def test_commands_name_the_store_and_not_the_local_folder(s3, out, archive, speck, tmp_path):
    given = ["--scratch", tmp_path / "scratch"]
    words = ["--model", speck, "--device", "cpu", "--tile", 128, "--overlap", 16, "--clusters", 3]
    done = invoke("label", archive, out, *words, *given)
    assert done.exit_code == 0, done.output
    assert f"label maps: {out}/labels\n" in done.output and "scratch" not in done.output
    assert (tmp_path / "scratch").is_dir()
    for command in (
        ["report", out], ["verify", out], ["status", out], ["paint", out, "--no-cog"],
        ["name", out, "--set", "0=water", "--no-browser"],
        ["export-labels", out, tmp_path / "set", "--format", "mmseg"],
        ["vectors", out, tmp_path / "maps.gpkg", "--only", "north/e.tif"],
    ):  # fmt: skip
        done = invoke(*command, *given)
        assert done.exit_code == 0, (command, done.output, done.exception)
        assert "scratch" not in done.output and "b'" not in done.output
    s3.take_log()
    done = invoke("status", out, "--scratch", tmp_path / "third")
    assert done.exit_code == 0 and "missing" not in done.output, done.output
    read = [r.path for r in s3.take_log() if r.method == "GET" and "list-type" not in r.path]
    assert read and not [path for path in read if "/labels/" in path or "/segments/" in path]
    done = invoke("verify", out, "--scratch", tmp_path / "third")  # what was passed over is fetched
    assert done.exit_code == 0, done.output
    assert b"water" in s3.get(f"{out[12:]}/names.json")
    with opened(out, writes=True, scratch=tmp_path / "other"):
        busy = invoke("paint", out, *given)
    assert busy.exit_code == 1 and "another run is writing to this OUT" in str(busy.exception)
    changed = invoke("label", archive, out, *words, "--max-area", 0.2, *given)
    assert re.search(rf"{out} holds a run with other settings", str(changed.exception))


@pytest.mark.slow
def test_workers_write_there_too(s3, out, archive, options, tmp_path):
    """Processes of their own; what each made is in the store before it is said to be done."""
    several = SourceSettings(tile=48, overlap=8)  # shards
    label_archive(archive, tmp_path / "alone", replace(AS_COG, source=several), options)
    s3.take_log()
    settings = replace(SETTINGS, source=several)
    label_archive(archive, out, settings, replace(options, workers=2))
    puts = [r.path.removeprefix(f"/{out[5:]}/") for r in s3.take_log() if r.method == "PUT"]
    shards = {path[-14:] for path in puts if path.startswith("segments/")}
    assert len(shards) > 2
    for shard in shards:
        assert puts.index(f"segments/part{shard}") < puts.index(f"journal/tiles{shard}")
    assert content(fetched(s3, out, tmp_path / "copy")) == content(tmp_path / "alone")
