"""The main job, top to bottom like the method: segment, gate, pool, cluster, align, report.

Each stage leaves its mark in run.json; a run that was stopped goes on where it was, and one with
other clusters segments nothing anew.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from alps.engine.base.device import choose_device
from alps.engine.base.digests import fingerprint
from alps.engine.base.errors import RunFolderError, TooManyFailuresError
from alps.engine.base.html import html_link, html_table
from alps.engine.clusters.assign import assign_missing, cluster_archive
from alps.engine.clusters.file import load_clusters
from alps.engine.clusters.fit import check_enough
from alps.engine.datasets.catalogues.kept import write_catalogue
from alps.engine.labels.classes import read_classes
from alps.engine.labels.paint import paint_archive, paint_fingerprint, settled
from alps.engine.naming.names import read_names
from alps.engine.planning.extend import forget_group
from alps.engine.report import build_report, words
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.locks import alone, locked, settle_shares
from alps.engine.run_folder.plan import Plan
from alps.engine.run_folder.schemas import STAGES
from alps.engine.run_folder.sums import is_right
from alps.engine.run_folder.tables import table_blocks
from alps.engine.runtimes.full_float32 import full_float32
from alps.engine.settings import (
    ClusterSettings,
    PaintSettings,
    RunSettings,
    check_ranges,
)
from alps.engine.stages.absences import forget_label_maps, readable_again, shards_of
from alps.engine.stages.changes import to_update
from alps.engine.stages.naming import SPLIT, carry_names, keep_named, split_stage
from alps.engine.stages.one_pass import OnePass, one_pass_stage
from alps.engine.stages.opening import (
    KEPT,
    RunOptions,
    keeping_clusters,
    mark,
    note_warnings,
    now,
    open_run,
    refuse_foreign,
    timed,
)
from alps.engine.stages.regions import (
    CutSettings,
    cut_archive,
    forget_groups,
    forget_regions,
    groups_to_cut,
    regions_cut,
    uncut_again,
)
from alps.engine.stages.segment import (
    collect_tiles,
    is_segmented,
    reading_of,
    shards_missing,
)
from alps.engine.stages.tiles.crew import crew_for
from alps.engine.stages.tiles.job import prepare_for, segment_with
from alps.engine.stores.address import shown_path
from alps.engine.stores.out import at_hand
from alps.engine.telemetry.record import recorder
from alps.engine.workers.protocol import Alone, Crew
from alps.kernels.base.gpu import usable_gpu

__all__ = [
    "OnePass",
    "RunOptions",
    "RunSummary",
    "cluster_stage",
    "finish",
    "label_archive",
    "paint_stage",
    "refuse_foreign",
    "segment_stage",
    "summarise",
]
REASONS = 10  # of failures that a notebook shows


@dataclass(frozen=True)
class RunSummary:
    """What a run came to."""

    folder: Path
    sources: int
    tiles: dict[str, int]  # number by status
    segments: int  # masks that passed the gate
    regions: int  # that have a class
    coverage: float  # share of valid pixels under at least one mask of SAM, over the archive
    labelled: float | None  # share of valid pixels that have a class; None before label maps
    seconds_per_tile: dict[str, float]  # by stage, over tiles that were segmented
    failed_reasons: dict[str, int]

    def _repr_html_(self) -> str:
        """A table, in a notebook."""
        report = self.folder / "report" / "index.html"
        rows: list[tuple[str, object]] = [
            ("sources", words.count(self.sources)),
            *((f"tiles: {status}", words.count(count)) for status, count in self.tiles.items()),
            ("segments", words.count(self.segments)),
            ("regions", words.count(self.regions)),
            ("under SAM's masks", words.share(self.coverage)),
            ("labelled", words.share(self.labelled)),
            ("a tile took", words.seconds(sum(self.seconds_per_tile.values()))),
        ]
        rows += [(f"failed: {reason}", n) for reason, n in self.failed_reasons.items()][:REASONS]
        if report.is_file():
            rows.append(("report", html_link(report, report.name)))
        return html_table(f"Run {self.folder}", rows)


@at_hand
def label_archive(
    src: str | Path,
    out: str | Path,
    settings: RunSettings | None = None,
    options: RunOptions | None = None,
    one_pass: OnePass | None = None,
) -> RunSummary:
    """Label every image of ``src`` into the run folder ``out``.

    one_pass: clusters that are there already; then segments are not kept until all are made.

    Started again with the same settings it goes on where it stopped, and ends with the label
    maps, regions and segments that an undisturbed run writes.

    Raises:
        SourceError: nothing found at ``src``.
        SettingsError: a setting cannot work.
        RunFolderError: ``out`` is in use, unwritable, or holds another run.
        TooManyFailuresError: everything is written, but more than ``options.max_failed`` of the
            tiles could not be read.
    """
    settings, options = settings or RunSettings(), options or RunOptions()
    folder = RunFolder(Path(out))
    refuse_foreign(folder)
    with locked(folder):
        with crew_for(folder, options) as (crew, here):
            if one_pass is not None:
                unpainted = one_pass_stage(folder, src, settings, here, one_pass, crew)
            else:
                segment_stage(folder, src, settings, here, crew)
                cluster_stage(folder, settings.cluster, here.device, crew=crew)
                unpainted = paint_stage(folder, settings.paint, crew)
        return finish(folder, options.max_failed, unpainted)


def segment_stage(
    folder: RunFolder,
    src: str | Path,
    settings: RunSettings,
    options: RunOptions,
    crew: Crew | None = None,
) -> None:
    """Plan the run where it is new, then segment what is missing. The folder must be locked."""
    crew = crew or Alone()
    loaded = prepare_for(crew, folder, settings, options)
    with alone(folder, options.share):
        run, loaded = open_run(folder, src, loaded, wanted=options.wanted())
        settle_shares(folder, options.share)
        done = {s for s in shards_of(folder, options.share) if is_segmented(folder, s)}
        reading = reading_of(folder, loaded.settings)
        again = readable_again(folder, reading, done, options.retry_failed)
        update = to_update(folder, options.update)
        plan = Plan.of(folder)
        again |= {tile for tile in update.tiles if plan.shard_of(tile) in done}
        forget_label_maps(folder, again)
        is_changed = bool(again) or shards_missing(folder) > 0
        if is_changed and _keeps_clusters(folder, run, options):
            folder.update_run(**keeping_clusters(run))
            forget_groups(folder, plan, again)
        elif is_changed:
            keep_named(folder)
            forget_regions(folder)  # of segments that were deleted since, where there are any
            if run["done"] or folder.clusters.exists():
                folder.update_run(done={})
    with timed(folder, "segment", options.share):
        found = segment_with(crew, folder, loaded, options, again=again)
    del loaded  # a large model is no use to what follows
    note_warnings(folder, found, options.share)
    update.note(folder)
    with alone(folder, options.share):
        if shards_missing(folder):
            return
        collect_tiles(folder)
    if options.share[1] == 1:  # else by whoever clusters
        cut_stage(folder, options.retry_failed, crew, options.device)


def _keeps_clusters(folder: RunFolder, run: dict[str, Any], options: RunOptions) -> bool:
    """Whether the clusters of a run stay what they are although it grew or is mended.

    They do where that was asked for, until `alps cluster` fits others: whoever adds images to a run
    does not want all classes to be others.
    """
    asked = options.update or options.retry_failed or run.get(KEPT)
    return bool(asked and keeping_clusters(run)) and is_right(folder, folder.clusters)


def cut_stage(
    folder: RunFolder, retry: bool = False, crew: Crew | None = None, device: str = "cpu"
) -> None:
    """Cut all sources into regions that are not cut yet; reads the images again.

    retry: those too that could not be cut, whether or not they can be read now. device: of this
    process, where it has no crew.
    """
    run = folder.read_planned()
    on_gpu = crew.device == "cuda" if crew and crew.device else _is_gpu(device)
    settings = CutSettings.of_run(folder, run, on_gpu)
    if again := uncut_again(folder, settings.reading, retry):
        folder.update_run(**(keeping_clusters(run) if run.get(KEPT) else {"done": {}}))
        for group in again:
            forget_group(folder, group)
    if groups_to_cut(folder):
        with timed(folder, "regions"):
            cut_archive(folder, settings, crew)


def cluster_stage(
    folder: RunFolder,
    settings: ClusterSettings,
    device: str = "auto",
    refit: bool = False,
    crew: Crew | None = None,
) -> None:
    """Cluster all regions of the run, unless that was done with these settings.

    refit: fit clusters anew that were kept when the run grew; else new regions are assigned to
    them.
    """
    run = folder.read_planned()
    folder.refuse_dropped(run)
    missing = shards_missing(folder)
    if missing:
        raise RunFolderError(
            f"{missing} shards of {folder.root} are not segmented yet; "
            "run the rest with: alps segment SRC OUT"
        )
    if not is_right(folder, folder.tiles):
        collect_tiles(folder)
    cut_stage(folder, crew=crew, device=device)
    wanted = fingerprint(run["config_hash"], asdict(settings))
    is_kept = bool(run.get(KEPT))
    stand = _clusters_stand(folder, settings.clusters)
    if stand and not (is_kept and refit) and run["done"].get("cluster") == wanted:
        return
    if run.get(KEPT) == wanted and not refit and is_right(folder, folder.clusters):
        with timed(folder, "cluster"):
            assign_missing(folder, load_clusters(folder.clusters).model, crew)
        mark(folder, "cluster", wanted)
        return
    # Before the old clusters are given up.
    if not any(block[0].to_numpy().any() for block in table_blocks(folder.tiles, ["segments"])):
        raise RunFolderError(_why_no_mask(folder))
    check_enough(regions_cut(folder), settings.clusters)
    keep_named(folder)
    # From here on clusters are in doubt until all regions have the new ones.
    for stage in ("cluster", SPLIT):
        run["done"].pop(stage, None)
    run["settings"]["cluster"] = asdict(settings)
    folder.update_run(
        done=run["done"],
        settings=run["settings"],
        seed=settings.seed,
        **({KEPT: ""} if is_kept else {}),
    )
    with timed(folder, "cluster"), full_float32():
        cluster_archive(folder, settings, _is_gpu(device), crew)
    carry_names(folder)
    mark(folder, "cluster", wanted)


def _is_gpu(device: str) -> bool:
    """Whether what ``--device`` names is a GPU that compiled kernels can use."""
    return choose_device(device).type == "cuda" and usable_gpu()


def _clusters_stand(folder: RunFolder, clusters: int) -> bool:
    """Whether so many clusters and the classes of all regions are there, as they were written."""
    try:
        if len(load_clusters(folder.clusters).model.centroids) != clusters:
            return False
    except RunFolderError:
        return False
    groups = Plan.of(folder).group_numbers()
    files = [folder.clusters, *(folder.region_classes(group) for group in groups)]
    return all(is_right(folder, path) for path in files)


def _why_no_mask(folder: RunFolder) -> str:
    """What to do about a run without a single mask."""
    statuses: set[str] = set()
    has_valid, reason = False, ""
    for block in table_blocks(folder.tiles, ["valid_pixels", "status", "reason"]):
        statuses.update(pc.unique(block["status"]).to_pylist())
        has_valid = has_valid or bool(block["valid_pixels"].to_numpy().any())
        reason = reason or next((text for text in block["reason"].to_pylist() if text), "")
    if has_valid:
        return (
            f"{folder.root} holds no mask: none passed the gate; lower --pred-iou-thresh or "
            "--stability-score-thresh (tiles.parquet has the reasons)"
        )
    if "skipped" in statuses:
        return (
            f"{folder.root} holds no mask, because no pixel of the archive is valid: all are "
            "nodata or masked. alps inspect SRC says by what; --nodata none or --alpha ignore "
            "read them all the same"
        )
    return f"{folder.root} holds no mask, because no tile could be read; the first: {reason}"


def paint_stage(
    folder: RunFolder, settings: PaintSettings | None = None, crew: Crew | None = None
) -> dict[str, str]:
    """Paint all sources with the clusters of the run, unless that was done.

    Returns sources that could not be painted, with reasons.
    """
    settings = settled(folder, settings or PaintSettings())
    check_ranges(settings, PaintSettings)
    run = folder.read_planned()
    folder.refuse_dropped(run)
    wanted = run["done"].get("cluster")
    if wanted is None:
        raise RunFolderError(f"{folder.root} has no clusters yet; run: alps cluster OUT")
    run["settings"]["paint"] = asdict(settings)
    folder.update_run(settings=run["settings"])
    names, digest = read_names(folder), folder.names_digest()
    clusters = split_stage(folder, names, crew)
    # Clusters that had to be fitted again may be others, on another machine.
    shown = paint_fingerprint(fingerprint(wanted, clusters.sha256), settings, names)
    with timed(folder, "paint"):
        unpainted = paint_archive(folder, clusters.model, shown, settings, names, crew)
    mark(folder, "paint", wanted)
    folder.update_run(names=digest)
    return unpainted


def finish(
    folder: RunFolder, max_failed: float, unpainted: dict[str, str] | None = None
) -> RunSummary:
    """Write the report, and items of a run over STAC, and sum up.

    Raises:
        TooManyFailuresError: a larger share of tiles, or of label maps, than ``max_failed`` failed.
    """
    folder.update_run(finished=now())
    with recorder.stage("report"):
        build_report(folder.root)
    write_catalogue(folder)
    summary = summarise(folder)
    refuse_failures(folder, summary.tiles, summary.failed_reasons, max_failed)
    if unpainted and len(unpainted) > max_failed * summary.sources:
        source, reason = next(iter(unpainted.items()))
        raise TooManyFailuresError(
            f"{len(unpainted)} of {summary.sources} label maps could not be painted; the first, "
            f"of {source}: {reason.rstrip('.')}. Mend that and give the same command again"
        )
    return summary


def refuse_failures(
    folder: RunFolder, tiles: Mapping[str, int], reasons: Mapping[str, int], max_failed: float
) -> None:
    """Raise TooManyFailuresError where a larger share of tiles than ``max_failed`` failed.

    tiles: numbers by status. reasons: of those that failed, by reason.
    """
    failed, total = tiles.get("failed", 0), sum(tiles.values())
    if failed > max_failed * total:
        reason = max(reasons, key=lambda text: reasons[text])
        raise TooManyFailuresError(
            f"{failed} of {total} tiles failed, more than --max-failed {max_failed:g} allows; all "
            f"others are done. The commonest reason: {reason.rstrip('.')}. Every one is in "
            f"{folder.tiles}. What can be read again is tried again by the same command"
        )


def failed_reasons(tiles: pa.Table) -> dict[str, int]:
    """How many tiles failed for which reason; one kind is one, whichever files it befell."""
    columns = (tiles.column(name).to_pylist() for name in ("status", "reason", "path"))
    reasons = Counter(
        reason.replace(shown_path(path), "a file")
        for status, reason, path in zip(*columns, strict=True)
        if status == "failed"
    )
    return dict(sorted(reasons.items()))


def summarise(folder: RunFolder) -> RunSummary:
    """Read tiles.parquet back, and classes.json where there are label maps."""
    statuses: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    sums = Counter(dict.fromkeys(("segments", "valid_pixels", "covered_pixels"), 0))
    seconds = dict.fromkeys(STAGES, 0.0)
    sources = 0
    needed = ("source_index", "path", "status", "reason", *sums, *map(_seconds, STAGES))
    for block in table_blocks(folder.tiles, needed):
        own = np.array(block["status"].to_pylist())
        statuses.update(own.tolist())
        reasons.update(failed_reasons(block))
        sums.update({name: int(block[name].to_numpy().sum()) for name in sums})
        ran = np.isin(own, ["ok", "empty"])
        for stage in STAGES:
            seconds[stage] += float(block[_seconds(stage)].to_numpy()[ran].sum(dtype=np.float64))
        sources = max(sources, int(block["source_index"].to_numpy().max(initial=-1)) + 1)
    count = statuses["ok"] + statuses["empty"]
    classes = read_classes(folder.classes)
    return RunSummary(
        folder=folder.root,
        sources=sources,
        tiles=dict(sorted(statuses.items())),
        segments=sums["segments"],
        regions=classes.regions,
        coverage=sums["covered_pixels"] / max(sums["valid_pixels"], 1),
        labelled=classes.labelled_share,
        seconds_per_tile={stage: seconds[stage] / count for stage in STAGES if count},
        failed_reasons=dict(sorted(reasons.items())),
    )


def _seconds(stage: str) -> str:
    return f"{stage}_seconds"
