"""One side of the comparison in a process of its own, from its first import to its last file.

    python -m alps.bench.pipeline.sides JOB.json RESULT.json

is what ``run_side`` starts.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from alps.bench.everything.sides import SIGNALS_OF_MEMORY, resident_bytes

PUBLISHED, OURS = "published code", "alps label"


@dataclass(frozen=True)
class SideJob:
    """What a side has to do."""

    label: str  # PUBLISHED or OURS, or what starts with it
    tiles: str  # folder of PNG files
    out: str  # must be new
    checkpoint: str
    settings: dict[str, Any]  # SamAutomaticMaskGenerator's keyword arguments, the same on all sides
    clusters: int
    tile: int  # side in pixels that no tile exceeds
    threads: int
    device: str
    seed: int
    max_area: float  # share of a tile


@dataclass
class SideRun:
    """What a side took for all tiles."""

    label: str
    seconds: dict[str, float] = field(default_factory=dict)  # by stage, as the side tells
    total: float = 0.0  # from the start of the process to its end
    cpu_seconds: float = 0.0  # of all its threads and processes
    peak_bytes: int = 0  # the most that was resident
    masks: int = 0  # that passed the gate
    files: int = 0
    file_bytes: int = 0
    failure: str = ""


def run_side(job: SideJob) -> SideRun:
    """Run a side in a new Python; one that fails is a result with a reason, not an exception.

    What it writes to stderr, progress and tracebacks, is shown as it comes.
    """
    environment = os.environ | {"OMP_NUM_THREADS": str(job.threads)}
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the `alps` program has it
    with tempfile.TemporaryDirectory(prefix="alps-bench-") as folder:
        task, result = Path(folder, "job.json"), Path(folder, "result.json")
        task.write_text(json.dumps(asdict(job)), encoding="utf-8")
        command = [sys.executable, "-m", "alps.bench.pipeline.sides", str(task), str(result)]
        before, began = _cpu_of_children(), time.perf_counter()
        done = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=False)
        run = SideRun(job.label)
        run.total = time.perf_counter() - began
        run.cpu_seconds = _cpu_of_children() - before
        if done.returncode in SIGNALS_OF_MEMORY:
            run.failure = "killed, most likely for the memory it took"
        elif done.returncode or not result.exists():
            run.failure = f"ended with exit code {done.returncode}"
        else:
            told = json.loads(result.read_text(encoding="utf-8"))
            run.seconds, run.masks = told["seconds"], told["masks"]
            run.peak_bytes = told["peak_bytes"]
    files = [path for path in Path(job.out).rglob("*") if path.is_file()]
    run.files, run.file_bytes = len(files), sum(path.stat().st_size for path in files)
    return run


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def label_command(job: SideJob) -> list[str]:
    """Arguments of ``alps label`` by which it asks the same points and keeps the same masks."""
    given = {
        "model": job.checkpoint,
        "device": job.device,
        "tile": job.tile,
        "overlap": 0,
        "max_area": job.max_area,
        "clusters": job.clusters,
        "seed": job.seed,
    } | job.settings
    options = [(f"--{name.replace('_', '-')}", str(value)) for name, value in given.items()]
    return ["label", job.tiles, job.out, *(text for pair in options for text in pair)]


def run_published(job: SideJob) -> tuple[dict[str, float], int]:
    """Seconds by stage and number of masks of the published pipeline."""
    began = time.perf_counter()
    from alps.bench.pipeline.published import Clock, Published

    clock = Clock(job.device)
    clock.seconds["load"] = time.perf_counter() - began
    pipeline = Published(
        tiles=Path(job.tiles),
        out=Path(job.out),
        checkpoint=job.checkpoint,
        settings=job.settings,
        clusters=job.clusters,
        seed=job.seed,
        clock=clock,
    )
    return clock.seconds, pipeline.run()


def run_ours(job: SideJob) -> tuple[dict[str, float], int]:
    """Seconds by stage and number of masks of ``alps label``, as its run folder has them."""
    from alps.engine.cli.main import main as alps
    from alps.engine.run_folder.folder import RunFolder

    sys.argv = ["alps", *label_command(job)]
    try:
        alps()
    except SystemExit as done:
        if done.code:
            raise
    return dict(RunFolder(Path(job.out)).read_run()["stages"]), masks_of(Path(job.out))


def masks_of(out: Path) -> int:
    """Masks of a run that passed the gate."""
    from alps.engine.run_folder.folder import RunFolder
    from alps.engine.run_folder.tables import read_table

    tiles = read_table(RunFolder(out).tiles, ["segments"])
    return int(tiles.column("segments").to_numpy().sum())


def main() -> None:
    """Run the job of one file and write what it took to another."""
    import torch

    from alps.kernels.base.threads import set_threads

    task, target = sys.argv[1:]
    job = SideJob(**json.loads(Path(task).read_text(encoding="utf-8")))
    torch.set_num_threads(job.threads)
    set_threads(job.threads)
    work = run_published if job.label.startswith(PUBLISHED) else run_ours
    seconds, masks = work(job)
    told = {"seconds": seconds, "masks": masks, "peak_bytes": resident_bytes("VmHWM")}
    Path(target).write_text(json.dumps(told), encoding="utf-8")


if __name__ == "__main__":
    main()
