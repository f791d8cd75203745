"""Cluster: fit k-means to the embeddings of a run folder and write each segment's class."""

from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from alps.engine.clustering import ClusterModel, fit_clusters
from alps.engine.errors import RunFolderError
from alps.engine.plan import shard_count
from alps.engine.progress import Progress
from alps.engine.run_folder import RunFolder, read_table, whole, write_table
from alps.engine.settings import ClusterSettings

# Embeddings up to this size stay in memory between passes, instead of being read again.
KEEP_BYTES = 1 << 30


class RunFolderEmbeddings:
    """The embeddings of a run folder, a piece a shard."""

    def __init__(self, folder: RunFolder) -> None:
        shards = range(shard_count(read_table(folder.plan, ["tile_id"])))
        self._paths = [folder.segments(shard) for shard in shards]
        tables = [read_table(path, ["segment_id"]) for path in self._paths]
        self.sizes = [table.num_rows for table in tables]
        schema = pq.read_schema(self._paths[0])
        self._channels = schema.field("embedding").type.list_size
        self._keep = sum(self.sizes) * self._channels * 2 <= KEEP_BYTES
        self._kept: dict[int, np.ndarray] = {}

    def __getitem__(self, index: int) -> np.ndarray:
        """(n, C) float16. Raises RunFolderError where one is not finite."""
        if index in self._kept:
            return self._kept[index]
        path = self._paths[index]
        vectors = _embeddings(read_table(path, ["embedding"]), self._channels)
        _refuse_unusable(vectors, path)
        if self._keep:
            self._kept[index] = vectors
        return vectors


def cluster_archive(folder: RunFolder, settings: ClusterSettings) -> ClusterModel:
    """Fit, write clusters.npz, and fill the columns ``cluster`` and ``margin``."""
    embeddings = RunFolderEmbeddings(folder)
    if sum(embeddings.sizes) == 0:
        raise RunFolderError(
            f"{folder.root} holds no segment to cluster: no mask passed the gate; lower "
            "--pred-iou-thresh or --stability-score-thresh (tiles.parquet has the reasons)"
        )
    model = fit_clusters(embeddings, settings)
    save_clusters(model, folder.clusters)
    with Progress(len(embeddings.sizes), "shards", "assigning") as progress:
        for shard in range(len(embeddings.sizes)):
            path = folder.segments(shard)
            table = read_table(path)
            labels, margin = model.assign(embeddings[shard])
            for name, values in (("cluster", labels), ("margin", margin)):
                at = table.schema.get_field_index(name)
                table = table.set_column(at, table.schema.field(at), pa.array(values))
            write_table(table, path)
            progress.advance(1)
    return model


def save_clusters(model: ClusterModel, path: Path) -> None:
    """Write clusters.npz."""
    with whole(path) as part, open(part, "wb") as file:
        np.savez(
            file,
            centroids=model.centroids,
            counts=model.counts,
            inertia=np.float64(model.inertia),
            normalised=np.bool_(model.normalised),
            seed=np.int64(model.seed),
        )


def load_clusters(path: Path) -> ClusterModel:
    """Read clusters.npz."""
    try:
        with np.load(path, allow_pickle=False) as data:
            return ClusterModel(
                data["centroids"],
                data["counts"],
                float(data["inertia"]),
                bool(data["normalised"]),
                int(data["seed"]),
            )
    except (OSError, EOFError, KeyError, ValueError, BadZipFile) as error:
        raise RunFolderError(f"cannot read clusters from {path}: {error}") from error


def _refuse_unusable(vectors: np.ndarray, path: Path) -> None:
    """Say whose embedding is not finite: it would spread to all centroids."""
    unusable = ~np.isfinite(vectors).all(1)
    if unusable.any():
        first = read_table(path, ["tile_id", "segment_id"]).slice(int(unusable.argmax()), 1)
        tile, segment = (column[0].as_py() for column in first.columns)
        raise RunFolderError(
            f"{path}: {unusable.sum()} of {len(vectors)} embeddings hold NaN or infinity, the "
            f"first that of tile {tile}, segment {segment}; the model's weights are damaged, or "
            "its embeddings leave the range of float16: segment into another OUT with another "
            "--model"
        )


def _embeddings(table: pa.Table, channels: int) -> np.ndarray:
    column = table.column("embedding").combine_chunks()
    values = column.flatten() if table.num_rows else pa.array([], pa.float16())
    return values.to_numpy(zero_copy_only=False).reshape(-1, channels)
