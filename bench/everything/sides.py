"""One side of a comparison, in a process of its own: nobody inherits another's memory or caches.

    python -m alps.bench.everything.sides JOB.json RESULT.json

is what ``run_in_fresh_process`` starts. A job names the function that builds the side.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np

from alps.engine.base.progress import Progress

STAGES = ("encode", "decode", "filter", "runs", "pool")
SIGNALS_OF_MEMORY = (-9, 137)  # the kernel kills what takes too much


@dataclass(frozen=True)
class Job:
    """What a side has to do."""

    label: str  # what the tables call it
    builder: str  # "module:function", called with this job, returns a Side
    checkpoint: str
    tiles: tuple[tuple[str, int, int, int, int], ...]  # path of an image, x, y, width, height
    settings: dict[str, Any]  # SamAutomaticMaskGenerator's keyword arguments, the same on all sides
    options: dict[str, Any] = field(default_factory=dict)  # this side's own
    threads: int = 1
    device: str = "cpu"
    repeat: int = 1  # times that each tile is run; the fastest counts
    decoder_form: str = ""  # stock, absorbed or compiled: how many multiply-adds its decoder takes


@dataclass
class TileMasks:
    """What a side made of one tile."""

    size: tuple[int, int]  # height, width
    counts: list[bytes]  # COCO compressed run-length codes
    seconds: dict[str, float]  # by stage
    total: float  # seconds, from image to pooled masks
    prompted: int
    prompts_left: int | None = None  # with a mask past the predicted IoU; None: not counted
    masks_left: int | None = None  # past the predicted IoU
    cpu_seconds: float = 0.0  # of all threads; far from threads x total, others had the machine


@dataclass
class SideResult:
    """What a side made of all tiles, and what it took."""

    label: str
    decoder_form: str = ""  # as in Job
    tiles: list[TileMasks] = field(default_factory=list)
    loaded_bytes: int = 0  # resident memory with the model loaded, before the first tile
    peak_bytes: int = 0  # the most that was ever resident
    gpu_peak_bytes: int | None = None  # the most that PyTorch allocated on the GPU
    start_seconds: float = 0.0  # loading and warming up, part of no tile
    failure: str = ""  # why there are no tiles

    def seconds(self, stage: str) -> float:
        """Mean seconds of a stage, a tile; 0 for one that the side does not know."""
        return self._mean([tile.seconds.get(stage, 0.0) for tile in self.tiles])

    @property
    def total(self) -> float:
        """Mean seconds a tile."""
        return self._mean([tile.total for tile in self.tiles])

    @property
    def cpu_seconds(self) -> float:
        """Mean CPU seconds a tile."""
        return self._mean([tile.cpu_seconds for tile in self.tiles])

    @property
    def masks(self) -> int:
        """Number of masks on all tiles."""
        return sum(len(tile.counts) for tile in self.tiles)

    @staticmethod
    def _mean(values: list[float]) -> float:
        return sum(values) / len(values) if values else float("nan")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        plain = asdict(self)
        for tile in plain["tiles"]:
            tile["counts"] = [counts.decode("ascii") for counts in tile["counts"]]
        return plain

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Self:
        """Read what ``to_dict`` wrote."""
        tiles = [
            TileMasks(
                **tile
                | {
                    "size": tuple(tile["size"]),
                    "counts": [counts.encode("ascii") for counts in tile["counts"]],
                }
            )
            for tile in plain["tiles"]
        ]
        return cls(**plain | {"tiles": tiles})


class Side(Protocol):
    """What a job's builder returns, with the model loaded."""

    def warm_up(self) -> None:
        """Do once, off the clock, what only the first tile of an archive would have to do."""

    def segment(self, image: np.ndarray) -> TileMasks:
        """Masks of an image (H, W, 3) uint8 RGB."""


def warm_up_picture() -> np.ndarray:
    """A few pixels with something on them, (64, 64, 3) uint8."""
    return np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def run_in_fresh_process(job: Job) -> SideResult:
    """Run a job in a new Python; a side that fails is a result with a reason, not an exception.

    What the side writes to stderr, its progress and tracebacks, is shown as it comes.
    """
    environment = os.environ | {"OMP_NUM_THREADS": str(job.threads)}
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the `alps` program has it
    with tempfile.TemporaryDirectory(prefix="alps-bench-") as folder:
        task, result = Path(folder, "job.json"), Path(folder, "result.json")
        task.write_text(json.dumps(asdict(job)), encoding="utf-8")
        command = [sys.executable, "-m", "alps.bench.everything.sides", str(task), str(result)]
        done = subprocess.run(command, env=environment, check=False)
        if result.exists():
            return SideResult.from_dict(json.loads(result.read_text(encoding="utf-8")))
    reason = f"ended with exit code {done.returncode}"
    if done.returncode in SIGNALS_OF_MEMORY:
        reason = "killed, most likely for the memory it took"
    return SideResult(job.label, job.decoder_form, failure=reason)


def run(job: Job) -> SideResult:
    """Run a job in this process."""
    import torch

    from alps.kernels.base.threads import set_threads

    torch.set_num_threads(job.threads)
    set_threads(job.threads)
    started = time.perf_counter()
    module, function = job.builder.split(":")
    side: Side = getattr(import_module(module), function)(job)
    result = SideResult(job.label, job.decoder_form, loaded_bytes=resident_bytes("VmRSS"))
    side.warm_up()
    result.start_seconds = time.perf_counter() - started
    with Progress(len(job.tiles), "tiles", job.label) as progress:
        for tile in job.tiles:
            image = read_tile(*tile)
            tries = [segment_once(side, image) for _ in range(job.repeat)]
            result.tiles.append(min(tries, key=lambda masks: masks.total))
            progress.advance(1)
    result.peak_bytes = resident_bytes("VmHWM")
    if torch.device(job.device).type == "cuda":
        result.gpu_peak_bytes = torch.cuda.max_memory_allocated()
    return result


def segment_once(side: Side, image: np.ndarray) -> TileMasks:
    """Masks of an image, with the CPU's seconds noted."""
    started = time.process_time()
    masks = side.segment(image)
    masks.cpu_seconds = time.process_time() - started
    return masks


def read_tile(path: str, x: int, y: int, width: int, height: int) -> np.ndarray:
    """A window of an image as (height, width, 3) uint8 RGB."""
    from alps.engine.images.raster import RasterReader
    from alps.engine.images.windows import Window

    with RasterReader(path) as reader:
        return reader.read(Window(x, y, width, height)).rgb


def resident_bytes(field_name: str) -> int:
    """Resident memory of this process: VmRSS is what it has now, VmHWM the most it ever had.

    ru_maxrss will not do where /proc is at hand: a child starts with what its parent had.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="ascii").splitlines():
            if line.startswith(field_name + ":"):
                return int(line.split()[1]) << 10
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10


def main() -> None:
    """Run the job of one file and write its result to another."""
    task, target = sys.argv[1:]
    plain = json.loads(Path(task).read_text(encoding="utf-8"))
    job = Job(**plain | {"tiles": tuple(map(tuple, plain["tiles"]))})
    try:
        result = run(job)
    except Exception as error:
        traceback.print_exc()
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        result = SideResult(job.label, job.decoder_form, failure=reason)
    Path(target).write_text(json.dumps(result.to_dict()), encoding="utf-8")


if __name__ == "__main__":
    main()
