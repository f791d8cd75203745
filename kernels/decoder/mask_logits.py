"""Image tokens to mask logits: SAM's two transposed convolutions and the hypernetwork product.

Kernels of 2 x 2 with stride 2 do not overlap, so each image token makes its own 4 x 4 patch of the
mask, by products of matrices. Only prompts of which a mask is wanted are given, and only their
wanted masks. The reference is ``MaskDecoder.masks``, in PyTorch; here is the CPU's version, in
Numba with BLAS for the products.

Bytes moved: P x C x 4 read a prompt, and 3 P x C x 4 that all share where features of the image
skip the decoder; 16 P x 4 written a mask; in between under 1 MB a block of pixels, in cache. Work:
P x (C² + C² / 2) multiply-adds a prompt, 2 P C more a mask.
"""

from dataclasses import dataclass
from typing import Generic

import numpy as np

from alps.kernels.base.blas import one_blas_thread
from alps.kernels.base.compiled import njit
from alps.kernels.base.math import FAST, gelu
from alps.kernels.base.threads import spread
from alps.kernels.decoder.two_way import Array

# Image tokens whose patches are alive at once in a thread: their last layer takes 256 KB.
BLOCK = 128


@dataclass(frozen=True)
class UpscalingWeights(Generic[Array]):
    """Two transposed convolutions of 2 x 2, stride 2, as matrices; float32, C order.

    Columns hold the four places of a cell, (row, column) = (0, 0), (0, 1), (1, 0), (1, 1). A bias
    is one for all cells or, where features of the image skip the decoder, a row for each.
    """

    first: Array  # (C, 4 x C1)
    first_bias: Array  # (4 x C1,) or (P, 4 x C1)
    norm_weight: Array  # (C1,)
    norm_bias: Array  # (C1,)
    norm_epsilon: float
    second: Array  # (C1, 4 x C2)
    second_bias: Array  # (4 x C2,) or (4 P, 4 x C2), the four places of a token one after the other


def mask_logits(
    image: np.ndarray,
    prompt: np.ndarray,
    hyper: np.ndarray,
    weights: UpscalingWeights[np.ndarray],
    grid: tuple[int, int],
) -> np.ndarray:
    """Upscale image tokens fourfold and multiply them with masks' hypernetwork vectors.

    Args:
        image: (N, P, C) float32
        prompt: (M,) int64 ascending, whose image each mask is made from.
        hyper: (M, C2) float32
        weights: of the two convolutions.
        grid: (h, w), h x w = P.

    Returns:
        logits (M, 4h, 4w) float32.
    """
    height, width = grid
    logits = np.empty((len(prompt), 4 * height, 4 * width), np.float32)
    present, first_mask = np.unique(prompt, return_index=True)
    bounds = np.append(first_mask, len(prompt))
    first_bias, second_bias = np.atleast_2d(weights.first_bias), np.atleast_2d(weights.second_bias)

    def some(first: int, last: int) -> None:
        for i in range(first, last):
            masks = slice(bounds[i], bounds[i + 1])
            _mask_logits(
                image[present[i]],
                hyper[masks],
                width,
                weights.first,
                first_bias,
                weights.norm_weight,
                weights.norm_bias,
                np.float32(weights.norm_epsilon),
                weights.second,
                second_bias,
                logits[masks],
            )

    with one_blas_thread():
        spread(some, len(present))
    return logits


@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def _mask_logits(
    image: np.ndarray,
    hyper: np.ndarray,
    width: int,
    first: np.ndarray,
    first_bias: np.ndarray,
    norm_weight: np.ndarray,
    norm_bias: np.ndarray,
    epsilon: np.float32,
    second: np.ndarray,
    second_bias: np.ndarray,
    out: np.ndarray,
) -> None:
    """One prompt: image (P, C), hyper (m, C2) -> out (m, 4h, 4w), some rows of the grid a time.

    Biases have a row, or one for each cell.
    """
    pixels = len(image)
    c1, c2 = len(norm_weight), hyper.shape[1]
    masks = len(hyper)
    per_block = max(1, BLOCK // width) * width
    for start in range(0, pixels, per_block):
        stop = min(pixels, start + per_block)
        count = stop - start
        fine = np.dot(image[start:stop], first).reshape(4 * count, c1)
        for i in range(4 * count):
            bias = first_bias[start + i // 4 if len(first_bias) > 1 else 0]
            _norm_and_gelu(
                fine[i],
                bias[(i % 4) * c1 : (i % 4 + 1) * c1],
                norm_weight,
                norm_bias,
                epsilon,
            )
        finer = np.dot(fine, second)  # (4 x count, 4 x C2)
        for i in range(4 * count):
            row = finer[i]
            own = second_bias[4 * start + i if len(second_bias) > 1 else 0]
            for c in range(4 * c2):
                row[c] = gelu(row[c] + own[c])
        products = np.dot(finer.reshape(16 * count, c2), hyper.T)  # (16 x count, m)
        for i in range(count):
            y, x = 4 * ((start + i) // width), 4 * ((start + i) % width)
            for place in range(16):
                # Two bits of row and column from the first convolution, two from the second.
                dy = 2 * (place // 8) + (place % 4) // 2
                dx = 2 * (place // 4 % 2) + place % 2
                for m in range(masks):
                    out[m, y + dy, x + dx] = products[16 * i + place, m]


@njit(nogil=True, forceinline=True, fastmath=FAST, error_model="numpy")
def _norm_and_gelu(
    values: np.ndarray, bias: np.ndarray, weight: np.ndarray, shift: np.ndarray, epsilon: np.float32
) -> None:
    """In place on a vector: add the bias, layer norm, GELU."""
    channels = len(values)
    mean = np.float32(0.0)
    for c in range(channels):
        values[c] += bias[c]
        mean += values[c]
    mean /= np.float32(channels)
    variance = np.float32(0.0)
    for c in range(channels):
        difference = values[c] - mean
        variance += difference * difference
    scale = np.float32(1.0) / np.sqrt(variance / np.float32(channels) + epsilon)
    for c in range(channels):
        values[c] = gelu((values[c] - mean) * scale * weight[c] + shift[c])
