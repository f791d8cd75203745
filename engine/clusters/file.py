"""clusters.npz: centroids, and all that is needed to bring another archive's regions to them."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from alps.engine.base.atomic import whole
from alps.engine.base.errors import RunFolderError, SettingsError
from alps.engine.clusters.features import FeatureModel
from alps.engine.clusters.fit import ClusterModel

PREFIX = "feature_"
# Settings, besides the model, that decide what an embedding is; the gate only decides which there
# are.
DECIDING = {"source": ("tile", "bands"), "segment": ("precision", "superpixels")}


@dataclass(frozen=True)
class ClusterFile:
    """The content of clusters.npz."""

    model: ClusterModel
    # What segments and regions were made with: {"model": {"name", "sha256"}, "settings":
    # {"source", "segment", "cluster"}, "config_hash"}; empty where it is not known.
    made_with: Mapping[str, Any]

    @property
    def sha256(self) -> str:
        """Of all that decides an assignment."""
        digest = hashlib.sha256(self.model.centroids.tobytes())
        if self.model.features is not None:
            for name, values in sorted(self.model.features.arrays().items()):
                digest.update(name.encode() + np.asarray(values).tobytes())
        return digest.hexdigest()


def save_clusters(model: ClusterModel, path: Path, made_with: Mapping[str, Any]) -> None:
    """Write clusters.npz whole or not at all; the same clusters give the same bytes."""
    features = {} if model.features is None else model.features.arrays()
    arrays: dict[str, Any] = {
        "centroids": model.centroids,
        "counts": model.counts,
        "inertia": np.float64(model.inertia),
        "seed": np.int64(model.seed),
        "made_with": np.array(json.dumps(made_with, sort_keys=True)),
    }
    arrays |= {PREFIX + name: values for name, values in features.items()}
    with whole(path) as part, open(part, "wb") as file:
        np.savez(file, **arrays)


def load_clusters(path: Path) -> ClusterFile:
    """Read clusters.npz. Raises RunFolderError where it is none."""
    try:
        with np.load(path, allow_pickle=False) as data:
            features = {n.removeprefix(PREFIX): data[n] for n in data if n.startswith(PREFIX)}
            model = ClusterModel(
                data["centroids"],
                data["counts"],
                float(data["inertia"]),
                int(data["seed"]),
                FeatureModel.from_arrays(features) if features else None,
            )
            return ClusterFile(model, json.loads(str(data["made_with"])))
    except (OSError, EOFError, KeyError, ValueError, BadZipFile) as error:
        raise RunFolderError(
            f"cannot read clusters from {path}: {error}; make it anew with: alps cluster OUT, or "
            "alps fit-clusters SRC FILE"
        ) from error


def refuse_others(
    clusters: ClusterFile, path: Path, model: Mapping[str, Any], settings: Mapping[str, Any]
) -> None:
    """Raise SettingsError where clusters were fitted to another kind of embeddings.

    Args:
        clusters: what was read from ``path``.
        path: named in the error.
        model: ``name`` and ``sha256`` of the one that segments now.
        settings: of the run now, filled in, as plain values.
    """
    then = clusters.made_with
    if not then or clusters.model.features is None:
        raise SettingsError(
            f"{path} does not say with which model it was made, so its clusters cannot be used "
            "for other segments; make it anew with: alps fit-clusters SRC FILE"
        )
    if then["model"]["sha256"] != model["sha256"]:
        raise SettingsError(
            f"{path} was made with model {then['model']['name']} "
            f"({then['model']['sha256'][:8]}…), not with {model['name']} "
            f"({model['sha256'][:8]}…): give that model with --model, or fit clusters with this one"
        )
    for group, names in DECIDING.items():
        for name in names:
            was, now = then["settings"][group][name], settings[group][name]
            if was != now:
                raise SettingsError(
                    f"{path} was made with --{name} {was}, not {now}: its clusters do not fit "
                    f"such segments; give --{name} {was}, or fit clusters with {now}"
                )
