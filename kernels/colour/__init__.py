"""Mean and standard deviation of the colours under each mask, straight from run lengths.

Colours are whole numbers and are summed as such: no digit is lost however large a mask is, and the
order in which threads of a GPU add does not show. ``gpu`` has it for masks that stay there.

Bytes moved: C x H x W x 2 for turning, read and written; R x 4 (run lengths); for each mask its
pixels x C x 2; M x C x 8 out.
"""

import numpy as np

from alps.kernels.colour import cpu
from alps.kernels.colour.reference import reference_pool_colours
from alps.kernels.colour.rules import LAB_UNIT, lab_of, lab_table, moments_of
from alps.kernels.masks.runs import Runs

__all__ = [
    "LAB_UNIT",
    "lab_of",
    "lab_table",
    "moments_of",
    "pool_colours",
    "reference_pool_colours",
]


def pool_colours(pixels: np.ndarray, runs: Runs) -> np.ndarray:
    """Return the mean and the standard deviation of each channel over each mask.

    Args:
        pixels: (H, W, C) int16.
        runs: M masks of (H, W).

    Returns (M, 2 C) float32, NumPy: C means, then C standard deviations (of the population, so a
    mask of one pixel has 0), in the units of ``pixels``.

    Raises:
        ValueError: a mask has no pixel, its runs do not add up, or the sizes differ.
    """
    if tuple(pixels.shape[:2]) != runs.size or pixels.dtype != np.int16:
        raise ValueError(
            f"pixels must be int16 of {runs.size}, not {pixels.dtype} of {tuple(pixels.shape[:2])}"
        )
    return moments_of(*cpu.colour_sums(pixels, runs))
