"""The compiled loops of the rule language's nodes that remember: crossings, lags and the other timeframe's last bar.

State is per symbol and never depends on how the rows were cut into batches. Rows of one symbol come in tape order; all
arrays are C-contiguous.
"""

from typing import Any

import numpy as np
from numba import njit

UNKNOWN, BELOW, EQUAL, ABOVE = 0, 1, 2, 3
"""What `cross` remembers of a symbol's last bar: how left lay to right; unknown where one was NaN, and at the start."""


@njit(cache=True, nogil=True)
def cross(left: Any, right: Any, out: Any, symbols: Any, before: Any, negated: bool) -> None:
    """out: left was at or below right and is above it now; negated: all four values are known, and it is not so."""
    for i in range(len(symbols)):
        now = UNKNOWN
        if left[i] > right[i]:
            now = ABOVE
        elif left[i] < right[i]:
            now = BELOW
        elif left[i] == right[i]:
            now = EQUAL
        was = before[symbols[i]]
        crossed = now == ABOVE and was in (BELOW, EQUAL)
        if negated:
            out[i] = now != UNKNOWN and was != UNKNOWN and not crossed
        else:
            out[i] = crossed
        before[symbols[i]] = now


@njit(cache=True, nogil=True)
def lag(values: Any, out: Any, symbols: Any, ring: Any) -> None:
    """out: the symbol's value n bars ago, NaN before there was one.

    ring: (symbols, n + 1), NaN at the start; its last column is the place of the oldest value (NaN stands for 0).
    """
    n = ring.shape[1] - 1
    for i in range(len(symbols)):
        s = symbols[i]
        at = 0 if np.isnan(ring[s, n]) else int(ring[s, n])
        out[i] = ring[s, at]
        ring[s, at] = values[i]
        ring[s, n] = at + 1 if at + 1 < n else 0


@njit(cache=True, nogil=True)
def as_of(
    symbols: Any, seqs: Any, from_symbols: Any, from_seqs: Any, values: Any, last: Any, registers: Any, to: Any
) -> None:
    """The last row of another timeframe that was known at each row: the one whose seq is at or below the row's.

    values: (from rows, columns); last: (symbols, columns), what was known before the batch, brought up to its end;
    registers[to[j]] receives column j. Both seqs ascend.
    """
    k = 0
    m = len(from_seqs)
    for i in range(len(seqs)):
        while k < m and from_seqs[k] <= seqs[i]:
            for j in range(len(to)):
                last[from_symbols[k], j] = values[k, j]
            k += 1
        for j in range(len(to)):
            registers[to[j], i] = last[symbols[i], j]
    while k < m:
        for j in range(len(to)):
            last[from_symbols[k], j] = values[k, j]
        k += 1
