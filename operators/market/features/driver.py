"""All kernels of a timeframe in one call: chunk by chunk, each kernel in turn, without returning to Python in between.

A kernel's Python wrapper costs a microsecond and takes the interpreter's lock twice; with a hundred kernels on a few bars
that is most of the time, and two threads would wait for each other at each of them. So the loop is compiled, and calls
the kernels by the addresses of their machine code: the same code that Python would call, with the same bits.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from operators.market.features.columns import (
    CHUNK,
    N_COLS,
    STRIDE,
    Codes,
    Floats,
    Ints,
    compiled,
    load_columns,
    store_values,
)
from operators.market.features.registry import Kernel, Numbers
from operators.state import grown

_FLOATS_1, _FLOATS_2 = types.Array(types.float64, 1, "C"), types.Array(types.float64, 2, "C")
_TAKES = (types.Array(types.int32, 1, "C"), _FLOATS_2, _FLOATS_1, _FLOATS_2, _FLOATS_2)
"""What every kernel takes: code, b, p, state, out; see `registry.Kernel`."""


def address_of(kernel: Kernel) -> int:
    """Where the machine code of a kernel begins, compiled now if it was not; valid while the kernel exists."""
    dispatcher: Any = kernel
    if not hasattr(dispatcher, "compile"):
        raise TypeError(f"the kernel {kernel.__name__} of a feature is not compiled: put @compiled below @feature")
    dispatcher.compile(types.none(*_TAKES))
    made = dispatcher.overloads[_TAKES]
    return int(made.library.get_pointer_to_function(made.fndesc.llvm_func_name))


@intrinsic
def _call_at(typing: Any, address: Any, code: Any, b: Any, p: Any, state: Any, out: Any) -> Any:
    """Call the kernel at `address`, in numba's own calling convention."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = context.call_conv.get_function_type(types.none, _TAKES)
        found = builder.inttoptr(args[0], kind.as_pointer())
        status, _ = context.call_conv.call_function(builder, found, types.none, _TAKES, args[1:])
        with cgutils.if_unlikely(builder, status.is_error):
            context.call_conv.return_status_propagate(builder, status)
        return context.get_dummy_value()

    return types.none(types.int64, *_TAKES), generate


@compiled
def compute(
    floats: Floats, ints: Ints, at: Ints, addresses: Ints, numbers: Floats, number_at: Ints, pool: Floats, state_at: Ints, symbols: int,
    out_at: Ints, columns: Ints, b: Floats, out: Floats, code: Codes, values: Floats,
) -> None:
    """Bars in, `values` (bars, columns) out. Kernel k has `numbers[number_at[k]:number_at[k + 1]]`, the rows `out_at[k]` to
    `out_at[k + 1]` of `out`, and in `pool` a state of `state_at[k + 1] - state_at[k]` columns for each symbol, after those of the
    kernels before it.
    """
    for start in range(0, len(values), CHUNK):
        n = min(CHUNK, len(values) - start)
        codes = code[:n]
        load_columns(floats, ints, start, n, at, b, codes)
        for k in range(len(addresses)):
            width = state_at[k + 1] - state_at[k]
            state = pool[state_at[k] * symbols : state_at[k + 1] * symbols].reshape(symbols, width)
            _call_at(addresses[k], codes, b, numbers[number_at[k] : number_at[k + 1]], state, out[out_at[k] : out_at[k + 1]])
        store_values(out, columns, n, values, start)


class Kernels:
    """Kernels with their numbers, and the state of each for every symbol."""

    def __init__(
        self, kernels: Sequence[Kernel], numbers: Sequence[Numbers], widths: Sequence[int], outputs: Sequence[int], columns: Sequence[int],
    ) -> None:
        """widths: columns of a kernel's state. outputs: its results. columns: which of all results are given, in order."""
        self._addresses = np.array([address_of(kernel) for kernel in kernels], np.int64)
        self._numbers, self._number_at = np.array([v for each in numbers for v in each], np.float64), _ends(len(each) for each in numbers)
        self._state_at, self._out_at = _ends(widths), _ends(outputs)
        self._columns = np.array(columns, np.int64)
        self._b, self._code = np.zeros((N_COLS, STRIDE), np.float64), np.zeros(CHUNK, np.int32)
        self._out = np.zeros((int(self._out_at[-1]), STRIDE), np.float64)
        self.symbols = 1
        self._pool = np.zeros(int(self._state_at[-1]), np.float64)

    def step(self, floats: Floats, ints: Ints, at: Ints, symbols: int) -> Floats:
        """The values (bars, columns) of bars of `symbols` symbols."""
        if symbols > self.symbols:
            self.set_states([grown(state, symbols) for state in self.states()])
        values = np.empty((len(ints), len(self._columns)), np.float64)
        compute(floats, ints, at, self._addresses, self._numbers, self._number_at, self._pool, self._state_at, self.symbols, self._out_at,
                self._columns, self._b, self._out, self._code, values)
        return values

    def states(self) -> list[Floats]:
        """The state of each kernel, (symbols, width); views."""
        ends = self._state_at * self.symbols
        return [self._pool[a:z].reshape(self.symbols, -1) for a, z in pairwise(ends)]

    def set_states(self, states: list[Floats]) -> None:
        """Take over what `states` gave; all have as many symbols."""
        self.symbols = len(states[0]) if states else 1
        self._pool = np.concatenate([np.ascontiguousarray(s, np.float64).ravel() for s in states]) if states else self._pool


def _ends(sizes: Iterable[int]) -> npt.NDArray[np.int64]:
    return np.cumsum([0, *sizes], dtype=np.int64)
