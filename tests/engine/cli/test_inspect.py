"""`alps inspect`: what would be read and why, before a run, and that a run reads just that."""

import json

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from PIL import Image
from rasterio.enums import ColorInterp
from rasterio.transform import from_origin

from alps.engine.base.errors import SourceError
from alps.engine.cli.inspect import duration, inspect

SIDE = 40
PLACE = {"crs": "EPSG:32631", "transform": from_origin(500_000, 4_000_000, 0.5, 0.5)}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def archive(tmp_path):
    """Two pieces of a 16-bit scene, infrared that is called alpha, a photograph, a broken file."""
    folder = tmp_path / "archive"
    folder.mkdir()
    rng = np.random.default_rng(4)
    profile = {"driver": "GTiff", "width": SIDE, "height": SIDE, **PLACE}
    for number in (1, 2):
        fields = np.kron(rng.integers(500, 4000, (3, 4, 4)), np.ones((10, 10))).astype(np.uint16)
        fields[:, :10] = 0
        with rasterio.open(
            folder / f"t{number}.tif", "w", count=3, dtype="uint16", nodata=0, **profile
        ) as file:
            file.write(fields)
    with rasterio.open(folder / "nir.tif", "w", count=4, dtype="uint8", **profile) as file:
        file.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
        file.write(rng.integers(1, 255, (4, SIDE, SIDE), dtype=np.uint8))
    Image.fromarray(rng.integers(0, 255, (30, 90, 3), dtype=np.uint8)).save(folder / "p.png")
    (folder / "z.png").write_text("no image")
    return folder


def run(archive, speck, *options):
    arguments = [str(archive), "--model", str(speck), "--device", "cpu", *options]
    done = CliRunner().invoke(inspect, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done


def test_the_table_says_what_is_read_and_why(archive, speck):
    text = run(archive, speck, "--no-time", "--tile", "32", "--overlap", "4").stdout
    lines = {line.split()[0]: line for line in text.splitlines() if line}
    assert "40 x 40" in lines["nir.tif"] and "1,2,3 of 4" in lines["nir.tif"]
    assert "archive" in lines["t1.tif"] and "75.0%" in lines["t1.tif"]
    assert "uint16" in lines["t2.tif"] and "EPSG:32631" in lines["t2.tif"]
    assert lines["p.png"].endswith("4") and "as they are" in lines["p.png"]
    assert "warning: nir.tif: band 4 is called alpha" in text
    assert "warning: z.png: Cannot open" in text
    assert "5 sources, 16 windows of 32 pixels a side" in text and "seconds" not in text


def test_json_has_all_of_it(archive, speck, tmp_path):
    run(archive, speck, "--no-time", "--json", str(tmp_path / "found.json"))
    found = json.loads((tmp_path / "found.json").read_text())
    assert found == json.loads(run(archive, speck, "--no-time", "--json", "-").stdout)
    sources = {source["name"]: source for source in found["sources"]}
    first, second = (sources[name]["pixels"] for name in ("t1.tif", "t2.tif"))
    assert first["low"] == second["low"] and first["stretch"] == "archive"
    assert first["valid_share"] == 0.75 and min(first["low"]) >= 500
    assert sources["t1.tif"]["header"]["validity"] == ["nodata 0"]
    assert sources["nir.tif"]["pixels"]["doubts"][0]["kind"] == "alpha"
    assert sources["z.png"]["header"] is None and "z.png" in sources["z.png"]["reason"]
    assert found["seconds"] is None


def test_options_show_before_a_run(archive, speck):
    options = ("--no-time", "--json", "-", "--stretch", "100,900", "--nodata", "none")
    found = json.loads(run(archive, speck, *options).stdout)
    sources = {source["name"]: source for source in found["sources"]}
    assert sources["t1.tif"]["pixels"]["low"] == [100, 100, 100]
    assert sources["t1.tif"]["pixels"]["valid_share"] == 1
    assert sources["t1.tif"]["header"]["validity"] == ["--nodata none"]


def test_time_is_measured_on_a_window(archive, speck):
    found = json.loads(run(archive, speck, "--json", "-").stdout)
    assert found["seconds"] == pytest.approx(found["seconds_per_window"] * found["windows"])
    assert 0 < found["seconds_per_window"] < 60
    assert "seconds a window" in run(archive, speck).stdout


def test_a_sample_of_an_archive(archive, speck):
    found = json.loads(run(archive, speck, "--no-time", "--sample", "2", "--json", "-").stdout)
    assert sum(source["pixels"] is not None for source in found["sources"]) == 2
    assert sum(source["header"] is not None for source in found["sources"]) == 4


def test_nothing_to_inspect(tmp_path, speck):
    with pytest.raises(SourceError, match="No images"):
        run(tmp_path, speck)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3.4, "3 seconds"), (150, "2.5 minutes"), (9000, "2.5 hours"), (216_000, "2.5 days")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text
