"""Students with MobileSAM's encoder, and of MobileSAM."""

from dataclasses import replace

import distilling
import pytest
import speck
import torch
from small_mobile_sam import SMALL_T, with_counted_weights

from alps.engine.base.errors import SettingsError
from alps.engine.models.checkpoints import load_network, save_sam
from alps.engine.sam.config import MobileSamConfig
from alps.engine.sam.model import MobileSam, Sam
from alps.engine.sam.tiny_vit import NormedConv
from alps.trainer.distill import student as students
from alps.trainer.distill.distill import DistillOptions, distill
from alps.trainer.distill.folder import DistillFolder
from alps.trainer.distill.lesson import Training
from alps.trainer.distill.recipe import (
    AgreementSettings,
    DistillSettings,
    StudentSettings,
    TrainSettings,
)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

FLOAT = TrainSettings(steps=8, batch=4, rate=2e-3, precision="float32", hold_out=0.2)
SHORT = DistillSettings(train=FLOAT, agreement=AgreementSettings(agreement_windows=2))
MOBILE = replace(SHORT, student=StudentSettings(student="mobile"))
SHAPE = MobileSamConfig(
    stage_widths=(8, 16, 16, 16),
    stage_blocks=(1, 1, 1, 1),
    stage_heads=(2, 2, 2, 2),
    window_sizes=(7, 5, 4, 3),
)
CPU = DistillOptions("cpu", checkpoint_every=4)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return distilling.save_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """Large beside a student of SHAPE."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speck, "CONFIG", distilling.PLAIN)
        return str(speck.save_speck(tmp_path_factory.mktemp("teacher") / "large.safetensors"))


@pytest.fixture(autouse=True)
def small_shape(monkeypatch):
    monkeypatch.setattr(students, "MOBILE_SHAPE", SHAPE)


def state(path):
    network, _ = load_network(path)
    return network.state_dict()


def test_a_student_with_mobile_sams_encoder_learns_and_is_resumed(
    images, teacher, tmp_path, monkeypatch
):
    result = distill(images, tmp_path / "whole", teacher, MOBILE, CPU)
    network, info = load_network(result.student)
    assert isinstance(network, MobileSam) and info.config.stage_widths == SHAPE.stage_widths
    assert result.start == "random weights, the teacher's neck where it fits"
    assert result.encoder_parameters[1] < result.encoder_parameters[0]
    # Measured on the first windows: not what norms begin with.
    norms = [part.bn for part in network.modules() if isinstance(part, NormedConv)]
    assert all(not torch.equal(n.running_var, torch.ones_like(n.running_var)) for n in norms)

    def save_and_stop(training, path):
        kept(training, path)
        raise KeyboardInterrupt

    kept = Training.save
    with monkeypatch.context() as patch:
        patch.setattr(Training, "save", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            distill(images, tmp_path / "cut", teacher, MOBILE, CPU)
    again = distill(images, tmp_path / "cut", teacher, MOBILE, CPU)
    whole, cut = state(result.student), state(again.student)
    assert again.steps == 8 and all(torch.equal(t, cut[name]) for name, t in whole.items())

    longer = replace(MOBILE, train=replace(FLOAT, steps=40, rate=3e-3))
    taught = distill(images, tmp_path / "taught", teacher, longer, CPU)
    losses = [line["loss"] for line in DistillFolder(tmp_path / "taught").log_lines()]
    assert sum(losses[-5:]) / 5 < 0.9 * losses[0]
    begun = replace(SHORT, student=StudentSettings(init=str(taught.student)))
    assert "large-mobile" in distill(images, tmp_path / "from", teacher, begun, CPU).start


def test_mobile_sam_teaches_a_vit(images, tmp_path):
    small = with_counted_weights(replace(SMALL_T, image_size=128))
    save_sam(small, tmp_path / "t.safetensors", speck.DEFAULTS, dtype=torch.float32)
    teacher = str(tmp_path / "t.safetensors")
    narrow = replace(SHORT, student=StudentSettings(student="tiny", width=16, heads=2, depth=1))
    result = distill(images, tmp_path / "out", teacher, narrow, CPU)
    network, info = load_network(result.student)
    assert isinstance(network, Sam) and info.config.embedding_channels == 32
    assert 0 < result.agreement.cosine <= 1
    with pytest.raises(SettingsError, match=r"--student half: the teacher is no ViT"):
        distill(images, tmp_path / "half", teacher, SHORT, CPU)
    with pytest.raises(SettingsError, match=r"--student mobile brings .* leave out --width"):
        asked = replace(SHORT, student=StudentSettings(student="mobile", width=16))
        distill(images, tmp_path / "half", teacher, asked, CPU)
