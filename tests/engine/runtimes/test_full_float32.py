"""Switches of TF32, however the caller has set them: off inside, and as they were after."""

import threading

import pytest
import torch
from torch import backends

from alps.engine.models.checkpoints import load_sam
from alps.engine.runtimes.full_float32 import full_float32
from alps.engine.runtimes.pytorch import TorchRuntime


def new(name, value):
    *path, last = name.split(".")
    place = backends
    for part in path:
        place = getattr(place, part)
    return lambda: setattr(place, last, value)


CALLERS = {
    "nothing": lambda: None,
    "all, new": new("fp32_precision", "tf32"),
    "all exact, new": new("fp32_precision", "ieee"),
    "cuda, new": new("cudnn.fp32_precision", "tf32"),
    "products, new": new("cuda.matmul.fp32_precision", "tf32"),
    "convolutions, new": new("cudnn.conv.fp32_precision", "ieee"),
    "products, old": new("cuda.matmul.allow_tf32", True),
    "convolutions, old": new("cudnn.allow_tf32", False),
    "precision of products, old": lambda: torch.set_float32_matmul_precision("medium"),
}
SWITCHES = {
    "all": ("generic", "all"),
    "cuda": ("cuda", "all"),
    "products": ("cuda", "matmul"),
    "convolutions": ("cuda", "conv"),
    "recurrent": ("cuda", "rnn"),
}


def told(read):
    try:
        return read()
    except RuntimeError:  # of names old and new that contradict each other
        return "mixed"


def switches():
    found = {name: torch._C._get_fp32_precision_getter(*place) for name, place in SWITCHES.items()}
    found["products, old"] = told(lambda: backends.cuda.matmul.allow_tf32)
    found["convolutions, old"] = told(lambda: backends.cudnn.allow_tf32)
    found["precision, old"] = told(torch.get_float32_matmul_precision)
    return found


@pytest.fixture(autouse=True)
def as_pytorch_starts():
    yield
    backends.cudnn.allow_tf32 = True
    torch.set_float32_matmul_precision("highest")
    for name, place in SWITCHES.items():
        value = "tf32" if name in ("convolutions", "recurrent") else "none"
        torch._C._set_fp32_precision_setter(*place, value)


def exact():
    found = switches()
    return found["products"] == found["convolutions"] == "ieee"


@pytest.mark.parametrize("caller", CALLERS)
def test_both_switches_are_off_inside_and_as_before_after(caller):
    CALLERS[caller]()
    before = switches()
    with full_float32():
        assert exact()
        with full_float32():
            assert exact()
        assert exact()
    assert switches() == before
    with pytest.raises(KeyError), full_float32():
        raise KeyError
    assert switches() == before


@pytest.mark.parametrize("caller", CALLERS)
def test_what_the_caller_sets_later_holds_as_it_would_have(caller):
    CALLERS[caller]()
    CALLERS["all exact, new"]()
    expected = switches()
    backends.fp32_precision = "none"
    as_was = switches()
    with full_float32():
        pass
    assert switches() == as_was
    CALLERS["all exact, new"]()
    assert switches() == expected


def test_threads_that_overlap_neither_end_it_early_nor_keep_it():
    CALLERS["all, new"]()
    before = switches()
    entered, leave, second = threading.Event(), threading.Event(), []

    def first():
        with full_float32():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=first)
    thread.start()
    entered.wait(10)
    with full_float32():
        leave.set()
        thread.join(10)
        second.append(exact())
    assert second == [True] and switches() == before


@pytest.mark.parametrize("caller", CALLERS)
def test_the_network_in_float32_is_computed_in_here_on_a_gpu(caller, speck, monkeypatch):
    sam, _ = load_sam(speck)
    runtime = TorchRuntime(sam)
    CALLERS[caller]()
    before = switches()
    monkeypatch.setattr(type(sam), "device", torch.device("cuda"))  # there need be none
    with runtime._autocast("fp32"):
        assert exact()
    assert switches() == before
