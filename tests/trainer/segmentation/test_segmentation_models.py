"""Models by name, their checkpoints, new heads, and encoders that were taught elsewhere."""

import subprocess
import sys

import pytest
import teaching  # noqa: F401 (keeps transformers offline)
import torch
from transformers import ResNetConfig, ResNetForImageClassification, SegformerForImageClassification

from alps.engine.base.errors import ModelError, SettingsError
from alps.trainer.segmentation import models
from alps.trainer.segmentation.begin import begin
from alps.trainer.segmentation.models import (
    NAMES,
    build_config,
    build_model,
    class_names,
    encoder_of,
    logits,
    open_model,
    renew_head,
    save_model,
    start_from,
)
from alps.trainer.segmentation.recipe import ModelSettings, TrainSettings
from alps.trainer.segmentation.run import Recipe

CLASSES = ("road", "roof", "tree")


@pytest.fixture(scope="module")
def mini(tmp_path_factory):
    """A saved model."""
    folder = tmp_path_factory.mktemp("mini")
    save_model(build_model("segformer_mini", CLASSES, 0), folder)
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_every_name_has_a_config(name):
    config = build_config(name)
    inner = getattr(config, "backbone_config", None) or config
    assert len(inner.depths) == 4 and config.model_type in ("segformer", "upernet")


def test_sizes_are_those_of_the_papers():
    """SegFormer B0 has 3.8 million parameters, B1 13.7 (arXiv 2105.15203, table 1)."""
    for name, millions in (("segformer_b0", 3.7), ("segformer_b1", 13.7)):
        with torch.device("meta"):
            from transformers import AutoModelForSemanticSegmentation

            model = AutoModelForSemanticSegmentation.from_config(build_config(name))
        assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.1)


@pytest.mark.parametrize(
    ("name", "layers"),
    [("RESNET", "resnet50"), ("CONVNEXT", "convnext_tiny"), ("SWIN", "swin_tiny")],
)
def test_upernet_on_each_backbone(monkeypatch, name, layers):
    """Narrow ones: the widths and layers differ, the paths do not."""
    plain = models._upernet
    small = {
        "RESNET": (1, 1, 1, 1),
        "CONVNEXT": ((1, 1, 1, 1), (8, 16, 24, 32)),
        "SWIN": ((1, 1, 1, 1), (1, 2, 4, 8), 8),
    }[name]
    monkeypatch.setitem(getattr(models, name), layers, small)

    def narrow(backbone):
        if name == "RESNET":
            backbone.embedding_size, backbone.hidden_sizes = 8, [16, 24, 32, 40]
        config = plain(backbone)
        config.hidden_size = 16
        return config

    monkeypatch.setattr(models, "_upernet", narrow)
    model = build_model(f"upernet_{layers}", CLASSES, 0)
    pixels = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    found = logits(model.train(), pixels)
    assert found.shape == (2, 3, 64, 64)
    found.square().mean().backward()
    training = begin(model, TrainSettings(head_rate=10.0))
    assert set(training.rates) == {TrainSettings.rate, 10 * TrainSettings.rate}
    learns = [(key, value) for key, value in model.named_parameters() if value.requires_grad]
    assert not [key for key, value in learns if value.grad is None]  # processes would wait


def test_the_same_seed_gives_the_same_model(mini):
    again, other = (build_model("segformer_mini", CLASSES, seed) for seed in (0, 1))
    saved = open_model(mini).state_dict()
    assert all(torch.equal(value, saved[name]) for name, value in again.state_dict().items())
    assert not torch.equal(next(other.parameters()), next(again.parameters()))


def test_a_new_head_and_nothing_else(mini):
    model = start_from(str(mini), None, ("a", "b", "c", "d", "e"), 3, keep="decoder")
    assert class_names(model) == ("a", "b", "c", "d", "e")
    saved, ours = open_model(mini).state_dict(), model.state_dict()
    differ = {name for name in saved if not torch.equal(saved[name], ours[name])} if (
        saved.keys() == ours.keys()
    ) else set()  # fmt: skip
    assert differ == {"decode_head.classifier.weight", "decode_head.classifier.bias"}


def test_an_encoder_below_a_new_decoder(mini):
    saved = open_model(mini)
    model, again = (start_from(str(mini), None, ("x", "y"), 3, keep="encoder") for _ in "ab")
    ours, theirs = encoder_of(model).state_dict(), encoder_of(saved).state_dict()
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())
    fused, before = model.decode_head.linear_fuse.weight, saved.decode_head.linear_fuse.weight
    assert fused.shape == before.shape and not torch.equal(fused, before)
    assert torch.equal(fused, again.decode_head.linear_fuse.weight)
    assert class_names(model) == ("x", "y") and model.decode_head.classifier.out_channels == 2


def test_a_head_of_as_many_classes_is_new_too_unless_it_is_kept(mini):
    saved = open_model(mini).decode_head.classifier.weight
    new = start_from(str(mini), None, ("x", "y", "z"), 0, keep="decoder")
    kept = start_from(str(mini), None, ("x", "y", "z"), 0, keep="all")
    assert not torch.equal(new.decode_head.classifier.weight, saved)
    assert torch.equal(kept.decode_head.classifier.weight, saved)
    with pytest.raises(ModelError, match="cannot be kept"):
        start_from(str(mini), None, ("x", "y"), 0, keep="all")


def test_heads_follow_their_seed(mini):
    heads = []
    for seed in (1, 1, 2):
        model = open_model(mini)
        torch.rand(3)  # whatever was drawn before
        renew_head(model, 4, seed)
        heads.append(model.decode_head.classifier.weight)
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])


def test_an_encoder_taught_elsewhere_segformer(tmp_path):
    config = build_config("segformer_mini")
    taught = SegformerForImageClassification(config)
    taught.save_pretrained(tmp_path / "imagenet")
    model = start_from(str(tmp_path / "imagenet"), "segformer_mini", CLASSES, 0, keep="decoder")
    ours, theirs = encoder_of(model).state_dict(), taught.segformer.state_dict()
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())


def test_an_encoder_taught_elsewhere_resnet(tmp_path, monkeypatch):
    shape = {"embedding_size": 8, "hidden_sizes": [16, 24, 32, 40], "depths": [1, 1, 1, 1]}
    taught = ResNetForImageClassification(ResNetConfig(**shape))
    taught.save_pretrained(tmp_path / "imagenet")
    monkeypatch.setattr(
        models, "_backbone", lambda _: ResNetConfig(**shape, out_features=list(models.STAGES))
    )
    model = start_from(str(tmp_path / "imagenet"), "upernet_resnet50", CLASSES, 0, keep="decoder")
    ours, theirs = encoder_of(model).state_dict(), taught.resnet.state_dict()
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())
    with pytest.raises(ModelError, match="--model"):
        start_from(str(tmp_path / "imagenet"), None, CLASSES, 0, keep="decoder")


def test_what_cannot_be_a_start(mini, tmp_path):
    with pytest.raises(ModelError, match="cannot use the checkpoint"):
        start_from(str(tmp_path / "nothing"), None, CLASSES, 0, keep="decoder")
    with pytest.raises(ModelError, match="is no segformer_b0: its hidden_sizes"):
        start_from(str(mini), "segformer_b0", CLASSES, 0, keep="decoder")
    with pytest.raises(SettingsError, match="segformer_b5"):
        build_model("segformer_b9", CLASSES, 0)
    with pytest.raises(SettingsError, match="--keep all"):
        Recipe(model=ModelSettings(keep="all")).check()


@pytest.mark.slow
def test_no_torchvision():
    """In a process of its own: other tests put a stand-in of that name among the modules."""
    code = (
        "import sys, alps.trainer.segmentation.models, alps.trainer.segmentation.run\n"
        "import transformers; transformers.SegformerForSemanticSegmentation\n"
        "assert not {'torchvision', 'timm'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
