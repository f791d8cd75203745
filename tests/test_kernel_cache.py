"""Compiled code is kept where it can be."""

import os
import subprocess
import sys
from pathlib import Path

from alps.kernels import can_write, provide_cache


def test_folders_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    assert can_write(tmp_path) and can_write(tmp_path / "new" / "deep")
    assert not can_write(tmp_path / "file")
    assert not can_write(tmp_path / "file" / "below")
    assert not can_write(Path("/proc/1/none"))


def test_a_passing_cache_only_where_there_is_no_other(tmp_path, monkeypatch):
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    provide_cache([Path("/proc/1/none"), tmp_path])
    assert "NUMBA_CACHE_DIR" not in os.environ
    monkeypatch.setenv("NUMBA_CACHE_DIR", "mine")
    provide_cache([Path("/proc/1/none")])
    assert os.environ["NUMBA_CACHE_DIR"] == "mine"


def test_kernels_run_from_a_passing_cache_that_is_removed():
    code = """
import os
from pathlib import Path
from alps import kernels
kernels.provide_cache([Path("/proc/1/none")])
import numpy as np
from alps.kernels.nms import box_nms
assert len(box_nms(np.array([[0, 0, 2, 2]]), np.array([1.0]), 0.5)) == 1
assert any(Path(os.environ["NUMBA_CACHE_DIR"]).rglob("*.nbi"))
print(os.environ["NUMBA_CACHE_DIR"])
"""
    environment = {n: v for n, v in os.environ.items() if n != "NUMBA_CACHE_DIR"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert not Path(done.stdout.strip()).exists()
