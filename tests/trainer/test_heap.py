"""Memory that is freed stays with the process."""

import platform
import subprocess
import sys

import pytest

from alps.trainer.heap import keep_freed_memory

# Pages that the kernel handed out for one array of 64 MB after another.
FAULTS = """
import resource
import numpy as np
from alps.trainer.heap import keep_freed_memory

if {keeps}:
    assert keep_freed_memory()
np.ones(1 << 26, np.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    np.ones(1 << 26, np.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults(*, keeps: bool) -> int:
    code = FAULTS.format(keeps=keeps)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_arrays_come_from_the_pages_of_those_before() -> None:
    assert _faults(keeps=True) * 10 < _faults(keeps=False)


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_elsewhere_nothing_is_done(system: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", system)
    assert not keep_freed_memory()
