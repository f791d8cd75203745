"""Names of classes through a run's life: given, applied to its clusters, carried to other ones."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alps.engine.base.atomic import move_folder, remove_folder, write_text
from alps.engine.base.errors import RunFolderError, SettingsError
from alps.engine.base.records import as_record
from alps.engine.clusters.assign import assign_archive, with_splits
from alps.engine.clusters.file import ClusterFile, load_clusters, save_clusters
from alps.engine.naming.carry import carried
from alps.engine.naming.edit import Edit
from alps.engine.naming.names import MOST_CLASSES, Names, read_names, read_names_file
from alps.engine.quality.settings import QualitySettings
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.locks import locked
from alps.engine.run_folder.plan import Plan
from alps.engine.run_folder.sums import record, refuse_damaged
from alps.engine.run_folder.tables import read_table
from alps.engine.settings import PaintSettings
from alps.engine.stages.opening import mark
from alps.engine.workers.protocol import Crew

SPLIT = "split"  # the mark of which clusters, with splits, the classes of regions are


def change_names(folder: RunFolder, edits: Sequence[Edit]) -> Names:
    """Change the names of a run's classes, and split its clusters where that is asked for.

    Label maps are older than their names then, until they are painted.

    Raises:
        RunFolderError: the run is in use, has no clusters, or its names cannot be read.
        SettingsError: a change cannot be made; then none is.
    """
    folder.read_run()
    with locked(folder):
        refuse_unnameable(folder)
        clusters = _clusters(folder)
        names = names_of_these(folder, read_names(folder), clusters)
        for edit in edits:
            names = edit(names)
        return write_names(folder, names) if edits else names


def write_names(folder: RunFolder, names: Names) -> Names:
    """Put names in the place of those that are there. The folder must be locked.

    Raises errors as ``change_names``.
    """
    clusters = _clusters(folder)
    names.refuse_unknown(len(clusters.model.centroids))
    names = Names(names.classes, names.splits, clusters.unsplit_sha256)
    _split(folder, clusters, names, None)  # what cannot be split is not written
    if names != read_names(folder):
        write_text(folder.names, names.text())
    return names


def refuse_unnameable(folder: RunFolder) -> None:
    """Raise RunFolderError where a run's label maps cannot be painted with names."""
    run = folder.read_planned()
    if not run.get("also", {}).get("keep_segments", True):
        raise RunFolderError(
            f"{folder.root} was labelled in one pass and its segments were not kept, so its label "
            "maps cannot be painted anew; name the classes of the run whose clusters it took, and "
            "label again with --clusters-from"
        )
    if run["done"].get("cluster") is None:
        raise RunFolderError(f"{folder.root} has no clusters yet; run: alps cluster {folder.root}")


def split_stage(folder: RunFolder, names: Names, crew: Crew | None = None) -> ClusterFile:
    """The clusters of a run, split as its names say, and their regions' classes so too.

    The clusters file takes the names along. crew: assigns regions. Raises errors as
    ``change_names``.
    """
    clusters = _clusters(folder)
    names = names_of_these(folder, names, clusters)
    return _split(folder, clusters, names, crew)


def _clusters(folder: RunFolder) -> ClusterFile:
    refuse_damaged(folder.clusters)
    return load_clusters(folder.clusters)


def names_of_these(folder: RunFolder, names: Names, clusters: ClusterFile) -> Names:
    """The names of a run, where they are of these clusters. Raises RunFolderError."""
    if names.clusters not in (None, clusters.unsplit_sha256):
        raise RunFolderError(
            f"{folder.names} names other clusters than those of {folder.clusters}; remove it, or "
            'take the key "clusters" out of it where its numbers hold all the same'
        )
    try:
        names.refuse_unknown(len(clusters.model.centroids))
    except SettingsError as error:
        raise RunFolderError(f"{folder.names} cannot be used: {error}") from error
    return names


def _split(
    folder: RunFolder, clusters: ClusterFile, names: Names, crew: Crew | None
) -> ClusterFile:
    wanted = [split.into for split in names.splits]
    model = clusters.model
    if [split.numbers for split in model.splits] != wanted:
        model = with_splits(folder, model, names.splits, clusters.settings())
        mark(folder, SPLIT, "")  # of neither, until all regions have their classes
    if model is not clusters.model or clusters.names != names:
        clusters = ClusterFile(model, clusters.made_with, names)
        save_clusters(model, folder.clusters, clusters.made_with, names)
        record(folder, folder.clusters)
    if folder.read_planned()["done"].get(SPLIT, clusters.unsplit_sha256) != clusters.sha256:
        assign_archive(folder, model, crew)
        mark(folder, SPLIT, clusters.sha256)
    return clusters


def keep_named(folder: RunFolder) -> None:
    """Put aside the classes of regions and their names, before other clusters take their place."""
    names, classes = read_names(folder), folder.region_classes(0).parent
    if not names.classes or not classes.is_dir():
        return
    if _kept(folder).exists():  # of a start that was stopped; what came since is half done
        return
    write_text(classes / folder.names.name, names.text())
    move_folder(classes, _kept(folder))


def carry_names(folder: RunFolder) -> None:
    """Give the names that were put aside to the clusters that are there now; says what is doubtful.

    Splits are not carried: there are other clusters now. Raises RunFolderError.
    """
    kept = _kept(folder)
    if not kept.exists():
        return
    names, clusters = read_names_file(kept / folder.names.name), _clusters(folder)
    if names.clusters == clusters.unsplit_sha256:  # fitted again, to the same
        write_text(folder.names, names.text())
        remove_folder(kept)
        return
    found = carried(names, _shared(folder, kept, len(clusters.model.centroids)))
    write_text(folder.names, Names(found.names.classes, (), clusters.unsplit_sha256).text())
    count = len(found.names.classes)
    print(f"names: {count} of {len(names.classes)} are kept", file=sys.stderr)
    for line in found.words():
        print(f"  {line}", file=sys.stderr)
    for split in names.splits:
        print(f"  cluster {split.cluster} is split no more: it is another now", file=sys.stderr)
    remove_folder(kept)


def _kept(folder: RunFolder) -> Path:
    return folder.journal / "named"


def _shared(folder: RunFolder, kept: Path, clusters: int) -> np.ndarray:
    """Pixels that have a cluster now and had another before, (clusters, before) float64."""
    found = np.zeros((clusters, 0))
    for group in Plan.of(folder).group_numbers():
        now, before = folder.region_classes(group), kept / folder.region_classes(group).name
        if not before.exists():
            continue
        columns = [read_table(path, ["cluster"]).column(0).to_numpy() for path in (now, before)]
        area = read_table(folder.regions(group), ["area"]).column(0).to_numpy()
        if not len(columns[0]) == len(columns[1]) == len(area):  # cut anew since
            continue
        if any(((column < 0) | (column >= MOST_CLASSES)).any() for column in columns):
            raise folder.damaged(before, "it has classes that no run has")
        width = max(found.shape[1], int(columns[1].max(initial=-1)) + 1)
        found = np.pad(found, ((0, 0), (0, width - found.shape[1])))
        np.add.at(found, (columns[0], columns[1]), area)
    return found


def cluster_count(folder: RunFolder) -> int:
    """How many clusters a run has, without those that came by splits."""
    return len(_clusters(folder).model.centroids)


def paint_settings(folder: RunFolder) -> PaintSettings:
    """How a run's label maps were painted last; by default where they never were."""
    known = folder.read_run().get("settings", {}).get("paint")
    return PaintSettings() if known is None else as_record(known, PaintSettings)


@dataclass(frozen=True)
class Suggestion:
    """What real labels call a class."""

    name: str
    share: float  # of its labelled pixels that have truth, in 0…1


def suggested_names(
    folder: RunFolder, truth: Path, class_names: Sequence[str] = ()
) -> dict[int, Suggestion]:
    """The name of each class by the truth that most of its pixels have, by its number.

    Args:
        folder: whose label maps are painted with the names that it has now.
        truth: a folder of index images, as for `alps quality`.
        class_names: of truth class 0, 1, …; others are called ``class N``.

    Raises errors as ``alps.engine.quality.measure.measure_quality``.
    """
    folder.refuse_unpainted()
    from alps.engine.quality.measure import truth_of_classes  # brings scipy along

    settings = QualitySettings(class_names=tuple(class_names))
    found = truth_of_classes(folder.root, truth, settings)
    return {
        value: Suggestion(name if name in class_names else f"class {name}", share)
        for value, (name, share) in found.items()
    }
