"""Predictions as jobs of a crew: each worker opens the model on its own device.

A piece of work is some shards that follow each other, for windows where two pieces meet are
predicted twice.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from alps.engine.base.errors import ModelError
from alps.engine.images.reading import Reading
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.plan import Plan
from alps.engine.stages.absences import Absences
from alps.engine.stages.segment import archive_root
from alps.engine.workers.protocol import Crew, Tell
from alps.trainer.predict.model import Predictor, open_for_predicting
from alps.trainer.predict.recipe import PredictSettings
from alps.trainer.predict.shards import Work

MODULES = ("alps.trainer.predict.workers",)  # what a worker imports while there is nothing to do
PIECES = 4  # for each worker at least, so that they end together; where there are as many shards
MOST_SHARDS = 16  # of a piece: a worker that dies loses no more


@dataclass(frozen=True)
class ModelToOpen:
    """What a worker predicts with, as plain values."""

    name: str  # as MODEL; every worker finds it so
    device: str  # of a worker: cpu, or cuda for the GPU that it sees
    precision: str

    def open(self) -> Predictor:
        """Errors as ``open_for_predicting`` and ``OpenedModel.on``."""
        return open_for_predicting(self.name).on(self.device, self.precision)


@dataclass(frozen=True)
class ChoosePrecision:
    """What ``--precision auto`` stands for where workers compute; the only number is 0."""

    model: ModelToOpen

    def run(self, numbers: Iterator[int], tell: Tell) -> Iterator[tuple[int, str]]:
        """See ``Job``."""
        for number in numbers:
            yield number, self.model.open().precision

    def words(self, number: int) -> str:
        """See ``Job``."""
        return "the choice of a precision"


@dataclass(frozen=True)
class PredictPieces:
    """Pieces of a run; results are what is doubtful about the sources that were read so far."""

    root: Path
    model: ModelToOpen
    sha256: str  # of its weights
    settings: PredictSettings
    tile: int  # side of windows
    reading: Reading
    pieces: Sequence[range]  # of shards, by number

    def run(self, numbers: Iterator[int], tell: Tell) -> Iterator[tuple[int, dict[str, str]]]:
        """See ``Job``. Raises ModelError for other weights than the run's."""
        folder, predictor = RunFolder(self.root), self.model.open()
        if predictor.sha256 != self.sha256:
            raise ModelError(
                f"{self.model.name} is another model for a worker than for the run: its SHA-256 is "
                f"{predictor.sha256[:12]}…, not {self.sha256[:12]}…; give the same one to both"
            )
        work = Work(
            folder,
            Plan.of(folder),
            predictor,
            self.settings,
            self.tile,
            self.reading,
            Absences(archive_root(folder)),
        )
        for number in numbers:
            for _ in work.predict(self.pieces[number], tell):
                pass
            yield number, dict(work.doubts)

    def words(self, number: int) -> str:
        """See ``Job``."""
        plan, shards = Plan.of(RunFolder(self.root)), self.pieces[number]
        return f"tiles {plan.ids_of(shards[0]).start} to {plan.ids_of(shards[-1]).stop - 1}"


def pieces_of(shards: Sequence[int], crew: Crew) -> list[range]:
    """Shards, ascending, as pieces for a crew."""
    most = min(MOST_SHARDS, max(1, len(shards) // (PIECES * crew.size)))
    return [run[at : at + most] for run in runs(shards) for at in range(0, len(run), most)]


def runs(shards: Sequence[int]) -> Iterator[range]:
    """Ranges of shards that follow each other."""
    start = 0
    for at, shard in enumerate(shards):
        if at + 1 == len(shards) or shards[at + 1] != shard + 1:
            yield range(shards[start], shard + 1)
            start = at + 1
