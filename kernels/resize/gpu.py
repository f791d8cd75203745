"""The resize on a GPU, in Triton: an axis after the other, in the memory it is given.

In Triton for the sake of the encoder's other kernels, which run before and after it in the same
stream. Bytes moved: as on the CPU, and what lies between is written and read, h x W x C twice.
"""

from dataclasses import dataclass
from typing import Any

import triton
import triton.language as tl

from alps.kernels.resize.rules import BITS, HALF

AT_ONCE = 1024  # values of a program
_BITS, _HALF = tl.constexpr(BITS), tl.constexpr(HALF)


@dataclass(frozen=True)
class Axis:
    """One axis of an array: ``outer`` x ``old`` x ``inner`` values, C-ordered, that becomes
    ``outer`` x ``new`` x ``inner``.
    """

    outer: int
    old: int
    new: int
    inner: int


def resize_axis(image: Any, first: Any, weights: Any, out: Any, axis: Axis) -> None:
    """Resize along one axis, on PyTorch's current stream.

    Args:
        image: uint8, outer · old · inner.
        first: (new,) int32, and weights (new, T) int32: ``rules.Taps``, on the GPU.
        out: uint8, outer · new · inner, written.
        axis: which.
    """
    count = axis.outer * axis.new * axis.inner
    axis_kernel[(triton.cdiv(count, AT_ONCE),)](
        image,
        first,
        weights,
        out,
        axis.old,
        axis.new,
        axis.inner,
        count,
        TAPS=weights.shape[1],
        AT_ONCE=AT_ONCE,
    )


@triton.jit(do_not_specialize=["old", "new", "inner", "count"])
def axis_kernel(
    image: tl.tensor,
    first: tl.tensor,
    weights: tl.tensor,
    out: tl.tensor,
    old: tl.int32,
    new: tl.int32,
    inner: tl.int32,
    count: tl.int32,
    TAPS: tl.constexpr,
    AT_ONCE: tl.constexpr,
) -> None:
    """Some values of what is written."""
    written = tl.program_id(0) * AT_ONCE + tl.arange(0, AT_ONCE)
    asked = written < count
    place = written // inner % new
    begin = tl.load(first + place, asked, 0)
    source = image + (written // inner // new * old) * inner + written % inner
    total = tl.full((AT_ONCE,), _HALF, tl.int32)
    for tap in range(TAPS):
        weight = tl.load(weights + place * TAPS + tap, asked, 0)
        # Past the last place the weight is zero; what lies there is not read.
        value = tl.load(source + (begin + tap) * inner, asked & (begin + tap < old), 0)
        total += value.to(tl.int32) * weight
    total = tl.minimum(tl.maximum(total >> _BITS, 0), 255)
    tl.store(out + written, total.to(tl.uint8), asked)
