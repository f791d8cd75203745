"""All CUDA kernels go through the compiler that a GPU's machine has, which needs no GPU."""

import json
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

# Shares of cells, sums of k-means, and a comparison that Numba widens.
DOUBLE = {"pool._add_down", "nms._compare", "kmeans._pass", "kmeans._reduce"}
COMPILE = Path(__file__).with_name("compile_for_gpu.py")


@pytest.fixture(scope="module")
def instructions():
    """Of each kernel, how often it has each."""
    for name in ("numba-cuda", "nvidia-nvvm", "nvidia-cuda-nvrtc"):
        try:
            version(name)
        except PackageNotFoundError:
            pytest.skip(f"needs {name}")
    environment = {n: v for n, v in os.environ.items() if n != "NUMBA_ENABLE_CUDASIM"}
    done = subprocess.run(
        [sys.executable, COMPILE, "9.0"], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_products_are_rounded_before_they_are_added(instructions):
    """As on a CPU: only ``fma`` with zero is a product, and no other was made of one and a sum."""
    for name in ("upscale._measure", "upscale._write", "nms._compare"):
        own = instructions[name]
        assert own["fma.rn.f32"] > 0, name
        assert not own.get("mul.f32"), name
        assert own["add.f32"] + own.get("sub.f32", 0) > 0, name


@pytest.mark.slow
def test_no_double_precision_where_a_gpu_has_little(instructions):
    for name, own in instructions.items():
        doubles = sum(count for kind, count in own.items() if kind.endswith(".f64"))
        assert doubles == 0 or name in DOUBLE, (name, doubles)


@pytest.mark.slow
def test_divisions_are_those_of_a_cpu(instructions):
    assert instructions["nms._compare"]["div.rn.f32"] > 0
    assert not any(kind.startswith("div.full") for kind in instructions["nms._compare"])


@pytest.mark.slow
def test_all_fits_into_registers(instructions):
    if "spilled bytes" not in instructions["upscale._measure"]:
        pytest.skip("needs Triton's assembler")
    assert {name: own["spilled bytes"] for name, own in instructions.items()} == dict.fromkeys(
        instructions, 0
    )
