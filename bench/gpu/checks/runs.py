"""Whole runs: tiles a second, killed and resumed, two workers on one GPU; and who looks into it."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np

from alps.bench.gpu.checks.context import Context, Skipped

PROGRAM = [sys.executable, "-m", "alps.engine.cli.main"]


def _scenes(context: Context, count: int, size: int) -> Path:
    from PIL import Image

    folder = context.work / "tiles"
    folder.mkdir(exist_ok=True)
    for number in range(count):
        path = folder / f"scene{number:03d}.png"
        if not path.exists():
            Image.fromarray(context.scene(size, number % 8)).save(path)
    return folder


def _command(context: Context, tiles: Path, out: Path, *more: str) -> list[str]:
    side = "4" if context.small else "32"
    return [*PROGRAM, "label", str(tiles), str(out), "--device", context.device,
            "--points-per-side", side, "--clusters", "6", "--model", context.model,
            *more]  # fmt: skip


class _Busy:
    """How busy the GPU is, as its driver says, a few times a second."""

    def __init__(self) -> None:
        self.shares: list[float] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "_Busy":
        if shutil.which("nvidia-smi"):
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def _look(self) -> None:
        query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
        while not self._over.wait(0.5):
            done = subprocess.run(query, capture_output=True, text=True)
            lines = done.stdout.split()
            if lines and lines[0].isdigit():
                self.shares.append(float(lines[0]))


def _segments_digest(out: Path) -> str:
    """Of what was segmented, file by file."""
    digest = hashlib.sha256()
    for path in sorted((out / "segments").rglob("*.parquet")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _differences(one: Path, other: Path) -> str:
    """Which columns of two runs' segments differ, in how many rows."""
    import pyarrow.parquet as pq

    found = []
    for path in sorted((one / "segments").rglob("*.parquet")):
        a, b = pq.read_table(path), pq.read_table(other / "segments" / path.name)
        if a.num_rows != b.num_rows:
            return f"{path.name}: {a.num_rows} and {b.num_rows} segments"
        for name in a.column_names:
            pairs = zip(a.column(name).to_pylist(), b.column(name).to_pylist(), strict=True)
            # NaN is not itself: points of what lies under no mask.
            rows = [n for n, (x, y) in enumerate(pairs) if x != y and (x == x or y == y)]
            if rows:
                found.append(f"{path.name}: {name} in {len(rows)} rows, the first {rows[0]}")
    return "; ".join(found) or "the same segments in other bytes"


def label(context: Context) -> None:
    """``alps label``: tiles a second; the same bytes after a kill, and by two workers."""
    context.need_values()
    count, size = (3, 128) if context.small else (96, 1024)
    tiles = _scenes(context, count, size)
    whole = context.work / "whole"

    def run(out: Path, *more: str) -> float:
        shutil.rmtree(out, ignore_errors=True)
        began = time.perf_counter()
        done = subprocess.run(
            _command(context, tiles, out, *more), capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError((done.stderr.strip().splitlines() or ["no reason"])[-1][:200])
        return time.perf_counter() - began

    before = os.times()
    with _Busy() as busy:
        taken = run(whole)
    after = os.times()
    cores = (after.children_user + after.children_system - before.children_user
             - before.children_system) / taken  # fmt: skip
    note = f"{cores:.1f} cores"
    if busy.shares:
        note += f", GPU busy {np.mean(busy.shares):.0f} %"
    context.add("alps label, tiny", count / taken, "images/s", note + ", start-up counted")
    wanted = _segments_digest(whole)

    def killed() -> None:
        out = context.work / "killed"
        shutil.rmtree(out, ignore_errors=True)
        process = subprocess.Popen(
            _command(context, tiles, out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            process.wait(max(2.0, 0.6 * taken))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        done = subprocess.run(_command(context, tiles, out), capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError((done.stderr.strip().splitlines() or ["no reason"])[-1][:200])
        same = _segments_digest(out) == wanted
        note = "" if same else _differences(whole, out)
        context.add("killed and resumed", "the same" if same else "differs", note=note)

    def workers() -> None:
        context.need_gpu()
        out = context.work / "workers"
        run(out, "--workers", "2")
        same = _segments_digest(out) == wanted
        context.add("two workers on the GPU", "the same" if same else "differs")

    def large() -> None:
        context.need_gpu()
        for precision in ("fp32", "fp16"):
            out = context.work / f"tiny-{precision}"
            seconds = run(out, "--precision", precision, "--runtime", "torch")
            context.add(f"alps label, tiny, {precision}", count / seconds, "images/s")

    context.tried("killed and resumed", killed)
    context.tried("two workers on the GPU", workers)
    context.tried("precisions", large)


def profile(context: Context) -> None:
    """Twenty kernels that take the longest in a batch, and how long the GPU waits."""
    context.need_values()
    import torch
    from torch.profiler import ProfilerActivity

    from alps.bench.gpu.checks.network import _pixels, _points
    from alps.engine.runtimes.pytorch import TorchRuntime

    sam = context.sam("vit_b")
    runtime = TorchRuntime(sam, precision="fp16" if context.on_gpu else "fp32")
    pixels, points = _pixels(context, sam, 1), _points(sam, 4 if context.small else 32)

    def once() -> None:
        embedding = runtime.encode(pixels)[0]
        list(runtime.decode(embedding, points, 0.0 if context.small else 0.05, 64))

    once()
    kinds = [ProfilerActivity.CUDA if context.on_gpu else ProfilerActivity.CPU]
    began = time.perf_counter()
    with torch.profiler.profile(activities=kinds) as profiler:
        once()
        if context.on_gpu:
            torch.cuda.synchronize()
    taken = 1e3 * (time.perf_counter() - began)
    name = "self_device_time_total" if context.on_gpu else "self_cpu_time_total"
    rows = sorted(profiler.key_averages(), key=lambda row: -getattr(row, name))
    busy = sum(getattr(row, name) for row in rows) / 1e3
    context.add("a tile under the profiler", taken, "ms")
    context.add("kernels", sum(row.count for row in rows), note=f"{busy:.2f} ms in them")
    for row in rows[:20]:
        context.add(row.key[:80], getattr(row, name) / 1e3, "ms", f"{row.count} times")


def sanitizer(context: Context) -> None:
    """compute-sanitizer over the kernels' tests, and the tests that want a GPU."""
    context.need_gpu()
    context.need_values()
    repository = Path(__file__).resolve().parents[3]
    tests = repository / "tests" / "kernels"
    if not tests.is_dir():
        raise Skipped("the tests are not here")
    pytest = [sys.executable, "-m", "pytest", "-q", "-x", "-m", "gpu", str(repository / "tests")]
    some = ["tests/kernels/test_gpu.py"]
    tool = shutil.which("compute-sanitizer")

    def look(name: str, command: list[str], seconds: float) -> None:
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=repository, timeout=seconds
        )
        lines = [line for line in done.stdout.splitlines() if line.strip()]
        context.add(name, done.returncode, "exit code", (lines or ["nothing said"])[-1][:200])

    context.tried("pytest -m gpu", lambda: look("pytest -m gpu", pytest, 150))
    for check in ("memcheck", "racecheck"):
        if tool is None:
            context.add(check, "skipped", note="compute-sanitizer is not installed")
            continue
        command = [tool, "--tool", check, sys.executable, "-m", "pytest", "-q", "-x", *some]
        context.tried(check, partial(look, check, command, 90))
