"""The harness of faults: what it calls a fault, and some attacks."""

import json
import random
import re
import shutil
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alps.bench.proofs.faults import damage, hostile, noise, spoil
from alps.bench.proofs.faults.child import Ended
from alps.bench.proofs.faults.ground import Ground, around
from alps.bench.proofs.faults.outcome import (
    SURVIVED,
    Outcome,
    Verdict,
    fault,
    judge,
    judge_place,
    worst,
)
from alps.bench.proofs.faults.table import Round, markdown

# Seconds that the attacks of a test may take; a hang alone is a minute.
MOST_SECONDS = 900


def ended(code, said="", command="label"):
    return Ended((command,), code, said, 1.0)


@pytest.mark.parametrize(
    ("how", "verdict"),
    [
        (ended(0, "4 sources"), Verdict.SURVIVED),
        (ended(1, "segmenting\nalps: x is damaged; delete it"), Verdict.NAMED),
        (ended(2, "Usage: alps\n\nError: no such option"), Verdict.NAMED),
        (ended(3, "alps: too many failed"), Verdict.NAMED),
        (ended(1, "x is damaged"), Verdict.FAULT),
        (ended(1, "Traceback (most recent call last):\nalps: x"), Verdict.FAULT),
        (ended(0, "Exception ignored in: <function>"), Verdict.FAULT),
        (ended(70, "ValueError"), Verdict.FAULT),
        (ended(-11), Verdict.FAULT),
        (ended(None), Verdict.FAULT),
    ],
)
def test_what_is_a_fault(how, verdict):
    assert judge(how).verdict is verdict


def test_the_worst_counts():
    named = Outcome(Verdict.NAMED, "x")
    assert worst(SURVIVED, named, SURVIVED) is named
    assert worst(named, fault("y"), SURVIVED).why == "y"


def write_model(path):
    """The header of a safetensors file."""
    header = json.dumps({"__metadata__": {"config": json.dumps({"depth": 1})}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)


@pytest.fixture
def ground(tmp_path, monkeypatch):
    """A finished run of one label map, and commands that do nothing."""
    ground = Ground(tmp_path)
    out = ground.base / "out"
    for path, text in {
        ground.base / "archive" / "a.png": "pixels",
        ground.base / "outside" / "victim.png": "not to be touched",
        out / "labels" / "a.png": "label map",
        out / "classes.json": "{}",
        out / "journal" / "lock": "",
        out / "run.json": json.dumps({"done": {"paint": "1"}, "settings": {"tile": 128}}),
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    write_model(ground.base / "model.safetensors")
    monkeypatch.setattr(Ground, "alps", lambda self, *arguments, **_: ended(0, "", arguments[0]))
    return ground


@pytest.mark.parametrize(
    "change",
    [
        lambda ground: (ground.round / "outside" / "victim.png").write_text("touched"),
        lambda ground: (ground.round / "outside" / "victim.png").unlink(),
        lambda ground: (ground.archive / "b.png").write_text("new"),
        lambda ground: (ground.round / "link").symlink_to("nowhere"),
    ],
    ids=["changed", "removed", "new", "link"],
)
def test_what_lies_outside_is_looked_at(ground, change):
    ground.restore()
    before = around(ground)
    (ground.out / "more").write_text("inside")
    assert judge_place(ground, before) is SURVIVED
    change(ground)
    assert "outside OUT" in judge_place(ground, before).why


def rounds_of(suite, ground, count):
    attacks = [suite.draw(ground, random.Random(number)) for number in range(count)]
    return {attack.name: attack.carry_out().why for attack in attacks}


@pytest.mark.slow
def test_damage_that_nobody_sees_is_a_fault(ground):
    found = rounds_of(damage, ground, 300)
    assert found["labels/a.png emptied, then label"] == "label ends with 0 and other label maps"
    assert "verify does not see it" in found["labels/a.png removed, then verify"]
    assert not any(why for name, why in found.items() if name.startswith("run.json"))


def test_hostile_values_may_lead_to_other_labels_but_not_outside(ground):
    found = rounds_of(hostile, ground, 60)
    assert set(found.values()) == {""}


def test_an_attack_is_the_same_again():
    content = bytes(range(256)) * 8
    for how in spoil.NOISES:
        assert how(content, random.Random(3)) == how(content, random.Random(3)) != content
        how(b"", random.Random(3))
    bits = np.unpackbits(np.frombuffer(spoil.flipped(content, random.Random(1)), np.uint8))
    assert (bits != np.unpackbits(np.frombuffer(content, np.uint8))).sum() == 1


def test_a_name_that_is_no_file_any_more(tmp_path):
    victim, path = tmp_path / "victim", tmp_path / "file"
    victim.write_text("not to be touched")
    looks = {"removed": lambda: not path.exists(), "linked": path.is_symlink,
             "piped": path.is_fifo, "foldered": path.is_dir}  # fmt: skip
    assert set(looks) == set(spoil.OTHERS)
    for how, look in looks.items():
        path.write_text("file")
        spoil.spoil(path, how, random.Random(0), victim)
        assert look()
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    assert victim.read_text() == "not to be touched"


def test_kinds_of_files():
    names = ("labels/north/c.tif", "segments/part-00003.parquet", "journal/sums-00001.jsonl")
    kinds = ["labels/*.tif", "segments/part-*", "journal/sums-*"]
    assert [damage.kind_of(name) for name in names] == kinds
    assert damage.kind_of("regions/rasters/a.png.tif") == "regions/rasters/*"
    assert damage.kind_of("journal/plan.parquet") == "journal/plan.parquet"


def test_every_kind_of_file_gets_other_values(tmp_path):
    table = {"label": ["a"] * 3, "x": [1, 2, 3], "share": [0.5] * 3, "counts": [b"1"] * 3}
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    np.savez(tmp_path / "c.npz", centroids=np.ones((2, 3)), made_with=np.array('{"a": [1]}'))
    (tmp_path / "r.json").write_text('{"a": {"b": [1, "x"]}}')
    (tmp_path / "l.jsonl").write_text('{"a": 1}\n{"a": 2}\n')
    write_model(tmp_path / "m.safetensors")
    for path in sorted(tmp_path.iterdir()):
        content, changes = path.read_bytes(), set()
        for seed in range(40):
            path.write_bytes(content)
            changes.add(hostile.HOW[path.suffix](path, random.Random(seed)))
        assert len(changes) > 4, path


def test_what_lies_beside_an_image_is_read_by_gdal(tmp_path):
    import rasterio

    path = tmp_path / "v.vrt"
    noise.BESIDE["north/c.tif.msk"][1](tmp_path / "c.tif")
    noise.BESIDE["north/v.vrt"][1](path)
    with rasterio.open(path) as file:
        assert file.read(1).min() == 255


def test_the_table_adds_up():
    rounds = [
        Round("kill", 0, "SIGTERM", "label", SURVIVED),
        Round("kill", 1, "SIGTERM", "paint", fault("other bytes")),
        Round("damage", 0, "run.json", "emptied", Outcome(Verdict.NAMED, "x")),
    ]
    lines = markdown(rounds).splitlines()
    assert lines[2] == "| damage | `run.json` | 1 | 0 | 1 | 0 |"
    assert lines[3] == "| kill | `SIGTERM` | 2 | 1 | 0 | 1 |"
    assert lines[4] == "| all | | 3 | 1 | 1 | 1 |"
    assert lines[6] == "- kill:1, paint: other bytes"


@pytest.mark.parametrize(
    "rounds", [pytest.param(1, marks=pytest.mark.slow), pytest.param(6, marks=pytest.mark.dear)]
)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="children are forks, bounded")
def test_some_attacks_find_no_fault(tmp_path, rounds):
    # In a process of its own: children are forks of one that has no threads.
    command = [sys.executable, "-m", "alps.bench.proofs.faults", str(tmp_path / "work")]
    command += ["--rounds", str(rounds)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=MOST_SECONDS, check=False
    )
    shutil.rmtree(tmp_path / "work", ignore_errors=True)
    all_of_them = rf"^\| all \| \| {4 * rounds} \|"
    assert re.search(all_of_them, done.stdout, re.MULTILINE), done.stderr[-2000:]
    assert done.returncode == 0, done.stdout
