"""Low-resolution logits to run lengths of full-size masks, without full-size logits in memory.

SAM brings a mask of 256 x 256 logits to the image's size in two bilinear steps and cuts it at three
thresholds. Both steps together are linear: a pixel is a weighted mean of a few neighbouring logits
along each axis. So where neighbouring logits lie on the same side of a threshold the pixels between
them do, and only where a threshold is crossed must pixels be computed: on some thousand of a
million.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from alps.kernels.base.gpu import is_on_gpu, on_gpu, on_host
from alps.kernels.masks import algebra
from alps.kernels.masks.pixels import runs_of
from alps.kernels.masks.runs import Runs, checked_size
from alps.kernels.upscale import cpu
from alps.kernels.upscale.reference import reference_upscale
from alps.kernels.upscale.rules import Cuts, check
from alps.kernels.upscale.taps import MOST_TAPS, taps_of

__all__ = ["UpscaledMasks", "reference_upscale", "upscale_masks"]


@dataclass(frozen=True)
class UpscaledMasks:
    """Masks that passed, m of the M that were given."""

    kept: np.ndarray  # (m,) int64, which they are of the M, ascending
    stability: np.ndarray  # (m,) float32, NaN where no pixel is above the low threshold
    runs: Runs
    area: np.ndarray  # (m,) int64 pixels
    boxes: np.ndarray  # (m, 4) int64 first column, first row, last column, last row; zeros if empty


def upscale_masks(
    logits: Any,
    square: int,
    inner: tuple[int, int],
    size: tuple[int, int],
    *,
    threshold: float = 0.0,
    offset: float = 1.0,
    min_stability: float = 0.0,
    valid: np.ndarray | None = None,
) -> UpscaledMasks:
    """Cut logits, brought to full size in SAM's two bilinear steps, into masks.

    (a, b) -> (square, square), of that the upper left ``inner`` -> ``size``, both as
    ``F.interpolate(mode="bilinear", align_corners=False)`` has it.

    Args:
        logits: (M, a, b) float32, finite; NumPy, or on a GPU, where the work is then done, save
            where ``square`` is smaller than the logits, which no model has.
        square: side of the network's input, in pixels.
        inner: rows and columns of it that the image fills.
        size: H, W of the image.
        threshold: a pixel belongs to a mask where its logit is greater.
        offset: not negative; the stability of a mask is the number of its pixels above
            threshold + offset over that above threshold - offset.
        min_stability: masks of less, or without (NaN), are dropped; 0 or less keeps all.
        valid: (H, W) bool, the pixels that masks keep; no part in the stability. None: all.

    Raises:
        ValueError: shapes, dtypes or numbers that are none of the above; or images of 2^31
            pixels or more.
    """
    with_gpu = is_on_gpu(logits)
    if with_gpu:
        logits = on_gpu(logits)  # whose dtype is NumPy's, torch's is not
    check(logits, square, inner, size, offset)
    size = checked_size(size)
    if valid is not None:
        if valid.shape != size or valid.dtype != bool:
            raise ValueError(f"valid must be bool of {size}, not {valid.dtype} of {valid.shape}")
        valid = None if valid.all() else valid
    cuts = Cuts.of(threshold, offset)
    rows = taps_of(logits.shape[1], square, inner[0], size[0])
    columns = taps_of(logits.shape[2], square, inner[1], size[1])
    if with_gpu and max(rows.weights.shape[1], columns.weights.shape[1]) <= MOST_TAPS:
        from alps.kernels.upscale import gpu

        kept, stability, runs = gpu.cut_masks(logits, rows, columns, cuts, min_stability)
    else:
        logits = on_host(logits)
        kept, stability, runs = cpu.cut_masks(logits, rows, columns, cuts, min_stability)
    if valid is not None:
        runs = algebra.intersect(runs, runs_of(valid[None]))
    return UpscaledMasks(kept, stability, runs, algebra.areas(runs), algebra.boxes(runs))
