"""Compiled code is found under what it was compiled for, whoever else compiles at that moment."""

import threading
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numba.core import config

from alps.kernels.base.cache import KERNELS
from alps.kernels.base.compiled import Files, njit


def doubled(values):
    for index in range(len(values)):
        values[index] += values[index]
    return values


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """A machine on which nothing was compiled yet: makes functions as new processes have them."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))  # Numba reads it again now and then
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    return lambda: njit(nogil=True, cache=True)(doubled)


def test_two_that_save_at_once(tmp_path, monkeypatch):
    """Neither writes before the other has looked at what there is."""
    opened, ready = Files._open_for_write, threading.Barrier(2, timeout=60)

    def open_for_write(self, path):
        ready.wait()
        return opened(self, path)

    monkeypatch.setattr(Files, "_open_for_write", open_for_write)
    keys = ("int32", "float32")
    threads = [
        threading.Thread(target=Files(str(tmp_path), "name", "stamp").save, args=(key, key))
        for key in keys
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [Files(str(tmp_path), "name", "stamp").load(key) for key in keys] == list(keys)


def test_code_of_another_signature_is_not_run(fresh, tmp_path):
    """As Numba's own index may have it; float32 added up as integers was what came out."""
    for dtype in (np.int32, np.float32):
        fresh()(np.ones(3, dtype))
    one, other = tmp_path.rglob("*.nbc")
    one.write_bytes(other.read_bytes())
    for dtype in (np.int32, np.float32):
        assert fresh()(np.ones(3, dtype)).tolist() == [2, 2, 2]


@pytest.mark.parametrize("size", [0, 100])
def test_a_file_that_was_cut_short_is_compiled_anew(fresh, tmp_path, size):
    fresh()(np.ones(3))
    (path,) = tmp_path.rglob("*.nbc")
    path.write_bytes(path.read_bytes()[:size])
    anew, kept = fresh(), fresh()
    assert anew(np.ones(3)).tolist() == [2, 2, 2] and not anew.stats.cache_hits
    assert kept(np.ones(3)).tolist() == [2, 2, 2] and sum(kept.stats.cache_hits.values()) == 1


def test_a_full_disk_keeps_nobody_from_computing(fresh, tmp_path, monkeypatch):
    def full(self, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Files, "_open_for_write", full)
    assert fresh()(np.ones(3)).tolist() == [2, 2, 2]
    assert not list(tmp_path.rglob("*.nbc"))


def test_what_is_compiled_anew_forgets_what_was(fresh, tmp_path):
    function = fresh()
    function(np.ones(3))
    function.recompile()
    assert function.stats.cache_hits == {}


def test_another_source_and_another_key_are_other_files(tmp_path):
    kinds = [("name", "stamp"), ("name", "other stamp"), ("other name", "stamp")]
    files = [Files(str(tmp_path), *kind) for kind in kinds]
    for number, one in enumerate(files):
        one.save("key", number)
    assert [one.load("key") for one in files] == [0, 1, 2]
    assert all(one.load("other key") is None for one in files)
    assert all(left != right for left, right in pairwise(sorted(tmp_path.iterdir())))


def test_kernels_are_compiled_this_way():
    """Numba's own decorator has the cache that two processes mistake."""
    found = [p for p in Path(KERNELS).rglob("*.py") if "from numba import njit" in p.read_text()]
    assert not found
