"""k-means beside its peers, and over an archive that does not fit in memory.

    python -m alps.bench.labels.clusters fit              # 1 M x 256 float16, K = 46 and 512
    python -m alps.bench.labels.clusters stream FOLDER    # 10 M x 256 in FOLDER/run, some 7 GB

Both print Markdown, and append it to --results FILE. ``fit`` times all sides in one process, one
after the other, on the same vectors (``alps.bench.kernels.mixture``), and takes the inertia of each
side's centroids over all of them with one and the same evaluator. ``stream`` writes a run folder,
and clusters it in a process of its own whose peak memory is what the system counted.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from alps.bench import machine
from alps.bench.kernels.mixture import mixture
from alps.engine.clusters.data import MemoryVectors
from alps.engine.clusters.fit import fit_centroids
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.plan import SHARD_TILES
from alps.engine.run_folder.region_schemas import BORDER_SCHEMA, REGION_SCHEMA
from alps.engine.run_folder.schemas import COLOUR_VALUES, PLAN_SCHEMA, segment_schema
from alps.engine.run_folder.tables import write_table
from alps.engine.settings import ClusterSettings
from alps.kernels import kmeans
from alps.kernels.base.threads import threads

T = TypeVar("T")

CHANNELS = 256
SHARD_ROWS = 50_000  # of the streamed archive
DISTINCT_ROWS = 1_000_000  # of it; then they come again, in other places and with other colours
BATCHES = (4096,)  # of MiniBatchKMeans; scikit-learn's 1024 and four times as many did no better
REPEATS = 3  # of one pass, of which the fastest counts


@click.group()
def main() -> None:
    """k-means beside its peers."""


@main.command()
@click.option("--rows", default=1_000_000, show_default=True)
@click.option("--clusters", default=(46, 512), show_default=True, multiple=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--results", type=click.Path(path_type=Path, dir_okay=False))
def fit(rows: int, clusters: tuple[int, ...], seed: int, results: Path | None) -> None:
    """Our fit beside scikit-learn's MiniBatchKMeans and FAISS's Kmeans, at their inertia."""
    halves = mixture(CHANNELS).array(rows, seed + 1)
    began = time.perf_counter()
    floats = halves.astype(np.float32)
    converted = time.perf_counter() - began
    gemm, copy = machine.gemm_rate(), machine.copy_bandwidth()
    lines = [
        f"## {rows:,} x {CHANNELS} in memory",
        "",
        f"{machine.describe(gemm_flops=gemm)}; memory copy {copy / 1e9:.1f} GB/s.",
        "",
        "Seconds are of fitting centroids alone: no labels of all vectors on any side "
        f"(`compute_labels=False`). Ours takes float16 as it is; the others were handed float32, "
        f"which cost another {converted:.1f} s that is not counted. Inertia is the mean squared "
        "distance over all vectors, each side's centroids by the same pass.",
        "",
        "| K | side | seconds | ours is faster | inertia | to ours |",
        "|---|---|---|---|---|---|",
    ]
    for k in clusters:
        lines += _table(k, halves, floats, seed)
    lines += [
        "",
        "One pass, assignment and partial sums together (float16 in, "
        "labels, both distances, sums and counts out):",
        "",
        "| K | seconds | GFLOP/s | of GEMM | GB/s | of copy |",
        "|---|---|---|---|---|---|",
    ]
    for k in clusters:
        centroids = floats[:k].copy()
        kmeans.assign(halves[:4096], centroids)
        seconds = min(_timed(partial(kmeans.assign, halves, centroids))[0] for _ in range(REPEATS))
        flops = 2 * rows * k * CHANNELS / seconds
        moved = (halves.nbytes + 12 * rows) / seconds
        lines.append(
            f"| {k} | {seconds:.2f} | {flops / 1e9:.0f} | {flops / gemm:.0%} | "
            f"{moved / 1e9:.2f} | {moved / copy:.0%} |"
        )
    _publish(lines, results)


def _table(k: int, halves: np.ndarray, floats: np.ndarray, seed: int) -> list[str]:
    rows = []
    for name, run in _sides(k, halves, floats, seed):
        seconds, centroids = _timed(run)
        rows.append((name, seconds, kmeans.assign(halves, centroids).inertia / len(halves)))
        click.echo(f"{k} {name}: {seconds:.2f} s, {rows[-1][2]:.3f}", err=True)
    own = rows[0]
    return [
        f"| {k} | {name} | {seconds:.2f} | {seconds / own[1]:.1f} x | {inertia:.3f} | "
        f"{inertia / own[2] - 1:+.2%} |"
        for name, seconds, inertia in rows
    ]


def _sides(
    k: int, halves: np.ndarray, floats: np.ndarray, seed: int
) -> Iterator[tuple[str, Callable[[], np.ndarray]]]:
    from sklearn.cluster import MiniBatchKMeans

    fit_centroids(MemoryVectors(halves[: 8 * k]), ClusterSettings(clusters=k))  # compile
    kmeans.assign(floats[:4096], floats[:2].copy())
    settings = ClusterSettings(clusters=k, seed=seed)
    yield "ours", lambda: fit_centroids(MemoryVectors(halves), settings)
    for batch in BATCHES:

        def theirs(batch: int = batch) -> np.ndarray:
            model = MiniBatchKMeans(
                k, batch_size=batch, n_init=1, random_state=seed, compute_labels=False
            )
            return model.fit(floats).cluster_centers_.astype(np.float32)

        yield f"scikit-learn MiniBatchKMeans, batch_size={batch}, n_init=1", theirs
    try:
        import faiss
    except ImportError:
        click.echo("faiss-cpu is not installed: no row of it (extra bench)", err=True)
        return
    for points, iterations in ((256, 25), (1024, 25)):

        def of_faiss(points: int = points, iterations: int = iterations) -> np.ndarray:
            model = faiss.Kmeans(
                CHANNELS, k, niter=iterations, seed=seed, max_points_per_centroid=points
            )
            model.train(floats)
            return model.centroids

        yield f"FAISS Kmeans, niter={iterations}, max_points_per_centroid={points}", of_faiss


@main.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--rows", default=10_000_000, show_default=True)
@click.option("--clusters", default=46, show_default=True)
@click.option("--results", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--only-write", is_flag=True, help="Write the archive, and cluster it another time.")
def stream(folder: Path, rows: int, clusters: int, results: Path | None, only_write: bool) -> None:
    """Cluster a run folder whose embeddings do not fit in memory; report the peak of that."""
    root = folder / "run"
    began = time.perf_counter()
    if not (root / "whole").exists():
        write_archive(root, rows)
        (root / "whole").touch()
        click.echo(f"written in {time.perf_counter() - began:.0f} s", err=True)
    if only_write:
        return
    folders = (root / "segments", root / "regions")
    written = sum(path.stat().st_size for one in folders for path in one.iterdir())
    command = [
        sys.executable,
        "-m",
        "alps.bench.labels.clusters",
        "child",
        str(root),
        str(clusters),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    found = json.loads(done.stdout.splitlines()[-1])
    _publish(
        [
            f"## {rows:,} x {CHANNELS} float16 streamed from Parquet",
            "",
            f"{machine.cpu_name()}, {threads()} threads. {written / 1e9:.1f} GB in "
            f"{-(-rows // SHARD_ROWS)} shards, as many regions as segments, each of which saw "
            "two; features as `alps cluster` makes them (position removed, blended, whitened, with "
            f"colour), K = {clusters}; {min(rows, DISTINCT_ROWS):,} embeddings are different ones. "
            "A process of its own:",
            "",
            f"- peak resident memory {found['peak'] / 1e9:.2f} GB, of which "
            f"{found['before'] / 1e9:.2f} GB once everything was imported",
            f"- features fitted, in one pass over all rows: {found['features']:.0f} s",
            f"- centroids fitted: {found['fit']:.0f} s",
            f"- all rows assigned, and their classes written: {found['assign']:.0f} s "
            f"({rows / found['assign'] / 1e6:.2f} M rows a second); inertia {found['inertia']:.4f}",
        ],
        results,
    )


@main.command(hidden=True)
@click.argument("root", type=click.Path(path_type=Path))
@click.argument("clusters", type=int)
def child(root: Path, clusters: int) -> None:
    """One clustering, with its seconds and peak memory as JSON."""
    import resource

    from alps.engine.clusters import assign as cluster

    def peak() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    before, marks = peak(), [time.perf_counter()]
    real = {name: getattr(cluster, name) for name in ("RunRegions", "fit_centroids")}

    def marked(name: str) -> Callable:
        def call(*args: object) -> object:
            result = real[name](*args)
            marks.append(time.perf_counter())
            return result

        return call

    for name in real:
        setattr(cluster, name, marked(name))
    model = cluster.cluster_archive(RunFolder(root), ClusterSettings(clusters=clusters))
    marks.append(time.perf_counter())
    features, fitted, assigned = np.diff(marks)
    found = {
        "peak": peak(),
        "before": before,
        "features": features,
        "fit": fitted,
        "assign": assigned,
        "inertia": model.inertia,
    }
    click.echo(json.dumps(found))


def write_archive(root: Path, rows: int) -> None:
    """A run folder with ``rows`` segments and regions of a made-up archive: one source a shard."""
    folder = RunFolder(root)
    for name in ("journal", "segments", "regions"):
        (root / name).mkdir(parents=True)
    shards = -(-rows // SHARD_ROWS)
    blank = {"source": "a.png", "path": "a.png", "label": "a.png", "reason": ""}
    size = {"source_width": 1024, "source_height": 1024, "width": 1024, "height": 1024}
    plan = [
        {"tile_id": tile, "source_index": tile // SHARD_TILES, "x": 0, "y": 0, **blank, **size}
        for tile in range(shards * SHARD_TILES)
    ]
    write_table(pa.Table.from_pylist(plan, schema=PLAN_SCHEMA), folder.plan)
    rng = np.random.default_rng(0)
    drawn = list(mixture(CHANNELS).pieces(min(rows, DISTINCT_ROWS), 7, SHARD_ROWS))
    for shard in range(shards):
        vectors = drawn[shard % len(drawn)][: rows - shard * SHARD_ROWS]
        segments, regions = _tables(shard, vectors, rng)
        pq.write_table(segments, folder.segments(shard), compression="zstd")
        pq.write_table(regions, folder.regions(shard), compression="zstd")
        pq.write_table(_borders(shard, len(vectors)), folder.borders(shard), compression="zstd")


def _borders(source: int, count: int) -> pa.Table:
    """Borders of ``count`` regions in a row."""
    region = np.arange(max(count - 1, 0))
    columns = {
        "source_index": np.full(len(region), source),
        "region": region,
        "other": region + 1,
        "length": np.full(len(region), 16),
        "contrast": np.full(len(region), 5, np.float16),
    }
    return pa.table(columns).cast(BORDER_SCHEMA)


def _tables(shard: int, vectors: np.ndarray, rng: np.random.Generator) -> tuple[pa.Table, pa.Table]:
    """Segments with embeddings (n, C), shared out among a shard's tiles, and n regions of them."""
    count = len(vectors)
    tile = np.arange(count) * SHARD_TILES // count
    number = np.arange(count) - np.searchsorted(tile, tile)
    colour = _lists(rng.normal(50, 20, (count, COLOUR_VALUES)).astype(np.float16))
    area = rng.integers(20, 20_000, count)
    centre = rng.uniform(0, 1024, (2, count))
    segments = {
        "tile_id": shard * SHARD_TILES + tile,
        "segment_id": number,
        "area": area,
        "embedding": _lists(vectors),
        "colour": colour,
        "centre_x": centre[0],
        "centre_y": centre[1],
    }
    # Of each segment a region, which another window's segment saw as well.
    saw = np.stack([np.arange(count), rng.permutation(count)], axis=1).ravel()
    starts = (2 * np.arange(count + 1)).astype(np.int32)
    regions = {
        "source_index": np.full(count, shard),
        "area": area,
        "colour": colour,
        "tiles": pa.ListArray.from_arrays(starts, segments["tile_id"][saw]),
        "segments": pa.ListArray.from_arrays(starts, number[saw].astype(np.int32)),
        "shares": pa.ListArray.from_arrays(
            starts, np.tile(np.array([0.7, 0.3], np.float32), count)
        ),
    }
    return _filled(segments, segment_schema(CHANNELS)), _filled(regions, REGION_SCHEMA)


def _filled(columns: dict[str, Any], schema: pa.Schema) -> pa.Table:
    """A table of a schema whose other columns hold nothing."""
    count = len(columns["area"])
    for field in schema:
        empty = b"" if pa.types.is_binary(field.type) else 0
        values = columns.get(field.name, np.full(count, empty))
        columns[field.name] = pa.array(values).cast(field.type)
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)


def _lists(values: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def _publish(lines: list[str], results: Path | None) -> None:
    text = "\n".join(lines) + "\n"
    click.echo(text)
    if results is not None:
        with open(results, "a", encoding="utf-8") as file:
            file.write("\n" + text)


if __name__ == "__main__":
    main()
