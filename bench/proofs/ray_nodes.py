"""Kill a node of a Ray cluster at a random moment of a run, again and again, and compare bytes.

    python -m alps.bench.proofs.ray_nodes SRC WORK --kills 10 -- --points-per-side 8

What follows -- goes to `alps label`. A cluster of three nodes of one core is started on this
machine, beside a head that does no work. The run is made once without Ray, once with it and
undisturbed, and then with a node killed, all of its processes at once, as when a machine is gone. A
new node takes its place before the next run. Last comes what Ray itself takes: numbers that are
carried out by a job that does nothing. WORK must be new.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click

from alps.bench.proofs.kill_resume import results
from alps.bench.proofs.nothing import Nothing
from alps.engine.workers.protocol import nothing_to_tell
from alps.engine.workers.ray import STORE_BYTES, RayCrew
from alps.engine.workers.ray_seat import Wanted

NUMBERS = 1000  # that the job which does nothing is given


class Cluster:
    """Nodes of one core on this machine. Close it at the end."""

    def __init__(self, nodes: int) -> None:
        from ray.cluster_utils import Cluster as RayCluster

        self._options: dict[str, Any] = {
            "object_store_memory": STORE_BYTES,
            "include_dashboard": False,
        }
        # Nodes inherit it: workers must find this very package.
        os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        head = {**self._options, "num_cpus": 0}
        self._cluster = RayCluster(initialize_head=True, head_node_args=head)
        self.address: str = self._cluster.address
        for _ in range(nodes):
            self.add_node()

    def add_node(self) -> None:
        """One more node."""
        self._cluster.add_node(num_cpus=1, **self._options)

    def kill_node(self, draw: random.Random) -> int:
        """Kill all processes of a node; returns how many they were."""
        nodes = sorted(self._cluster.worker_nodes, key=lambda node: node.node_id)
        node = draw.choice(nodes)
        (raylet,) = node.all_processes["raylet"]
        own = [raylet.process.pid, *children_of(raylet.process.pid)]
        for pid in own:
            os.kill(pid, signal.SIGKILL)
        self._cluster.remove_node(node, allow_graceful=False)
        return len(own)

    def close(self) -> None:
        """End all nodes."""
        self._cluster.shutdown()


def children_of(pid: int) -> list[int]:
    """Process ids of what a process has started."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return [int(child) for child in text.split()]


@click.command()
@click.argument("src")
@click.argument("work", type=click.Path(path_type=Path))
@click.option("--kills", default=10, show_default=True)
@click.option("--nodes", default=3, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.argument("options", nargs=-1)
def main(src: str, work: Path, kills: int, nodes: int, seed: int, options: tuple[str, ...]) -> None:
    """Print when nodes were killed, whether the bytes are the same, and Ray's own time."""
    work.mkdir(parents=True)

    def start(name: str, *more: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "alps.engine.cli.main", "label", src, str(work / name)]
        log = open(work / f"{name}.log", "ab")  # noqa: SIM115 - lives as long as the process
        return subprocess.Popen([*command, *more, *options], stdout=log, stderr=log)

    def undisturbed(name: str, *more: str) -> float:
        began = time.monotonic()
        if start(name, *more).wait():
            raise SystemExit(f"the undisturbed run failed: see {work / f'{name}.log'}")
        click.echo(f"{name}, undisturbed: {time.monotonic() - began:.0f} s")
        return time.monotonic() - began

    undisturbed("plain")
    cluster = Cluster(nodes)
    try:
        os.environ["RAY_ADDRESS"] = cluster.address
        on_ray = ("--cluster", "ray")
        length = undisturbed("ray", *on_ray)
        files = compare(work, "ray")
        draw = random.Random(seed)
        killed_in_runs = number = 0
        while killed_in_runs < kills:
            number += 1
            moment = draw.uniform(0.1, 0.9) * length
            process = start(f"ray{number}", *on_ray)
            time.sleep(moment)
            running = process.poll() is None
            killed = cluster.kill_node(draw)
            if process.wait():
                raise SystemExit(f"a run failed: see {work / f'ray{number}.log'}")
            files = compare(work, f"ray{number}")
            lost = (work / f"ray{number}.log").read_text(encoding="utf-8").count("was lost at")
            click.echo(
                f"{number}: a node of {killed} processes killed after {moment:.1f} s"
                f"{'' if running else ', when the run was over'}; {lost} workers lost; "
                f"{files} files, all the same bytes"
            )
            killed_in_runs += running
            shutil.rmtree(work / f"ray{number}")
            cluster.add_node()
        overhead()
    finally:
        cluster.close()


def overhead() -> None:
    """Print what Ray takes for each number that is carried out."""
    with RayCrew("ray", Wanted()) as crew:
        for _ in crew.carry_out(Nothing(), range(10), nothing_to_tell):
            pass  # workers start
        began = time.perf_counter()
        count = sum(1 for _ in crew.carry_out(Nothing(), range(NUMBERS), nothing_to_tell))
        each = (time.perf_counter() - began) / count
    click.echo(f"Ray's own time: {1000 * each:.2f} ms a shard, over {count} that do nothing")


def compare(work: Path, name: str) -> int:
    """Number of result files; ends the program where they are not those without Ray."""
    plain, other = results(work / "plain"), results(work / name)
    differing = sorted(
        key for key in plain.keys() | other.keys() if plain.get(key) != other.get(key)
    )
    if differing:
        raise SystemExit(f"{name}: {len(differing)} of {len(plain)} files differ: {differing[:5]}")
    return len(plain)


if __name__ == "__main__":
    main()
