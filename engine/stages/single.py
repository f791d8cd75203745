"""One stage of a run by itself: what `alps segment`, `alps cluster` and `alps paint` do."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.locks import locked
from alps.engine.run_folder.schemas import TILE_SCHEMA
from alps.engine.run_folder.tables import joined, read_table
from alps.engine.settings import ClusterSettings, PaintSettings, RunSettings
from alps.engine.stages.absences import shards_of
from alps.engine.stages.label import (
    RunSummary,
    cluster_stage,
    failed_reasons,
    finish,
    paint_stage,
    refuse_failures,
    refuse_foreign,
    segment_stage,
)
from alps.engine.stages.opening import RunOptions
from alps.engine.stages.segment import is_segmented, shards_missing
from alps.engine.stages.tiles.crew import crew_for
from alps.engine.stores.out import at_hand


@dataclass(frozen=True)
class Segmented:
    """What became of a machine's share of the tiles."""

    missing: int  # shards that are left to other machines
    tiles: dict[str, int]  # number by status
    failed_reasons: dict[str, int]


@at_hand
def segment(
    src: str | Path,
    out: str | Path,
    settings: RunSettings | None = None,
    options: RunOptions | None = None,
) -> Segmented:
    """Segment the images at ``src`` into ``out``/segments, this machine's share of them.

    Raises errors as ``label_archive``; TooManyFailuresError for this machine's share of the tiles.
    """
    settings, options = settings or RunSettings(), options or RunOptions()
    folder = RunFolder(Path(out))
    refuse_foreign(folder)
    with locked(folder, options.share):
        with crew_for(folder, options) as (crew, here):
            segment_stage(folder, src, settings, here, crew)
        done = [s for s in shards_of(folder, options.share) if is_segmented(folder, s)]
        tables = [read_table(folder.shard_tiles(shard)) for shard in done]
        # There are fewer shards than machines, perhaps.
        rows = joined(tables or [TILE_SCHEMA.empty_table()])
        statuses = Counter(rows.column("status").to_pylist())
        reasons = failed_reasons(rows)
        refuse_failures(folder, statuses, reasons, options.max_failed)
        return Segmented(shards_missing(folder), dict(sorted(statuses.items())), reasons)


@at_hand
def cluster(
    out: str | Path,
    settings: ClusterSettings | None = None,
    device: str = "auto",
    workers: int | None = 1,
    on: str | None = None,
    worker_cores: int | None = None,
) -> None:
    """Put the regions of ``out`` into classes, with another K say; runs no SAM.

    Args:
        out: the run folder.
        settings: of clusters.
        device: where they are fitted.
        workers: processes that share all but the fitting; None: as many as suit the machine.
        on: a Ray cluster, as --cluster names it, on which these are; None: this machine.
        worker_cores: of each there.

    Raises:
        RunFolderError: ``out`` is in use, no run folder, or not segmented to the end.
        SettingsError: a setting cannot work, or there are fewer regions than clusters.
    """
    folder = RunFolder(Path(out))
    folder.read_planned()  # before a lock makes a folder of a mistyped path
    options = RunOptions(device=device, workers=workers, cluster=on, worker_cores=worker_cores)
    with locked(folder), crew_for(folder, options) as (crew, here):
        cluster_stage(folder, settings or ClusterSettings(), here.device, refit=True, crew=crew)


@at_hand
def paint(
    out: str | Path,
    settings: PaintSettings | None = None,
    max_failed: float = 0.1,
    workers: int | None = 1,
    on: str | None = None,
    worker_cores: int | None = None,
) -> RunSummary:
    """Paint the label maps of ``out`` with its clusters, and write the report.

    Args:
        out: the run folder.
        settings: of label maps.
        max_failed: the largest share of them that may fail.
        workers: processes that share them; None: as many as suit the machine.
        on: a Ray cluster, as --cluster names it, on which these are; None: this machine.
        worker_cores: of each there.

    Raises:
        RunFolderError: ``out`` is in use, no run folder, or without clusters.
        TooManyFailuresError: all else is painted, but a larger share than ``max_failed`` failed.
    """
    folder = RunFolder(Path(out))
    folder.read_planned()
    options = RunOptions(device="cpu", workers=workers, cluster=on, worker_cores=worker_cores)
    with locked(folder):
        with crew_for(folder, options) as (crew, _):
            unpainted = paint_stage(folder, settings or PaintSettings(), crew)
        return finish(folder, max_failed, unpainted)
