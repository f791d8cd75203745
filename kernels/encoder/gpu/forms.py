"""In which type the encoder multiplies."""

from dataclasses import dataclass

import triton
import triton.language as tl

from alps.kernels.base.triton import BF16, FP16, rounded

FP32 = tl.constexpr(3)  # as it is; beside the forms of alps.kernels.base.triton


@dataclass(frozen=True)
class Form:
    """A type of products.

    name: fp32, fp16 or bf16.
    emulate: as Triton's interpreter needs it.
    """

    name: str
    emulate: bool = False

    @property
    def exact(self) -> bool:
        """Whether products are in float32."""
        return self.name == "fp32"

    @property
    def number(self) -> int:
        """As kernels are told."""
        return {"fp32": FP32, "fp16": FP16, "bf16": BF16}[self.name].value


@triton.jit
def rounded_to(x: tl.tensor, FORM: tl.constexpr, EMULATE: tl.constexpr) -> tl.tensor:
    """Float32 in the type of the products."""
    return x if FORM == FP32 else rounded(x, FORM, EMULATE)
