"""The pixel side of SAM's two-way transformer: what each point does to 4096 image tokens.

A prompt has few tokens (T, 7 of them) and each head few channels, so a projection next to them
moves to their side: with R = heads x T rows a prompt, image tokens meet matrices of R rows only,
never a projection of their own width. ``alps.engine.sam.absorbed`` derives and prepares the rows;
its ``update_image`` is the reference, in PyTorch, and what a GPU runs. Here is the CPU's version,
in Numba with BLAS for the products.

Bytes moved: N x P x C x 4 read and as many written; all else of a block of pixels stays in cache.
Work: N x P x R x (d + 3 C) multiply-adds with shared queries of heads of d, else N x P x R x 4 C.
"""

from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from alps.kernels.base.blas import one_blas_thread
from alps.kernels.base.compiled import njit
from alps.kernels.base.math import FAST, exp, online_softmax
from alps.kernels.base.threads import spread

# Pixels whose intermediate values are alive at once in a thread: at C = 256 a block is 128 KB, and
# the handful of blocks in use stays within a core's second-level cache.
BLOCK = 128

Array = TypeVar("Array")  # of NumPy here, of PyTorch in the reference


@dataclass(frozen=True)
class ImageUpdate(Generic[Array]):
    """What N prompts of T tokens do to P image tokens of C channels; all float32, C order.

    The rows of a head stand together, R = heads x T.
    """

    tokens: int  # T: softmax runs over groups of so many rows
    # (N, R, C), scaled; times a pixel's query this is a logit. (N, R, d) where queries are shared:
    # the keys, which meet their head's part of the query only.
    logit_rows: Array
    logit_bias: Array  # (N, R)
    value_rows: Array  # (N, R, C), weighted by the softmax they add up to a pixel's update
    value_bias: Array  # (C,)
    norm_weight: Array  # (C,)
    norm_bias: Array  # (C,)
    norm_epsilon: float
    look_rows: Array  # (N, L, C), scaled; what tokens look for in the updated image


def update_image(
    image: np.ndarray,
    positions: np.ndarray,
    queries: np.ndarray | None,
    update: ImageUpdate[np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """Let image tokens attend to a prompt's tokens, and these to the image that results.

    Args:
        image: (1, P, C) or (N, P, C) float32, shared by all prompts or each its own; in the
            latter case it is overwritten with the result.
        positions: (P, C) float32, added where image tokens serve as queries or keys.
        queries: (heads x d, P) float32 shared queries; None where they are image + positions.
        update: rows of the prompts.

    Returns:
        image' (N, P, C) = layer norm of image + attention, and (N, L, C): for each row the mean
        of image' weighted by softmax over pixels of ``look_rows`` · (image' + positions).
    """
    prompts, pixels = len(update.logit_rows), positions.shape[0]
    looks, channels = update.look_rows.shape[1:]
    own = len(image) == prompts and queries is None
    out = image if own else np.empty((prompts, pixels, channels), np.float32)
    looked = np.empty((prompts, looks, channels), np.float32)
    shared = np.zeros((0, 0), np.float32) if queries is None else queries

    def some(first: int, last: int) -> None:
        for n in range(first, last):
            _update_image(
                image[n if len(image) > 1 else 0],
                positions,
                shared,
                update.tokens,
                update.logit_rows[n],
                update.logit_bias[n],
                update.value_rows[n],
                update.value_bias,
                update.norm_weight,
                update.norm_bias,
                np.float32(update.norm_epsilon),
                update.look_rows[n],
                out[n],
                looked[n],
            )

    with one_blas_thread():
        spread(some, prompts)
    return out, looked


@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def _update_image(
    image: np.ndarray,
    positions: np.ndarray,
    queries: np.ndarray,
    tokens: int,
    logit_rows: np.ndarray,
    logit_bias: np.ndarray,
    value_rows: np.ndarray,
    value_bias: np.ndarray,
    norm_weight: np.ndarray,
    norm_bias: np.ndarray,
    epsilon: np.float32,
    look_rows: np.ndarray,
    out: np.ndarray,
    looked: np.ndarray,
) -> None:
    pixels, channels = image.shape
    rows, looks = len(logit_rows), len(look_rows)
    logits = np.empty((rows, BLOCK), np.float32)
    interest = np.empty((looks, BLOCK), np.float32)
    placed = np.empty((BLOCK, channels), np.float32)
    updated = np.empty((BLOCK, channels), np.float32)
    summed = np.empty((looks, channels), np.float32)
    top = np.full(looks, -np.inf, np.float32)  # of each row's interest so far
    total = np.zeros(looks, np.float32)
    looked[:] = 0
    for start in range(0, pixels, BLOCK):
        stop = min(pixels, start + BLOCK)
        count = stop - start
        if count < BLOCK:
            logits = np.empty((rows, count), np.float32)
            interest = np.empty((looks, count), np.float32)
            placed = np.empty((count, channels), np.float32)
            updated = np.empty((count, channels), np.float32)
        source = image[start:stop]
        if len(queries):
            _logits_by_head(logit_rows, tokens, queries, start, logits)
        else:
            for i in range(count):
                for c in range(channels):
                    placed[i, c] = source[i, c] + positions[start + i, c]
            np.dot(logit_rows, placed.T, logits)
        _softmax_over_tokens(logits, logit_bias, tokens)
        np.dot(logits.T, value_rows, updated)
        for i in range(count):
            _add_and_norm(
                source[i],
                updated[i],
                value_bias,
                norm_weight,
                norm_bias,
                epsilon,
                positions[start + i],
                out[start + i],
                placed[i],
            )
        np.dot(look_rows, placed.T, interest)
        online_softmax(interest, top, total, looked)
        np.dot(interest, out[start:stop], summed)
        for r in range(looks):
            for c in range(channels):
                looked[r, c] += summed[r, c]
    for r in range(looks):
        scale = np.float32(1.0) / total[r]
        for c in range(channels):
            looked[r, c] *= scale


@njit(nogil=True, forceinline=True, fastmath=FAST, error_model="numpy")
def _logits_by_head(
    keys: np.ndarray, tokens: int, queries: np.ndarray, start: int, logits: np.ndarray
) -> None:
    """Each row's key (d,) times its head's queries: too thin a product for BLAS."""
    rows, count = logits.shape
    width = keys.shape[1]
    for r in range(rows):
        row = logits[r]
        row[:] = np.float32(0.0)
        first = r // tokens * width
        for c in range(0, width - 3, 4):  # four channels for each store
            a, b, d, e = keys[r, c], keys[r, c + 1], keys[r, c + 2], keys[r, c + 3]
            # Slices, so that no index can be negative: the check would keep loops from vectors.
            query_a = queries[first + c][start : start + count]
            query_b = queries[first + c + 1][start : start + count]
            query_d = queries[first + c + 2][start : start + count]
            query_e = queries[first + c + 3][start : start + count]
            for i in range(count):
                row[i] += a * query_a[i] + b * query_b[i] + d * query_d[i] + e * query_e[i]
        for c in range(width // 4 * 4, width):
            a, query_a = keys[r, c], queries[first + c][start : start + count]
            for i in range(count):
                row[i] += a * query_a[i]


@njit(nogil=True, forceinline=True, fastmath=FAST, error_model="numpy")
def _softmax_over_tokens(logits: np.ndarray, bias: np.ndarray, tokens: int) -> None:
    """In place, over each group of ``tokens`` rows, for every column."""
    rows, count = logits.shape
    top = np.empty(count, np.float32)
    total = np.empty(count, np.float32)
    for first in range(0, rows, tokens):
        top[:] = np.float32(-3e38)
        for r in range(first, first + tokens):
            row, b = logits[r], bias[r]
            for i in range(count):
                value = row[i] + b
                row[i] = value
                top[i] = max(top[i], value)
        total[:] = 0
        for r in range(first, first + tokens):
            row = logits[r]
            for i in range(count):
                e = exp(row[i] - top[i])
                row[i] = e
                total[i] += e
        for i in range(count):
            total[i] = np.float32(1.0) / total[i]
        for r in range(first, first + tokens):
            row = logits[r]
            for i in range(count):
                row[i] *= total[i]


@njit(nogil=True, forceinline=True, fastmath=FAST, error_model="numpy")
def _add_and_norm(
    source: np.ndarray,
    update: np.ndarray,
    bias: np.ndarray,
    weight: np.ndarray,
    shift: np.ndarray,
    epsilon: np.float32,
    position: np.ndarray,
    out: np.ndarray,
    placed: np.ndarray,
) -> None:
    """out = layer norm of source + update + bias, placed = out + position; vectors of C."""
    channels = len(source)
    mean = np.float32(0.0)
    for c in range(channels):
        value = source[c] + update[c] + bias[c]
        out[c] = value
        mean += value
    mean /= np.float32(channels)
    variance = np.float32(0.0)
    for c in range(channels):
        difference = out[c] - mean
        variance += difference * difference
    scale = np.float32(1.0) / np.sqrt(variance / np.float32(channels) + epsilon)
    for c in range(channels):
        value = (out[c] - mean) * scale * weight[c] + shift[c]
        out[c] = value
        placed[c] = value + position[c]
