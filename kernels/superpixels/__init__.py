"""Superpixels: an image cut into compact regions of similar colour, along its edges.

SLIC (Achanta et al., "SLIC Superpixels Compared to State-of-the-Art Superpixel Methods", TPAMI
2012) with fixed neighbourhoods, as gSLICr has it (Ren et al., 2015): seeds lie on a grid, and a
pixel is asked about the nine seeds around its own cell of the grid, pass after pass. A region may
fall into pieces; nothing here joins them.

All sums and distances are of whole numbers, so a CPU with any number of threads and a GPU give the
same regions, and so does every run.

Bytes moved, each pass: H x W x (6 + 1 + 4) read and H x W x 4 written to assign, H x W x (6 + 4)
read to move the seeds, which stay in a core's cache.
"""

from typing import Any

import numpy as np

from alps.kernels.base.gpu import is_on_gpu
from alps.kernels.superpixels import cpu
from alps.kernels.superpixels.reference import reference_superpixels
from alps.kernels.superpixels.rules import (
    Seeds,
    cells_of,
    checked_valid,
    first_regions,
    reach,
    side_of,
)

__all__ = ["Seeds", "cells_of", "reach", "reference_superpixels", "side_of", "superpixels"]


def superpixels(
    pixels: Any,
    valid: np.ndarray | None,
    per_megapixel: float,
    origin: tuple[int, int] = (0, 0),
) -> np.ndarray:
    """Number of the region that each pixel belongs to.

    Pixels may be a block of a scene: those further than ``reach`` from the block's edges, its
    edges that are the scene's aside, get the region that the whole scene gives them.

    Args:
        pixels: (H, W, 3) int16, L*a*b* in 128ths of a unit; on a GPU: computed there.
        valid: (H, W) bool, pixels that belong to a region; None: all.
        per_megapixel: about how many regions a million pixels are cut into.
        origin: row and column of the scene in which the pixels begin.

    Returns (H, W) int32, NumPy: regions below ``Seeds.rows`` x ``Seeds.columns``, some of which
    may have no pixel; -1 where not valid.

    Raises:
        ValueError: the arrays are not of these shapes and dtypes.
    """
    valid = checked_valid(pixels, valid)
    seeds = Seeds.of(valid.shape, per_megapixel, origin)
    if valid.size and is_on_gpu(pixels):
        from alps.kernels.superpixels import gpu

        return gpu.refine(pixels, valid, seeds)
    regions = first_regions(valid, seeds)
    return cpu.refine(pixels, regions, seeds) if regions.size else regions
