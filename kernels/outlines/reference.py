"""Outlines as one would draw them by hand: each patch alone, pixel side by pixel side."""

from collections import defaultdict

import numpy as np

from alps.kernels.outlines.rules import NOTHING

Point = tuple[int, int]  # x, y


def reference_outlines(values: np.ndarray) -> list[list[list[Point]]]:
    """Rings of each patch, by its first pixel: the outer one, then holes by their first vertices.

    values: (H, W) integers; below 0 is in no patch.

    Each ring begins at the leftmost of its highest vertices, and has the patch on its right.
    """
    patches = _patches(values)
    vertices = _vertices(values)
    return [_rings(patches == number, vertices) for number in range(patches.max(initial=-1) + 1)]


def _patches(values: np.ndarray) -> np.ndarray:
    """(H, W) the number of each pixel's patch, by flooding."""
    found = np.full(values.shape, NOTHING)
    number = 0
    for start in np.ndindex(values.shape):
        if values[start] < 0 or found[start] >= 0:
            continue
        found[start], flood = number, [start]
        while flood:
            y, x = flood.pop()
            for there in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                inside = all(0 <= at < most for at, most in zip(there, values.shape, strict=True))
                if inside and found[there] < 0 and values[there] == values[start]:
                    found[there] = number
                    flood.append(there)
        number += 1
    return found


def _vertices(values: np.ndarray) -> set[Point]:
    """Where the sides of pixels that differ do not just go straight on."""
    framed = np.pad(np.where(values < 0, NOTHING, values), 1, constant_values=NOTHING)
    found = set()
    for y, x in np.ndindex(values.shape[0] + 1, values.shape[1] + 1):
        (a, b), (c, d) = framed[y : y + 2, x : x + 2]
        if not ((a == b and c == d) or (a == c and b == d)):
            found.add((x, y))
    return found


def _rings(mask: np.ndarray, vertices: set[Point]) -> list[list[Point]]:
    # Sides of the patch's pixels that lie between it and others, clockwise around each pixel.
    framed = np.pad(mask, 1)
    ways: dict[Point, list[Point]] = defaultdict(list)
    for y, x in np.argwhere(mask).tolist():
        for (dy, dx), start, end in (
            ((-1, 0), (x, y), (x + 1, y)),
            ((0, 1), (x + 1, y), (x + 1, y + 1)),
            ((1, 0), (x + 1, y + 1), (x, y + 1)),
            ((0, -1), (x, y + 1), (x, y)),
        ):
            if not framed[y + 1 + dy, x + 1 + dx]:
                ways[start].append(end)
    rings = []
    while ways:
        first = min(ways, key=lambda point: (point[1], point[0]))
        ring, here = [], first
        before = None
        while here in ways:
            ring.append(here)
            there = ways[here]
            # At a saddle it goes left: the patch lies on both sides of the corner.
            after = min(there, key=lambda end: _right_turn(before, ring[-1], end))
            there.remove(after)
            if not there:
                del ways[here]
            before, here = here, after
        rings.append([point for point in ring if point in vertices])
    return rings


def _right_turn(before: Point | None, here: Point, after: Point) -> int:
    """1 for a turn to the right, -1 for one to the left, where y grows downwards."""
    if before is None:
        return 0
    one = here[0] - before[0], here[1] - before[1]
    other = after[0] - here[0], after[1] - here[1]
    return one[0] * other[1] - one[1] * other[0]
