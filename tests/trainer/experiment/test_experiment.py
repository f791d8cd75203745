"""`alps experiment`: its plan, its table with spread, and the whole of it in miniature."""

import csv
import math
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import teaching
import torch
from teaching import CPU, QUICK, SHORT

from alps.engine.base.errors import RunFolderError, SettingsError, SourceError
from alps.engine.settings import ClusterSettings, RunSettings
from alps.engine.stages.label import RunOptions as LabelOptions
from alps.engine.stages.label import label_archive
from alps.trainer.experiment import run as module
from alps.trainer.experiment.plan import ExperimentSettings, make_plan, told
from alps.trainer.experiment.report import Measured, Outcome
from alps.trainer.experiment.run import Experiment, run_experiment
from alps.trainer.segmentation.metrics import scores

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = ExperimentSettings(
    fractions="0.2,1", seeds=1, pretrain_steps=1, finetune_steps=1, arms="scratch,masks"
)


def test_the_plan():
    plan = make_plan(ExperimentSettings(arms="scratch, alps", fractions="1,0.05", seeds=3))
    assert plan.fractions == (0.05, 1.0) and [p.name for p in plan.pretrainings] == ["alps-seed0"]
    assert len(plan.finetunings) == 12
    assert [run.name for run in plan.finetunings[:3]] == [
        "scratch-0.05-seed0", "alps-0.05-seed0", "scratch-1-seed0",
    ]  # fmt: skip
    two = make_plan(ExperimentSettings(arms="alps", fractions="1", seeds=3, pretrain_seeds=2))
    assert [run.start.seed for run in two.finetunings] == [0, 1, 0]


def test_an_arm_may_learn_from_images_without_labels(tmp_path):
    arms = "scratch,scratch+unlabelled,masks+vectors,masks+vectors+unlabelled"
    plan = make_plan(ExperimentSettings(arms=arms, fractions="1", seeds=1))
    assert [start.name for start in plan.pretrainings] == ["masks+vectors-seed0"]
    folder = module.ExperimentFolder(tmp_path)
    recipes = [module._to_finetune(Experiment(), run, folder, "RUN") for run in plan.finetunings]
    assert [one.self_training.unlabelled for one in recipes] == [None, "RUN", None, "RUN"]
    start = str(tmp_path / "pretrain" / "masks+vectors-seed0")
    assert [one.model.init for one in recipes] == [None, None, start, start]
    learnt = module._to_pretrain(Experiment(), plan.pretrainings[0])
    assert learnt.pseudo.targets == "masks,vectors" and learnt.self_training.unlabelled is None
    assert told("masks+vectors+unlabelled") == "pre-trained on masks, vectors, self-training"


def test_a_baseline_starts_from_its_checkpoint(tmp_path):
    settings = ExperimentSettings(arms="scratch,baseline", seeds=1, init_baseline="imagenet")
    plan = make_plan(settings)
    assert plan.pretrainings == ()
    folder = module.ExperimentFolder(tmp_path)
    inits = [
        module._to_finetune(Experiment(settings), run, folder, "RUN").model.init
        for run in plan.finetunings[:2]
    ]
    assert inits == [None, "imagenet"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("arms", "scratch,magic"), ("arms", "alps,alps"), ("arms", "masks+classes+shuffled"),
     ("fractions", "5%"), ("fractions", "0,1"), ("seeds", 0), ("pretrain_seeds", 4),
     ("init_baseline", "imagenet")],
)  # fmt: skip
def test_plans_that_cannot_work(name, value):
    with pytest.raises(SettingsError, match="--" + name.replace("_", "-")):
        make_plan(replace(ExperimentSettings(), **{name: value}))


def test_the_table_pairs_runs_and_shows_spread(tmp_path):
    plan = make_plan(ExperimentSettings(arms="scratch,alps", fractions="0.05,1", seeds=3))
    share = {"scratch": (0.2, 0.3, 0.4), "alps": (0.5, 0.5, 0.6)}

    def found(run):
        right = round(1000 * share[run.arm][run.seed])
        counts = np.array([[right, 1000 - right], [0, 0]])  # IoU of class 0; class 1 has 0
        return Measured(run, 7, scores(counts, ("a", "b")))

    runs = [run for run in plan.finetunings if run.fraction == 0.05]
    outcome = Outcome(plan, tuple(map(found, runs)))
    assert outcome.cell("alps", 0.05).mean == pytest.approx(np.mean(share["alps"]) / 2)
    gain = outcome.gain("alps", 0.05)
    assert gain.values == pytest.approx((0.15, 0.1, 0.1))
    assert gain.spread == pytest.approx(np.std([0.15, 0.1, 0.1], ddof=1))
    table = outcome.table()
    # Student's t with two degrees of freedom, 4.303, times 2.887 over the root of three.
    assert "| 5% | 7 | 15.0 ± 5.0 | 26.7 ± 2.9 | +11.7 (+4.5 to +18.8) |" in table
    assert "| 100% | - | - | - | - |" in table and "6 of 12 runs done" in table
    assert math.isnan(outcome.cell("alps", 1.0).mean)
    outcome.save(tmp_path)
    assert (tmp_path / "plot.png").read_bytes()[:4] == b"\x89PNG"


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Images, their real labels, and a run folder of those that are not tested on."""
    from speck import save_speck

    from alps.engine.models.checkpoints import load_sam  # noqa: F401 (compiled once for the module)

    root = tmp_path_factory.mktemp("labelled")
    teaching.save_data(root / "data")
    listed = root / "train.txt"
    names = [path for path in sorted((root / "data" / "images").iterdir()) if path.stem != "c1"]
    listed.write_text("\n".join(map(str, names)))
    model = str(save_speck(root / "speck.safetensors"))
    settings = RunSettings(cluster=ClusterSettings(clusters=3))
    label_archive(listed, root / "run", settings, LabelOptions(model, "cpu", 1.0))
    return root


@pytest.fixture(scope="module")
def experiment():
    train = replace(QUICK, steps=1)
    return Experiment(SMALL, replace(SHORT, train=train))


@pytest.mark.slow
def test_in_miniature(labelled, experiment, tmp_path, monkeypatch):
    out = tmp_path / "out"
    arguments = (labelled / "run", labelled / "data", out, experiment, CPU)
    outcome = run_experiment(*arguments)
    assert len(outcome.measured) == 4 and "gain: masks" in outcome.table()
    assert {one.run.fraction: one.crops for one in outcome.measured} == {0.2: 4, 1.0: 18}
    with (out / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 and rows[0]["arm"] == "scratch" and float(rows[0]["mean_iou"]) >= 0
    assert (out / "plot.png").exists() and "gain" in (out / "table.md").read_text()
    start = torch.load(out / "pretrain" / "masks-seed0" / "checkpoint.pt", weights_only=True)
    assert start["model"]["decode_head.classifier.weight"].shape[0] == 2

    # Once more nothing is trained; with another seed only what is new.
    trained = []
    real = module.finetune
    monkeypatch.setattr(module, "pretrain", _known(module.pretrain))
    monkeypatch.setattr(
        module, "finetune", lambda data, folder, *rest: trained.append(
            (folder / "model").exists()) or real(data, folder, *rest),
    )  # fmt: skip
    more = replace(experiment, settings=replace(SMALL, seeds=2))
    longer = run_experiment(labelled / "run", labelled / "data", out, more, CPU)
    assert trained.count(True) == 4 and trained.count(False) == 4
    assert len(longer.measured) == 8
    with pytest.raises(RunFolderError, match="finetune_steps 1 there, 9 now"):
        other = replace(experiment, settings=replace(SMALL, finetune_steps=9))
        run_experiment(labelled / "run", labelled / "data", out, other, CPU)


def _known(real):
    def function(labels, folder, *rest):
        assert (folder / "model").exists(), "pre-trained again"
        return real(labels, folder, *rest)

    return function


def test_test_images_must_not_have_been_labelled(labelled, experiment, tmp_path):
    recipe = replace(experiment.recipe, data=replace(SHORT.data, test="a1"))
    with pytest.raises(SourceError, match=r"1 test images .* were labelled"):
        run_experiment(
            labelled / "run",
            labelled / "data",
            tmp_path / "x",
            replace(experiment, recipe=recipe),
            CPU,
        )


def test_the_last_layer_cannot_stay(labelled, experiment, tmp_path):
    recipe = replace(experiment.recipe, model=replace(experiment.recipe.model, keep="all"))
    with pytest.raises(SettingsError, match="give encoder or decoder"):
        run_experiment(
            labelled / "run", labelled / "data", tmp_path / "out",
            replace(experiment, recipe=recipe), CPU,
        )  # fmt: skip
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_workers_end_with_an_experiment_that_is_killed():
    code = """if True:
        import os, time
        from alps.trainer.experiment.run import _Workers
        with _Workers(2) as workers:
            began = workers.results([(os.getpid,)] * 8)
            print(*set(began), flush=True)
            list(workers.results([(time.sleep, 600)] * 2))
    """
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    workers = [Path("/proc") / pid for pid in parent.stdout.readline().split()]
    assert workers and all((worker / "cmdline").read_text() for worker in workers)
    parent.kill()
    parent.wait()
    until = time.monotonic() + 30
    while any(map(_lives, workers)):
        assert time.monotonic() < until, "a worker trains on"
        time.sleep(0.1)


def _lives(process):
    """Whether it still has a command line: one that nobody has asked after yet has none."""
    try:
        return (process / "cmdline").read_text() != ""
    except (FileNotFoundError, ProcessLookupError):
        return False
