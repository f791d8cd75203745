"""Recipes for built-up land: suburb, city, industry, and the coast."""

from dataclasses import dataclass

import numpy as np
from alps.engine.scenes.buildings import add_flat, add_halls, add_pitched, add_tanks
from alps.engine.scenes.canvas import Canvas
from alps.engine.scenes.classes import GRASS, PAVEMENT, SAND, SOIL, VEHICLE, WATER
from alps.engine.scenes.geometry import (
    Warp,
    axes,
    blobs,
    boxes,
    make_warp,
    place,
    polygon_area,
    scatter,
    shrink,
    subdivide,
    wander,
)
from alps.engine.scenes.nature import add_pond, add_trees, add_wood
from alps.engine.scenes.roads import add_cars, add_parking, add_roads, add_traffic
from alps.engine.scenes.rural import base
from alps.engine.scenes.style import Style, vary


def _sides(canvas: Canvas, long: float, wide: float) -> tuple[float, float]:
    """Block sides in metres, small enough for a few blocks, large enough to be drawn in time."""
    low, high = canvas.extent / 13, canvas.extent / 1.8
    return float(np.clip(long, low, high)), float(np.clip(wide, low, high))


def _streets(
    canvas: Canvas,
    style: Style,
    rng: np.random.Generator,
    sides: tuple[float, float],
    warp: Warp,
    irregularity: float,
    widths: tuple[float, float],
) -> tuple[list[np.ndarray], list[np.ndarray], list[float]]:
    """Blocks between streets (before the warp), the streets' lines and widths."""
    layout = subdivide(rng, canvas.extent, rng.uniform(0, np.pi), sides, irregularity)
    step = max(8.0, 4 * canvas.metres_per_pixel)
    main = rng.uniform(*widths) * 1.5
    small = rng.uniform(*widths)
    lines = [warp.line(cut.ends, step) for cut in layout.cuts]
    broad = [main if cut.depth < 2 else small for cut in layout.cuts]
    return layout.blocks, lines, broad


@dataclass(frozen=True)
class Plots:
    """Building plots along streets; in a plot's own frame -y is the street side."""

    centres: np.ndarray  # (n, 2) of the building, metres
    angles: np.ndarray  # (n,)
    depth: np.ndarray  # (n,) how far the plot reaches behind the building's centre, metres


def _plots(
    block: np.ndarray, setback: float, depth: float, spacing: float, all_sides: bool
) -> Plots:
    """Plots along a convex block's sides, or along its two longest only."""
    middle = block.mean(axis=0)
    sides = np.roll(block, -1, axis=0) - block
    lengths = np.hypot(sides[:, 0], sides[:, 1])
    order = np.argsort(-lengths, kind="stable")
    chosen = order if all_sides else order[:2]
    # Plots on two sides only meet no others at the corners.
    spare = 0.6 * spacing if all_sides else 0.0
    centres, angles, depths = [np.zeros((0, 2))], [np.zeros(0)], [np.zeros(0)]
    for i in chosen.tolist():
        count = int((lengths[i] - spare) / spacing)
        if count < 1:
            continue
        along = sides[i] / lengths[i]
        inward = np.array([-along[1], along[0]])
        if (middle - block[i]) @ inward < 0:
            inward = -inward
        t = 0.5 * (lengths[i] - (count - 1) * spacing) + spacing * np.arange(count)
        setting = setback + 0.5 * depth
        centres.append(block[i] + t[:, None] * along + inward * setting)
        angles.append(np.full(count, np.arctan2(-inward[0], inward[1])))
        depths.append(np.full(count, (middle - block[i]) @ inward - setting))
    return Plots(np.concatenate(centres), np.concatenate(angles), np.concatenate(depths))


def _apart(centres: np.ndarray, distance: float) -> np.ndarray:
    """(n,) bool: drops points nearer than ``distance`` to an earlier kept one."""
    keep = np.ones(len(centres), bool)
    if len(centres) < 2:
        return keep
    gap = np.linalg.norm(centres[:, None] - centres[None], axis=-1) < distance
    for i in range(1, len(centres)):
        keep[i] = not (gap[i, :i] & keep[:i]).any()
    return keep


def _warp_frames(
    warp: Warp, centres: np.ndarray, angles: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Displaced centres, and directions turned as the plane turns there."""
    ahead = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    moved = warp(centres)
    heading = warp(centres + ahead) - moved
    return moved, np.arctan2(heading[:, 1], heading[:, 0])


def suburb(canvas: Canvas, style: Style, rng: np.random.Generator) -> None:
    """Streets with rows of houses, gardens, driveways, pools, trees, cars."""
    warp = make_warp(rng, canvas.extent, rng.choice([0.0, 0.25, 0.7]))
    sides = _sides(canvas, rng.uniform(110, 220), rng.uniform(56, 80))
    base(canvas, GRASS, style.grass, "lawn")
    blocks, lines, widths = _streets(canvas, style, rng, sides, warp, 0.15, (5.5, 8.5))
    add_roads(canvas, style, rng, lines, widths, rng.choice([0.0, 1.6, 2.2]))
    spacing = max(rng.uniform(14, 26), 5 * canvas.metres_per_pixel)
    setback = rng.uniform(4, 9)
    step = max(8.0, 4 * canvas.metres_per_pixel)
    found = []
    for block in blocks:
        inner = shrink(block, 0.5 * min(widths, default=6.0) + 2.0)
        if len(inner) < 3:
            continue
        outline = warp.polygon(inner, step)
        use = rng.uniform()
        if use < 0.05:
            add_wood(canvas, style, rng, outline)
        elif use < 0.10:
            canvas.add(GRASS, [outline], vary(rng, style.grass[None], 0.1), "grass")
        else:
            hedge = vary(rng, style.grass[None] * 0.85, 0.05)
            canvas.add(GRASS, [outline], hedge, "lawn")
            found.append(_plots(inner, setback, 11.0, spacing, all_sides=False))
    if found:
        centres = np.concatenate([plots.centres for plots in found])
        angles = np.concatenate([plots.angles for plots in found])
        depth = np.concatenate([plots.depth for plots in found])
        keep = canvas.visible(warp(centres), 30.0) & (rng.uniform(size=len(centres)) < 0.95)
        centres, angles = _warp_frames(warp, centres[keep], angles[keep])
        if len(centres):
            plots = Plots(centres, angles, depth[keep])
            _homes(canvas, style, rng, plots, spacing, setback)
    for line, width in zip(lines, widths, strict=True):
        add_traffic(canvas, style, rng, line, width, rng.uniform(18, 60), parked=True)


def _homes(
    canvas: Canvas,
    style: Style,
    rng: np.random.Generator,
    plots: Plots,
    spacing: float,
    setback: float,
) -> None:
    """Gardens, driveways, houses, pools, trees and cars of plots."""
    centres, angles, depth = plots.centres, plots.angles, plots.depth
    count = len(centres)

    def at(local: np.ndarray, who: np.ndarray) -> np.ndarray:
        """Points given in the plots' own frames, (n, 2) -> metres of the scene."""
        return place(local[:, None, :], centres[who], angles[who])[:, 0]

    everyone = np.arange(count)
    front = setback + 5.5
    if canvas.pixels(spacing) > 14:
        who = np.flatnonzero((rng.uniform(size=count) < 0.85) & (depth > 4))
        lot = boxes(np.full(len(who), spacing - 0.5), depth[who] + front - 0.5)
        lot[:, :, 1] += 0.5 * (depth[who] - front)[:, None]
        lawn = vary(rng, np.repeat(style.grass[None], len(who), 0), 0.09)
        bare = rng.uniform(size=len(who)) < 0.12
        lawn[bare] = vary(rng, np.repeat(style.soil[None], int(bare.sum()), 0), 0.08)
        lots = place(lot, centres[who], angles[who])
        canvas.add(GRASS, lots[~bare], lawn[~bare], "lawn")
        canvas.add(SOIL, lots[bare], lawn[bare], "soil")
    sizes = np.stack(
        [np.minimum(rng.uniform(9, 19, count), spacing * 0.78), rng.uniform(7.5, 12, count)],
        axis=-1,
    )
    drive = np.flatnonzero(rng.uniform(size=count) < 0.8)
    if len(drive) and canvas.pixels(3.0) >= 2.5:
        x = 0.38 * sizes[drive, 0]
        centre = at(np.stack([x, np.full(len(drive), -0.5 * (front + 3))], -1), drive)
        paved = place(
            boxes(np.full(len(drive), 3.2), np.full(len(drive), front - 1.0)), centre, angles[drive]
        )
        shade = vary(rng, np.repeat(style.pavement[None], len(drive), 0), 0.08)
        canvas.add(PAVEMENT, paved, shade, "concrete")
    flat = rng.uniform(size=count) < style.flat
    pool = np.flatnonzero((rng.uniform(size=count) < rng.choice([0.0, 0.05, 0.35])) & (depth > 14))
    if len(pool) and canvas.pixels(4.0) >= 4:
        centre = at(
            np.stack([rng.uniform(-3, 3, len(pool)), np.minimum(13.0, depth[pool] - 4.5)], -1), pool
        )
        turn = angles[pool]
        rim = boxes(rng.uniform(8, 11, len(pool)), rng.uniform(5, 7, len(pool)))
        canvas.add(PAVEMENT, place(rim, centre, turn), style.pavement * 1.1, "concrete")
        blue = vary(rng, np.repeat([[92.0, 178.0, 196.0]], len(pool), 0), 0.08)
        canvas.add(WATER, place(rim * 0.72, centre, turn), blue, "pool")
    shed = np.flatnonzero((rng.uniform(size=count) < 0.3) & (depth > 12))
    if len(shed):
        centre = at(np.stack([rng.uniform(-7, 7, len(shed)), depth[shed] - 2.5], -1), shed)
        small = np.stack([rng.uniform(3, 5, len(shed)), rng.uniform(2.5, 3.5, len(shed))], -1)
        add_pitched(
            canvas, style, rng, centre, small, angles[shed], style.hall_colours(rng, len(shed))
        )
    slim = everyone[~flat]
    turned = angles + 0.5 * np.pi * (rng.uniform(size=count) < 0.12) + rng.normal(0, 0.02, count)
    add_pitched(
        canvas, style, rng, centres[slim], sizes[slim], turned[slim],
        style.roof_colours(rng, len(slim)),
    )  # fmt: skip
    add_flat(
        canvas, style, rng, centres[flat], sizes[flat] * [1.0, 1.15], turned[flat],
        style.flat_roof_colours(rng, int(flat.sum())), rng.uniform(3.5, 8, int(flat.sum())),
    )  # fmt: skip
    parked = drive[rng.uniform(size=len(drive)) < 0.5]
    spots = np.stack([0.38 * sizes[parked, 0], rng.uniform(-front + 2.3, -front + 3.0, len(parked))], -1)
    add_cars(canvas, style, rng, at(spots, parked), angles[parked] + 0.5 * np.pi)
    number = min(int(count * rng.uniform(0.4, 3.0)), 1200)
    trees = rng.integers(0, count, number)
    back = rng.uniform(size=number) < 0.7
    behind = 7.5 + rng.uniform(size=number) * np.maximum(depth[trees] - 7.5, 1.0)
    y = np.where(back, behind, rng.uniform(-front + 1, -7.0, number))
    places = at(np.stack([rng.uniform(-0.5, 0.5, len(trees)) * spacing, y], -1), trees)
    free = np.isin(canvas.class_at(places), (GRASS, PAVEMENT))
    places = places[free]
    add_trees(canvas, style, rng, places, rng.uniform(1.2, 4.5, len(places)))


def city(canvas: Canvas, style: Style, rng: np.random.Generator) -> None:
    """Blocks of large buildings around yards, parks, traffic."""
    warp = make_warp(rng, canvas.extent, rng.choice([0.0, 0.0, 0.15, 0.4]))
    sides = _sides(canvas, rng.uniform(80, 160), rng.uniform(60, 100))
    base(canvas, PAVEMENT, style.pavement * 0.9, "concrete")
    blocks, lines, widths = _streets(canvas, style, rng, sides, warp, 0.25, (8, 13))
    add_roads(canvas, style, rng, lines, widths, 2.5)
    step = max(8.0, 4 * canvas.metres_per_pixel)
    tall = rng.uniform(8, 26)
    buildings = []
    for block in blocks:
        inner = shrink(block, 0.5 * max(widths, default=10.0) + 2.5)
        if len(inner) < 3 or polygon_area(inner) < 150:
            continue
        use = rng.uniform()
        outline = warp.polygon(inner, step)
        if use < 0.1:
            _park(canvas, style, rng, outline)
            continue
        ground = style.pavement * rng.uniform(0.7, 1.02) if use < 0.75 else style.grass
        texture, class_id = ("concrete", PAVEMENT) if use < 0.75 else ("lawn", GRASS)
        canvas.add(class_id, [outline], ground, texture)
        buildings.append(_block_of_buildings(canvas, style, rng, inner, warp))
    if buildings:
        centres, sizes, angles = (np.concatenate(kind) for kind in zip(*buildings, strict=True))
        seen = canvas.visible(warp(centres), 40.0)
        centres, angles = _warp_frames(warp, centres[seen], angles[seen])
        _raise(canvas, style, rng, (centres, sizes[seen], angles), tall)
    for line, width in zip(lines, widths, strict=True):
        add_traffic(canvas, style, rng, line, width, rng.uniform(12, 40), parked=False)
        add_traffic(canvas, style, rng, line, width, rng.uniform(10, 40), parked=True)
    spots = scatter(rng, canvas.extent, max(rng.uniform(9, 20), 8 * canvas.metres_per_pixel), 900)
    spots = spots[np.isin(canvas.class_at(spots), (PAVEMENT, GRASS))]
    spots = spots[rng.uniform(size=len(spots)) < rng.uniform(0.1, 0.7)]
    add_trees(canvas, style, rng, spots, rng.uniform(1.6, 4.5, len(spots)))


def _park(canvas: Canvas, style: Style, rng: np.random.Generator, outline: np.ndarray) -> None:
    canvas.add(GRASS, [outline], vary(rng, style.grass[None], 0.08), "grass")
    middle = outline.mean(axis=0)
    radius = float(np.sqrt(polygon_area(outline)))
    if rng.uniform() < 0.4:
        add_pond(canvas, style, rng, middle + rng.normal(0, 0.08 * radius, 2), 0.16 * radius)
    spots = middle + rng.uniform(-0.45, 0.45, (int(rng.integers(10, 40)), 2)) * radius
    add_trees(canvas, style, rng, spots, rng.uniform(2, 6, len(spots)))


Footprints = tuple[np.ndarray, np.ndarray, np.ndarray]  # centres, sizes, angles


def _block_of_buildings(
    canvas: Canvas, style: Style, rng: np.random.Generator, block: np.ndarray, warp: Warp
) -> Footprints:
    """Buildings along a block's edges and a yard between them, or one large building."""
    middle = block.mean(axis=0)
    edge = block[1] - block[0]
    angle = np.array([np.arctan2(edge[1], edge[0])])
    root = np.sqrt(polygon_area(block))
    if rng.uniform() < 0.2:
        size = min(root * rng.uniform(0.5, 0.75), 120.0)
        return middle[None], np.array([[size, size * rng.uniform(0.6, 0.9)]]), angle
    depth = rng.uniform(11, 17)
    spacing = max(rng.uniform(16, 34), 5 * canvas.metres_per_pixel)
    setback = rng.choice([0.0, 0.0, 3.0])
    yard = shrink(block, depth + setback + 4)
    if len(yard) > 2 and polygon_area(yard) > 250:
        use = rng.uniform()
        if use < 0.45:
            outline = warp.polygon(yard, 10.0)
            canvas.add(GRASS, [outline], vary(rng, style.grass[None], 0.08), "lawn")
        elif use < 0.7:
            _parking_in(canvas, style, rng, yard, warp)
        elif use < 0.8:
            centre = _warp_frames(warp, middle[None], angle)[0][0]
            radius = np.sqrt(polygon_area(yard)) * 0.25
            canvas.add(
                SOIL, [blobs(rng, np.array([radius]), 20, 0.3)[0] + centre], style.soil, "soil"
            )
    plots = _plots(block, setback, depth, spacing, all_sides=True)
    keep = _apart(plots.centres, 0.8 * min(spacing, depth + 6))
    count = int(keep.sum())
    sizes = np.stack(
        [spacing * rng.choice([0.8, 0.97, 1.0], count), depth * rng.uniform(0.85, 1.15, count)], -1
    )
    return plots.centres[keep], sizes, plots.angles[keep]


def _parking_in(
    canvas: Canvas, style: Style, rng: np.random.Generator, yard: np.ndarray, warp: Warp
) -> None:
    """The largest parking ground, more or less, that fits into a convex yard."""
    edge = yard[1] - yard[0]
    angle = np.array([np.arctan2(edge[1], edge[0])])
    spans = np.ptp(yard @ axes(float(angle[0])).T, axis=0) * 0.8
    centre, angle = _warp_frames(warp, yard.mean(axis=0)[None], angle)
    add_parking(canvas, style, rng, centre[0], (spans[0], spans[1]), float(angle[0]))


def _raise(
    canvas: Canvas, style: Style, rng: np.random.Generator, where: Footprints, tall: float
) -> None:
    """Flat roofs on some footprints, pitched roofs on the others."""
    centres, sizes, angles = where
    count = len(centres)
    heights = tall * rng.uniform(0.6, 1.3, count)
    flat = rng.uniform(size=count) < 0.4 + 0.5 * style.flat
    flat |= sizes.min(axis=1) > 22
    add_flat(
        canvas, style, rng, centres[flat], sizes[flat], angles[flat],
        style.flat_roof_colours(rng, int(flat.sum())), heights[flat],
    )  # fmt: skip
    pitched = ~flat
    add_pitched(
        canvas, style, rng, centres[pitched], sizes[pitched], angles[pitched],
        style.roof_colours(rng, int(pitched.sum())),
    )  # fmt: skip


def industrial(canvas: Canvas, style: Style, rng: np.random.Generator) -> None:
    """Halls, yards, parking, tanks, lorries, waste ground."""
    sides = _sides(canvas, rng.uniform(140, 240), rng.uniform(90, 150))
    warp = make_warp(rng, canvas.extent, 0.0)
    base(canvas, GRASS, style.grass * 0.95, "grass")
    blocks, lines, widths = _streets(canvas, style, rng, sides, warp, 0.1, (7, 12))
    add_roads(canvas, style, rng, lines, widths, 0.0)
    for block in blocks:
        inner = shrink(block, 0.5 * max(widths, default=9.0) + 3.0)
        if len(inner) < 3 or polygon_area(inner) < 300:
            continue
        use = rng.uniform()
        if use < 0.12:
            canvas.add(SOIL, [inner], vary(rng, style.soil[None], 0.08), "soil")
            continue
        if use < 0.2:
            canvas.add(GRASS, [inner], vary(rng, style.grass[None], 0.08), "grass")
            continue
        mix = style.pavement if rng.uniform() < 0.5 else style.asphalt * 1.15
        canvas.add(PAVEMENT, [inner], vary(rng, mix[None], 0.06), "concrete")
        _works(canvas, style, rng, inner)
    for line, width in zip(lines, widths, strict=True):
        add_traffic(canvas, style, rng, line, width, rng.uniform(25, 80), parked=False)
    spots = scatter(rng, canvas.extent, max(16.0, 8 * canvas.metres_per_pixel), 700)
    spots = spots[canvas.class_at(spots) == GRASS]
    spots = spots[rng.uniform(size=len(spots)) < 0.5]
    add_trees(canvas, style, rng, spots, rng.uniform(1.5, 4.5, len(spots)))


def _works(canvas: Canvas, style: Style, rng: np.random.Generator, block: np.ndarray) -> None:
    """One works: a block's length is shared out among halls, parking, tanks and yard."""
    edge = block[1] - block[0]
    angle = float(np.arctan2(edge[1], edge[0]))
    frame = axes(angle)
    local = block @ frame.T
    low, high = local.min(axis=0), local.max(axis=0)
    span = (high - low) * 0.86
    low = low + (high - low) * 0.07
    x = low[0]
    tall = float(rng.uniform(6, 12))
    while x < low[0] + span[0] - 12:
        width = min(rng.uniform(28, 75), low[0] + span[0] - x)
        centre = np.array([x + width / 2, low[1] + span[1] / 2]) @ frame
        x += width + rng.uniform(4, 12)
        at, turn = centre[None], np.array([angle])
        use = rng.uniform()
        if use < 0.4:
            sizes = np.array([[width, span[1] * rng.uniform(0.5, 0.95)]])
            if sizes[0, 1] > sizes[0, 0]:
                sizes, turn = sizes[:, ::-1], turn + 0.5 * np.pi
            add_halls(canvas, style, rng, at, sizes, turn)
        elif use < 0.65:
            sizes = np.array([[width, span[1] * rng.uniform(0.5, 0.95)]])
            colour = style.flat_roof_colours(rng, 1)
            add_flat(canvas, style, rng, at, sizes, turn, colour, np.array([tall]))
        elif use < 0.85:
            add_parking(canvas, style, rng, centre, (width, span[1] * 0.9), angle)
        elif use < 0.93:
            radius = rng.uniform(5, 12)
            grid = np.stack(np.meshgrid(np.arange(-1, 2), np.arange(-2, 3)), -1).reshape(-1, 2)
            spots = grid * radius * 2.6
            inside = (np.abs(spots) + radius < np.array([width, span[1]]) / 2).all(axis=1)
            spots = spots[inside] @ frame + centre
            if len(spots):
                add_tanks(canvas, style, rng, spots, np.full(len(spots), radius))
        else:
            count = int(rng.integers(3, 9))
            spots = (rng.uniform(-0.4, 0.4, (count, 2)) * [width, span[1]]) @ frame + centre
            spots = spots[_apart(spots, 14.0)]
            turns = angle + rng.choice([0, 0.5 * np.pi], len(spots))
            add_cars(canvas, style, rng, spots, turns, stretch=2.8)


def coast(canvas: Canvas, style: Style, rng: np.random.Generator) -> None:
    """A shore: sea, beach, and a town or woods behind it."""
    behind = rng.choice(["suburb", "wild", "city"])
    if behind == "suburb":
        suburb(canvas, style, rng)
    elif behind == "city":
        city(canvas, style, rng)
    else:
        base(canvas, GRASS, style.grass, "grass")
        spots = scatter(rng, canvas.extent, max(70.0, 40 * canvas.metres_per_pixel), 100)
        for spot in spots[: max(2, len(spots) // 3)]:
            radius = max(rng.uniform(15, 45), 12 * canvas.metres_per_pixel)
            add_wood(canvas, style, rng, blobs(rng, np.array([radius]), 24, 0.4)[0] + spot)
    shore = wander(rng, canvas.extent, rng.uniform(0.03, 0.10))
    along = shore[-1] - shore[0]
    out = np.array([-along[1], along[0]]) / np.hypot(*along)
    if (shore[32] - canvas.extent / 2) @ out < 0:
        out = -out
    far = shore[[-1, 0]] + out * 3 * canvas.extent
    beach = min(rng.uniform(8, 60), canvas.extent / 6)
    wave = np.interp(np.arange(len(shore)), np.arange(0, len(shore), 8), rng.uniform(0.5, 1.5, 9))
    inland = shore - out * beach * wave[:, None]
    e = canvas.extent
    canvas.add(SAND, [np.concatenate([inland, far])], style.sand, "sand")
    canvas.add(SAND, [np.concatenate([shore - out * beach * 0.18, far])], style.sand * 0.78, "sand")
    sea = vary(rng, np.array([[46.0, 92.0, 112.0]]), 0.12)[0]
    segment = canvas.new_segments(WATER)
    part = canvas.new_parts(segment)
    shallow = min(rng.uniform(6, 60), e / 5)
    for k in range(8):
        mix = k / 7
        colour = (1 - mix) * (0.5 * sea + 0.5 * np.array([120, 160, 158])) + mix * sea
        edge = shore + out * shallow * mix
        canvas.detail(part, [np.concatenate([edge, far])], colour, "water")
    canvas.shadow[_water_mask(canvas)] = 0
    boats = scatter(rng, e, max(40.0, 30 * canvas.metres_per_pixel), 150)
    boats = boats[canvas.class_at(boats) == WATER][: int(rng.integers(0, 14))]
    if len(boats):
        shape = np.array([[-0.5, -0.16], [0.2, -0.17], [0.5, 0], [0.2, 0.17], [-0.5, 0.16]])
        length = rng.uniform(6, 18, len(boats))
        hulls = place(shape * length[:, None, None], boats, rng.uniform(0, 6.3, len(boats)))
        if canvas.pixels(0.33 * 10) >= 2.2:
            parts = canvas.add(VEHICLE, hulls, (232, 232, 228), "metal")
            middle = hulls.mean(axis=1, keepdims=True)
            canvas.detail(parts, middle + (hulls - middle) * 0.6, (176, 164, 146), "metal")
        else:
            canvas.detail(canvas.part_at(boats), hulls, (232, 232, 228), "metal")


def _water_mask(canvas: Canvas) -> np.ndarray:
    """(size, size) bool: pixels that are water so far."""
    e = canvas.size
    y, x = np.indices((e, e)).reshape(2, -1)
    points = (np.stack([x, y], -1) + 0.5) * canvas.metres_per_pixel
    return (canvas.class_at(points) == WATER).reshape(e, e)
