"""Outlines on a CPU: strips of rows are looked at once, then rings are walked along."""

from typing import Any

import numpy as np

from alps.kernels.base.compiled import njit
from alps.kernels.base.union_find import root_of
from alps.kernels.outlines.rules import (
    EAST,
    JOINED_FALLING,
    JOINED_RISING,
    NORTH,
    NOTHING,
    SOUTH,
    WEST,
    Outlines,
)

MOST = 2**31 - 1  # vertices and patches are numbered by int32
ALL_ARCS = 15
NO_WEIGHTS = np.zeros((0, 0), np.float32)
# Of each vertex: x, y, the vertex north of it, its arcs, and the patches on the right of what goes
# east and south from it.
FIELDS = ((np.int32, ()), (np.int32, ()), (np.int32, ()), (np.uint8, ()), (np.int32, (2,)))


class OutlineTracer:
    """Traces the outlines of an image that comes in strips of rows.

    Memory is 21 bytes a vertex and 28 a patch (of those that strips begin, too) while strips
    come, and another 8 a vertex and 4 a corner of each ring when they are traced; the image is not
    kept.
    """

    def __init__(self, width: int) -> None:
        """width: of the image, pixels."""
        self._width = width
        self._above = np.full(width, NOTHING, np.int32)  # values of the row above the next strip
        self._patches = np.full(width, NOTHING, np.int32)  # and of what patches they are
        self._open = np.full(width + 1, NOTHING, np.int32)  # the last vertex of each column
        self._rows = 0
        self._vertices: tuple[list[np.ndarray], ...] = tuple([] for _ in FIELDS)
        self._saddles: list[np.ndarray] = []
        self._count = 0
        self._parent = np.zeros(0, np.int32)
        self._values = np.zeros(0, np.int32)
        self._pixels = np.zeros(0, np.int64)
        self._sums = np.zeros(0, np.float64)
        self._weighed = np.zeros(0, np.int64)

    def add(self, values: np.ndarray, weights: np.ndarray | None = None) -> None:
        """Take the next rows.

        Args:
            values: (h, width) integers below 2^31; below 0 is in no patch.
            weights: (h, width) float32, NaN where a pixel has none.

        Raises ValueError for rows of another width.
        """
        values = np.ascontiguousarray(values, np.int32)
        if values.ndim != 2 or values.shape[1] != self._width:
            raise ValueError(f"rows of shape {values.shape} in an image {self._width} pixels wide")
        if weights is None:
            weights = NO_WEIGHTS
        elif weights.shape != values.shape:
            raise ValueError(f"weights of shape {weights.shape} for rows of {values.shape}")
        vertices, patches, saddles = _count(values, self._above)
        known = len(self._parent)
        if max(self._count + vertices, known + patches) > MOST:
            raise ValueError(f"more than {MOST} corners or patches in one image")
        self._grow(patches)
        found: Any = tuple(np.empty((vertices, *shape), kind) for kind, shape in FIELDS)
        saddle = np.empty((saddles, 5), np.int32)
        row = (self._above, self._patches, self._open)
        tally = (self._parent, self._values, self._pixels, self._sums, self._weighed)
        numbers = (self._rows, self._count, known)
        _scan(values, np.ascontiguousarray(weights, np.float32), row, tally, numbers, found, saddle)
        for parts, field in zip(self._vertices, found, strict=True):
            parts.append(field)
        self._saddles.append(saddle)
        self._count += vertices
        self._rows += len(values)

    def finish(self) -> Outlines:
        """Trace the image, of which all rows have come; the tracer is used up by it."""
        self.add(np.full((1, self._width), NOTHING, np.int32))
        x, y, north, arcs, right_of = (_together(parts) for parts in self._vertices)
        roots = _roots(self._parent)
        for saddle in self._saddles:
            _join(saddle, roots, arcs)
        self._saddles.clear()
        corners, ring_starts, ring_patches = _trace(north, arcs, right_of)
        del north, arcs, right_of
        # Patches are numbered by their first pixels, which their roots have.
        is_root = roots == np.arange(len(roots), dtype=np.int32)
        number = np.cumsum(is_root, dtype=np.int32) - np.int32(1)
        count = int(is_root.sum())
        patch = number[roots]
        ring_patches = patch[ring_patches]
        # An outer ring begins before all of its holes.
        order = np.argsort(ring_patches, kind="stable")
        corners, ring_starts = _reordered(corners, ring_starts, order)
        return Outlines(
            x,
            y,
            corners,
            ring_starts,
            np.searchsorted(ring_patches[order], np.arange(count + 1)).astype(np.int64),
            self._values[is_root],
            _summed(self._pixels, patch, count),
            _summed(self._sums, patch, count),
            _summed(self._weighed, patch, count),
        )

    def _grow(self, patches: int) -> None:
        """Make room for patches that the next rows begin."""
        first = len(self._parent)
        more = np.arange(first, first + patches, dtype=np.int32)
        self._parent = np.concatenate([self._parent, more])
        for name in ("_values", "_pixels", "_sums", "_weighed"):
            known = getattr(self, name)
            setattr(self, name, np.concatenate([known, np.zeros(patches, known.dtype)]))


def outlines(values: np.ndarray, weights: np.ndarray | None = None) -> Outlines:
    """Outlines of an image that is there as a whole; arguments as of ``OutlineTracer.add``."""
    tracer = OutlineTracer(values.shape[1])
    tracer.add(values, weights)
    return tracer.finish()


def _together(parts: list[np.ndarray]) -> np.ndarray:
    """Arrays as one; they are let go of."""
    found = np.concatenate(parts)
    parts.clear()
    return found


@njit(nogil=True, cache=True)
def _count(values: np.ndarray, above: np.ndarray) -> tuple[int, int, int]:
    """How many vertices, new patches at most, and saddles there are above and beside these rows."""
    height, width = values.shape
    vertices = patches = saddles = 0
    for y in range(height):
        upper = values[y - 1] if y > 0 else above
        a = c = NOTHING
        for x in range(width + 1):
            b = upper[x] if x < width else NOTHING
            d = values[y, x] if x < width else NOTHING
            if not ((a == b and c == d) or (a == c and b == d)):
                vertices += 1
                saddles += a != b and b != d and d != c and c != a
            patches += d != c and d != b and d >= 0
            a, c = b, d
    return vertices, patches, saddles


@njit(nogil=True, cache=True)
def _scan(
    values: np.ndarray,
    weights: np.ndarray,
    row: tuple[np.ndarray, np.ndarray, np.ndarray],
    tally: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    numbers: tuple[int, int, int],
    found: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    saddle: np.ndarray,
) -> None:
    """Number the patches of rows, and note the vertices above and beside them.

    Args:
        values: (h, width) int32.
        weights: (h, width) float32, or empty.
        row: values and patches (width,) of the row above, and the last vertex (width + 1,) of
            each column; those of the last row when done.
        tally: by patch, parents, values, pixels, sums of weights, pixels that have one.
        numbers: of the first row, the first new vertex, the first new patch.
        found: FIELDS of each new vertex.
        saddle: for each vertex of four arcs its number, and the patches above left, above right,
            below left and below right where two across are of one value.
    """
    above, patches, open_ = row
    parent, value_of, pixels, sums, weighed = tally
    top, vertex, newest = numbers
    xs, ys, north, arcs, right_of = found
    height, width = values.shape
    first, saddles = vertex, 0
    has_weights = weights.size > 0
    for y in range(height):
        a = c = NOTHING
        of_a = of_c = NOTHING
        for x in range(width + 1):
            b = of_b = d = of_d = NOTHING
            if x < width:
                b, of_b, d = above[x], patches[x], values[y, x]
                if d >= 0:
                    if d == c:
                        of_d = of_c
                        if d == b and of_b != of_c:
                            one, other = root_of(parent, of_b), root_of(parent, of_c)
                            # The lower is the one that began first.
                            parent[max(one, other)] = min(one, other)
                    elif d == b:
                        of_d = of_b
                    else:
                        of_d = newest
                        value_of[newest] = d
                        newest += 1
                    pixels[of_d] += 1
                    if has_weights and not np.isnan(weights[y, x]):
                        sums[of_d] += weights[y, x]
                        weighed[of_d] += 1
                above[x], patches[x] = d, of_d
            if not ((a == b and c == d) or (a == c and b == d)):
                east, south, west, up = b != d, c != d, a != c, a != b
                at = vertex - first
                xs[at], ys[at] = x, top + y
                north[at] = open_[x] if up else NOTHING
                arcs[at] = (east << EAST) | (south << SOUTH) | (west << WEST) | (up << NORTH)
                right_of[at, 0], right_of[at, 1] = of_d, of_c
                open_[x] = vertex  # what is next below, and has an arc upwards, has it to this
                if east and south and west and up:
                    saddle[saddles, 0] = vertex
                    saddle[saddles, 1] = of_a if a == d else NOTHING
                    saddle[saddles, 2] = of_b if b == c else NOTHING
                    saddle[saddles, 3], saddle[saddles, 4] = of_c, of_d
                    saddles += 1
                vertex += 1
            a, c, of_a, of_c = b, d, of_b, of_d


@njit(nogil=True, cache=True)
def _roots(parent: np.ndarray) -> np.ndarray:
    """The first patch of each that turned out to be one with it."""
    for patch in range(len(parent)):
        parent[patch] = parent[parent[patch]]
    return parent


@njit(nogil=True, cache=True)
def _join(saddle: np.ndarray, roots: np.ndarray, arcs: np.ndarray) -> None:
    """Note in their arcs at which saddles two pixels across are of one patch."""
    for at in range(len(saddle)):
        vertex, a, b, c, d = saddle[at]
        if a >= 0 and roots[a] == roots[d]:
            arcs[vertex] |= JOINED_FALLING
        elif b >= 0 and roots[b] == roots[c]:
            arcs[vertex] |= JOINED_RISING


@njit(nogil=True, cache=True)
def _trace(
    north: np.ndarray, arcs: np.ndarray, right_of: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rings in the order of their first vertices: corners, where each begins, and its patch.

    A ring's first vertex is the leftmost of its highest: an outer ring leaves it eastwards, that
    of a hole southwards.
    """
    count = len(north)
    south = np.full(count, NOTHING, np.int32)
    rings = 0
    for vertex in range(count):
        if north[vertex] >= 0:
            south[north[vertex]] = vertex
    walked = np.zeros(count, np.uint8)
    corners = np.empty(4 * count, np.int32)
    starts = np.empty(count + 1, np.int64)
    patches = np.empty(count, np.int32)
    length = 0
    for first in range(count):
        for way in (EAST, SOUTH):
            patch = right_of[first, way]
            if patch < 0 or not arcs[first] >> way & 1 or walked[first] >> way & 1:
                continue
            starts[rings], patches[rings] = length, patch
            rings += 1
            vertex, heading = first, way
            while not walked[vertex] >> heading & 1:
                walked[vertex] |= 1 << heading
                corners[length] = vertex
                length += 1
                if heading == EAST:
                    vertex += 1
                elif heading == WEST:
                    vertex -= 1
                elif heading == SOUTH:
                    vertex = south[vertex]
                else:
                    vertex = north[vertex]
                heading = _turn(arcs[vertex], heading)
    starts[rings] = length
    return corners[:length].copy(), starts[: rings + 1].copy(), patches[:rings].copy()


@njit(nogil=True, cache=True)
def _turn(arcs: int | np.integer, heading: int) -> int:
    """Where a ring goes on at a vertex that it comes to."""
    joined = JOINED_RISING if heading in (EAST, WEST) else JOINED_FALLING
    if arcs & ALL_ARCS == ALL_ARCS and arcs & joined:
        return (heading + 3) & 3
    for turn in (1, 0):
        way = (heading + turn) & 3
        if arcs >> way & 1:
            return way
    return (heading + 3) & 3


@njit(nogil=True, cache=True)
def _reordered(
    corners: np.ndarray, starts: np.ndarray, order: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rings in another order, and where they begin then."""
    found, begins = np.empty_like(corners), np.empty_like(starts)
    length = 0
    for at in range(len(order)):
        ring = order[at]
        begins[at] = length
        for corner in range(starts[ring], starts[ring + 1]):
            found[length] = corners[corner]
            length += 1
    begins[len(order)] = length
    return found, begins


@njit(nogil=True, cache=True)
def _summed(values: np.ndarray, patch: np.ndarray, count: int) -> np.ndarray:
    """Sums of what the parts of each of ``count`` patches have."""
    found = np.zeros(count, values.dtype)
    for at in range(len(values)):
        found[patch[at]] += values[at]
    return found
