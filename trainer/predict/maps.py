"""Label maps of predicted lines: a source's as soon as all of its shards are there.

What shards hold is dropped when all of their sources have their maps.
"""

import sys
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from alps.engine.base.atomic import mirror_of, remove
from alps.engine.base.errors import SourceError
from alps.engine.base.failures import of_source
from alps.engine.images.georeference import Georeference
from alps.engine.images.raster import RasterReader
from alps.engine.images.reading import Reading
from alps.engine.images.tiff import TILE, Bands, TiffWriter, whole_tiff
from alps.engine.labels import categories
from alps.engine.labels.journal import Counted, PaintedJournal
from alps.engine.labels.writer import LabelMapWriter, label_dtype
from alps.engine.naming.names import ShownClasses
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.plan import Plan, PlannedTile, check_size
from alps.engine.run_folder.sums import is_whole, sums_of
from alps.engine.run_folder.tables import open_table, read_table
from alps.engine.stages.absences import can_be_read
from alps.trainer.predict.recipe import PredictSettings
from alps.trainer.predict.shards import NOTHING, STEPS

BYTE = np.dtype(np.uint8)


class Maps:
    """The label maps of a run of predictions. A context manager.

    Args:
        folder: holds a plan.
        fingerprint: of all that decides the labels.
        classes: of the model.
        settings: say what is written beside label maps.
        reading: of the sources, which are opened for their place.
    """

    def __init__(
        self,
        folder: RunFolder,
        fingerprint: str,
        classes: ShownClasses,
        settings: PredictSettings,
        reading: Reading,
    ) -> None:
        self._folder, self._classes, self._settings = folder, classes, settings
        self._reading = reading
        self._count = len(classes.values)
        self._journal = PaintedJournal(folder, self._count, fingerprint)
        self._plan = Plan.of(folder)
        index = self._plan.column("source_index")
        starts = np.flatnonzero(np.diff(index, prepend=-1))
        self._tiles = [*starts.tolist(), len(index)]  # where sources begin

    def __enter__(self) -> Self:
        self._journal.__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._journal.__exit__(*exc_info)

    @property
    def unpainted(self) -> dict[str, str]:
        """Sources that could be opened when planned and have no label map, with reasons."""
        return {self._first(s).source: why for s, why in sorted(self._journal.refused.items())}

    def is_done(self, shard: int) -> bool:
        """Whether a shard need not be predicted: it is there, or all that needed it is written."""
        if not is_whole(self._folder, self._folder.shard_tiles(shard)):
            return False
        return self._is_held(shard) or all(map(self._is_settled, self._sources_of(shard)))

    def forget(self, tiles: set[int], retry: bool = False) -> None:
        """Let the sources that have one of ``tiles`` be predicted anew, and those that could not be
        written and can be read now; retry: or cannot.
        """
        again = {self._source_of(tile) for tile in tiles}
        again |= {
            source
            for source in self._journal.refused
            if retry or can_be_read(self._first(source), self._reading)
        }
        for source in sorted(again):
            self._journal.forget(source)
            remove(self._folder.label(self._first(source).label))
            for shard in self._shards_of(source):
                remove(self._folder.shard_tiles(shard))
                remove(self._folder.predicted(shard))

    def committed(self, shard: int) -> None:
        """Write what can be written now that a shard is on the disk."""
        sources, shards = self._sources_of(shard), range(shard, shard + 1)
        if any([self._write_complete(source) for source in sources]):
            first, last = sources[0], sources[-1]
            shards = range(self._shards_of(first).start, self._shards_of(last).stop)
        self._drop(shards)

    def write_all(self) -> None:
        """Write what earlier runs, or other machines, left to be written."""
        for source in range(len(self._tiles) - 1):
            self._write_complete(source)
        self._drop(self._plan.shards_of(0, self._tiles[-1]))

    def _write_complete(self, source: int) -> bool:
        """Write the label map of a source, unless that is done, or not all of it is predicted."""
        if self._is_settled(source) or not all(map(self._is_held, self._shards_of(source))):
            return False
        self._write(source)
        return True

    def _drop(self, shards: range) -> None:
        """Delete the lines of shards that no source needs any more."""
        for shard in shards:
            path = self._folder.predicted(shard)
            if path.exists() and all(map(self._is_settled, self._sources_of(shard))):
                remove(path)

    def write_classes(self) -> None:
        """Write classes.json, of all label maps there are."""
        self._journal.write_classes(self._classes)

    def _write(self, source: int) -> None:
        first = self._first(source)
        counted, reason, files = Counted.of(self._count), "", self._files(first)
        try:
            with of_source(first.source, "writing its label map"):
                self._refuse_unread(source)
                self._write_maps(first, source, counted)
        except SourceError as error:
            for path in files:
                remove(path)
            categories.write(files[0], None)
            reason, files, counted = str(error), [], Counted.of(self._count)
            print(f"{first.source}: no label map: {reason}", file=sys.stderr)
        self._journal.add(source, counted, reason, sums_of(self._folder, files))

    def _write_maps(self, first: PlannedTile, source: int, counted: Counted) -> None:
        with RasterReader(first.path, self._reading) as reader:
            check_size(reader, first)
            place = Georeference.of(reader)
        size = first.source_width, first.source_height
        with ExitStack() as stack:
            label = self._folder.label(first.label)
            colours = self._classes.colours
            writer = stack.enter_context(
                LabelMapWriter(
                    label, *size, colours, georeference=place, cog=mirror_of(label) is not None
                )
            )
            layers = {}
            for name, (path, names) in self._layers(first).items():
                about = Bands(names, 1 / STEPS)
                tiff = stack.enter_context(whole_tiff(path, size, NOTHING, BYTE, place, about))
                layers[name] = _Layer(tiff, (len(names), size[1], size[0]))
            for y, lines in self._lines(source):
                labels = self._values(lines, "labels", (1, size[0]), source)[0]
                writer.write_rows(y, labels)
                _count(counted, labels)
                for name, layer in layers.items():
                    layer.write(self._values(lines, name, (layer.bands, size[0]), source))
        counted.nodata[:] = counted.pixels[-1]
        categories.write(label, self._classes)

    def _lines(self, source: int) -> Iterator[tuple[int, pa.Table]]:
        """Lines of a source from the top, some at a time, with the first one's number."""
        y = 0
        for shard in self._shards_of(source):
            with open_table(self._folder.predicted(shard), ["source_index", "y"]) as file:
                for group in range(file.num_row_groups):
                    index = file.read_row_group(group, ["source_index"]).column(0)
                    if index[0].as_py() == source:
                        yield y, file.read_row_group(group)
                        y += len(index)

    def _values(
        self, lines: pa.Table, name: str, shape: tuple[int, int], source: int
    ) -> np.ndarray:
        """A column of lines as (bands, lines, W); shape: bands, W."""
        dtype = label_dtype(self._count) if name == "labels" else BYTE
        content = b"".join(lines.column(name).to_pylist())
        if len(content) != lines.num_rows * shape[0] * shape[1] * dtype.itemsize:
            shard = self._shards_of(source)[0]
            raise self._folder.damaged(self._folder.predicted(shard), f"its {name} are cut short")
        values = np.frombuffer(content, dtype).reshape(lines.num_rows, *shape)
        return values.swapaxes(0, 1)

    def _layers(self, first: PlannedTile) -> dict[str, tuple[Path, tuple[str, ...]]]:
        """Files beside the label map, and what their bands are called, by columns of lines."""
        found: dict[str, tuple[Path, tuple[str, ...]]] = {}
        if self._settings.confidence:
            path = self._folder.confidence(first.label)
            found["confidence"] = path, ("probability of the class shown",)
        if self._settings.probabilities:
            path = self._folder.probabilities(first.label)
            found["probabilities"] = path, self._classes.names
        return found

    def _files(self, first: PlannedTile) -> list[Path]:
        """What is written of a source, the label map first."""
        return [self._folder.label(first.label), *(p for p, _ in self._layers(first).values())]

    def _refuse_unread(self, source: int) -> None:
        """Raise SourceError where no window of a source could be read."""
        reasons = []
        for shard in self._shards_of(source):
            path = self._folder.shard_tiles(shard)
            rows = read_table(path, ["source_index", "status", "reason"])
            mine = rows.filter(pc.equal(rows.column("source_index"), source))
            if set(mine.column("status").to_pylist()) - {"failed"}:
                return
            reasons += mine.column("reason").to_pylist()
        raise SourceError(reasons[0])

    def _is_settled(self, source: int) -> bool:
        """Whether a source has its label map, or can have none."""
        first = self._first(source)
        return bool(
            first.reason
            or source in self._journal.refused
            or self._journal.has(source, self._files(first))
        )

    def _is_held(self, shard: int) -> bool:
        paths = self._folder.shard_tiles(shard), self._folder.predicted(shard)
        return all(is_whole(self._folder, path) for path in paths)

    def _first(self, source: int) -> PlannedTile:
        return self._plan.tile(self._tiles[source])

    def _source_of(self, tile: int) -> int:
        return bisect_right(self._tiles, tile) - 1

    def _shards_of(self, source: int) -> range:
        return self._plan.shards_of(self._tiles[source], self._tiles[source + 1])

    def _sources_of(self, shard: int) -> range:
        rows = self._plan.ids_of(shard)
        return range(self._source_of(rows[0]), self._source_of(rows[-1]) + 1)


class _Layer:
    """The bands of a TIFF, written so that none of its tiles is written twice."""

    def __init__(self, tiff: TiffWriter, shape: tuple[int, int, int]) -> None:
        """``shape``: bands, height, width of the whole."""
        self.bands, self._height, width = shape
        self._tiff = tiff
        self._waiting = np.empty((self.bands, min(TILE, self._height), width), np.uint8)
        self._rows = 0  # received so far

    def write(self, rows: np.ndarray) -> None:
        """Append rows (bands, h, width)."""
        done = 0
        while done < rows.shape[1]:
            start = self._rows % TILE
            taken = min(TILE - start, rows.shape[1] - done)
            self._waiting[:, start : start + taken] = rows[:, done : done + taken]
            done += taken
            self._rows += taken
            if start + taken == TILE or self._rows == self._height:
                self._tiff.write(self._rows - start - taken, self._waiting[:, : start + taken])


def _count(counted: Counted, labels: np.ndarray) -> None:
    """Add pixels of labels; the unlabelled value, above all classes, is counted last."""
    last = len(counted.pixels) - 1
    counted.pixels[:] += np.bincount(np.minimum(labels, last).ravel(), minlength=last + 1)
