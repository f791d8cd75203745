"""Extras of setup.py: those of one CUDA fit together, and do not bring another."""

import os
import re
import subprocess

import pytest
from setup_table import run_setup

from alps.bench.proofs.extras import COMBINATIONS, Resolved, requirements_of, resolve
from alps.engine.base.errors import SettingsError


@pytest.fixture(scope="module")
def declared():
    """What the package's metadata says, of setup.py as it is now."""
    table = run_setup()
    extras = table["EXTRAS"].items()
    return [*table["REQUIRES"], *(f'{r}; extra == "{name}"' for name, own in extras for r in own)]


def test_requirements_of_extras(declared):
    plain = requirements_of([], declared)
    assert any(line.startswith("torch>=") for line in plain)
    more = requirements_of(["cuda13"], declared)
    assert more[: len(plain)] == plain and "numba-cuda[cu13]>=0.20,<1" in more
    with pytest.raises(SettingsError, match="no extra 'cuda11' is known"):
        requirements_of(["cuda11"], declared)


def test_no_extra_of_one_cuda_asks_for_another(declared):
    names = {match[1] for line in declared if (match := re.search(r'extra == "([\w-]+)"', line))}
    of_cuda = {
        name: number for name in names for number in re.findall(r"(?:cu|cuda)(1[23])$", name)
    }
    assert len(of_cuda) == 8
    plain = requirements_of([], declared)
    for name, number in of_cuda.items():
        other = {"12": "13", "13": "12"}[number]
        own = " ".join(set(requirements_of([name], declared)) - set(plain))
        assert f"cu{other}" not in own and f"cuda{other}" not in own, name
    # From 1.27 on the index has ONNX Runtime for CUDA 13 alone.
    assert "onnxruntime-gpu[cuda,cudnn]>=1.21,<1.27" in requirements_of(["onnx-gpu-cu12"], declared)
    assert "onnxruntime-gpu[cuda,cudnn]>=1.27,<2" in requirements_of(["onnx-gpu-cu13"], declared)


def test_cudas_of_what_was_resolved():
    assert Resolved({"cupy-cuda12x": "14", "nvidia-cudnn-cu12": "9"}).cudas == {"12"}
    assert Resolved({"cupy-cuda12x": "14", "nvidia-cuda-runtime": "13.5"}).cudas == {"12", "13"}
    assert Resolved({"numba": "0.64"}).cudas == set()


def test_what_pip_cannot_answer_is_told(monkeypatch):
    failed = subprocess.CompletedProcess([], 1, "", "WARNING: slow\nERROR: no matching one\n")
    monkeypatch.setattr("subprocess.run", lambda *_, **__: failed)
    assert resolve(["x"]) == Resolved({}, "ERROR: no matching one")

    def late(*_, **named):
        raise subprocess.TimeoutExpired("pip", named["timeout"])

    monkeypatch.setattr("subprocess.run", late)
    assert resolve(["x"], 3) == Resolved({}, "no answer in 3 s")


@pytest.mark.slow
@pytest.mark.skipif(
    "ALPS_TEST_INDEX" not in os.environ,
    reason="asks a package index for minutes; set ALPS_TEST_INDEX=1 to let it",
)
@pytest.mark.parametrize("extras", COMBINATIONS, ids=lambda extras: extras[0])
def test_extras_of_one_cuda_fit_together(extras, declared):
    found = resolve(requirements_of(extras, declared))
    if "connection" in found.error.lower() or "no answer" in found.error:
        pytest.skip(f"no package index: {found.error}")
    assert found.error == "" and len(found.cudas) == 1, found
