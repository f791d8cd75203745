"""Predict shard by shard: windows, row by row of a source, until lines of pixels are final.

A shard is 32 windows of the plan, as in a labelling. The lines that become final with the last
window of a row are committed with the shard in which that one lies. Who begins in the midst of a
source predicts the windows that reach into its first line anew, so that no line depends on where a
run was stopped. Memory is one row of windows and its sums, whatever the height of a source.

On a CPU each batch is predicted by one thread, on one core: PyTorch rounds otherwise on other
numbers of threads, and the same bytes are to come out of any number of workers.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from alps.engine.base.atomic import remove, whole
from alps.engine.images.reading import Reading
from alps.engine.labels.writer import label_dtype, unlabelled_value
from alps.engine.pipeline.line import Line, Stage
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.plan import Plan, PlannedTile
from alps.engine.run_folder.schemas import PREDICTED_SCHEMA, TILE_SCHEMA
from alps.engine.run_folder.tables import note_table, write_table
from alps.engine.runtimes.cores import cores_shared_out, kernel_threads
from alps.engine.stages.absences import Absences
from alps.engine.stages.tiles.reading import NO_PIXEL, ReadTile, reading_ahead
from alps.engine.telemetry.record import recorder
from alps.engine.workers.protocol import Tell
from alps.kernels.base.threads import threads
from alps.trainer.predict.model import Predictor
from alps.trainer.predict.recipe import PredictSettings
from alps.trainer.segmentation.blend import RowSums, hann, parts, probabilities

LINES = 64  # of pixels that are brought to bytes at once
STEPS, NOTHING = 254, 255  # of a probability in 8 bits: that of 1, and no prediction
PLANNED = 1024  # rows of the plan that are looked at together


@dataclass(frozen=True)
class Work:
    """What shards are predicted with."""

    folder: RunFolder
    plan: Plan
    predictor: Predictor
    settings: PredictSettings
    tile: int  # side of windows
    reading: Reading
    absences: Absences
    doubts: dict[str, str] = field(default_factory=dict)  # about sources that were read, by kind

    def predict(self, shards: range, tell: Tell) -> Iterator[int]:
        """Predict shards, one after the other, and yield each when it is on the disk.

        tell: told of windows that are predicted.

        Raises SourceAwayError where image after image is away that was there when it was planned.
        """
        first = self.plan.ids_of(shards[0]).start
        end = self.plan.ids_of(shards[-1]).stop
        rows = _Rows(self.plan, first, end)
        network = Stage("predict", _Network(self).predict, self._at_once(end - first))
        with (
            cores_shared_out(),
            reading_ahead([rows.tiles()], self.reading, self.tile) as reads,
            Line(_batches(rows, reads.results, self.settings.batch), [network]) as line,
        ):
            found = _Predicting(self, rows, tell).run(iter(line))
            for shard in shards:
                path, seen = self.folder.predicted(shard), []
                with whole(path) as part, _table_writer(part) as writer:
                    for one in iter(lambda: next(found), None):
                        if isinstance(one, pa.Table):
                            writer.write_table(one)
                        else:
                            seen.append(one)
                            recorder.tile(one)
                note_table(path)
                # Written last: from here on the shard is done.
                table = pa.Table.from_pylist(seen, schema=TILE_SCHEMA)
                write_table(table, self.folder.shard_tiles(shard))
                remove(self.folder.kept_tiles(shard))
                recorder.shard()
                yield shard
            self.doubts.update(reads.doubts)

    def _at_once(self, tiles: int) -> int:
        """How many batches are predicted at once, of so many windows."""
        return 1 if self.predictor.device.type != "cpu" else min(threads(), tiles)


@dataclass(frozen=True)
class _Row:
    """A row of windows of a source."""

    tiles: range  # those that are read: of the last row of a shard perhaps not all
    is_whole: bool  # whether they are all of it
    below: int  # the first line of the source that windows below it reach into


class _Rows:
    """Rows of windows of a plan, from the first that tiles ``first`` to ``end`` - 1 depend on."""

    def __init__(self, plan: Plan, first: int, end: int) -> None:
        self.first, self.end, self._plan = first, end, plan
        self._index = index = plan.column("source_index")
        self._y = y = plan.column("y")
        self._starts = np.flatnonzero(
            (np.diff(index, prepend=-1) != 0) | (np.diff(y, prepend=-1) != 0)
        )
        source = int(np.searchsorted(index, index[first]))
        bottom = y[source : first + 1] + plan.column("height")[source : first + 1]
        # The first tile itself where it has no line: of a source that could not be opened.
        reach = np.append(bottom[:-1] > y[first], True)
        self._begin = source + int(reach.argmax())

    def tiles(self) -> Iterator[PlannedTile]:
        """All windows that are read, in order."""
        for start in range(self._begin, self.end, PLANNED):
            yield from self._plan.planned(start, min(start + PLANNED, self.end))

    def __iter__(self) -> Iterator[_Row]:
        at = int(np.searchsorted(self._starts, self._begin, side="right"))
        start = self._begin
        while start < self.end:
            stop = int(self._starts[at]) if at < len(self._starts) else self._plan.tiles
            goes_on = stop < self._plan.tiles and self._index[stop] == self._index[start]
            height = self._plan.tile(start).source_height
            below = int(self._y[stop]) if goes_on else height
            yield _Row(range(start, min(stop, self.end)), stop <= self.end, below)
            start, at = stop, at + 1


@dataclass(frozen=True)
class _Batch:
    """Windows of one row that the network sees together."""

    row: _Row
    reads: list[ReadTile]
    is_last: bool  # of its row
    found: Tensor | None = None  # (n, C, side, side) weighted probabilities, of those with any data
    seconds: float = 0.0


def _batches(rows: _Rows, reads: Iterator[ReadTile], size: int) -> Iterator[_Batch]:
    """All windows that are read, at most ``size`` at a time."""
    for row in rows:
        for some in parts(list(row.tiles), size):
            yield _Batch(row, list(islice(reads, len(some))), some[-1] == row.tiles[-1])


def _with_data(reads: list[ReadTile]) -> list[ReadTile]:
    return [read for read in reads if read.tile is not None and read.tile.valid.any()]


class _Network:
    """What the model makes of windows."""

    def __init__(self, work: Work) -> None:
        self._predictor, self._tile = work.predictor, work.tile
        self._weights = hann(work.tile, work.predictor.device)

    @torch.inference_mode()
    def predict(self, batch: _Batch) -> _Batch:
        """Predict the windows of a row that is read whole, those that have any data."""
        some = _with_data(batch.reads)
        if not some or not batch.row.is_whole:
            return batch
        began, predictor = time.perf_counter(), self._predictor
        with kernel_threads(1):
            found = probabilities(
                predictor.model,
                [read.tile.rgb for read in some if read.tile is not None],
                self._tile,
                predictor.autocast,
                predictor.card.shrink,
            )
            found *= self._weights
        return replace(batch, found=found, seconds=time.perf_counter() - began)


class _Predicting:
    """What comes of rows of windows, in order: lines of pixels, rows of tiles.parquet, ends."""

    def __init__(self, work: Work, rows: _Rows, tell: Tell) -> None:
        self._work, self._rows, self._tell = work, rows, tell
        self._classes = len(work.predictor.classes.values)
        self._device = work.predictor.device
        self._source = -1

    def run(self, batches: Iterator[_Batch]) -> Iterator[pa.Table | dict[str, Any] | None]:
        """Tables of lines, rows of tiles; None when a shard has all of both."""
        for batch in batches:
            row, reads = batch.row, batch.reads
            self._begin(reads[0].planned)
            if row.is_whole:
                self._add(batch)
            for read in reads:
                tile = read.planned.tile_id
                if tile < self._rows.first:
                    continue
                yield self._row_of(read, batch.seconds / len(reads))
                self._tell(1)
                if self._is_end(tile) and not (row.is_whole and tile == row.tiles[-1]):
                    yield None
            if batch.is_last and row.is_whole:
                if row.tiles[-1] >= self._rows.first:
                    yield from self._lines(row.below)
                    if self._is_end(row.tiles[-1]):
                        yield None
                self._drop(row.below)

    def _is_end(self, tile: int) -> bool:
        """Whether a tile is the last one of its shard."""
        return tile + 1 == self._rows.end or not (tile + 1) % self._work.plan.shard_tiles

    @torch.inference_mode()
    def _begin(self, first: PlannedTile) -> None:
        """Make room for the source of a row, unless there is."""
        if first.source_index == self._source:
            return
        self._source = first.source_index
        size = first.height, first.source_width, first.y
        self._sums = RowSums(torch.empty(self._classes, device=self._device), *size)
        self._seen = RowSums(torch.empty(1, dtype=torch.uint8), *size)

    @torch.inference_mode()
    def _add(self, batch: _Batch) -> None:
        """Add what was found of windows to the sums of their pixels."""
        for read in batch.reads:
            if not read.planned.reason:
                self._work.absences.note(read.planned.source, read.error)
        if batch.found is None:
            return
        for read, share in zip(_with_data(batch.reads), batch.found, strict=True):
            assert read.tile is not None
            self._sums.add(read.planned.window, share)
            seen = torch.from_numpy(read.tile.valid)[None].to(torch.uint8)
            self._seen.add(read.planned.window, seen)

    def _row_of(self, read: ReadTile, seconds: float) -> dict[str, Any]:
        row, tile = read.row(), read.tile
        if tile is None:
            return row
        valid = int(tile.valid.sum())
        if valid == 0:
            return row | NO_PIXEL
        return row | {
            "status": "ok",
            "reason": "",
            "valid_pixels": valid,
            "encode_seconds": seconds,
        }

    def _lines(self, below: int) -> Iterator[pa.Table]:
        """The lines above line ``below``, which are final, some at a time."""
        for start in range(self._sums.top, below, LINES):
            with kernel_threads(1):  # sums of the probabilities too
                lines = self._some_lines(start, min(start + LINES, below))
            yield lines

    @torch.inference_mode()
    def _some_lines(self, start: int, end: int) -> pa.Table:
        settings, top = self._work.settings, self._sums.top
        sums = self._sums.above(end)[:, start - top :]
        empty = self._seen.above(end)[0, start - top :].numpy() == 0
        labels = sums.argmax(dim=0).cpu().numpy().astype(label_dtype(self._classes))
        labels[empty] = unlabelled_value(self._classes)
        columns = {"labels": labels, "confidence": None, "probabilities": None}
        if settings.confidence or settings.probabilities:
            # Weights of a pixel add up to the sum of what its classes have.
            share = sums / sums.sum(dim=0).clamp(min=torch.finfo(sums.dtype).tiny)
            steps = (share * STEPS + 0.5).to(torch.uint8).cpu().numpy()
            steps[:, empty] = NOTHING
            if settings.confidence:
                columns["confidence"] = steps.max(axis=0)
            if settings.probabilities:
                columns["probabilities"] = steps.swapaxes(0, 1)
        count = end - start
        lines = {
            name: [b""] * count if values is None else [line.tobytes() for line in values]
            for name, values in columns.items()
        }
        where = {"source_index": [self._source] * count, "y": range(start, end)}
        return pa.table(where | lines, schema=PREDICTED_SCHEMA)

    @torch.inference_mode()
    def _drop(self, below: int) -> None:
        self._sums.drop(below)
        self._seen.drop(below)


def _table_writer(path: Path) -> pq.ParquetWriter:
    return pq.ParquetWriter(
        path,
        PREDICTED_SCHEMA,
        compression="zstd",
        use_dictionary=False,
        write_statistics=["source_index"],
    )
