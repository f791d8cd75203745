"""Masks of the sizes and overlaps that those of a tile have."""

import numpy as np


def discs(rng, count, size, radii):
    """Masks (count, H, W) bool of discs, anywhere, with a radius between the two ``radii``."""
    y, x = np.mgrid[: size[0], : size[1]]
    centres, radius = rng.random((count, 2)) * size, rng.uniform(*radii, count)
    return np.stack(
        [(y - cy) ** 2 + (x - cx) ** 2 < r**2 for (cy, cx), r in zip(centres, radius, strict=True)]
    )
