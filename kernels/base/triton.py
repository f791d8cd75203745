"""What Triton kernels share: products in three forms, and what one costs on a GPU not at hand.

Imported only where a kernel is to run or to be compiled, for Triton is on Linux alone;
``alps.kernels.base.gpu.triton_missing`` says whether it is there.

The forms of a product, and how its operands are made:

    FP16    ``rounded`` to float16, summed in float32
    BF16    ``rounded`` to bfloat16, summed in float32
    EXACT   ``halves``, two float16 whose sum is the operand to 22 bits, and three products of them:
            float32's own error on tensor cores, for which values must be scaled near float16's most

Triton's interpreter (``TRITON_INTERPRET=1`` before this is imported) runs kernels on a CPU. It
multiplies bfloat16 by their bit patterns, so kernels are told to EMULATE there: operands are
float32 that hold no more than bfloat16 does.
"""

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton
import triton.language as tl
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

FP16 = tl.constexpr(0)
BF16 = tl.constexpr(1)
EXACT = tl.constexpr(2)


@triton.jit
def rounded(x: tl.tensor, FORM: tl.constexpr, EMULATE: tl.constexpr) -> tl.tensor:
    """Float32 in the type of the products of FORM, FP16 or BF16."""
    if FORM == FP16:
        x = x.to(tl.float16)
    elif EMULATE:
        bits = x.to(tl.uint32, bitcast=True)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000  # to nearest, ties to even
        x = bits.to(tl.float32, bitcast=True)
    else:
        x = x.to(tl.bfloat16)
    return x


@triton.jit
def dot(a: tl.tensor, b: tl.tensor, total: tl.tensor, EMULATE: tl.constexpr) -> tl.tensor:
    """a @ b + total of operands that were ``rounded``, or loaded in that type; total is float32.

    Operands in float32 are multiplied as they are, not as TF32.
    """
    if EMULATE:
        total = tl.dot(a.to(tl.float32), b.to(tl.float32), total, input_precision="ieee")
    else:
        total = tl.dot(a, b, total, input_precision="ieee")
    return total


@triton.jit
def halves(x: tl.tensor) -> tl.tuple:
    """Float32 as two float16: the nearest, and what is missing. Best scaled to 2^15 at most."""
    high = x.to(tl.float16)
    return high, (x - high.to(tl.float32)).to(tl.float16)


@triton.jit
def operand(x: tl.tensor, scale: tl.tensor, FORM: tl.constexpr, EMULATE: tl.constexpr) -> tl.tuple:
    """Float32 as operand of products: rounded, and so once more, or the halves of x · scale."""
    if FORM == EXACT:
        high, low = halves(x * scale)
    else:
        high = rounded(x, FORM, EMULATE)
        low = high
    return high, low


@triton.jit
def dot_of_halves(
    a_high: tl.tensor, a_low: tl.tensor, b_high: tl.tensor, b_low: tl.tensor, total: tl.tensor
) -> tl.tensor:
    """(a_high + a_low) @ (b_high + b_low) + total, but for the product of what is missing."""
    total = tl.dot(a_low, b_high, total)
    total = tl.dot(a_high, b_low, total)
    return tl.dot(a_high, b_high, total)


@dataclass(frozen=True)
class Resources:
    """What a compiled kernel takes of a GPU, by NVIDIA's own tools."""

    registers: int  # a thread
    stack: int  # bytes a thread; what does not fit registers is spilled there
    shared: int  # bytes a block
    instructions: Counter[str]  # mnemonic without its modifiers -> how often it stands in the code

    @property
    def tensor_cores(self) -> str:
        """By which instruction tensor cores are used: HGMMA from compute capability 9.0 on, HMMA
        before; both where the compiler mixed them, empty where it uses none.
        """
        return "+".join(name for name in ("HGMMA", "HMMA") if self.instructions[name])


def compile_for(
    kernel: Any,
    capability: int,
    arguments: Mapping[str, str],
    constants: Mapping[str, Any],
    **options: Any,
) -> Resources:
    """Compile a kernel for a GPU that need not be there; takes seconds.

    Args:
        kernel: made by ``triton.jit``, not under the interpreter.
        capability: compute capability as a whole number, 90 for 9.0.
        arguments: types as Triton writes them (``*fp16``, ``i32``, ``tensordesc<fp16[64, 128]>``).
            Pointers, and numbers whose type ends in ``:16``, are multiples of 16.
        constants: values of the others.
        options: of the launch, ``num_warps`` and ``num_stages``.

    Raises:
        RuntimeError: NVIDIA's tools, which come with Triton, say nothing of the kernel.
    """
    types = {name: kind.removesuffix(":16") for name, kind in arguments.items()}
    signature = {name: types.get(name, "constexpr") for name in kernel.arg_names}
    aligned = {
        (kernel.arg_names.index(name),): [["tt.divisibility", 16]]
        for name, kind in arguments.items()
        if kind.startswith("*") or kind.endswith(":16")
    }
    source = ASTSource(kernel, signature, dict(constants), aligned)
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    tool = knobs.nvidia.cuobjdump.path
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(compiled.asm["cubin"])
        usage, code = (
            subprocess.run([tool, what, cubin], capture_output=True, text=True, check=True).stdout
            for what in ("--dump-resource-usage", "--dump-sass")
        )
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    if found is None:
        raise RuntimeError(f"{tool} names no registers of {kernel.__name__}: {usage[-300:]!r}")
    # Lines of code: /*0a10*/  @P0 HGMMA.64x64x16.F32 R24, …
    names = re.findall(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+ )?([A-Z][A-Z0-9]*)", code, re.M)
    return Resources(
        registers=int(found[1]),
        stack=int(found[2]),
        shared=compiled.metadata.shared,
        instructions=Counter(names),
    )
