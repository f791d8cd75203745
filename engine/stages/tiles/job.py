"""Shards to segment as a job of a crew: each worker loads the model onto its own device."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from alps.engine.base.errors import ModelError
from alps.engine.base.progress import note
from alps.engine.masks.generator import MaskGenerator
from alps.engine.models.load import load_model
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.locks import alone
from alps.engine.run_folder.plan import Plan
from alps.engine.run_folder.run_record import ComputedOn
from alps.engine.runtimes.batching import fit_capacity
from alps.engine.runtimes.choose import Model, choose, open_runtime
from alps.engine.settings import FilledSettings, RunSettings
from alps.engine.stages.opening import LoadedModel, RunOptions, prepare_model
from alps.engine.stages.segment import (
    Keeper,
    Segmenting,
    carry_out_shards,
    commit,
    segment_archive,
)
from alps.engine.stages.tiles.device import computed_on, known_device, note_device, set_up_as
from alps.engine.stages.tiles.pieces import Pieces, Result, committed
from alps.engine.telemetry.record import recorder
from alps.engine.workers.protocol import Alone, Crew, Tell, nothing_to_tell


@dataclass(frozen=True)
class ModelToLoad:
    """What a worker segments with, as plain values."""

    name: str  # as --model names it; every worker finds it so
    sha256: str
    settings: FilledSettings  # with the run's own runtime
    artefacts: Path | None
    device: str  # of a worker: cpu, or cuda for the GPU that it sees

    def load(self) -> tuple[MaskGenerator, torch.device]:
        """Everything mode, and where it computes. Raises ModelError for other weights."""
        sam, info = load_model(self.name, self.device)
        if info.sha256 != self.sha256:
            raise ModelError(
                f"--model {self.name} is another one for a worker than for the run: its SHA-256 is "
                f"{info.sha256[:12]}…, not {self.sha256[:12]}…; give the same file to both"
            )
        segment = self.settings.segment
        model = Model(sam, info, segment.precision, self.artefacts)
        return MaskGenerator.for_run(open_runtime(model, segment.runtime), segment), model.device


@dataclass(frozen=True)
class ChooseRuntime:
    """What ``--runtime auto`` stands for where workers compute; the only number is 0."""

    model: ModelToLoad

    def run(self, numbers: Iterator[int], tell: Tell) -> Iterator[tuple[int, str]]:
        """See ``Job``."""
        for number in numbers:
            sam, info = load_model(self.model.name, self.model.device)
            precision = self.model.settings.segment.precision
            yield number, choose(Model(sam, info, precision, self.model.artefacts), say=note).name

    def words(self, number: int) -> str:
        """See ``Job``."""
        return "the choice of a runtime"


@dataclass(frozen=True)
class LookAtDevice:
    """What workers of a run will compute on; the only number is 0."""

    model: ModelToLoad

    def run(self, numbers: Iterator[int], tell: Tell) -> Iterator[tuple[int, ComputedOn]]:
        """See ``Job``: a batch as large as any is tried first."""
        for number in numbers:
            generator, device = self.model.load()
            if device.type != "cpu":
                fit_capacity(generator.runtime)
            yield number, computed_on(generator.runtime, device)

    def words(self, number: int) -> str:
        """See ``Job``."""
        return "the first batch"


@dataclass(frozen=True)
class SegmentShards:
    """Shards of a run, the last of them in pieces."""

    root: Path
    model: ModelToLoad
    on: ComputedOn
    any_device: bool
    again: frozenset[int]  # as of ``segment_archive``
    pieces: Pieces

    def run(self, numbers: Iterator[int], tell: Tell) -> Iterator[tuple[int, Result]]:
        """See ``Job``."""
        folder, pieces = RunFolder(self.root), self.pieces
        generator, device = self.model.load()
        set_up_as(self.on, generator.runtime, device, self.any_device, folder)
        plan = Plan.of(folder)
        work = Segmenting(folder, plan, generator, self.model.settings, self.again, pieces.tiles)
        ranges = (pieces.range_of(plan, number) for number in numbers)
        for ids, made, doubts in work.segment(ranges, tell):
            number = pieces.number_of(plan, ids)
            if number < pieces.first:
                commit(folder, number, made)
                made = []
            recorder.shard()
            yield number, Result(made, doubts)

    def words(self, number: int) -> str:
        """See ``Job``."""
        ids = self.pieces.range_of(Plan.of(RunFolder(self.root)), number)
        return f"tiles {ids.start} to {ids.stop - 1}"


def prepare_for(
    crew: Crew, folder: RunFolder, settings: RunSettings, options: RunOptions
) -> LoadedModel:
    """``prepare_model`` where workers compute: this process then stays on the CPU."""
    if isinstance(crew, Alone):
        return prepare_model(settings, options)
    loaded = prepare_model(settings, replace(options, device="cpu"))
    segment = loaded.settings.segment
    if crew.device == "cpu" or segment.runtime != "auto" or folder.run_json.exists():
        return loaded
    job = ChooseRuntime(_to_load(crew, loaded, options))
    ((_, name),) = crew.carry_out(job, [0], nothing_to_tell)
    segment = replace(segment, runtime=name)
    return replace(loaded, settings=replace(loaded.settings, segment=segment))


def _to_load(crew: Crew, loaded: LoadedModel, options: RunOptions) -> ModelToLoad:
    return ModelToLoad(
        options.model, loaded.info.sha256, loaded.settings, options.artefacts, crew.device
    )


def segment_with(
    crew: Crew,
    folder: RunFolder,
    loaded: LoadedModel,
    options: RunOptions,
    keeper: Keeper | None = None,
    again: Collection[int] = (),
) -> dict[str, str]:
    """``segment_archive`` by a crew, of the model that this process loaded.

    Raises RunFolderError where the run was begun on another device.
    """
    if isinstance(crew, Alone):
        generator = loaded.generator_for(folder, options)
        return segment_archive(folder, generator, loaded.settings, options.share, keeper, again)
    model = _to_load(crew, loaded, options)

    def carry_out(shards: Sequence[int], tell: Tell) -> Iterator[tuple[int, dict[str, str]]]:
        on = known_device(folder)
        if on is None:
            if crew.device == "cpu":  # nothing has to be tried
                on = computed_on(loaded.generator().runtime, loaded.model.device)
            else:
                ((_, on),) = crew.carry_out(LookAtDevice(model), [0], nothing_to_tell)
            with alone(folder, options.share):
                note_device(folder, on)
        plan = Plan.of(folder)
        known = {plan.shard_of(tile) for tile in again}
        known |= {shard for shard in shards[-crew.size :] if folder.kept_tiles(shard).exists()}
        pieces = Pieces.of_last(plan, shards, crew.size, on.images_at_once, known)
        job = SegmentShards(folder.root, model, on, options.any_device, frozenset(again), pieces)
        results = crew.carry_out(job, pieces.numbers(plan, shards), tell)
        return committed(folder, pieces, results)

    return carry_out_shards(folder, carry_out, options.share, keeper, again)
