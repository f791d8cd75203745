"""Layer norm with what lies around it in a block: the branch before, the windows after.

The residual stream is float32 and lies token by token; a branch ends in the type of products,
token by token or window by window, and so does what the next one starts from. So a norm reads the
residual stream and a branch, writes their sum where the residual stream was, and its own result in
the order that the next product wants. Windows that reach over the grid's edge have zeros there.

Bytes moved: P x C x (4 + 4 + t + t), of a type of t bytes.
"""

from dataclasses import dataclass
from typing import Any

import triton
import triton.language as tl

from alps.kernels.encoder.gpu.forms import Form, rounded_to

AT_ONCE = 4  # tokens of a program


@dataclass(frozen=True)
class Grid:
    """Tokens of images, and the windows that they are cut into.

    window: 0: none.
    """

    images: int
    rows: int
    columns: int
    channels: int
    window: int = 0

    @property
    def tokens(self) -> int:
        """Of all images."""
        return self.images * self.rows * self.columns

    @property
    def windows(self) -> int:
        """Of all images."""
        return self.images * -(-self.rows // self.window) * -(-self.columns // self.window)

    @property
    def slots(self) -> int:
        """Tokens of all windows, padding counted."""
        return self.windows * self.window**2 if self.window else self.tokens


def add_and_norm(
    residual: Any, branch: Any, norm: tuple[Any, Any, float], out: Any, order: "Order", form: Form
) -> None:
    """residual += branch, and out = its layer norm, on PyTorch's current stream.

    Args:
        residual: (tokens, C) float32, the sum is written there.
        branch: (tokens or slots, C) of the type of products; None adds nothing.
        norm: weight and bias (C,) float32, and what is added to the variance.
        out: written, (tokens or slots, C) of the type of products.
        order: the grid, and in which order branch and out lie.
        form: the type of products.
    """
    weight, bias, epsilon = norm
    grid = order.grid
    constants = norm_constants(order, branch is not None, form)
    count = grid.slots if order.to_windows else grid.tokens
    norm_kernel[(triton.cdiv(count, constants["AT_ONCE"]),)](
        residual,
        residual if branch is None else branch,
        weight,
        bias,
        out,
        epsilon,
        count,
        **constants,
        num_warps=4,
    )


@dataclass(frozen=True)
class Order:
    """In which order tokens lie before and after a norm."""

    grid: Grid
    from_windows: bool = False
    to_windows: bool = False


def norm_constants(order: Order, has_branch: bool, form: Form) -> dict[str, Any]:
    """What ``norm_kernel`` is compiled with."""
    grid = order.grid
    return {
        "ROWS": grid.rows,
        "COLUMNS": grid.columns,
        "WINDOW": max(1, grid.window),
        "AT_ONCE": AT_ONCE if not form.emulate else 1024,  # each operation costs the interpreter
        "C": grid.channels,
        "BLOCK": triton.next_power_of_2(grid.channels),
        "HAS_BRANCH": has_branch,
        "FROM_WINDOWS": order.from_windows,
        "TO_WINDOWS": order.to_windows,
        "FORM": form.number,
        "EMULATE": form.emulate,
    }


@triton.jit
def norm_kernel(
    residual: tl.tensor,
    branch: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    out: tl.tensor,
    epsilon: tl.float32,
    count: tl.int32,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WINDOW: tl.constexpr,
    AT_ONCE: tl.constexpr,
    C: tl.constexpr,
    BLOCK: tl.constexpr,
    HAS_BRANCH: tl.constexpr,
    FROM_WINDOWS: tl.constexpr,
    TO_WINDOWS: tl.constexpr,
    FORM: tl.constexpr,
    EMULATE: tl.constexpr,
) -> None:
    """Some tokens of those that are written."""
    DOWN: tl.constexpr = (ROWS + WINDOW - 1) // WINDOW
    ACROSS: tl.constexpr = (COLUMNS + WINDOW - 1) // WINDOW
    written = tl.program_id(0) * AT_ONCE + tl.arange(0, AT_ONCE)
    asked = written < count
    token, on_grid = written, asked
    if TO_WINDOWS:
        window, place = written // (WINDOW * WINDOW), written % (WINDOW * WINDOW)
        row = window // ACROSS % DOWN * WINDOW + place // WINDOW
        column = window % ACROSS * WINDOW + place % WINDOW
        token = (window // (DOWN * ACROSS) * ROWS + row) * COLUMNS + column
        on_grid = asked & (row < ROWS) & (column < COLUMNS)
    read = token
    if FROM_WINDOWS:
        image, row, column = token // (ROWS * COLUMNS), token // COLUMNS % ROWS, token % COLUMNS
        window = (image * DOWN + row // WINDOW) * ACROSS + column // WINDOW
        read = (window * WINDOW + row % WINDOW) * WINDOW + column % WINDOW

    channel = tl.arange(0, BLOCK)[None, :]
    inside = channel < C
    there = on_grid[:, None] & inside
    of_token = residual + token.to(tl.int64)[:, None] * C + channel
    x = tl.load(of_token, there, 0.0)
    if HAS_BRANCH:
        x += tl.load(branch + read.to(tl.int64)[:, None] * C + channel, there, 0.0).to(tl.float32)
        tl.store(of_token, x, there)
    mean = tl.sum(x, 1) / C
    off = tl.where(inside, x - mean[:, None], 0.0)
    scale = tl.rsqrt(tl.sum(off * off, 1) / C + epsilon)
    y = off * scale[:, None] * tl.load(weight + channel, inside, 0.0)
    y = tl.where(there, y + tl.load(bias + channel, inside, 0.0), 0.0)
    place = out + written.to(tl.int64)[:, None] * C + channel
    tl.store(place, rounded_to(y, FORM, EMULATE), asked[:, None] & inside)
