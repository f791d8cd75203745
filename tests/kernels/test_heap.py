"""Memory that is freed stays with the process, or leaves it."""

import platform
import subprocess
import sys

import pytest

from alps.kernels.base.heap import keep_freed_memory, return_freed_memory

GLIBC = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")

# Pages that the kernel handed out for one array of 64 MB after another.
FAULTS = """
import resource
import numpy as np
from alps.kernels.base.heap import keep_freed_memory

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


@GLIBC
def test_arrays_come_from_the_pages_of_those_before() -> None:
    assert _faults(keeps=True) * 10 < _faults(keeps=False)


# Resident megabytes with 200 MB in small pieces, without all but one of them, and without what
# these left.
FREED = """
import numpy as np
from alps.kernels.base.heap import return_freed_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 >> 20

pieces = [np.ones(100_000, np.uint8) for _ in range(2000)]
full = resident()
pieces[:] = pieces[-1:]  # behind all others: the heap's end stays where it is
free = resident()
assert return_freed_memory()
print(full, free, resident())
"""


@GLIBC
def test_what_is_freed_is_handed_back() -> None:
    done = subprocess.run([sys.executable, "-c", FREED], capture_output=True, text=True, check=True)
    full, free, after = map(int, done.stdout.split())
    assert free > full - 50 and after < full - 150


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_elsewhere_nothing_is_done(system: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", system)
    assert not keep_freed_memory() and not return_freed_memory()
