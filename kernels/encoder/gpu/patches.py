"""From bytes of images to the patches that the first product takes.

The same arithmetic as on the CPU, (x - mean) / deviation with both operations rounded as IEEE 754
says, so the same float32; then rounded once. What an image does not fill is zero.

Bytes moved: 3 a pixel, and 3 x t of a type of t bytes.
"""

from dataclasses import dataclass
from typing import Any

import triton
import triton.language as tl

from alps.kernels.encoder.gpu.forms import Form, rounded_to

AT_ONCE = 2  # patches of a program


@dataclass(frozen=True)
class Patches:
    """How an input is cut: ``side`` x ``side`` patches of ``pixels`` x ``pixels``."""

    images: int
    side: int
    pixels: int


def make_patches(
    images: Any, places: Any, statistics: tuple[Any, Any], out: Any, patches: Patches, form: Form
) -> None:
    """Normalise, pad and cut, on PyTorch's current stream.

    Args:
        images: uint8, all bytes of them.
        places: (images, 3) int64: where an image (h, w, 3) begins in them, h and w.
        statistics: mean and deviation (3,) float32, of red, green and blue.
        out: written, (images · side², 3 · pixels²) of the type of products; a patch channel by
            channel, then row by row.
        patches: how many, how large.
        form: the type of products.
    """
    mean, deviation = statistics
    constants = patches_constants(patches, form)
    count = patches.images * patches.side**2
    patches_kernel[(triton.cdiv(count, constants["AT_ONCE"]),)](
        images, places, mean, deviation, out, count, **constants, num_warps=4
    )


def patches_constants(patches: Patches, form: Form) -> dict[str, Any]:
    """What ``patches_kernel`` is compiled with."""
    return {
        "SIDE": patches.side,
        "PIXELS": patches.pixels,
        "AT_ONCE": AT_ONCE if not form.emulate else 256,  # each operation costs the interpreter
        "BLOCK": triton.next_power_of_2(3 * patches.pixels**2),
        "FORM": form.number,
        "EMULATE": form.emulate,
    }


@triton.jit
def patches_kernel(
    images: tl.tensor,
    places: tl.tensor,
    mean: tl.tensor,
    deviation: tl.tensor,
    out: tl.tensor,
    count: tl.int32,
    SIDE: tl.constexpr,
    PIXELS: tl.constexpr,
    AT_ONCE: tl.constexpr,
    BLOCK: tl.constexpr,
    FORM: tl.constexpr,
    EMULATE: tl.constexpr,
) -> None:
    """Some patches."""
    VALUES: tl.constexpr = 3 * PIXELS * PIXELS
    patch = tl.program_id(0) * AT_ONCE + tl.arange(0, AT_ONCE)[:, None]
    asked = patch < count
    place = places + patch // (SIDE * SIDE) * 3
    first = tl.load(place, asked, 0)
    height, width = tl.load(place + 1, asked, 0), tl.load(place + 2, asked, 0)
    value = tl.arange(0, BLOCK)[None, :]
    inside = value < VALUES
    channel = value // (PIXELS * PIXELS)
    row = patch // SIDE % SIDE * PIXELS + value // PIXELS % PIXELS
    column = patch % SIDE * PIXELS + value % PIXELS
    filled = inside & (row < height) & (column < width)
    x = tl.load(images + first + (row * width + column) * 3 + channel, filled, 0).to(tl.float32)
    off = x - tl.load(mean + channel, inside, 0.0)
    x = tl.where(filled, tl.math.div_rn(off, tl.load(deviation + channel, inside, 1.0)), 0.0)
    here = out + patch.to(tl.int64) * VALUES + value
    tl.store(here, rounded_to(x, FORM, EMULATE), asked & inside)
