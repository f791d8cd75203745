"""A run between two prefixes of an S3 server, killed at random moments and begun again.

    python -m alps.bench.proofs.object_store SRC WORK --kills 10 -- --points-per-side 8

SRC is a folder of images, which are placed on the server of `moto` on loopback (pip install
"moto[server]"). What follows -- goes to `alps label`. WORK must be new. The run is killed with
SIGKILL, at times with its local folder deleted, as if it went on on another machine; at the end
label maps, segments, regions and clusters are compared with those of a run on the disk (`--cog`).
"""

import io
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import numpy as np
import requests

from alps.engine.stores.address import Address
from alps.engine.stores.client import Bucket

SERVER = (
    "from moto.server import ThreadedMotoServer\n"
    "import sys\n"
    "server = ThreadedMotoServer('127.0.0.1', 0, verbose=False)\n"
    "server.start()\n"
    "print(server.get_host_and_port()[1], flush=True)\n"
    "sys.stdin.read()\n"
)
OUT = "s3://proof/out"


@contextmanager
def serving(log: Path) -> Iterator[dict[str, str]]:
    """An S3 server with one bucket; the environment that leads to it. It ends with this process."""
    with log.open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            url = f"http://127.0.0.1:{process.stdout.readline().strip()}"
            keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
            env = {"AWS_ENDPOINT_URL": url, "AWS_REGION": "us-east-1", **keys}
            env |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
            requests.put(f"{url}/proof", timeout=60).raise_for_status()
            yield env
        finally:
            process.kill()
            process.wait()


def results(files: dict[str, bytes]) -> dict[str, bytes]:
    """Of the files of a run those that must not differ; of clusters the centroids."""
    rooms = ("labels/", "segments/", "regions/", "clusters/")
    found = {name: data for name, data in files.items() if name.startswith(rooms)}
    with np.load(io.BytesIO(files["clusters.npz"])) as arrays:
        return found | {"centroids": arrays["centroids"].tobytes()}


def of_folder(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def of_store(bucket: Bucket) -> dict[str, bytes]:
    """All objects of OUT."""
    return {
        entry.key.removeprefix("out/"): bucket.get(entry.key) or b""
        for entry in bucket.objects("out")
    }


@click.command()
@click.argument("src", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("work", type=click.Path(path_type=Path))
@click.option("--kills", default=10, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.argument("options", nargs=-1)
def main(src: Path, work: Path, kills: int, seed: int, options: tuple[str, ...]) -> None:
    """Print how often the run was killed, and whether the bytes are the same."""
    work.mkdir(parents=True)
    label = [sys.executable, "-m", "alps.engine.cli.main", "label"]
    began = time.monotonic()
    whole = subprocess.run(
        [*label, str(src), str(work / "whole"), "--cog", *options], capture_output=True, text=True
    )
    if whole.returncode:
        raise SystemExit(f"the undisturbed run failed: {whole.stderr}")
    length = time.monotonic() - began
    expected = results(of_folder(work / "whole"))
    click.echo(f"undisturbed, on the disk: {length:.0f} s, {len(expected)} files")
    draw = random.Random(seed)
    with serving(work / "server.log") as env:
        os.environ |= env | {"ALPS_HOME": str(work / "home")}
        bucket = Bucket(Address.parse(OUT))
        for path in sorted(src.rglob("*.*")):
            bucket.put(f"src/{path.relative_to(src).as_posix()}", path)
        killed, runs = 0, 0
        while True:
            scratch = str(work / "scratch")
            command = [*label, "s3://proof/src/", OUT, "--scratch", scratch, *options]
            with (work / "killed.log").open("a") as log:
                process = subprocess.Popen(command, stdout=log, stderr=log)
            try:
                moment = draw.uniform(0.05, 0.6) * length if killed < kills else None
                code = process.wait(moment)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                killed += 1
                moved = draw.random() < 0.3
                click.echo(f"killed after {moment:.1f} s" + ", another machine" * moved)
                if moved:
                    shutil.rmtree(scratch)
                    bucket.delete("out/journal/lease.json")  # as if it had run out
                continue
            if code:
                raise SystemExit(f"a start failed: see {work / 'killed.log'}")
            runs += 1
            found = results(of_store(bucket))
            differing = [
                n for n in found.keys() | expected.keys() if found.get(n) != expected.get(n)
            ]
            if differing:
                raise SystemExit(f"{len(differing)} files differ: {sorted(differing)[:5]}")
            if killed >= kills:
                break
            shutil.rmtree(scratch)
            bucket.delete(*(entry.key for entry in bucket.objects("out")))
    click.echo(
        f"killed {killed} times in {runs} runs; {len(expected)} files, all the same bytes as on "
        "the disk"
    )


if __name__ == "__main__":
    main()
