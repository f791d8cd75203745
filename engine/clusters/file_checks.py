"""What clusters.npz must be like: every array's type and shape, and that all fit each other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from alps.engine.base.errors import SettingsError
from alps.engine.base.records import BadRecordError, Name, as_record, parse_record
from alps.engine.clusters.features import FeatureModel
from alps.engine.clusters.fit import ClusterModel, SplitCluster
from alps.engine.clusters.position import MOST_FREQUENCIES
from alps.engine.naming.names import Names, names_in
from alps.engine.settings import ClusterSettings, check_ranges

PREFIX = "feature_"
MOST_CLUSTERS = 65_535
MOST_VALUE = 1e12  # of any number: squares of products with an embedding still fit into float32
COLOURS = 6
# Which array, flag or number of the features each setting decides.
DECIDES = {
    "remove_position": lambda features: features.position is not None,
    "components": lambda features: features.axes is not None,
    "colour_weight": lambda features: len(features.colour_scale) > 0,
    "normalise": lambda features: features.normalise,
    "centre_sources": lambda features: features.centred,
    "neighbours": lambda features: features.neighbours,
}


@dataclass(frozen=True)
class MadeModel:
    """The model of the segments that were clustered."""

    name: Name
    sha256: Name


@dataclass(frozen=True)
class MadeSettings:
    """Settings of what was clustered."""

    source: dict[str, Any]
    segment: dict[str, Any]
    cluster: ClusterSettings


@dataclass(frozen=True)
class MadeWith:
    """What clusters.npz says of its making."""

    model: MadeModel
    settings: MadeSettings
    config_hash: str


def made_with_in(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The record of a file's making, empty where it has none. Raises BadRecordError."""
    text = _array(arrays, "made_with", "U", ())
    made_with = parse_record(str(text), dict[str, Any])
    if made_with:
        record = as_record(made_with, MadeWith)
        try:
            check_ranges(record.settings.cluster, ClusterSettings)
        except SettingsError as error:
            raise BadRecordError(str(error)) from error
    return made_with


def clusters_in(arrays: Mapping[str, np.ndarray], made_with: Mapping[str, Any]) -> ClusterModel:
    """The clusters of a file's arrays. Raises BadRecordError."""
    centroids = _array(arrays, "centroids", "f", (None, None))
    count, width = centroids.shape
    if not 1 <= count <= MOST_CLUSTERS or not width:
        raise BadRecordError(f"centroids has the shape {centroids.shape}")
    counts = _array(arrays, "counts", "i", (count,))
    inertia, seed = _array(arrays, "inertia", "f", ()), _array(arrays, "seed", "i", ())
    if counts.min() < 0 or inertia < 0:
        raise BadRecordError("counts or inertia is negative")
    features = None
    if any(name.startswith(PREFIX) for name in arrays):
        features = _features(arrays)
        parts = None if features.axes is None else features.axes.shape[1]
        colours = len(features.colour_scale)
        if parts is not None and width != parts + colours:
            raise BadRecordError(f"centroids of {width} values, features of {parts + colours}")
    splits = _splits(arrays, width)
    model = ClusterModel(centroids, counts, float(inertia), int(seed), features, splits)
    if made_with:
        _refuse_unlike(model, made_with["settings"]["cluster"])
    return model


def names_of(arrays: Mapping[str, np.ndarray]) -> Names:
    """What people called a file's clusters. Raises BadRecordError."""
    if "names" not in arrays:
        return Names()
    names = names_in(str(_array(arrays, "names", "U", ())))
    try:
        names.refuse_unknown(len(_array(arrays, "centroids", "f", (None, None))))
    except SettingsError as error:
        raise BadRecordError(str(error)) from error
    return names


def split_arrays(splits: Sequence[SplitCluster]) -> dict[str, np.ndarray]:
    """How clusters that are split stand in a file: a row a part, split after split."""
    parts = [len(split.numbers) for split in splits]
    return {
        "split_index": np.arange(len(splits), dtype=np.int32).repeat(parts),
        "split_number": np.concatenate([split.numbers for split in splits]).astype(np.int32),
        "split_centroids": np.concatenate([split.centroids for split in splits]),
    }


def _splits(arrays: Mapping[str, np.ndarray], width: int) -> tuple[SplitCluster, ...]:
    if "split_centroids" not in arrays:
        return ()
    centroids = _array(arrays, "split_centroids", "f", (None, width))
    index = _array(arrays, "split_index", "i", (len(centroids),))
    numbers = _array(arrays, "split_number", "i", (len(centroids),))
    known = set(range(len(_array(arrays, "centroids", "f", (None, width)))))
    splits = []
    for one in np.unique(index):
        own = tuple(numbers[index == one].tolist())
        new = set(own[1:])
        if own[0] not in known or new & known or not 1 <= len(new) == len(own) - 1:
            raise BadRecordError(f"cluster {own[0]} is split into {own}")
        if not 0 <= min(own) <= max(own) < MOST_CLUSTERS:
            raise BadRecordError(f"cluster {own[0]} is split into {own}")
        known |= new
        splits.append(SplitCluster(own, centroids[index == one]))
    return tuple(splits)


def _refuse_unlike(model: ClusterModel, settings: Mapping[str, Any]) -> None:
    """Raise BadRecordError where clusters are not those that their own record tells of."""
    if settings.get("clusters", len(model.centroids)) != len(model.centroids):
        raise BadRecordError(f"{len(model.centroids)} centroids, its record says otherwise")
    for name, found in DECIDES.items():
        if model.features is None or name not in settings:
            continue
        is_there, wanted = found(model.features), settings[name]
        if (is_there != wanted) if name == "neighbours" else (bool(is_there) != (wanted > 0)):
            raise BadRecordError(f"its features are not of {name} {wanted}, as its record says")


def _features(arrays: Mapping[str, np.ndarray]) -> FeatureModel:
    found = {n.removeprefix(PREFIX): v for n, v in arrays.items() if n.startswith(PREFIX)}
    for name in ("normalised", "centred"):
        _array(found, name, "b", ())
    offset = _array(found, "colour_offset", "f", (None,))
    _array(found, "colour_scale", "f", offset.shape)
    if len(offset) not in (0, COLOURS):
        raise BadRecordError(f"feature_colour_offset has {len(offset)} values")
    if not 0 <= _array(found, "most_of_neighbours", "fi", ()) <= 1:
        raise BadRecordError("feature_most_of_neighbours is no share")
    channels = None
    if "axes" in found:
        channels = _array(found, "axes", "f", (None, None)).shape[0]
    if "position" in found:
        rows = _array(found, "position", "f", (None, channels)).shape[0]
        if rows not in [side**2 for side in range(1, MOST_FREQUENCIES + 1)]:
            raise BadRecordError(f"feature_position has {rows} rows")
    return FeatureModel.from_arrays(found)


def _array(
    arrays: Mapping[str, np.ndarray], name: str, kinds: str, shape: tuple[int | None, ...]
) -> np.ndarray:
    """An array of a kind of dtype and a shape, None where any length will do, of finite numbers."""
    if name not in arrays:
        raise BadRecordError(f"it lacks {name}")
    array = arrays[name]
    fits = len(array.shape) == len(shape) and all(
        wanted in (None, length) for wanted, length in zip(shape, array.shape, strict=True)
    )
    if not fits or array.dtype.kind not in kinds:
        raise BadRecordError(f"{name} is of type {array.dtype} and shape {array.shape}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise BadRecordError(f"{name} holds NaN or infinity")
    if array.dtype.kind == "f" and (np.abs(array) > MOST_VALUE).any():
        raise BadRecordError(f"{name} holds values beyond {MOST_VALUE:g}")
    return array
