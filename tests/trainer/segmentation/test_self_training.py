"""Self-training: labels by a vote in each region, what the model sees, killed and resumed."""

import json
from dataclasses import replace

import numpy as np
import pytest
import teaching
import torch
from teaching import CPU, QUICK, SHORT, checkpoint, dies_after, differences

from alps.engine.base.errors import SettingsError
from alps.trainer.segmentation.recipe import SelfTrainingSettings
from alps.trainer.segmentation.run import finetune
from alps.trainer.segmentation.self_training import recoloured, voted


def test_a_region_has_the_class_of_its_mean():
    random = torch.Generator().manual_seed(0)
    chances = torch.randn(2, 3, 12, 12, generator=random).mul(2).softmax(dim=1)
    regions = torch.randint(-1, 4, (2, 12, 12), generator=random)
    found = voted(chances, regions, confidence=0.37)
    for image in range(2):
        for number in range(4):
            inside = regions[image] == number
            mean = chances[image][:, inside].mean(dim=1)
            wanted = mean.argmax() if mean.max() >= 0.37 else -1
            assert (found[image][inside] == wanted).all()
    assert (found[regions < 0] == -1).all()
    assert (found >= 0).any() and (found[regions >= 0] == -1).any()
    assert (voted(chances, torch.full((2, 12, 12), -1), 0.0) == -1).all()


def test_colours_change_within_their_limits_and_by_the_seed_alone():
    pixels = torch.randint(0, 256, (4, 3, 8, 8), generator=torch.Generator().manual_seed(1))
    pixels = pixels.to(torch.uint8)
    assert (recoloured(pixels, 0.0, torch.Generator().manual_seed(2)) == pixels).all()
    one, same = (recoloured(pixels, 0.5, torch.Generator().manual_seed(2)) for _ in range(2))
    assert (one == same).all()
    assert ((one != pixels).flatten(1).float().mean(1) > 0.5).all()
    # A grey image has no saturation to change: its mean is multiplied by 0.5 to 1.5.
    grey = torch.full((64, 3, 2, 2), 100, dtype=torch.uint8)
    means = recoloured(grey, 0.5, torch.Generator().manual_seed(3)).float().mean(dim=(1, 2, 3))
    assert 50 <= means.min() < 60 and 140 < means.max() <= 150


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return teaching.save_data(tmp_path_factory.mktemp("data"))


def asked(run, **more):
    settings = SelfTrainingSettings(str(run), confidence=0.34, unlabelled_from=0.5, **more)
    return replace(SHORT, train=replace(QUICK, steps=4), self_training=settings)


@pytest.mark.usefixtures("one_thread")
def test_killed_and_gone_on_with(data, run, tmp_path):
    finetune(data, tmp_path / "whole", asked(run), CPU)
    lines = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").open()]
    assert ["loss_unlabelled" in line for line in lines if "loss" in line] == [0, 0, 1, 1]
    assert lines[-1]["loss"] == pytest.approx(
        lines[-1]["loss_classes"] + lines[-1]["loss_unlabelled"]
    )
    kept = checkpoint(tmp_path / "whole")
    assert kept["averaged"] is not None  # the teacher, though no average was asked for
    for step in (1, 3):
        out = tmp_path / f"killed{step}"
        often = replace(CPU, checkpoint_every=step)
        with pytest.raises(KeyboardInterrupt), dies_after(step):
            finetune(data, out, asked(run), often)
        finetune(data, out, asked(run), often)
        assert not differences(kept, checkpoint(out))


@pytest.mark.usefixtures("one_thread")
def test_its_weight_counts(data, run, tmp_path):
    finetune(data, tmp_path / "none", replace(SHORT, train=replace(QUICK, steps=4, ema=0.99)), CPU)
    finetune(data, tmp_path / "zero", asked(run, unlabelled_weight=0.0), CPU)
    finetune(data, tmp_path / "one", asked(run), CPU)
    kept = [checkpoint(tmp_path / name) for name in ("none", "zero", "one")]
    weights = [one["model"]["decode_head.classifier.weight"] for one in kept]
    np.testing.assert_allclose(weights[0], weights[1], atol=1e-6)
    assert (weights[2] - weights[0]).abs().max() > 1e-4


def test_what_cannot_work(data, run, tmp_path):
    with pytest.raises(SettingsError, match="--confidence"):
        finetune(data, tmp_path / "a", replace(
            SHORT, self_training=SelfTrainingSettings(str(run), confidence=2)), CPU)  # fmt: skip
