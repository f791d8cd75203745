"""Superpixels in NumPy: slow, plain, and what the compiled versions are held against."""

import numpy as np

from alps.kernels.superpixels.rules import (
    COLOUR_SHIFT,
    FAR,
    NOWHERE,
    PASSES,
    SHIFT,
    WEIGHT_BITS,
    Seeds,
    cells_of,
    first_regions,
    moved,
)


def reference_superpixels(
    pixels: np.ndarray,
    valid: np.ndarray,
    per_megapixel: float,
    origin: tuple[int, int] = (0, 0),
) -> np.ndarray:
    """The same in NumPy: all seeds for all pixels, of which those not asked are out of reach."""
    size = pixels.shape[:2]
    seeds = Seeds.of(size, per_megapixel, origin)
    regions = first_regions(valid, seeds)
    middles = np.zeros((seeds.rows * seeds.columns, 5), np.int64)
    places = np.moveaxis(np.indices(size), 0, -1)
    row_cell, column_cell = cells_of(seeds)
    seed_row, seed_column = np.divmod(np.arange(len(middles)), seeds.columns)
    for _ in range(PASSES):
        sums = np.zeros((len(middles), 6), np.int64)
        for region in range(len(middles)):
            own = regions == region
            found = np.concatenate([pixels[own], places[own]], axis=1).sum(0, dtype=np.int64)
            sums[region] = [*found, own.sum()]
        middles = moved(sums, middles)
        scaled = np.concatenate(
            [pixels.astype(np.int64) >> COLOUR_SHIFT, places << SHIFT], axis=-1
        )[:, :, None]
        squared = (scaled - middles) ** 2  # (H, W, seeds, 5)
        distance = (squared[..., :3].sum(-1) << WEIGHT_BITS) + seeds.weight * squared[..., 3:].sum(
            -1
        )
        far = np.abs(row_cell[:, None, None] - seed_row) > 1
        far = far | (np.abs(column_cell[None, :, None] - seed_column) > 1)
        distance[far] = FAR
        regions = np.where(valid, distance.argmin(-1), NOWHERE).astype(np.int32)
    return regions
