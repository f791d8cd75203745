"""One thing, one object: masks of neighbouring windows that agree on the ground both saw."""

import numpy as np

from alps.engine.images.windows import Window
from alps.engine.regions.windows import SourceWindows
from alps.kernels.base.union_find import root_of
from alps.kernels.masks.runs import Runs
from alps.kernels.masks.shared import bits_within, shared_pixels

AGREEMENT = 0.5  # IoU on the ground that both windows saw, above which two masks are one object
LEAST_PIXELS = 16  # of a mask on that ground; fewer say nothing
NO_OBJECT = -1


def join_masks(source: SourceWindows) -> np.ndarray:
    """The object of each segment of a source, (S,) int32 from 0; -1 for what is no mask.

    Two masks of windows that overlap are one object where each is the other's best there and they
    agree; so are all that hang together. Objects are numbered in the order of their first masks.
    Memory is a row of windows, besides 4 bytes a segment.
    """
    parent = np.arange(source.first[-1], dtype=np.int32)
    waiting: dict[int, tuple[np.ndarray, Runs]] = {}
    for index in range(len(source)):
        neighbours = _later_neighbours(source, index)
        for other in (index, *neighbours):
            if other not in waiting:
                waiting[other] = source.masks(other)
        for other in neighbours:
            shared = _common(source.windows[index], source.windows[other])
            if shared is None:
                continue
            for a, b in _agreeing(source, (index, other), (waiting[index], waiting[other]), shared):
                low, high = sorted((int(root_of(parent, a)), int(root_of(parent, b))))
                parent[high] = low
        del waiting[index]
    return _numbered(source, parent)


def _later_neighbours(source: SourceWindows, index: int) -> list[int]:
    """The windows right of one and in the row below; windows of a grid overlap no others."""
    row, column = divmod(index, source.columns)
    found = [index + 1] if column + 1 < source.columns else []
    for other in (column - 1, column, column + 1):
        at = (row + 1) * source.columns + other
        if 0 <= other < source.columns and at < len(source):
            found.append(at)
    return found


def _common(a: Window, b: Window) -> Window | None:
    left, top = max(a.x, b.x), max(a.y, b.y)
    right, bottom = min(a.x + a.width, b.x + b.width), min(a.y + a.height, b.y + b.height)
    if left >= right or top >= bottom:
        return None
    return Window(left, top, right - left, bottom - top)


def _agreeing(
    source: SourceWindows,
    indices: tuple[int, int],
    masks: tuple[tuple[np.ndarray, Runs], tuple[np.ndarray, Runs]],
    shared: Window,
) -> list[tuple[int, int]]:
    """Pairs of segments, numbered through the source, that are one object."""
    bits, which = [], []
    for index, (segments, runs) in zip(indices, masks, strict=True):
        window = source.windows[index]
        own = bits_within(
            runs, shared.x - window.x, shared.y - window.y, shared.width, shared.height
        )
        area = shared_pixels_with_itself(own)
        enough = area >= LEAST_PIXELS
        bits.append((own[enough], area[enough]))
        which.append(source.first[index] + segments[enough])
    (left, left_area), (right, right_area) = bits
    if not len(left) or not len(right):
        return []
    both = shared_pixels(left, right)
    iou = both / (left_area[:, None] + right_area[None] - both)
    best_right, best_left = iou.argmax(1), iou.argmax(0)
    return [
        (int(which[0][a]), int(which[1][b]))
        for a, b in enumerate(best_right)
        if best_left[b] == a and iou[a, b] > AGREEMENT
    ]


def shared_pixels_with_itself(bits: np.ndarray) -> np.ndarray:
    """Pixels of each mask (M, words) uint64: (M,) int64."""
    return np.array([shared_pixels(one[None], one[None])[0, 0] for one in bits], np.int64)


def _numbered(source: SourceWindows, parent: np.ndarray) -> np.ndarray:
    objects = np.full(len(parent), NO_OBJECT, np.int32)
    number = 0
    for index in range(len(source)):
        for segment in source.first[index] + np.flatnonzero(source.is_mask(index)):
            root = int(root_of(parent, int(segment)))
            if objects[root] == NO_OBJECT:  # roots come first: they are the lowest of theirs
                objects[root] = number
                number += 1
            objects[segment] = objects[root]
    return objects
