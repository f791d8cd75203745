"""Steps of a look at a GPU that go wrong, each in its way."""

import os
import subprocess
import sys
import time
from pathlib import Path

from alps.bench.gpu.checks.context import Skipped


def fine(context):
    context.add("one", 1.23456789, "ms", "a | b")


def hangs(context):
    context.add("before", 1)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    (Path(context.out) / "child.pid").write_text(str(child.pid))
    time.sleep(600)


def crashes(context):
    context.add("before", 1)
    os.abort()


def raises(context):
    raise ValueError("no such\nthing")


def skips(context):
    raise Skipped("needs two")


def partly(context):
    context.tried("a part", lambda: 1 / 0)
    context.add("another", 2)
