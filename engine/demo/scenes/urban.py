"""Recipes of cities and industrial estates."""

import numpy as np

from alps.engine.demo.scenes.blocks import (
    apart,
    block_sides,
    find_plots,
    lay_streets,
    warp_frames,
)
from alps.engine.demo.scenes.buildings import (
    add_flat,
    add_halls,
    add_pitched,
    add_tanks,
)
from alps.engine.demo.scenes.canvas import Canvas, Furrows
from alps.engine.demo.scenes.classes import (
    BUILDING,
    GRASS,
    PAVEMENT,
    ROAD,
    SOIL,
    TREE,
    VEHICLE,
    WATER,
)
from alps.engine.demo.scenes.geometry import (
    Warp,
    axes,
    blobs,
    boxes,
    make_warp,
    place,
    polygon_area,
    scatter,
    shrink,
)
from alps.engine.demo.scenes.nature import add_pond, add_trees
from alps.engine.demo.scenes.roads import (
    add_cars,
    add_parking,
    add_roads,
    add_traffic,
)
from alps.engine.demo.scenes.rural import base
from alps.engine.demo.scenes.style import Style, vary


def city(canvas: Canvas, style: Style, rng: np.random.Generator) -> None:
    """Blocks of large buildings around yards, parks, traffic."""
    warp = make_warp(rng, canvas.extent, rng.choice([0.0, 0.0, 0.15, 0.4]))
    sides = block_sides(canvas, rng.uniform(80, 160), rng.uniform(60, 100))
    base(canvas, PAVEMENT, style.pavement * 0.9, "concrete")
    blocks, lines, widths = lay_streets(canvas, style, rng, sides, warp, 0.25, (8, 13))
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
        centres, angles = warp_frames(warp, centres[seen], angles[seen])
        _raise(canvas, style, rng, (centres, sizes[seen], angles), tall)
    add_traffic(canvas, style, rng, lines, widths, rng.uniform(12, 50), parked=False)
    add_traffic(canvas, style, rng, lines, widths, rng.uniform(10, 40), parked=True)
    _close_up(canvas, style, rng)
    spots = scatter(rng, canvas.extent, max(rng.uniform(9, 20), 8 * canvas.metres_per_pixel), 900)
    spots = spots[np.isin(canvas.class_at(spots), (PAVEMENT, GRASS))]
    spots = spots[rng.uniform(size=len(spots)) < rng.uniform(0.1, 0.7)]
    add_trees(canvas, style, rng, spots, rng.uniform(1.6, 4.5, len(spots)))


def _park(canvas: Canvas, style: Style, rng: np.random.Generator, outline: np.ndarray) -> None:
    canvas.add(GRASS, [outline], vary(rng, style.grass[None], 0.08), "grass")
    middle = outline.mean(axis=0)
    radius = float(np.sqrt(polygon_area(outline)))
    if rng.uniform() < 0.4 and radius > 45:
        _pitch(canvas, style, rng, middle, min(0.62 * radius, 100.0))
        return
    if rng.uniform() < 0.4:
        add_pond(canvas, style, rng, middle + rng.normal(0, 0.08 * radius, 2), 0.16 * radius)
    spots = middle + rng.uniform(-0.45, 0.45, (int(rng.integers(10, 40)), 2)) * radius
    add_trees(canvas, style, rng, spots, rng.uniform(2, 6, len(spots)))


def _close_up(canvas: Canvas, style: Style, rng: np.random.Generator) -> None:
    """Beds, repaired surfaces and stray cars, without which a small paved view would be empty."""
    if canvas.extent > 90:
        return
    count = 14
    at = rng.uniform(-0.05, 1.05, (count, 2)) * canvas.extent
    turn = rng.uniform(0, np.pi) + 0.5 * np.pi * rng.integers(0, 2, count)
    most = min(9.0, 0.3 * canvas.extent)
    shapes = place(boxes(*rng.uniform(0.25 * most, most, (2, count))), at, turn)
    clear = canvas.clear_of(shapes, (ROAD, BUILDING, WATER, VEHICLE, TREE))
    shapes, at, turn = shapes[clear], at[clear], turn[clear]
    thirds = len(shapes) // 3
    tones = vary(rng, np.repeat(style.pavement[None], len(shapes), 0), 0.14)
    canvas.add(PAVEMENT, shapes[thirds:], tones[thirds:], "concrete")
    canvas.add(GRASS, shapes[:thirds], style.grass, "grass")
    add_cars(canvas, style, rng, at[2 * thirds :], turn[2 * thirds :])


def _pitch(
    canvas: Canvas, style: Style, rng: np.random.Generator, centre: np.ndarray, length: float
) -> None:
    """A sports field: mown grass in bands, or clay, with white lines."""
    angle = rng.uniform(0, np.pi)
    at, turn = centre[None], np.array([angle])

    def box(long: float, wide: float) -> np.ndarray:
        return place(boxes(np.array([long]), np.array([wide])), at, turn)

    wide = 0.62 * length
    white = (214, 216, 210)
    if rng.uniform() < 0.7:
        mown = Furrows(angle + 0.5 * np.pi, length / 8, 0.05)
        green = style.grass * np.array([0.82, 1.06, 0.82])
        part = canvas.add(GRASS, box(length, wide), green, "lawn", mown)
    else:
        part = canvas.add(SOIL, box(length, wide), (172, 96, 72), "concrete")
    if canvas.pixels(0.15) < 0.12:
        return
    for x in (-0.47, 0.0, 0.47):
        line = boxes(np.array([0.15]), np.array([0.92 * wide])) + np.array([x * length, 0.0])
        canvas.detail(part, place(line, at, turn), white, "concrete")
    for y in (-0.46, 0.46):
        line = boxes(np.array([0.94 * length]), np.array([0.15])) + np.array([0.0, y * wide])
        canvas.detail(part, place(line, at, turn), white, "concrete")


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
            centre = warp_frames(warp, middle[None], angle)[0][0]
            radius = np.sqrt(polygon_area(yard)) * 0.25
            canvas.add(
                SOIL, [blobs(rng, np.array([radius]), 20, 0.3)[0] + centre], style.soil, "soil"
            )
    plots = find_plots(block, setback, depth, spacing, all_sides=True)
    keep = apart(plots.centres, 0.8 * min(spacing, depth + 6))
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
    centre, angle = warp_frames(warp, yard.mean(axis=0)[None], angle)
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
    sides = block_sides(canvas, rng.uniform(140, 240), rng.uniform(90, 150))
    warp = make_warp(rng, canvas.extent, 0.0)
    base(canvas, GRASS, style.grass * 0.95, "grass")
    blocks, lines, widths = lay_streets(canvas, style, rng, sides, warp, 0.1, (7, 12))
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
    add_traffic(canvas, style, rng, lines, widths, rng.uniform(25, 80), parked=False)
    _close_up(canvas, style, rng)
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
            spots = spots[apart(spots, 14.0)]
            turns = angle + rng.choice([0, 0.5 * np.pi], len(spots))
            add_cars(canvas, style, rng, spots, turns, stretch=2.8)
