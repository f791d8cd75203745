"""What --device names."""

import pytest

from alps.engine.base.device import gpus_named
from alps.engine.base.errors import SettingsError


@pytest.fixture
def four_gpus(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)


@pytest.mark.usefixtures("four_gpus")
def test_gpus_of_a_name():
    assert gpus_named("cpu") == []
    assert gpus_named("auto") == [0]
    assert gpus_named("cuda") == [0, 1, 2, 3]
    assert gpus_named("cuda:2") == [2]
    assert gpus_named("cuda:3,0") == [3, 0]


@pytest.mark.usefixtures("four_gpus")
@pytest.mark.parametrize("name", ["cuda:4", "cuda:0,9", "cuda:1,1", "cuda:", "cuda:0,", "gpu"])
def test_names_of_nothing(name):
    with pytest.raises(SettingsError, match=f"--device {name}:"):
        gpus_named(name)


def test_without_a_gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert gpus_named("auto") == gpus_named("cpu") == []
    with pytest.raises(SettingsError, match=r"sees 0 GPU\(s\)"):
        gpus_named("cuda")
