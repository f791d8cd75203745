"""What each kind of training asks of the loop: every setting of the recipe reaches it."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from alps.trainer.distill import lesson as distill
from alps.trainer.distill.folder import DistillFolder
from alps.trainer.distill.loss import Statistics
from alps.trainer.distill.recipe import TrainSettings as DistillSettings
from alps.trainer.processes import Processes
from alps.trainer.segmentation import begin, lesson
from alps.trainer.segmentation.folder import TrainingFolder
from alps.trainer.segmentation.recipe import RunOptions, TrainSettings
from alps.trainer.segmentation.targets import Classes
from alps.trainer.tiny import train as tiny
from alps.trainer.tiny.recipe import TinyRecipe

ALONE = Processes(0, 1, torch.device("cpu"))


class Encoder(nn.Module):
    """A matrix, a bias and positions."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 3)
        self.pos_embed = nn.Parameter(torch.zeros(1, 2, 2, 3))


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.head = Encoder(), nn.Linear(3, 1)


@pytest.fixture
def asked(monkeypatch):
    """What the loop was called with, in place of a training."""
    calls = []
    for module in (lesson, distill, tiny):
        monkeypatch.setattr(module, "train", lambda *some: calls.append(some))
    return calls


def test_of_segmentation(asked, monkeypatch):
    monkeypatch.setattr(begin, "encoder_of", lambda model: model.encoder)
    settings = TrainSettings(
        steps=40, batch=6, rate=0.25, head_rate=3.0, weight_decay=0.07, clip=0.125, ema=0.75,
        warmup=0.11, schedule="cosine",
    )  # fmt: skip
    state = begin.begin(Network(), settings)
    # The encoder's matrices, and its biases; then the head's.
    assert list(state.rates) == [0.25, 0.25, 0.75, 0.75]
    assert [g["weight_decay"] for g in state.optimiser.param_groups] == [0.07, 0.0, 0.07, 0.0]
    options = RunOptions(checkpoint_every=11, validate_every=12, log_every=13, tensorboard=True)
    folder = TrainingFolder(Path("out"))
    shop = lesson.Workshop(settings, options, folder, ALONE, torch.autocast, lambda _: {"a": 1.0})
    lesson.teach(state, None, [Classes(torch.ones(2))], shop)
    ((_, taught, plan, checkpoint, log, _),) = asked
    assert (plan.batch, plan.clip, plan.keep, plan.clip_by_group) == (6, 0.125, 0.75, False)
    assert (plan.checkpoint_every, plan.validate_every, plan.log_every) == (11, 12, 13)
    assert (plan.schedule.steps, plan.schedule.rise) == (40, 5)
    assert plan.schedule.share(39) < 0.01 and plan.schedule.share(22) == pytest.approx(
        0.5, abs=0.03
    )
    assert checkpoint == folder.checkpoint and log.path == folder.log
    assert log.board == folder.tensorboard and "lower --rate than 0.25" in log.remedy
    assert taught.validate(3) == {"a": 1.0}
    quiet = replace(shop, options=RunOptions(), settings=replace(settings, ema=0.0))
    lesson.teach(begin.begin(Network(), quiet.settings), None, [Classes(torch.ones(2))], quiet)
    assert asked[1][4].board is None and asked[1][0].averaged is None


def test_power_bends_the_fall():
    for power in (1.0, 2.0):
        schedule = lesson.schedule_of(TrainSettings(steps=100, warmup=0, power=power))
        assert schedule.share(50) == pytest.approx(0.5**power)


def test_seeds_of_dropout_differ_by_step_process_and_seed():
    twos = [Processes(rank, 2, ALONE.device) for rank in (0, 1)]
    seeds = {lesson._seed(s, step, p) for s in (0, 1) for step in (0, 1, 2) for p in twos}
    assert len(seeds) == 12


def test_of_distillation(asked):
    settings = DistillSettings(
        steps=30, batch=5, rate=0.5, weight_decay=0.03, clip=0.25, ema=0.5, warmup=0.1
    )
    training = distill.begin(Encoder(), settings)
    assert list(training.rates) == [0.5, 0.5]
    matrices, others = training.optimiser.param_groups
    assert (len(matrices["params"]), len(others["params"])) == (1, 2)
    assert (matrices["weight_decay"], others["weight_decay"]) == (0.03, 0.0)
    training.statistics = Statistics(torch.zeros(1), torch.ones(1))
    folder = DistillFolder(Path("out"))
    shop = distill.Workshop(settings, folder, ALONE, torch.autocast, 7)
    distill.teach(training, SimpleNamespace(), SimpleNamespace(), shop)
    ((_, _, plan, checkpoint, log, _),) = asked
    assert (plan.batch, plan.clip, plan.keep, plan.clip_by_group) == (5, 0.25, 0.5, False)
    assert (plan.checkpoint_every, plan.log_every) == (7, 1)
    assert (plan.schedule.steps, plan.schedule.rise) == (30, 3)
    assert checkpoint == folder.checkpoint and "lower --rate than 0.5" in log.remedy


def test_of_tiny(asked, tmp_path):
    recipe = TinyRecipe()
    layers = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    groups = [
        tiny.Group([*layer.parameters()], rate) for layer, rate in zip(layers, (4, 5), strict=True)
    ]
    stage = tiny.Stage("joint", 20, 0.25, groups, frozen=False)
    layers.device = ALONE.device
    tiny.run_stage(stage, layers, layers, tiny.Workshop(tmp_path, None, recipe, 9))
    ((state, _, plan, checkpoint, log, _),) = asked
    assert list(state.rates) == [4, 5]
    settings = recipe.train
    assert {g["weight_decay"] for g in state.optimiser.param_groups} == {settings.weight_decay}
    assert (plan.batch, plan.clip, plan.clip_by_group) == (settings.images, 1.0, True)
    assert (plan.keep, plan.early, plan.checkpoint_every) == (settings.average, 19, 9)
    assert (plan.schedule.steps, plan.schedule.rise) == (20, settings.warmup)
    assert replace(plan.schedule, rise=0).share(15) == 1
    assert replace(plan.schedule, rise=0).share(16) == pytest.approx(0.02 + 0.98 * 0.8)
    assert checkpoint == tmp_path / "joint.pt" and log.stage == "joint"
    assert log.path == tmp_path / "log.jsonl"
