"""Recipes for open land: farmland, orchards, forest, desert."""

import numpy as np

from alps.engine.demo.scenes.buildings import add_halls, add_pitched
from alps.engine.demo.scenes.canvas import Canvas, Furrows
from alps.engine.demo.scenes.classes import (
    BUILDING,
    FIELD,
    GRASS,
    ROAD,
    SAND,
    SOIL,
    WATER,
)
from alps.engine.demo.scenes.geometry import (
    Subdivision,
    Warp,
    along_line,
    axes,
    blobs,
    boxes,
    chord,
    lake,
    line_length,
    make_warp,
    place,
    polygon_area,
    ribbon,
    scatter,
    strips,
    subdivide,
    wander,
)
from alps.engine.demo.scenes.nature import (
    SMALLEST_PIXELS,
    add_hedge,
    add_orchard,
    add_pond,
    add_river,
    add_trees,
    add_wood,
)
from alps.engine.demo.scenes.roads import add_roads, add_track, add_traffic
from alps.engine.demo.scenes.style import Style, vary


def base(canvas: Canvas, class_id: int, colour: np.ndarray, texture: str) -> None:
    """Cover the whole scene; the first thing a recipe does."""
    e = canvas.extent
    square = np.array([[-0.1, -0.1], [1.1, -0.1], [1.1, 1.1], [-0.1, 1.1]]) * e
    canvas.add(class_id, [square], colour, texture)


def parcel_side(canvas: Canvas, rng: np.random.Generator, low: float, high: float) -> float:
    """Side of a parcel in metres, small enough that several fit into the image."""
    side = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    return float(np.clip(side, canvas.extent / 16, canvas.extent / 2.4))


def farmland(canvas: Canvas, style: Style, rng: np.random.Generator) -> None:
    """Parcels with furrows, tracks, hedges, a farm, perhaps a stream."""
    _parcels(canvas, style, rng, orchard=0.06, wood=0.06)


def orchard(canvas: Canvas, style: Style, rng: np.random.Generator) -> None:
    """Parcels, most of them planted with rows of trees."""
    _parcels(canvas, style, rng, orchard=0.6, wood=0.08)


def _parcels(
    canvas: Canvas, style: Style, rng: np.random.Generator, orchard: float, wood: float
) -> None:
    angle = rng.uniform(0, np.pi)
    side = parcel_side(canvas, rng, 50, 400 if orchard < 0.5 else 160)
    aspect = rng.uniform(1.0, 2.6)
    warp = make_warp(rng, canvas.extent, rng.choice([0.0, 0.2, 0.6, 1.0]))
    irregularity = rng.choice([0.05, 0.3, 1.0])
    layout = subdivide(
        rng, canvas.extent, angle, (side * np.sqrt(aspect), side / np.sqrt(aspect)), irregularity
    )
    step = max(side / 8, 4 * canvas.metres_per_pixel)
    base(canvas, GRASS, style.grass, "grass")
    planted = []
    row_angle = angle + 0.5 * np.pi * rng.integers(0, 2)
    for block in layout.blocks:
        outline = warp.polygon(block, step)
        use = rng.uniform()
        if use < orchard:
            colour = style.grass * rng.uniform(0.85, 1.1) if rng.uniform() < 0.5 else style.soil
            rows = Furrows(row_angle, rng.uniform(4, 8), rng.uniform(0.06, 0.2))
            unseen = rows if canvas.pixels(4.0) < SMALLEST_PIXELS else None
            canvas.add(FIELD, [outline], vary(rng, colour[None], 0.06), "grass", unseen)
            planted.append(block)
        elif use < orchard + wood:
            add_wood(canvas, style, rng, outline)
        elif use < orchard + wood + 0.1:
            canvas.add(GRASS, [outline], vary(rng, style.grass[None], 0.1), "grass")
        elif use < orchard + wood + 0.17:
            canvas.add(SOIL, [outline], vary(rng, style.soil[None], 0.1), "soil")
        else:
            _field(canvas, style, rng, block, warp, step, angle)
    if rng.uniform() < 0.25:
        width = min(rng.uniform(5, 50), canvas.extent / 8)
        add_river(canvas, style, rng, max(width, 4 * canvas.metres_per_pixel))
    for block in planted:
        add_orchard(canvas, style, rng, block, row_angle + rng.normal(0, 0.05), warp)
    lines = _network(canvas, style, rng, layout, warp, step)
    _hedges(canvas, style, rng, layout, warp, step)
    for _ in range(rng.integers(0, 3)):
        if lines and canvas.pixels(1.0) > 0.25:
            add_farm(canvas, style, rng, lines[int(rng.integers(len(lines)))])
    if rng.uniform() < 0.4:
        radius = min(rng.uniform(8, 60), canvas.extent / 9)
        add_pond(canvas, style, rng, rng.uniform(0.1, 0.9, 2) * canvas.extent, radius)
    _lone_trees(canvas, style, rng, 90)


def _field(
    canvas: Canvas,
    style: Style,
    rng: np.random.Generator,
    block: np.ndarray,
    warp: Warp,
    step: float,
    angle: float,
) -> None:
    """One field: furrows along its longer side, sometimes strips of different growth."""
    spans = np.ptp(block @ axes(angle).T, axis=0)
    along = angle + (0.5 * np.pi if spans[1] > spans[0] else 0.0)
    furrows = Furrows(
        along + rng.normal(0, 0.03),
        float(rng.choice([0.75, 1.5, 3.0, 6.0, 12.0])),
        float(rng.uniform(0, 0.09)),
    )
    colour = style.pick(rng, style.crops, 1, 0.08)
    segment = canvas.new_segments(FIELD)
    whole = canvas.new_parts(segment)
    canvas.detail(whole, [warp.polygon(block, step)], colour, "crop", furrows)
    narrow = min(spans)
    count = int(rng.integers(2, 7))
    if rng.uniform() < 0.4 and canvas.pixels(narrow / count) > 8:
        pieces = [warp.polygon(piece, step) for piece in strips(block, along, count)]
        parts = canvas.new_parts(np.repeat(segment, len(pieces)))
        shades = vary(rng, np.repeat(colour, len(pieces), axis=0), rng.uniform(0.05, 0.12))
        canvas.detail(parts, pieces, shades, "crop", furrows)
    elif rng.uniform() < 0.5 and canvas.pixels(0.5) > 0.25:
        # Tramlines: where the sprayer drives, every boom's width.
        frame = axes(along)
        local = block @ frame.T
        boom = rng.uniform(15, 30)
        width = max(0.5, 0.8 * canvas.metres_per_pixel)
        for v in np.arange(local[:, 1].min() + boom / 2, local[:, 1].max(), boom):
            line = chord(block, frame[1] * v, frame[1])
            if len(line):
                track = ribbon(warp.line(line, step), width)
                canvas.detail(whole, [track], colour * 0.86, "crop", furrows)


def _network(
    canvas: Canvas,
    style: Style,
    rng: np.random.Generator,
    layout: Subdivision,
    warp: Warp,
    step: float,
) -> list[np.ndarray]:
    """Roads on the first cuts, tracks on some later ones; returns the roads' lines."""
    lines: list[np.ndarray] = []
    widths: list[float] = []
    tracks = rng.uniform(0.1, 0.5)
    most = 1 if canvas.extent < 250 else 3
    for cut in layout.cuts:
        line = warp.line(cut.ends, step)
        if cut.depth < 2 and len(lines) < most and rng.uniform() < 0.65:
            lines.append(line)
            widths.append(rng.uniform(5, 10))
        elif rng.uniform() < tracks:
            add_track(canvas, style, line, rng.uniform(2.5, 4.5))
    verges = [w * 1.0 + rng.uniform(2, 5) for w in widths]
    for line, verge in zip(lines, verges, strict=True):
        canvas.add(GRASS, [ribbon(line, verge)], style.grass * 1.05, "grass")
    add_roads(canvas, style, rng, lines, widths)
    add_traffic(canvas, style, rng, lines, widths, rng.uniform(40, 200), parked=False)
    return lines


def _hedges(
    canvas: Canvas,
    style: Style,
    rng: np.random.Generator,
    layout: Subdivision,
    warp: Warp,
    step: float,
) -> None:
    share = rng.choice([0.0, 0.1, 0.3])
    chosen = [cut for cut in layout.cuts if cut.depth > 1 and rng.uniform() < share]
    for cut in chosen[:14]:
        add_hedge(canvas, style, rng, warp.line(cut.ends, step))


def _lone_trees(canvas: Canvas, style: Style, rng: np.random.Generator, spacing: float) -> None:
    spacing = max(spacing, 24 * canvas.metres_per_pixel)
    centres = scatter(rng, canvas.extent, spacing, 400)
    centres = centres[rng.uniform(size=len(centres)) < rng.uniform(0, 0.5)]
    add_trees(canvas, style, rng, centres, rng.uniform(1.5, 6, len(centres)))


def add_farm(canvas: Canvas, style: Style, rng: np.random.Generator, line: np.ndarray) -> None:
    """A yard beside a road with barns, a house and trees."""
    at, heading = along_line(line, np.array([rng.uniform(0.2, 0.8) * line_length(line)]))
    side = rng.choice([-1, 1])
    size = rng.uniform(28, 50)
    frame = axes(float(heading[0]))
    middle = at[0] + side * frame[1] * (size * 0.75 + 6)
    yard = lake(rng, size * 0.9) + middle
    canvas.light([yard])
    canvas.add(SOIL, [yard], style.soil * 1.1, "soil")
    count = int(rng.integers(2, 5))
    spots = np.array([[-0.5, -0.35], [0.5, -0.35], [-0.45, 0.45], [0.45, 0.45]])[:count] * size
    sizes = np.stack([rng.uniform(18, 34, count), rng.uniform(10, 16, count)], axis=-1)
    turn = heading[0] + rng.normal(0, 0.03, count)
    sizes = np.minimum(sizes, size * 0.8)
    places = middle + spots @ frame
    clear = canvas.clear_of(place(boxes(*sizes.T), places, turn), (ROAD, WATER, BUILDING))
    add_halls(canvas, style, rng, places[clear], sizes[clear], turn[clear])
    house = middle + np.array([[rng.choice([-1.05, 1.05]) * size, 0.0]]) @ frame
    shape = np.array([[rng.uniform(11, 16), rng.uniform(8, 10)]])
    if canvas.clear_of(place(boxes(*shape.T), house, turn[:1]), (ROAD, WATER, BUILDING))[0]:
        add_pitched(canvas, style, rng, house, shape, turn[:1], style.roof_colours(rng, 1))
    trees = middle + blobs(rng, np.array([size * 1.0]), int(rng.integers(5, 14)), 0.4)[0]
    add_trees(canvas, style, rng, trees, rng.uniform(2, 5, len(trees)))


def forest(canvas: Canvas, style: Style, rng: np.random.Generator) -> None:
    """Woods with clearings, tracks, water."""
    warp = make_warp(rng, canvas.extent, 1.0)
    side = parcel_side(canvas, rng, 80, 500)
    angle = rng.uniform(0, np.pi)
    layout = subdivide(rng, canvas.extent, angle, (side, side * 0.8), 1.0)
    step = side / 10
    base(canvas, GRASS, style.grass * 0.9, "grass")
    share = rng.uniform(0.45, 0.8)
    for block in layout.blocks:
        outline = warp.polygon(block, step)
        use = rng.uniform()
        if use < share:
            add_wood(canvas, style, rng, outline)
        elif use < share + 0.12:
            canvas.add(SOIL, [outline], vary(rng, style.soil[None] * 0.9, 0.1), "soil")
        elif use < share + 0.3:
            canvas.add(GRASS, [outline], vary(rng, style.grass[None], 0.12), "grass")
            area = polygon_area(outline)
            spots = outline.mean(axis=0) + rng.normal(0, 0.25 * np.sqrt(area), (20, 2))
            add_trees(canvas, style, rng, spots, rng.uniform(1.5, 4.5, 20))
        else:
            _field(canvas, style, rng, block, warp, step, angle)
    if rng.uniform() < 0.45:
        width = min(rng.uniform(6, 60), canvas.extent / 7)
        add_river(canvas, style, rng, max(width, 4 * canvas.metres_per_pixel))
    if rng.uniform() < 0.6:
        radius = min(rng.uniform(10, 90), canvas.extent / 7)
        add_pond(canvas, style, rng, rng.uniform(0.15, 0.85, 2) * canvas.extent, radius)
    lines = [warp.line(cut.ends, step) for cut in layout.cuts if cut.depth < 2]
    if rng.uniform() < 0.5:
        add_roads(canvas, style, rng, lines[:1], [rng.uniform(5, 9)])
        lines = lines[1:]
    for line in lines:
        add_track(canvas, style, line, rng.uniform(2.5, 5))
    _lone_trees(canvas, style, rng, 50)


def desert(canvas: Canvas, style: Style, rng: np.random.Generator) -> None:
    """Sand and bare ground in patches, shrubs, tracks, a few compounds."""
    base(canvas, SAND, style.sand, "sand")
    side = parcel_side(canvas, rng, 60, 500)
    spots = scatter(rng, canvas.extent, side, 60)
    for spot in spots[: int(0.45 * len(spots)) + 1]:
        shape = lake(rng, side * rng.uniform(0.35, 0.9)) + spot
        mix = rng.uniform(0.2, 0.9)
        colour = vary(rng, (mix * style.soil + (1 - mix) * style.sand * 0.85)[None], 0.06)
        canvas.add(SOIL, [shape], colour, "soil")
    if rng.uniform() < 0.5:
        bed = wander(rng, canvas.extent, 0.14)
        width = min(rng.uniform(8, 70), canvas.extent / 6) * rng.uniform(0.6, 1.5, len(bed))
        canvas.add(SAND, [ribbon(bed, width)], style.sand * 1.1, "sand")
    warp = make_warp(rng, canvas.extent, 0.8)
    layout = subdivide(rng, canvas.extent, rng.uniform(0, np.pi), (side * 2, side * 2), 1.0)
    step = canvas.extent / 30
    for cut in layout.cuts[1:4]:
        add_track(canvas, style, warp.line(cut.ends, step), rng.uniform(3, 6))
    lines = [warp.line(cut.ends, step) for cut in layout.cuts[:1]]
    if lines and rng.uniform() < 0.7:
        add_roads(canvas, style, rng, lines, [rng.uniform(6, 14)])
        add_traffic(canvas, style, rng, lines, [8.0], 60.0, parked=False)
        for _ in range(rng.integers(0, 4)):
            if canvas.pixels(1.0) > 0.25:
                add_farm(canvas, style, rng, lines[0])
    spacing = max(rng.uniform(8, 30), 10 * canvas.metres_per_pixel)
    shrubs = scatter(rng, canvas.extent, spacing, 900)
    shrubs = shrubs[rng.uniform(size=len(shrubs)) < rng.uniform(0.1, 0.7)]
    free = np.isin(canvas.class_at(shrubs), (SAND, SOIL))
    shrubs = shrubs[free]
    add_trees(canvas, style, rng, shrubs, rng.uniform(0.8, 3.0, len(shrubs)))
