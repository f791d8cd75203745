"""`alps pretrain` and `alps finetune` as a whole: results, killed and resumed, in two processes."""

import json
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import teaching
import torch
from click.testing import CliRunner
from PIL import Image
from teaching import CPU, QUICK, SHORT, checkpoint, differences

from alps.engine.base import atomic
from alps.engine.base.errors import RunFolderError, SettingsError
from alps.engine.cli import main as cli
from alps.trainer.loop.state import State
from alps.trainer.segmentation import lesson, models
from alps.trainer.segmentation.evaluate import evaluate
from alps.trainer.segmentation.folder import TrainingFolder
from alps.trainer.segmentation.models import logits
from alps.trainer.segmentation.recipe import ModelSettings, TrainSettings
from alps.trainer.segmentation.run import finetune, pretrain

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return teaching.save_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    settings = replace(SHORT, train=replace(QUICK, ema=0.9))
    return finetune(data, out, settings, CPU), out, settings


# --- the result


def test_it_learns(data, tmp_path):
    train = replace(QUICK, steps=50, batch=8, class_weights="root")
    result = finetune(data, tmp_path / "out", replace(SHORT, train=train), CPU)
    lines = TrainingFolder(tmp_path / "out").log_lines()
    assert np.mean([line["loss"] for line in lines[-5:]]) < 0.5 * lines[0]["loss"]
    assert result.scores.mean_iou > 0.6 and result.scores.classes == ("0", "1", "2")
    assert {"rate", "images_per_second", "gradient_norm", "waited"} <= lines[0].keys()


def test_the_result_says_what_was_measured(undisturbed):
    result, out, _ = undisturbed
    run = json.loads((out / "training.json").read_text())
    assert result.model == out / "model" and result.steps == 6 and result.images_per_second > 0
    assert run["result"]["scores"]["mean_iou"] == result.scores.mean_iou
    assert result.scores.pixels == 70 * 89  # one test image, a column of it has no class
    assert result.crops == 3 * 2 * 3


def test_plain_transformers_gives_the_same_logits(undisturbed):
    from transformers import AutoModelForSemanticSegmentation

    result, out, _ = undisturbed
    opened = AutoModelForSemanticSegmentation.from_pretrained(result.model).eval()
    assert opened.config.id2label == {0: "0", 1: "1", 2: "2"}
    pixels = torch.randint(0, 256, (2, 3, 48, 40), dtype=torch.uint8)
    about = json.loads((result.model / "preprocessor_config.json").read_text())
    mean, std = (torch.tensor(about[key]).view(3, 1, 1) for key in ("image_mean", "image_std"))
    with torch.no_grad():
        theirs = opened(pixel_values=(pixels * about["rescale_factor"] - mean) / std).logits
        opened.load_state_dict(checkpoint(out)["averaged"])  # what training ended with
        ours = logits(opened, pixels)
    larger = torch.nn.functional.interpolate(theirs, size=(48, 40), mode="bilinear")
    torch.testing.assert_close(ours, larger, rtol=1e-5, atol=1e-5)


def test_pretraining_gives_a_start_for_other_classes(data, undisturbed, tmp_path):
    start = pretrain(data, tmp_path / "pre", replace(SHORT, data=SHORT.data), CPU)
    assert start.scores is None and start.crops == 18  # test images are never learnt from
    names = replace(SHORT.data, classes="field,road,roof,sea")
    asked = replace(
        SHORT,
        data=names,
        model=ModelSettings(init=str(tmp_path / "pre")),
        train=replace(QUICK, steps=1, rate=1e-9),
    )
    finetune(data, tmp_path / "fine", asked, CPU)
    before, after = (checkpoint(tmp_path / name)["model"] for name in ("pre", "fine"))
    key = next(name for name in before if name.startswith("segformer.") and before[name].ndim == 2)
    torch.testing.assert_close(before[key], after[key], rtol=0, atol=1e-6)
    assert after["decode_head.classifier.weight"].shape[0] == 4


def test_evaluation_of_the_saved_model_agrees(data, undisturbed, tmp_path):
    result, out, settings = undisturbed
    again = evaluate(data, out, settings, predictions=tmp_path / "maps", device="cpu")
    assert again == result.scores
    drawn = np.array(Image.open(tmp_path / "maps" / "c1.png"))
    assert drawn.shape == (70, 90) and set(np.unique(drawn)) <= {0, 1, 2}


def test_a_finished_training_does_nothing_again(data, undisturbed, monkeypatch):
    result, out, settings = undisturbed
    monkeypatch.setattr(lesson, "train", lambda *_: pytest.fail("trained again"))
    assert finetune(data, out, settings, CPU) == result


def test_tensorboard_where_it_is_asked_for(data, tmp_path):
    train = replace(QUICK, steps=2)
    options = replace(CPU, tensorboard=True, validate_every=1)
    finetune(data, tmp_path / "out", replace(SHORT, train=train), options)
    assert list((tmp_path / "out" / "tensorboard").iterdir())
    assert any("mean_iou" in line for line in TrainingFolder(tmp_path / "out").log_lines())


def test_the_commands(data, tmp_path):
    """From label maps to measures, as a user types it."""
    short = ["--steps", "1", "--batch", "2", "--crop", "32", "--device", "cpu"]
    pre, fine = str(tmp_path / "pre"), str(tmp_path / "fine")
    start = ["pretrain", str(data), pre, "--model", "segformer_mini", *short]
    rest = ["finetune", str(data), fine, "--init", pre, "--fraction", "0.3", "--test", "c*", *short]
    told = ["evaluate", str(data), fine, "--test", "c*", "--json", str(tmp_path / "x.json")]
    for arguments in (start, rest, told):
        done = CliRunner().invoke(cli.commands, arguments)
        assert done.exit_code == 0, done.output
    assert "overall accuracy" in done.output
    measured = json.loads((tmp_path / "x.json").read_text())
    run = json.loads((tmp_path / "fine" / "training.json").read_text())
    assert measured == run["result"]["scores"] and run["result"]["crops"] == 5


# --- refusals


def test_other_settings_need_another_folder(data, undisturbed):
    _, out, settings = undisturbed
    other = replace(settings, train=replace(settings.train, rate=1e-3))
    with pytest.raises(RunFolderError, match=r"rate 0.003 there, 0.001 now"):
        finetune(data, out, other, CPU)


def test_other_images_of_the_same_names_too(data, undisturbed):
    _, out, settings = undisturbed
    image = sorted((data / "images").iterdir())[0]
    before = image.stat()
    os.utime(image, (0, 0))
    try:
        with pytest.raises(RunFolderError, match="images or labels are others now, by their sizes"):
            finetune(data, out, settings, CPU)
    finally:
        os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_folder_of_something_else_is_not_written_to(data, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(RunFolderError, match="holds no training"):
        finetune(data, tmp_path, SHORT, CPU)


@pytest.mark.parametrize(
    ("name", "value"),
    [("steps", -1), ("crop", 8), ("schedule", "linear"), ("fraction", 0.0), ("class_weights", "x")],
)
def test_settings_that_cannot_work(data, tmp_path, name, value):
    with pytest.raises(SettingsError, match="--" + name.replace("_", "-")):
        finetune(data, tmp_path / "x", replace(SHORT, train=replace(QUICK, **{name: value})), CPU)


@pytest.mark.parametrize("kind", ["poly", "cosine", "constant"])
def test_schedules_rise_then_fall(kind):
    settings = TrainSettings(steps=100, warmup=0.1, schedule=kind)
    rates = [lesson.schedule_of(settings).share(step) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * n for n in range(1, 11)]) and rates[10] == 1
    falls = np.diff(rates[10:])
    assert (falls == 0).all() if kind == "constant" else (falls < 0).all() and rates[-1] < 0.02


# --- the same weights, however they are come by


def dying(real, left, wanted=lambda *_: True):
    """``real``, but after ``left`` calls that are ``wanted`` it kills its process."""
    calls = iter(range(left))

    def function(*arguments):
        if wanted(*arguments) and next(calls, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments)

    return function


def killed(where, data, out, settings):
    """Train in a process that kills itself at a certain place."""

    def work():
        if where == "step":
            State.average = dying(State.average, 3)
        elif where == "checkpoint":
            atomic.os.replace = dying(os.replace, 0, lambda _, path: path.suffix == ".pt")
        elif where == "model":
            atomic.os.replace = dying(os.replace, 0, lambda _, path: path.name == "model")
        finetune(data, out, settings, CPU)

    assert teaching.ended(teaching.forked(work)) == -signal.SIGKILL


@pytest.mark.slow
def test_killed_and_resumed_it_ends_with_the_same_weights(undisturbed, data, tmp_path):
    """Killed in the fourth step; while a checkpoint is written; before the model has its name."""
    result, whole, settings = undisturbed
    out = tmp_path / "out"
    for where, step in (("step", 2), ("checkpoint", 2), ("model", 6)):
        killed(where, data, out, settings)
        assert checkpoint(out)["step"] == step and not (out / "model").exists()
    resumed = finetune(data, out, settings, CPU)
    assert differences(checkpoint(out), checkpoint(whole)) == []
    files = [(o / "model" / "model.safetensors").read_bytes() for o in (out, whole)]
    assert files[0] == files[1] and resumed.scores == result.scores
    losses = [[line["loss"] for line in TrainingFolder(o).log_lines()] for o in (out, whole)]
    assert losses[0] == losses[1] and len(losses[0]) == 6


@pytest.fixture
def sober(monkeypatch):
    """New models have no dropout: processes draw it differently."""
    plain = models._segformer

    def without(size):
        config = plain(size)
        config.drop_path_rate = config.classifier_dropout_prob = 0.0
        return config

    monkeypatch.setattr(models, "_segformer", without)


@pytest.mark.slow
def test_two_processes_learn_what_one_does(data, tmp_path, sober):
    """Batch norm included. Adam turns rounding into steps, so the losses are compared closely."""
    one = finetune(data, tmp_path / "one", SHORT, CPU)
    assert teaching.in_processes(lambda: finetune(data, tmp_path / "two", SHORT, CPU), 2) == [0, 0]
    logs = [TrainingFolder(tmp_path / name).log_lines() for name in ("one", "two")]
    losses = [[line["loss"] for line in lines] for lines in logs]
    np.testing.assert_allclose(losses[0], losses[1], rtol=2e-4)
    weights = [checkpoint(tmp_path / name)["model"] for name in ("one", "two")]
    for name, value in weights[0].items():
        # What batch norm takes out again has gradients of rounding alone; Adam steps all the same.
        idle = "linear_projections" in name and name.endswith("bias")
        reach = QUICK.rate * QUICK.steps if idle else 2e-3
        torch.testing.assert_close(value, weights[1][name], rtol=1e-3, atol=reach, msg=name)
    run = json.loads((tmp_path / "two" / "training.json").read_text())
    assert run["result"]["scores"]["mean_iou"] == pytest.approx(one.scores.mean_iou, abs=0.02)


def test_parts_of_a_batch_add_up(data, tmp_path, sober, monkeypatch):
    """Without batch norm's statistics, which are those of a part, gradients are the same."""

    def freeze(model):
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval().train = lambda _=True, norm=module: norm

    monkeypatch.setattr(lesson, "share_batch_norm", freeze)
    logs = []
    for parts in (1, 3):
        train = replace(QUICK, steps=2, accumulate=parts)
        finetune(data, tmp_path / str(parts), replace(SHORT, train=train), CPU)
        lines = TrainingFolder(tmp_path / str(parts)).log_lines()
        logs.append([(line["loss"], line["gradient_norm"]) for line in lines])
    np.testing.assert_allclose(logs[0], logs[1], rtol=1e-4)
