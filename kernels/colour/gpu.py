"""Colours under masks on a GPU: a block a mask, whose threads share out its runs.

Bytes moved: as on a CPU; the image, turned, stays in the second-level cache for all masks.
"""

from typing import Any

import numpy as np

from alps.kernels.base.gpu import on_gpu
from alps.kernels.base.gpu_runs import (
    THREADS,
    first_pixel,
    own_runs,
)
from alps.kernels.base.numba_cuda import cuda
from alps.kernels.masks.runs import Runs, refuse


def colour_sums(pixels: Any, runs: Runs) -> tuple[np.ndarray, np.ndarray]:
    """Sums of values and of their squares (M, 2, C) int64, and pixels (M,) int64, of each mask.

    pixels: (H, W, C) int16; it or the runs may lie on the GPU.

    Raises:
        ValueError: the runs of a mask do not add up to H x W.
    """
    masks, channels = len(runs), pixels.shape[2]
    if masks == 0:
        return np.zeros((0, 2, channels), np.int64), np.zeros(0, np.int64)
    sums = on_gpu(np.zeros((masks, 2, channels), np.int64))
    area, wrong = on_gpu(np.zeros(masks, np.int64)), on_gpu(np.zeros(masks, np.int32))
    _add_runs[masks, THREADS](
        on_gpu(runs.lengths), on_gpu(runs.starts), on_gpu(pixels), sums, area, wrong
    )
    refuse(np.flatnonzero(wrong.copy_to_host()).tolist(), runs.size)
    return sums.copy_to_host(), area.copy_to_host()


@cuda.jit
def _add_runs(lengths: Any, starts: Any, pixels: Any, sums: Any, area: Any, wrong: Any) -> None:
    """Sums of each mask; a block a mask."""
    mask = cuda.blockIdx.x
    height, width, channels = pixels.shape
    begin, end = own_runs(starts[mask], starts[mask + 1])
    totals = cuda.shared.array(THREADS, np.int64)
    pixel = first_pixel(lengths, begin, end, height * width, totals, wrong, mask)
    if wrong[mask]:
        return
    for run in range(begin, end):
        first, pixel = pixel, pixel + lengths[run]
        if (run - starts[mask]) % 2 == 0 or first == pixel:
            continue
        cuda.atomic.add(area, mask, pixel - first)
        for channel in range(channels):
            total, squares = np.int64(0), np.int64(0)
            for at in range(first, pixel):
                value = np.int64(pixels[at % height, at // height, channel])
                total += value
                squares += value * value
            cuda.atomic.add(sums, (mask, 0, channel), total)
            cuda.atomic.add(sums, (mask, 1, channel), squares)
