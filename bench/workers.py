"""`alps label` by one worker and by two, on as many cores, side by side; and the bytes of each.

    python -m alps.bench.workers ../shared/data/openaerialmap/images WORK --images 64 --rounds 3

Sides are run one after the other, in turn, each in processes of its own that the kernel keeps to so
many cores; a first run of a few images compiles kernels. What is timed is the whole command.
With --before, a folder in which an older ALPS can be imported, that one is a side too.
"""

import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from alps.bench.machine import cpu_name

COMPARED = ("segments", "regions", "labels")
WARM_UP = 2  # images


@dataclass(frozen=True)
class Side:
    """A way of running the command."""

    name: str
    cores: int
    options: tuple[str, ...]
    path: str | None = None  # in which another ALPS is found


SIDES = (
    Side("1 worker, 1 thread", 1, ("--workers", "1")),
    Side("1 process, 2 threads", 2, ("--workers", "1")),
    Side("2 workers, 1 thread each", 2, ("--workers", "2")),
)


def run(side: Side, images: Path, out: Path, options: Sequence[str]) -> float:
    """Label and return seconds. Raises SystemExit where that fails."""
    cores = sorted(os.sched_getaffinity(0))[: side.cores]
    if len(cores) < side.cores:
        raise SystemExit(f"{side.name} needs {side.cores} cores")
    environment = os.environ | ({"PYTHONPATH": side.path} if side.path else {})
    command = [sys.executable, "-m", "alps.engine.cli.main", "label", str(images), str(out)]
    began = time.monotonic()
    done = subprocess.run(
        [*command, "--device", "cpu", *side.options, *options],
        env=environment,
        capture_output=True,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    if done.returncode:
        raise SystemExit(f"{side.name} failed: {done.stderr[-2000:]}")
    return time.monotonic() - began


def tree_digest(out: Path) -> str:
    """Of names and bytes of all that is compared."""
    digest = hashlib.sha256()
    for room in COMPARED:
        for path in sorted((out / room).rglob("*")):
            if path.is_file():
                digest.update(path.relative_to(out).as_posix().encode() + b"\0")
                digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


@click.command()
@click.argument("src", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("work", type=click.Path(path_type=Path))
@click.option("--images", "count", default=64, show_default=True, help="Of SRC, the first ones.")
@click.option("--rounds", default=3, show_default=True)
@click.option("--before", type=click.Path(exists=True, file_okay=False), help="An older ALPS.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write the figures here too.")
@click.argument("options", nargs=-1)
def main(
    src: Path,
    work: Path,
    count: int,
    rounds: int,
    before: str | None,
    file: Path | None,
    options: tuple[str, ...],
) -> None:
    """Print seconds of each side, ratios within rounds, and whether all bytes are the same."""
    sides = [*SIDES, *([Side("before, 2 threads", 2, (), before)] if before else [])]
    chosen = sorted(path for path in src.iterdir() if path.is_file())[:count]
    for folder, paths in (("images", chosen), ("few", chosen[:WARM_UP])):
        (work / folder).mkdir(parents=True)
        for path in paths:
            shutil.copy(path, work / folder)
    for side in sides:
        run(side, work / "few", work / f"warm {side.name}", ["--clusters", "2"])
    seconds: dict[str, list[float]] = {side.name: [] for side in sides}
    digests: dict[str, set[str]] = {side.name: set() for side in sides}
    for number in range(rounds):
        for side in sides[number % len(sides) :] + sides[: number % len(sides)]:
            out = work / f"{number} {side.name}"
            seconds[side.name].append(run(side, work / "images", out, options))
            digests[side.name].add(tree_digest(out))
            shutil.rmtree(out)
    two = seconds[SIDES[2].name]
    for side in sides:
        ratios = [own / other for own, other in zip(seconds[side.name], two, strict=True)]
        click.echo(
            f"{side.name:26} {statistics.median(seconds[side.name]):7.1f} s   "
            f"2 workers are {statistics.median(ratios):.2f} x as fast "
            f"({min(ratios):.2f} to {max(ratios):.2f})   {', '.join(sorted(digests[side.name]))}"
        )
    ours = set().union(*(digests[side.name] for side in SIDES))
    click.echo("bytes: the same" if len(ours) == 1 else "bytes: they differ")
    if file is not None:
        found = {name: sorted(found) for name, found in digests.items()}
        about = {"cpu": cpu_name(), "images": len(chosen), "seconds": seconds, "digests": found}
        file.write_text(json.dumps(about, indent=1) + "\n")
    if len(ours) > 1:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
