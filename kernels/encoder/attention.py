"""Attention over a grid of tokens, in windows, whose logits are offset by rows and columns apart.

What SAM's image encoder does between two linear layers: a block's tokens come as the first leaves
them, queries, keys and values side by side, and go to the second as it wants them. Windows are
taken out of the grid and put back here, and offsets are added to the logits of a block of queries
and keys while these lie in the cache: those of all pairs of 4096 tokens would take 0.8 GB.
``attend_with_positions`` in PyTorch is the reference; this is the CPU's version, in Numba with BLAS
for the products.

Bytes moved: P x 3 C x 4 of a grid's queries, keys and values read once, and keys and values again
for each 1024 queries; P x C x 4 written. Work: 2 P x W x C multiply-adds for windows of W tokens.
"""

import numpy as np

from alps.kernels.base.aligned import aligned
from alps.kernels.base.blas import one_blas_thread
from alps.kernels.base.compiled import njit
from alps.kernels.base.math import FAST, online_softmax
from alps.kernels.base.threads import spread

# Logits of a block: products of so few rows and columns OpenBLAS computes without packing them
# first, where it has such kernels (AVX-512), at up to 1.6 times the speed.
QUERIES = 64
KEYS = 192
PIECE = 1024  # queries for which keys are laid out once, unless a window has fewer


def grid_attention(
    qkv: np.ndarray,
    bias: np.ndarray,
    by_row: np.ndarray,
    by_column: np.ndarray,
    window: tuple[int, int],
) -> np.ndarray:
    """Attend head by head in each window: softmax(query · key / √d + offsets) · value.

    Args:
        qkv: (B, h, w, 3, H, d) float32, C order: query, key and value of H heads, but for ``bias``.
        bias: (3, H, d) float32. Where windows reach over the grid's end, tokens are this alone: a
            linear layer's answer to zeros.
        by_row: (2 s - 1, d) float32. A query's product with row s - 1 + i offsets its logit for
            keys i rows above it; the query is not divided by √d there (arXiv 2112.01526).
        by_column: (2 t - 1, d) float32, likewise of keys to its left.
        window: (s, t), rows and columns of each; the first begins at the first token.

    Returns:
        (B, h, w, H, d) float32.
    """
    batch, height, width, _, heads, channels = qkv.shape
    rows, columns = window
    across, down = -(-width // columns), -(-height // rows)
    pieces = -(-rows * columns // PIECE)
    out = np.empty((batch, height, width, heads, channels), np.float32)
    # A query's offsets lie in the order of keys: from the farthest below it to the farthest above.
    tables = [np.ascontiguousarray(table[::-1].T, np.float32) for table in (by_row, by_column)]
    bias = np.ascontiguousarray(bias, np.float32)

    def some(first: int, last: int) -> None:
        for item in range(first, last):
            item, piece = divmod(item, pieces)
            item, head = divmod(item, heads)
            image, place = divmod(item, across * down)
            top, left = place // across * rows, place % across * columns
            _attend(
                qkv[image], bias, tables[0], tables[1], top, left, head, piece * PIECE, out[image]
            )

    with one_blas_thread():
        spread(some, batch * across * down * heads * pieces)
    return out


@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def _attend(
    qkv: np.ndarray,
    bias: np.ndarray,
    by_row: np.ndarray,
    by_column: np.ndarray,
    top: int,
    left: int,
    head: int,
    first: int,
    out: np.ndarray,
) -> None:
    """Up to PIECE queries of one head, from ``first`` on of those of a window that are tokens."""
    height, width = qkv.shape[:2]
    channels = qkv.shape[4]
    rows, columns = (by_row.shape[1] + 1) // 2, (by_column.shape[1] + 1) // 2
    own_rows, own_columns = min(rows, height - top), min(columns, width - left)
    last = min(own_rows * own_columns, first + PIECE)
    if first >= last:
        return
    at_once = max(1, KEYS // columns)  # rows of keys
    key, value = aligned(rows * columns, channels), aligned(rows * columns, channels)
    _lay_out(qkv, bias, top, left, head, key, value, columns)
    scale = np.float32(1.0) / np.sqrt(np.float32(channels))
    # Queries' logits lie side by side, so that all that is done to them is done to several at once.
    count = min(QUERIES, last - first)
    query, query_columns = aligned(count, channels), aligned(channels, count)
    found, summed = aligned(count, channels), aligned(count, channels)
    of_rows, of_columns = aligned(rows, count), aligned(columns, count)
    logits = aligned(at_once * columns, count)
    for start in range(first, last, QUERIES):
        if last - start < count:
            count = last - start
            query, query_columns = aligned(count, channels), aligned(channels, count)
            found, summed = aligned(count, channels), aligned(count, channels)
            of_rows, of_columns = aligned(rows, count), aligned(columns, count)
            logits = aligned(at_once * columns, count)
        for i in range(count):
            y, x = (start + i) // own_columns, (start + i) % own_columns
            source = qkv[top + y, left + x, 0, head]
            for c in range(channels):
                query[i, c] = source[c] + bias[0, head, c]
                query_columns[c, i] = query[i, c] * scale
        by_rows, by_columns = np.dot(query, by_row), np.dot(query, by_column)
        for i in range(count):
            y, x = (start + i) // own_columns, (start + i) % own_columns
            for row in range(rows):
                of_rows[row, i] = by_rows[i, rows - 1 - y + row]
            for column in range(columns):
                of_columns[column, i] = by_columns[i, columns - 1 - x + column]
        highest = np.full(count, -np.inf, np.float32)
        total = np.zeros(count, np.float32)
        found[:] = 0
        for above in range(0, rows, at_once):
            below = min(rows, above + at_once)
            some = logits[: (below - above) * columns]
            np.dot(key[above * columns : below * columns], query_columns, some)
            for row in range(above, below):
                for column in range(columns):
                    _add(some[(row - above) * columns + column], of_rows[row], of_columns[column])
            online_softmax(some, highest, total, found)
            np.dot(some.T, value[above * columns : below * columns], summed)
            for i in range(count):
                for c in range(channels):
                    found[i, c] += summed[i, c]
        for i in range(count):
            y, x = (start + i) // own_columns, (start + i) % own_columns
            inverse = np.float32(1.0) / total[i]
            target = out[top + y, left + x, head]
            for c in range(channels):
                target[c] = found[i, c] * inverse


@njit(nogil=True, forceinline=True, fastmath=FAST, error_model="numpy")
def _add(logits: np.ndarray, of_row: np.ndarray, of_column: np.ndarray) -> None:
    for i in range(len(logits)):
        logits[i] += of_row[i] + of_column[i]


@njit(nogil=True, cache=True, error_model="numpy")
def _lay_out(
    qkv: np.ndarray,
    bias: np.ndarray,
    top: int,
    left: int,
    head: int,
    key: np.ndarray,
    value: np.ndarray,
    columns: int,
) -> None:
    """Fill keys and values (tokens, d) of a window, with the bias."""
    height, width = qkv.shape[:2]
    channels = value.shape[1]
    for token in range(len(value)):
        y, x = top + token // columns, left + token % columns
        key[token], value[token] = bias[1, head], bias[2, head]
        if y < height and x < width:
            for c in range(channels):
                key[token, c] += qkv[y, x, 1, head, c]
                value[token, c] += qkv[y, x, 2, head, c]
