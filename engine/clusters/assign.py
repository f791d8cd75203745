"""Cluster: fit k-means to the features of all regions of a run and write each one's class."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from alps.engine.base.atomic import whole
from alps.engine.base.errors import RunFolderError
from alps.engine.base.progress import Progress
from alps.engine.clusters import cuml
from alps.engine.clusters.file import save_clusters
from alps.engine.clusters.fit import (
    ClusterModel,
    Tally,
    fit_centroids,
    margin_of,
)
from alps.engine.clusters.region_data import RunRegions
from alps.engine.clusters.vectors import VectorFile
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.schemas import CLASS_SCHEMA
from alps.engine.run_folder.sums import record
from alps.engine.run_folder.tables import note_table
from alps.engine.settings import ClusterSettings
from alps.kernels import kmeans

AT_ONCE = 1 << 16  # regions of a row group of classes
Place = Callable[[np.ndarray], Any]  # puts an array where it is worked on


def cluster_archive(
    folder: RunFolder, settings: ClusterSettings, on_gpu: bool = False
) -> ClusterModel:
    """Fit, write cluster and margin of every region beside them, and clusters.npz.

    on_gpu: fit and assign there, with cuML where it is installed.
    """
    place: Place = _gpu_place() if on_gpu else np.asarray
    vectors = RunRegions(folder, settings, place)
    if vectors.count == 0:
        raise RunFolderError(
            f"{folder.root} holds no region to cluster: no tile has a valid pixel that could be "
            "read (tiles.parquet has the reasons)"
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
    with Progress(len(vectors.groups), "groups", "assigning") as progress:
        for group in vectors.groups:
            assign_group(folder, group, model, tally, settings.weight_by_area, place)
            progress.advance(1)
    model = replace(model, counts=tally.counts, inertia=tally.mean_inertia)
    save_clusters(model, folder.clusters, made_with(folder))
    record(folder, folder.clusters)
    return model


def made_with(folder: RunFolder) -> dict[str, Any]:
    """What the segments and regions of a run were made with, for clusters.npz."""
    if not folder.run_json.exists():
        return {}
    run = folder.read_run()
    return {
        "model": {name: run["model"][name] for name in ("name", "sha256")},
        "settings": {name: run["settings"][name] for name in ("source", "segment", "cluster")},
        "config_hash": run["config_hash"],
    }


def assign_group(
    folder: RunFolder,
    group: int,
    model: ClusterModel,
    tally: Tally | None = None,
    weight_by_area: bool = False,
    place: Place = np.asarray,
) -> None:
    """Write cluster and margin of each region of a group, in the order of its rows.

    Args:
        folder: whose regions have their vectors.
        group: of sources.
        model: of clusters.
        tally: counts what was assigned.
        weight_by_area: in that tally.
        place: puts vectors where they are worked on.
    """
    if model.features is None:
        raise ValueError("clusters without features assign no regions")
    vectors = VectorFile(folder.region_vectors(group))
    path = folder.region_classes(group)
    path.parent.mkdir(exist_ok=True)
    with (
        whole(path) as part,
        pq.ParquetWriter(part, CLASS_SCHEMA, compression="zstd") as writer,
    ):
        for start in range(0, vectors.count, AT_ONCE):
            own, area = vectors.read(start, min(AT_ONCE, vectors.count - start))
            weights = place(area) if weight_by_area else None
            found = kmeans.assign(place(own), model.centroids, weights)
            if tally is not None:
                tally.add(found)
            found = replace(found, nearest=_on_host(found.nearest), second=_on_host(found.second))
            columns = {"cluster": _on_host(found.labels), "margin": margin_of(found)}
            writer.write_table(pa.table(columns, schema=CLASS_SCHEMA))
    note_table(path)


def usable_gpu() -> bool:
    """Whether compiled kernels can run on a GPU here; the simulator is none."""
    try:
        from alps.kernels.base.numba_cuda import cuda, numba_config

        return not numba_config.ENABLE_CUDASIM and bool(cuda.is_available())
    except ImportError:  # numba-cuda comes with the extras cuda12 and cuda13
        return False


def _gpu_place() -> Place:
    from numba import cuda

    return lambda array: cuda.to_device(np.ascontiguousarray(array))


def _on_host(array: Any) -> np.ndarray:
    return array if isinstance(array, np.ndarray) else array.copy_to_host()
