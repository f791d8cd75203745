"""What checksums cost: their share of a run's CPU time, and how long `alps verify` takes.

    python -m alps.bench.proofs.checksums cost TILES WORK
    python -m alps.bench.proofs.checksums verify WORK --tiles 10000

The run that is verified is made up: files of the sizes that a run with `tiny` writes, of noise, and
tables of tiles that can be read.
"""

import shutil
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa

from alps.engine.base import digests
from alps.engine.labels.journal import Counted, PaintedJournal
from alps.engine.labels.palette import palette
from alps.engine.naming.names import Names, shown_classes
from alps.engine.run_folder import sums
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.plan import SHARD_TILES
from alps.engine.run_folder.schemas import PLAN_SCHEMA, TILE_SCHEMA
from alps.engine.run_folder.tables import read_table, write_table
from alps.engine.stages.label import RunOptions, label_archive
from alps.engine.stages.verify import Verification, verify_archive

SIDE = 512  # pixels of a tile
# Bytes a tile of each kind, as `tiny` wrote them for an aerial image of four windows.
SEGMENTS, REGIONS, BORDERS, OBJECTS, VECTORS, CLASSES = 88_000, 47_000, 24_000, 700, 76_000, 7_600
RASTER, LABELS = 30_000, 9_000


def made_up_run(folder: RunFolder, tiles: int) -> None:
    """Write a run of so many tiles, each a source of its own."""
    for room in ("journal", "segments", "regions/rasters", "vectors", "clusters", "labels"):
        (folder.root / room).mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).bytes(1 << 24)

    def write(path: Path, count: int, at: int, number: int | None = None) -> None:
        start = at * 4099 % (len(noise) // 2)
        path.write_bytes((noise[start:] + noise)[:count])
        sums.record(folder, path, number)

    index = np.arange(tiles)
    names = [f"tile{number:06d}.png" for number in index]
    columns: dict[str, Any] = {name: np.zeros(tiles, int) for name in TILE_SCHEMA.names}
    columns |= dict.fromkeys(("source_width", "source_height", "width", "height"), index * 0 + SIDE)
    columns |= {"tile_id": index, "source_index": index, "status": ["ok"] * tiles}
    columns |= {"source": names, "path": names, "label": names, "reason": [""] * tiles}
    table = pa.table(columns).select(TILE_SCHEMA.names).cast(TILE_SCHEMA)
    write_table(table.select(PLAN_SCHEMA.names), folder.plan)
    write_table(table, folder.tiles)
    write(folder.clusters, 50_000, 0)
    for shard in range(-(-tiles // SHARD_TILES)):
        own = table.slice(shard * SHARD_TILES, SHARD_TILES)
        write_table(own, folder.shard_tiles(shard))
        for path, each in (
            (folder.segments(shard), SEGMENTS),
            (folder.regions(shard), REGIONS),
            (folder.borders(shard), BORDERS),
            (folder.objects(shard), OBJECTS),
            (folder.region_vectors(shard), VECTORS),
            (folder.region_classes(shard), CLASSES),
        ):
            write(path, each * own.num_rows, shard)
        for name in own.column("label").to_pylist():
            write(folder.region_raster(name), RASTER, shard, shard)
    with PaintedJournal(folder, 46, "a") as journal:
        for number, name in enumerate(names):
            path = folder.label(name)
            path.write_bytes(noise[number * 4099 % (1 << 23) :][:LABELS])
            counted = Counted.of(46)
            counted.pixels[:] = SIDE
            journal.add(number, counted, files=[sums.sum_of(folder, path)])
        journal.write_classes(shown_classes(Names(), palette(46)))
    done = {"cluster": "a", "paint": "a"}
    folder.update_run(
        source="TILES", config_hash="0", settings={}, stages={}, done=done,
        model={"name": "tiny", "sha256": "0"},
    )  # fmt: skip


def verified(work: Path, tiles: int) -> tuple[Verification, float]:
    """Make up a run and verify it; returns what was found, and the seconds."""
    folder = RunFolder(work / "run")
    made_up_run(folder, tiles)
    began = time.perf_counter()
    found = verify_archive(folder)
    return found, time.perf_counter() - began


def cost(src: Path, work: Path, options: RunOptions | None = None) -> tuple[float, float, int]:
    """CPU seconds of hashing and of all of a run over ``src``, and its tiles."""
    spent = 0.0
    real = digests.file_sha256

    def timed(path: Path) -> str:
        nonlocal spent
        began = time.thread_time()
        try:
            return real(path)
        finally:
            spent += time.thread_time() - began

    began = time.process_time()
    vars(sums)["file_sha256"] = timed
    try:
        label_archive(src, work / "run", options=options)
    finally:
        vars(sums)["file_sha256"] = real
    whole = time.process_time() - began
    return spent, whole, read_table(RunFolder(work / "run").tiles, ["tile_id"]).num_rows


@click.group()
def main() -> None:
    """Measure what checksums cost."""


@main.command("cost")
@click.argument("src", type=click.Path(path_type=Path))
@click.argument("work", type=click.Path(path_type=Path))
def cost_command(src: Path, work: Path) -> None:
    """Run `alps label SRC` in WORK and say which share of its CPU time hashing took."""
    hashing, whole, tiles = cost(src, work)
    click.echo(
        f"{tiles} tiles: hashing {hashing:.3f} of {whole:.1f} CPU seconds, {hashing / whole:.3%}"
    )


@main.command("verify")
@click.argument("work", type=click.Path(path_type=Path))
@click.option("--tiles", default=10_000, show_default=True, help="Tiles of the run.")
def verify_command(work: Path, tiles: int) -> None:
    """Make up a run in WORK, verify it, and delete it."""
    try:
        found, seconds = verified(work, tiles)
    finally:
        shutil.rmtree(work / "run", ignore_errors=True)
    click.echo(
        f"{tiles} tiles: {found.files} files, {found.bytes / 1e9:.2f} GB, verified in "
        f"{seconds:.1f} seconds; {len(found.findings)} findings"
    )


if __name__ == "__main__":
    main()
