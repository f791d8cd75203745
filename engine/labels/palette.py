"""Colours for classes: each as far from all before it as can be."""

from functools import cache

import numpy as np

from alps.kernels.colour import lab_of

STEP = 17  # of the grid of RGB that colours are taken from
DARKEST, LIGHTEST = 30, 90  # L*: what is darker or lighter is read as no data
STRONGEST = 85  # chroma: what is stronger glares, and hides how little its neighbours differ
# Differences of a* and b* count 4/5 of those of L*: the eye sees them less between strong colours,
# and some eyes hardly at all.
LIGHTNESS, CHROMA = 5, 4
UNITS = 128  # of lab_of
FEW = 256  # colours that are found at once; more are seldom asked for


def palette(classes: int) -> np.ndarray:
    """Return (classes, 3) uint8 RGB, the same for the same number, none near black or white.

    A class keeps its colour when more classes are added. The first 46 differ by ΔE76 > 20, the
    first 255 by > 10; after 2,729 they repeat.
    """
    colours = _colours(FEW if classes <= FEW else None)
    return colours[np.arange(classes) % len(colours)]


@cache
def _colours(most: int | None) -> np.ndarray:
    """Up to ``most`` colours of the grid, (N, 3) uint8, by farthest-point selection in CIELAB."""
    steps = np.arange(0, 256, STEP, dtype=np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    lab = lab_of(grid[None])[0].astype(np.int64)
    lightness, chroma = lab[:, 0], np.hypot(lab[:, 1], lab[:, 2])
    usable = (lightness >= DARKEST * UNITS) & (lightness <= LIGHTEST * UNITS)
    usable &= chroma <= STRONGEST * UNITS
    scale = np.array([LIGHTNESS, CHROMA, CHROMA])
    ends = lab[[0, -1]] * scale  # black and white, which no class has
    grid, lab = grid[usable], lab[usable] * scale
    count = len(grid) if most is None else most
    chosen = np.empty(count, np.int64)
    distance = ((lab[:, None] - ends) ** 2).sum(axis=2).min(axis=1)
    for index in range(count):
        chosen[index] = distance.argmax()
        distance = np.minimum(distance, ((lab - lab[chosen[index]]) ** 2).sum(axis=1))
    return grid[chosen]
