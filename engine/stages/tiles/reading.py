"""Tiles read ahead of their use by several threads; neighbours share an open reader."""

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import groupby, islice
from typing import Any

from alps.engine.base.errors import SourceError
from alps.engine.base.failures import of_source
from alps.engine.images.raster import RasterReader, Tile
from alps.engine.images.reading import Reading
from alps.engine.pipeline.line import Line, Stage
from alps.engine.run_folder.plan import PlannedTile, check_size
from alps.engine.run_folder.schemas import STAGES

NO_PIXEL = {"status": "skipped", "reason": "no valid pixel"}  # of a row of tiles.parquet
READERS = 4  # threads, each with a source of its own open
NEIGHBOURS = 8  # tiles of one source that are read one after the other by one thread, at most
MOST_BYTES = 1 << 28  # of pixels that are read and wait
PIXEL_BYTES = 4  # three colours, and whether it is valid


@dataclass
class ReadTile:
    """A tile's pixels, or why there are none."""

    planned: PlannedTile
    tile: Tile | None
    error: SourceError | None
    seconds: float

    @property
    def reason(self) -> str:
        """Why there are no pixels."""
        return self.planned.reason or str(self.error or "")

    def row(self) -> dict[str, Any]:
        """Its row of tiles.parquet as long as nothing was made of it: failed."""
        return self.planned.row() | {
            "status": "skipped" if self.planned.is_moved else "failed",
            "reason": self.reason,
            "segments": 0,
            "points": 0,
            "valid_pixels": 0,
            "covered_pixels": 0,
            **{f"{stage}_seconds": 0.0 for stage in STAGES},
            "read_seconds": self.seconds,
        }


@dataclass
class _Neighbours:
    """Tiles of one source that were read together, and what a look at the source left in doubt."""

    tiles: list[ReadTile]
    doubts: dict[str, str] = field(default_factory=dict)  # by kind


class reading_ahead:
    """Context manager: ``results`` yields tiles in order, read ahead of their use.

    Args:
        parts: tiles in the plan's order; iterated by a thread of its own. Those of one part are
            read without waiting for the next part.
        reading: how they are read.
        side: of the largest of them in pixels; it bounds how many wait.
    """

    def __init__(self, parts: Iterable[Iterable[PlannedTile]], reading: Reading, side: int) -> None:
        self._reading = reading
        self.doubts: dict[str, str] = {}  # what a sample of a source shows: the first such source
        affordable = MOST_BYTES // (side * side * PIXEL_BYTES)
        threads = max(1, min(READERS, affordable // 2))
        together = max(1, min(NEIGHBOURS, affordable // (threads + 1)))
        self._idle = _IdleReaders(threads)
        runs = (run for tiles in parts for run in _runs(tiles, together))
        self._line = Line(runs, [Stage("read", self._read, threads)])

    def __enter__(self) -> "reading_ahead":
        with ExitStack() as stack:
            stack.callback(self._idle.close)
            stack.enter_context(self._line)
            self._stack = stack.pop_all()
        self.results = self._run()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def _run(self) -> Iterator[ReadTile]:
        for found in self._line:
            self.doubts = found.doubts | self.doubts
            yield from found.tiles

    def _read(self, run: list[PlannedTile]) -> _Neighbours:
        found = _Neighbours([])
        reader = self._idle.take(run[0].path)
        try:
            for planned in run:
                began = time.perf_counter()
                tile, error = None, None
                if not planned.reason:
                    try:
                        with of_source(planned.source, "reading"):
                            if reader is None:
                                reader = self._open(planned, found)
                            tile = reader.read(planned.window)
                    except SourceError as failure:
                        error = failure
                seconds = 0.0 if planned.reason else time.perf_counter() - began
                found.tiles.append(ReadTile(planned, tile, error, seconds))
        except BaseException:
            if reader is not None:
                reader.close()
            raise
        if reader is not None:
            self._idle.give(run[0].path, reader)
        return found

    def _open(self, planned: PlannedTile, found: _Neighbours) -> RasterReader:
        reader = RasterReader(planned.path, self._reading)
        try:
            check_size(reader, planned)
            if reader.needs_sample:  # else it would be read for this alone
                for doubt in reader.describe().doubts:
                    found.doubts.setdefault(doubt.kind, f"{planned.source}: {doubt.text}")
        except BaseException:
            reader.close()
            raise
        return reader


class _IdleReaders:
    """Open readers that no thread uses; the next tiles of a source go on with its reader."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._readers: list[tuple[str, RasterReader]] = []  # used last comes last

    def take(self, path: str) -> RasterReader | None:
        with self._lock:
            for place, (name, reader) in enumerate(self._readers):
                if name == path:
                    del self._readers[place]
                    return reader
        return None

    def give(self, path: str, reader: RasterReader) -> None:
        with self._lock:
            self._readers.append((path, reader))
            old = [self._readers.pop(0)] if len(self._readers) > self._most else []
        for _, one in old:
            one.close()

    def close(self) -> None:
        while self._readers:
            self._readers.pop()[1].close()


def _runs(tiles: Iterable[PlannedTile], together: int) -> Iterator[list[PlannedTile]]:
    """Neighbours of one source, at most so many."""
    for _, own in groupby(tiles, key=lambda tile: tile.path):
        source = iter(own)
        while run := list(islice(source, together)):
            yield run
