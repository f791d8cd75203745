"""Compiled code is kept where it can be, and only as long as its sources stay as they are."""

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from numba.core import config
from numba.extending import is_jitted as is_dispatcher

from alps.kernels.base.cache import KERNELS, can_write, provide_cache, source_digest

NOWHERE = Path("/proc/1/none")


@pytest.fixture(autouse=True)
def unset(monkeypatch):
    """No place is chosen yet; what a test chooses is taken back at its end."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", "")
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    monkeypatch.setattr(config, "CACHE_DIR", config.CACHE_DIR)


def test_folders_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    assert can_write(tmp_path) and can_write(tmp_path / "new" / "deep")
    assert not can_write(tmp_path / "file")
    assert not can_write(tmp_path / "file" / "below")
    assert not can_write(NOWHERE)


def test_the_first_place_that_can_be_written(tmp_path):
    folder = provide_cache([NOWHERE, tmp_path])
    assert folder.parent == tmp_path and os.environ["NUMBA_CACHE_DIR"] == str(folder)
    assert provide_cache([NOWHERE]) == folder  # as a process started from here finds it


def test_a_users_own_place_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert provide_cache([NOWHERE]).parent == tmp_path


def test_an_edited_helper_is_another_folder(tmp_path):
    shutil.copytree(KERNELS, tmp_path / "kernels", ignore=shutil.ignore_patterns("__pycache__"))
    before = source_digest(tmp_path / "kernels")
    assert before == source_digest()
    helper = tmp_path / "kernels" / "base" / "intrinsics.py"
    helper.write_bytes(helper.read_bytes() + b"\n")
    assert source_digest(tmp_path / "kernels") != before
    helper.rename(helper.with_name("renamed.py"))
    assert source_digest(tmp_path / "kernels") not in (before, source_digest())


@pytest.mark.slow
def test_kernels_run_from_a_passing_cache_that_is_removed():
    code = """
import importlib
import os
from pathlib import Path
from alps.kernels.base import cache
cache.lasting_places = list
os.environ.pop("NUMBA_CACHE_DIR", None)
cache.provide_cache()
import numpy as np
from alps.kernels.nms import box_nms
assert len(box_nms(np.array([[0, 0, 2, 2]]), np.array([1.0]), 0.5)) == 1
assert any(Path(os.environ["NUMBA_CACHE_DIR"]).rglob("*.nbc"))
print(os.environ["NUMBA_CACHE_DIR"])
"""
    environment = {n: v for n, v in os.environ.items() if n != "NUMBA_CACHE_DIR"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert not Path(done.stdout.strip()).parent.exists()


@pytest.mark.slow
def test_numba_that_was_imported_first_keeps_code_there_too(tmp_path):
    code = """
import importlib
import os
import numba
import numpy as np
from alps.kernels.nms import box_nms, cpu
box_nms(np.array([[0, 0, 2, 2]]), np.array([1.0]), 0.5)
assert os.environ["NUMBA_CACHE_DIR"] in cpu._greedy.stats.cache_path, cpu._greedy.stats.cache_path
"""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    code = code.replace("import os\n", "import os\ndel os.environ['NUMBA_CACHE_DIR']\n", 1)
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def compiled_functions():
    """All of ``kernels/`` that Numba compiles for a CPU, by module and name."""
    found = {}
    for path in KERNELS.rglob("*.py"):
        if path.name == "gpu.py" or path.name.startswith("gpu_") or path.name == "numba_cuda.py":
            continue
        parts = ("alps.kernels", *path.relative_to(KERNELS).with_suffix("").parts)
        module = importlib.import_module(".".join(parts).removesuffix(".__init__"))
        found |= {
            (module.__name__, name): f for name, f in vars(module).items() if is_dispatcher(f)
        }
    return found


def test_what_reorders_sums_is_inlined_into_its_callers():
    """Else LLVM compiles a function that others call twice, alone and with them, and sums in
    another order: which of the two runs depends on whether they come from the cache.
    """
    functions, checked = compiled_functions(), 0
    for (module, name), function in functions.items():
        called = function.py_func.__globals__
        for inner in map(called.get, function.py_func.__code__.co_names):
            if is_dispatcher(inner) and inner.targetoptions.get("fastmath"):
                options = inner.targetoptions
                inlined = options.get("forceinline") or options.get("inline") == "always"
                assert inlined, f"{module}.{name} calls {inner.py_func.__name__}"
                checked += 1
    assert checked > 5
