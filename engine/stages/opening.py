"""How a run begins, and how it goes on: its model, its plan and run.json.

A run is known by all that its segments depend on; the same command finds it again, another one is
refused.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from alps.engine.base.atomic import publish, remove_folder
from alps.engine.base.digests import fingerprint
from alps.engine.base.errors import RunFolderError, SettingsError, SourceError
from alps.engine.base.memory import memory_named
from alps.engine.images.archive import Survey, plain_limits
from alps.engine.images.facts.said import SaidTable
from alps.engine.masks.generator import MaskGenerator
from alps.engine.models.load import load_model
from alps.engine.planning.extend import Wanted, extend_plan, say_what_is_new, take_back
from alps.engine.planning.index import SourceIndex
from alps.engine.planning.make import opened_sources, write_plan_of
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.items import ITEMS, reading_of
from alps.engine.run_folder.locks import alone
from alps.engine.run_folder.plan import Plan, refuse_partial, write_plan
from alps.engine.run_folder.run_record import LABEL, PREDICT
from alps.engine.run_folder.sums import forget_sums, record
from alps.engine.runtimes.choose import (
    Model,
    check_name,
    choose,
    open_runtime,
)
from alps.engine.sam.config import ModelInfo
from alps.engine.settings import (
    ALLOWANCES,
    FilledSettings,
    FilledSourceSettings,
    RunSettings,
    deciding,
)
from alps.engine.stac.archive import grown, open_archive
from alps.engine.stages.changes import add_stamps, write_stamps
from alps.engine.stages.tiles.device import keep_to_device
from alps.engine.telemetry.record import recorder
from alps.kernels.base.heap import return_freed_memory

MOST_KINDS = 8  # of sources that are read alike, which are printed
# What takes memory in each stage: what it is called, and what takes less.
NEEDS = {
    "segment": ("segmenting", "label into another OUT with a smaller --tile or a smaller model"),
    "regions": ("cutting", "label into another OUT with fewer --superpixels, or smaller images"),
    "cluster": ("clustering", "give fewer --clusters"),
    "paint": ("painting", "label smaller images"),
    "predict": ("predicting", "give a lower --batch, or another OUT and a smaller --tile"),
}
NOTHING: Mapping[str, Any] = MappingProxyType({})
AS_PLANNED = Wanted()
# A key of run.json: the fingerprint of clusters that stay what they are although the run grew.
KEPT = "clusters_kept"


@dataclass(frozen=True)
class RunOptions:
    """What does not change the result: where and how a run is carried out."""

    model: str = "tiny"
    device: str = "auto"
    max_failed: float = 0.1
    share: tuple[int, int] = (0, 1)
    artefacts: Path | None = None  # exports for settings.segment.runtime; None: the default place
    update: bool = False  # take up images that are new, make anew what is of those that changed
    any_device: bool = False  # go on with a run that another kind of device began
    retry_failed: bool = False  # make anew what failed, for whatever reason
    workers: int | None = None  # processes; None: as many as suit the machine
    cluster: str | None = None  # of Ray, as --cluster names it; None: this machine alone
    worker_cores: int | None = None  # of each worker on that cluster; None: what suits its nodes

    def wanted(self) -> Wanted:
        """What of SRC a plan that is there takes up.

        Raises SettingsError where only a share of the run could be.
        """
        for name in ("update", "retry_failed"):
            if getattr(self, name) and self.share[1] > 1:
                option = name.replace("_", "-")
                raise SettingsError(
                    f"--{option} goes without --shard: all of a run is looked at at once"
                )
        return Wanted(self.update, self.update or self.retry_failed)


@dataclass(frozen=True)
class LoadedModel:
    """A model that is to segment a run, with its settings filled in."""

    model: Model
    info: ModelInfo
    settings: FilledSettings

    def generator(self) -> MaskGenerator:
        """Everything mode as the run wants it."""
        segment = self.settings.segment
        return MaskGenerator.for_run(open_runtime(self.model, segment.runtime), segment)

    def generator_for(self, folder: RunFolder, options: RunOptions) -> MaskGenerator:
        """That, as the device computes for the run in a folder that began it.

        Raises RunFolderError where another one did.
        """
        generator = self.generator()
        with alone(folder, options.share):
            keep_to_device(folder, generator.runtime, self.model.device, options.any_device)
        return generator


def prepare_model(settings: RunSettings, options: RunOptions) -> LoadedModel:
    """Find and load the model, and fill in what it decides."""
    model, info = load_model(options.model, options.device)
    settings = settings.for_model(info.defaults)
    return LoadedModel(
        Model(model, info, settings.segment.precision, options.artefacts), info, settings
    )


def open_run(
    folder: RunFolder,
    src: str | Path,
    loaded: LoadedModel,
    *,
    also: Mapping[str, Any] = NOTHING,
    choose_tiles: Callable[[Plan], pa.Table] | None = None,
    wanted: Wanted = AS_PLANNED,
) -> tuple[dict[str, Any], LoadedModel]:
    """Go on with the labelling in ``folder``, or plan a new one there.

    Args:
        folder: held by this process.
        src: the images.
        loaded: their model.
        also: what else the result depends on, by name; kept in run.json.
        choose_tiles: takes the plan of all tiles and returns the one that is carried out; None:
            all are.
        wanted: what of ``src`` a plan that is there takes up.

    Returns run.json and the model with the run's own runtime.
    """
    settings, info = _with_runtime(folder, loaded.settings, loaded.model), loaded.info
    values = settings.to_dict()
    record = {
        "model": {"name": info.name, "sha256": info.sha256, "parameters": info.parameters},
        "settings": values,
        "also": dict(also),
        "defaults": RunSettings().for_model(info.defaults).to_dict(),
        "seed": settings.cluster.seed,
    }
    # Clusters may change without segmenting anew.
    decides = {"model": info.sha256, **values["segment"], **also}
    purpose = Purpose(LABEL, settings.source, decides, record)
    run = open_planned(folder, src, purpose, choose_tiles, wanted)
    return run, replace(loaded, settings=settings)


@dataclass(frozen=True)
class Purpose:
    """What a run is for, and what it is known by."""

    kind: str
    source: FilledSourceSettings
    decides: Mapping[str, Any]  # all that the result depends on, SRC and ``source`` aside
    record: Mapping[str, Any]  # keys of run.json of its kind: model and settings are among them


def open_planned(
    folder: RunFolder,
    src: str | Path,
    purpose: Purpose,
    choose_tiles: Callable[[Plan], pa.Table] | None = None,
    wanted: Wanted = AS_PLANNED,
) -> dict[str, Any]:
    """Go on with the run of any kind in ``folder``, which this process holds, or plan a new one.

    wanted: what of SRC a plan that is there takes up.

    Returns run.json. Raises RunFolderError where the folder holds a run of something else.
    """
    settings = purpose.source
    decides = {
        "SRC": _as_known(folder, src),
        **deciding(json.loads(json.dumps(asdict(settings)))),
        **purpose.decides,
    }
    config_hash = fingerprint(decides)
    if folder.run_json.exists():
        run = folder.read_planned(purpose.kind)
        if run["config_hash"] != config_hash:
            raise RunFolderError(
                f"{folder.root} holds a run with other settings ({_differences(run, decides)}); "
                "give another OUT, or the settings in its run.json"
            )
        if choose_tiles is None:
            plan = Plan.of(folder)
            refuse_partial(plan)
            take_back(folder, plan)
            if wanted.anything:
                return _grow(folder, src, run, purpose, wanted)
            _say_what_is_new(folder, src, settings, run)
        return run
    with recorder.stage("plan"), open_archive(src, settings, folder.items, folder.root) as archive:
        survey = Survey(archive.reading)
        work = folder.journal / ".sources"
        with opened_sources(archive.sources, settings, survey, work) as index:
            write_stamps(folder, (one.source.path for one in index.all()))
            _refuse_unreadable(index, src)
            _say_what_is_read(survey)
            write_plan_of(index, settings, folder.plan)
        items = {} if archive.said is None else {ITEMS: len(archive.said)}
        if items:
            record(folder, folder.items)
    if choose_tiles is not None:
        write_plan(folder.plan, [choose_tiles(Plan.of(folder))])
    # Written after the plan: a folder with a run.json has a plan.
    return folder.update_run(
        kind=purpose.kind,
        source=_absolute(src),
        started=now(),
        config_hash=config_hash,
        **purpose.record,
        versions=_versions(),
        read=survey.kinds(),
        stretches=plain_limits(survey.shared_limits()),
        warnings=survey.doubts,
        **items,
        stages={},
        done={},
    )


def _say_what_is_read(survey: Survey) -> None:
    """What was taken for red, green and blue, and what of it is doubtful: before hours of work."""
    for words in survey.words()[:MOST_KINDS]:
        print(f"reading {words}", file=sys.stderr)
    if len(survey.words()) > MOST_KINDS:
        print(f"{len(survey.words()) - MOST_KINDS} more kinds are in run.json", file=sys.stderr)
    for doubt in survey.doubts.values():
        print(f"warning: {doubt}", file=sys.stderr)


def _say_what_is_new(
    folder: RunFolder, src: str | Path, settings: FilledSourceSettings, run: Mapping[str, Any]
) -> None:
    """Images that came after the plan are not labelled; that must not pass in silence."""
    with (
        suppress(SourceError),  # away by now; what is left to read will say so
        open_archive(src, settings, exclude=folder.root) as archive,
    ):
        say_what_is_new(folder, archive.sources, settings, reading_of(folder, run))


def _grow(
    folder: RunFolder, src: str | Path, run: dict[str, Any], purpose: Purpose, wanted: Wanted
) -> dict[str, Any]:
    """Take up what the plan of a run that is there has not; returns run.json."""
    settings = purpose.source
    reading = reading_of(folder, run)
    survey = Survey(reading)
    later = folder.journal / ".later" / folder.items.name

    def before(new: SourceIndex, anew: frozenset[str]) -> None:
        _say_what_is_read(survey)
        items = {}
        if survey.reading.said is not None:  # before the plan: more in it than that does no harm
            items[ITEMS] = len(survey.reading.said)
            # Without a checksum it is taken as it is: whoever is killed now has one or the other.
            forget_sums(folder, None, folder.items.relative_to(folder.root).as_posix())
            publish(later, folder.items)
            record(folder, folder.items)
            survey.reading = replace(survey.reading, said=SaidTable(folder.items))
        add_stamps(folder, (one.source.path for one in new.all()), anew)
        folder.update_run(
            read=_added_up(run.get("read", []), survey.kinds()),
            stretches=plain_limits(survey.shared_limits()) | run.get("stretches", {}),
            warnings=survey.doubts | run.get("warnings", {}),
            updated=now(),
            **items,
            **keeping_clusters(run),
        )

    with (
        recorder.stage("plan"),
        open_archive(src, settings, exclude=folder.root) as archive,
    ):
        if reading.said is not None:
            later.parent.mkdir(exist_ok=True)
            unopened = {tile.path for tile in Plan.of(folder).firsts() if tile.reason}
            archive = grown(archive, reading.said, unopened if wanted.unopened else (), later)
            survey.reading = replace(reading, said=archive.said)
        extend_plan(folder, archive.sources, settings, survey, wanted, before)
        remove_folder(later.parent)
    return folder.read_planned(purpose.kind)


def keeping_clusters(run: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of run.json of a run whose regions change and whose clusters stay; none where it has no
    clusters of its own: not all regions have a class now.
    """
    fitted = run["done"].get("cluster") or run.get(KEPT)
    if not fitted or "clusters" in run.get("also", {}):
        return {}
    done = {stage: of for stage, of in run["done"].items() if stage not in ("cluster", "paint")}
    return {"done": done, KEPT: fitted}


def _added_up(before: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Kinds of sources of run.json, and how many there are of each with those that came later."""
    found = [dict(kind) for kind in before]
    for kind in new:
        counts = ("sources", "first")
        about = {name: value for name, value in kind.items() if name not in counts}
        same = [k for k in found if {n: v for n, v in k.items() if n not in counts} == about]
        if same:
            same[0]["sources"] += kind["sources"]
        else:
            found.append(kind)
    return found


def _as_known(folder: RunFolder, src: str | Path) -> str:
    """SRC as a run that is there calls it, where it is the same place."""
    known = folder.read_run().get("source") if folder.run_json.exists() else None
    same = isinstance(known, str) and _absolute(known) == _absolute(src)
    return str(known) if same else _absolute(src)


def _absolute(src: str | Path) -> str:
    """SRC as it is known from any working directory."""
    return str(src) if "://" in str(src) else os.path.abspath(src)


def _differences(run: dict[str, Any], decides: dict[str, Any]) -> str:
    """Name what differs between a run and what was asked for now."""
    settings = run["settings"]
    was = {
        "SRC": run["source"],
        "model": run["model"]["sha256"],
        **deciding(settings["source"]),
        **settings.get("segment", {}),
        **settings.get(PREDICT, {}),
        **run.get("also", {}),
    }
    names = decides.keys() | run.get("also", {}).keys() | set(ALLOWANCES)
    differing = [
        f"{name} {was.get(name)} there, {decides.get(name)} now"
        for name in sorted(names)
        if was.get(name) != decides.get(name)
    ]
    return "; ".join(differing) or "written by another version"


def refuse_foreign(folder: RunFolder, kind: str = LABEL) -> None:
    """Do not mix label maps into a folder that holds something else, or a run of another kind."""
    if folder.run_json.exists():
        folder.refuse_kind(kind, folder.read_run())
        return
    if not folder.root.is_dir():
        return
    ours = {"journal", "segments", "predicted"}  # what a run killed while planning leaves
    others = sorted(path.name for path in folder.root.iterdir() if path.name not in ours)
    others = [name for name in others if not name.startswith(".run.json")]
    if others:
        raise RunFolderError(
            f"{folder.root} is not empty and no run folder (it holds {others[0]}); "
            "give a new or empty folder as OUT"
        )


def _refuse_unreadable(index: SourceIndex, src: str | Path) -> None:
    """An archive of which nothing can be opened is a mistake in the call, not a run."""
    if not index.readable:
        reason = next(index.all()).reason
        raise SettingsError(f"none of the images at {src} can be opened; the first: {reason}")


def _with_runtime(folder: RunFolder, settings: FilledSettings, model: Model) -> FilledSettings:
    """Settle what ``auto`` stands for: once a run, on whichever machine opened it."""
    check_name(settings.segment.runtime)
    if settings.segment.runtime != "auto":
        return settings
    name = None
    if folder.run_json.exists():
        name = folder.read_run().get("settings", {}).get("segment", {}).get("runtime")
    name = name or choose(model, say=lambda text: print(text, file=sys.stderr)).name
    return replace(settings, segment=replace(settings.segment, runtime=name))


def note_warnings(folder: RunFolder, warnings: Mapping[str, str], share: tuple[int, int]) -> None:
    """Add what is doubtful about sources to run.json, by its kind."""
    if warnings:
        with alone(folder, share):
            known = folder.read_run().get("warnings", {})
            folder.update_run(warnings={**warnings, **known})


@contextmanager
def timed(folder: RunFolder, stage: str, share: tuple[int, int] = (0, 1)) -> Iterator[None]:
    """Add the seconds of a stage to run.json; a run in pieces adds up.

    Raises OutOfMemoryError where memory runs out in it.
    """
    return_freed_memory()  # of the stage before, which is no use to this one
    began = time.perf_counter()
    try:
        with memory_named(*NEEDS[stage]), recorder.stage(stage):
            yield
    finally:  # after Ctrl-C too; only what a SIGKILL took is missing
        seconds = time.perf_counter() - began
        with alone(folder, share):
            stages = folder.read_run()["stages"]
            stages[stage] = round(stages.get(stage, 0) + seconds, 3)
            folder.update_run(stages=stages)


def mark(folder: RunFolder, stage: str, value: str) -> None:
    """Note in run.json with which settings a stage was done."""
    done = folder.read_run()["done"] | {stage: value}
    folder.update_run(done=done)


def now() -> str:
    """The time, for run.json."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _versions() -> dict[str, str]:
    found = {}
    for name in ("alps-engine", "torch", "numpy", "rasterio", "pyarrow"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # run from a checkout that was never installed
            found[name] = "unknown"
    return found
