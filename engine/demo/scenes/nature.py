"""Trees, woods, hedges and water."""

import numpy as np

from alps.engine.demo.scenes.canvas import Canvas
from alps.engine.demo.scenes.classes import (
    BUILDING,
    GRASS,
    ROAD,
    SAND,
    TREE,
    VEHICLE,
    WATER,
)
from alps.engine.demo.scenes.geometry import (
    Warp,
    blobs,
    densify,
    lake,
    ribbon,
    wander,
)
from alps.engine.demo.scenes.style import Style, vary

_CROWN_PIXELS = 5.0  # crowns of smaller radius are not drawn one by one in a wood
SMALLEST_PIXELS = 3.0  # narrower things are looks of their surroundings, not objects


def _draw_crowns(
    canvas: Canvas,
    style: Style,
    rng: np.random.Generator,
    centres: np.ndarray,
    radii: np.ndarray,
    parts: np.ndarray,
) -> None:
    """Crowns with a shaded and a sunlit side; ``parts`` are theirs already."""
    count = len(centres)
    corners = 8 if canvas.pixels(float(np.median(radii))) < 4 else 14
    shape = blobs(rng, radii, corners, 0.22)
    outline = shape + centres[:, None, :]
    colours = style.pick(rng, style.trees, count, 0.09)
    paints = canvas.new_paints(parts, colours * 0.86, "crown")
    bright = canvas.new_paints(parts, colours * 1.18, "crown")
    lit = shape * 0.62 + (centres + style.towards_sun * radii[:, None] * 0.26)[:, None, :]
    # Crown after crown, so that a neighbour in front hides the sunlit side behind it.
    both = np.stack([outline, lit], axis=1).reshape(2 * count, corners, 2)
    canvas.fill(both, np.stack([paints, bright], axis=1).ravel())


def add_trees(
    canvas: Canvas,
    style: Style,
    rng: np.random.Generator,
    centres: np.ndarray,
    radii: np.ndarray,
) -> None:
    """Single trees, (n, 2) and (n,) metres, each a segment unless too small to be one.

    None grows on roads, water, buildings or cars.
    """
    seen = canvas.visible(centres, float(radii.max(initial=0.0)))
    centres, radii = centres[seen], radii[seen]
    if len(centres):
        grows = ~np.isin(canvas.class_at(centres), (ROAD, WATER, BUILDING, VEHICLE))
        centres, radii = centres[grows], radii[grows]
    if not len(centres):
        return
    height = radii * rng.uniform(1.2, 2.2, len(radii))
    top = height[:, None] * style.shadow_per_metre
    canvas.cast(blobs(rng, radii * 0.92, 10, 0.12) + centres[:, None, :], top, 230)
    big = canvas.pixels(1.0) * 2 * radii >= SMALLEST_PIXELS
    if (~big).any():
        hosts = canvas.part_at(centres[~big])
        small = blobs(rng, radii[~big], 6, 0.1) + centres[~big][:, None, :]
        canvas.detail(hosts, small, style.pick(rng, style.trees, len(hosts), 0.1), "crown")
    if big.any():
        parts = canvas.new_parts(canvas.new_segments(TREE, int(big.sum())))
        _draw_crowns(canvas, style, rng, centres[big], radii[big], parts)


def add_wood(canvas: Canvas, style: Style, rng: np.random.Generator, outline: np.ndarray) -> None:
    """A closed wood: one segment, its crowns are parts where they are wide enough to be seen."""
    segment = canvas.new_segments(TREE)
    floor = canvas.new_parts(segment)
    canvas.cast([outline], style.shadow_per_metre * rng.uniform(5, 12), 220)
    radius = rng.uniform(2.2, 5.0)
    apart = canvas.pixels(radius) >= _CROWN_PIXELS
    mean = style.trees.mean(axis=0)
    if apart:
        canvas.detail(floor, [outline], mean * 0.62, "understorey")
        spacing, share = 1.45 * radius, 1.0
    else:
        # Crowns of a few pixels would be thousands: a texture, and here and there a larger one.
        canvas.detail(floor, [outline], vary(rng, mean[None] * 0.92, 0.08), "canopy")
        radius = max(1.3 * radius, 1.6 * canvas.metres_per_pixel)
        spacing, share = max(4.5 * radius, 12 * canvas.metres_per_pixel), 0.7
    low = np.maximum(outline.min(axis=0), -radius)
    high = np.minimum(outline.max(axis=0), canvas.extent + radius)
    if (high <= low).any():
        return
    counts = np.maximum(1, ((high - low) / spacing).astype(int) + 1)
    grid = np.stack(np.meshgrid(np.arange(counts[0]), np.arange(counts[1])), axis=-1).reshape(-1, 2)
    centres = low + (grid + rng.uniform(0, 1, grid.shape)) * spacing
    centres = centres[rng.uniform(size=len(centres)) < share]
    centres = rng.permutation(centres[contains(outline, centres)])
    if not len(centres):
        return
    radii = radius * rng.uniform(0.65, 1.35, len(centres))
    if apart:
        parts = canvas.new_parts(np.repeat(segment, len(centres)))
    else:
        parts = np.repeat(floor, len(centres))
    _draw_crowns(canvas, style, rng, centres, radii, parts)


def contains(outline: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(n,) bool: which points lie inside a polygon (crossing number)."""
    x, y = points[:, :1], points[:, 1:]
    x0, y0 = outline.T
    x1, y1 = np.roll(outline, -1, axis=0).T
    flat = y1 == y0
    slope = (x1 - x0) / np.where(flat, 1.0, y1 - y0)
    crosses = ((y0 > y) != (y1 > y)) & (x < slope * (y - y0) + x0)
    return np.count_nonzero(crosses, axis=1) % 2 == 1


def add_hedge(canvas: Canvas, style: Style, rng: np.random.Generator, line: np.ndarray) -> None:
    """A row of trees along a line, with gaps."""
    radius = rng.uniform(1.5, 4.0)
    step = max(rng.uniform(1.2, 2.6) * radius, 2.2 * canvas.metres_per_pixel)
    centres = densify(line, step, closed=False)
    centres = centres[rng.uniform(size=len(centres)) < rng.uniform(0.4, 0.95)]
    centres = centres + rng.normal(0, 0.3 * radius, centres.shape)
    add_trees(canvas, style, rng, centres, radius * rng.uniform(0.7, 1.35, len(centres)))


def add_orchard(
    canvas: Canvas,
    style: Style,
    rng: np.random.Generator,
    polygon: np.ndarray,
    angle: float,
    warp: Warp,
) -> None:
    """Trees of one age in rows over a convex polygon, (k, 2) before the warp."""
    radius = rng.uniform(1.3, 3.4)
    along, across = 2 * radius * rng.uniform(1.0, 1.5), 2 * radius * rng.uniform(1.3, 2.2)
    # Not more trees than there is time for; a field of too many keeps its texture of rows.
    if canvas.pixels(2 * radius) < SMALLEST_PIXELS or canvas.extent**2 / (along * across) > 9000:
        return
    frame = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    local = polygon @ frame.T
    low, high = local.min(axis=0), local.max(axis=0)
    u = np.arange(low[0], high[0], along)
    v = np.arange(low[1], high[1], across)
    grid = np.stack(np.meshgrid(u, v), axis=-1).reshape(-1, 2)
    grid = grid[contains(local, grid) & (rng.uniform(size=len(grid)) < 0.96)]
    centres = warp(grid @ frame) + rng.normal(0, 0.12 * radius, grid.shape)
    add_trees(canvas, style, rng, centres, radius * rng.uniform(0.8, 1.15, len(centres)))


def add_pond(
    canvas: Canvas, style: Style, rng: np.random.Generator, centre: np.ndarray, radius: float
) -> None:
    """Still water with a bank."""
    shape = lake(rng, radius)
    bank = shape * (1 + rng.uniform(1, 4) / radius)
    canvas.light([bank + centre])
    canvas.add(GRASS, [bank + centre], style.grass * rng.uniform(0.75, 1.05), "grass")
    colour = vary(rng, style.water[None], 0.08)[0]
    canvas.add(WATER, [shape + centre], colour, "water")


def add_river(
    canvas: Canvas, style: Style, rng: np.random.Generator, width: float, bank_class: int = GRASS
) -> np.ndarray:
    """A river right across the scene; returns its middle line."""
    line = wander(rng, canvas.extent, rng.uniform(0.03, 0.12))
    waves = np.interp(np.arange(len(line)), np.arange(0, len(line), 8), rng.uniform(0.75, 1.3, 9))
    bank = width * waves * rng.uniform(1.15, 1.8)
    colour, texture = (style.sand, "sand") if bank_class == SAND else (style.grass * 0.9, "grass")
    canvas.light([ribbon(line, bank)])
    canvas.add(bank_class, [ribbon(line, bank)], colour, texture)
    canvas.add(WATER, [ribbon(line, width * waves)], style.water, "water")
    return line
