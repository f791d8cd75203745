"""Memory, files and seconds of a run over an archive of any number of tiles, made up.

    python -m alps.bench.scale WORK --tiles 10000 --tiles 1000000

Sources are of ten windows and lie nowhere: opening one returns its size. All else is the code that
labels: the plan is made, a part of the shards is segmented by a network that answers at once, the
others are written as a killed run leaves them, tables are collected, regions clustered, label maps
entered in their journal, the report written, the status asked. Each stage is a process of its own,
whose largest resident memory the kernel counts.

Left out, because nothing of theirs depends on how many tiles there are: masks, cutting with its
tables of borders and objects, and the pixels of label maps. Files are not forced to the disk
(fsync), which would time the disk.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

import click
import numpy as np
import pyarrow as pa
import torch

from alps.engine.base import atomic
from alps.engine.clusters import region_data
from alps.engine.clusters.assign import cluster_archive
from alps.engine.clusters.file import load_clusters
from alps.engine.clusters.vectors import _kind as vector_kind
from alps.engine.images.archive import Survey
from alps.engine.images.facts.description import HeaderFacts
from alps.engine.images.raster import Tile
from alps.engine.images.reading import Reading
from alps.engine.images.sources import Source
from alps.engine.labels.journal import Counted
from alps.engine.labels.paint import Painter, paint_archive
from alps.engine.masks.generator import STAGES as CLOCKS
from alps.engine.masks.generator import MaskGenerator, Segments
from alps.engine.models.load import load_model
from alps.engine.planning import make
from alps.engine.report import build, build_report
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.plan import Plan
from alps.engine.run_folder.region_schemas import REGION_SCHEMA
from alps.engine.run_folder.schemas import COLOUR_VALUES, PLAN_SCHEMA, TILE_SCHEMA, segment_schema
from alps.engine.run_folder.tables import open_table, write_table
from alps.engine.runtimes.protocol import Capacity
from alps.engine.settings import ClusterSettings, PaintSettings, RunSettings
from alps.engine.stages.label import summarise
from alps.engine.stages.segment import collect_tiles, segment_archive, shards_missing
from alps.engine.stages.tiles import reading
from alps.engine.stages.tiles.masks import _segment_table as tile_table
from alps.engine.status.survey import status_of
from alps.kernels.masks import coco
from alps.kernels.masks.pixels import runs_of

WINDOWS = (5, 2)  # of each source, across and down
TILE, OVERLAP = 512, 64
WIDTH, HEIGHT = (TILE + (count - 1) * (TILE - OVERLAP) for count in WINDOWS)
SEGMENTS = 4  # of a tile that a stand-in network finds
REGIONS = 1  # of a tile
KINDS = 64  # of tiles, so that embeddings differ in all directions
VECTOR = 38  # values of a region's
CLUSTERS = 46
LIVE_SHARDS = 8  # that are segmented, and not written as if they had been
FOLDER = 1000  # sources of one folder
RUN = RunSettings().for_model(load_model("tiny", "cpu")[1].defaults)


class StandIn:
    """An open image of which only the size is known; its pixels are grey."""

    width, height = WIDTH, HEIGHT
    is_georeferenced = is_stretched = needs_sample = False
    header = HeaderFacts(
        "PNG",
        WIDTH,
        HEIGHT,
        "uint8",
        3,
        (1, 2, 3),
        "first three",
        ("all pixels",),
        "nowhere",
        1,
        (),
    )

    def __init__(self, path: str | Path, reading: Reading | None = None) -> None:
        self.path = path

    def __enter__(self) -> "StandIn":
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass

    def close(self) -> None:
        """Nothing is open."""

    def read(self, window: Any) -> Tile:
        """Grey, all of it valid."""
        shape = window.height, window.width
        return Tile(np.full((*shape, 3), 128, np.uint8), np.ones(shape, bool))


class StandInGenerator:
    """Answers at once, with squares."""

    runtime = SimpleNamespace(
        on_callers_cores=True,
        capacity=Capacity(images=1, points=64),
        config=SimpleNamespace(embedding_channels=128),
    )

    def pixels(self, rgb: np.ndarray) -> torch.Tensor:
        """Nothing of an image is looked at."""
        return torch.zeros(1, 1)

    def gate(self, rgb: np.ndarray, *args: Any, **named: Any) -> None:
        """Lets all through."""

    def find(self, rgb: np.ndarray, *args: Any, **named: Any) -> np.ndarray:
        """What ``describe`` is given."""
        return rgb

    def describe(self, rgb: np.ndarray, *args: Any) -> Segments:
        """A few masks of a tile."""
        channels = 128
        drawn = np.random.default_rng(int(rgb[0, 0, 0]))
        ones = np.ones(SEGMENTS, np.float32)
        return Segments(
            size=rgb.shape[:2],
            counts=coco.encode(runs_of(np.ones((SEGMENTS, *rgb.shape[:2]), bool))),
            boxes=np.ones((SEGMENTS, 4), np.int32),
            area=np.full(SEGMENTS, 99, np.int32),
            predicted_iou=ones,
            stability_score=ones,
            points=np.ones((SEGMENTS, 2), np.float32),
            embeddings=drawn.normal(size=(SEGMENTS, channels)).astype(np.float32),
            centres=np.ones((SEGMENTS, 2), np.float32),
            mask=np.arange(SEGMENTS, dtype=np.int32),
            colours=np.ones((SEGMENTS, COLOUR_VALUES), np.float32),
            covered=99,
            prompted=1,
            seconds=dict.fromkeys(CLOCKS, 0.0),
        )


def sources_of(tiles: int) -> Iterator[Source]:
    """Sources of so many tiles, in folders."""
    for number in range(-(-tiles // (WINDOWS[0] * WINDOWS[1]))):
        name = f"scenes_{number // FOLDER:06d}/image_of_the_archive_{number:09d}.png"
        yield Source(f"/vsis3/archive/{name}", name)


def plan(folder: RunFolder, tiles: int) -> None:
    """Open all sources and write the plan."""
    survey = Survey(Reading(RUN.source))
    source = RUN.source.__class__(**(vars(RUN.source) | {"tile": TILE, "overlap": OVERLAP}))
    folder.journal.mkdir(parents=True)
    with (
        mock.patch.object(make, "RasterReader", StandIn),
        make.opened_sources(sources_of(tiles), source, survey, folder.journal / ".s") as index,
    ):
        make.write_plan_of(index, source, folder.plan)
    values = RUN.to_dict()
    folder.update_run(
        kind="label", source="s3://archive/", config_hash="0", settings=values, defaults=values,
        model={"name": "tiny", "sha256": "0" * 64, "parameters": 1}, also={}, seed=0,
        started="2026-01-01T00:00:00+00:00", versions={}, read=survey.kinds(), stretches={},
        warnings=survey.doubts, stages={}, done={},
    )  # fmt: skip


def prepare(folder: RunFolder, tiles: int) -> None:
    """Write what shards and groups have, those aside that are segmented here."""
    for room in ("segments", "regions", "vectors", "clusters", "labels"):
        (folder.root / room).mkdir(exist_ok=True)
    whole = Plan.of(folder)
    for shard in range(whole.shards):
        ids = whole.ids_of(shard)
        rows = whole.rows(ids.start, ids.stop)
        if shard < whole.shards - LIVE_SHARDS:
            write_table(_done(rows), folder.shard_tiles(shard))
            write_table(_segments(ids), folder.segments(shard))
        _write_regions(folder, whole, shard)


def _done(rows: pa.Table) -> pa.Table:
    """Rows of tiles.parquet of tiles that went well."""
    count = len(rows)
    columns: dict[str, Any] = {name: np.zeros(count, int) for name in TILE_SCHEMA.names}
    columns |= {name: rows[name] for name in PLAN_SCHEMA.names}
    columns |= {"status": ["ok"] * count, "valid_pixels": np.full(count, TILE * TILE)}
    columns |= {"covered_pixels": columns["valid_pixels"] // 2, "segments": np.full(count, 4)}
    return pa.table(columns).select(TILE_SCHEMA.names).cast(TILE_SCHEMA)


@lru_cache(maxsize=4)
def _segments_of(tiles: int) -> pa.Table:
    """Segments of so many tiles, of a few kinds."""
    schema = segment_schema(128)
    images = [np.full((TILE, TILE, 3), kind, np.uint8) for kind in range(KINDS)]
    kinds = [StandInGenerator().describe(image) for image in images]
    tables = [tile_table(tile, kinds[tile % KINDS], schema) for tile in range(tiles)]
    return pa.concat_tables(tables).combine_chunks()


def _segments(ids: range) -> pa.Table:
    table = _segments_of(len(ids))
    own = pa.array(table["tile_id"].to_numpy() + ids.start)
    return table.set_column(0, table.schema.field(0), own)


@lru_cache(maxsize=8)
def _regions_of(count: int) -> pa.Table:
    columns: dict[str, Any] = {
        name: np.zeros(count, int)
        for name in REGION_SCHEMA.names
        if name not in ("colour", "tiles", "segments", "shares")
    }
    columns["area"] = np.full(count, TILE)
    columns["colour"] = pa.FixedSizeListArray.from_arrays(
        pa.array(np.ones(count * COLOUR_VALUES, np.float16)), COLOUR_VALUES
    )
    for name in ("tiles", "segments", "shares"):
        columns[name] = pa.array([[]] * count, REGION_SCHEMA.field(name).type)
    return pa.table(columns).select(REGION_SCHEMA.names).cast(REGION_SCHEMA)


def _write_regions(folder: RunFolder, whole: Plan, shard: int) -> None:
    sources = whole.group(shard).sources
    each = [len(tiles) * REGIONS for tiles in sources]
    index = np.repeat([tiles[0].source_index for tiles in sources], each).astype(np.int32)
    table = _regions_of(sum(each))
    table = table.set_column(0, table.schema.field(0), pa.array(index, pa.int32()))
    write_table(table, folder.regions(shard))


def segment(folder: RunFolder, tiles: int) -> None:
    """Go on with a run of which a few shards are missing."""
    with mock.patch.object(reading, "RasterReader", StandIn):
        segment_archive(folder, cast(MaskGenerator, StandInGenerator()), RUN)
    if shards_missing(folder):
        raise RuntimeError("shards are missing")


def collect(folder: RunFolder, tiles: int) -> None:
    """Write tiles.parquet."""
    collect_tiles(folder)


def cluster(folder: RunFolder, tiles: int) -> None:
    """Describe, fit and assign; vectors are drawn."""
    rng = np.random.default_rng(0)

    def drawn(folder: RunFolder, group: int, *rest: Any) -> None:
        with open_table(folder.regions(group)) as file:
            count = file.metadata.num_rows
        rows = np.zeros(count, vector_kind(VECTOR))
        rows["vector"] = rng.normal(size=(count, VECTOR)).astype(np.float16)
        rows["area"] = TILE
        np.save(folder.region_vectors(group), rows)

    with mock.patch.object(region_data, "write_vectors", drawn):
        cluster_archive(folder, ClusterSettings(clusters=CLUSTERS))


def paint(folder: RunFolder, tiles: int) -> None:
    """Enter all label maps in their journal."""
    counted = Counted.of(CLUSTERS)
    counted.pixels[:] = TILE

    def painted(painter: Painter, tiles: Any) -> Counted:
        return counted

    model = load_clusters(folder.clusters).model
    with (
        mock.patch.object(Painter, "_paint", painted),
        mock.patch.object(Painter, "_files", lambda *given: []),
    ):
        for _ in range(2):  # and once more, when all is done
            paint_archive(folder, model, "0", PaintSettings())


def report(folder: RunFolder, tiles: int) -> None:
    """Write the report, and sum up."""
    folder.update_run(done={"cluster": "0", "paint": "0"})
    with mock.patch.object(build, "draw_exemplars", lambda *given: {}):  # of rasters
        build_report(folder.root, read_tile=lambda *given: StandIn("").read(given[1]))
    summary = summarise(folder)
    if sum(summary.tiles.values()) != Plan.of(folder).tiles:
        raise RuntimeError("the summary lacks tiles")


def status(folder: RunFolder, tiles: int) -> None:
    """Ask how far the run is."""
    found = status_of(folder)
    if found.tiles is None or found.tiles.done != Plan.of(folder).tiles:
        raise RuntimeError("the status lacks tiles")


STAGES: Mapping[str, Callable[[RunFolder, int], None]] = {
    "plan": plan, "prepare": prepare, "segment": segment, "collect": collect, "cluster": cluster,
    "paint": paint, "report": report, "status": status,
}  # fmt: skip


def measured(stage: str, work: Path, tiles: int) -> dict[str, float]:
    """Run a stage as a process of its own; its peak in MB and its seconds."""
    words = [sys.executable, "-m", "alps.bench.scale", str(work), "--only", stage]
    began = time.perf_counter()
    process = subprocess.Popen([*words, "--tiles", str(tiles)])
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status):
        raise click.ClickException(f"{stage} of {tiles} tiles failed")
    return {"megabytes": usage.ru_maxrss / 1024, "seconds": time.perf_counter() - began}


def files_in(root: Path) -> tuple[int, int]:
    """How many files a run has, and how many at most lie in one folder."""
    counts = [len(files) for _, _, files in os.walk(root)]
    return sum(counts), max(counts)


@click.command()
@click.argument("work", type=click.Path(path_type=Path, file_okay=False))
@click.option("--tiles", multiple=True, type=click.IntRange(1), default=(10_000, 100_000))
@click.option("--only", type=click.Choice(list(STAGES)), help="This stage, in this process.")
@click.option("--json", "target", type=click.Path(path_type=Path), help="Write figures here too.")
def main(work: Path, tiles: tuple[int, ...], only: str | None, target: Path | None) -> None:
    """Label archives of so many TILES in WORK, stage by stage, and print what each takes."""
    torch.set_num_threads(1)
    if only is not None:
        with mock.patch.object(atomic.os, "fsync", lambda handle: None):
            STAGES[only](RunFolder(work / str(tiles[0])), tiles[0])
        return
    found: dict[str, Any] = {}
    for count in tiles:
        shutil.rmtree(work / str(count), ignore_errors=True)
        stages = {stage: measured(stage, work, count) for stage in STAGES}
        files, most = files_in(work / str(count))
        found[str(count)] = {"stages": stages, "files": files, "most_in_a_folder": most}
        click.echo(f"{count} tiles: {files} files, at most {most} in one folder")
        for stage, one in stages.items():
            million = one["seconds"] / count * 1e6
            click.echo(
                f"  {stage:8} {one['megabytes']:6.0f} MB  {one['seconds']:7.1f} s  "
                f"{million:7.0f} s a million tiles"
            )
    if target is not None:
        target.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
