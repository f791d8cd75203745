"""`alps distill` as a whole: its result, killed and resumed, in two processes, what it refuses."""

import json
import math
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import distilling
import numpy as np
import pytest
import speck
import teaching
import torch
from safetensors import safe_open

from alps.engine.base.errors import (
    AlpsError,
    ModelError,
    RunFolderError,
    SettingsError,
    SourceError,
)
from alps.engine.models.checkpoints import load_sam
from alps.engine.sam import OFFICIAL
from alps.engine.settings import ClusterSettings, RunSettings, SourceSettings
from alps.engine.stages.label import RunOptions, label_archive
from alps.trainer.distill import distill as module
from alps.trainer.distill import lesson
from alps.trainer.distill.distill import DistillOptions, distill
from alps.trainer.distill.folder import DistillFolder
from alps.trainer.distill.recipe import (
    AgreementSettings,
    DistillSettings,
    StudentSettings,
    TrainSettings,
)

CPU = DistillOptions("cpu", checkpoint_every=3)
# Whole runs, some of them killed and started again.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

FLOAT = TrainSettings(steps=8, batch=4, rate=2e-3, precision="float32", hold_out=0.2)
SHORT = DistillSettings(train=FLOAT, agreement=AgreementSettings(agreement_windows=2))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return distilling.save_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A checkpoint whose masks differ from point to point."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speck, "CONFIG", distilling.PLAIN)
        return str(speck.save_speck(tmp_path_factory.mktemp("teacher") / "large.safetensors"))


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """As official checkpoints are: a .pth with windows and relative positions."""
    return str(distilling.save_official(tmp_path_factory.mktemp("official") / "sam.pth"))


@pytest.fixture(scope="module")
def undisturbed(images, teacher, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    return distill(images, out, teacher, SHORT, CPU), out


def weights(out):
    return torch.load(out / "checkpoint.pt", weights_only=True)["model"]


def steps_logged(out):
    return [json.loads(line)["step"] for line in (out / "log.jsonl").read_text().splitlines()]


def arguments(images, out, teacher, train=FLOAT):
    """The command line of SHORT."""
    return [
        "distill", str(images), str(out), "--teacher", teacher, "--device", "cpu",
        "--steps", str(train.steps), "--batch", str(train.batch), "--rate", str(train.rate),
        "--precision", train.precision, "--hold-out", str(train.hold_out),
        "--cache-gb", str(train.cache_gb), "--ema", str(train.ema),
        "--agreement-windows", "2", "--checkpoint-every", "3",
    ]  # fmt: skip


# --- the result


def test_the_result_says_what_was_gained_and_lost(undisturbed):
    result, out = undisturbed
    run = json.loads((out / "distill.json").read_text())
    assert result.student == out / "student.safetensors" and result.steps == 8
    assert result.start == "the first 2 layers of the teacher"
    assert result.encoder_parameters[1] < result.encoder_parameters[0] < result.parameters[0]
    assert result.agreement.windows == 2 and result.held_out_by == "window"
    assert 0 < result.agreement.cosine <= 1 and 0 < result.agreement.point_iou <= 1
    assert run["result"]["agreement"]["point_iou"] == result.agreement.point_iou
    assert run["result"]["encoder_speed"] == pytest.approx(result.agreement.speed)
    assert run["settings"]["encoder_depth"] == 2 and len(run["teacher"]["sha256"]) == 64
    table = result.table()
    assert f"mean IoU {result.agreement.point_iou:.3f}" in table and "times as fast" in table
    assert "nan" not in table


def test_the_student_is_a_checkpoint_that_says_where_it_comes_from(undisturbed, teacher):
    result, _ = undisturbed
    _, info = load_sam(result.student)
    _, source = load_sam(Path(teacher))
    assert info.name == "large-32x2" and info.defaults == source.defaults
    with safe_open(result.student, framework="pt") as file:
        notes = file.metadata()
    assert json.loads(notes["alps.teacher"]) == {"name": "large", "sha256": source.sha256}
    recipe = json.loads(notes["alps.recipe"])
    assert recipe["steps"] == 8 and recipe["start"] == result.start and "SRC" not in recipe


def test_it_learns(images, teacher, tmp_path):
    asked = replace(SHORT, student=StudentSettings(width=16, heads=2, depth=2))
    train = replace(FLOAT, steps=60, batch=8, rate=3e-3)
    learnt = distill(images, tmp_path / "learnt", teacher, replace(asked, train=train), CPU)
    start = replace(asked, train=replace(FLOAT, steps=0))
    untaught = distill(images, tmp_path / "start", teacher, start, CPU)
    assert untaught.steps == 0 and math.isnan(untaught.images_per_second)
    for name in ("cosine", "centred_cosine", "point_iou"):
        assert getattr(untaught.agreement, name) < getattr(learnt.agreement, name)
    lines = DistillFolder(tmp_path / "learnt").log_lines()
    assert [line["step"] for line in lines] == list(range(60))
    assert np.mean([line["loss"] for line in lines[-5:]]) < 0.6 * lines[0]["loss"]
    assert {"rate", "images_per_second", "gradient_norm"} <= lines[0].keys()


def test_a_student_labels_an_archive(undisturbed, archive, tmp_path):
    result, _ = undisturbed
    settings = RunSettings(cluster=ClusterSettings(clusters=3))
    summary = label_archive(
        archive, tmp_path / "out", settings, RunOptions(str(result.student), "cpu", 1.0)
    )
    assert summary.sources == 5 and summary.tiles == {"ok": sum(summary.tiles.values())}
    assert summary.segments > 20
    assert json.loads((tmp_path / "out" / "run.json").read_text())["model"]["name"] == "student"


def test_a_finished_distillation_does_nothing_again(undisturbed, images, teacher, monkeypatch):
    result, out = undisturbed
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir() if path.name != "lock"}
    for name in ("teach", "measure_agreement"):
        monkeypatch.setattr(module, name, lambda *_: pytest.fail("did it again"))
    assert distill(images, out, teacher, SHORT, CPU) == result
    after = {path.name: path.stat().st_mtime_ns for path in out.iterdir() if path.name != "lock"}
    assert after == before


def test_agreement_may_be_measured_otherwise_without_training_again(
    images, teacher, tmp_path, monkeypatch
):
    first = distill(images, tmp_path, teacher, SHORT, CPU)
    monkeypatch.setattr(module, "teach", lambda *_: pytest.fail("trained again"))
    asked = replace(SHORT, agreement=AgreementSettings(points_per_side=3, agreement_windows=1))
    second = distill(images, tmp_path, teacher, asked, CPU)
    assert (first.agreement.points, second.agreement.points) == (72, 9)


def test_teachers_in_the_official_layout(images, official, tmp_path):
    """Windows, relative positions, and stock SAM's defaults, the tile's side aside."""
    asked = replace(
        SHORT,
        source=SourceSettings(tile=128, overlap=16),
        agreement=AgreementSettings(points_per_side=4, agreement_windows=1),
    )
    result = distill(images, tmp_path / "half", official, asked, CPU)
    assert result.start == "the first 3 layers of the teacher" and result.agreement.points == 16
    _, info = load_sam(result.student)
    assert info.config.relative_positions and info.config.window_size == 3
    assert info.config.global_blocks == (2,)
    moved = weights(tmp_path / "half")["blocks.1.attn.rel_pos_h"]
    assert not torch.equal(
        moved, load_sam(Path(official))[0].image_encoder.blocks[3].attn.rel_pos_h
    )

    narrow = replace(asked, student=StudentSettings(width=16, heads=2, depth=2))
    assert distill(images, tmp_path / "narrow", official, narrow, CPU).start.startswith("random")
    again = replace(
        asked, student=StudentSettings(init=str(tmp_path / "half" / "student.safetensors"))
    )
    assert "sam-32x3" in distill(images, tmp_path / "again", official, again, CPU).start


def test_two_threads_do_not_disturb_each_other(images, official, tmp_path):
    """Gradients of relative positions are sums whose order threads could change."""
    asked = replace(SHORT, source=SourceSettings(tile=128, overlap=16))
    asked = replace(asked, agreement=AgreementSettings(2, 1), train=replace(FLOAT, batch=8))
    torch.set_num_threads(2)
    try:
        for name in "ab":
            distill(images, tmp_path / name, official, asked, CPU)
    finally:
        torch.set_num_threads(1)
    one, other = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def test_a_running_average_is_what_is_saved(images, teacher, tmp_path):
    train = replace(FLOAT, ema=0.9)
    result = distill(images, tmp_path, teacher, replace(SHORT, train=train), CPU)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    saved = load_sam(result.student)[0].image_encoder.state_dict()
    name = "blocks.0.mlp.lin1.weight"
    assert torch.equal(saved[name], state["averaged"][name].half().float())
    assert not torch.equal(state["averaged"][name], state["model"][name])


@pytest.mark.dear
def test_a_random_vit_b_as_teacher(tmp_path):
    """One step at the official size; its tile is the whole image. Above is the layout alone."""
    images = distilling.save_images(tmp_path / "images", count=2, side=300)
    checkpoint = distilling.save_official(tmp_path / "vit_b.pth", OFFICIAL["vit_b"])
    settings = DistillSettings(
        student=StudentSettings("tiny", depth=2, global_blocks=1),
        train=replace(FLOAT, steps=1, batch=1, precision="auto"),
        agreement=AgreementSettings(points_per_side=1),
    )
    before = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    try:
        result = distill(images, tmp_path / "out", str(checkpoint), settings, CPU)
    finally:
        torch.set_num_threads(before)
    assert result.parameters[0] == 93_735_472 and result.teacher == "vit_b"
    assert result.agreement.speed > 2 and result.agreement.windows == 1


# --- killed and resumed

KILLED = """
import os, signal, sys, torch
torch.set_num_threads(1)
from alps.engine.base import atomic
from alps.engine.cli import main as cli
from alps.trainer.distill import distill, targets
from alps.trainer.loop.state import State
where, left = sys.argv[1], int(sys.argv[2])
def dying(real, wanted=lambda *_: True):
    def function(*arguments, **named):
        global left
        if wanted(*arguments):
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **named)
    return function
if where == "step":
    State.average = dying(State.average)
elif where == "checkpoint":
    is_ours = lambda part, path: "checkpoint" in str(path)
    atomic.os.replace = dying(os.replace, is_ours)
elif where == "cache":
    targets.Targets._encode = dying(targets.Targets._encode)
elif where == "end":
    distill.measure_agreement = dying(distill.measure_agreement)
sys.argv = ["alps", *sys.argv[3:]]
cli.main()
"""


def killed(where, after, *rest):
    """Run the command in a process that kills itself at a certain place."""
    command = [sys.executable, "-c", KILLED, where, str(after), *rest]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == -9, done.stderr


def results(out):
    """All that a distillation decides: its student, and what it would go on with."""
    with safe_open(out / "student.safetensors", framework="pt") as file:
        student = {name: file.get_tensor(name) for name in sorted(file.keys())}
        return student | {"metadata": file.metadata(), "checkpoint": teaching.checkpoint(out)}


def finished(*rest):
    """Run the command to its end, in a process like those that are killed."""
    command = [sys.executable, "-c", KILLED, "nowhere", "0", *rest]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


def test_killed_and_resumed_it_ends_with_the_same_weights(undisturbed, images, teacher, tmp_path):
    """Killed in step 4, then while a checkpoint is written, then before the result is."""
    out, whole = tmp_path / "out", undisturbed[1]
    rest = arguments(images, out, teacher)
    killed("step", 4, *rest)
    assert steps_logged(out) == [0, 1, 2, 3] and not (out / "student.safetensors").exists()
    assert torch.load(out / "checkpoint.pt", weights_only=True)["step"] == 3
    killed("checkpoint", 0, *rest)
    assert steps_logged(out) == [0, 1, 2, 3, 4, 5]
    assert torch.load(out / "checkpoint.pt", weights_only=True)["step"] == 3
    killed("end", 0, *rest)
    finished(*rest)
    assert steps_logged(out) == list(range(8))
    assert teaching.differences(results(out), results(whole)) == []
    # The loss of each step, too, is what it was.
    lines = [[line["loss"] for line in DistillFolder(o).log_lines()] for o in (out, whole)]
    assert lines[0] == lines[1]


def test_killed_and_resumed_with_a_cache_and_an_average(images, teacher, tmp_path):
    train = replace(FLOAT, cache_gb=1e-5, ema=0.9)  # four windows of 2 kB: some are kept, some not
    out, whole = tmp_path / "out", tmp_path / "whole"
    distill(images, whole, teacher, replace(SHORT, train=train), CPU)
    rest = arguments(images, out, teacher, train)
    killed("cache", 0, *rest)
    killed("step", 5, *rest)
    assert len(list((out / "cache").iterdir())) == 1
    finished(*rest)
    assert teaching.differences(results(out), results(whole)) == []
    assert not (out / "cache").exists()  # of no use any more


# --- several processes


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def together(processes, *rest):
    """Run the command under torchrun."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes),
        "--master-addr", "127.0.0.1", "--master-port", str(free_port()),
        "-m", "alps.engine.cli.main", *rest,
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, env=environment
    )


def test_two_processes_learn_what_one_does(undisturbed, images, teacher, tmp_path):
    result, alone = undisturbed
    out = tmp_path / "out"
    done = together(2, *arguments(images, out, teacher))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("use it with") == 1
    assert steps_logged(out) == list(range(8))
    one, two = weights(alone), weights(out)
    begun = load_sam(Path(teacher))[0].image_encoder.state_dict()
    moved = max((one[n] - begun[n]).abs().max() for n in ("pos_embed", "neck.0.weight"))
    apart = max((one[name] - two[name]).abs().max() for name in one)
    assert apart < 0.02 * moved  # other sums, rounded otherwise
    losses = [[line["loss"] for line in DistillFolder(o).log_lines()] for o in (out, alone)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    found = json.loads((out / "distill.json").read_text())["result"]["agreement"]
    assert found["point_iou"] == pytest.approx(result.agreement.point_iou, abs=0.01)


def test_all_processes_stop_where_the_first_cannot_go_on(images, teacher, tmp_path):
    (tmp_path / "other.txt").write_text("not ours")
    done = together(2, *arguments(images, tmp_path, teacher))
    assert done.returncode != 0 and "holds no distillation (but other.txt)" in done.stderr


def test_a_batch_must_be_shared_evenly(images, teacher, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(SettingsError, match="--batch 4: 3 processes"):
        distill(images, tmp_path, teacher, SHORT, CPU)


# --- what is refused


def refused(kind, words, images, out, teacher, settings=SHORT):
    with pytest.raises(kind, match=words) as caught:
        distill(images, out, teacher, settings, CPU)
    assert isinstance(caught.value, AlpsError)


def test_other_settings_in_the_same_folder_are_refused_by_name(undisturbed, images, teacher):
    _, out = undisturbed
    for train, words in (
        (replace(FLOAT, steps=9), "steps 8 there, 9 now"),
        (replace(FLOAT, seed=1), "seed 0 there, 1 now"),
        (replace(FLOAT, precision="bfloat16"), "precision float32 there, bfloat16 now"),
    ):
        refused(RunFolderError, words, images, out, teacher, replace(SHORT, train=train))
    deeper = replace(SHORT, student=StudentSettings(depth=3))
    words = (
        "encoder_depth 2 there, 3 now; start the first 2 layers of the teacher there, the first 3"
    )
    refused(RunFolderError, words, images, out, teacher, deeper)


def test_another_teacher_or_source_in_the_same_folder(undisturbed, images, teacher, tmp_path):
    _, out = undisturbed
    other = distilling.save_teacher(tmp_path / "large.safetensors")
    refused(RunFolderError, "teacher .* there", images, out, str(other))
    refused(RunFolderError, "SRC .* there", images / "0.png", out, teacher)


def test_folders_that_hold_something_else(images, teacher, tmp_path):
    (tmp_path / "run.json").write_text("{}")
    refused(RunFolderError, r"holds no distillation \(but run.json\)", images, tmp_path, teacher)
    refused(RunFolderError, "is a file", images, tmp_path / "run.json", teacher)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "distill.json").write_text("{")
    refused(RunFolderError, "cannot read .*distill.json", images, tmp_path / "broken", teacher)


def test_two_at_once_are_refused(images, teacher, tmp_path):
    with DistillFolder(tmp_path).locked():
        refused(RunFolderError, "another distillation is writing", images, tmp_path, teacher)


def test_sources_without_images(teacher, tmp_path):
    (tmp_path / "empty").mkdir()
    refused(SourceError, "No images", tmp_path / "empty", tmp_path / "a", teacher)
    (tmp_path / "x.png").write_text("no image")
    refused(SourceError, "none of the images", tmp_path / "x.png", tmp_path / "b", teacher)
    folder = distilling.save_images(tmp_path / "one", count=1, side=100)
    refused(SourceError, "at least 2", folder, tmp_path / "c", teacher)
    refused(ModelError, "no such model", folder, tmp_path / "d", "no-such-teacher")


def test_a_damaged_checkpoint_says_so(images, teacher, tmp_path):
    start = replace(SHORT, train=replace(FLOAT, steps=0))
    distill(images, tmp_path, teacher, start, CPU)
    (tmp_path / "checkpoint.pt").write_bytes(b"PK torn")
    refused(RunFolderError, "cannot read .*checkpoint.pt", images, tmp_path, teacher, start)


def test_a_loss_that_is_no_number_stops_the_run(images, teacher, tmp_path, monkeypatch):
    real = lesson.embedding_loss

    def broken(*some):
        loss = real(*some)
        return replace(loss, squared=loss.squared * float("nan"))

    monkeypatch.setattr(lesson, "embedding_loss", broken)
    refused(AlpsError, "no number any more at step 0.*lower --rate", images, tmp_path, teacher)


def test_windows_that_cannot_be_read_are_counted_and_named(teacher, tmp_path, capsys):
    folder = distilling.save_images(tmp_path / "images")
    whole = (folder / "0.png").read_bytes()
    (folder / "0.png").write_bytes(whole[: len(whole) // 3])  # its header can still be read
    (folder / "broken.png").write_text("no image")
    result = distill(folder, tmp_path / "out", teacher, SHORT, CPU)
    assert result.unread > 0 and result.unopened == 1 and result.steps == 8
    said = capsys.readouterr().err
    assert "an image teaches nothing" in said and "broken.png" in said
    assert "a window teaches nothing: Cannot read" in said and "0.png" in said
    assert all(torch.isfinite(tensor).all() for tensor in weights(tmp_path / "out").values())
