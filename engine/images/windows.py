"""The grid of overlapping windows an image is read in, and the part of the image each one owns."""

import math
from dataclasses import dataclass
from itertools import pairwise

from alps.engine.settings import check_tiling


@dataclass(frozen=True)
class Window:
    """A rectangle of an image, in pixels; (x, y) is its top left corner."""

    x: int
    y: int
    width: int
    height: int


def plan_windows(width: int, height: int, tile: int, overlap: int) -> list[Window]:
    """Cover an image of ``width`` x ``height`` pixels with windows, row by row from the top left.

    Windows are ``tile`` x ``tile``; an axis of the image shorter than ``tile`` gives windows of
    that length. Neighbours share at least ``overlap`` pixels, and windows are spread evenly, so
    there is no thin last one: a thin window would show the model too little around each thing.

    Raises SettingsError for a tile or overlap that cannot work, ValueError for an empty image.
    """
    if width < 1 or height < 1:
        raise ValueError(f"an image of {width} x {height} pixels has no windows")
    check_tiling(tile, overlap)
    columns = _spans(width, tile, overlap)
    return [
        Window(x, y, window_width, window_height)
        for y, window_height in _spans(height, tile, overlap)
        for x, window_width in columns
    ]


def count_windows(width: int, height: int, tile: int, overlap: int) -> int:
    """How many windows ``plan_windows`` returns, without making them."""
    return math.prod(_count(size, tile, overlap) for size in (width, height))


def are_grid(windows: list[Window]) -> bool:
    """Whether windows are a whole grid without gaps, each of them once, in whatever order."""
    columns = sorted({(window.x, window.width) for window in windows})
    rows = sorted({(window.y, window.height) for window in windows})
    return (
        len(windows) == len(set(windows)) == len(columns) * len(rows) > 0
        and all(length > 0 for _, length in (*columns, *rows))
        and all(
            start < next_start <= start + length < next_start + next_length
            for spans in (columns, rows)
            for (start, length), (next_start, next_length) in pairwise(spans)
        )
    )


def cores(windows: list[Window]) -> list[Window]:
    """For each window of a whole grid, the rectangle of the image that it owns.

    Overlaps are split in the middle, so the cores partition the image: each pixel has one owner.
    ``windows`` is what plan_windows returned, complete; the result has its order.
    """
    columns = _owned(sorted({(window.x, window.width) for window in windows}))
    rows = _owned(sorted({(window.y, window.height) for window in windows}))
    owned = []
    for window in windows:
        left, right = columns[window.x]
        top, bottom = rows[window.y]
        owned.append(Window(left, top, right - left, bottom - top))
    return owned


def _spans(size: int, tile: int, overlap: int) -> list[tuple[int, int]]:
    """Return (start, length) of the windows along one axis."""
    if size <= tile:
        return [(0, size)]
    count = _count(size, tile, overlap)
    return [(i * (size - tile) // (count - 1), tile) for i in range(count)]


def _count(size: int, tile: int, overlap: int) -> int:
    return 1 if size <= tile else -(-(size - overlap) // (tile - overlap))


def _owned(spans: list[tuple[int, int]]) -> dict[int, tuple[int, int]]:
    """Map each span's start to the half-open interval it owns."""
    edges = [0]
    for (start, length), (next_start, _) in pairwise(spans):
        edges.append((start + length + next_start) // 2)
    edges.append(sum(spans[-1]))
    return {span[0]: edge_pair for span, edge_pair in zip(spans, pairwise(edges), strict=True)}
