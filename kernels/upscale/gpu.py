"""Masks from low-resolution logits on a GPU: every pixel is computed, and kept as one bit.

Logits are few and stay in the caches; pixels of a warp lie side by side and look at the same ones.

Bytes moved: M x a x b x 4 read, M x H x W / 8 of bits written, those of masks that stay read
twice, R x 4 of run lengths written and brought to the host.
"""

from typing import Any

import numpy as np

from alps.kernels.base.gpu import on_gpu
from alps.kernels.base.numba_cuda import cuda
from alps.kernels.masks.gpu import (
    WORD,
    empty_bits,
    grid_of,
    masks_at_once,
    runs_of_bits,
)
from alps.kernels.masks.runs import Runs
from alps.kernels.upscale.rules import Cuts, stable_of
from alps.kernels.upscale.taps import Taps


def cut_masks(
    logits: Any, rows: Taps, columns: Taps, cuts: Cuts, min_stability: float
) -> tuple[np.ndarray, np.ndarray, Runs]:
    """Which masks of logits (M, a, b) on the GPU are kept (m,), their stability (m,) and runs."""
    height, width = len(rows.first), len(columns.first)
    count = logits.shape[0]
    taps = [on_gpu(a) for a in (rows.first, rows.weights, columns.first, columns.weights)]
    parts, kept, stability = [], [], []
    some = masks_at_once(height, width)
    for first in range(0, count, some):
        last = min(count, first + some)
        bits = empty_bits(last - first, height, width)
        counts = on_gpu(np.zeros((2, last - first), np.int32))  # above the high cut, above the low
        _cut[grid_of(bits)](logits[first:last], *taps, cuts.low, cuts.mask, cuts.high, bits, counts)
        high, low = counts.copy_to_host()
        stable, score = stable_of(high, low, min_stability)
        parts.append(runs_of_bits(bits, height, stable))
        kept.append(first + stable)
        stability.append(score)
    return (
        np.concatenate([np.zeros(0, np.int64), *kept]),
        np.concatenate([np.zeros(0, np.float32), *stability]),
        Runs.join(parts, (height, width)),
    )


@cuda.jit
def _cut(
    logits: Any,
    row_first: Any,
    row_weights: Any,
    column_first: Any,
    column_weights: Any,
    low_cut: np.float32,
    cut: np.float32,
    high_cut: np.float32,
    bits: Any,
    above: Any,
) -> None:
    """Bits (M, words, W) of the pixels above the cut, and how many are above high and low; a
    thread a word.
    """
    thread = cuda.threadIdx.x
    column, word, mask = cuda.grid(1), cuda.blockIdx.y, cuda.blockIdx.z
    height, width = row_first.size, column_first.size
    of_block = cuda.shared.array(2, np.int32)
    if thread < 2:
        of_block[thread] = 0
    cuda.syncthreads()
    if column < width:
        packed, high, low = 0, 0, 0
        begin = column_first[column]
        for bit in range(min(WORD, height - word * WORD)):
            row = word * WORD + bit
            value: Any = np.float32(0)
            for i in range(row_weights.shape[1]):
                # Of a single logit the second has the weight 0, and no place.
                y = min(row_first[row] + i, logits.shape[1] - 1)
                across = np.float32(0)
                for j in range(column_weights.shape[1]):
                    x = min(begin + j, logits.shape[2] - 1)
                    across += column_weights[column, j] * logits[mask, y, x]
                value += row_weights[row, i] * across
            high += value > high_cut
            low += value > low_cut
            if value > cut:
                packed |= 1 << bit
        bits[mask, word, column] = packed
        if low > 0:
            cuda.atomic.add(of_block, 0, high)
            cuda.atomic.add(of_block, 1, low)
    cuda.syncthreads()
    if thread < 2 and of_block[thread] > 0:
        cuda.atomic.add(above, (thread, mask), of_block[thread])
