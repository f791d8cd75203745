"""The ceilings: what this card is, how fast it copies and multiplies."""

import platform
import shutil
import subprocess
from functools import partial
from importlib.metadata import PackageNotFoundError, version

from alps.bench.gpu.checks.context import Context
from alps.bench.machine import cpu_name

PACKAGES = ("torch", "triton", "numba", "numba-cuda", "cupy-cuda13x", "cupy-cuda12x", "numpy",
            "onnxruntime-gpu", "tensorrt-cu13")  # fmt: skip
QUERY = "name,driver_version,clocks.sm,clocks.mem,clocks.max.sm,power.limit,temperature.gpu"


def machine(context: Context) -> None:
    """Versions, clocks, copy bandwidth, products of matrices."""
    import torch

    context.add("CPU", f"{cpu_name()}, Python {platform.python_version()}")
    for name in PACKAGES:
        try:
            context.add(name, version(name))
        except PackageNotFoundError:
            context.add(name, "not installed")
    if context.on_gpu:
        context.add("GPU", torch.cuda.get_device_name())
        context.add("compute capability", "{}.{}".format(*torch.cuda.get_device_capability()))
    if shutil.which("nvidia-smi"):
        done = subprocess.run(
            ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv"], capture_output=True, text=True
        )
        for line in done.stdout.splitlines():
            context.add("nvidia-smi", line)
    side = 256 if context.small else 8192
    copy(context)

    def multiply(name: str, dtype: torch.dtype, switch: str) -> None:
        before = torch.backends.cuda.matmul.fp32_precision
        torch.backends.cuda.matmul.fp32_precision = switch
        try:
            # Values of a normal distribution: zeros and ones draw less power, and clock higher.
            a, b = (torch.randn(side, side, device=context.device).to(dtype) for _ in range(2))
            taken = context.milliseconds(lambda: a @ b)
        finally:
            torch.backends.cuda.matmul.fp32_precision = before
        context.add(f"product of {side}³, {name}", 2e-9 * side**3 / taken, "TFLOP/s")

    for name, dtype, switch in (
        ("fp16", torch.float16, "none"),
        ("bf16", torch.bfloat16, "none"),
        ("fp32", torch.float32, "ieee"),
        ("TF32", torch.float32, "tf32"),
    ):
        context.tried(name, partial(multiply, name, dtype, switch))


def copy(context: Context) -> None:
    """Bytes a second within memory."""
    import torch

    source = torch.ones((1 << 20) if context.small else (1 << 30), device=context.device)
    target = torch.empty_like(source)
    taken = context.milliseconds(lambda: target.copy_(source))
    context.add("copy", 2 * source.nbytes / taken / 1e9, "TB/s", "read and written")
