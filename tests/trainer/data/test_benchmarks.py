"""Benchmarks prepared from small files in the official downloads' layout and naming."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from downloads import SAVED, save_loveda, save_potsdam
from PIL import Image
from teaching import save_image

from alps.engine.base.errors import RunFolderError, SettingsError, SourceError
from alps.trainer.benchmarks import prepare as module
from alps.trainer.benchmarks.command import NAMES
from alps.trainer.benchmarks.command import prepare as command
from alps.trainer.benchmarks.known import BENCHMARKS
from alps.trainer.benchmarks.prepare import prepare, starts
from alps.trainer.data.find import find_data
from alps.trainer.data.settings import DataSettings


@pytest.mark.parametrize("name", SAVED)
def test_official_layout_becomes_crops_of_class_numbers(tmp_path, name):
    scenes, ids = SAVED[name](tmp_path / "src")
    done = prepare(name, tmp_path / "src", tmp_path / "out", crop=40, stride=30)
    for split, expected in scenes.items():
        files = sorted((tmp_path / "out" / "ann_dir" / split).iterdir())
        assert sorted({file.name.rsplit("_", 2)[0] for file in files}) == expected
        assert done.crops[split] == len(files)
        # What was saved last is the only image of its split, one crop large.
    last = next(iter((tmp_path / "out" / "ann_dir" / "val").iterdir()))
    assert (np.array(Image.open(last)) == ids).all()
    data = find_data(tmp_path / "out", DataSettings())
    assert data.rules.classes == BENCHMARKS[name].rules.classes
    assert data.rules.palette is None and not data.rules.reduce_zero
    assert data.rules.left_out == BENCHMARKS[name].rules.left_out
    assert len(data.split("train")) == done.crops["train"]
    assert len(data.split("test")) == done.crops["val"] == 1


def test_crops_cover_the_image(tmp_path):
    SAVED["isaid"](tmp_path / "src")
    done = prepare("isaid", tmp_path / "src", tmp_path / "out", crop=40, stride=30)
    assert done.crops == {"train": 6, "val": 1}
    assert [path.name for path in done.alone] == ["P0006.png"]
    whole = np.array(Image.open(tmp_path / "src" / "train" / "images" / "P0000.png"))
    for x in (0, 30, 60):
        for y in (0, 20):
            crop = Image.open(tmp_path / "out" / "img_dir" / "train" / f"P0000_{x}_{y}.png")
            assert (np.array(crop) == whole[y : y + 40, x : x + 40]).all()


def test_starts():
    assert starts(896, 896, 512) == starts(500, 896, 512) == [0]
    assert starts(1000, 896, 512) == [0, 104]
    assert starts(1920, 896, 512) == [0, 512, 1024]
    assert starts(6000, 512, 512)[-2:] == [5120 + 0, 5488]


def test_usual_sizes_and_splits():
    usual = {name: (b.crop, b.stride) for name, b in BENCHMARKS.items()}
    assert usual == {
        "isaid": (896, 512), "potsdam": (512, 512), "vaihingen": (512, 512), "loveda": (1024, 1024),
    }  # fmt: skip
    assert tuple(BENCHMARKS) == NAMES
    assert len(BENCHMARKS["isaid"].rules.classes) == 16  # 15 and the background
    tests = [len(BENCHMARKS[name].test_names) for name in ("potsdam", "vaihingen")]
    assert tests == [14, 17]
    for benchmark in BENCHMARKS.values():
        palette = benchmark.rules.palette
        assert palette is None or len(set(palette)) == len(benchmark.rules.classes)


def test_eroded_labels_come_first_and_their_borders_have_no_class(tmp_path):
    _, ids = save_potsdam(tmp_path / "src")
    eroded = np.array(BENCHMARKS["potsdam"].rules.palette)[ids]
    eroded[:, :5] = 0
    folder = tmp_path / "src" / "5_Labels_all_noBoundary"
    save_image(folder / "top_potsdam_6_13_label_noBoundary.tif", eroded)
    prepare("potsdam", tmp_path / "src", tmp_path / "out")
    crop = np.array(Image.open(tmp_path / "out" / "ann_dir" / "val" / "6_13_0_0.png"))
    assert (crop[:, :5] == 255).all() and (crop[:, 5:] == ids[:, 5:]).all()
    rgb = np.array(Image.open(tmp_path / "out" / "img_dir" / "val" / "6_13_0_0.png"))
    original = tmp_path / "src" / "2_Ortho_RGB" / "top_potsdam_6_13_RGB.tif"
    assert (rgb == np.array(Image.open(original))).all()  # not the infra-red one


def test_a_stopped_run_goes_on(tmp_path, monkeypatch):
    save_loveda(tmp_path / "src")
    real, cut = module._cut, []

    def stops(benchmark, image, label, out):
        if len(cut) == 1:
            raise KeyboardInterrupt
        cut.append(image.name)
        return real(benchmark, image, label, out)

    monkeypatch.setattr(module, "_cut", stops)
    with pytest.raises(KeyboardInterrupt):
        prepare("loveda", tmp_path / "src", tmp_path / "out")
    cut.clear()
    monkeypatch.setattr(module, "_cut", lambda *a: (cut.append(a[1].name), real(*a))[1])
    done = prepare("loveda", tmp_path / "src", tmp_path / "out")
    assert len(cut) == 2 and done.crops == {"train": 2, "val": 1}


def test_bad_pairs_are_all_told_and_none_of_them_is_written(tmp_path, capsys):
    save_potsdam(tmp_path / "src")
    labels = tmp_path / "src" / "5_Labels_all"
    save_image(labels / "top_potsdam_2_10_label.tif", np.full((40, 40, 3), (252, 255, 0)))
    save_image(labels / "top_potsdam_6_13_label.tif", np.zeros((8, 8, 3)))
    with pytest.raises(SourceError, match="2 problems"):
        prepare("potsdam", tmp_path / "src", tmp_path / "out")
    said = capsys.readouterr().err
    assert "unknown colours: 1" in said and "(252, 255, 0)" in said and "sizes differ: 1" in said
    assert not list((tmp_path / "out").rglob("*.png"))


def test_refusals(tmp_path):
    save_loveda(tmp_path / "src")
    with pytest.raises(SourceError, match="no image named as in ISPRS Potsdam"):
        prepare("potsdam", tmp_path / "src", tmp_path / "a")
    with pytest.raises(SettingsError, match="--stride 70"):
        prepare("loveda", tmp_path / "src", tmp_path / "b", crop=64, stride=70)
    prepare("loveda", tmp_path / "src", tmp_path / "out")
    with pytest.raises(RunFolderError, match="cut otherwise"):
        prepare("loveda", tmp_path / "src", tmp_path / "out", crop=32, stride=32)


def test_the_command_says_what_to_do_next(tmp_path):
    save_loveda(tmp_path / "src")
    done = CliRunner().invoke(command, ["loveda", str(tmp_path / "src"), str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "train: 2 crops" in done.output and "4191.png" in done.output
    assert "alps finetune" in done.output
    assert json.loads((tmp_path / "out" / "prepared.json").read_text())["crop"] == 1024


def test_pixels_of_overlapping_crops_are_told_once(tmp_path, capsys):
    save_potsdam(tmp_path / "src")
    labels = tmp_path / "src" / "5_Labels_all"
    save_image(labels / "top_potsdam_2_10_label.tif", np.full((40, 40, 3), (252, 255, 0)))
    with pytest.raises(SourceError, match="1 problem"):
        prepare("potsdam", tmp_path / "src", tmp_path / "out", crop=30, stride=20)
    assert "1600 pixels of 1 colours" in capsys.readouterr().err


def test_labels_that_are_wrong_in_one_folder_are_taken_from_another(tmp_path, capsys):
    """Potsdam's 4_12 in 5_Labels_all is the photograph with the colours laid over it."""
    _, ids = save_potsdam(tmp_path / "src")
    wrong = tmp_path / "src" / "5_Labels_all" / "top_potsdam_2_10_label.tif"
    right = tmp_path / "src" / "5_Labels_for_participants" / wrong.name
    right.parent.mkdir()
    right.write_bytes(wrong.read_bytes())
    save_image(wrong, np.full((40, 40, 3), (126, 127, 0)))
    done = prepare("potsdam", tmp_path / "src", tmp_path / "out", crop=40, stride=40)
    assert done.crops == {"train": 1, "val": 1} and not done.alone
    written = np.asarray(Image.open(tmp_path / "out" / "ann_dir" / "train" / "2_10_0_0.png"))
    assert (written == ids).all()
    said = capsys.readouterr().err
    assert "is used instead" in said and "5_Labels_for_participants" in said
