"""Scenes that several threads cut: each takes the next block, of this scene or of one to come."""

import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack
from itertools import chain, islice

import numpy as np

from alps.engine.base.errors import SourceError
from alps.engine.base.failures import of_source
from alps.engine.images.georeference import Georeference
from alps.engine.images.raster import RasterReader, RasterView, Tile
from alps.engine.images.reading import Reading
from alps.engine.images.windows import Window
from alps.engine.pipeline.line import Line, Stage
from alps.engine.regions.build import MeasuredBlock, RegionRows, build_regions, measured_block
from alps.engine.regions.cut import Block, block_rows
from alps.engine.regions.objects import join_masks
from alps.engine.regions.windows import SourceWindows
from alps.engine.run_folder.plan import PlannedTile, check_size
from alps.engine.run_folder.segment_store import SegmentStore
from alps.engine.runtimes.cores import cores_shared_out
from alps.kernels.base.threads import at_most, threads

MOST_THREADS = 16  # each holds a block, some 150 MB

Result = np.ndarray | MeasuredBlock | SourceError


class Scene:
    """What the windows of a source cover, to be cut; its file is opened when it is needed.

    Several threads may cut blocks of it at once.
    """

    def __init__(
        self,
        tiles: list[PlannedTile],
        store: SegmentStore,
        reading: Reading | None,
        per_megapixel: float,
        on_gpu: bool = False,
    ) -> None:
        """``per_megapixel``: superpixels a million pixels. ``on_gpu``: as of ``cut_block``."""
        self.tiles, self._store, self._reading = tiles, store, reading
        self._per_megapixel, self._on_gpu = per_megapixel, on_gpu
        x, y = min(tile.x for tile in tiles), min(tile.y for tile in tiles)
        right = max(tile.x + tile.width for tile in tiles)
        bottom = max(tile.y + tile.height for tile in tiles)
        # All of the source, or the one window that a sample drew.
        self._box = Window(x, y, right - x, bottom - y)
        self._blocks_at_once = 1
        self._lock = threading.RLock()
        self._reader: RasterReader | None = None
        self._source: SourceWindows | None = None
        self._failure: SourceError | None = None

    @property
    def name(self) -> str:
        """Of its source."""
        return self.tiles[0].source

    @property
    def width(self) -> int:
        """In pixels."""
        return self._box.width

    @property
    def height(self) -> int:
        """In pixels."""
        return self._box.height

    @property
    def place(self) -> Georeference:
        """Where it lies; nowhere, for a part of a file."""
        reader = self._opened()
        return Georeference.of(reader) if self._is_whole(reader) else Georeference()

    @property
    def windows(self) -> SourceWindows:
        """Its windows and their segments."""
        with self._lock:
            if self._source is None:
                corner = self._box.x, self._box.y
                self._source = SourceWindows(self.tiles, self._store, corner)
                for together in self._cut_at_once():
                    self._source.keep([block.padded for block in together])
            return self._source

    def blocks(self) -> list[Block]:
        """In the order in which their regions are put together."""
        return list(chain(*block_rows(self.width, self.height, self._per_megapixel)))

    def read(self, box: Window) -> Tile:
        """Pixels of a window, for one thread at a time. Raises SourceError."""
        with self._lock:
            reader = self._opened()
            return (reader if self._is_whole(reader) else RasterView(reader, self._box)).read(box)

    def _cut_at_once(self) -> Iterator[list[Block]]:
        """Blocks side by side that threads are at together."""
        for row in block_rows(self.width, self.height, self._per_megapixel):
            for start in range(0, len(row), max(1, self._blocks_at_once // 2)):
                yield row[start : start + self._blocks_at_once]

    def expect(self, blocks: int) -> None:
        """So many blocks will be cut at once."""
        self._blocks_at_once = blocks

    def result(self, block: Block | None) -> Result:
        """A block, cut; for None the object of each segment. Why not, where the source fails."""
        if self._failure is not None:
            return self._failure
        try:
            with of_source(self.name, "cutting"):
                self._opened()  # before its masks are looked at: it may be away
                if block is None:
                    return join_masks(self.windows)
                return measured_block(block, self, self.windows, self._per_megapixel, self._on_gpu)
        except SourceError as error:
            self._failure = error
            return error

    def rows(self, joined: np.ndarray, results: Iterator[Result]) -> Iterator[RegionRows]:
        """Its regions, from top to bottom. Raises SourceError where a block is none.

        joined: the object of each segment.
        """
        blocks = (found for found in map(or_raise, results) if isinstance(found, MeasuredBlock))
        size = (self.width, self.height)
        return build_regions(blocks, size, self.windows, joined, self._per_megapixel)

    def close(self) -> None:
        """Close its file; nothing is asked of it any more."""
        with self._lock:
            if self._reader is not None:
                self._reader.close()
            self._reader = self._source = None

    def _opened(self) -> RasterReader:
        with self._lock:
            if self._reader is None:
                reader = RasterReader(self.tiles[0].path, self._reading)
                try:
                    check_size(reader, self.tiles[0])
                except BaseException:
                    reader.close()
                    raise
                self._reader = reader
            return self._reader

    def _is_whole(self, reader: RasterReader) -> bool:
        return (self.width, self.height) == (reader.width, reader.height)


def cut_by_threads(
    scenes: Sequence[Scene],
) -> Generator[tuple[Scene, Iterator[Result]], None, None]:
    """Each scene with its results, in order: the object of each segment, and then its blocks.

    To be closed. Threads are ahead of whoever iterates, also in the next scenes. What is not
    iterated of a scene's results, because one of them is an error, is passed over.
    """
    blocks = [scene.blocks() for scene in scenes]
    count = max(1, min(threads(), MOST_THREADS, sum(map(len, blocks))))
    items = (
        (scene, block) for scene, own in zip(scenes, blocks, strict=True) for block in (None, *own)
    )
    each = max(1, threads() // count)  # of kernels, where there are fewer blocks than threads

    def work(item: tuple[Scene, Block | None]) -> Result:
        with at_most(each):
            return item[0].result(item[1])

    with ExitStack() as stack:
        for scene in scenes:
            scene.expect(count)
            stack.callback(scene.close)
        stack.enter_context(cores_shared_out())
        results = iter(stack.enter_context(Line(items, [Stage("cut", work, count)])))
        for scene, own in zip(scenes, blocks, strict=True):
            mine = islice(results, 1 + len(own))
            yield scene, mine
            for _ in mine:
                pass
            scene.close()


def or_raise(result: Result) -> np.ndarray | MeasuredBlock:
    """A result that is none is raised."""
    if isinstance(result, SourceError):
        raise result
    return result
