"""Compiles every CUDA kernel for an architecture without a GPU: a process of its own, as the other
tests run in the simulator. Prints a line of JSON: instructions of each kernel by name and, where
Triton with its assembler is installed, bytes that its registers spill.
"""

import importlib
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

from numba import types
from numba.cuda import compile_ptx, dispatcher

ARCHITECTURE = tuple(map(int, sys.argv[1].split(".")))

i16, i32, i64, u8, u32 = types.int16, types.int32, types.int64, types.uint8, types.uint32
f16, f32, f64, flag = types.float16, types.float32, types.float64, types.boolean


def a(kind, axes, order="C"):
    """An array; order A: a field of a record."""
    return types.Array(kind, axes, order)


_taps = (a(i32, 2), a(i32, 3), a(f32, 4))
_cuts = (f32, f32, f32)
_sizes, _bits = a(i32, 2), a(u32, 4)
SIGNATURES = {
    "upscale": {
        "_extents": (a(f32, 3), f32, a(i32, 3)),
        "_measure": (a(f32, 3), a(i32, 3), a(i32, 2), *_taps, a(u32, 3), *_cuts, a(i32, 3)),
        "_write": (a(f32, 3), a(i32, 3), a(i32, 2), *_taps, a(u32, 3), *_cuts, a(i32, 2), _bits),
    },
    "masks": {
        "_count_changes": (_bits, _sizes, a(i32, 2, "A"), a(i32, 3)),
        "_sum_before": (a(i32, 3), a(i32, 2, "A"), a(i32, 2)),
        "_write_changes": (_bits, _sizes, a(i32, 3), a(i64, 2), a(i32, 2)),
        "_count_codes": (a(i32, 2), a(i64, 2), a(i32, 2)),
        "_write_codes": (a(i32, 2), a(i64, 2), a(i64, 2, "A"), a(u8, 2, "A")),
        "_rest": (_bits, a(i32, 1), i64, a(u32, 3), _sizes, a(i32, 1)),
    },
    "nms": {
        "_sort": (a(i32, 3, "A"), a(i64, 2), a(i32, 1), a(f32, 3), a(i32, 2)),
        "_compare": (a(f32, 3), a(i32, 1), f32, a(i64, 3)),
        "_walk": (
            a(i64, 3), a(i64, 2), a(i32, 1), a(i64, 2), a(i32, 2, "A"), a(i32, 2), a(i32, 1),
        ),
    },
    "colour": {
        "_lab_of": (a(u8, 4), a(i16, 2), a(i16, 4)),
        "_add_colours": (_bits, a(i32, 2), _sizes, a(i16, 4), a(i64, 3, "A"), a(i32, 3, "A")),
    },
    "kmeans": {
        "_pass": (
            a(f16, 2), a(f32, 1), a(f32, 2), a(f32, 1), a(f32, 2), i64, i64, a(i32, 1), a(f32, 1),
            a(f32, 1), a(f64, 3), a(i64, 1),
        ),
        "_reduce": (a(f64, 3), a(f64, 2)),
    },
    "superpixels": {
        "_move": (a(i64, 2), a(i64, 2)),
        "_assign": (
            a(i16, 3), a(flag, 2), a(i64, 2), a(i32, 1), a(i32, 1), i64, i64, i64, flag, flag,
            a(i32, 2), a(i64, 2),
        ),
    },
    "pool": {
        "_add_edges": (
            _bits, a(i32, 2, "A"), _sizes, a(i64, 2), a(i32, 2), a(i32, 2), a(i64, 2), a(i64, 4),
        ),
        "_add_down": (a(i64, 4), a(i32, 2, "A"), a(f32, 4)),
    },
}  # fmt: skip


class Device:
    """The GPU that device functions ask for."""

    compute_capability = ARCHITECTURE


def assembler():
    """Triton's, or None."""
    found = find_spec("triton")
    return next(Path(found.origin).parent.rglob("ptxas*"), None) if found else None


def spilled(ptx, ptxas):
    """Bytes of a kernel's that do not fit its registers."""
    # The assembler may be older than the compiler, whose newest instructions none of these is.
    ptx = re.sub(r"^\.version .*$", ".version 8.0", ptx, flags=re.MULTILINE)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.ptx"
        path.write_text(ptx)
        target = f"sm_{ARCHITECTURE[0]}{ARCHITECTURE[1]}"
        command = [ptxas, "-v", f"--gpu-name={target}", path, "-o", path.with_suffix(".cubin")]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    return sum(map(int, re.findall(r"(\d+) bytes spill stores", said)))


def main():
    ptxas = assembler()
    dispatcher.get_current_device = lambda: Device
    found = {}
    for room, kernels in SIGNATURES.items():
        module = importlib.import_module(f"alps.kernels.{room}.gpu")
        defined = set(re.findall(r"@cuda\.jit\ndef (\w+)", Path(module.__file__).read_text()))
        assert defined == set(kernels), defined ^ set(kernels)
        for name, signature in kernels.items():
            ptx, _ = compile_ptx(getattr(module, name).py_func, signature, cc=ARCHITECTURE)
            names = re.findall(r"^\s+(?:@!?%p\d+ )?([a-z][\w.]+)", ptx, re.MULTILINE)
            found[f"{room}.{name}"] = own = Counter(names)
            if ptxas is not None:
                own["spilled bytes"] = spilled(ptx, ptxas)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
