"""Attention over a grid of tokens whose logits are offset by rows and columns apart.

What SAM's image encoder does in its global blocks, where the offsets of all pairs of 4096 tokens
would take 0.8 GB: here they are added to the logits of a block of queries and keys while these lie
in the cache. PyTorch's attention with the offsets written out is the reference, and what a GPU
runs; this is the CPU's version, in Numba with BLAS for the products.

Bytes moved: H x P x d x 4 of queries and results once, of keys and values once for each block of
queries. Work: 2 H x P² x d multiply-adds.
"""

import numpy as np

from alps.kernels.base.aligned import aligned
from alps.kernels.base.blas import one_blas_thread
from alps.kernels.base.compiled import njit
from alps.kernels.base.math import FAST, online_softmax
from alps.kernels.base.threads import spread

# Logits of a block, 128 KB, lie in a core's second-level cache beside what makes them.
QUERIES = 64
KEYS = 512


def grid_attention(
    query: np.ndarray,
    key: np.ndarray,
    value: np.ndarray,
    by_row: np.ndarray,
    by_column: np.ndarray,
) -> np.ndarray:
    """Attend head by head: softmax(query · key / √d + offsets) · value.

    Args:
        query: (H, P, d) float32, key and value likewise, P tokens of a grid row by row.
        by_row: (H, P, h) float32, offset of a query's logit for keys of each row of the grid.
        by_column: (H, P, w) float32, likewise of each column; h x w = P.

    Returns:
        (H, P, d) float32.
    """
    heads, pixels, width = query.shape
    arrays = [np.ascontiguousarray(a, np.float32) for a in (query, key, value, by_row, by_column)]
    out = np.empty((heads, pixels, width), np.float32)
    blocks = -(-pixels // QUERIES)
    columns = by_column.shape[2]
    keys = max(1, KEYS // columns) * columns  # whole rows of the grid

    def some(first: int, last: int) -> None:
        for item in range(first, last):
            head, block = divmod(item, blocks)
            start, stop = block * QUERIES, min(pixels, (block + 1) * QUERIES)
            q, k, v, rows, cols = (array[head] for array in arrays)
            _attend(
                q[start:stop], k, v, rows[start:stop], cols[start:stop], keys, out[head, start:stop]
            )

    with one_blas_thread():
        spread(some, heads * blocks, grain=8)
    return out


@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def _attend(
    query: np.ndarray,
    key: np.ndarray,
    value: np.ndarray,
    by_row: np.ndarray,
    by_column: np.ndarray,
    at_once: int,
    out: np.ndarray,
) -> None:
    """A block of queries (q, d) of one head, keys ``at_once`` at a time, with an online softmax."""
    count, width = query.shape
    pixels, columns = len(key), by_column.shape[1]
    scaled = aligned(count, width)
    scale = np.float32(1.0) / np.sqrt(np.float32(width))
    for i in range(count):
        for c in range(width):
            scaled[i, c] = query[i, c] * scale
            out[i, c] = 0
    logits, summed = aligned(count, at_once), aligned(count, width)
    top = np.full(count, -np.inf, np.float32)
    total = np.zeros(count, np.float32)
    for start in range(0, pixels, at_once):
        stop = min(pixels, start + at_once)
        if stop - start < at_once:
            logits = aligned(count, stop - start)
        np.dot(scaled, key[start:stop].T, logits)
        for i in range(count):
            offsets = by_column[i]
            for row in range((stop - start) // columns):
                part = logits[i, row * columns : (row + 1) * columns]
                of_row = by_row[i, start // columns + row]
                for c in range(columns):
                    part[c] += of_row + offsets[c]
        online_softmax(logits, top, total, out)
        np.dot(logits, value[start:stop], summed)
        for i in range(count):
            for c in range(width):
                out[i, c] += summed[i, c]
    for i in range(count):
        inverse = np.float32(1.0) / total[i]
        for c in range(width):
            out[i, c] *= inverse
