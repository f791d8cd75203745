"""How far a run is: in progress, finished or dead, of any kind."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.run_record import LABEL, PREDICT
from alps.engine.status.contents import (
    PaintedCount,
    PlanFacts,
    count_groups,
    count_painted,
    failed_tiles,
    numbered,
    plan_facts,
)
from alps.engine.status.processes import ALIVE, SILENT, Clock, Process, processes_of
from alps.engine.telemetry.heartbeat import commonest
from alps.engine.telemetry.record import OF_TILES
from alps.engine.telemetry.record import STAGES as ALL_STAGES

RUNNING, QUIET, FINISHED, STOPPED = "running", "silent", "finished", "stopped"
# What a run goes through, in order.
STAGES = {
    LABEL: ("plan", "segment", "regions", "cluster", "paint", "report"),
    PREDICT: ("plan", "predict", "report"),
}
ONE_PASS = ("plan", "segment", "report")
READING = (OSError, pa.ArrowException)


@dataclass(frozen=True)
class TileCount:
    """Tiles of the plan."""

    planned: int
    done: int  # their shard is on the disk, or they were made by a process that is alive
    failed: int | None  # of those that are done; None: not known
    failed_reasons: dict[str, int]  # the commonest

    @property
    def left(self) -> int:
        """How many are not done."""
        return self.planned - self.done


@dataclass(frozen=True)
class GroupCount:
    """Groups of sources, which are cut and classed together."""

    planned: int
    cut: int
    clustered: int


@dataclass(frozen=True)
class SourceCount:
    """Sources of the plan."""

    planned: int
    painted: int
    unpainted: int  # that cannot have a label map
    is_exact: bool  # whether ``painted`` is; else it is told by the length of a journal


@dataclass(frozen=True)
class Status:
    """How far a run is. None of what is not known, or does not apply."""

    out: Path
    kind: str  # label or predict
    state: str  # RUNNING, QUIET, FINISHED or STOPPED
    stage: str  # of STAGES: what goes on, or what is next; empty: all is done
    tiles: TileCount | None
    groups: GroupCount | None
    sources: SourceCount | None
    rate: float | None  # of what goes on a second, over the last minutes
    unit: str  # of that
    seconds_left: float | None  # of the stage
    processes: tuple[Process, ...]
    run: Mapping[str, Any]  # run.json
    next: tuple[str, ...]  # commands that go on
    concerns: tuple[str, ...] = ()
    stages: tuple[str, ...] = field(default=())

    @property
    def is_alive(self) -> bool:
        """Whether somebody is at work."""
        return any(one.state == ALIVE for one in self.processes)


def status_of(folder: RunFolder, clock: Clock | None = None, *, is_patient: bool = True) -> Status:
    """Look at a run; nothing is written or locked.

    Args:
        folder: of a run that began at least.
        clock: of this machine; None: the system's.
        is_patient: wait a moment where it is in doubt who is alive, as ``processes_of``.

    Raises RunFolderError where the folder is none, or its run.json cannot be read.
    """
    # First: what they say is done lies in the folder when that is looked at.
    processes = processes_of(folder.journal, clock or Clock(), is_patient=is_patient)
    return _Look(folder, tuple(processes)).status()


class _Look:
    """One look at a folder."""

    def __init__(self, folder: RunFolder, processes: tuple[Process, ...]) -> None:
        self._folder, self._processes = folder, processes
        self._concerns: list[str] = []
        self._alive = [one for one in processes if one.state == ALIVE]
        is_new = not folder.run_json.exists() and (folder.journal.is_dir() or bool(processes))
        self._run: dict[str, Any] = {} if is_new else folder.read_run()
        self._kind = str(self._run.get("kind", LABEL))
        self._done: dict[str, str] = self._run.get("done", {})
        self._is_one_pass = "clusters" in self._run.get("also", {})
        self._keeps = self._run.get("also", {}).get("keep_segments", True)

    def status(self) -> Status:
        plan = self._plan() if self._run else None
        shards = numbered(self._folder.journal, "tiles", plan.shards) if plan else np.zeros(0, bool)
        tiles = self._tiles(plan, shards) if plan else None
        groups = self._groups(plan) if plan else None
        sources = self._sources(plan) if plan else None
        is_segmented = bool(plan) and bool(shards.all())
        stages = self._stages()
        stage = self._stage(is_segmented, groups)
        rate, unit, left = self._pace()
        if is_segmented and plan:
            self._doubt(plan, shards)
        return Status(
            self._folder.root,
            self._kind,
            self._state(stage),
            stage,
            tiles,
            groups,
            sources,
            rate,
            unit,
            left,
            self._processes,
            self._run,
            tuple(self._next(stage, shards)),
            tuple(self._concerns),
            stages,
        )

    def _plan(self) -> PlanFacts | None:
        try:
            plan = plan_facts(self._folder)
        except READING as error:
            self._concerns.append(f"{self._folder.plan} cannot be read: {_one_line(error)}")
            return None
        if plan is None:
            self._concerns.append(f"{self._folder.plan} is missing")
        return plan

    def _tiles(self, plan: PlanFacts, shards: np.ndarray) -> TileCount:
        done = plan.tiles_of(shards)
        done += sum(sum(one.beat.pending.values()) for one in self._alive)
        # Tiles that are made again have their shard on the disk, as it was before.
        left = sum(
            max(0, one.beat.total - one.beat.done)
            for one in self._alive
            if one.is_run and one.beat.work in OF_TILES and one.beat.total is not None
        )
        done = max(0, min(done, plan.tiles - left))
        failed, reasons = self._failed(bool(shards.all()))
        return TileCount(plan.tiles, done, failed, reasons)

    def _failed(self, is_segmented: bool) -> tuple[int | None, dict[str, int]]:
        if is_segmented:
            try:
                known = failed_tiles(self._folder)
            except READING as error:
                self._concerns.append(f"{self._folder.tiles} cannot be read: {_one_line(error)}")
                return None, {}
            if known is not None:
                return sum(known.values()), commonest(known)
        found: Counter[str] = Counter()
        for one in self._processes:
            found.update(one.beat.failed)
            if one.state == ALIVE:
                found.update(one.beat.pending_failed)
        counted = any(one.beat.tiles or one.beat.pending for one in self._processes)
        if not counted and not self._alive:
            return None, {}
        return sum(found.values()), commonest(dict(found))

    def _groups(self, plan: PlanFacts) -> GroupCount | None:
        if self._kind == PREDICT or not self._keeps:
            return None
        root = self._folder.root
        cut, clustered = (
            numbered(root / room, "part", plan.shards) for room in ("regions", "clusters")
        )
        try:
            planned = count_groups(self._folder, plan)
        except READING as error:
            self._concerns.append(f"{self._folder.plan} cannot be read: {_one_line(error)}")
            planned = 0
        # Classes of clusters that are being replaced are those of before.
        is_clustered = "cluster" in self._done or self._is_one_pass
        return GroupCount(planned, int(cut.sum()), int(clustered.sum()) if is_clustered else 0)

    def _sources(self, plan: PlanFacts) -> SourceCount:
        if self._is_painted():
            found = count_painted(self._folder.painted)
            if not found.is_exact:
                found = PaintedCount(plan.sources, 0, False)
        elif self._kind == LABEL and not self._is_one_pass and not self._is_painting():
            found = PaintedCount(0, 0, True)
        else:
            found = count_painted(self._folder.painted)
        painted = min(found.sources, plan.sources) - found.refused
        return SourceCount(plan.sources, painted, found.refused, found.is_exact)

    def _is_painted(self) -> bool:
        if self._kind == PREDICT:
            return "paint" in self._done
        return "cluster" in self._done and self._done["cluster"] == self._done.get("paint")

    def _is_painting(self) -> bool:
        """Whether label maps of the clusters that are there have been begun."""
        if "cluster" not in self._done:
            return False
        try:
            painted, clusters = (
                path.stat().st_mtime for path in (self._folder.painted, self._folder.clusters)
            )
        except OSError:
            return False
        return painted >= clusters

    def _stages(self) -> tuple[str, ...]:
        return ONE_PASS if self._is_one_pass else STAGES.get(self._kind, STAGES[LABEL])

    def _stage(self, is_segmented: bool, groups: GroupCount | None) -> str:
        """What goes on by those who are alive; else what is next."""
        told = [one.beat.stage for one in self._alive if one.is_run and one.beat.stage]
        if told:
            known = [stage for stage in told if stage in ALL_STAGES]
            return min(known, key=ALL_STAGES.index, default=told[0])
        if not self._run:
            return "plan"
        if not is_segmented:
            return "predict" if self._kind == PREDICT else "segment"
        if not self._is_painted():
            return self._next_stage(groups)
        if "finished" not in self._run:
            return "report"
        return ""

    def _next_stage(self, groups: GroupCount | None) -> str:
        if self._kind == PREDICT:
            return "predict"
        if self._is_one_pass:
            return "segment"
        if groups is not None and groups.cut < groups.planned:
            return "regions"
        return "paint" if "cluster" in self._done else "cluster"

    def _state(self, stage: str) -> str:
        if self._alive:
            return RUNNING
        if any(one.state == SILENT for one in self._processes):
            return QUIET
        return STOPPED if stage else FINISHED

    def _pace(self) -> tuple[float | None, str, float | None]:
        """Rate, its unit, and seconds that are left."""
        runs = [one.beat for one in self._alive if one.is_run]
        rates = [beat.rate for beat in runs if beat.rate]
        work = next((beat.work for beat in runs if beat.rate), "")
        left = [
            (beat.total - beat.done) / beat.rate
            for beat in runs
            if beat.rate and beat.total is not None
        ]
        known = bool(left) and len(left) == len(runs)
        unit = "tiles" if work in OF_TILES else work
        return (sum(rates) if rates else None), unit, (max(left) if known else None)

    def _doubt(self, plan: PlanFacts, shards: np.ndarray) -> None:
        """What is missing, as far as names of files tell."""
        folder = self._folder
        if not folder.tiles.exists() and not self._alive:
            self._concerns.append(f"{folder.tiles} is missing; the next command makes it")
        if self._kind == LABEL and self._keeps:
            there = numbered(folder.root / "segments", "part", plan.shards)
            if lacking := int((shards & ~there).sum()):
                self._concerns.append(f"segments of {lacking} shards are missing")
        for stage, path in (("cluster", folder.clusters), ("paint", folder.classes)):
            if stage in self._done and self._kind == LABEL and not path.exists():
                self._concerns.append(f"{path} is missing")

    def _next(self, stage: str, shards: np.ndarray) -> Iterator[str]:
        """Commands that go on with a run, where nobody does."""
        out = self._folder.root
        if self._alive or not stage:
            return
        stopped = sorted(self._processes, key=lambda one: one.age)
        given = [one.beat.command for one in stopped if one.is_run and one.beat.command]
        machines = self._run.get("machines", 1)
        if stage in ("segment", "predict") and machines > 1 and not shards.all():
            yield from self._shares(shards, given, machines)
        elif given:
            yield given[0]
        elif stage in ("cluster", "regions"):
            yield f"alps cluster {out}"
            yield f"alps paint {out}"
        elif stage == "paint":
            yield f"alps paint {out}"
        elif stage == "report":
            yield f"alps report {out}"
        else:
            yield f"{self._made_by()}, with its options"

    def _shares(self, shards: np.ndarray, given: Sequence[str], machines: int) -> Iterator[str]:
        """The commands of shares that are not done."""
        missing = np.flatnonzero(~shards)
        if self._kind == PREDICT:  # neighbours
            open_shares = np.unique((missing * machines) // max(1, len(shards)))
        else:
            open_shares = np.unique(missing % machines)
        for share in open_shares.tolist():
            flag = f"--shard {share + 1}/{machines}"
            own = next(
                (command for command in given if command.endswith(flag) or f"{flag} " in command),
                "",
            )
            yield own or f"{self._made_by('segment')} {flag}, with its options"

    def _made_by(self, label: str = "label") -> str:
        run = self._run
        if not run:
            return f"the command that was to make {self._folder.root} once more"
        model = f"{run['model']['name']} " if self._kind == PREDICT else ""
        command = "predict" if self._kind == PREDICT else label
        return f"alps {command} {model}{run['source']} {self._folder.root}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
