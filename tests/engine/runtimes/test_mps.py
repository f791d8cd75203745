"""An Apple GPU through PyTorch, simulated: what lies there, comes back, and is refused."""

import types

import numpy as np
import pytest
import torch
from simulated_mps import OnMps, simulated_mps

from alps.engine.base.device import choose_device, gpus_named, sum_type
from alps.engine.base.errors import SettingsError
from alps.engine.demo.scenes import SceneSettings, make_scene
from alps.engine.masks.generator import MaskGenerator
from alps.engine.models.load import load_model
from alps.engine.runtimes.pytorch import TorchRuntime
from alps.engine.stages.opening import RunOptions
from alps.engine.stages.tiles.crew import crew_for
from alps.engine.workers.protocol import Alone

MPS = torch.device("mps")
SETTINGS = {
    "points_per_side": 4,
    "pred_iou_thresh": -9.0,
    "stability_score_thresh": 0.0,
    "box_nms_thresh": 1.0,
}

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_simulation_refuses_what_the_device_does():
    with simulated_mps():
        there = torch.ones(3).to(MPS)
        assert isinstance(there, OnMps) and there.device.type == "mps"
        with pytest.raises(TypeError, match="float64"):
            there.double()
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()
        with pytest.raises(RuntimeError, match="one device"):
            there + torch.ones(3)
        assert (there + 1).cpu().numpy().tolist() == [2, 2, 2]


def test_masks_are_those_of_the_cpu(speck):
    image = make_scene(1, SceneSettings(size=160)).image
    on_cpu = TorchRuntime(load_model(str(speck), "cpu")[0], decoder="absorbed")
    wanted = MaskGenerator(on_cpu, **SETTINGS).generate(image)
    with simulated_mps():
        runtime = TorchRuntime(load_model(str(speck), "mps")[0])
        assert runtime.sam.device.type == "mps" and runtime.capacity.points > 1
        found = MaskGenerator(runtime, **SETTINGS).generate(image)
    assert len(found) == len(wanted) > 5
    for one, other in zip(found, wanted, strict=True):
        assert one["predicted_iou"] == pytest.approx(other["predicted_iou"], abs=1e-4)
        assert np.mean(one["segmentation"] != other["segmentation"]) < 0.01


def test_one_process_uses_it(tmp_path):
    folder = types.SimpleNamespace(root=tmp_path, journal=tmp_path)
    with simulated_mps():
        assert choose_device("mps") == MPS and gpus_named("mps") == []
        with crew_for(folder, RunOptions(device="mps")) as (crew, here):
            assert isinstance(crew, Alone) and (here.device, here.workers) == ("mps", 1)
        with (
            pytest.raises(SettingsError, match="--workers 2: one process uses --device mps; give"),
            crew_for(folder, RunOptions(device="mps", workers=2)),
        ):
            pass


def test_a_machine_without_one_says_so():
    for named in (choose_device, gpus_named):
        with pytest.raises(SettingsError, match="--device mps: PyTorch sees no Apple GPU here"):
            named("mps")


def test_auto_does_not_take_it(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with simulated_mps():
        assert choose_device("auto").type == "cpu"


def test_long_sums_are_as_wide_as_the_device_can():
    assert sum_type(MPS) == torch.float32 and sum_type(torch.device("cpu")) == torch.float64
