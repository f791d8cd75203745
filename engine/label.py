"""The main job, top to bottom like the method: segment, gate, pool, cluster, align, report.

Each stage leaves its mark in run.json; a run that was stopped goes on where it was, and one with
other clusters segments nothing anew.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from alps.engine.checkpoints import load_sam
from alps.engine.cluster import cluster_archive
from alps.engine.clustering import check_enough
from alps.engine.device import choose_device
from alps.engine.errors import RunFolderError, SettingsError, SourceError, TooManyFailuresError
from alps.engine.model_store import MODELS, find_model
from alps.engine.paint import paint_archive
from alps.engine.plan import make_plan
from alps.engine.report import build_report
from alps.engine.run_folder import STAGES, RunFolder, read_table, write_table
from alps.engine.runtimes.choose import Model, check_name, choose, open_runtime
from alps.engine.sam.config import ModelInfo
from alps.engine.segment import collect_tiles, generator_for, segment_archive, shards_missing
from alps.engine.settings import ClusterSettings, RunSettings, fingerprint
from alps.engine.sources import find_sources, printable


@dataclass(frozen=True)
class RunOptions:
    """What does not change the result: where and how a run is carried out."""

    model: str = "tiny"
    device: str = "auto"
    max_failed: float = 0.1
    part: tuple[int, int] = (0, 1)
    artefacts: Path | None = None  # exports for settings.segment.runtime; None: the default place


@dataclass(frozen=True)
class RunSummary:
    """What a run came to."""

    folder: Path
    sources: int
    tiles: dict[str, int]  # number by status
    segments: int
    coverage: float  # share of valid pixels under at least one segment, over the archive
    seconds_per_tile: dict[str, float]  # by stage, over tiles that were segmented
    failed_reasons: dict[str, int]


def label_archive(
    src: str | Path,
    out: str | Path,
    settings: RunSettings | None = None,
    options: RunOptions | None = None,
) -> RunSummary:
    """Label every image of ``src`` into the run folder ``out``.

    Started again with the same settings it goes on where it stopped, and ends with the label
    maps and segments that an undisturbed run writes.

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
    with folder.locked():
        segment_stage(folder, src, settings, options)
        cluster_stage(folder, settings.cluster)
        unpainted = paint_stage(folder)
        return finish(folder, options.max_failed, unpainted)


def segment_stage(
    folder: RunFolder, src: str | Path, settings: RunSettings, options: RunOptions
) -> None:
    """Plan the run where it is new, then segment what is missing. The folder must be locked."""
    device = choose_device(options.device)
    path = find_model(options.model)
    known = options.model in MODELS
    model, info = load_sam(path, name=options.model if known else path.stem, device=device)
    settings = settings.for_model(info.defaults)
    to_run = Model(model, info, settings.segment.precision, options.artefacts)
    with folder.alone(options.part):
        settings = _with_runtime(folder, settings, to_run)
        run = _open_run(folder, src, settings, info)
        if run["done"] and shards_missing(folder):  # segments were deleted: new ones have no class
            folder.update_run(done={})
    generator = generator_for(open_runtime(to_run, settings.segment.runtime), settings.segment)
    with _timed(folder, "segment", options.part):
        segment_archive(folder, generator, info, settings, options.part)
    with folder.alone(options.part):
        if shards_missing(folder) == 0:
            collect_tiles(folder)


def cluster_stage(folder: RunFolder, settings: ClusterSettings) -> None:
    """Cluster all segments of the run, unless that was done with these settings."""
    run = _read_run(folder)
    missing = shards_missing(folder)
    if missing:
        raise RunFolderError(
            f"{missing} shards of {folder.root} are not segmented yet; "
            "run the rest with: alps segment SRC OUT"
        )
    if not folder.tiles.exists():
        collect_tiles(folder)
    wanted = fingerprint(run["config_hash"], asdict(settings))
    if run["done"].get("cluster") == wanted:
        return
    total = int(read_table(folder.tiles, ["segments"]).column("segments").to_numpy().sum())
    if total:  # none at all has its own message
        check_enough(total, settings.clusters)  # before the old clusters are given up
    # From here on clusters are in doubt until all shards carry the new ones.
    run["done"].pop("cluster", None)
    run["settings"]["cluster"] = asdict(settings)
    folder.update_run(done=run["done"], settings=run["settings"], seed=settings.seed)
    with _timed(folder, "cluster"):
        cluster_archive(folder, settings)
    _mark(folder, "cluster", wanted)


def paint_stage(folder: RunFolder) -> dict[str, str]:
    """Paint all sources with the clusters of the run, unless that was done.

    Returns sources that could not be painted, with reasons.
    """
    run = _read_run(folder)
    wanted = run["done"].get("cluster")
    if wanted is None:
        raise RunFolderError(f"{folder.root} has no clusters yet; run: alps cluster OUT")
    with _timed(folder, "paint"):
        unpainted = paint_archive(folder, run["settings"]["cluster"]["clusters"], wanted)
    _mark(folder, "paint", wanted)
    return unpainted


def finish(
    folder: RunFolder, max_failed: float, unpainted: dict[str, str] | None = None
) -> RunSummary:
    """Write the report and sum up.

    Raises:
        TooManyFailuresError: a larger share of tiles, or of label maps, than ``max_failed`` failed.
    """
    folder.update_run(finished=_now())
    build_report(folder.root)
    summary = summarise(folder)
    failed, total = summary.tiles.get("failed", 0), sum(summary.tiles.values())
    if failed > max_failed * total:
        reason = max(summary.failed_reasons, key=lambda text: summary.failed_reasons[text])
        raise TooManyFailuresError(
            f"{failed} of {total} tiles failed, more than --max-failed {max_failed:g} allows; all "
            f"others are labelled. The commonest reason: {reason.rstrip('.')}. "
            f"Every one is in {folder.tiles}"
        )
    if unpainted and len(unpainted) > max_failed * summary.sources:
        source, reason = next(iter(unpainted.items()))
        raise TooManyFailuresError(
            f"{len(unpainted)} of {summary.sources} label maps could not be painted; the first, "
            f"of {source}: {reason.rstrip('.')}. Mend that and run: alps paint {folder.root}"
        )
    return summary


def summarise(folder: RunFolder) -> RunSummary:
    """Read tiles.parquet back."""
    table = read_table(folder.tiles)
    statuses = np.array(table.column("status").to_pylist())
    ran = np.isin(statuses, ["ok", "empty"])
    valid = table.column("valid_pixels").to_numpy().sum()
    # One kind of failure is one reason, whichever files it befell.
    reasons = np.array(
        [
            reason.replace(path, "a file")
            for reason, path in zip(
                table.column("reason").to_pylist(), table.column("path").to_pylist(), strict=True
            )
        ]
    )[statuses == "failed"]
    return RunSummary(
        folder=folder.root,
        sources=len(np.unique(table.column("source_index").to_numpy())),
        tiles={s: int((statuses == s).sum()) for s in sorted(set(statuses))},
        segments=int(table.column("segments").to_numpy().sum()),
        coverage=float(table.column("covered_pixels").to_numpy().sum() / max(valid, 1)),
        seconds_per_tile={
            stage: float(table.column(f"{stage}_seconds").to_numpy()[ran].mean())
            for stage in STAGES
            if ran.any()
        },
        failed_reasons={r: int((reasons == r).sum()) for r in sorted(set(reasons))},
    )


def _open_run(
    folder: RunFolder, src: str | Path, settings: RunSettings, info: ModelInfo
) -> dict[str, Any]:
    """Go on with the run in ``folder``, or plan a new one there."""
    decides = _what_decides(src, settings, info)
    config_hash = fingerprint(decides)
    if folder.run_json.exists():
        run = _read_run(folder)
        if run["config_hash"] != config_hash:
            raise RunFolderError(
                f"{folder.root} holds a run with other settings ({_differences(run, decides)}); "
                "give another OUT, or the settings in its run.json"
            )
        _say_what_is_new(folder, src)
        return run
    sources = find_sources(src, exclude=folder.root)
    plan = make_plan(sources, settings.source)
    _refuse_unreadable(plan, src)
    write_table(plan, folder.plan)
    # Written after the plan: a folder with a run.json has a plan.
    return folder.update_run(
        source=_absolute(src),
        started=_now(),
        config_hash=config_hash,
        model={"name": info.name, "sha256": info.sha256, "parameters": info.parameters},
        settings=settings.to_dict(),
        defaults=RunSettings().for_model(info.defaults).to_dict(),
        versions=_versions(),
        seed=settings.cluster.seed,
        stages={},
        done={},
    )


def _say_what_is_new(folder: RunFolder, src: str | Path) -> None:
    """Images that came after the plan are not labelled; that must not pass in silence."""
    try:
        found = {printable(source.name) for source in find_sources(src, exclude=folder.root)}
    except SourceError:  # away by now; what is left to read will say so
        return
    planned = set(read_table(folder.plan, ["source"]).column("source").unique().to_pylist())
    if new := sorted(found - planned):
        print(
            f"{len(new)} images at {src} came after this run was planned and are not labelled "
            f"({new[0]}, say); give another OUT to label all",
            file=sys.stderr,
        )


def _read_run(folder: RunFolder) -> dict[str, Any]:
    """run.json with all that the stages need."""
    run = folder.read_run()
    needed = {"config_hash", "settings", "done", "stages", "model", "source"}
    if lacking := sorted(needed - run.keys()):
        raise RunFolderError(
            f"{folder.run_json} is damaged: it lacks {', '.join(lacking)}; put back a copy, or "
            "give another OUT"
        )
    return run


def _what_decides(src: str | Path, settings: RunSettings, info: ModelInfo) -> dict[str, Any]:
    """All that the segments depend on; clusters may change without segmenting anew."""
    values = settings.to_dict()
    return {
        "SRC": _absolute(src),
        "model": info.sha256,
        **values["source"],
        **values["segment"],
    }


def _absolute(src: str | Path) -> str:
    """SRC as it is known from any working directory."""
    return str(src) if "://" in str(src) else str(Path(src).absolute())


def _differences(run: dict[str, Any], decides: dict[str, Any]) -> str:
    """Name what differs between a run and what was asked for now."""
    was = {
        "SRC": run["source"],
        "model": run["model"]["sha256"],
        **run["settings"]["source"],
        **run["settings"]["segment"],
    }
    differing = [
        f"{name} {was.get(name)} there, {value} now"
        for name, value in decides.items()
        if was.get(name) != value
    ]
    return "; ".join(differing) or "written by another version"


def refuse_foreign(folder: RunFolder) -> None:
    """Do not mix label maps into a folder that holds something else."""
    if folder.run_json.exists() or not folder.root.is_dir():
        return
    ours = {"journal", "segments"}  # what a run killed while planning leaves
    others = sorted(path.name for path in folder.root.iterdir() if path.name not in ours)
    others = [name for name in others if not name.startswith(".run.json")]
    if others:
        raise RunFolderError(
            f"{folder.root} is not empty and no run folder (it holds {others[0]}); "
            "give a new or empty folder as OUT"
        )


def _refuse_unreadable(plan: pa.Table, src: str | Path) -> None:
    """An archive of which nothing can be opened is a mistake in the call, not a run."""
    reasons = plan.column("reason").to_pylist()
    if all(reasons):
        raise SettingsError(f"none of the images at {src} can be opened; the first: {reasons[0]}")


def _with_runtime(folder: RunFolder, settings: RunSettings, model: Model) -> RunSettings:
    """Settle what ``auto`` stands for: once a run, on whichever machine opened it."""
    check_name(settings.segment.runtime)
    if settings.segment.runtime != "auto":
        return settings
    name = None
    if folder.run_json.exists():
        name = folder.read_run().get("settings", {}).get("segment", {}).get("runtime")
    name = name or choose(model, say=lambda text: print(text, file=sys.stderr)).name
    return replace(settings, segment=replace(settings.segment, runtime=name))


@contextmanager
def _timed(folder: RunFolder, stage: str, part: tuple[int, int] = (0, 1)) -> Iterator[None]:
    """Add the seconds of a stage to run.json; a run in pieces adds up."""
    began = time.perf_counter()
    try:
        yield
    finally:  # after Ctrl-C too; only what a SIGKILL took is missing
        seconds = time.perf_counter() - began
        with folder.alone(part):
            stages = folder.read_run()["stages"]
            stages[stage] = round(stages.get(stage, 0) + seconds, 3)
            folder.update_run(stages=stages)


def _mark(folder: RunFolder, stage: str, value: str) -> None:
    done = folder.read_run()["done"] | {stage: value}
    folder.update_run(done=done)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _versions() -> dict[str, str]:
    found = {}
    for name in ("alps-engine", "torch", "numpy", "rasterio", "pyarrow"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # run from a checkout that was never installed
            found[name] = "unknown"
    return found
