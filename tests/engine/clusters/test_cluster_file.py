"""Clusters that are brought to other segments: known by all that decides, refused where unfit."""

import copy
import dataclasses
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from alps.engine.base.errors import RunFolderError, SettingsError
from alps.engine.clusters.features import FeatureModel
from alps.engine.clusters.file import ClusterFile, load_clusters, refuse_others, save_clusters
from alps.engine.clusters.fit import ClusterModel
from alps.engine.clusters.position import PositionEffect

MODEL = {"name": "speck", "sha256": "ab" * 32}
SETTINGS = {
    "source": {"tile": 128, "overlap": 16, "bands": [4, 3, 2]},
    "segment": {"precision": "fp32", "superpixels": 1000.0, "pred_iou_thresh": 0.5},
    "cluster": {"clusters": 3},
}
MADE_WITH = {"model": MODEL, "settings": SETTINGS, "config_hash": "0" * 16}


@pytest.fixture
def clusters():
    rng = np.random.default_rng(0)

    def drawn(*shape):
        return rng.normal(size=shape).astype(np.float32)

    features = FeatureModel(
        True, True, PositionEffect(drawn(4, 5)), drawn(5, 2), drawn(6), drawn(6)
    )
    model = ClusterModel(drawn(3, 8), np.array([1, 2, 3]), 0.5, 7, features)
    return ClusterFile(model, MADE_WITH)


def changed(clusters, **values):
    model = clusters.model
    own = {n: v for n, v in values.items() if hasattr(model.features, n)}
    rest = {n: v for n, v in values.items() if n not in own}
    features = dataclasses.replace(model.features, **own)
    return ClusterFile(dataclasses.replace(model, features=features, **rest), clusters.made_with)


def test_the_digest_is_of_all_that_decides_an_assignment(clusters):
    model, features = clusters.model, clusters.model.features
    others = [
        changed(clusters, centroids=model.centroids + 1),
        changed(clusters, normalise=False),
        changed(clusters, centred=False),
        changed(clusters, position=PositionEffect(features.position.coefficients + 1)),
        changed(clusters, position=None),
        changed(clusters, axes=features.axes + 1),
        changed(clusters, axes=None),
        changed(clusters, colour_offset=features.colour_offset + 1),
        changed(clusters, colour_scale=features.colour_scale + 1),
        ClusterFile(dataclasses.replace(model, features=None), MADE_WITH),
    ]
    assert len({clusters.sha256, *(other.sha256 for other in others)}) == len(others) + 1
    alike = changed(clusters, counts=model.counts + 1, inertia=9.0, seed=8)
    assert alike.sha256 == clusters.sha256


def test_the_digest_is_of_every_array_that_is_kept(clusters):
    arrays = clusters.model.features.arrays()
    found = {clusters.sha256}
    for name, values in arrays.items():
        other = ~values if values.dtype == bool else values + 1
        features = FeatureModel.from_arrays(arrays | {name: other})
        model = dataclasses.replace(clusters.model, features=features)
        found.add(ClusterFile(model, MADE_WITH).sha256)
    assert len(found) == len(arrays) + 1 == 8


def test_a_file_keeps_the_digest(clusters, tmp_path):
    save_clusters(clusters.model, tmp_path / "clusters.npz", clusters.made_with)
    read = load_clusters(tmp_path / "clusters.npz")
    assert read.sha256 == clusters.sha256 and read.made_with == MADE_WITH


def test_clusters_fit_what_they_were_made_with(clusters):
    settings = copy.deepcopy(SETTINGS)
    # The gate decides which segments there are, not what one is.
    settings["source"]["overlap"], settings["segment"]["pred_iou_thresh"] = 32, 0.9
    refuse_others(clusters, Path("c.npz"), MODEL | {"name": "renamed"}, settings)


@pytest.mark.parametrize(
    ("group", "name", "value"),
    [
        ("source", "tile", 64),
        ("source", "bands", [3, 2, 1]),
        ("source", "bands", None),
        ("segment", "precision", "bf16"),
        ("segment", "superpixels", 0),
    ],
)
def test_other_kinds_of_segments_are_refused(clusters, group, name, value):
    settings = copy.deepcopy(SETTINGS)
    settings[group][name] = value
    with pytest.raises(SettingsError, match=rf"c\.npz was made with --{name} ") as error:
        refuse_others(clusters, Path("c.npz"), MODEL, settings)
    assert f"not {value}" in str(error.value)


def test_another_model_is_refused_though_its_name_is_the_same(clusters):
    with pytest.raises(SettingsError, match=r"speck \(abababab…\), not with speck \(cdcdcdcd…\)"):
        refuse_others(clusters, Path("c.npz"), MODEL | {"sha256": "cd" * 32}, SETTINGS)


def test_clusters_that_do_not_say_where_they_are_from_are_refused(clusters):
    nameless = ClusterFile(clusters.model, {})
    bare = ClusterFile(dataclasses.replace(clusters.model, features=None), MADE_WITH)
    for unfit in (nameless, bare):
        with pytest.raises(SettingsError, match="does not say with which model"):
            refuse_others(unfit, Path("c.npz"), MODEL, SETTINGS)


# --- files that lie


def rewritten(clusters, path, **changes):
    """The file with other arrays; None leaves one out."""
    save_clusters(clusters.model, path, clusters.made_with)
    with np.load(path) as content:
        arrays = dict(content) | changes
    np.savez(path, **{name: values for name, values in arrays.items() if values is not None})
    return path


def made(**settings):
    return np.array(json.dumps(MADE_WITH | {"settings": SETTINGS | settings}))


FLOAT = np.float32


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"centroids": np.full((3, 8), np.nan, FLOAT)}, "centroids holds NaN"),
        ({"centroids": np.full((3, 8), 1e13, FLOAT)}, r"centroids holds values beyond 1e\+12"),
        ({"centroids": np.zeros((3, 7), FLOAT)}, "centroids of 7 values, features of 8"),
        ({"centroids": np.zeros((4, 8), FLOAT)}, "counts is of type int64 and shape"),
        ({"centroids": np.zeros((0, 8), FLOAT), "counts": np.zeros(0, int)}, "centroids has the"),
        ({"centroids": np.zeros(8, FLOAT)}, "centroids is of type float32 and shape"),
        ({"centroids": np.zeros((3, 8), int)}, "centroids is of type int64"),
        ({"centroids": None}, "it lacks centroids"),
        ({"counts": np.array([1, -2, 3])}, "negative"),
        ({"inertia": np.float64("nan")}, "inertia holds NaN"),
        ({"seed": np.array("x")}, "seed is of type"),
        ({"made_with": None}, "it lacks made_with"),
        ({"made_with": np.array("{")}, "Expecting"),
        ({"made_with": np.array("[" * 9000)}, "too deeply"),
        ({"made_with": np.array('{"model": 3}')}, r"at \$\.model"),
        ({"made_with": made(cluster={"clusters": 46})}, "3 centroids, its record says otherwise"),
        ({"made_with": made(cluster={"clusters": "3"})}, r"got str - at \$\.settings\.cluster"),
        ({"made_with": made(cluster={"clusters": 3, "passes": 0})}, "--passes 0"),
        ({"made_with": made(cluster={"clusters": 3, "remove_position": False})}, "remove_position"),
        ({"made_with": made(cluster={"clusters": 3, "components": 0})}, "components 0"),
        ({"made_with": made(cluster={"clusters": 3, "neighbours": 0.25})}, "neighbours 0.25"),
        ({"feature_position": None, "made_with": made(cluster={"remove_position": True})},
         "not of remove_position True"),
        ({"feature_position": np.zeros((5, 5), FLOAT)}, "feature_position has 5 rows"),
        ({"feature_position": np.zeros((4, 6), FLOAT)}, "position is of type float32 and shape"),
        ({"feature_axes": np.full((5, 2), np.inf, FLOAT)}, "axes holds NaN or infinity"),
        ({"feature_axes": np.zeros((5, 3), FLOAT)}, "centroids of 8 values, features of 9"),
        ({"feature_colour_scale": np.zeros(3, FLOAT)}, "colour_scale is of type"),
        ({"feature_colour_offset": np.zeros(3, FLOAT), "feature_colour_scale": np.zeros(3, FLOAT)},
         "colour_offset has 3 values"),
        ({"feature_normalised": np.array(3.0)}, "normalised is of type"),
        ({"feature_most_of_neighbours": np.array(7.0)}, "neighbours is no share"),
        ({"feature_centred": None}, "it lacks centred"),
        ({"feature_most_of_neighbours": None}, "it lacks most_of_neighbours"),
    ],
)  # fmt: skip
def test_clusters_that_do_not_fit_themselves_are_refused(clusters, tmp_path, changes, why):
    path = rewritten(clusters, tmp_path / "clusters.npz", **changes)
    with pytest.raises(RunFolderError, match=rf"cannot read clusters from .*: .*{why}.*; make it"):
        load_clusters(path)


@pytest.mark.slow
def test_no_flipped_bit_gives_other_clusters(clusters, tmp_path):
    path = tmp_path / "clusters.npz"
    save_clusters(clusters.model, path, clusters.made_with)
    whole = path.read_bytes()
    # All of what lists the arrays, at the end, and some of the rest.
    places = [*range(0, len(whole) - 1200, 3), *range(len(whole) - 1200, len(whole))]
    for at in places:
        changed = bytearray(whole)
        changed[at] ^= 1 << at % 8
        path.write_bytes(changed)
        try:
            found = load_clusters(path)
        except RunFolderError as error:
            assert "\n" not in str(error)
        else:  # in the margins of the archive
            assert found.sha256 == clusters.sha256 and found.made_with == MADE_WITH


def test_no_room_is_made_for_what_a_header_claims(clusters, tmp_path):
    path = tmp_path / "clusters.npz"
    save_clusters(clusters.model, path, clusters.made_with)
    with zipfile.ZipFile(path) as archive:
        entries = {info.filename: archive.read(info) for info in archive.infolist()}
    huge = entries["centroids.npy"].replace(b"(3, 8), }          ", b"(300000000000, 8), }")
    assert len(huge) != 0 and huge != entries["centroids.npy"]
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (entries | {"centroids.npy": huge}).items():
            archive.writestr(name, content)
    with pytest.raises(RunFolderError, match="centroids in it is not the array"):
        load_clusters(path)
    np.savez_compressed(path, centroids=np.zeros((3, 1 << 20), FLOAT))
    with pytest.raises(RunFolderError, match="is compressed"):
        load_clusters(path)
    np.savez(path, centroids=np.array([print], object))
    with pytest.raises(RunFolderError, match="is not the array that its header says"):
        load_clusters(path)
