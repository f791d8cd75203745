"""Rows and tables of the decoder's kernels as they lie in memory, and their launches.

All arrays are PyTorch's, contiguous, on one device, which is the current one; points of several
tiles stand in one launch. ``alps.engine.sam.fused`` makes them.

Of the form EXACT, operands of products are pairs of float16 (see ``alps.kernels.base.triton``),
scaled by powers of two: where an axis is marked (2) the halves stand one after the other on it.
"""

from dataclasses import dataclass
from typing import Any

from triton.tools.tensor_descriptor import TensorDescriptor

from alps.kernels.base.triton import EXACT
from alps.kernels.decoder.gpu.patches import patches
from alps.kernels.decoder.gpu.transform import transform


@dataclass(frozen=True)
class Blocks:
    """How a kernel's programs are cut."""

    pixels: int  # of a block
    warps: int  # of a program
    reload: bool = False  # a point's rows are loaded for each block: there is no room to keep them


@dataclass(frozen=True)
class Launch:
    """Form of the products, and how each kernel is cut."""

    form: int  # FP16, BF16 or EXACT of ``alps.kernels.base.triton``
    transform: Blocks
    patches: Blocks
    emulate: bool = False  # under Triton's interpreter

    @property
    def exact(self) -> bool:
        """Whether operands are pairs."""
        return self.form == EXACT.value


# By compute capability and whether operands are pairs: what fits the shared memory there, 227 KB of
# 9.0 and 163 KB of 8.0, where pairs do not fit at all.
BLOCKS = {
    (80, False): (Blocks(32, 8), Blocks(64, 4)),
    (90, False): (Blocks(128, 8), Blocks(128, 8)),
    (90, True): (Blocks(128, 8, reload=True), Blocks(128, 8)),
}


@dataclass(frozen=True)
class Tiles:
    """What the points of B tiles share; P image tokens of C channels, D = C / 2."""

    queries: Any  # (B, (2) P, D), of the first layer
    image: Any  # (B, P, C), mean over channels 0; float32 if EXACT


@dataclass(frozen=True)
class Norm:
    """A layer norm after which image tokens are used."""

    weight: Any  # (C,) float32
    bias: Any  # (C,) float32
    folded: bool  # whether what they meet takes care of the two
    places: Any  # ((2) P, C), positional encoding as it is added to what the norm leaves
    scale: float  # by which what it leaves is multiplied as an operand, if EXACT
    epsilon: float


@dataclass(frozen=True)
class Layer:
    """Image to tokens, of N points."""

    keys: Any  # (N, (2) R, D or C)
    values: Any  # (N, (2) R, C)
    bias: Any  # (N, R) float32, -inf for padding; None in the first layer, where there is none
    unscale: tuple[Any, Any]  # (N,) each: what takes scales away from logits, and from the update


@dataclass(frozen=True)
class Look:
    """Tokens to image, of N points."""

    rows: Any  # (N, (2) L, C)
    unscale: Any  # (N,)


@dataclass(frozen=True)
class Chosen:
    """Points that are gone on with."""

    points: Any  # (many,) int32
    count: Any  # (1,) int32, on the device: nobody waits for it


def look_through(
    launch: Launch,
    tiles: Tiles,
    tile: Any,
    layers: list[tuple[Layer, Norm]],
    look: Look,
    tokens: int,
    out: Any,
) -> None:
    """Means of image tokens, after one layer or two, weighted by what tokens look for.

    tile: (N,) int32, of each point; below 0 is no point, and its part of ``out`` stays as it was.
    out: (N, C, L), of the products' type; what the norm leaves, weight and bias as it says.
    """
    _transform(launch, tiles, tile, layers, look, tokens, None, 0, out)


def store_tokens(
    launch: Launch,
    tiles: Tiles,
    tile: Any,
    layers: list[tuple[Layer, Norm]],
    tokens: int,
    chosen: Chosen,
    first: int,
    out: Any,
) -> None:
    """Image tokens after both layers of chosen points ``first`` to ``first`` + len(out).

    out: (K, P, C), of the products' type.
    """
    _transform(launch, tiles, tile, layers, None, tokens, chosen, first, out)


def _transform(
    launch: Launch,
    tiles: Tiles,
    tile: Any,
    layers: list[tuple[Layer, Norm]],
    look: Look | None,
    tokens: int,
    chosen: Chosen | None,
    first: int,
    out: Any,
) -> None:
    (one, norm_1), (two, norm) = layers[0], layers[-1]
    pixels, channels = tiles.image.shape[1:]
    rows = one.keys.shape[1] // (2 if launch.exact else 1)
    looks = look.rows.shape[1] // (2 if launch.exact else 1) if look is not None else 16
    store = chosen is not None
    scales = one.unscale[0]
    if launch.exact:
        scales = tiles.image.new_empty(len(tile), 8)
        ones = [*one.unscale, *two.unscale, None if look is None else look.unscale]
        for column, value in enumerate([*ones, norm_1.scale, norm.scale]):
            if value is not None:
                scales[:, column] = value
    block = launch.transform.pixels
    places_1, places = (_blocks(table, block) for table in (norm_1.places, norm.places))
    transform[(len(out) if store else len(tile),)](
        _blocks(tiles.queries, block),
        _blocks(tiles.image, block),
        places_1,
        places,
        _blocks(one.keys, rows),
        _blocks(one.values, rows),
        _blocks(two.keys, rows),
        _blocks(two.values, rows),
        _blocks(two.values if look is None else look.rows, looks),
        one.unscale[0] if two.bias is None else two.bias,
        scales,
        norm_1.weight,
        norm_1.bias,
        norm.weight,
        norm.bias,
        tile,
        tile if chosen is None else chosen.points,
        tile if chosen is None else chosen.count,
        first,
        _blocks(out, block) if store else out,
        norm.epsilon,
        P=pixels,
        C=channels,
        ROWS=rows,
        LOOKS=looks,
        TOKENS=tokens,
        BLOCK=block,
        LAYERS=len(layers),
        STORE=store,
        RELOAD=launch.transform.reload,
        PLAIN_1=not norm_1.folded,
        PLAIN=not norm.folded,
        FORM=launch.form,
        EMULATE=launch.emulate,
        num_warps=launch.transform.warps,
        num_stages=1,
    )


@dataclass(frozen=True)
class Upscaling:
    """The two transposed convolutions as matrices, for what the last norm leaves."""

    first: Any  # ((2) 4, C, C1)
    second: Any  # ((2) C1, 4 C2)
    # float32: (4, C1) of the first, weight and bias (C1,) of the norm, (4 C2,) of the second
    biases: Any
    epsilon: float
    # Of EXACT: the scales of the image's tokens and of both activations as operands, and what takes
    # those and the weights' away again.
    scales: tuple[float, float, float, float, float]


def mask_logits(
    launch: Launch,
    image: Any,
    weights: Upscaling,
    hyper: tuple[Any, Any],
    slots: Any,
    chosen: Chosen,
    first: int,
    out: Any,
) -> None:
    """Logits of the masks of chosen points ``first`` to ``first`` + len(image).

    Args:
        launch: of ``store_tokens`` too.
        image: (K, P, C) that ``store_tokens`` left.
        weights: of the model.
        hyper: (N, (2) 4 C2, 16), hypernetwork vectors of each point's masks, a block a place of the
            second convolution, column 4 x place + mask; and (N,) float32 what takes scales away.
        slots: (N, 3) int32, where in ``out`` each mask goes; below 0: it is not wanted.
        chosen: points.
        first: of them.
        out: (slots, 4h, 4w) float32.
    """
    pixels, channels = image.shape[1:]
    side = round(pixels**0.5)
    width = weights.second.shape[-1] // 4
    patches[(pixels // launch.patches.pixels, len(image))](
        _blocks(image, launch.patches.pixels),
        _blocks(weights.first, channels),
        _blocks(weights.second, channels // 4),
        weights.biases,
        _blocks(hyper[0], 4 * width),
        hyper[1],
        slots,
        chosen.points,
        chosen.count,
        first,
        out,
        weights.epsilon,
        *weights.scales,
        SIDE=side,
        C=channels,
        C1=channels // 4,
        C2=width,
        BLOCK=launch.patches.pixels,
        FORM=launch.form,
        EMULATE=launch.emulate,
        num_warps=launch.patches.warps,
        num_stages=1,
    )


def _blocks(array: Any, rows: int) -> TensorDescriptor:
    """An array (…, width) as rows, of which ``rows`` are loaded at a time."""
    flat = array.reshape(-1, array.shape[-1])
    return TensorDescriptor(flat, list(flat.shape), list(flat.stride()), [rows, flat.shape[1]])
