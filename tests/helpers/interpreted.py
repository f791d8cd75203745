"""Triton's kernels in its interpreter, which is asked for before they are imported: a process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from alps.kernels.base.gpu import triton_missing

needs_triton = pytest.mark.skipif(
    triton_missing() is not None, reason=f"needs Triton: {triton_missing()}"
)


def interpreted(module, function, **arguments):
    """What a function of a module in tests/helpers returns under the interpreter, through JSON."""
    code = (
        f"import json, sys, {module}\n"
        f"print(json.dumps({module}.{function}(**json.loads(sys.argv[1]))))"
    )
    own = str(Path(__file__).parent)
    environment = os.environ | {
        "TRITON_INTERPRET": "1",
        "PYTHONPATH": os.pathsep.join([own, os.environ.get("PYTHONPATH", "")]),
    }
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(arguments)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
