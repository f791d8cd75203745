"""Several targets of one pre-training: what each loss is; the last layer is cut to size."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from teaching import CPU, QUICK, SHORT, checkpoint, dies_after, differences
from torch.nn import functional as F

from alps.engine.base.errors import SettingsError
from alps.trainer.data.loader import Batch
from alps.trainer.data.samples import objects_at, vectors_at
from alps.trainer.data.settings import PseudoSettings, check_pseudo
from alps.trainer.segmentation.models import build_model, coarse_logits, narrowed, widen_head
from alps.trainer.segmentation.run import pretrain
from alps.trainer.segmentation.targets import Classes, Masks, Vectors, inside_of, losses, totals

ALL = PseudoSettings("classes,masks,vectors")


@pytest.fixture
def batch():
    random = torch.Generator().manual_seed(0)
    labels = torch.randint(-1, 3, (2, 16, 16), generator=random)
    regions = torch.randint(-1, 3, (2, 4, 4), generator=random)
    regions = regions.repeat_interleave(4, 1).repeat_interleave(4, 2)
    vectors = torch.randn(2, 5, 4, 4, generator=random)
    vectors[:, :, 1, 2] = 0  # in no region
    weights = torch.rand(2, 16, 16, generator=random)
    return Batch(torch.zeros(2, 3, 16, 16, dtype=torch.uint8), labels, weights, regions, vectors)


def test_each_target_has_its_channels_and_its_mean(batch):
    targets = [Classes(torch.tensor([1.0, 2.0, 0.5])), Masks(), Vectors(5)]
    found = torch.randn(2, 10, 4, 4, generator=torch.Generator().manual_seed(1))
    weights, whole = totals(targets, batch)
    sums = losses(targets, found, batch, weights)
    inside = inside_of(batch.objects)
    large = F.interpolate(found, size=(16, 16), mode="bilinear")
    expected = [0.0, 0.0, 0.0]
    counted = [0.0, 0.0, 0.0]
    for image in range(2):
        for y in range(16):
            for x in range(16):
                weight, label = batch.weights[image, y, x], batch.labels[image, y, x]
                if label >= 0:
                    own = weight * targets[0].of_class[label]
                    chances = large[image, :3, y, x].softmax(0)
                    expected[0] -= float(own * chances[label].log())
                    counted[0] += float(own)
                if (edge := inside[image, y, x]) >= 0:
                    expected[1] -= float(weight * large[image, 3:5, y, x].softmax(0)[edge].log())
                    counted[1] += float(weight)
        for y in range(4):
            for x in range(4):
                own, wanted = found[image, 5:, y, x], batch.vectors[image, :, y, x]
                if (y, x) != (1, 2):
                    weight = batch.weights[image, 4 * y + 2, 4 * x + 2]
                    cosine = own @ wanted / own.norm() / wanted.norm()
                    expected[2] += float(weight * (1 - cosine))
                    counted[2] += float(weight)
    np.testing.assert_allclose(sums.numpy(), expected, rtol=1e-4)
    np.testing.assert_allclose(whole.numpy(), counted, rtol=1e-5)


def test_regions_of_a_crop():
    numbers = np.full((8, 8), 3)
    numbers[:, 5:] = 1
    numbers[7] = -1
    expected = np.ones((8, 8), np.int64)
    expected[:, 4:6] = expected[6] = 0
    expected[7] = -1
    assert (inside_of(torch.from_numpy(numbers)[None])[0].numpy() == expected).all()
    vectors = np.arange(8, dtype=np.float16).reshape(4, 2)
    shown = vectors_at(numbers, vectors)  # looked up at rows and columns 2 and 6
    assert (shown == [[[6, 7], [2, 3]], [[6, 7], [2, 3]]]).all()
    assert (vectors_at(np.full((8, 8), -1), vectors) == 0).all()
    objects = objects_at(numbers, np.array([5, -1, 6, 7], np.int32))
    assert objects.dtype == np.int64
    assert (objects[:7, :5] == 7).all()
    assert (objects[:7, 5:] == -1).all() and (objects[7] == -1).all()
    assert (objects_at(np.full((8, 8), -1), np.empty(0, np.int32)) == -1).all()


def test_a_wider_layer_answers_as_before_and_is_cut_off_again():
    model = build_model("segformer_mini", ("a", "b", "c"), 0).eval()
    pixels = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    before = coarse_logits(model, pixels)
    widen_head(model, 4, 7)
    wide = coarse_logits(model, pixels)
    assert wide.shape[1] == 7
    torch.testing.assert_close(wide[:, :3], before)
    cut = narrowed(model, 3)
    torch.testing.assert_close(coarse_logits(cut, pixels), before)
    assert model.decode_head.classifier.out_channels == 7 and narrowed(cut, 3) is cut


@pytest.mark.parametrize("wrong", ["magic", "classes,classes", "vectors", "classes,shuffled", ""])
def test_targets_that_are_none(wrong):
    with pytest.raises(SettingsError, match="--targets"):
        check_pseudo(PseudoSettings(wrong))


@pytest.mark.usefixtures("one_thread")
def test_learnt_together_killed_and_gone_on_with(run, tmp_path):
    train = replace(QUICK, steps=4)
    settings = replace(SHORT, train=train, pseudo=ALL)
    result = pretrain(run, tmp_path / "whole", settings, replace(CPU, log_every=1))
    lines = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").open()]
    for line in lines:
        parts = [line[f"loss_{name}"] for name in ("classes", "masks", "vectors")]
        assert line["loss"] == pytest.approx(sum(parts)) and min(parts) > 0
    kept = checkpoint(tmp_path / "whole")["model"]
    assert len(kept["decode_head.classifier.weight"]) > 3 + 2 + 3
    assert result.scores is None
    config = json.loads((result.model / "config.json").read_text())
    assert len(config["id2label"]) == 3

    often = replace(CPU, checkpoint_every=2)
    with pytest.raises(KeyboardInterrupt), dies_after(2):
        pretrain(run, tmp_path / "killed", settings, often)
    pretrain(run, tmp_path / "killed", settings, often)
    assert not differences(checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "killed"))


def test_vectors_are_made_where_they_are_not_there(run, tmp_path):
    copied = shutil.copytree(run, tmp_path / "run")
    before = {path.name: path.read_bytes() for path in (copied / "vectors").iterdir()}
    shutil.rmtree(copied / "vectors")
    settings = replace(SHORT, train=replace(QUICK, steps=0), pseudo=ALL)
    pretrain(copied, tmp_path / "out", settings, CPU)
    assert {path.name: path.read_bytes() for path in (copied / "vectors").iterdir()} == before
