"""Image tokens to mask logits: SAM's two transposed convolutions and the hypernetwork product.

Kernels of 2 x 2 with stride 2 do not overlap, so each image token makes its own 4 x 4 patch of the
mask, by products of matrices. Only prompts of which a mask is wanted are given, and only their
wanted masks. The reference is ``MaskDecoder.masks``, in PyTorch; here is the CPU's version, in
Numba with BLAS for the products.

A prompt's image tokens are not read, nor need they exist: the transformer made them of the image
that all prompts share and of K rows, by sums and norms (``two_way.Marks``), and the convolution,
linear as it is, meets these instead, the image once for all prompts.

Bytes moved: P x K x 4 read a prompt, P x C x 4 that all share, and 3 P x C x 4 more where features
of the image skip the decoder; 16 P x 4 written a mask; in between 0.3 MB a block of pixels, in
cache. Work: P x (K C + C² / 2) multiply-adds a prompt, 2 P C more a mask; K is 101 in the official
models, C 256.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic

import numpy as np

from alps.kernels.base.aligned import aligned
from alps.kernels.base.blas import one_blas_thread
from alps.kernels.base.compiled import njit
from alps.kernels.base.math import FAST, add_bias_and_gelu, gelu
from alps.kernels.base.threads import spread
from alps.kernels.decoder.two_way import Array, Marks

# Values behind the first convolution alive at once in a thread: 16 pixels of 256 are 16 KB, of the
# second twice as much, which a core's first-level cache holds: a fifth faster than 32 pixels. As in
# ``two_way``, OpenBLAS does not pack products of so few.
BLOCK = 1 << 12


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


@dataclass(frozen=True)
class UpscaledImages:
    """Image tokens of U of N prompts behind the first convolution, but for its bias.

    (product of all norms' scales) x ``shared`` + Σ_k factor_k row_k, with K factors a pixel: 1,
    and for each layer, the last one first, the product s of its norm's scale and of later ones, s
    times its norm's mean, and s times its weights.

    The C1 channels of a place have a mean of 0, in ``shared`` and in every row: the layer norm
    behind the convolution takes it away, and need not look for it pixel by pixel.
    """

    shared: np.ndarray  # (P, 4 x C1) float32, of the image before it met a prompt
    rows: np.ndarray  # (U, K, 4 x C1) float32
    marks: Sequence[Marks]  # of N prompts, by layer


def mask_logits(
    images: UpscaledImages,
    prompt: np.ndarray,
    hyper: np.ndarray,
    weights: UpscalingWeights[np.ndarray],
    grid: tuple[int, int],
) -> np.ndarray:
    """Upscale image tokens fourfold and multiply them with masks' hypernetwork vectors.

    Args:
        images: of U prompts, those that masks are made from.
        prompt: (M,) int64 ascending, of N, whose image each mask is made from.
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
    by_place = first_bias.reshape(len(first_bias), 4, -1)
    first_bias = (by_place - by_place.mean(2, keepdims=True)).reshape(first_bias.shape)

    def some(first: int, last: int) -> None:
        for i in range(first, last):
            masks = slice(bounds[i], bounds[i + 1])
            _mask_logits(
                images.shared,
                images.rows[i],
                tuple(layer.weights[present[i]] for layer in images.marks),
                tuple(layer.means[present[i]] for layer in images.marks),
                tuple(layer.scales[present[i]] for layer in images.marks),
                hyper[masks],
                width,
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
    shared: np.ndarray,
    rows: np.ndarray,
    weights: tuple[np.ndarray, ...],
    means: tuple[np.ndarray, ...],
    scales: tuple[np.ndarray, ...],
    hyper: np.ndarray,
    width: int,
    first_bias: np.ndarray,
    norm_weight: np.ndarray,
    norm_bias: np.ndarray,
    epsilon: np.float32,
    second: np.ndarray,
    second_bias: np.ndarray,
    out: np.ndarray,
) -> None:
    """One prompt -> out (m, 4h, 4w), a block of pixels a time.

    Biases have a row, or one for each cell.
    """
    pixels = len(shared)
    c1, c2 = len(norm_weight), hyper.shape[1]
    masks = len(hyper)
    at_once = max(1, BLOCK // (4 * c1))
    # Made once: what is freed and asked for again may have to be paged in again.
    factors, scale, fine, finer, products = _room(at_once, len(rows), c1, c2, masks)
    for start in range(0, pixels, at_once):
        count = min(pixels, start + at_once) - start
        if count < at_once:
            factors, scale, fine, finer, products = _room(count, len(rows), c1, c2, masks)
        _factors(weights, means, scales, start, scale, factors)
        np.dot(factors.T, rows, fine.reshape(count, 4 * c1))
        for i in range(4 * count):
            cell, place = start + i // 4, i % 4 * c1
            bias = first_bias[cell if len(first_bias) > 1 else 0]
            _norm_and_gelu(
                fine[i],
                shared[cell, place : place + c1],
                scale[i // 4],
                bias[place : place + c1],
                norm_weight,
                norm_bias,
                epsilon,
            )
        np.dot(fine, second, finer)
        for i in range(4 * count):
            own = second_bias[4 * start + i if len(second_bias) > 1 else 0]
            add_bias_and_gelu(finer[i], own)
        np.dot(finer.reshape(16 * count, c2), hyper.T, products)
        for i in range(count):
            y, x = 4 * ((start + i) // width), 4 * ((start + i) % width)
            for place in range(16):
                # Two bits of row and column from the first convolution, two from the second.
                dy = 2 * (place // 8) + (place % 4) // 2
                dx = 2 * (place // 4 % 2) + place % 2
                for m in range(masks):
                    out[m, y + dy, x + dx] = products[16 * i + place, m]


@njit(nogil=True, error_model="numpy")
def _room(
    count: int, rows: int, c1: int, c2: int, masks: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Arrays for a block of so many pixels, float32: factors, scale, fine, finer, products."""
    return (
        aligned(rows, count),
        np.empty(count, np.float32),
        aligned(4 * count, c1),
        aligned(4 * count, 4 * c2),
        aligned(16 * count, masks),
    )


@njit(nogil=True, forceinline=True, fastmath=FAST, error_model="numpy")
def _factors(
    weights: tuple[np.ndarray, ...],
    means: tuple[np.ndarray, ...],
    scales: tuple[np.ndarray, ...],
    start: int,
    scale: np.ndarray,
    factors: np.ndarray,
) -> None:
    """Fill ``factors`` (K, n) of pixels from ``start`` on, and the product of scales (n,)."""
    count = len(scale)
    scale[:] = 1
    factors[0, :] = 1
    k = 1
    for back in range(len(weights)):
        layer = len(weights) - 1 - back
        mean, own = means[layer][start : start + count], scales[layer][start : start + count]
        once, of_mean = factors[k], factors[k + 1]
        for i in range(count):
            scale[i] *= own[i]
            once[i] = scale[i]
            of_mean[i] = scale[i] * mean[i]
        k += 2
        for r in range(len(weights[layer])):
            weight, factor = weights[layer][r, start : start + count], factors[k]
            for i in range(count):
                factor[i] = weight[i] * scale[i]
            k += 1


@njit(nogil=True, forceinline=True, fastmath=FAST, error_model="numpy")
def _norm_and_gelu(
    values: np.ndarray,
    shared: np.ndarray,
    scale: np.float32,
    bias: np.ndarray,
    weight: np.ndarray,
    shift: np.ndarray,
    epsilon: np.float32,
) -> None:
    """In place on a vector: add what is shared, scaled, and the bias, layer norm, GELU.

    Their means are 0 already, so that of the norm is.
    """
    channels = len(values)
    variance = np.float32(0.0)
    for c in range(channels):
        value = values[c] + shared[c] * scale + bias[c]
        values[c] = value
        variance += value * value
    scale = np.float32(1.0) / np.sqrt(variance / np.float32(channels) + epsilon)
    for c in range(channels):
        values[c] = gelu(values[c] * scale * weight[c] + shift[c])
