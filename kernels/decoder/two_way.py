"""The pixel side of SAM's two-way transformer: what each point does to 4096 image tokens.

A prompt has few tokens (T, 7 of them) and each head few channels, so a projection next to them
moves to their side: with R = heads x T rows a prompt, image tokens meet matrices of R rows only,
never a projection of their own width. ``alps.engine.sam.absorbed`` derives and prepares the rows;
its ``update_image`` is the reference, in PyTorch, and what a GPU runs. Here is the CPU's version,
in Numba with BLAS for the products.

Softmax over a head's tokens does not see a constant and adds up to 1, so all else is told against
each head's first token, which then needs no row: R' = heads x (T - 1) rows remain.

Bytes moved: N x P x C x 4 read and as many written where the image is kept, N x P x R' x 4 written
of weights; all else of a block of pixels stays in cache. Work: N x P x (R' x (d + C) + L x 2 C)
multiply-adds with shared queries of heads of d, else N x P x (R' x 2 C + L x 2 C).
"""

from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from alps.kernels.base.aligned import aligned
from alps.kernels.base.blas import one_blas_thread
from alps.kernels.base.compiled import njit
from alps.kernels.base.math import FAST, exp, online_softmax
from alps.kernels.base.threads import spread

# Values of image tokens alive at once in a thread: 64 pixels of 256 channels are 64 KB, and the
# handful of blocks in use stays within half a megabyte, what a core's second-level cache holds at
# least. Products of so few rows and columns OpenBLAS computes without packing them first, where it
# has such kernels (AVX-512): a quarter faster than those of 128 pixels.
BLOCK = 1 << 14

Array = TypeVar("Array")  # of NumPy here, of PyTorch in the reference


@dataclass(frozen=True)
class ImageUpdate(Generic[Array]):
    """What N prompts of T tokens do to P image tokens of C channels; all float32, C order.

    The rows of a head stand together, R = heads x T.
    """

    tokens: int  # T, 2 or more: softmax runs over groups of so many rows
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


@dataclass(frozen=True)
class Marks:
    """What an update did to the image tokens of N prompts, in fewer numbers than these have.

    A pixel's tokens became (image + Σ_r weight_r value_r + bias - mean) x scale x norm weight +
    norm bias.
    """

    weights: np.ndarray  # (N, R', P) float32, of each head's tokens but the first
    means: np.ndarray  # (N, P) float32
    scales: np.ndarray  # (N, P) float32
    value_rows: np.ndarray  # (N, R', C) float32, against each head's first
    value_bias: np.ndarray  # (N, C) float32, with what is told against


def update_image(
    image: np.ndarray,
    positions: np.ndarray,
    queries: np.ndarray | None,
    update: ImageUpdate[np.ndarray],
    *,
    keep: bool = True,
    room: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, Marks]:
    """Let image tokens attend to a prompt's tokens, and these to the image that results.

    Args:
        image: (1, P, C) or (N, P, C) float32, shared by all prompts or each its own.
        positions: (P, C) float32, added where image tokens serve as queries or keys.
        queries: (heads x d, P) float32 shared queries; None where they are image + positions.
        update: rows of the prompts.
        keep: whether image' is asked for; ``Marks`` tell what it takes to make it.
        room: (N, P, C) float32 that image' is written to, if it is; it is best where a line of
            the cache begins. None: a new one.

    Returns:
        image' (N, P, C) = layer norm of image + attention, or no pixels of it, (N, 0, C);
        (N, L, C): for each row the mean of image' weighted by softmax over pixels of ``look_rows``
        · (image' + positions); and what was done.
    """
    prompts, pixels = len(update.logit_rows), positions.shape[0]
    looks, channels = update.look_rows.shape[1:]
    kept = pixels if keep else 0
    if room is None or not keep:
        room = aligned(prompts * kept, channels).reshape(prompts, kept, channels)
    out = room
    looked = np.empty((prompts, looks, channels), np.float32)
    shared = np.zeros((0, 0), np.float32) if queries is None else queries
    logit_rows, _ = _against_first(update.logit_rows, update.tokens)
    logit_bias, _ = _against_first(update.logit_bias[..., None], update.tokens)
    value_rows, value_bias = _against_first(update.value_rows, update.tokens)
    value_bias += update.value_bias
    look_columns = np.ascontiguousarray(update.look_rows.transpose(0, 2, 1))
    marks = Marks(
        np.empty((prompts, logit_rows.shape[1], pixels), np.float32),
        np.empty((prompts, pixels), np.float32),
        np.empty((prompts, pixels), np.float32),
        value_rows,
        value_bias,
    )

    def some(first: int, last: int) -> None:
        for n in range(first, last):
            _update_image(
                image[n if len(image) > 1 else 0],
                positions,
                shared,
                update.tokens - 1,
                logit_rows[n],
                logit_bias[n, :, 0],
                value_rows[n],
                value_bias[n],
                update.norm_weight,
                update.norm_bias,
                np.float32(update.norm_epsilon),
                look_columns[n],
                out[n],
                looked[n],
                marks.weights[n],
                marks.means[n],
                marks.scales[n],
            )

    with one_blas_thread():
        spread(some, prompts)
    return out, looked, marks


def _against_first(rows: np.ndarray, tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """(N, heads x T, c) -> (N, heads x (T - 1), c), less each head's first, and the firsts' sum."""
    by_head = rows.reshape(len(rows), -1, tokens, rows.shape[-1])
    first = by_head[:, :, :1]
    others = (by_head[:, :, 1:] - first).reshape(len(rows), -1, rows.shape[-1])
    return others, first.sum((1, 2), dtype=np.float32)


@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def _update_image(
    image: np.ndarray,
    positions: np.ndarray,
    queries: np.ndarray,
    others: int,
    logit_rows: np.ndarray,
    logit_bias: np.ndarray,
    value_rows: np.ndarray,
    value_bias: np.ndarray,
    norm_weight: np.ndarray,
    norm_bias: np.ndarray,
    epsilon: np.float32,
    look_columns: np.ndarray,
    out: np.ndarray,
    looked: np.ndarray,
    weights: np.ndarray,
    means: np.ndarray,
    scales: np.ndarray,
) -> None:
    """One prompt; ``others`` tokens a head beside its first. ``out`` has no rows if not asked."""
    pixels, channels = image.shape
    rows, looks = len(logit_rows), look_columns.shape[1]
    at_once = max(1, BLOCK // channels)
    logits, interest = aligned(rows, at_once), aligned(at_once, looks)
    placed = aligned(at_once, channels)
    updated = aligned(0 if len(out) else at_once, channels)
    summed = aligned(looks, channels)
    top = np.full(looks, -np.inf, np.float32)  # of each row's interest so far
    total = np.zeros(looks, np.float32)
    looked[:] = 0
    for start in range(0, pixels, at_once):
        stop = min(pixels, start + at_once)
        count = stop - start
        if count < at_once:
            logits, interest = aligned(rows, count), aligned(count, looks)
            placed = aligned(count, channels)
            updated = aligned(0 if len(out) else count, channels)
        if len(out):
            updated = out[start:stop]
        source = image[start:stop]
        if len(queries):
            _logits_by_head(logit_rows, others, queries, start, logits)
        else:
            for i in range(count):
                for c in range(channels):
                    placed[i, c] = source[i, c] + positions[start + i, c]
            np.dot(logit_rows, placed.T, logits)
        _softmax_over_tokens(logits, logit_bias, others)
        for r in range(len(logits)):  # an assignment of slices compiles its error message too
            for i in range(count):
                weights[r, start + i] = logits[r, i]
        np.dot(logits.T, value_rows, updated)
        for i in range(count):
            means[start + i], scales[start + i] = _add_and_norm(
                source[i],
                updated[i],
                value_bias,
                norm_weight,
                norm_bias,
                epsilon,
                positions[start + i],
                placed[i],
            )
        np.dot(placed, look_columns, interest)
        online_softmax(interest, top, total, looked)
        np.dot(interest.T, updated, summed)
        for r in range(looks):
            for c in range(channels):
                looked[r, c] += summed[r, c]
    for r in range(looks):
        scale = np.float32(1.0) / total[r]
        for c in range(channels):
            looked[r, c] *= scale


@njit(nogil=True, forceinline=True, fastmath=FAST, error_model="numpy")
def _logits_by_head(
    keys: np.ndarray, others: int, queries: np.ndarray, start: int, logits: np.ndarray
) -> None:
    """Each row's key (d,) times its head's queries: too thin a product for BLAS."""
    rows, count = logits.shape
    width = keys.shape[1]
    for r in range(rows):
        row = logits[r]
        row[:] = np.float32(0.0)
        first = r // others * width
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
def _softmax_over_tokens(logits: np.ndarray, bias: np.ndarray, others: int) -> None:
    """In place, over each group of ``others`` rows and one more of zeros, for every column."""
    rows, count = logits.shape
    top = np.empty(count, np.float32)
    total = np.empty(count, np.float32)
    for first in range(0, rows, others):
        top[:] = 0
        for r in range(first, first + others):
            row, b = logits[r], bias[r]
            for i in range(count):
                value = row[i] + b
                row[i] = value
                top[i] = max(top[i], value)
        for i in range(count):
            total[i] = exp(-top[i])
        for r in range(first, first + others):
            row = logits[r]
            for i in range(count):
                e = exp(row[i] - top[i])
                row[i] = e
                total[i] += e
        for i in range(count):
            total[i] = np.float32(1.0) / total[i]
        for r in range(first, first + others):
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
    placed: np.ndarray,
) -> tuple[np.float32, np.float32]:
    """update = layer norm of source + update + bias, placed = update + position; vectors of C.

    Returns what was taken away, the mean, and what the rest was multiplied by.
    """
    channels = len(source)
    mean = np.float32(0.0)
    for c in range(channels):
        value = source[c] + update[c] + bias[c]
        update[c] = value
        mean += value
    mean /= np.float32(channels)
    variance = np.float32(0.0)
    for c in range(channels):
        difference = update[c] - mean
        variance += difference * difference
    scale = np.float32(1.0) / np.sqrt(variance / np.float32(channels) + epsilon)
    for c in range(channels):
        value = (update[c] - mean) * scale * weight[c] + shift[c]
        update[c] = value
        placed[c] = value + position[c]
    return mean, scale
