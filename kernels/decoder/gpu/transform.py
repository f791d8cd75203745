"""Image tokens through the two-way transformer, one point a program, none of them stored.

A point's tokens change 4096 image tokens; what later steps want of these is little: means weighted
by what the tokens look for. So a program takes its point's rows, goes through the image in blocks
of pixels, and keeps a block's tokens in registers through one layer or both. They are computed anew
in each pass, which costs less than moving 2 MB a point through memory.

With R = heads x 8 rows (a head's tokens, and padding up to 8) and L look rows, for BLOCK pixels:

    q = queries of the first layer, shared by a tile's points           (BLOCK, D)
    a = softmax over each head's rows of q @ keys_1ᵀ                    (BLOCK, R)
    x = hat(image + a @ values_1)                                       (BLOCK, C)
    LAYERS = 2:
    a = softmax of places_1 @ keys_2ᵀ + x @ keys_2ᵀ + bias_2
    x = hat(x · weight_1 + a @ values_2)
    STORE, of chosen points: x is written
    else: softmax down the pixels of places @ looksᵀ + x @ looksᵀ, and found = xᵀ @ it

``hat`` is layer norm without weight and bias; whoever prepares the rows has folded these into what
x meets next, and powers of e into powers of 2. Rows of values_1 and the image have a mean of 0 over
channels, so the first norm need not look for it.
"""

import triton
import triton.language as tl

from alps.kernels.base.triton import BF16, EXACT, dot, dot_of_halves, operand, rounded

HEAD_ROWS = tl.constexpr(8)  # of one head: up to 8 tokens


@triton.jit
def _load(rows: tl.tensor, at: tl.tensor, STEP: tl.constexpr, FORM: tl.constexpr) -> tl.tuple:
    """A block of rows; of EXACT, what is missing of them too, which lies STEP rows further on."""
    high = rows.load([at, 0])
    low = high
    if FORM == EXACT:
        low = rows.load([at + STEP, 0])
    return high, low


@triton.jit
def _times(
    a: tl.tuple, b: tl.tuple, total: tl.tensor, FORM: tl.constexpr, EMULATE: tl.constexpr
) -> tl.tensor:
    """a @ bᵀ + total, both as loaded or split."""
    if FORM == EXACT:
        total = dot_of_halves(a[0], a[1], tl.trans(b[0]), tl.trans(b[1]), total)
    else:
        total = dot(a[0], tl.trans(b[0]), total, EMULATE)
    return total


@triton.jit
def _head_softmax(logits: tl.tensor, BLOCK: tl.constexpr, ROWS: tl.constexpr) -> tl.tensor:
    """Softmax, to the base of 2, of (BLOCK, ROWS) over each head's columns."""
    by_head = tl.reshape(logits, (BLOCK, ROWS // HEAD_ROWS, HEAD_ROWS))
    powers = tl.exp2(by_head - tl.max(by_head, 2, keep_dims=True))
    powers = powers * (1.0 / tl.sum(powers, 2, keep_dims=True))
    return tl.reshape(powers, (BLOCK, ROWS))


@triton.jit
def transform(
    # Of a tile, rows (tiles · P, …):
    queries: tl.tensor,  # (…, D)
    image: tl.tensor,  # (…, C), float32 if EXACT
    # Of the model, (P, C): positional encodings as keys_2 and as looks meet them.
    places_1: tl.tensor,
    places: tl.tensor,
    # Of a point, (points · ROWS, …), looks (points · LOOKS, C):
    keys_1: tl.tensor,  # (…, D), each in its head's columns, else 0
    values_1: tl.tensor,
    keys_2: tl.tensor,
    values_2: tl.tensor,
    looks: tl.tensor,
    bias_2: tl.tensor,  # (points, ROWS), -inf for padding
    scales: tl.tensor,  # (points, 8) float32 if EXACT: see ``launch.Scales``
    # Of the model again: norms, as (C,) float32
    weight_1: tl.tensor,
    shift_1: tl.tensor,
    weight: tl.tensor,
    shift: tl.tensor,
    # Which, and where to:
    tile: tl.tensor,  # (points,) int32, below 0: no point
    chosen: tl.tensor,  # (many,) int32, points that are stored
    count: tl.tensor,  # (1,) int32, how many these are
    first: tl.tensor,  # which of the chosen the first program has
    out: tl.tensor,  # (points, C, LOOKS), or (programs, P, C) if STORE
    epsilon: tl.tensor,
    P: tl.constexpr,
    C: tl.constexpr,
    ROWS: tl.constexpr,
    LOOKS: tl.constexpr,
    TOKENS: tl.constexpr,
    BLOCK: tl.constexpr,
    LAYERS: tl.constexpr,
    STORE: tl.constexpr,
    RELOAD: tl.constexpr,  # rows of a point are loaded for each block, not kept
    PLAIN_1: tl.constexpr,  # the first norm's weight and bias are not folded into what x meets
    PLAIN: tl.constexpr,  # nor the last one's
    FORM: tl.constexpr,
    EMULATE: tl.constexpr,
) -> None:
    """One program a point; see the module."""
    program = tl.program_id(0)
    point = program
    if STORE:
        if first + program >= tl.load(count):
            return
        point = tl.load(chosen + first + program)
    own_tile = tl.load(tile + point)
    if own_tile < 0:
        return
    PAIR: tl.constexpr = 2 if FORM == EXACT else 1  # what is missing of rows stands behind them
    rows = point * PAIR * ROWS
    look_rows = point * PAIR * LOOKS
    column = tl.arange(0, ROWS)
    padding = tl.where(column % HEAD_ROWS < TOKENS, 0.0, float("-inf"))
    channel = tl.arange(0, C)
    of_k1 = 1.0
    of_v1 = 1.0
    of_k2 = 1.0
    of_v2 = 1.0
    of_looks = 1.0
    of_x1 = 1.0
    of_x = 1.0
    if FORM == EXACT:
        of_k1 = tl.load(scales + point * 8)
        of_v1 = tl.load(scales + point * 8 + 1)
        of_k2 = tl.load(scales + point * 8 + 2)
        of_v2 = tl.load(scales + point * 8 + 3)
        of_looks = tl.load(scales + point * 8 + 4)
        of_x1 = tl.load(scales + point * 8 + 5)
        of_x = tl.load(scales + point * 8 + 6)
    if LAYERS == 2:
        bias = tl.load(bias_2 + point * ROWS + column)

    if not STORE:
        top = tl.full((LOOKS,), float("-inf"), tl.float32)
        total = tl.zeros((LOOKS,), tl.float32)
        found = tl.zeros((C, LOOKS), tl.float32)

    if not RELOAD:
        k1_kept = _load(keys_1, rows, ROWS, FORM)
        v1_kept = _load(values_1, rows, ROWS, FORM)
        if LAYERS == 2:
            k2_kept = _load(keys_2, rows, ROWS, FORM)
            v2_kept = _load(values_2, rows, ROWS, FORM)
        if not STORE:
            look_kept = _load(looks, look_rows, LOOKS, FORM)

    for start in range(0, P, BLOCK):
        again = start // P  # 0, of which the compiler does not make loads out of the loop
        q = _load(queries, own_tile * PAIR * P + start, P, FORM)
        k1 = _load(keys_1, rows + again, ROWS, FORM) if RELOAD else k1_kept
        s = _times(q, k1, tl.zeros((BLOCK, ROWS), tl.float32), FORM, EMULATE)
        s = s * of_k1 if FORM == EXACT else s
        a = operand(_head_softmax(s + padding[None, :], BLOCK, ROWS), 32768.0, FORM, EMULATE)
        v1 = _load(values_1, rows + again, ROWS, FORM) if RELOAD else v1_kept
        # Summed at the products' scale, which the norm takes away again.
        x = image.load([own_tile * P + start, 0]).to(tl.float32) * (1.0 / of_v1)
        if FORM == EXACT:
            x = dot_of_halves(a[0], a[1], v1[0], v1[1], x)
        else:
            x = dot(a[0], v1[0], x, EMULATE)
        spread = tl.sum(x * x, 1) / C * (of_v1 * of_v1)
        x = x * (tl.rsqrt(spread + epsilon) * of_v1)[:, None]
        if PLAIN_1:
            x = x * tl.load(weight_1 + channel)[None, :] + tl.load(shift_1 + channel)[None, :]
        y = operand(x, of_x1, FORM, EMULATE)

        if LAYERS == 2:
            e = _load(places_1, start, P, FORM)
            k2 = _load(keys_2, rows + again, ROWS, FORM) if RELOAD else k2_kept
            s = _times(e, k2, tl.zeros((BLOCK, ROWS), tl.float32), FORM, EMULATE)
            s = _times(y, k2, s, FORM, EMULATE)
            s = s * of_k2 if FORM == EXACT else s
            a = operand(_head_softmax(s + bias[None, :], BLOCK, ROWS), 32768.0, FORM, EMULATE)
            v2 = _load(values_2, rows + again, ROWS, FORM) if RELOAD else v2_kept
            if FORM == EXACT:
                x = (y[0].to(tl.float32) + y[1].to(tl.float32)) * (1.0 / (of_x1 * of_v2))
            else:
                x = y[0].to(tl.float32)
            if not PLAIN_1:  # the load stays here: kept, it would take a fourth of all registers
                x = x * tl.load(weight_1 + channel + again)[None, :]
            if FORM == EXACT:
                x = dot_of_halves(a[0], a[1], v2[0], v2[1], x)
            else:
                x = dot(a[0], v2[0], x, EMULATE)
            x = x - (tl.sum(x, 1) / C)[:, None]
            spread = tl.sum(x * x, 1) / C * (of_v2 * of_v2)
            x = x * (tl.rsqrt(spread + epsilon) * of_v2)[:, None]
            if PLAIN:
                x = x * tl.load(weight + channel)[None, :] + tl.load(shift + channel)[None, :]
            y = operand(x, of_x, FORM, EMULATE)

        if STORE:
            if FORM == EXACT:
                out.store([program * P + start, 0], x)
            else:
                out.store([program * P + start, 0], y[0].to(out.dtype))
        else:
            e = _load(places, start, P, FORM)
            look = _load(looks, look_rows + again, LOOKS, FORM) if RELOAD else look_kept
            s = _times(e, look, tl.zeros((BLOCK, LOOKS), tl.float32), FORM, EMULATE)
            s = _times(y, look, s, FORM, EMULATE)
            s = s * of_looks if FORM == EXACT else s
            risen = tl.maximum(top, tl.max(s, 0))
            faded = tl.exp2(top - risen)
            top = risen
            g = tl.exp2(s - top[None, :])
            total = total * faded + tl.sum(g, 0)
            found = found * faded[None, :]
            g = operand(g, 32768.0, FORM, EMULATE)
            if FORM == EXACT:
                found = dot_of_halves(tl.trans(y[0]), tl.trans(y[1]), g[0], g[1], found)
            else:
                found = dot(tl.trans(y[0]), g[0], found, EMULATE)

    if not STORE:
        whole = total * 32768.0 * of_x if FORM == EXACT else total
        found = found * (1.0 / whole)[None, :]
        at = point * C * LOOKS + channel[:, None] * LOOKS + tl.arange(0, LOOKS)[None, :]
        if FORM == BF16 and EMULATE:
            found = rounded(found, FORM, EMULATE)
        tl.store(out + at, found.to(out.dtype.element_ty))
