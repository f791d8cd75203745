"""A model and its measures on a simulated Apple GPU: no float64, nothing left on the CPU."""

import pytest
import torch
from predicting import blobs, make_model
from simulated_mps import simulated_mps

from alps.engine.base.errors import SettingsError
from alps.trainer.data.loader import Batch
from alps.trainer.numerics import choose_precision
from alps.trainer.predict.model import open_for_predicting
from alps.trainer.processes import joined
from alps.trainer.segmentation.blend import hann, probabilities

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
