"""Attention over a grid of tokens whose logits are offset by rows and columns apart, on a GPU.

A step takes the keys of one row of the grid. Then what a query's logits are offset by for their
columns is the same in every step, and stays in registers; of its row it is one number. Offsets of
all pairs, 0.8 GB a global block of an official model, are never written. Windows are small grids.

Logits are to base 2 and so are their offsets: queries come multiplied by log2(e) / sqrt(d), tables
by sqrt(d), which a model's weights take in once. In float32 each product is three of float16's
halves on tensor cores, with float32's own error; plain ones would be without them, and spill.

Bytes moved, of a type of t bytes: heads x P x d x t of queries and results once, of keys and values
once for each program, from the second-level cache; heads x P x (h + w) x 4 of offsets written and
read. Work: 2 x heads x P² x d multiply-adds, and heads x P x (h + w) x d of the offsets.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import triton
import triton.language as tl

from alps.kernels.base.triton import EXACT, dot, dot_of_halves, halves
from alps.kernels.encoder.gpu.forms import rounded_to


@dataclass(frozen=True)
class Heads:
    """Heads of a block, and the grid that they look over."""

    images: int  # or windows
    heads: int
    rows: int
    columns: int
    width: int  # d, channels of a head

    @property
    def tokens(self) -> int:
        """P, of an image."""
        return self.rows * self.columns

    def fits(self) -> bool:
        """Whether the kernels know heads so wide: a power of two from 16, or two of them."""
        first, rest = _parts(self.width)
        return first >= 16 and rest in (0, 16, 32, 64) and first + rest <= 128

    def constants(self) -> dict[str, int]:
        """Of both kernels."""
        first, rest = _parts(self.width)
        return {
            "HEADS": self.heads,
            "ROWS": self.rows,
            "COLUMNS": self.columns,
            "D": first,
            "REST": rest,
        }


def make_offsets(
    qkv: Any, of_rows: Any, of_columns: Any, by_row: Any, by_column: Any, heads: Heads, form: Any
) -> None:
    """What each query's logits are offset by: query · table, on PyTorch's current stream.

    Args:
        qkv: (images · P, 3 · heads · d), of a type.
        of_rows: (2 · rows - 1, d) of that type, relative positions by distance; of_columns
            likewise.
        by_row: written, (images · heads, rows, P) float32, for the keys of each row.
        by_column: written, (images · heads, P, columns) float32.
        heads: their number and shape.
        form: ``Form`` of that type.
    """
    grid = (heads.rows + heads.columns, heads.images * heads.heads)
    offsets_kernel[grid](
        qkv, of_rows, of_columns, by_row, by_column, **offsets_constants(heads, form), num_warps=4
    )


def attend(
    qkv: Any, offsets: tuple[Any, Any], scale: Any, out: Any, heads: Heads, form: Any
) -> None:
    """Softmax of query · key + offsets, base 2, times values, on PyTorch's current stream.

    Args:
        qkv: as in ``make_offsets``.
        offsets: by_row and by_column, as that wrote them.
        scale: (1,) float32, a power of 2 that takes qkv to at most 2^15; read in float32 only.
        out: written, (images · P, heads · d) of qkv's type.
        heads: their number and shape.
        form: ``Form`` of that type.
    """
    constants, options = attend_constants(heads, form)
    grid = (triton.cdiv(heads.tokens, constants["QUERIES"]), heads.images * heads.heads)
    attend_kernel[grid](qkv, *offsets, scale, out, **constants, **options)


def offsets_constants(heads: Heads, form: Any) -> Mapping[str, Any]:
    """What ``offsets_kernel`` is compiled with."""
    longest = max(heads.rows, heads.columns)
    return heads.constants() | {
        "LINE": max(16, triton.next_power_of_2(longest)),
        "EMULATE": form.emulate,
    }


def attend_constants(heads: Heads, form: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """What ``attend_kernel`` is compiled with, and the options of its launch.

    Half precision on a large grid keeps to 128 registers a thread, so that two programs share a
    multiprocessor: one multiplies while the other is at its softmax. Float32, of which each product
    is three of halves, needs more of them.
    """
    large = heads.tokens >= 1024
    constants = heads.constants() | {
        "KEYS": max(16, triton.next_power_of_2(heads.columns)),
        "QUERIES": 128 if large else 64,
        "STAGES": 2 if form.exact else 3,
        "FORM": EXACT.value if form.exact else form.number,
        "EMULATE": form.emulate,
    }
    options = {"num_warps": 8 if large else 4}
    return constants, options | ({"maxnreg": 128} if large and not form.exact else {})


def _parts(width: int) -> tuple[int, int]:
    """A head's channels as the largest power of two and what is left."""
    first = 1 << (width.bit_length() - 1)
    return first, width - first


@triton.jit
def offsets_kernel(
    qkv: tl.tensor,
    of_rows: tl.tensor,
    of_columns: tl.tensor,
    by_row: tl.tensor,
    by_column: tl.tensor,
    HEADS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    D: tl.constexpr,
    REST: tl.constexpr,
    LINE: tl.constexpr,
    EMULATE: tl.constexpr,
) -> None:
    """One row of the grid, or one column: its queries lie at one distance to each row of keys."""
    WIDTH: tl.constexpr = D + REST
    P: tl.constexpr = ROWS * COLUMNS
    STRIDE: tl.constexpr = 3 * HEADS * WIDTH
    image_head = tl.program_id(1).to(tl.int64)
    queries = qkv + image_head // HEADS * P * STRIDE + image_head % HEADS * WIDTH
    line = tl.program_id(0)
    place = tl.arange(0, LINE)
    if line < ROWS:
        token = line * COLUMNS + place
        found = _line(
            queries + token[:, None] * STRIDE,
            of_rows + (line - place + ROWS - 1)[:, None] * WIDTH,
            (place < COLUMNS)[:, None],
            (place < ROWS)[:, None],
            D,
            REST,
            LINE,
            EMULATE,
        )
        # Row by row of keys, so that the queries of a program lie side by side.
        tl.store(
            by_row + image_head * ROWS * P + place[None, :] * P + token[:, None],
            found,
            (place < COLUMNS)[:, None] & (place < ROWS)[None, :],
        )
    else:
        line -= ROWS
        token = place * COLUMNS + line
        found = _line(
            queries + token[:, None] * STRIDE,
            of_columns + (line - place + COLUMNS - 1)[:, None] * WIDTH,
            (place < ROWS)[:, None],
            (place < COLUMNS)[:, None],
            D,
            REST,
            LINE,
            EMULATE,
        )
        tl.store(
            by_column + image_head * COLUMNS * P + token[:, None] * COLUMNS + place[None, :],
            found,
            (place < ROWS)[:, None] & (place < COLUMNS)[None, :],
        )


@triton.jit
def _line(
    queries: tl.tensor,
    table: tl.tensor,
    asked: tl.tensor,
    answered: tl.tensor,
    D: tl.constexpr,
    REST: tl.constexpr,
    LINE: tl.constexpr,
    EMULATE: tl.constexpr,
) -> tl.tensor:
    """Queries (LINE, d) times rows of a table (LINE, d): (LINE, LINE) float32."""
    channel = tl.arange(0, D)[None, :]
    q = tl.load(queries + channel, asked, 0.0)
    t = tl.load(table + channel, answered, 0.0)
    found = dot(q, tl.trans(t), tl.zeros((LINE, LINE), tl.float32), EMULATE)
    if REST:
        channel = D + tl.arange(0, REST)[None, :]
        q = tl.load(queries + channel, asked, 0.0)
        t = tl.load(table + channel, answered, 0.0)
        found = dot(q, tl.trans(t), found, EMULATE)
    return found


@triton.jit
def attend_kernel(
    qkv: tl.tensor,
    by_row: tl.tensor,
    by_column: tl.tensor,
    scale: tl.tensor,
    out: tl.tensor,
    HEADS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    D: tl.constexpr,
    REST: tl.constexpr,
    KEYS: tl.constexpr,
    QUERIES: tl.constexpr,
    STAGES: tl.constexpr,
    FORM: tl.constexpr,
    EMULATE: tl.constexpr,
) -> None:
    """QUERIES of one head, all rows of keys one after the other with an online softmax."""
    WIDTH: tl.constexpr = D + REST
    P: tl.constexpr = ROWS * COLUMNS
    STRIDE: tl.constexpr = 3 * HEADS * WIDTH
    image_head = tl.program_id(1).to(tl.int64)
    image, head = image_head // HEADS, image_head % HEADS
    queries = qkv + image * P * STRIDE + head * WIDTH
    keys = queries + HEADS * WIDTH
    values = keys + HEADS * WIDTH

    # Halves are of values near the greatest that float16 holds.
    of_qkv, of_weight, unscale = 1.0, 1.0, 1.0
    if FORM == EXACT:
        of_qkv = tl.load(scale)
        of_weight = 32768.0
        unscale = 1 / (of_qkv * of_qkv)

    query = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    there = query < P
    channel = tl.arange(0, D)
    q = tl.load(queries + query[:, None] * STRIDE + channel[None, :], there[:, None], 0.0)
    if FORM == EXACT:
        q = q * of_qkv
    column = tl.arange(0, KEYS)
    real = column < COLUMNS
    offsets = tl.load(
        by_column + (image_head * P + query[:, None]) * COLUMNS + column[None, :],
        there[:, None] & real[None, :],
        0.0,
    )
    # Columns that only fill up a row of keys have no weight.
    offsets = tl.where(real[None, :], offsets, -float("inf"))
    if FORM == EXACT:
        offsets = offsets * (of_qkv * of_qkv)
    of_row = by_row + image_head * ROWS * P + query

    top = tl.full((QUERIES,), -float("inf"), tl.float32)
    total = tl.zeros((QUERIES,), tl.float32)
    found = tl.zeros((QUERIES, D), tl.float32)
    if REST:
        rest = D + tl.arange(0, REST)
        q_rest = tl.load(queries + query[:, None] * STRIDE + rest[None, :], there[:, None], 0.0)
        if FORM == EXACT:
            q_rest = q_rest * of_qkv
        found_rest = tl.zeros((QUERIES, REST), tl.float32)
    for row in tl.range(0, ROWS, num_stages=STAGES):
        key = (row * COLUMNS + column)[:, None] * STRIDE
        k = tl.load(keys + key + channel[None, :], real[:, None], 0.0)
        logits = _product(q, tl.trans(k), offsets, of_qkv, FORM, EMULATE)
        if REST:
            k_rest = tl.load(keys + key + rest[None, :], real[:, None], 0.0)
            logits = _product(q_rest, tl.trans(k_rest), logits, of_qkv, FORM, EMULATE)
        if FORM == EXACT:
            logits = logits * unscale
        offset = tl.load(of_row + row * P, there, 0.0)
        highest = tl.maximum(top, tl.max(logits, 1) + offset)
        weight = tl.exp2(logits + (offset - highest)[:, None])
        fade = tl.exp2(top - highest)
        total = total * fade + tl.sum(weight, 1)
        top = highest
        weight = weight * of_weight if FORM == EXACT else rounded_to(weight, FORM, EMULATE)
        v = tl.load(values + key + channel[None, :], real[:, None], 0.0)
        found = _product(weight, v, found * fade[:, None], of_qkv, FORM, EMULATE)
        if REST:
            v_rest = tl.load(values + key + rest[None, :], real[:, None], 0.0)
            found_rest = _product(weight, v_rest, found_rest * fade[:, None], of_qkv, FORM, EMULATE)
    place = out + (image * P + query[:, None]) * (HEADS * WIDTH) + head * WIDTH
    if FORM == EXACT:
        total = total * (of_qkv * of_weight)
    found = found / total[:, None]
    if FORM != EXACT:
        found = rounded_to(found, FORM, EMULATE)
    tl.store(place + channel[None, :], found, there[:, None])
    if REST:
        found_rest = found_rest / total[:, None]
        if FORM != EXACT:
            found_rest = rounded_to(found_rest, FORM, EMULATE)
        tl.store(place + rest[None, :], found_rest, there[:, None])


@triton.jit
def _product(
    a: tl.tensor,
    b: tl.tensor,
    total: tl.tensor,
    of_b: tl.tensor,
    FORM: tl.constexpr,
    EMULATE: tl.constexpr,
) -> tl.tensor:
    """a @ b + total; of float32 by halves, a scaled before and b here."""
    if FORM == EXACT:
        a_high, a_low = halves(a)
        b_high, b_low = halves(b * of_b)
        total = dot_of_halves(a_high, a_low, b_high, b_low, total)
    else:
        total = dot(a, b, total, EMULATE)
    return total
