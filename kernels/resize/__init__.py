"""Bilinear resize of 8-bit images, to the bit what Pillow gives."""

from typing import Any

import numpy as np

from alps.kernels.resize import cpu
from alps.kernels.resize.reference import reference_resize
from alps.kernels.resize.rules import check

__all__ = ["reference_resize", "resize"]


def resize(image: Any, height: int, width: int) -> np.ndarray:
    """Resize an image as ``PIL.Image.resize`` does with its bilinear filter.

    Smaller, that is an average of all pixels whose tent reaches a new one. One axis after the
    other, in integers, rounded to bytes between them; which is the first ``rules.rows_first`` says.

    Args:
        image: (H, W, C) uint8, NumPy, from 1 pixel on.
        height: new rows, at least 1.
        width: new columns, at least 1.

    Returns (height, width, C) uint8, C-ordered. On a GPU ``alps.kernels.resize.gpu.resize`` writes
    where it is told to.

    Raises:
        ValueError: the image is none, or has no pixels, or would have none.
    """
    check(image, height, width)
    return cpu.resize(np.ascontiguousarray(image), height, width)
