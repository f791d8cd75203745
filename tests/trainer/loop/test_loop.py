"""The training loop with a lesson of one layer: rates, clipping, averages, checkpoints, the log."""

import json
import math
import os
from itertools import pairwise

import pytest
import torch
from torch import nn

from alps.engine.base.errors import AlpsError, RunFolderError
from alps.trainer.distill.lesson import Training
from alps.trainer.distill.lesson import begin as begin_student
from alps.trainer.distill.loss import Statistics
from alps.trainer.distill.recipe import TrainSettings as DistillSettings
from alps.trainer.loop.lines import keep_before, read_lines
from alps.trainer.loop.log import LogSettings
from alps.trainer.loop.schedule import Schedule, constant, cosine, late_line, polynomial
from alps.trainer.loop.state import State, copy_for_average
from alps.trainer.loop.train import Learnt, Plan, train
from alps.trainer.processes import Processes

ALONE = Processes(0, 1, torch.device("cpu"))


class Line(nn.Module):
    """One weight, and a count such as batch norm keeps."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, 2.0]))
        self.head = nn.Parameter(torch.tensor([0.0]))
        self.register_buffer("seen", torch.tensor(0))


def begin(keep=0.0, rates=(0.1, 0.3), optimiser=torch.optim.SGD):
    model = Line()
    groups = [{"params": [model.weight]}, {"params": [model.head]}]
    return State(model, copy_for_average(model, keep), optimiser(groups, lr=0.0), rates)


class Lesson:
    """Gradients that are the step's number; ``broken``: from that step on none."""

    def __init__(self, state, broken=None, scale=1.0, notes=()):
        self.state, self.broken, self.scale, self.notes = state, broken, scale, notes
        self.steps, self.modes, self.validated, self.closed = [], [], [], False

    def batches(self, steps):
        self.made = self._batches(steps)  # held, so that only the loop closes it
        return self.made

    def _batches(self, steps):
        try:
            for step in steps:
                yield torch.tensor([float(step), 1.0])
        finally:
            self.closed = True

    def learn(self, batch, step):
        assert batch[0] == step
        model = self.state.model
        assert model.weight.grad is None  # gradients of the step before are gone
        self.steps.append(step)
        self.modes.append(model.training)
        model.seen += 1
        loss = self.scale * ((model.weight * (batch + 1)).sum() + 4 * model.head.sum())
        if self.broken is not None and step >= self.broken:
            loss = loss * math.nan
        loss.backward()
        return Learnt({"loss": loss}, self.notes)

    def validate(self, step):
        self.validated.append(step)
        return {"mean_iou": 0.5}


def plan(steps=6, **changes):
    values = {
        "schedule": Schedule(steps, 2, constant), "batch": 4, "clip": 1e9, "keep": 0.0,
        "checkpoint_every": 2, "log_every": 1,
    }  # fmt: skip
    return Plan(**values | changes)


def go(folder, state, lesson, how, stage=None):
    log = LogSettings(folder / "log.jsonl", "learning", "do this", stage)
    train(state, lesson, how, folder / "checkpoint.pt", log, ALONE)


# --- one step


def test_each_group_has_its_rate_and_the_schedule_scales_both(tmp_path):
    state = begin()
    go(tmp_path, state, Lesson(state), plan(steps=1))
    # The rise of two steps: half the rate. Gradients: (0 + 1, 1 + 1) and 4.
    torch.testing.assert_close(state.model.weight.detach(), torch.tensor([0.95, 1.9]))
    torch.testing.assert_close(state.model.head.detach(), torch.tensor([-0.6]))
    (line,) = read_lines(tmp_path / "log.jsonl")
    assert line["rate"] == pytest.approx(0.05) and line["steps"] == 1


def test_gradients_are_clipped_together_or_by_group(tmp_path):
    for by_group in (False, True):
        state = begin(rates=(1.0, 1.0))
        (tmp_path / str(by_group)).mkdir()
        how = plan(steps=1, clip=0.5, clip_by_group=by_group, schedule=Schedule(1, 0, constant))
        go(tmp_path / str(by_group), state, Lesson(state), how)
        moved = torch.cat([torch.tensor([1.0, 2.0]) - state.model.weight, -state.model.head])
        gradient = torch.tensor([1.0, 2.0, 4.0])
        norm = torch.tensor([5**0.5] * 2 + [4.0]) if by_group else gradient.norm()
        torch.testing.assert_close(moved.detach(), 0.5 * gradient / norm, rtol=1e-4, atol=1e-6)
        (line,) = read_lines(tmp_path / str(by_group) / "log.jsonl")
        expected = [5**0.5, 4.0] if by_group else 21**0.5
        assert line["gradient_norm"] == pytest.approx(expected)


def test_small_gradients_are_left_as_they_are(tmp_path):
    state = begin(rates=(1.0, 1.0))
    how = plan(steps=1, clip=100.0, schedule=Schedule(1, 0, constant))
    go(tmp_path, state, Lesson(state), how)
    torch.testing.assert_close(state.model.weight.detach(), torch.tensor([0.0, 0.0]))


def test_the_average_follows_faster_at_first(tmp_path):
    state = begin(keep=0.5)
    expected = state.averaged.weight.clone()
    for step, early in ((1, 10), (2, 10), (30, 10), (3, 19)):
        with torch.no_grad():
            state.model.weight += 1
            state.model.seen += 2
        state.step = step
        state.average(0.5, early)
        keep = min(0.5, step / (step + early))
        expected = keep * expected + (1 - keep) * state.model.weight
        torch.testing.assert_close(state.averaged.weight, expected.detach())
        assert state.averaged.seen == state.model.seen
    assert state.result is state.averaged and not state.averaged.weight.requires_grad
    assert begin().averaged is None


def test_a_training_moves_its_average(tmp_path):
    state = begin(keep=0.5)
    before = state.averaged.weight.clone()
    go(tmp_path, state, Lesson(state), plan(3, keep=0.5))
    now = state.averaged.weight
    assert (now < before).all() and (now > state.model.weight).all()


def test_the_network_learns_in_training_mode_and_is_left_in_the_other(tmp_path):
    state = begin()
    state.model.eval()
    lesson = Lesson(state)
    go(tmp_path, state, lesson, plan())
    assert all(lesson.modes) and not state.model.training and lesson.closed


# --- how often


def test_lines_checkpoints_and_validations_come_when_they_should(tmp_path, monkeypatch):
    saved = []
    real = State.save
    monkeypatch.setattr(State, "save", lambda s, path: (saved.append(s.step), real(s, path)))
    state = begin()
    lesson = Lesson(state)
    go(tmp_path, state, lesson, plan(7, checkpoint_every=3, log_every=2, validate_every=7))
    assert saved == [3, 6, 7]
    lines = read_lines(tmp_path / "log.jsonl")
    # Before each checkpoint too, whatever log_every says.
    assert [(line["step"], line["steps"]) for line in lines] == [
        (1, 2),
        (2, 1),
        (3, 1),
        (5, 2),
        (6, 1),
    ]
    assert lesson.validated == []  # the last one is not the loop's
    state = begin()
    lesson = Lesson(state)
    go(tmp_path, state, lesson, plan(7, validate_every=3))
    assert lesson.validated == [2, 5]
    told = [line for line in read_lines(tmp_path / "log.jsonl") if "mean_iou" in line]
    assert told == [{"step": 2, "mean_iou": 0.5}, {"step": 5, "mean_iou": 0.5}]


def test_a_line_holds_means_over_its_steps(tmp_path):
    state = begin(rates=(0.0, 0.0))
    go(tmp_path, state, Lesson(state), plan(4, checkpoint_every=4, log_every=4))
    (line,) = read_lines(tmp_path / "log.jsonl")
    # The weights stay: losses 1 x (step + 1) + 2 x 2.
    assert line["loss"] == pytest.approx((5 + 6 + 7 + 8) / 4)
    assert line["images_per_second"] == pytest.approx(16 / line["seconds"])
    assert 0 <= line["waited"] < 1


def test_no_step_at_all_leaves_a_checkpoint(tmp_path):
    state = begin()
    go(tmp_path, state, Lesson(state), plan(0))
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 0


def test_notes_reach_standard_error(tmp_path, capsys):
    state = begin()
    go(tmp_path, state, Lesson(state, notes=["a window is gone"]), plan(1))
    assert "a window is gone" in capsys.readouterr().err


# --- what is no number


@pytest.mark.parametrize("log_every", [1, 100])
def test_a_loss_that_is_no_number_ends_it_before_a_checkpoint(tmp_path, log_every):
    state = begin()
    with pytest.raises(
        AlpsError, match="no number any more at step 3 of the second stage; do this"
    ):
        go(tmp_path, state, Lesson(state, broken=3), plan(log_every=log_every), "second")
    kept = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert kept["step"] == 2 and kept["model"]["weight"].isfinite().all()
    assert all(math.isfinite(line["loss"]) for line in read_lines(tmp_path / "log.jsonl"))


def test_gradients_that_are_no_number_end_it_too(tmp_path):
    state = begin()
    lesson = Lesson(state)
    learn = lesson.learn

    def without_number(batch, step):
        learnt = learn(batch, step)
        state.model.head.grad.fill_(math.inf)
        return learnt

    lesson.learn = without_number
    with pytest.raises(AlpsError, match="no number"):
        go(tmp_path, state, lesson, plan(1))


# --- stopped and gone on with


class Stopped(Exception):
    pass


@pytest.mark.parametrize("stop", [1, 2, 3, 5])
def test_it_goes_on_where_it_stopped(tmp_path, stop):
    """With momentum, an average and a buffer that counts."""

    def momentum(groups, lr):
        return torch.optim.SGD(groups, lr=lr, momentum=0.9)

    how = plan(keep=0.9)
    outs = []
    for name in ("whole", "stopped"):
        folder = tmp_path / name
        folder.mkdir()
        state = begin(0.9, optimiser=momentum)
        lesson = Lesson(state)
        if name == "stopped":
            learn = lesson.learn

            def until(batch, step, learn=learn):
                if step == stop:
                    raise Stopped
                return learn(batch, step)

            lesson.learn = until
            with pytest.raises(Stopped):
                go(folder, state, lesson, how)
            assert lesson.closed
            state = begin(0.9, optimiser=momentum)
            state.load(folder / "checkpoint.pt")
            assert state.step == stop // 2 * 2
            lesson = Lesson(state)
        go(folder, state, lesson, how)
        losses = [(line["step"], line["loss"]) for line in read_lines(folder / "log.jsonl")]
        outs.append((torch.load(folder / "checkpoint.pt", weights_only=True), losses))
    (one, lines), (two, others) = outs
    assert lines == others and len(lines) == 6
    for part in ("model", "averaged"):
        for name, value in one[part].items():
            assert torch.equal(value, two[part][name]), name
    assert one["step"] == two["step"] == 6
    for number, kept in one["optimiser"]["state"].items():
        assert torch.equal(
            kept["momentum_buffer"], two["optimiser"]["state"][number]["momentum_buffer"]
        )


def test_a_checkpoint_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    happened = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (happened.append("fsync"), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (happened.append("replace"), replace(a, b)))
    begin().save(tmp_path / "checkpoint.pt")
    assert happened == ["fsync", "replace", "fsync"]
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_damaged_checkpoint_says_what_to_do(tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes(b"PK torn")
    with pytest.raises(RunFolderError, match=r"checkpoint\.pt.*put back a copy, or remove it"):
        begin().load(tmp_path / "checkpoint.pt")


def test_no_flipped_bit_of_a_checkpoint_gives_other_weights(tmp_path):
    """PyTorch alone reads over flips in the weights themselves."""
    path = tmp_path / "checkpoint.pt"
    kept = begin(keep=0.9)
    kept.step = 3
    kept.save(path)
    whole, silent = path.read_bytes(), 0
    for at in range(0, len(whole), 5):
        changed = bytearray(whole)
        changed[at] ^= 1 << at % 8
        path.write_bytes(changed)
        state = begin(keep=0.9)
        try:
            state.load(path)
        except RunFolderError as error:
            assert "cannot read" in str(error) and "\n" not in str(error)
        else:  # in the margins of the archive
            silent += 1
            assert torch.equal(state.model.weight, kept.model.weight) and state.step == 3
    assert silent < len(whole) / 5 / 2


@pytest.mark.parametrize("step", [-1, "3", None, 1e9, [3]])
def test_a_checkpoint_with_a_step_that_is_none_is_refused(tmp_path, step):
    torch.save(begin().to_dict() | {"step": step}, tmp_path / "checkpoint.pt")
    with pytest.raises(RunFolderError, match=r"cannot read .*checkpoint\.pt"):
        begin().load(tmp_path / "checkpoint.pt")


def test_a_checkpoint_of_an_earlier_distillation_opens(tmp_path):
    """It called the network the encoder."""
    settings = DistillSettings(rate=1e-3, ema=0.9)
    old = begin_student(Line(), settings)
    old.statistics, old.step = Statistics(torch.zeros(2), torch.ones(2)), 5
    with torch.no_grad():
        old.model.weight += 3
    kept = old.to_dict()
    kept["encoder"] = kept.pop("model")
    torch.save(kept, tmp_path / "checkpoint.pt")
    new: Training = begin_student(Line(), settings)
    new.load(tmp_path / "checkpoint.pt")
    assert new.step == 5 and torch.equal(new.model.weight, old.model.weight)
    assert torch.equal(new.statistics.deviation, torch.ones(2))


# --- the log's file


def test_a_torn_last_line_is_left_out(tmp_path):
    path = tmp_path / "log.jsonl"
    assert read_lines(path) == []
    lines = [{"step": 0, "loss": 1.0}, {"step": 1, "loss": 0.5}]
    whole = "".join(json.dumps(line) + "\n" for line in lines)
    for torn in ("", '{"step": 2, "lo', "\0\0\0", '{"step": 2, "loss": 0.25}'):
        path.write_text(whole + torn)
        assert read_lines(path) == lines
    keep_before(path, 9)
    assert path.read_text() == whole
    keep_before(path, 1)
    assert read_lines(path) == lines[:1]


@pytest.mark.parametrize("text", ['{"step": 0, "lo', "[0]"])
def test_a_line_that_is_damaged_elsewhere_is_named(tmp_path, text):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 0}\n' + text + "\n" + '{"step": 2}\n')
    with pytest.raises(RunFolderError, match=r"line 2 of .*log\.jsonl is damaged"):
        read_lines(path)


def test_lines_of_other_stages_stay(tmp_path):
    path = tmp_path / "log.jsonl"
    lines = [{"stage": name, "step": step} for name in ("one", "two") for step in range(3)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    keep_before(path, 1, "two")
    assert read_lines(path) == lines[:4]


# --- schedules


@pytest.mark.parametrize(
    "fall", [polynomial(1.0), polynomial(2.0), cosine(), cosine(0.1), late_line(0.5, 0.02)]
)
def test_rates_rise_in_a_straight_line_and_never_again(fall):
    schedule = Schedule(100, 10, fall)
    shares = [schedule.share(step) for step in range(100)]
    assert shares[:10] == pytest.approx([(n + 1) / 10 for n in range(10)])
    assert shares[10] == 1 and all(a >= b for a, b in pairwise(shares[10:]))
    assert Schedule(3, 0, fall).share(0) == 1


def test_rates_at_the_middle_and_the_end():
    for fall, middle, last in (
        (constant, 1, 1),
        (polynomial(1.0), 0.5, 0.01),
        (polynomial(2.0), 0.25, 1e-4),
        (cosine(), 0.5, math.sin(math.pi / 200) ** 2),
        (cosine(0.2), 0.6, 0.2 + 0.8 * math.sin(math.pi / 200) ** 2),
        (late_line(0.25, 0.02), 1, 0.02 + 0.98 / 25),
    ):
        schedule = Schedule(100, 0, fall)
        assert schedule.share(50) == pytest.approx(middle)
        assert schedule.share(99) == pytest.approx(last)
    line = Schedule(100, 0, late_line(0.25, 0.02))
    assert line.share(75) == 1 and line.share(80) == pytest.approx(0.02 + 0.98 * 0.8)
