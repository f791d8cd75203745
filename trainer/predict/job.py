"""A run of predictions from beginning to end: plan, predict shard by shard, write, report.

It is on the machinery of a labelling: OUT is a run folder, with a plan, a journal, locks and
checksums, and goes on where it was stopped.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from alps.engine.base.progress import Progress
from alps.engine.images.reading import Reading
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.items import reading_of
from alps.engine.run_folder.locks import WHOLE, alone, locked, settle_shares
from alps.engine.run_folder.plan import Plan
from alps.engine.run_folder.run_record import PREDICT
from alps.engine.run_folder.sums import is_whole
from alps.engine.settings import FilledSourceSettings, SourceSettings
from alps.engine.stages.absences import Absences, readable_again
from alps.engine.stages.changes import to_update
from alps.engine.stages.label import RunSummary, finish
from alps.engine.stages.opening import (
    Purpose,
    RunOptions,
    mark,
    note_warnings,
    open_planned,
    refuse_foreign,
    timed,
)
from alps.engine.stages.segment import archive_root, collect_tiles
from alps.engine.stages.tiles.crew import crew_for
from alps.engine.workers.protocol import Alone, Crew, Tell, nothing_to_tell
from alps.trainer.predict.maps import Maps
from alps.trainer.predict.model import OpenedModel, Predictor, open_for_predicting
from alps.trainer.predict.recipe import PredictSettings, check, filled, plain
from alps.trainer.predict.shards import Work
from alps.trainer.predict.workers import (
    MODULES,
    ChoosePrecision,
    ModelToOpen,
    PredictPieces,
    pieces_of,
    runs,
)


def predict_archive(
    src: str | Path,
    out: str | Path,
    source: SourceSettings | None = None,
    settings: PredictSettings | None = None,
    options: RunOptions | None = None,
) -> RunSummary | int:
    """Predict every image of ``src`` into the run folder ``out``.

    Args:
        src: as of ``label_archive``.
        out: receives label maps, classes.json, tiles.parquet and a report.
        source: how images are cut and read; what is left open, the model's card says.
        settings: what is predicted.
        options: ``model`` is an OUT of a training, a folder of transformers, or a name on the hub.

    Started again with the same settings it goes on where it stopped, and ends with the files that
    an undisturbed run writes.

    Returns:
        What the run came to; of one machine's share the number of shards left to others.

    Raises:
        ModelError: the model cannot be used.
        SourceError: nothing found at ``src``.
        SettingsError: a setting cannot work.
        RunFolderError: ``out`` is in use, unwritable, or holds another run.
        TooManyFailuresError: everything is written, but more than ``options.max_failed`` of the
            tiles could not be read, or of the label maps not be written.
    """
    settings, options = settings or PredictSettings(), options or RunOptions()
    check(settings)
    folder = RunFolder(Path(out))
    refuse_foreign(folder, PREDICT)
    opened = open_for_predicting(options.model)
    cut = filled(source or SourceSettings(), opened.card)
    with locked(folder, options.share, room="predicted"):
        with crew_for(folder, options, MODULES) as (crew, here):
            predictor = _ready(opened, crew, folder, settings, here)
            settings = replace(settings, precision=predictor.precision)
            run = _Run(folder, predictor, cut, settings, here, crew)
            unpainted = run.predict(src)
        if options.share[1] > 1:
            return _missing(folder)
        return finish(folder, options.max_failed, unpainted)


def _ready(
    opened: OpenedModel,
    crew: Crew,
    folder: RunFolder,
    settings: PredictSettings,
    options: RunOptions,
) -> Predictor:
    """The model in this process, in the precision in which a crew computes.

    A run keeps to the one that was settled when it began.
    """
    precision = settings.precision
    if precision == "auto" and folder.run_json.exists():
        precision = str(folder.read_run()["settings"][PREDICT]["precision"])
    elif precision == "auto" and crew.device == "cuda":
        model = ModelToOpen(opened.name, crew.device, precision)
        ((_, precision),) = crew.carry_out(ChoosePrecision(model), [0], nothing_to_tell)
    return opened.on(options.device, precision)


@dataclass(frozen=True)
class _Run:
    """What all parts of a run need."""

    folder: RunFolder
    predictor: Predictor
    source: FilledSourceSettings
    settings: PredictSettings
    options: RunOptions
    crew: Crew

    def predict(self, src: str | Path) -> dict[str, str]:
        """Predict and write what is missing of this machine's share.

        Returns sources that have no label map, with reasons; of a share none is written.
        """
        folder, share = self.folder, self.options.share
        with alone(folder, share):
            run = open_planned(folder, src, self._purpose(), wanted=self.options.wanted())
            settle_shares(folder, share)
        reading = reading_of(folder, run)
        classes = self.predictor.classes
        with Maps(folder, run["config_hash"], classes, self.settings, reading) as maps:
            update = to_update(folder, self.options.update)
            with alone(folder, share):
                missing = self._to_do(maps, reading, set(update.tiles))
            with timed(folder, "predict", share):
                doubts = self._shards(maps, reading, missing)
            note_warnings(folder, doubts, share)
            update.note(folder)
            if share[1] > 1:
                return {}
            maps.write_classes()
        collect_tiles(folder)
        mark(folder, "paint", run["config_hash"])
        return maps.unpainted

    def _purpose(self) -> Purpose:
        predictor, settings = self.predictor, plain(self.settings)
        usual = {
            "source": plain(filled(SourceSettings(), predictor.card)),
            PREDICT: plain(PredictSettings()),
        }
        record = {
            "model": {
                "name": predictor.name,
                "sha256": predictor.sha256,
                "parameters": predictor.parameters,
            },
            "settings": {"source": plain(self.source), PREDICT: settings},
            "defaults": usual,
        }
        return Purpose(PREDICT, self.source, {"model": predictor.sha256, **settings}, record)

    def _to_do(self, maps: Maps, reading: Reading, changed: set[int]) -> list[int]:
        """Shards of this machine that are missing; what can be read again is among them."""
        folder = self.folder
        mine = _shards_of(folder, self.options.share)
        done = [shard for shard in mine if is_whole(folder, folder.shard_tiles(shard))]
        if self.options.share[1] == 1:
            retry = self.options.retry_failed
            maps.forget(readable_again(folder, reading, done, retry) | changed, retry)
        missing = [shard for shard in mine if not maps.is_done(shard)]
        if folder.read_run()["done"]:
            folder.update_run(done={})
        return missing

    def _shards(self, maps: Maps, reading: Reading, missing: list[int]) -> dict[str, str]:
        """Predict shards, and write label maps as soon as can be; returns what is doubtful."""
        folder, plan = self.folder, Plan.of(self.folder)
        writes = self.options.share[1] == 1
        if writes:
            maps.write_all()
        tiles = sum(len(plan.ids_of(shard)) for shard in missing)
        total = sum(len(plan.ids_of(s)) for s in _shards_of(folder, self.options.share))
        doubts: dict[str, str] = {}
        with Progress(total, "tiles", "predicting", initial=total - tiles) as progress:
            for shards, new in self._carry_out(plan, reading, missing, progress.advance):
                for shard in shards if writes else ():
                    maps.committed(shard)
                for kind, doubt in new.items():  # once a kind of doubt and not once a file
                    if kind not in doubts:
                        progress.note(f"warning: {doubt}")
                        doubts[kind] = doubt
            progress.move_to(total)  # tiles of a worker that died were told twice
        return doubts

    def _carry_out(
        self, plan: Plan, reading: Reading, missing: Sequence[int], tell: Tell
    ) -> Iterator[tuple[range, dict[str, str]]]:
        """Yield shards that are predicted, and what is doubtful about sources read so far."""
        folder, tile = self.folder, self.source.tile
        if isinstance(self.crew, Alone):
            absences = Absences(archive_root(folder))
            work = Work(folder, plan, self.predictor, self.settings, tile, reading, absences)
            for some in runs(missing):
                for shard in work.predict(some, tell):
                    yield range(shard, shard + 1), work.doubts
            yield range(0), work.doubts
            return
        model = ModelToOpen(self.predictor.name, self.crew.device, self.settings.precision)
        pieces = pieces_of(missing, self.crew)
        job = PredictPieces(
            folder.root, model, self.predictor.sha256, self.settings, tile, reading, pieces
        )
        for number, doubts in self.crew.carry_out(job, range(len(pieces)), tell):
            yield pieces[number], doubts


def _shards_of(folder: RunFolder, share: tuple[int, int]) -> range:
    """One machine's shards: neighbours, for windows where two machines meet are predicted twice."""
    count = Plan.of(folder).shards
    return range(share[0] * count // share[1], (share[0] + 1) * count // share[1])


def _missing(folder: RunFolder) -> int:
    """How many shards are not predicted yet, by any machine."""
    shards = _shards_of(folder, WHOLE)
    return sum(not is_whole(folder, folder.shard_tiles(shard)) for shard in shards)
