"""Roads and what is on them: markings, cars, parking."""

import numpy as np

from alps.engine.demo.scenes.canvas import Canvas
from alps.engine.demo.scenes.classes import (
    PAVEMENT,
    ROAD,
    SOIL,
    VEHICLE,
)
from alps.engine.demo.scenes.geometry import (
    along_line,
    boxes,
    line_length,
    place,
    ribbon,
)
from alps.engine.demo.scenes.style import Style, vary

CAR_LENGTH, CAR_WIDTH = 4.5, 1.85
_SMALLEST_CAR_PIXELS = 2.2  # of its width; narrower cars are looks of the road
_FAINTEST_CAR_PIXELS = 1.0
_MARKING_PIXELS = 0.3  # thinner paint is invisible


def add_roads(
    canvas: Canvas,
    style: Style,
    rng: np.random.Generator,
    lines: list[np.ndarray],
    widths: list[float],
    pavement: float = 0.0,
) -> np.ndarray:
    """A network of paved roads, wide ones last; returns the part id of each.

    The network is one segment, each road a part. ``pavement`` is the width of a footway on either
    side in metres; footways are one more segment.
    """
    if not lines:
        return np.zeros(0, np.int64)
    bands = [ribbon(line, width) for line, width in zip(lines, widths, strict=True)]
    if pavement and canvas.pixels(pavement) >= 1.0:
        walks = [ribbon(line, w + 2 * pavement) for line, w in zip(lines, widths, strict=True)]
        parts = canvas.new_parts(np.repeat(canvas.new_segments(PAVEMENT), len(lines)))
        paints = canvas.new_paints(parts, style.pavement, "concrete")
        canvas.fill(walks, np.repeat(paints[:1], len(lines)))
    segment = canvas.new_segments(ROAD)
    parts = canvas.new_parts(np.repeat(segment, len(lines)))
    colours = vary(rng, np.repeat(style.asphalt[None], len(lines), axis=0), 0.03)
    paints = canvas.new_paints(parts, colours, "asphalt")
    # Side roads first, so that the wider road's surface covers where their markings end.
    order = np.lexsort((-np.arange(len(lines)), np.array(widths)))
    edged = rng.uniform() < 0.6
    for i in order.tolist():
        canvas.fill([bands[i]], paints[i : i + 1])
        _mark(canvas, rng, lines[i], widths[i], parts[i : i + 1], edged)
    return parts


def _mark(
    canvas: Canvas,
    rng: np.random.Generator,
    line: np.ndarray,
    width: float,
    part: np.ndarray,
    edged: bool,
) -> None:
    """Centre and edge lines, where the resolution shows them."""
    if width < 5.5 or canvas.pixels(0.15) < _MARKING_PIXELS:
        return
    white = np.array([206, 206, 200]) if rng.uniform() < 0.75 else np.array([204, 176, 90])
    length = line_length(line)
    middles = np.arange(3.0, length - 3.0, 9.0)
    if len(middles):
        points, angles = along_line(line, middles)
        seen = canvas.visible(points, 3.0)
        points, angles = points[seen], angles[seen]
        dashes = place(boxes(np.full(len(points), 3.0), np.full(len(points), 0.16)), points, angles)
        canvas.detail(np.repeat(part, len(points)), dashes, white, "asphalt")
    if edged and width > 6.5:
        for side in (-1, 1):
            edge = ribbon(line, 0.16, side * (width / 2 - 0.4))
            canvas.detail(part, [edge], (200, 200, 196), "asphalt")


def add_track(canvas: Canvas, style: Style, line: np.ndarray, width: float) -> None:
    """An unpaved track with a strip of grass between the wheels."""
    parts = canvas.add(SOIL, [ribbon(line, width)], style.soil * 1.12, "soil")
    if canvas.pixels(width) > 8:
        green = 0.5 * style.grass + 0.5 * style.soil
        canvas.detail(parts, [ribbon(line, width * 0.22)], green, "grass")


def add_cars(
    canvas: Canvas,
    style: Style,
    rng: np.random.Generator,
    centres: np.ndarray,
    angles: np.ndarray,
    stretch: float = 1.0,
) -> None:
    """Cars, or lorries with ``stretch`` > 1, heading along ``angles``."""
    seen = canvas.visible(centres, 3.0)
    centres, angles = centres[seen], angles[seen]
    count = len(centres)
    if not count:
        return
    scale = rng.uniform(0.88, 1.12, count)
    length, width = CAR_LENGTH * scale * stretch, CAR_WIDTH * (0.5 + 0.5 * scale)
    if stretch > 1.4:
        width = width * 1.3
    shape = _rounded(boxes(length, width))
    bodies = place(shape, centres, angles)
    colours = style.vehicle_colours(rng, count)
    if canvas.pixels(CAR_WIDTH) < _SMALLEST_CAR_PIXELS:
        if canvas.pixels(CAR_WIDTH) >= _FAINTEST_CAR_PIXELS:
            canvas.detail(canvas.part_at(centres), bodies, colours, "metal")
        return
    canvas.cast(bodies, style.shadow_per_metre * (1.3 if stretch < 1.4 else 3.0), 235)
    parts = canvas.add(VEHICLE, bodies, colours, "metal")
    if canvas.pixels(CAR_WIDTH) < 4:
        return
    if stretch > 1.4:
        cab = boxes(length * 0.16, width * 0.9) + np.stack([length * 0.41, 0 * length], -1)[:, None]
        canvas.detail(parts, place(cab, centres, angles), colours * 0.6, "metal")
        return
    # The glass as a dark box and the cabin's roof on top of it.
    back = np.stack([-0.05 * length, 0 * length], axis=-1)[:, None]
    glass = place(_rounded(boxes(length * 0.6, width * 0.84)) + back, centres, angles)
    canvas.detail(parts, glass, (46, 50, 56), "metal")
    cabin = place(boxes(length * 0.36, width * 0.74) + back * 1.6, centres, angles)
    canvas.detail(parts, cabin, colours * 1.03, "metal")


def _rounded(corners: np.ndarray) -> np.ndarray:
    """Cut the corners of (n, 4, 2) boxes: (n, 8, 2)."""
    following = np.roll(corners, -1, axis=1)
    near, far = corners * 0.88 + following * 0.12, corners * 0.12 + following * 0.88
    return np.stack([near, far], axis=2).reshape(len(corners), 8, 2)


def add_traffic(
    canvas: Canvas,
    style: Style,
    rng: np.random.Generator,
    lines: list[np.ndarray],
    widths: list[float],
    spacing: float,
    parked: bool,
) -> None:
    """Cars along roads, about ``spacing`` metres apart: in both lanes, or parked at both kerbs."""
    if canvas.pixels(CAR_WIDTH) < _FAINTEST_CAR_PIXELS:
        return
    centres, headings = [np.zeros((0, 2))], [np.zeros(0)]
    for line, width in zip(lines, widths, strict=True):
        length = line_length(line)
        count = min(int(2 * length / spacing), 300)
        if count < 1:
            continue
        distances = np.sort(rng.uniform(0, length, count))
        distances = distances[np.diff(distances, prepend=-9.0) > 6.0]
        points, angles = along_line(line, distances)
        side = rng.choice([-1.0, 1.0], len(points))
        shift = side * (width / 2 - 1.2 if parked else width / 4)
        normal = np.stack([-np.sin(angles), np.cos(angles)], axis=-1)
        centres.append(points + shift[:, None] * normal)
        headings.append(angles + np.where(side < 0, np.pi, 0.0))
    # Cars of two roads may meet on a junction; only those standing on free road are drawn.
    where, turn = np.concatenate(centres), np.concatenate(headings)
    seen = canvas.visible(where, 3.0)
    where, turn = where[seen], turn[seen]
    if len(where):
        free = canvas.class_at(where) == ROAD
        add_cars(canvas, style, rng, where[free], turn[free])


def add_parking(
    canvas: Canvas,
    style: Style,
    rng: np.random.Generator,
    centre: np.ndarray,
    size: tuple[float, float],
    angle: float,
) -> None:
    """A paved rectangle with rows of slots, some of them taken."""
    length, width = size
    ground = place(boxes(np.array([length]), np.array([width])), centre[None], np.array([angle]))
    colour = style.asphalt * rng.uniform(0.9, 1.25)
    part = canvas.add(PAVEMENT, ground, colour, "asphalt")
    if canvas.pixels(CAR_WIDTH) < _FAINTEST_CAR_PIXELS:
        return
    slot, depth, aisle = 2.6, 5.2, 6.5
    rows, y, k = [], -width / 2 + 0.5, 0
    while y + depth < width / 2:
        rows.append(y + depth / 2)
        y += depth + (aisle if k % 2 == 0 else 0.0)
        k += 1
    columns = np.arange(-length / 2 + 2.0, length / 2 - 2.0, slot)
    if not rows or len(columns) < 2:
        return
    grid = np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    if canvas.pixels(0.15) >= _MARKING_PIXELS:
        edges = grid - [slot / 2, 0]
        lines = place(
            boxes(np.full(len(edges), 0.14), np.full(len(edges), depth)),
            edges @ turn + centre,
            np.full(len(edges), angle),
        )
        canvas.detail(np.repeat(part, len(lines)), lines, (208, 208, 202), "asphalt")
    taken = grid[rng.uniform(size=len(grid)) < rng.uniform(0.15, 0.9)]
    facing = rng.choice([0.5 * np.pi, 1.5 * np.pi], len(taken))
    add_cars(
        canvas, style, rng, taken @ turn + centre, angle + facing + rng.normal(0, 0.02, len(taken))
    )
