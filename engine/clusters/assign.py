"""Cluster: fit k-means to the features of all segments of a run and write each one's class."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from alps.engine.base.atomic import whole
from alps.engine.base.errors import RunFolderError
from alps.engine.base.progress import Progress
from alps.engine.clusters import cuml
from alps.engine.clusters.features import refuse_unusable, segment_columns
from alps.engine.clusters.file import save_clusters
from alps.engine.clusters.fit import (
    ClusterModel,
    Tally,
    fit_centroids,
    margin_of,
)
from alps.engine.clusters.segment_data import RunVectors
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.tables import open_table
from alps.engine.settings import ClusterSettings
from alps.kernels import kmeans

Place = Callable[[np.ndarray], Any]  # puts an array where it is worked on


def cluster_archive(
    folder: RunFolder, settings: ClusterSettings, on_gpu: bool = False
) -> ClusterModel:
    """Fit, fill the columns ``cluster`` and ``margin``, and write clusters.npz.

    on_gpu: fit and assign there, with cuML where it is installed.
    """
    place: Place = _gpu_place() if on_gpu else np.asarray
    vectors = RunVectors(folder, settings, place)
    if vectors.count == 0:
        raise RunFolderError(
            f"{folder.root} holds no segment to cluster: no mask passed the gate; lower "
            "--pred-iou-thresh or --stability-score-thresh (tiles.parquet has the reasons)"
        )
    theirs = cuml.kmeans_class() if on_gpu else None
    if theirs is None:
        centroids = fit_centroids(vectors, settings)
    else:
        centroids = cuml.fit_centroids(vectors, settings, theirs)
    model = ClusterModel(
        centroids, np.zeros(len(centroids), np.int64), 0.0, settings.seed, vectors.model
    )
    tally = Tally(len(centroids))
    with Progress(len(vectors.paths), "shards", "assigning") as progress:
        for path in vectors.paths:
            _assign_file(path, model, vectors.sides, tally, settings.weight_by_area, place)
            progress.advance(1)
    model = replace(model, counts=tally.counts, inertia=tally.mean_inertia)
    save_clusters(model, folder.clusters, made_with(folder))
    return model


def made_with(folder: RunFolder) -> dict[str, Any]:
    """What the segments of a run were made with, for clusters.npz."""
    if not folder.run_json.exists():
        return {}
    run = folder.read_run()
    return {
        "model": {name: run["model"][name] for name in ("name", "sha256")},
        "settings": {name: run["settings"][name] for name in ("source", "segment", "cluster")},
        "config_hash": run["config_hash"],
    }


def assign_table(
    table: pa.Table,
    model: ClusterModel,
    sides: np.ndarray,
    path: Path,
    tally: Tally | None = None,
    weight_by_area: bool = False,
    place: Place = np.asarray,
) -> pa.Table:
    """Fill ``cluster`` and ``margin`` of segments.

    Args:
        table: segments, all columns.
        model: with features.
        sides: (T,) longer side of the window of each tile id.
        path: of their file, for errors.
        tally: counts what was assigned.
        weight_by_area: in that tally.
        place: puts vectors where they are worked on.
    """
    columns = segment_columns(table, sides)
    refuse_unusable(columns, path)
    weights = place(columns.area.astype(np.float32)) if weight_by_area else None
    features = model.features
    if features is None:
        raise ValueError("clusters without features assign no segments")
    found = kmeans.assign(place(features.transform(columns)), model.centroids, weights)
    if tally is not None:
        tally.add(found)
    found = replace(found, **{n: _on_host(getattr(found, n)) for n in ("nearest", "second")})
    for name, values in (("cluster", _on_host(found.labels)), ("margin", margin_of(found))):
        at = table.schema.get_field_index(name)
        table = table.set_column(at, table.schema.field(at), pa.array(values))
    return table


def _assign_file(
    path: Path,
    model: ClusterModel,
    sides: np.ndarray,
    tally: Tally,
    weight_by_area: bool,
    place: Place,
) -> None:
    """Rewrite a file of segments/, row group by row group."""
    with (
        open_table(path) as file,
        whole(path) as part,
        pq.ParquetWriter(part, file.schema_arrow, compression="zstd") as writer,
    ):
        for group in range(file.num_row_groups):
            table = file.read_row_group(group)
            writer.write_table(
                assign_table(table, model, sides, path, tally, weight_by_area, place)
            )


def usable_gpu() -> bool:
    """Whether compiled kernels can run on a GPU here; the simulator is none."""
    try:
        from numba import config, cuda

        return not config.ENABLE_CUDASIM and bool(cuda.is_available())
    except ImportError:  # numba-cuda comes with the extras cuda12 and cuda13
        return False


def _gpu_place() -> Place:
    from numba import cuda

    return lambda array: cuda.to_device(np.ascontiguousarray(array))


def _on_host(array: Any) -> np.ndarray:
    return array if isinstance(array, np.ndarray) else array.copy_to_host()
