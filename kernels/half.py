"""float16 in compiled code: Numba's CPU target has the type, but no arithmetic on it."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic


@intrinsic
def as_float(context: Any, value: Any) -> Any:
    """The float32 of a float16 given by its bits, uint16; a float32 as it is.

    Infinity and NaN stay what they are. A loop over it becomes one instruction for eight or
    sixteen values where the processor has one.
    """
    if value == types.float32:
        return types.float32(value), lambda context, builder, signature, arguments: arguments[0]

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        half = builder.bitcast(arguments[0], ir.HalfType())
        return builder.fpext(half, ir.FloatType())

    return types.float32(types.uint16), build
