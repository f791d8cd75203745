"""A model and its measures on a simulated Apple GPU: no float64, nothing left on the CPU."""

from dataclasses import replace

import pytest
import teaching
import torch
from predicting import blobs, make_model
from simulated_mps import simulated_mps
from teaching import CPU, QUICK, SHORT, checkpoint, differences

from alps.engine.base.errors import SettingsError
from alps.trainer.data.loader import Batch
from alps.trainer.loop.state import State
from alps.trainer.numerics import choose_precision
from alps.trainer.predict.model import open_for_predicting
from alps.trainer.processes import joined
from alps.trainer.segmentation.blend import hann, probabilities
from alps.trainer.segmentation.run import finetune

MPS = torch.device("mps")
pytestmark = pytest.mark.usefixtures("one_thread")


def test_it_predicts_what_the_cpu_does(tmp_path):
    folder = make_model(tmp_path / "model")
    patches = [blobs(1, (32, 32)), blobs(2, (32, 20))]

    def found(device):
        predictor = open_for_predicting(folder).on(device, "auto")
        assert predictor.device.type == device
        with torch.inference_mode():
            values = probabilities(predictor.model, patches, 32, predictor.autocast)
            return (values * hann(32, predictor.device)).cpu()

    with simulated_mps():
        there = found("mps")
    assert torch.allclose(there, found("cpu"), atol=1e-5) and there.std() > 0.05


@pytest.fixture
def made_up_gradients(monkeypatch):
    """A build without the device cannot go backward on it: gradients made up stand in for real."""
    real = State.clip

    def clip(self, most, *, by_group):
        for number, parameter in enumerate(self.model.parameters()):
            parameter.grad = torch.full_like(parameter, 0.01 * (number % 3 - 1))
        return real(self, most, by_group=by_group)

    monkeypatch.setattr(State, "clip", clip)
    monkeypatch.setattr(torch.Tensor, "backward", lambda loss: None)
    with torch.no_grad():
        yield


@pytest.mark.slow
def test_a_training_killed_and_resumed_learns_what_the_cpu_does(made_up_gradients, tmp_path):
    data = teaching.save_data(tmp_path / "data", size=(40, 40))
    train = replace(QUICK, ema=0.9, steps=2, batch=2, class_weights="root")
    recipe = replace(SHORT, train=train)
    options = replace(CPU, workers=1, checkpoint_every=1)
    there = replace(options, device="mps")
    expected = finetune(data, tmp_path / "cpu", recipe, options)
    with simulated_mps():
        with teaching.dies_after(1), pytest.raises(KeyboardInterrupt):
            finetune(data, tmp_path / "mps", recipe, there)
        found = finetune(data, tmp_path / "mps", recipe, there)
    assert not differences(checkpoint(tmp_path / "cpu"), checkpoint(tmp_path / "mps"))
    assert found.scores == expected.scores


def test_batches_go_there_without_pinned_memory():
    batch = Batch(torch.zeros(1, 3, 4, 4, dtype=torch.uint8), torch.zeros(1, 4, 4), torch.ones(1))
    with simulated_mps():
        there = batch.to(MPS)
        parts = (there.pixels, there.labels, there.weights)
        assert {part.device.type for part in parts} == {"mps"}


def test_precision_and_processes(monkeypatch):
    assert choose_precision(MPS, "auto") == "float32"
    assert choose_precision(MPS, "bfloat16") == "bfloat16"
    monkeypatch.setenv("WORLD_SIZE", "2")
    with simulated_mps(), pytest.raises(SettingsError, match="2 processes cannot share it"):
        joined("mps", 4).__enter__()
