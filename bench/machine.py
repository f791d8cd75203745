"""What this machine can do at best: a speed says little without the roof above it."""

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from alps.kernels.base.threads import spread, threads

COPY_BYTES = 256 << 20  # several times any last-level cache of a workstation
GEMM_SIDE = 2048


def copy_bandwidth(n_bytes: int = COPY_BYTES, repeats: int = 5) -> float:
    """Bytes a second of a memory copy by all threads, read and written both counted; the best run.

    n_bytes: of the array that is copied; it must be far larger than the last-level cache.
    """
    source = np.ones(n_bytes // 8, np.float64)
    target = np.zeros_like(source)  # pages are there before the clock runs
    pieces = 4 * threads()
    edges = np.linspace(0, len(source), pieces + 1).astype(np.int64)

    def copy(first: int, last: int) -> None:
        part = slice(edges[first], edges[last])
        np.copyto(target[part], source[part])  # releases the GIL

    return 2 * source.nbytes / _best(lambda: spread(copy, pieces), repeats)


def gemm_rate(device: str = "cpu", side: int = GEMM_SIDE, repeats: int = 5) -> float:
    """FLOP a second of a square fp32 matrix product in torch; the best run.

    device: on a CPU torch's current threads run it. side: of the three matrices; a product has
    2 x side³ operations.
    """
    import torch

    a, b, out = (torch.ones(side, side, device=device) for _ in range(3))

    def multiply() -> None:
        torch.mm(a, b, out=out)
        if a.device.type == "cuda":
            torch.cuda.synchronize()

    multiply()  # BLAS sets up its threads and buffers
    return 2 * side**3 / _best(multiply, repeats)


def cpu_name() -> str:
    """The processor as the system calls it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def describe(device: str = "cpu", gemm_flops: float | None = None) -> str:
    """One line that belongs beside every number: processor, threads, torch, its GEMM rate.

    device: where networks run; a GPU is named. gemm_flops: FLOP a second where measured there.
    """
    import torch

    parts = [
        f"{cpu_name()}, {os.cpu_count()} CPUs",
        f"{torch.get_num_threads()} threads",
        f"torch {torch.__version__}",
    ]
    if device != "cpu":
        parts.append(torch.cuda.get_device_name(device))
    if gemm_flops is not None:
        parts.append(f"fp32 GEMM {gemm_flops / 1e9:.0f} GFLOP/s")
    return "; ".join(parts)


def _best(work: Callable[[], object], repeats: int) -> float:
    """Seconds of the fastest of several runs: others on the machine only ever slow one down."""
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)
