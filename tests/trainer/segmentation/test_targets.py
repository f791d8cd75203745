"""Several targets of one pre-training: what each loss is; the last layer is cut to size."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from teaching import CPU, QUICK, SHORT, checkpoint, differences
from torch.nn import functional as F

from alps.engine.base.errors import SettingsError
from alps.engine.settings import ClusterSettings, RunSettings
from alps.engine.stages.label import RunOptions as LabelOptions
from alps.engine.stages.label import label_archive
from alps.trainer.data.loader import Batch
from alps.trainer.data.samples import inside_of, vectors_at
from alps.trainer.data.settings import PseudoSettings, check_pseudo
from alps.trainer.loop.state import State
from alps.trainer.segmentation.models import build_model, coarse_logits, narrowed, widen_head
from alps.trainer.segmentation.run import pretrain
from alps.trainer.segmentation.targets import Classes, Masks, Vectors, losses, totals

ALL = PseudoSettings("classes,masks,vectors")


@pytest.fixture
def batch():
    random = torch.Generator().manual_seed(0)
    labels = torch.randint(-1, 3, (2, 16, 16), generator=random)
    inside = torch.randint(-1, 2, (2, 16, 16), generator=random)
    vectors = torch.randn(2, 5, 4, 4, generator=random)
    vectors[:, :, 1, 2] = 0  # in no region
    weights = torch.rand(2, 16, 16, generator=random)
    return Batch(torch.zeros(2, 3, 16, 16, dtype=torch.uint8), labels, weights, inside, vectors)


def test_each_target_has_its_channels_and_its_mean(batch):
    targets = [Classes(torch.tensor([1.0, 2.0, 0.5])), Masks(), Vectors(5)]
    found = torch.randn(2, 10, 4, 4, generator=torch.Generator().manual_seed(1))
    weights, whole = totals(targets, batch)
    sums = losses(targets, found, batch, weights)
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
                if (edge := batch.inside[image, y, x]) >= 0:
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
    numbers = np.full((8, 8), 3, np.int32)
    numbers[:, 5:] = 1
    numbers[7] = -1
    expected = np.ones((8, 8), np.int64)
    expected[:, 4:6] = expected[6] = 0
    expected[7] = -1
    assert (inside_of(numbers) == expected).all()
    vectors = np.arange(8, dtype=np.float16).reshape(4, 2)
    shown = vectors_at(numbers, vectors)  # looked up at rows and columns 2 and 6
    assert (shown == [[[6, 7], [2, 3]], [[6, 7], [2, 3]]]).all()
    assert (vectors_at(np.full((8, 8), -1, np.int32), vectors) == 0).all()


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


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder of a random model, of two images of blocks."""
    from speck import save_speck
    from teaching import save_image

    root = tmp_path_factory.mktemp("targets")
    random = np.random.default_rng(0)
    (root / "images").mkdir()
    for name in "ab":
        blocks = random.integers(0, 256, (6, 6, 3)).repeat(16, 0).repeat(16, 1)
        save_image(root / "images" / f"{name}.png", blocks)
    settings = RunSettings(cluster=ClusterSettings(clusters=3))
    options = LabelOptions(str(save_speck(root / "speck.safetensors")), "cpu", 1.0)
    label_archive(root / "images", root / "run", settings, options)
    return root / "run"


@pytest.mark.usefixtures("one_thread")
def test_learnt_together_killed_and_gone_on_with(run, tmp_path, monkeypatch):
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

    real = State.save

    def dies(self, path):
        real(self, path)
        if self.step == 2:
            raise KeyboardInterrupt

    often = replace(CPU, checkpoint_every=2)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(State, "save", dies)
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
