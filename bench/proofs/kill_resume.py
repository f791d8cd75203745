"""Kill a run at random moments, start it again each time, and compare bytes with a whole run.

    python -m alps.bench.proofs.kill_resume SRC WORK --kills 10 -- --points-per-side 8

What follows -- goes to `alps label`. WORK must be new; it receives both run folders.
"""

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import click


def results(out: Path) -> dict[str, bytes]:
    """All that must not depend on how often a run was stopped."""
    files = [*out.glob("labels/**/*"), *out.glob("segments/*.parquet"), out / "clusters.npz"]
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(files)
        if path.is_file()
    }


@click.command()
@click.argument("src")
@click.argument("work", type=click.Path(path_type=Path))
@click.option("--kills", default=10, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.argument("options", nargs=-1)
def main(src: str, work: Path, kills: int, seed: int, options: tuple[str, ...]) -> None:
    """Print how often the run was killed, and whether the bytes are the same."""
    work.mkdir(parents=True)

    def start(name: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "alps.engine.cli.main", "label", src, str(work / name)]
        log = open(work / f"{name}.log", "a")  # noqa: SIM115 - lives as long as the process
        return subprocess.Popen([*command, *options], stdout=log, stderr=log)

    began = time.monotonic()
    if start("whole").wait():
        raise SystemExit(f"the undisturbed run failed: see {work / 'whole.log'}")
    length = time.monotonic() - began
    click.echo(f"undisturbed: {length:.0f} s")
    draw = random.Random(seed)
    killed, runs = 0, 1
    while killed < kills:
        process = start("killed")
        # A run that goes on has less left each time, so lives are short next to the whole run.
        moment = draw.uniform(0.02, 0.35) * length
        try:
            if process.wait(moment):
                raise SystemExit(f"a start failed: see {work / 'killed.log'}")
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed += 1
            click.echo(f"killed after {moment:.1f} s")
            continue
        compare(work)
        shutil.rmtree(work / "killed")
        runs += 1
    if start("killed").wait():
        raise SystemExit(f"the last start failed: see {work / 'killed.log'}")
    files = compare(work)
    click.echo(f"killed {killed} times in {runs} runs; {files} files, all the same bytes")


def compare(work: Path) -> int:
    """Number of result files; ends the program where the two runs differ."""
    whole, stopped = results(work / "whole"), results(work / "killed")
    differing = sorted(
        name for name in whole.keys() | stopped.keys() if whole.get(name) != stopped.get(name)
    )
    if differing:
        raise SystemExit(f"{len(differing)} of {len(whole)} files differ: {differing[:5]}")
    click.echo(f"a run that was killed ended with the same {len(whole)} files")
    return len(whole)


if __name__ == "__main__":
    main()
