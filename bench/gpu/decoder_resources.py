"""What each of the decoder's kernels takes of a GPU, compiled without one.

    python -m alps.bench.gpu.decoder_resources

Prints a table; takes some minutes. Of the passes over an image 2 and 3 look
through the image after one layer and after two, 4a stores its tokens, 4b makes masks of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import click

from alps.kernels.base.triton import Resources

PASSES = ("2", "3", "4a", "4b")
FORMS = {"fp16": 0, "bf16": 1, "fp32": 2}
# Most shared memory of a block, bytes.
SHARED = {80: 166_912, 90: 232_448}


@dataclass(frozen=True)
class Shape:
    """A decoder as its kernels see it."""

    name: str
    side: int  # of the image embedding
    channels: int
    heads: int


VIT = Shape("official models", 64, 256, 8)
TINY = Shape("`tiny`", 32, 128, 4)


def resources(shape: Shape, which: str, precision: str, capability: int) -> Resources:
    """Of one of ``PASSES``, as it is launched on such a GPU; takes seconds.

    Raises:
        KeyError: it is not launched there.
    """
    from alps.kernels.base.triton import compile_for
    from alps.kernels.decoder.gpu.launch import BLOCKS
    from alps.kernels.decoder.gpu.patches import patches
    from alps.kernels.decoder.gpu.transform import HEAD_ROWS, transform

    exact = precision == "fp32"
    transformed, patched = BLOCKS[capability, exact]
    operand = "bf16" if precision == "bf16" else "fp16"
    stored = "fp32" if exact else operand
    channels, rows = shape.channels, HEAD_ROWS.value * shape.heads
    common = {"FORM": FORMS[precision], "EMULATE": False, "C": channels}
    if which == "4b":
        block, inner, outer = patched, channels // 4, channels // 8
        arrays = {
            "image": _rows(stored, block.pixels, channels),
            "first": _rows(operand, channels, inner),
            "second": _rows(operand, inner, 4 * outer),
            "hyper": _rows(operand, 4 * outer, 16),
            **dict.fromkeys(("biases", "scales", "logits"), "*fp32"),
            **dict.fromkeys(("slots", "chosen", "count"), "*i32"),
            "start": "i32",
            **dict.fromkeys(
                ("epsilon", "of_x", "of_g", "of_u", "from_first", "from_second"), "fp32"
            ),
        }
        own = {"SIDE": shape.side, "C1": inner, "C2": outer, "BLOCK": block.pixels}
        kernel = patches
    else:
        block, looks = transformed, rows // 2 if which == "3" else rows
        blocks = _rows(operand, block.pixels, channels)
        of_point = _rows(operand, rows, channels)
        arrays = {
            "queries": _rows(operand, block.pixels, channels // 2),
            "image": _rows(stored, block.pixels, channels),
            "places_1": blocks,
            "places": blocks,
            "keys_1": _rows(operand, rows, channels // 2),
            **dict.fromkeys(("values_1", "keys_2", "values_2"), of_point),
            "looks": _rows(operand, looks, channels),
            **dict.fromkeys(("bias_2", "scales"), "*fp32"),
            **dict.fromkeys(("weight_1", "shift_1", "weight", "shift"), "*fp32"),
            **dict.fromkeys(("tile", "chosen", "count"), "*i32"),
            "first": "i32",
            "out": _rows(stored, block.pixels, channels) if which == "4a" else f"*{stored}",
            "epsilon": "fp32",
        }
        own = {
            "P": shape.side**2,
            "ROWS": rows,
            "LOOKS": looks,
            "TOKENS": 7,
            "BLOCK": block.pixels,
            "LAYERS": 1 if which == "2" else 2,
            "STORE": which == "4a",
            "RELOAD": block.reload,
            "PLAIN_1": False,
            "PLAIN": False,
        }
        kernel = transform
    return compile_for(
        kernel, capability, arrays, common | own, num_warps=block.warps, num_stages=1
    )


def _rows(kind: str, rows: int, width: int) -> str:
    return f"tensordesc<{kind}[{rows}, {width}]>"


def table() -> Iterator[str]:
    """Rows of Markdown, one a kernel, as they are compiled."""
    from alps.kernels.decoder.gpu.launch import BLOCKS

    yield "| GPU | decoder | precision | pass | registers | stack, bytes | shared, KB | products |"
    yield "|---|---|---|---|---|---|---|---|"
    for capability, exact in sorted(BLOCKS):
        for shape in (VIT, TINY):
            for which in PASSES:
                precision = "fp32" if exact else "fp16"
                found = resources(shape, which, precision, capability)
                products = found.instructions[found.tensor_cores]
                yield (
                    f"| {capability / 10} | {shape.name} | {precision} | {which} | "
                    f"{found.registers} | {found.stack} | {found.shared / 1024:.0f} | "
                    f"{products} {found.tensor_cores} |"
                )


@click.command()
def main() -> None:
    """Print the table."""
    for line in table():
        click.echo(line)


if __name__ == "__main__":
    main()
