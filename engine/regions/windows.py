"""The windows of one source: who owns which ground, and which mask lies on top where."""

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from alps.engine.base.errors import RunFolderError
from alps.engine.images.windows import Window, are_grid, cores
from alps.engine.run_folder.plan import PlannedTile
from alps.engine.run_folder.segment_store import SegmentStore
from alps.kernels.masks import coco
from alps.kernels.masks.runs import Runs
from alps.kernels.paint import paint, paint_order

COLUMNS = ("counts", "area", "predicted_iou", "mask")
NONE = -1
KEPT = 12  # windows whose top masks are kept: those a block touches, mostly
KEPT_MORE = 3  # for each block more that is cut at the same time


class SourceWindows:
    """The grid of windows of a source, and the segments of each.

    Segments of a source are numbered through, window by window, in the order of their tables.
    Several threads may ask at once.
    """

    def __init__(
        self,
        tiles: list[PlannedTile],
        store: SegmentStore,
        origin: tuple[int, int] = (0, 0),
        blocks: int = 1,
    ) -> None:
        """``origin``: x and y in the source of what the windows cover, if not all of it.
        ``blocks``: how many are cut at once, side by side.

        Raises RunFolderError where the tiles are no grid: the plan lacks some.
        """
        self.tiles, self._store = tiles, store
        left, top = origin
        self.windows = [
            Window(tile.x - left, tile.y - top, tile.width, tile.height) for tile in tiles
        ]
        if not are_grid(self.windows):
            raise RunFolderError(
                f"the windows of {tiles[0].source} in the plan of this run are no grid; alps "
                "verify OUT --repair makes it again"
            )
        owned = cores(self.windows)
        self._lefts = np.array(sorted({core.x for core in owned}))
        self._tops = np.array(sorted({core.y for core in owned}))
        counts = [store.of_tile(tile.tile_id).num_rows for tile in tiles]
        self.first = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self._kept: OrderedDict[int, np.ndarray] = OrderedDict()
        self._most = KEPT + KEPT_MORE * (blocks - 1)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.windows)

    @property
    def columns(self) -> int:
        """Windows in a row of the grid."""
        return len(self._lefts)

    def owner_of(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Index of the window in whose core pixels (N,) lie."""
        row = np.searchsorted(self._tops, y, side="right") - 1
        column = np.searchsorted(self._lefts, x, side="right") - 1
        return row * self.columns + column

    def locate(self, segments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Segments (N,) of the source -> index of the window of each, and its number there."""
        window = np.searchsorted(self.first, segments, side="right") - 1
        window = np.clip(window, 0, len(self) - 1)  # of -1, none
        return window, segments - self.first[window]

    def near(self, box: Window) -> list[int]:
        """Indices of the windows that have ground in common with a rectangle."""
        return [
            index
            for index, window in enumerate(self.windows)
            if window.x < box.x + box.width
            and window.x + window.width > box.x
            and window.y < box.y + box.height
            and window.y + window.height > box.y
        ]

    def top(self, index: int) -> np.ndarray:
        """Of each pixel of a window the segment on top, (h, w) int32 within the window, -1 none."""
        with self._lock:
            if index not in self._kept:
                while len(self._kept) >= self._most:
                    self._kept.popitem(last=False)
                self._kept[index] = self._painted(index)
            self._kept.move_to_end(index)
            return self._kept[index]

    def is_mask(self, index: int) -> np.ndarray:
        """Which of a window's segments are masks, and not what lies under none: (n,) bool."""
        return self._store.of_tile(self.tiles[index].tile_id).column("mask").to_numpy() >= 0

    def masks(self, index: int) -> tuple[np.ndarray, Runs]:
        """Indices (m,) of a window's segments that are masks, and their run lengths."""
        table = self._store.of_tile(self.tiles[index].tile_id)
        which = np.flatnonzero(table.column("mask").to_numpy() >= 0)
        window = self.windows[index]
        counts = table.column("counts").take(which).to_pylist()
        with self._fitting(index):
            return which, coco.decode(counts, (window.height, window.width))

    def _painted(self, index: int) -> np.ndarray:
        table, window = self._store.of_tile(self.tiles[index].tile_id), self.windows[index]
        number = table.num_rows
        if not number:
            return np.full((window.height, window.width), NONE, np.int32)
        area, iou = (table.column(name).to_numpy() for name in ("area", "predicted_iou"))
        with self._fitting(index):
            top = paint(
                table.column("counts").to_pylist(),
                np.arange(number, dtype=np.uint32),
                paint_order(area, iou),
                (window.height, window.width),
                number,
            ).astype(np.int32)
        top[top == number] = NONE
        return top

    @contextmanager
    def _fitting(self, index: int) -> Iterator[None]:
        """Raise RunFolderError where the segments of a window are of a window of another size."""
        try:
            yield
        except ValueError as error:
            tile = self.tiles[index]
            raise RunFolderError(
                f"the segments of tile {tile.tile_id} of {tile.source} do not fit the plan of this "
                f"run: {error}; alps verify OUT --repair finds what is damaged"
            ) from error
