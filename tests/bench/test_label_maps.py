"""The ladder of label maps, on two small images and a random model."""

from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from alps.bench.labels import maps
from alps.bench.labels.maps import (
    MEASURES,
    DataSet,
    Part,
    agreement,
    apart_miou,
    main,
    rows_of,
    run_for,
    settings_of,
    table,
)
from alps.engine.base.errors import SettingsError
from alps.engine.demo.scenes import SceneSettings, make_scene
from alps.engine.quality.measure import measure_quality
from alps.engine.quality.settings import QualitySettings
from alps.engine.run_folder.folder import RunFolder
from alps.engine.settings import PaintSettings, RunSettings

SMALL = {"points_per_side": 3, "tile": 64, "overlap": 16, "clusters": 5}


@pytest.fixture
def scenes(tmp_path):
    """Two images, and two classes of them."""
    for kind in ("images", "labels"):
        (tmp_path / "data" / "some" / kind).mkdir(parents=True)
    for seed, name in enumerate(("tile1_a.png", "tile7_a.png")):
        rgb = make_scene(seed, SceneSettings(size=110)).image[: 90 + seed]
        Image.fromarray(rgb).save(tmp_path / "data" / "some" / "images" / name)
        classes = (rgb[..., 1] > np.median(rgb[..., 1])).astype(np.uint8)
        Image.fromarray(classes).save(tmp_path / "data" / "some" / "labels" / name)
    return tmp_path / "data"


SOME = DataSet(
    "some",
    (
        Part("both", "*", QualitySettings(), (QualitySettings(folds=2),), is_one_place=True),
        Part("one", "tile7*"),
    ),
)


def test_settings_go_where_they_belong():
    found = settings_of({"min_patch": 0, "superpixels": 3000, "overlap": 99, "colour_weight": 1})
    assert found.paint == PaintSettings(min_patch="0") and found.source.overlap == 99
    assert found.segment == replace(RunSettings().segment, superpixels=3000)
    assert found.cluster.colour_weight == 1 and settings_of({}) == RunSettings()
    with pytest.raises(SettingsError, match="sharpness"):
        settings_of({"sharpness": 3})


@pytest.mark.slow
def test_each_variant_is_a_row(scenes, tmp_path, speck, monkeypatch):
    work = tmp_path / "work"
    rows = dict(rows_of(SOME, scenes, work, SMALL, str(speck), (0,)))
    assert list(rows) == ["both", "one"]
    both, one = rows["both"], rows["one"]
    nothing = [name for name, value in both.items() if np.isnan(value)]
    assert nothing == ["null"]  # no border can be moved by 60 pixels in these
    assert np.isnan(one["mIoU"]) and np.isnan(one["NMI between years"])
    assert both["under 10 px"] == 0 and 0 < both["mIoU"] <= 1
    assert 0 <= both["NMI between years"] < both["shifted"] < 1
    # Another way to paint takes no masks, and a finer cut neither: no model is asked.
    monkeypatch.setattr("alps.bench.labels.quality.segment_stage", None)
    dusty = dict(rows_of(SOME, scenes, work, SMALL | {"min_patch": 0}, str(speck), (0,)))
    finer = dict(rows_of(SOME, scenes, work, SMALL | {"superpixels": 30000}, str(speck), (0,)))
    assert finer["both"]["patches/Mpx"] != both["patches/Mpx"]
    assert dusty["both"]["patches/Mpx"] > both["patches/Mpx"]
    assert len(list(work.iterdir())) == 2
    other, mean = (
        dict(rows_of(SOME, scenes, work, SMALL, str(speck), seeds))["both"]
        for seeds in ((1,), (0, 1))
    )
    for name in ("patches/Mpx", "mIoU", "apart", "NMI between years"):
        assert mean[name] == pytest.approx((both[name] + other[name]) / 2)


def test_masks_are_on_the_disk_once(scenes, tmp_path, speck):
    work, images = tmp_path / "work", scenes / "some" / "images"
    one = run_for(work, "some", images, settings_of(SMALL), str(speck))
    other = run_for(work, "some", images, settings_of(SMALL | {"superpixels": 900}), str(speck))
    assert other.root != one.root and not other.regions(0).exists()
    assert other.segments(0).samefile(one.segments(0)) and other.plan.samefile(one.plan)
    assert other.read_run()["settings"]["segment"]["superpixels"] == 900
    assert one.read_run()["settings"]["segment"]["superpixels"] != 900


def test_apart_adds_confusions_up(tmp_path):
    """Two images whose classes are the other way round, and one that agrees with neither."""
    rng = np.random.default_rng(0)
    for kind in ("maps", "truth"):
        (tmp_path / kind).mkdir()
    for name, shift in (("a", 0), ("b", 1), ("c", 1)):
        truth = rng.integers(0, 2, (20, 30)).astype(np.uint8)
        Image.fromarray(truth).save(tmp_path / "truth" / f"{name}.png")
        Image.fromarray((truth + shift) % 2).save(tmp_path / "maps" / f"{name}.png")
    parts = [QualitySettings(only=name, fit_only=f"[!{name}]") for name in ("a", "b", "c")]
    folder = RunFolder(tmp_path / "maps")
    assert apart_miou(folder, tmp_path / "truth", parts[:1]) == 0
    assert 0 < apart_miou(folder, tmp_path / "truth", parts) < 1
    (one,) = parts[1:2]
    assert apart_miou(folder, tmp_path / "truth", [one]) == pytest.approx(
        measure_quality(folder.root, tmp_path / "truth", one).miou
    )


def test_agreement_is_nmi_where_both_are_labelled():
    rng = np.random.default_rng(1)
    one = rng.integers(0, 4, (30, 40)).astype(np.uint8)
    assert agreement(one, (one + 1) % 4, 255) == pytest.approx(1)
    assert agreement(one, rng.integers(0, 4, (33, 38)).astype(np.uint8), 255) < 0.05
    other = one.copy()
    other[:15], one[25:] = 255, 255
    assert agreement(one, other, 255) == pytest.approx(1)
    assert np.isnan(agreement(one, np.full_like(one, 255), 255))


@pytest.mark.slow
def test_the_command_writes_a_table(scenes, tmp_path, speck, monkeypatch):
    monkeypatch.setattr(maps, "DATA", (SOME,))
    small = ",".join(f"{name}={value}" for name, value in SMALL.items())
    out = tmp_path / "maps.md"
    given = [str(scenes), str(tmp_path / "work"), "--out", str(out), "--seed", "3"]
    given += ["--model", str(speck), "--with", small]
    failed = CliRunner().invoke(main, [*given, "--with", "sharpness=1"])
    assert failed.exit_code == 1 and "sharpness" in failed.output and not out.exists()
    done = CliRunner().invoke(main, given)
    assert done.exit_code == 0, done.output
    text = out.read_text()
    assert text in done.output and "seeds 3" in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert "| one | defaults | – | – | – |" in text  # of a single window
    assert len(lines) == 2 + 2 * 2 and len({line.count("|") for line in lines}) == 1
    assert "| both | defaults |" in text and "clusters 5 |" in text


def test_the_table_is_data_set_by_data_set():
    nothing = dict.fromkeys(MEASURES, np.nan)
    rows = [("A", "x", nothing), ("B", "x", nothing), ("A", "y", nothing | {"mIoU": 0.5})]
    lines = table(rows, (0,)).splitlines()[4:]
    assert [line[:9] for line in lines] == ["| A | x |", "| A | y |", "| B | x |"]
    assert "| 0.500 |" in lines[1] and "nan" not in "".join(lines)
