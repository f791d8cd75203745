"""What --device names."""

import sys
import threading

import pytest
import torch

from alps.engine.base.device import gpus_named, on_one_thread, require_gpu_kernels
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


def test_a_gpu_without_the_kernels_package_is_refused_with_what_to_install(monkeypatch):
    for device in ("cpu", "cuda"):
        require_gpu_kernels(torch.device(device))  # which is installed here
    monkeypatch.delitem(sys.modules, "alps.kernels.base.numba_cuda")
    monkeypatch.setitem(sys.modules, "numba.cuda", None)
    with pytest.raises(SettingsError, match=r"--device cuda:1: .*\[cuda12\].*\[cuda13\].* cpu$"):
        require_gpu_kernels(torch.device("cuda:1"))
    require_gpu_kernels(torch.device("cpu"))


def test_a_thread_is_told_for_good():
    """Another thread sets another number before this one computes anything."""
    told, go, found = threading.Event(), threading.Event(), []

    def compute():
        on_one_thread()
        told.set()
        go.wait(60)
        torch.ones(300, 300) @ torch.ones(300, 300)
        found.append(torch.get_num_threads())

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        thread = threading.Thread(target=compute)
        thread.start()
        assert told.wait(60)
        torch.set_num_threads(2)
        go.set()
        thread.join()
        assert on_one_thread() == 2 and torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    assert found == [1]
