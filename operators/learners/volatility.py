"""Realised daily volatility: the standard deviation of a symbol's last one-bar log returns times the square root of the bars in a day.

A window holds its returns and nothing of those that left it, so the same bars give the same number however they were cut.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from operators.compiled import kernel
from operators.market.features.windows import moments_push, moments_size
from operators.state import grown
from schemas.intervals import INTERVAL_UNITS_NS

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Volatility:
    """interval_ns: length of a bar. bars: how many returns; at least 2. An empty interval has no bar, and the return over it is one."""

    def __init__(self, interval_ns: int, bars: int = 60) -> None:
        if bars < 2:
            raise ValueError(f"a volatility of {bars} returns; at least 2")
        self._bars = bars
        self._bars_a_day = INTERVAL_UNITS_NS["d"] / interval_ns
        self._state = np.zeros((0, 1 + moments_size(bars)))

    def step(self, closes: Floats, symbols: Ints, n_symbols: int) -> Floats:
        """Closes in the order of the tape to (rows,): 0.05 is 5 % a day; NaN until a symbol has bars + 1 closes."""
        self._state = grown(self._state, n_symbols)
        out = np.empty(len(closes))
        _step(closes, symbols, self._bars, self._bars_a_day, self._state, out)
        return out

    def snapshot(self) -> Any:
        return self._state.copy()

    def restore(self, state: Any) -> None:
        if state.shape[1] != self._state.shape[1]:
            raise ValueError(f"the snapshot's windows take {state.shape[1]} numbers, these take {self._state.shape[1]}")
        self._state = np.array(state, np.float64)


@kernel
def _step(closes: Floats, symbols: Ints, n: int, bars_a_day: float, state: Floats, out: Floats) -> None:
    """state: (symbols, 1 + window): the last close, 0 where there is none, and the returns. The sample's standard deviation."""
    for at in range(len(closes)):
        r = symbols[at]
        last = state[r, 0]
        state[r, 0] = closes[at]
        out[at] = math.nan
        if last > 0.0:
            _, variance = moments_push(state, r, 1, n, math.log(closes[at] / last))
            out[at] = math.sqrt(variance * (n / (n - 1.0)) * bars_a_day)
