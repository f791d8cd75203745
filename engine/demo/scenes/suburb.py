"""Recipe of a suburb: streets with rows of houses in their gardens."""

import numpy as np

from alps.engine.demo.scenes.blocks import (
    Plots,
    block_sides,
    find_plots,
    lay_streets,
    warp_frames,
)
from alps.engine.demo.scenes.buildings import add_flat, add_pitched
from alps.engine.demo.scenes.canvas import Canvas
from alps.engine.demo.scenes.classes import (
    GRASS,
    PAVEMENT,
    SOIL,
    WATER,
)
from alps.engine.demo.scenes.geometry import (
    boxes,
    make_warp,
    place,
    shrink,
)
from alps.engine.demo.scenes.nature import add_trees, add_wood
from alps.engine.demo.scenes.roads import add_cars, add_roads, add_traffic
from alps.engine.demo.scenes.rural import base
from alps.engine.demo.scenes.style import Style, vary


def suburb(canvas: Canvas, style: Style, rng: np.random.Generator) -> None:
    """Streets with rows of houses, gardens, driveways, pools, trees, cars."""
    warp = make_warp(rng, canvas.extent, rng.choice([0.0, 0.25, 0.7]))
    sides = block_sides(canvas, rng.uniform(110, 220), rng.uniform(56, 80))
    base(canvas, GRASS, style.grass, "lawn")
    blocks, lines, widths = lay_streets(canvas, style, rng, sides, warp, 0.15, (5.5, 8.5))
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
            found.append(find_plots(inner, setback, 11.0, spacing, all_sides=False))
    if found:
        centres = np.concatenate([plots.centres for plots in found])
        angles = np.concatenate([plots.angles for plots in found])
        depth = np.concatenate([plots.depth for plots in found])
        keep = canvas.visible(warp(centres), 30.0) & (rng.uniform(size=len(centres)) < 0.95)
        centres, angles = warp_frames(warp, centres[keep], angles[keep])
        if len(centres):
            plots = Plots(centres, angles, depth[keep])
            _homes(canvas, style, rng, plots, spacing, setback)
    add_traffic(canvas, style, rng, lines, widths, rng.uniform(18, 60), parked=True)


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
    spots = np.stack(
        [0.38 * sizes[parked, 0], rng.uniform(-front + 2.3, -front + 3.0, len(parked))], -1
    )
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
