"""Buildings: pitched roofs with faces, flat roofs with what stands on them, tanks."""

import numpy as np

from alps.engine.demo.scenes.canvas import Canvas
from alps.engine.demo.scenes.classes import BUILDING
from alps.engine.demo.scenes.geometry import blobs, boxes, place
from alps.engine.demo.scenes.style import Style

_SMALLEST_PIXELS = 3.0
_RIM = 0.5  # metres, width of a flat roof's parapet
_FACE_PIXELS = 2.0  # narrower roof faces are no parts


def add_pitched(
    canvas: Canvas,
    style: Style,
    rng: np.random.Generator,
    centres: np.ndarray,
    sizes: np.ndarray,
    angles: np.ndarray,
    colours: np.ndarray,
) -> None:
    """Houses with gabled or hipped roofs, some with a wing (L and T shapes).

    ``centres`` (n, 2) and ``sizes``, length and width, (n, 2) in metres, ``angles`` (n,),
    ``colours`` (n, 3).
    """
    seen = canvas.visible(centres, float(sizes.max(initial=0.0)))
    centres, sizes, angles, colours = centres[seen], sizes[seen], angles[seen], colours[seen]
    if not len(centres):
        return
    small = canvas.pixels(1.0) * sizes.min(axis=1) < _SMALLEST_PIXELS
    if small.any():
        walls = place(boxes(*sizes[small].T), centres[small], angles[small])
        canvas.detail(canvas.part_at(centres[small]), walls, colours[small], "roof")
        keep = ~small
        centres, sizes, angles, colours = centres[keep], sizes[keep], angles[keep], colours[keep]
        if not len(centres):
            return
    count = len(centres)
    segments = canvas.new_segments(BUILDING, count)
    inset = np.where(rng.uniform(size=count) < style.hipped, 0.5 * sizes[:, 1], 0.0)
    inset = np.minimum(inset, 0.42 * sizes[:, 0])
    height = rng.uniform(3.5, 7.0, count)
    # Wings first: the main ridge runs over theirs.
    winged = np.flatnonzero((rng.uniform(size=count) < 0.45) & (sizes[:, 0] > 9))
    if len(winged):
        width = sizes[winged, 1] * rng.uniform(0.6, 0.9, len(winged))
        length = sizes[winged, 1] * rng.uniform(1.2, 1.9, len(winged))
        side = rng.choice([-1.0, 1.0], len(winged))
        slide = (sizes[winged, 0] - width) * 0.5 * rng.choice([-1.0, 0.0, 1.0], len(winged))
        local = np.stack([slide, side * length * 0.42], axis=-1)
        cos, sin = np.cos(angles[winged]), np.sin(angles[winged])
        shift = np.stack(
            [local[:, 0] * cos - local[:, 1] * sin, local[:, 0] * sin + local[:, 1] * cos], axis=-1
        )
        _roof(
            canvas,
            style,
            segments[winged],
            (centres[winged] + shift, np.stack([length, width], -1), angles[winged] + 0.5 * np.pi),
            np.minimum(inset[winged], 0.3 * length),
            colours[winged],
            height[winged] * 0.9,
        )
    _roof(canvas, style, segments, (centres, sizes, angles), inset, colours, height)
    if canvas.pixels(0.8) >= 1.0:
        spots = rng.uniform(-0.3, 0.3, (count, 2)) * sizes
        chimneys = boxes(np.full(count, 0.9), np.full(count, 0.7)) + spots[:, None, :]
        dark = np.clip(colours * rng.uniform(0.5, 1.2, (count, 1)), 0, 255)
        outline = place(chimneys, centres, angles)
        canvas.detail(canvas.part_at(outline.mean(axis=1)), outline, dark, "roof")


def _roof(
    canvas: Canvas,
    style: Style,
    segments: np.ndarray,
    where: tuple[np.ndarray, np.ndarray, np.ndarray],
    inset: np.ndarray,
    colours: np.ndarray,
    height: np.ndarray,
) -> None:
    """Four faces for each roof (two of them empty under a gable)."""
    centres, sizes, angles = where
    count = len(centres)
    corners = boxes(sizes[:, 0], sizes[:, 1])
    canvas.cast(place(corners, centres, angles), height[:, None] * style.shadow_per_metre)
    end = 0.5 * sizes[:, 0] - inset
    zero = np.zeros(count)
    left, right = np.stack([-end, zero], -1), np.stack([end, zero], -1)
    c = [corners[:, k] for k in range(4)]
    faces = [
        np.stack([c[0], c[1], right, left], axis=1),
        np.stack([c[2], c[3], left, right], axis=1),
        np.stack([c[1], c[2], right, right], axis=1),
        np.stack([c[3], c[0], left, left], axis=1),
    ]
    facing = np.array([-0.5, 0.5, 0.0, 1.0]) * np.pi
    wide = canvas.pixels(1.0) * 0.5 * sizes[:, 1] >= _FACE_PIXELS
    shared = canvas.new_parts(segments)
    for k, face in enumerate(faces):
        there = np.ones(count, bool) if k < 2 else inset > 0
        if not there.any():
            continue
        direction = angles[there] + facing[k]
        light = np.cos(direction) * style.towards_sun[0] + np.sin(direction) * style.towards_sun[1]
        shade = 0.93 + 0.2 * light
        own = canvas.new_parts(segments[there])
        parts = np.where(wide[there], own, shared[there])
        paints = canvas.new_paints(parts, colours[there] * shade[:, None], "roof")
        canvas.fill(place(face[there], centres[there], angles[there]), paints)


def add_flat(
    canvas: Canvas,
    style: Style,
    rng: np.random.Generator,
    centres: np.ndarray,
    sizes: np.ndarray,
    angles: np.ndarray,
    colours: np.ndarray,
    heights: np.ndarray,
) -> None:
    """Flat-roofed buildings: block, L, T or U, parapet, machinery. Arrays as in ``add_pitched``."""
    seen = canvas.visible(centres, float(sizes.max(initial=0.0)))
    small = seen & (canvas.pixels(1.0) * sizes.min(axis=1) < _SMALLEST_PIXELS)
    if small.any():
        walls = place(boxes(*sizes[small].T), centres[small], angles[small])
        canvas.detail(canvas.part_at(centres[small]), walls, colours[small], "roof")
    winged = seen & (rng.uniform(size=len(centres)) < 0.4) & (sizes.min(axis=1) > 12)
    winged &= canvas.pixels(1.0) * sizes.min(axis=1) > 9
    plain = np.flatnonzero(seen & ~small & ~winged)
    if len(plain):
        at, size, turn = centres[plain], sizes[plain], angles[plain]
        outline = place(boxes(*size.T), at, turn)
        canvas.cast(outline, heights[plain][:, None] * style.shadow_per_metre)
        parts = canvas.add(BUILDING, outline, colours[plain] * 1.12, "roof")
        if canvas.pixels(_RIM) >= 0.5:
            inner = place(boxes(*(size - 2 * _RIM).T), at, turn)
            canvas.detail(parts, inner, colours[plain] * 0.93, "gravel")
        for k, i in enumerate(plain.tolist()):
            piece = boxes(sizes[i : i + 1, 0], sizes[i : i + 1, 1])[0]
            _machinery(canvas, style, rng, parts[k : k + 1], piece, at[k], turn[k], colours[i])
    for i in np.flatnonzero(winged).tolist():
        pieces = _footprint(rng, *sizes[i])
        at, turn = centres[i : i + 1], angles[i : i + 1]
        outlines = [place(piece[None], at, turn)[0] for piece in pieces]
        parts = np.repeat(canvas.new_parts(canvas.new_segments(BUILDING)), len(pieces))
        canvas.cast(outlines, heights[i] * style.shadow_per_metre)
        canvas.detail(parts, outlines, colours[i] * 1.12, "roof")
        if canvas.pixels(_RIM) >= 0.5:
            inners = [place(_inner(piece, _RIM)[None], at, turn)[0] for piece in pieces]
            canvas.detail(parts, inners, colours[i] * 0.93, "gravel")
        _machinery(canvas, style, rng, parts[:1], pieces[0], at[0], turn[0], colours[i])


def _footprint(rng: np.random.Generator, length: float, width: float) -> list[np.ndarray]:
    """Rectangles about the origin that together make an L, T or U."""

    def box(x: float, y: float, long: float, wide: float) -> np.ndarray:
        return boxes(np.array([long]), np.array([wide]))[0] + [x, y]

    shape = rng.choice(["L", "T", "U"])
    bar = width * rng.uniform(0.35, 0.5)
    arm = length * rng.uniform(0.22, 0.33)
    main = box(0, -(width - bar) / 2, length, bar)
    if shape == "T":
        return [main, box(0, 0, arm, width)]
    left = box(-(length - arm) / 2, 0, arm, width)
    if shape == "L":
        return [main, left]
    return [main, left, box((length - arm) / 2, 0, arm, width)]


def _inner(piece: np.ndarray, rim: float) -> np.ndarray:
    middle = piece.mean(axis=0)
    half = np.abs(piece - middle)
    return middle + np.sign(piece - middle) * np.maximum(half - rim, 0.1)


def _machinery(
    canvas: Canvas,
    style: Style,
    rng: np.random.Generator,
    part: np.ndarray,
    piece: np.ndarray,
    at: np.ndarray,
    turn: float,
    colour: np.ndarray,
) -> None:
    """Boxes on a roof, each with a small painted shadow."""
    if canvas.pixels(2.0) < 1.5:
        return
    middle, span = piece.mean(axis=0), np.ptp(piece, axis=0)
    count = int(min(12, rng.poisson(1 + span.prod() / 220)))
    if not count:
        return
    size = rng.uniform(1.0, 3.2, (count, 2))
    spots = middle + rng.uniform(-0.38, 0.38, (count, 2)) * span
    body = boxes(*size.T) + spots[:, None, :]
    outline = place(body, np.tile(at, (count, 1)), np.full(count, turn))
    parts = np.repeat(part, count)
    canvas.detail(parts, outline + style.shadow_per_metre * 1.4, colour * 0.5, "roof")
    canvas.detail(parts, outline, rng.uniform(120, 225, (count, 1)) * np.ones(3), "roof")


def add_halls(
    canvas: Canvas,
    style: Style,
    rng: np.random.Generator,
    centres: np.ndarray,
    sizes: np.ndarray,
    angles: np.ndarray,
) -> None:
    """Barns and halls: a low ridge along the middle, sheet-metal ribs, skylights."""
    seen = canvas.visible(centres, float(sizes.max(initial=0.0)))
    seen &= canvas.pixels(1.0) * sizes.min(axis=1, initial=1e9) >= _SMALLEST_PIXELS
    centres, sizes, angles = centres[seen], sizes[seen], angles[seen]
    count = len(centres)
    if not count:
        return
    colours = style.hall_colours(rng, count)
    height = rng.uniform(5, 11, count)
    segments = canvas.new_segments(BUILDING, count)
    where = (centres, sizes, angles)
    _roof(canvas, style, segments, where, np.zeros(count), colours, height)
    if canvas.pixels(1.2) < 0.8:
        return
    for i in np.flatnonzero(rng.uniform(size=count) < 0.6).tolist():
        x = np.arange(-sizes[i, 0] / 2 + 3, sizes[i, 0] / 2 - 3, rng.uniform(5, 9))
        y = np.full(len(x), 0.25 * sizes[i, 1])
        spots = np.concatenate([np.stack([x, -y], axis=-1), np.stack([x, y], axis=-1)])
        number = len(spots)
        strips = boxes(np.full(number, 1.2), np.full(number, 0.22 * sizes[i, 1]))
        outline = place(
            strips + spots[:, None, :],
            np.repeat(centres[i : i + 1], number, axis=0),
            np.repeat(angles[i], number),
        )
        hosts = canvas.part_at(outline.mean(axis=1))
        canvas.detail(hosts, outline, colours[i] * 1.12, "roof")


def add_tanks(
    canvas: Canvas,
    style: Style,
    rng: np.random.Generator,
    centres: np.ndarray,
    radii: np.ndarray,
) -> None:
    """Round storage tanks."""
    count = len(centres)
    discs = blobs(rng, radii, 28, 0.0) + centres[:, None, :]
    canvas.cast(discs, radii[:, None] * 0.9 * style.shadow_per_metre)
    shade = rng.uniform(190, 240, (count, 1)) * np.ones(3)
    parts = canvas.add(BUILDING, discs, shade, "roof")
    lit = blobs(rng, radii * 0.9, 28, 0.0) + centres[:, None, :]
    canvas.detail(parts, lit, shade * 0.92, "roof")
