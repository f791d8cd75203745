"""Image tokens of chosen points to mask logits: two transposed convolutions and the hypernetwork.

Kernels of 2 x 2 with stride 2 do not overlap, so an image token makes its own 4 x 4 patch of each
mask by products of matrices, one place of the first convolution after the other. For BLOCK tokens:

    h = x @ first + bias             (BLOCK, C1), whose mean over channels is 0 by its making
    g = gelu(hat(h) · weight + shift)
    u = gelu(g @ second + bias)      (BLOCK, 4 x C2), the four places of the second convolution
    u @ hyper                        (BLOCK, 16), column 4 x place + mask

The weight and bias of the norm that x comes from are folded into ``first``.
"""

import triton
import triton.language as tl

from alps.kernels.base.triton import EXACT, dot, dot_of_halves, halves, operand

MASKS = tl.constexpr(4)  # columns of a place, of which a point has 3


@triton.jit
def _tanh(x: tl.tensor, EMULATE: tl.constexpr) -> tl.tensor:
    """In one instruction, to 2^-11 of its value."""
    if EMULATE:
        x = 1.0 - 2.0 / (1.0 + tl.exp2(2.885390082 * x))
        x = x.to(tl.float16).to(tl.float32)
    else:
        x = tl.inline_asm_elementwise(
            "tanh.approx.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )
    return x


@triton.jit
def _gelu(x: tl.tensor, FORM: tl.constexpr, EMULATE: tl.constexpr) -> tl.tensor:
    """x Φ(x). EXACT: erf after Abramowitz and Stegun 7.1.26, to 1.5e-7. Else as float16 needs it:
    x (1 + tanh(x p(x²))) / 2, to 2.5e-5 beside what tanh errs; p was fitted to the greatest error.
    """
    if FORM == EXACT:
        z = tl.abs(x) * 0.7071067811865476
        t = 1.0 / (1.0 + 0.3275911 * z)
        p = 1.061405429 * t - 1.453152027
        p = p * t + 1.421413741
        p = p * t - 0.284496736
        p = p * t + 0.254829592
        tail = 0.5 * p * t * tl.exp2(z * z * -1.4426950408889634)
        y = tl.maximum(x, 0.0) - tl.abs(x) * tail
    else:
        z = tl.minimum(x * x, 49.0)  # beyond it p would turn; tanh is 1 there
        p = (z * -0.00035170863 + 0.03700682707) * z + 0.79750658640
        half = 0.5 * x
        y = half * _tanh(x * p, EMULATE) + half
    return y


@triton.jit
def _times(
    a: tl.tuple, b: tl.tuple, total: tl.tensor, FORM: tl.constexpr, EMULATE: tl.constexpr
) -> tl.tensor:
    if FORM == EXACT:
        total = dot_of_halves(a[0], a[1], b[0], b[1], total)
    else:
        total = dot(a[0], b[0], total, EMULATE)
    return total


@triton.jit
def patches(
    image: tl.tensor,  # (programs · P, C), what ``transform`` stored
    # Of the model; EXACT has what is missing of each behind it:
    first: tl.tensor,  # (4 · C, C1)
    second: tl.tensor,  # (C1, 4 · C2)
    biases: tl.tensor,  # float32, one after the other as ``launch.Upscaling`` has them
    hyper: tl.tensor,  # (points · 4 · C2, 16)
    scales: tl.tensor,  # (points,) float32 if EXACT: by what u @ hyper is multiplied
    slots: tl.tensor,  # (points, 3) int32, where each mask goes, below 0: nowhere
    chosen: tl.tensor,  # (many,) int32
    count: tl.tensor,  # (1,) int32, how many are chosen
    start: tl.tensor,  # which of the chosen the first programs have
    logits: tl.tensor,  # (slots, 4 · SIDE, 4 · SIDE) float32
    epsilon: tl.tensor,
    # EXACT: scales of x, g and u as operands, and what takes them and the weights' away again.
    of_x: tl.tensor,
    of_g: tl.tensor,
    of_u: tl.tensor,
    from_first: tl.tensor,
    from_second: tl.tensor,
    SIDE: tl.constexpr,
    C: tl.constexpr,
    C1: tl.constexpr,
    C2: tl.constexpr,
    BLOCK: tl.constexpr,
    FORM: tl.constexpr,
    EMULATE: tl.constexpr,
) -> None:
    """Programs (P / BLOCK, points of a chunk); see the module."""
    PAIR: tl.constexpr = 2 if FORM == EXACT else 1
    OUT: tl.constexpr = 4 * MASKS
    own = tl.program_id(1)
    if start + own >= tl.load(count):
        return
    point = tl.load(chosen + start + own)
    at = tl.program_id(0) * BLOCK
    x = image.load([own * SIDE * SIDE + at, 0])
    x = halves(x * of_x) if FORM == EXACT else (x, x)
    inner, outer = tl.arange(0, C1), tl.arange(0, 4 * C2)
    norm_weight = tl.load(biases + 4 * C1 + inner)
    norm_bias = tl.load(biases + 5 * C1 + inner)
    second_bias = tl.load(biases + 6 * C1 + outer)
    w2 = second.load([0, 0])
    vectors = hyper.load([point * PAIR * 4 * C2, 0])
    w2 = (w2, w2)
    vectors = (vectors, vectors)
    from_hyper = 1.0
    if FORM == EXACT:
        w2 = (w2[0], second.load([C1, 0]))
        vectors = (vectors[0], hyper.load([(point * PAIR + 1) * 4 * C2, 0]))
        from_hyper = tl.load(scales + point)

    pixel = at + tl.arange(0, BLOCK)
    column = tl.arange(0, OUT)
    mask, place = column % MASKS, column // MASKS
    slot = tl.load(slots + point * 3 + mask, mask=mask < 3, other=-1)
    corner = slot.to(tl.int64) * (16 * SIDE * SIDE)
    row = 4 * (pixel // SIDE)[:, None] + (place // 2)[None, :]
    across = 4 * (pixel % SIDE)[:, None] + (place % 2)[None, :]
    to = logits + corner[None, :] + row * (4 * SIDE) + across
    wanted = (slot >= 0)[None, :] & (pixel >= 0)[:, None]
    for a in range(4):
        w1 = first.load([a * C, 0])
        w1 = (w1, w1)
        if FORM == EXACT:
            w1 = (w1[0], first.load([(4 + a) * C, 0]))
        h = _times(x, w1, tl.zeros((BLOCK, C1), tl.float32), FORM, EMULATE)
        h = h * from_first if FORM == EXACT else h
        h += tl.load(biases + a * C1 + inner)[None, :]
        h = h * tl.rsqrt(tl.sum(h * h, 1) / C1 + epsilon)[:, None]
        g = _gelu(h * norm_weight[None, :] + norm_bias[None, :], FORM, EMULATE)
        g = operand(g, of_g, FORM, EMULATE)
        u = _times(g, w2, tl.zeros((BLOCK, 4 * C2), tl.float32), FORM, EMULATE)
        u = u * from_second if FORM == EXACT else u
        u = operand(_gelu(u + second_bias[None, :], FORM, EMULATE), of_u, FORM, EMULATE)
        patch = _times(u, vectors, tl.zeros((BLOCK, OUT), tl.float32), FORM, EMULATE)
        patch = patch * from_hyper if FORM == EXACT else patch
        tl.store(to + (a // 2) * (2 * 4 * SIDE) + (a % 2) * 2, patch, mask=wanted)
