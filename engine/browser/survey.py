"""What clusters look like and where they are, from a bounded sample of a run."""

from dataclasses import dataclass, field
from datetime import datetime

import numpy as np

from alps.engine.base.errors import RunFolderError
from alps.engine.clusters.file import load_clusters
from alps.engine.images.dates import UNKNOWN, date_of
from alps.engine.report.exemplars import pick_exemplars
from alps.engine.report.rows.regions import RegionPart, RegionRow, find_candidates, region_parts
from alps.engine.report.rows.sources import SourceRow, read_sources
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.items import said_of
from alps.engine.run_folder.tables import read_table

MOST_GROUPS = 64  # of some tens of tiles each: read in seconds, whatever the archive
EXEMPLARS = 8  # of a cluster


@dataclass(frozen=True)
class Survey:
    """Clusters and their parts, by number; N of them, of which some may be unused."""

    sha256: str  # of the clusters that it is of
    numbers: tuple[int, ...]  # those that exist
    centroids: np.ndarray  # (N, D) float32
    area: np.ndarray  # (N,) int64 pixels of the sample
    # (P,) each: pairs of a source of the sample and a cluster that it has, and its pixels there; in
    # the order of clusters.
    sources: np.ndarray
    clusters: np.ndarray
    pixels: np.ndarray
    rows: dict[int, SourceRow]  # of the sources of the sample
    dates: dict[int, int] = field(default_factory=dict)  # by source index, where known
    exemplars: dict[int, list[RegionRow]] = field(default_factory=dict)
    # In which survey a cluster became what it is: a name for its pictures.
    since: dict[int, int] = field(default_factory=dict)
    groups: int = 0  # that were looked at
    all_groups: int = 0


def survey_clusters(folder: RunFolder, before: Survey | None = None) -> Survey:
    """Look at the clusters of a run as they are now.

    before: what was seen last; of a cluster that is still the same no picture has changed.

    Raises RunFolderError where it has none, or a file is damaged.
    """
    file = load_clusters(folder.clusters)
    parts = region_parts(folder)
    if not parts:
        raise RunFolderError(
            f"{folder.root} has no regions with classes, so there is nothing to name; make them "
            f"with: alps cluster {folder.root}"
        )
    sample = _spread(parts)
    count = file.model.classes
    pairs = [_areas(part, count) for part in sample]
    columns = [np.concatenate(parts) for parts in zip(*pairs, strict=True)]
    order = np.argsort(columns[1], kind="stable")
    sources, clusters, pixels = (column[order] for column in columns)
    numbers = {*range(len(file.model.centroids))}
    numbers.update(number for split in file.model.splits for number in split.numbers)
    found = find_candidates(sample, sorted(numbers), 2 * EXEMPLARS)
    rows = read_sources(folder.tiles, np.unique(sources).tolist())
    latest = datetime.now().year + 1
    said = said_of(folder, folder.read_run())
    dates = {
        index: date_of(row.source, row.path or "", latest, said, tags=False)
        for index, row in rows.items()
    }
    survey = Survey(
        sha256=file.sha256,
        numbers=tuple(sorted(numbers)),
        centroids=file.model.class_centroids,
        area=np.bincount(clusters, pixels, count).astype(np.int64),
        sources=sources,
        clusters=clusters,
        pixels=pixels,
        rows=rows,
        dates={index: date for index, date in dates.items() if date != UNKNOWN},
        exemplars={one: pick_exemplars(own, EXEMPLARS) for one, own in found.items()},
        groups=len(sample),
        all_groups=len(parts),
    )
    survey.since.update(_since(survey, before))
    return survey


def _since(now: Survey, before: Survey | None) -> dict[int, int]:
    if before is None:
        return dict.fromkeys(now.numbers, 1)
    turn = max(before.since.values(), default=0) + 1
    return {
        number: before.since[number] if _is_same(now, before, number) else turn
        for number in now.numbers
    }


def _is_same(now: Survey, before: Survey, number: int) -> bool:
    return (
        number in before.since
        and now.area[number] == before.area[number]
        and now.exemplars.get(number) == before.exemplars.get(number)
    )


def _areas(part: RegionPart, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sources, clusters and pixels (P,) int64 of a group: what of each source is in each cluster.

    Raises RunFolderError where a region has a cluster that is none of ``count``.
    """
    table = read_table(part.regions, ["source_index", "area"])
    cluster = read_table(part.classes, ["cluster"]).column(0).to_numpy().astype(np.int64)
    source, area = (table.column(name).to_numpy() for name in ("source_index", "area"))
    if (
        len(cluster) != len(source)
        or not 0 <= cluster.min(initial=0) <= cluster.max(initial=0) < count
    ):
        raise RunFolderError(
            f"{part.classes} is of other clusters or regions; delete it and run: alps cluster OUT"
        )
    key, which = np.unique(source.astype(np.int64) * count + cluster, return_inverse=True)
    pixels = np.bincount(which, area, len(key)).astype(np.int64)
    return key // count, key % count, pixels


def _spread(parts: list[RegionPart]) -> list[RegionPart]:
    """Some of them, evenly from the first to the last."""
    if len(parts) <= MOST_GROUPS:
        return parts
    return [parts[i * (len(parts) - 1) // (MOST_GROUPS - 1)] for i in range(MOST_GROUPS)]
