"""The instances of an image: what its label map shows of each object, or patches of a class.

An instance is all pixels that one class and one object share. Where there is no object, under no
mask, or in a run that kept none, it is a patch: what hangs together, by sides, in one class. So
each pixel that has a class lies in exactly one instance.

An image is read strip by strip and kept as vertical runs, 12 bytes each: a hundredth of its pixels
to a tenth of them.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from alps.kernels.masks import coco
from alps.kernels.masks.runs import Runs, starts_of
from alps.kernels.regions import unite

NO_OBJECT = -1
OBJECT_BITS = 32
BLOCK = 4096  # columns of a strip that are looked at together
PAIRS_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Strip:
    """Some rows of an image."""

    y: int  # the first row
    labels: np.ndarray  # (h, W) uint8 or uint16, values of the label map
    objects: np.ndarray | None  # (h, W) int32, -1 none; None where the run knows of none


@dataclass(frozen=True)
class Instances:
    """N instances of an image as R vertical runs, those of an instance one after the other.

    Instances come in the order of their first pixels, column by column.
    """

    size: tuple[int, int]  # H, W
    values: np.ndarray  # (N,) int64, the label map's value of each
    starts: np.ndarray  # (N + 1,) int64, instance i has runs starts[i] : starts[i + 1]
    first: np.ndarray  # (R,) int64, x H + y of each run's top pixel
    length: np.ndarray  # (R,) int32 pixels; no run leaves its column

    def __len__(self) -> int:
        return len(self.values)

    @cached_property
    def areas(self) -> np.ndarray:
        """(N,) int64 pixels."""
        if not len(self):
            return self.values
        return np.add.reduceat(self.length, self.starts[:-1], dtype=np.int64)

    @cached_property
    def boxes(self) -> np.ndarray:
        """(N, 4) int64: left column, top row, width and height in pixels."""
        if not len(self):
            return np.zeros((0, 4), np.int64)
        x, top = np.divmod(self.first, self.size[0])
        at = self.starts[:-1]
        left, upper = np.minimum.reduceat(x, at), np.minimum.reduceat(top, at)
        right, lower = np.maximum.reduceat(x, at), np.maximum.reduceat(top + self.length, at)
        return np.stack([left, upper, right - left + 1, lower - upper], axis=1)

    def codes(self) -> list[bytes]:
        """COCO's compressed counts of each instance in the whole image.

        The image has fewer than 2^31 pixels.
        """
        if not len(self):
            return []
        # Runs that go on at the top of the next column are one.
        end = self.first + self.length
        heads = np.ones(len(self.first), bool)
        heads[1:] = self.first[1:] != end[:-1]
        heads[self.starts[:-1]] = True
        at = np.flatnonzero(heads)
        length, first = np.add.reduceat(self.length, at, dtype=np.int64), self.first[at]
        starts = np.searchsorted(at, self.starts)
        gap = first.copy()
        gap[1:] -= first[:-1] + length[:-1]
        gap[starts[:-1]] = first[starts[:-1]]
        # Each instance ends in what is left of the image; none where it reaches the last pixel.
        last = starts[1:] - 1
        rest = self.size[0] * self.size[1] - (first[last] + length[last])
        counts = 2 * np.diff(starts) + (rest > 0)
        places = starts_of(counts)
        lengths = np.empty(places[-1], np.int32)
        own = np.arange(len(at)) - np.repeat(starts[:-1], np.diff(starts))
        at = np.repeat(places[:-1], np.diff(starts)) + 2 * own
        lengths[at], lengths[at + 1] = gap, length
        lengths[places[1:][rest > 0] - 1] = rest[rest > 0]
        return coco.encode(Runs(self.size, lengths, places))

    def mask(self, index: int) -> np.ndarray:
        """The pixels of an instance in its box, (height, width) bool."""
        x, y, width, height = self.boxes[index].tolist()
        own = slice(self.starts[index], self.starts[index + 1])
        column, row = np.divmod(self.first[own], self.size[0])
        at = (column - x) * height + row - y
        edges = np.zeros(width * height + 1, np.int8)
        edges[at] += 1
        edges[at + self.length[own]] -= 1
        return np.cumsum(edges[:-1], dtype=np.int8).view(bool).reshape(width, height).T


def find_instances(strips: Iterable[Strip], size: tuple[int, int], unlabelled: int) -> Instances:
    """The instances of an image of ``size`` (H, W), of which strips come from top to bottom.

    Memory is some 50 bytes a run.
    """
    first, length, key = _sorted_runs(strips, size, unlabelled)
    lowest = _lowest_runs(first, length, key, size[0])
    values = (key >> OBJECT_BITS).astype(np.uint16)
    del key
    order = np.argsort(lowest, kind="stable")
    heads = np.flatnonzero(np.diff(lowest[order], prepend=-1))
    starts = np.append(heads, len(order))
    values = values[order[heads]].astype(np.int64)
    return Instances(size, values, starts, first[order], length[order])


Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]


def _sorted_runs(strips: Iterable[Strip], size: tuple[int, int], unlabelled: int) -> Arrays:
    """Vertical runs of an image, column by column: first pixel, pixels, class and object."""
    parts: list[list[np.ndarray]] = [[], [], []]
    for strip in strips:
        for own, array in zip(parts, _runs(strip, size, unlabelled), strict=True):
            own.append(array)
    arrays = []
    order: np.ndarray | None = None
    for own, kind in zip(parts, (np.int64, np.int32, np.int64), strict=True):
        array = np.concatenate([np.zeros(0, kind), *own])
        own.clear()  # as soon as can be: an image may have 10^8 runs
        if order is None:
            order = np.argsort(array, kind="stable")  # of sorted parts: they are merged
        arrays.append(array[order])
    del order
    heads = _heads(arrays[0], arrays[1], arrays[2], size[0])
    if not heads.all():
        arrays[1] = np.add.reduceat(arrays[1], np.flatnonzero(heads), dtype=np.int32)
        arrays[0] = arrays[0][heads]
        arrays[2] = arrays[2][heads]
    return arrays[0], arrays[1], arrays[2]


def _heads(first: np.ndarray, length: np.ndarray, key: np.ndarray, height: int) -> np.ndarray:
    """Which sorted runs begin one, and do not go on with one that a strip's edge has cut."""
    heads = first % height == 0
    heads[1:] |= first[1:] != first[:-1] + length[:-1]
    heads[1:] |= key[1:] != key[:-1]
    heads[:1] = True
    return heads


def _runs(strip: Strip, size: tuple[int, int], unlabelled: int) -> Arrays:
    """Vertical runs of a strip, column by column."""
    rows, width = strip.labels.shape
    firsts, lengths, keys = [], [], []
    for x in range(0, width, BLOCK):
        columns = slice(x, x + BLOCK)
        key = strip.labels[:, columns].T.astype(np.int64)
        key <<= OBJECT_BITS
        if strip.objects is not None:
            key |= strip.objects[:, columns].T.astype(np.int64) - NO_OBJECT
        flat = key.ravel()
        is_head = np.empty(flat.size, bool)
        np.not_equal(flat[1:], flat[:-1], out=is_head[1:])
        is_head[::rows] = True
        head = np.flatnonzero(is_head)
        length = np.diff(head, append=flat.size)
        own = flat[head]
        known = own >> OBJECT_BITS != unlabelled
        column, row = np.divmod(head[known], rows)
        firsts.append((x + column) * size[0] + strip.y + row)
        lengths.append(length[known].astype(np.int32))
        keys.append(own[known])
    return np.concatenate(firsts), np.concatenate(lengths), np.concatenate(keys)


def _lowest_runs(first: np.ndarray, length: np.ndarray, key: np.ndarray, height: int) -> np.ndarray:
    """The lowest run of the instance that each run lies in, (R,) int32."""
    lowest = np.empty(len(key), np.int32)
    loose = key & ((1 << OBJECT_BITS) - 1) == 0
    of_object = np.flatnonzero(~loose).astype(np.int32)
    own = key[of_object]
    order = np.argsort(own, kind="stable").astype(np.int32)
    own = own[order]
    heads = np.concatenate([own[:1] == own[:1], own[1:] != own[:-1]])
    which = np.cumsum(heads, dtype=np.int32) - 1
    lowest[of_object[order]] = of_object[order[heads]][which]
    of_none = np.flatnonzero(loose)
    classes = (key[of_none] >> OBJECT_BITS).astype(np.int32)
    patch = unite(classes, _touching(first[of_none], length[of_none], height))
    lowest[of_none] = of_none[patch]
    return lowest


def _touching(
    first: np.ndarray, length: np.ndarray, height: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of runs that lie side by side in neighbouring columns, part by part."""
    end = first + length
    for start in range(0, len(first), PAIRS_AT_ONCE):
        some = slice(start, start + PAIRS_AT_ONCE)
        # A column to the right is a height further on.
        low = np.searchsorted(end, first[some] + height, side="right")
        counts = np.searchsorted(first, end[some] + height, side="left") - low
        left = np.repeat(np.arange(len(low)), counts)
        right = np.arange(len(left)) + np.repeat(low - (np.cumsum(counts) - counts), counts)
        yield (start + left).astype(np.int32), right.astype(np.int32)
