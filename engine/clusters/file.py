"""clusters.npz: centroids, and all that is needed to bring another archive's regions to them."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alps.engine.base.atomic import whole
from alps.engine.base.errors import RunFolderError, SettingsError
from alps.engine.base.records import BadRecordError, as_record
from alps.engine.base.zips import read_arrays
from alps.engine.clusters.file_checks import (
    PREFIX,
    clusters_in,
    made_with_in,
    names_of,
    split_arrays,
)
from alps.engine.clusters.fit import ClusterModel
from alps.engine.naming.names import Names
from alps.engine.settings import ClusterSettings

# Settings, besides the model, that decide what an embedding is; the gate only decides which there
# are.
DECIDING = {"source": ("tile", "bands"), "segment": ("precision", "superpixels")}


NOBODYS = Names()


@dataclass(frozen=True)
class ClusterFile:
    """The content of clusters.npz."""

    model: ClusterModel
    # What segments and regions were made with: {"model": {"name", "sha256"}, "settings":
    # {"source", "segment", "cluster"}, "config_hash"}; empty where it is not known.
    made_with: Mapping[str, Any]
    names: Names = NOBODYS  # what people called them

    def settings(self) -> ClusterSettings:
        """Those that they were fitted with. Raises ValueError where that is not known."""
        if not self.made_with:
            raise ValueError("clusters that do not say how they were made")
        return as_record(self.made_with["settings"]["cluster"], ClusterSettings)

    @property
    def sha256(self) -> str:
        """Of all that decides an assignment."""
        digest = self._unsplit()
        for split in self.model.splits:
            digest.update(repr(split.numbers).encode() + split.centroids.tobytes())
        return digest.hexdigest()

    @property
    def unsplit_sha256(self) -> str:
        """The same, but for what people split: of what they named."""
        return self._unsplit().hexdigest()

    def _unsplit(self) -> "hashlib._Hash":
        digest = hashlib.sha256(self.model.centroids.tobytes())
        if self.model.features is not None:
            for name, values in sorted(self.model.features.arrays().items()):
                digest.update(name.encode() + np.asarray(values).tobytes())
        return digest


def save_clusters(
    model: ClusterModel, path: Path, made_with: Mapping[str, Any], names: Names | None = None
) -> None:
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
    if names is not None and names != NOBODYS:
        arrays["names"] = np.array(names.text())
    if model.splits:
        arrays |= split_arrays(model.splits)
    with whole(path) as part, open(part, "wb") as file:
        np.savez(file, **arrays)


def load_clusters(path: str | Path) -> ClusterFile:
    """Read clusters.npz. Raises RunFolderError where it is none, or its parts do not fit."""
    try:
        arrays = read_arrays(path)
        made_with = made_with_in(arrays)
        return ClusterFile(clusters_in(arrays, made_with), made_with, names_of(arrays))
    except (OSError, BadRecordError) as error:
        why = getattr(error, "strerror", None) or error
        raise RunFolderError(
            f"cannot read clusters from {path}: {why}; make it anew with: alps cluster OUT, or "
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
            was, now = then["settings"][group].get(name), settings[group][name]
            if was != now:
                raise SettingsError(
                    f"{path} was made with --{name} {was}, not {now}: its clusters do not fit "
                    f"such segments; give --{name} {was}, or fit clusters with {now}"
                )
