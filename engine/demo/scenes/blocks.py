"""Streets, the blocks between them, and building plots along the streets."""

from dataclasses import dataclass

import numpy as np

from alps.engine.demo.scenes.canvas import Canvas
from alps.engine.demo.scenes.geometry import Warp, subdivide
from alps.engine.demo.scenes.style import Style


def block_sides(canvas: Canvas, long: float, wide: float) -> tuple[float, float]:
    """Block sides in metres, small enough for a few blocks, large enough to be drawn in time."""
    low, high = canvas.extent / 13, max(canvas.extent / 1.5, 48.0)
    return float(np.clip(long, low, high)), float(np.clip(wide, low, high))


def lay_streets(
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


def find_plots(
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


def apart(centres: np.ndarray, distance: float) -> np.ndarray:
    """(n,) bool: drops points nearer than ``distance`` to an earlier kept one."""
    keep = np.ones(len(centres), bool)
    if len(centres) < 2:
        return keep
    gap = np.linalg.norm(centres[:, None] - centres[None], axis=-1) < distance
    for i in range(1, len(centres)):
        keep[i] = not (gap[i, :i] & keep[:i]).any()
    return keep


def warp_frames(
    warp: Warp, centres: np.ndarray, angles: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Displaced centres, and directions turned as the plane turns there."""
    ahead = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    moved = warp(centres)
    heading = warp(centres + ahead) - moved
    return moved, np.arctan2(heading[:, 1], heading[:, 0])
