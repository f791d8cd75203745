"""The script for a first look at a GPU: steps apart, resumable, and tried without one."""

import json
import os
import subprocess
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from alps.bench.gpu.checks.runs import _differences
from alps.bench.gpu_check import STEPS, Plan, Step, carry_out, main, table
from alps.engine.base.errors import SettingsError

HELPERS = str(Path(__file__).resolve().parents[1] / "helpers")
ODD = ("fine", "hangs", "crashes", "raises", "skips", "partly")


@pytest.fixture
def helpers(monkeypatch):
    """Where children of this process find the odd steps."""
    known = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [known, HELPERS])))


def states(plan, steps):
    found = [json.loads((plan.out / f"{step.name}.json").read_text()) for step in steps]
    return {one["step"]: (one["status"], one["reason"]) for one in found}


def test_no_step_stops_another_and_what_is_done_is_left(tmp_path, helpers, monkeypatch):
    steps = [Step(name, f"odd_steps:{name}", 60, f"what {name} decides") for name in ODD]
    steps[1] = Step("hangs", "odd_steps:hangs", 59, "")
    plan = Plan(tmp_path / "out", "cpu", True, 5)
    begun = plan.out / "child.pid"

    class WaitedFor(subprocess.Popen):
        """The time of the step that hangs is over as soon as it hangs, however busy a machine."""

        def wait(self, timeout=None):
            if timeout == 59:
                ends = time.monotonic() + timeout
                while not begun.exists() and time.monotonic() < ends:
                    time.sleep(0.05)
                timeout = 0.5
            return super().wait(timeout)

    monkeypatch.setattr("alps.bench.gpu_check.subprocess.Popen", WaitedFor)
    carry_out(plan, steps)
    found = states(plan, steps)
    assert found.pop("hangs") == ("failed", "no end after 59 s")
    assert found.pop("crashes")[0] == "failed" and "signal 6" in states(plan, steps)["crashes"][1]
    assert found.pop("raises") == ("failed", "exit code 1: thing")
    assert found == {
        "fine": ("ok", ""),
        "skips": ("skipped", "needs two"),
        "partly": ("partly", ""),
    }
    with pytest.raises(ProcessLookupError):  # what a step began ends with it
        os.kill(int(begun.read_text()), 0)
    text = "\n".join(table(plan, steps))
    assert "| one | 1.2346 | ms | a / b |" in text and "| before | 1 |" in text
    assert "| a part | failed |  | ZeroDivisionError: division by zero |" in text
    # Once more: only those are begun that are not done, and there is no time for them.
    before = {step.name: (plan.out / f"{step.name}.json").read_text() for step in steps}
    carry_out(Plan(plan.out, "cpu", True, 0), steps)
    after = states(plan, steps)
    assert (plan.out / "fine.json").read_text() == before["fine"]
    assert after["skips"][0] == "skipped" and after["partly"][0] == "not begun"
    assert after["crashes"] == ("not begun", "the 0 minutes were over")


def test_a_step_of_another_device_or_size_is_not_taken_for_done(tmp_path):
    plan = Plan(tmp_path, "cpu", True, 0)
    (tmp_path / "fine.json").write_text(
        json.dumps({"status": "ok", "device": "cuda", "small": False, "rows": []})
    )
    steps = [Step("fine", "odd_steps:fine", 20, "")]
    carry_out(plan, steps)
    assert states(plan, steps)["fine"][0] == "not begun"


def test_what_differs_between_two_runs_is_named(tmp_path):
    nan, table = float("nan"), {"x": [1.0, float("nan"), 3.0], "area": [4, 5, 6]}

    def run(name, **changed):
        folder = tmp_path / name / "segments"
        folder.mkdir(parents=True)
        pq.write_table(pa.table(table | changed), folder / "part-00000.parquet")
        return tmp_path / name

    one = run("one")
    assert _differences(one, run("same")) == "the same segments in other bytes"
    other = run("other", x=[1.0, nan, 3.5])
    assert _differences(one, other) == "part-00000.parquet: x in 1 rows, the first 2"
    fewer = run("fewer", x=[1.0], area=[4])
    assert _differences(one, fewer) == "part-00000.parquet: 3 and 1 segments"


def test_wrong_requests(tmp_path):
    for arguments, words in (
        (["--only", "nothing"], "no step nothing"),
        (["--device", "tpu"], "tpu"),
    ):
        done = CliRunner().invoke(main, [str(tmp_path), *arguments])
        assert isinstance(done.exception, SettingsError) and words in str(done.exception)


def look(tmp_path, *arguments):
    done = CliRunner().invoke(main, [str(tmp_path / "out"), *arguments])
    assert done.exit_code == 0, done.output
    found = [json.loads(path.read_text()) for path in (tmp_path / "out").glob("*.json")]
    assert (tmp_path / "out" / "table.md").read_text().strip() in done.output
    return {one["step"]: one for one in found}


def test_it_runs_on_a_cpu(tmp_path):
    found = look(tmp_path, "--device", "cpu", "--small", "--only", "right")
    right = found["right"]
    errors = {row["what"]: row["value"] for row in right["rows"]}
    assert right["status"] == "ok" and len(errors) == 18
    assert 0 < errors["fp32, auto: logits"] < 1e-5 < errors["bf16, absorbed: logits"] < 0.1


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param("attention,clusters,label", marks=pytest.mark.slow),
        pytest.param(",".join(step.name for step in STEPS), marks=pytest.mark.dear),
    ],
    ids=["some", "all"],
)
def test_steps_run_on_a_cpu(tmp_path, steps):
    found = look(tmp_path, "--device", "cpu", "--small", "--only", steps)
    assert set(found) == set(steps.split(","))
    assert {one["status"] for one in found.values()} <= {"ok", "skipped"}
    rows = {row["what"]: (row["value"], row["note"]) for row in found["label"]["rows"]}
    assert rows["killed and resumed"] == ("the same", "")


@pytest.mark.dear  # test_gpu_counts.py has a card of its own
def test_steps_run_on_a_card_that_counts(tmp_path):
    found = look(
        tmp_path, "--device", "fake", "--small", "--only", "machine,compiled,speed,attention"
    )
    some = [found[name] for name in ("machine", "compiled", "speed", "attention")]
    assert {one["status"] for one in some} == {"ok"}, some
