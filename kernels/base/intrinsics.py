"""Instructions that Numba has no word for: compare 64 bytes, find a lowest bit, read a float16."""

from typing import Any

from llvmlite import ir
from numba import extending, types

intrinsic: Any = extending.intrinsic  # what it makes is called without the typing context

BLOCK = 64  # bytes compared at a time, the bits of a word


@intrinsic
def differing(typing_context: Any, left: Any, i: Any, right: Any, j: Any) -> Any:
    """uint64 whose bit k says whether left[i + k] != right[j + k], for 64 k.

    left, right: uint8, one axis, C order; both must have 64 elements from there on (unchecked).
    """

    def code(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        lanes = ir.VectorType(ir.IntType(8), BLOCK)

        def load(array: int, at: int) -> ir.Value:
            data = context.make_array(signature.args[array])(context, builder, args[array]).data
            place = builder.bitcast(builder.gep(data, [args[at]]), lanes.as_pointer())
            return builder.load(place, align=1)

        return builder.bitcast(builder.icmp_unsigned("!=", load(0, 1), load(2, 3)), ir.IntType(64))

    return types.uint64(left, types.int64, right, types.int64), code


@intrinsic
def lowest_bit(typing_context: Any, word: Any) -> Any:
    """Index of the lowest bit set in a uint64 that is not 0: int64."""

    def code(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), code


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
