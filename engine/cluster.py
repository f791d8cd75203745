"""Cluster: fit k-means to the embeddings of a run folder and write each segment's class."""

from dataclasses import replace
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from alps.engine.clustering import ClusterModel, fit_clusters
from alps.engine.errors import RunFolderError
from alps.engine.plan import shard_count
from alps.engine.position import PositionEffect, fit_position_effect
from alps.engine.progress import Progress
from alps.engine.run_folder import RunFolder, read_table, whole, write_table
from alps.engine.settings import ClusterSettings

# Embeddings up to this size stay in memory between passes, instead of being read again.
KEEP_BYTES = 1 << 30


class RunFolderEmbeddings:
    """The embeddings of a run folder, a piece a shard, without their position where asked."""

    def __init__(self, folder: RunFolder) -> None:
        plan = read_table(folder.plan, ["tile_id", "width", "height"])
        # Longer side of each tile, which the network's input is scaled to; ids count from 0.
        self._sides = np.maximum(*(plan.column(n).to_numpy() for n in ("width", "height")))
        self._paths = [folder.segments(shard) for shard in range(shard_count(plan))]
        self._position: PositionEffect | None = None
        tables = [read_table(path, ["segment_id"]) for path in self._paths]
        self.sizes = [table.num_rows for table in tables]
        schema = pq.read_schema(self._paths[0])
        self._channels = schema.field("embedding").type.list_size
        self._keep = sum(self.sizes) * self._channels * 4 <= KEEP_BYTES
        self._kept: dict[int, np.ndarray] = {}

    def __getitem__(self, index: int) -> np.ndarray:
        """(n, C) floating point. Raises RunFolderError where one is not finite."""
        if index in self._kept:
            return self._kept[index]
        vectors, places = self._read(index)
        if self._position is not None:
            vectors = self._position.remove(vectors, places)
        if self._keep:
            self._kept[index] = vectors
        return vectors

    def without_position(self) -> PositionEffect:
        """From now on yield embeddings without what their place predicts; returns the effect."""
        pieces = (self._read(index) for index in range(len(self.sizes)))
        self._position = fit_position_effect(pieces, sum(self.sizes))
        self._kept.clear()
        return self._position

    def _read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Embeddings (n, C) float16 and the middles of their boxes (n, 2), 1 the longer side."""
        path = self._paths[index]
        table = read_table(path, ["tile_id", "x", "y", "width", "height", "embedding"])
        vectors = _embeddings(table, self._channels)
        _refuse_unusable(vectors, path)
        column = {name: table.column(name).to_numpy() for name in table.column_names[:5]}
        middle = np.stack(
            [column["x"] + column["width"] / 2, column["y"] + column["height"] / 2], axis=1
        )
        return vectors, middle / self._sides[column["tile_id"]][:, None]


def cluster_archive(folder: RunFolder, settings: ClusterSettings) -> ClusterModel:
    """Fit, write clusters.npz, and fill the columns ``cluster`` and ``margin``."""
    embeddings = RunFolderEmbeddings(folder)
    if sum(embeddings.sizes) == 0:
        raise RunFolderError(
            f"{folder.root} holds no segment to cluster: no mask passed the gate; lower "
            "--pred-iou-thresh or --stability-score-thresh (tiles.parquet has the reasons)"
        )
    position = embeddings.without_position() if settings.remove_position else None
    model = replace(fit_clusters(embeddings, settings), position=position)
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
    """Write clusters.npz; ``position`` is there where it was removed."""
    position = {} if model.position is None else {"position": model.position.coefficients}
    with whole(path) as part, open(part, "wb") as file:
        np.savez(
            file,
            centroids=model.centroids,
            counts=model.counts,
            inertia=np.float64(model.inertia),
            normalised=np.bool_(model.normalised),
            seed=np.int64(model.seed),
            **position,
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
                PositionEffect(data["position"]) if "position" in data else None,
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
