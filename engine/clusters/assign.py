"""Cluster: fit k-means to the features of all regions of a run and write each one's class.

A cluster that somebody splits is clustered by itself; nothing else changes class.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from alps.engine.base.atomic import whole
from alps.engine.base.errors import RunFolderError, SettingsError
from alps.engine.base.progress import Progress
from alps.engine.clusters import cuml
from alps.engine.clusters.data import MemoryVectors, to_host
from alps.engine.clusters.file import save_clusters
from alps.engine.clusters.fit import (
    ClusterModel,
    Counted,
    SplitCluster,
    Tally,
    fit_centroids,
    margin_of,
)
from alps.engine.clusters.region_data import RunRegions, WriteVectors
from alps.engine.clusters.vectors import VectorFile, vectors_of
from alps.engine.naming.names import Split
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.plan import Plan
from alps.engine.run_folder.schemas import CLASS_SCHEMA
from alps.engine.run_folder.sums import is_right, record
from alps.engine.run_folder.tables import note_table
from alps.engine.settings import ClusterSettings
from alps.engine.workers.protocol import Alone, Crew, Tell, in_order, nothing_to_tell
from alps.kernels import kmeans

AT_ONCE = 1 << 16  # regions of a row group of classes
SAMPLE_ROWS = 1 << 16  # regions of a cluster that its parts are fitted to
Place = Callable[[np.ndarray], Any]  # puts an array where it is worked on


def cluster_archive(
    folder: RunFolder,
    settings: ClusterSettings,
    on_gpu: bool = False,
    crew: Crew | None = None,
) -> ClusterModel:
    """Fit, write cluster and margin of every region beside them, and clusters.npz.

    on_gpu: fit and assign there, with cuML where it is installed. crew: describes regions and
    assigns them; fitting is done here.
    """
    place: Place = _gpu_place() if on_gpu else np.asarray
    crew = crew or Alone()
    try:
        vectors = RunRegions(folder, settings, place, crew)
        if vectors.count == 0:
            raise RunFolderError(
                f"{folder.root} holds no region to cluster: no tile has a valid pixel that could "
                "be read (tiles.parquet has the reasons)"
            )
        theirs = cuml.kmeans_class() if on_gpu else None
        if theirs is None:
            centroids = fit_centroids(vectors, settings)
        else:
            centroids = cuml.fit_centroids(vectors, settings, theirs)
    except ValueError as error:  # numbers that are none, of which no sum comes to anything
        raise RunFolderError(
            f"the regions of {folder.root} cannot be clustered: {error}; alps verify "
            f"{folder.root} --repair finds what is damaged"
        ) from error
    model = ClusterModel(
        centroids, np.zeros(len(centroids), np.int64), 0.0, settings.seed, vectors.model
    )
    tally = Tally(len(centroids))
    job = AssignGroups(folder.root, model, settings.weight_by_area)
    with Progress(len(vectors.groups), "groups", "assigning") as progress:
        found: Iterator[tuple[int, list[Counted]]]
        if on_gpu:
            found = (
                (group, assign_group(folder, group, model, settings.weight_by_area, place))
                for group in vectors.groups
            )
        else:
            found = crew.carry_out(job, vectors.groups, nothing_to_tell)
        for _, counted in in_order(found, vectors.groups):
            for one in counted:
                tally.add(one)
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
    weight_by_area: bool = False,
    place: Place = np.asarray,
) -> list[Counted]:
    """Write cluster and margin of each region of a group, in the order of its rows.

    Args:
        folder: whose regions have their vectors.
        group: of sources.
        model: of clusters.
        weight_by_area: in what is counted.
        place: puts vectors where they are worked on.

    Returns what the centroids got, batch by batch.
    """
    if model.features is None:
        raise ValueError("clusters without features assign no regions")
    vectors = VectorFile(folder.region_vectors(group))
    path = folder.region_classes(group)
    path.parent.mkdir(exist_ok=True)
    counted = []
    with (
        whole(path) as part,
        pq.ParquetWriter(part, CLASS_SCHEMA, compression="zstd") as writer,
    ):
        for start in range(0, vectors.count, AT_ONCE):
            own, area = vectors.read(start, min(AT_ONCE, vectors.count - start))
            weights = place(area) if weight_by_area else None
            there = place(own)
            found = kmeans.assign(there, model.centroids, weights)
            counted.append(Counted.of(found))
            found = replace(found, nearest=to_host(found.nearest), second=to_host(found.second))
            labels, margin = model.divided(there, to_host(found.labels), margin_of(found))
            columns = {"cluster": labels, "margin": margin}
            writer.write_table(pa.table(columns, schema=CLASS_SCHEMA))
    note_table(path)
    return counted


@dataclass(frozen=True)
class AssignGroups:
    """Cluster and margin of the regions of groups, as a job of a crew; results as ``assign_group``.

    with_vectors: vectors that are not there, or not what was written, are written first.
    """

    root: Path
    model: ClusterModel
    weight_by_area: bool = False
    with_vectors: bool = False

    def run(self, numbers: Iterator[int], tell: Tell) -> Iterator[tuple[int, list[Counted]]]:
        """See ``Job``."""
        folder = RunFolder(self.root)
        for group in numbers:
            if self.with_vectors:
                vectors_of(folder, group, self.model.known_features())
            yield group, assign_group(folder, group, self.model, self.weight_by_area)

    def words(self, number: int) -> str:
        """See ``Job``."""
        return f"regions of group {number}"


def with_splits(
    folder: RunFolder, model: ClusterModel, wanted: Sequence[Split], settings: ClusterSettings
) -> ClusterModel:
    """A model whose clusters are split as is wanted; what is split so already is taken over.

    Args:
        folder: whose regions the parts of a cluster are fitted to.
        model: of the clusters.
        wanted: in order; a part may be split again.
        settings: that the clusters were fitted with.

    Raises SettingsError where a cluster has fewer regions than it is to have parts.
    """
    known = {split.numbers: split for split in model.splits}
    found = replace(model, splits=())
    new: set[int] = set()  # parts of what is fitted anew, and whose own parts are so too
    for one in wanted:
        split = None if one.cluster in new else known.get(one.into)
        if split is None:
            split = _fitted(folder, found, one, settings)
            new.update(one.into)
        found = replace(found, splits=(*found.splits, split))
    return found


def assign_archive(folder: RunFolder, model: ClusterModel, crew: Crew | None = None) -> None:
    """Write cluster and margin of every region of a run anew."""
    groups = _groups(folder)
    job = AssignGroups(folder.root, model, with_vectors=True)
    with Progress(len(groups), "groups", "assigning") as progress:
        for _ in (crew or Alone()).carry_out(job, groups, nothing_to_tell):
            progress.advance(1)


def assign_missing(folder: RunFolder, model: ClusterModel, crew: Crew | None = None) -> None:
    """Write cluster and margin of regions of groups that have none, or not the right ones."""
    groups = [g for g in _groups(folder) if not is_right(folder, folder.region_classes(g))]
    jobs = WriteVectors(folder.root, model.known_features()), AssignGroups(folder.root, model)
    with Progress(len(jobs) * len(groups), "groups", "assigning") as progress:
        for job in jobs:
            for _ in (crew or Alone()).carry_out(job, groups, nothing_to_tell):
                progress.advance(1)


def _groups(folder: RunFolder) -> list[int]:
    return Plan.of(folder).group_numbers()


def _fitted(
    folder: RunFolder, model: ClusterModel, split: Split, settings: ClusterSettings
) -> SplitCluster:
    parts = len(split.into)
    vectors, area = _sample(folder, model, split.cluster)
    if len(vectors) < parts:
        raise SettingsError(
            f"cluster {split.cluster} has {len(vectors)} regions, and cannot be split into {parts}"
        )
    data = MemoryVectors(vectors, area if settings.weight_by_area else None)
    return SplitCluster(split.into, fit_centroids(data, replace(settings, clusters=parts)))


def _sample(folder: RunFolder, model: ClusterModel, cluster: int) -> tuple[np.ndarray, np.ndarray]:
    """Vectors (n, D) float32 and areas (n,) of a cluster's regions, drawn over the archive."""
    rng = np.random.default_rng(model.seed)
    width = model.centroids.shape[1]
    lots, vectors, area = np.zeros(0), np.zeros((0, width), np.float32), np.zeros(0, np.float32)
    groups = _groups(folder)
    with Progress(len(groups), "groups", f"cluster {cluster}") as progress:
        for group in groups:
            file = vectors_of(folder, group, model.known_features())
            for start in range(0, file.count, AT_ONCE):
                some, pixels = file.read(start, min(AT_ONCE, file.count - start))
                own = np.flatnonzero(model.assign(some)[0] == cluster)
                # Those of the lowest lots of all are an even draw, wherever they lie.
                lots = np.concatenate([lots, rng.random(len(own))])
                lowest = np.sort(np.argsort(lots, kind="stable")[:SAMPLE_ROWS])
                lots = lots[lowest]
                vectors = np.concatenate([vectors, some[own]])[lowest]
                area = np.concatenate([area, pixels[own]])[lowest]
            progress.advance(1)
    return vectors, area


def _gpu_place() -> Place:
    from numba import cuda

    return lambda array: cuda.to_device(np.ascontiguousarray(array))
