"""What compiled code reads memory with: loads from an address, and how it is compiled, as `operators.compiled` does.

An address is an int64. Nothing here checks it: the caller keeps what it points into alive, with eight bytes to spare.
"""

from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

_I64 = ir.IntType(64)

compiled = njit(cache=True, nogil=True, error_model="numpy")
within = njit(cache=True, nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
inlined = njit(cache=True, nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)
"""Put into its caller: an array is seven arguments, and what is called for each byte or field must not pass them on."""


@intrinsic
def load8(typing_context: Any, address: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        return builder.load(builder.inttoptr(given[0], _I64.as_pointer()), align=1)

    return types.uint64(types.int64), build


@intrinsic
def load4(typing_context: Any, address: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        return builder.sext(builder.load(builder.inttoptr(given[0], ir.IntType(32).as_pointer()), align=1), _I64)

    return types.int64(types.int64), build


@intrinsic
def load1(typing_context: Any, address: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        return builder.zext(builder.load(builder.inttoptr(given[0], ir.IntType(8).as_pointer())), _I64)

    return types.int64(types.int64), build


@intrinsic
def word(typing_context: Any, address: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        return builder.load(builder.inttoptr(given[0], _I64.as_pointer()), align=1)

    return types.int64(types.int64), build


@intrinsic
def store8(typing_context: Any, address: Any, value: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        builder.store(given[1], builder.inttoptr(given[0], _I64.as_pointer()), align=8)
        return context.get_dummy_value()

    return types.none(types.int64, types.int64), build


@intrinsic
def store_real(typing_context: Any, address: Any, value: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        builder.store(given[1], builder.inttoptr(given[0], ir.DoubleType().as_pointer()), align=8)
        return context.get_dummy_value()

    return types.none(types.int64, types.float64), build
