"""The windows of one source: who owns which ground, and which mask lies on top where."""

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

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
KEPT = 4  # windows whose top masks are kept, unless more are asked for
MOST_OF_16_BITS = np.iinfo(np.int16).max  # segments of a window


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
    ) -> None:
        """``origin``: x and y in the source of what the windows cover, if not all of it.

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
        self._columns = _Spans.of([(window.x, window.width) for window in self.windows])
        self._rows = _Spans.of([(window.y, window.height) for window in self.windows])
        counts = [store.of_tile(tile.tile_id).num_rows for tile in tiles]
        self.first = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self._kept: OrderedDict[int, np.ndarray] = OrderedDict()
        self._most = KEPT
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
        rows = self._rows.touched(box.y, box.height)
        columns = self._columns.touched(box.x, box.width)
        return [row * self.columns + column for row in rows for column in columns]

    def keep(self, boxes: list[Window]) -> None:
        """Keep the top masks of as many windows as have ground in common with rectangles that are
        looked at together.
        """
        self._most = max(self._most, len({index for box in boxes for index in self.near(box)}))

    def top(self, index: int) -> np.ndarray:
        """Of each pixel of a window the segment on top, (h, w) int16 or int32 within the
        window, -1 none.
        """
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
        # Several are kept, of millions of pixels: few bytes each.
        kind = np.dtype(np.int16 if number <= MOST_OF_16_BITS else np.int32)
        if not number:
            return np.full((window.height, window.width), NONE, kind)
        area, iou = (table.column(name).to_numpy() for name in ("area", "predicted_iou"))
        with self._fitting(index):
            top = paint(
                table.column("counts").to_pylist(),
                np.arange(number, dtype=f"u{kind.name}"),
                paint_order(area, iou),
                (window.height, window.width),
                np.iinfo(f"u{kind.name}").max,  # as a signed number: NONE
            )
        return top.view(kind)

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


@dataclass(frozen=True)
class _Spans:
    """The stretches along an axis that the columns, or rows, of a grid of windows take up."""

    starts: np.ndarray  # (n,) ascending
    ends: np.ndarray  # (n,) ascending

    @classmethod
    def of(cls, spans: list[tuple[int, int]]) -> Self:
        """Start and length of each window along the axis."""
        starts, lengths = np.array(sorted(set(spans))).T
        return cls(starts, starts + lengths)

    def touched(self, start: int, length: int) -> range:
        """Those that have ground in common with a stretch."""
        first = np.searchsorted(self.ends, start, side="right")
        return range(int(first), int(np.searchsorted(self.starts, start + length)))
