"""Masks as bits for the kernels of a GPU, in Numba's simulator where there is none."""

import numpy as np
from numba import cuda

from alps.kernels.masks.words import packed


def bits_of(masks):
    """Masks (M, H, W) bool -> (1, M, words, W) uint32, all of one tile."""
    return cuda.to_device(np.stack([packed(mask) for mask in masks])[None])


def sizes_of(*tiles):
    """Heights and widths of tiles."""
    return cuda.to_device(np.array(tiles, np.int32).reshape(-1, 2))


def zeros(shape, dtype):
    return cuda.to_device(np.zeros(shape, dtype))
