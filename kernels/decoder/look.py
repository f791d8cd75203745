"""The first look of all prompts' tokens at an image that they share.

Few queries meet thousands of keys of few channels: here these meet all queries of a head at once,
a block of pixels at a time, whose weights never leave the cache. PyTorch's attention, written out
in ``alps.engine.sam.absorbed``, is the reference; this is the CPU's version, in Numba with BLAS for
the products.

Bytes moved: 2 H x P x d x 4 read, once for all queries. Work: 2 H x M x P x d multiply-adds.
"""

import numpy as np

from alps.kernels.base.aligned import aligned
from alps.kernels.base.blas import one_blas_thread
from alps.kernels.base.compiled import njit
from alps.kernels.base.math import FAST, online_softmax
from alps.kernels.base.threads import spread

PIXELS = 256  # of a block: what it makes of 64 queries are 64 KB


def look_at(queries: np.ndarray, keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Head by head, softmax(query · key) · value.

    Args:
        queries: (H, M, d) float32, scaled.
        keys: (H, P, d) float32, values likewise; C order.

    Returns:
        (H, M, d) float32.
    """
    heads, count, channels = queries.shape
    filled = -(-count // 16) * 16  # whole lines of a cache
    columns = np.zeros((heads, channels, filled), np.float32)
    columns[:, :, :count] = queries.transpose(0, 2, 1)
    found = np.empty((heads, filled, channels), np.float32)

    def some(first: int, last: int) -> None:
        for head in range(first, last):
            _look_at(columns[head], keys[head], values[head], found[head])

    with one_blas_thread():
        spread(some, heads)
    return found[:, :count]


@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def _look_at(queries: np.ndarray, keys: np.ndarray, values: np.ndarray, found: np.ndarray) -> None:
    """One head: queries (d, M), keys and values (P, d), found (M, d), filled."""
    count, channels = found.shape
    logits, summed = aligned(PIXELS, count), aligned(count, channels)
    highest = np.full(count, -np.inf, np.float32)
    total = np.zeros(count, np.float32)
    found[:] = 0
    for start in range(0, len(keys), PIXELS):
        stop = min(len(keys), start + PIXELS)
        some = logits[: stop - start]
        np.dot(keys[start:stop], queries, some)
        online_softmax(some, highest, total, found)
        np.dot(some.T, values[start:stop], summed)
        for i in range(count):
            for c in range(channels):
                found[i, c] += summed[i, c]
    for i in range(count):
        inverse = np.float32(1.0) / total[i]
        for c in range(channels):
            found[i, c] *= inverse
