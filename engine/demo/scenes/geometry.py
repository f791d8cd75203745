"""Plane geometry of scenes: blocks, ribbons, boxes, blobs. All lengths in metres."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np


@dataclass(frozen=True)
class Cut:
    """A straight line between two neighbours of a subdivision; depth 0 is the first cut."""

    ends: np.ndarray  # (2, 2)
    depth: int


@dataclass(frozen=True)
class Subdivision:
    """Convex polygons that tile a region, and the lines between them."""

    blocks: list[np.ndarray]  # each (k, 2)
    cuts: list[Cut]


@dataclass(frozen=True)
class Warp:
    """A smooth displacement of the plane: straight layouts become curved ones without gaps."""

    waves: np.ndarray  # (w, 2) wave vectors, 1/m
    phases: np.ndarray  # (w, 2)
    amplitude: float

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Displace points, (..., 2)."""
        if self.amplitude == 0.0:
            return np.asarray(points, np.float64)
        angle = points @ self.waves.T  # (..., w)
        shift = np.stack(
            [np.sin(angle + self.phases[:, 0]).sum(-1), np.sin(angle + self.phases[:, 1]).sum(-1)],
            axis=-1,
        )
        return points + self.amplitude * shift

    def polygon(self, corners: np.ndarray, step: float) -> np.ndarray:
        """Displace a polygon's outline, with a corner about every ``step`` metres."""
        return self(densify(corners, step, closed=True))

    def line(self, points: np.ndarray, step: float) -> np.ndarray:
        """Displace an open line, with a corner about every ``step`` metres."""
        return self(densify(points, step, closed=False))


def make_warp(rng: np.random.Generator, extent: float, strength: float) -> Warp:
    """Draw a displacement whose bends have about the image's size; strength 0 is none, 1 strong."""
    lengths = rng.uniform(0.5, 1.6, 3) * max(extent, 120.0)
    angles = rng.uniform(0, 2 * np.pi, 3)
    waves = 2 * np.pi / lengths[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    # The largest slope stays below one, or the plane would fold over itself.
    amplitude = 0.45 * strength / np.linalg.norm(waves, axis=1).sum()
    return Warp(waves, rng.uniform(0, 2 * np.pi, (3, 2)), float(amplitude))


def densify(points: np.ndarray, step: float, closed: bool) -> np.ndarray:
    """Insert corners so that no edge is much longer than ``step``."""
    points = np.asarray(points, np.float64)
    start = points if closed else points[:-1]
    leap = (np.roll(points, -1, axis=0) if closed else points[1:]) - start
    counts = np.clip(np.hypot(leap[:, 0], leap[:, 1]) / step, 1, 64).astype(np.int64)
    edge = np.repeat(np.arange(len(start)), counts)
    nth = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts)
    dense = start[edge] + leap[edge] * (nth / counts[edge])[:, None]
    return dense if closed else np.concatenate([dense, points[-1:]])


def clip_half_plane(polygon: np.ndarray, point: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """The part of a convex polygon on the side of the line that ``normal`` points to."""
    kept = _clip(polygon.tolist(), point.tolist(), normal.tolist())
    return np.array(kept) if len(kept) > 2 else np.zeros((0, 2))


def _clip(polygon: list[list[float]], point: list[float], normal: list[float]) -> list[list[float]]:
    """``clip_half_plane`` on plain lists: for a handful of corners far faster than arrays."""
    away = [(x - point[0]) * normal[0] + (y - point[1]) * normal[1] for x, y in polygon]
    kept = []
    for i, here in enumerate(away):
        j = i + 1 if i + 1 < len(away) else 0
        if here >= 0:
            kept.append(polygon[i])
        if (here >= 0) != (away[j] >= 0):
            t = here / (here - away[j])
            (x0, y0), (x1, y1) = polygon[i], polygon[j]
            kept.append([x0 + t * (x1 - x0), y0 + t * (y1 - y0)])
    return kept


def chord(polygon: np.ndarray, point: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Where a line crosses a convex polygon: (2, 2), or (0, 2) when it misses."""
    distance = (polygon - point) @ normal
    crossings = []
    for i in range(len(polygon)):
        j = (i + 1) % len(polygon)
        if (distance[i] >= 0) != (distance[j] >= 0):
            t = distance[i] / (distance[i] - distance[j])
            crossings.append(polygon[i] + t * (polygon[j] - polygon[i]))
    return np.array(crossings[:2]) if len(crossings) >= 2 else np.zeros((0, 2))


def polygon_area(polygon: np.ndarray) -> float:
    """Area of a simple polygon."""
    x, y = polygon[:, 0], polygon[:, 1]
    return 0.5 * abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1)))


def axes(angle: float) -> np.ndarray:
    """Unit vectors along and across ``angle`` as rows, (2, 2)."""
    return np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def subdivide(
    rng: np.random.Generator,
    extent: float,
    angle: float,
    sides: tuple[float, float],
    irregularity: float,
) -> Subdivision:
    """Cut the image's square, with a margin, into convex blocks of about ``sides`` metres.

    ``sides`` are measured along and across ``angle``; ``irregularity`` tilts the cuts (0 to 1).
    """
    frame = axes(angle)
    margin = 0.5 * min(sides)
    # Rotated by any angle, the frame still covers the square.
    reach = 0.5 * extent * 1.42 + margin
    centre = np.full(2, extent / 2)
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float64) * reach
    stack = [(centre + corners @ frame, 0)]
    blocks: list[np.ndarray] = []
    cuts: list[Cut] = []
    while stack:
        polygon, depth = stack.pop()
        low, high = polygon.min(axis=0), polygon.max(axis=0)
        if (high < -margin).any() or (low > extent + margin).any():
            continue
        spans = polygon @ frame.T
        size = (spans.max(axis=0) - spans.min(axis=0)) / np.asarray(sides)
        if size.max() < rng.uniform(1.2, 2.0) or depth > 12:
            blocks.append(polygon)
            continue
        axis = int(size[1] > size[0])
        where = spans[:, axis].min() + rng.uniform(0.38, 0.62) * np.ptp(spans[:, axis])
        middle = polygon.mean(axis=0)
        point = middle + (where - middle @ frame[axis]) * frame[axis]
        tilt = axes(irregularity * rng.normal(0, 0.25))
        normal = tilt @ frame[axis]
        ends = chord(polygon, point, normal)
        halves = (
            clip_half_plane(polygon, point, normal),
            clip_half_plane(polygon, point, -normal),
        )
        if len(ends) < 2 or min(map(len, halves)) < 3:
            blocks.append(polygon)
            continue
        cuts.append(Cut(ends, depth))
        stack.extend((half, depth + 1) for half in halves)
    return Subdivision(blocks, cuts)


def strips(polygon: np.ndarray, angle: float, count: int) -> list[np.ndarray]:
    """Cut a convex polygon into about ``count`` strips of equal width along ``angle``."""
    across = axes(angle)[1]
    spans = polygon @ across
    edges = np.linspace(spans.min(), spans.max(), count + 1)
    found = []
    for low, high in pairwise(edges):
        piece = clip_half_plane(polygon, across * low, across)
        if len(piece):
            piece = clip_half_plane(piece, across * high, -across)
        if len(piece):
            found.append(piece)
    return found


def shrink(polygon: np.ndarray, distance: float) -> np.ndarray:
    """Move every edge of a convex polygon inwards; (0, 2) when nothing is left."""
    corners = polygon.tolist()
    middle_x, middle_y = polygon.mean(axis=0).tolist()
    result = corners
    for i, (x, y) in enumerate(corners):
        dx, dy = corners[i - 1][0] - x, corners[i - 1][1] - y
        length = (dx * dx + dy * dy) ** 0.5
        if length < 1e-6:
            continue
        nx, ny = -dy / length, dx / length
        if (middle_x - x) * nx + (middle_y - y) * ny < 0:
            nx, ny = -nx, -ny
        result = _clip(result, [x + nx * distance, y + ny * distance], [nx, ny])
        if len(result) < 3:
            return np.zeros((0, 2))
    return np.array(result)


def normals(line: np.ndarray) -> np.ndarray:
    """Unit normals of a line at its corners, (n, 2), to the left of its direction."""
    along = np.gradient(line, axis=0)
    along /= np.maximum(np.hypot(along[:, 0], along[:, 1])[:, None], 1e-9)
    return np.stack([-along[:, 1], along[:, 0]], axis=1)


def ribbon(line: np.ndarray, width: float | np.ndarray, shift: float = 0.0) -> np.ndarray:
    """Outline of a band along a line; ``shift`` moves it to the side. Width may vary, (n,)."""
    normal = normals(line)
    half = 0.5 * np.broadcast_to(np.asarray(width, np.float64), (len(line),))[:, None]
    middle = line + shift * normal
    return np.concatenate([middle + half * normal, (middle - half * normal)[::-1]])


def along_line(line: np.ndarray, distances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points (n, 2) at distances along a line, and the direction there as angles (n,)."""
    steps = np.hypot(*np.diff(line, axis=0).T)
    travelled = np.concatenate([[0.0], np.cumsum(steps)])
    points = np.stack([np.interp(distances, travelled, line[:, k]) for k in (0, 1)], axis=1)
    piece = np.clip(np.searchsorted(travelled, distances) - 1, 0, len(line) - 2)
    heading = (line[1:] - line[:-1])[piece]
    return points, np.arctan2(heading[:, 1], heading[:, 0])


def line_length(line: np.ndarray) -> float:
    """Length of a line."""
    return float(np.hypot(*np.diff(line, axis=0).T).sum())


def place(shape: np.ndarray, centres: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Turn and move shapes: (k, 2) or (n, k, 2) about the origin -> (n, k, 2)."""
    shape = np.asarray(shape, np.float64)
    if shape.ndim == 2:
        shape = np.broadcast_to(shape, (len(centres), *shape.shape))
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    x, y = shape[..., 0], shape[..., 1]
    turned = np.stack([x * cos - y * sin, x * sin + y * cos], axis=-1)
    return turned + centres[:, None, :]


def boxes(lengths: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Rectangles about the origin, long side along x: (n, 4, 2)."""
    unit = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
    return unit[None] * np.stack([lengths, widths], axis=-1)[:, None, :]


def blobs(
    rng: np.random.Generator, radii: np.ndarray, corners: int, roughness: float
) -> np.ndarray:
    """Lumpy discs about the origin: (n, corners, 2)."""
    angle = np.arange(corners) * (2 * np.pi / corners)
    noise = rng.standard_normal((len(radii), corners))
    noise = 0.5 * noise + 0.25 * (np.roll(noise, 1, axis=1) + np.roll(noise, -1, axis=1))
    radius = radii[:, None] * np.clip(1 + roughness * noise, 0.4, 1.7)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)


def lake(rng: np.random.Generator, radius: float) -> np.ndarray:
    """A smooth irregular outline about the origin, as of a pond or a patch of soil: (72, 2)."""
    angle = np.arange(72) * (2 * np.pi / 72)
    waves = np.arange(1, 9)
    strength = 0.30 * rng.standard_normal(8) / waves**1.1
    strength[0] = 0.0  # the first wave only moves the shape
    bumps = np.cos(angle[:, None] * waves + rng.uniform(0, 2 * np.pi, 8)) @ strength
    size = radius * np.clip(1 + bumps, 0.3, 1.8)
    stretch = rng.uniform(0.6, 1.0)
    shape = np.stack([size * np.cos(angle), stretch * size * np.sin(angle)], axis=-1)
    return shape @ axes(rng.uniform(0, np.pi))


def wander(rng: np.random.Generator, extent: float, bend: float) -> np.ndarray:
    """A smooth line right across the image in a random direction, (65, 2)."""
    angle = rng.uniform(0, 2 * np.pi)
    t = np.linspace(-0.9, 0.9, 65) * extent
    side = np.zeros_like(t)
    for wave in (1.0, 2.3, 4.1):
        side += np.sin(t / extent * wave * 3.0 + rng.uniform(0, 6.3)) * bend * extent / wave
    offset = rng.uniform(-0.28, 0.28) * extent
    local = np.stack([t, side - side[32] + offset], axis=1)
    return local @ axes(angle) + extent / 2


def scatter(
    rng: np.random.Generator, extent: float, spacing: float, limit: int = 4000
) -> np.ndarray:
    """Jittered grid of points over the image and one spacing around it, in random order."""
    count = max(1, min(int(np.sqrt(limit)), int(np.ceil(extent / spacing)) + 2))
    grid = np.indices((count, count)).reshape(2, -1).T + rng.uniform(0, 1, (count * count, 2))
    points = (grid / count) * (extent + 2 * spacing) - spacing
    return rng.permutation(points)
