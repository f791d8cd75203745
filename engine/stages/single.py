"""One stage of a run by itself: what `alps segment`, `alps cluster` and `alps paint` do."""

from pathlib import Path

from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.locks import locked
from alps.engine.settings import ClusterSettings, PaintSettings, RunSettings
from alps.engine.stages.label import (
    RunSummary,
    cluster_stage,
    finish,
    paint_stage,
    refuse_foreign,
    segment_stage,
)
from alps.engine.stages.opening import RunOptions
from alps.engine.stages.segment import shards_missing


def segment(
    src: str | Path,
    out: str | Path,
    settings: RunSettings | None = None,
    options: RunOptions | None = None,
) -> int:
    """Segment the images at ``src`` into ``out``/segments, this machine's share of them.

    Returns the number of shards that are left to other machines. Errors as ``label_archive``'s.
    """
    settings, options = settings or RunSettings(), options or RunOptions()
    folder = RunFolder(Path(out))
    refuse_foreign(folder)
    with locked(folder, options.share):
        segment_stage(folder, src, settings, options)
        return shards_missing(folder)


def cluster(out: str | Path, settings: ClusterSettings | None = None, device: str = "auto") -> None:
    """Put the regions of ``out`` into classes, with another K say; runs no SAM.

    Raises:
        RunFolderError: ``out`` is in use, no run folder, or not segmented to the end.
        SettingsError: a setting cannot work, or there are fewer regions than clusters.
    """
    folder = RunFolder(Path(out))
    folder.read_run()  # before a lock makes a folder of a mistyped path
    with locked(folder):
        cluster_stage(folder, settings or ClusterSettings(), device)


def paint(
    out: str | Path, settings: PaintSettings | None = None, max_failed: float = 0.1
) -> RunSummary:
    """Paint the label maps of ``out`` with its clusters, and write the report.

    Raises:
        RunFolderError: ``out`` is in use, no run folder, or without clusters.
        TooManyFailuresError: all else is painted, but a larger share than ``max_failed`` failed.
    """
    folder = RunFolder(Path(out))
    folder.read_run()
    with locked(folder):
        unpainted = paint_stage(folder, settings or PaintSettings())
        return finish(folder, max_failed, unpainted)
