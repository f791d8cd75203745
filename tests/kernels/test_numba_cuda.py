"""A machine with a GPU and without the package of the CUDA kernels: what is said, and when."""

import os
import subprocess
import sys

import pytest

WITHOUT = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name == "numba.cuda" or name.startswith("numba.cuda."):
            raise ModuleNotFoundError("No module named 'numba.cuda'", name="numba.cuda")
sys.meta_path.insert(0, Missing())
import numpy as np
"""


def run(code):
    environment = {n: v for n, v in os.environ.items() if n != "NUMBA_ENABLE_CUDASIM"}
    return subprocess.run(
        [sys.executable, "-c", WITHOUT + code], capture_output=True, text=True, env=environment
    )


def test_an_array_on_a_gpu_says_what_to_install():
    done = run(
        "class OnGpu:\n"
        "    __cuda_array_interface__ = {}\n"
        "    shape, dtype, ndim = (1, 4, 4), np.dtype(np.float32), 3\n"
        "from alps.kernels.upscale import upscale_masks\n"
        "upscale_masks(OnGpu(), 16, (16, 16), (16, 16))\n"
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: arrays on a GPU need Numba's CUDA target: pip install")
    assert "alps-engine[cuda12]" in last and "alps-engine[cuda13]" in last


@pytest.mark.slow
def test_arrays_of_numpy_need_no_such_package():
    done = run(
        "from alps.kernels.nms import box_nms\n"
        "from alps.kernels import colour, kmeans, paint, pool, superpixels, upscale\n"
        "print(box_nms(np.array([[0, 0, 2, 2]]), np.ones(1), 0.5))\n"
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[0]"), done.stderr
