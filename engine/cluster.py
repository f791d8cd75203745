"""Cluster: fit k-means to the features of all segments of a run and write each one's class."""

from dataclasses import replace
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from alps.engine.clustering import ClusterModel, fit_clusters
from alps.engine.errors import RunFolderError
from alps.engine.features import FeatureModel, fit_features, read_segment_columns
from alps.engine.plan import shard_count
from alps.engine.progress import Progress
from alps.engine.run_folder import RunFolder, read_table, whole, write_table
from alps.engine.settings import ClusterSettings

# Features up to this size stay in memory between passes, instead of being read again.
KEEP_BYTES = 1 << 30


class RunFolderFeatures:
    """The feature vectors of a run folder, a piece a shard."""

    def __init__(self, folder: RunFolder, settings: ClusterSettings) -> None:
        plan = read_table(folder.plan, ["tile_id", "width", "height"])
        # Longer side of each tile, which the network's input is scaled to; ids count from 0.
        self._sides = np.maximum(*(plan.column(n).to_numpy() for n in ("width", "height")))
        self._paths = [folder.segments(shard) for shard in range(shard_count(plan))]
        self.sizes = [read_table(path, ["segment_id"]).num_rows for path in self._paths]
        pieces = (read_segment_columns(path, self._sides) for path in self._paths)
        self.model = fit_features(pieces, settings)
        channels = pq.read_schema(self._paths[0]).field("embedding").type.list_size
        width = channels + len(self.model.colour_scale)
        self._keep = sum(self.sizes) * width * 4 <= KEEP_BYTES
        self._kept: dict[int, np.ndarray] = {}

    def __getitem__(self, index: int) -> np.ndarray:
        """(n, D) float32. Raises RunFolderError where a row holds no number."""
        if index in self._kept:
            return self._kept[index]
        vectors = self.model.transform(read_segment_columns(self._paths[index], self._sides))
        if self._keep:
            self._kept[index] = vectors
        return vectors


def cluster_archive(folder: RunFolder, settings: ClusterSettings) -> ClusterModel:
    """Fit, write clusters.npz, and fill the columns ``cluster`` and ``margin``."""
    features = RunFolderFeatures(folder, settings)
    if sum(features.sizes) == 0:
        raise RunFolderError(
            f"{folder.root} holds no segment to cluster: no mask passed the gate; lower "
            "--pred-iou-thresh or --stability-score-thresh (tiles.parquet has the reasons)"
        )
    # Features are scaled already where that is asked for.
    fitted = fit_clusters(features, replace(settings, normalise=False))
    model = replace(fitted, features=features.model)
    save_clusters(model, folder.clusters)
    with Progress(len(features.sizes), "shards", "assigning") as progress:
        for shard in range(len(features.sizes)):
            path = folder.segments(shard)
            table = read_table(path)
            labels, margin = model.assign(features[shard])
            for name, values in (("cluster", labels), ("margin", margin)):
                at = table.schema.get_field_index(name)
                table = table.set_column(at, table.schema.field(at), pa.array(values))
            write_table(table, path)
            progress.advance(1)
    return model


def save_clusters(model: ClusterModel, path: Path) -> None:
    """Write clusters.npz, and with them how segments become vectors."""
    features = {} if model.features is None else model.features.arrays()
    features = {f"feature_{name}": values for name, values in features.items()}
    with whole(path) as part, open(part, "wb") as file:
        np.savez(
            file,
            centroids=model.centroids,
            counts=model.counts,
            inertia=np.float64(model.inertia),
            normalised=np.bool_(model.normalised),
            seed=np.int64(model.seed),
            **features,
        )


def load_clusters(path: Path) -> ClusterModel:
    """Read clusters.npz."""
    try:
        with np.load(path, allow_pickle=False) as data:
            prefix = "feature_"
            features = {n.removeprefix(prefix): data[n] for n in data if n.startswith(prefix)}
            return ClusterModel(
                data["centroids"],
                data["counts"],
                float(data["inertia"]),
                bool(data["normalised"]),
                int(data["seed"]),
                FeatureModel.from_arrays(features) if features else None,
            )
    except (OSError, EOFError, KeyError, ValueError, BadZipFile) as error:
        raise RunFolderError(f"cannot read clusters from {path}: {error}") from error
