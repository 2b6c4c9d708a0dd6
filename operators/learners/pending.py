"""Predictions that wait for their labels: a ring per symbol, as long as a horizon has bars.

A bar's predictions are put in when they are made and found again by the tape position of their bar when its label is released. What
the ring has overwritten is older than the horizon: its label was released, or never will be.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from operators.compiled import kernel
from operators.state import grown

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@kernel
def _advance(symbols: Ints, seqs: Ints, floats: Floats, ints: Ints, released: Ints, made_seqs: Ints, ring_seq: Ints, ring_floats: Floats,
             ring_ints: Ints, count: Ints, out_floats: Floats, out_ints: Ints, found: Bools) -> None:
    """Rows in order; before a row is put in, the labels that it releases look for theirs. released: the row of each label, ascending."""
    size = ring_seq.shape[1]
    label = 0
    for i in range(len(symbols)):
        s = symbols[i]
        while label < len(released) and released[label] == i:
            for back in range(1, min(size, count[s]) + 1):
                at = (count[s] - back) % size
                if ring_seq[s, at] == made_seqs[label]:
                    out_floats[label] = ring_floats[s, at]
                    out_ints[label] = ring_ints[s, at]
                    found[label] = True
                    break
                if ring_seq[s, at] < made_seqs[label]:
                    break
            label += 1
        at = count[s] % size
        ring_seq[s, at] = seqs[i]
        ring_floats[s, at] = floats[i]
        ring_ints[s, at] = ints[i]
        count[s] += 1


class Pending:
    """bars: how many bars a horizon has at most. floats, ints: how many numbers of each kind a bar carries."""

    def __init__(self, bars: int, floats: int, ints: int) -> None:
        self._size = bars + 2
        self._seq = np.full((1, self._size), -1, np.int64)
        self._floats = np.zeros((1, self._size, floats), np.float64)
        self._ints = np.zeros((1, self._size, ints), np.int64)
        self._count = np.zeros(1, np.int64)

    def step(self, symbols: Ints, seqs: Ints, floats: Floats, ints: Ints, released: Ints, made_seqs: Ints, n_symbols: int
             ) -> tuple[Floats, Ints, Bools]:
        """Put rows in; what was put in for the bars of these labels, and whether it was there.

        symbols, seqs: (rows,). floats, ints: (rows, …). released, made_seqs: (labels,), released ascending.
        """
        self._seq, self._count = grown(self._seq, n_symbols, -1), grown(self._count, n_symbols)
        self._floats, self._ints = grown(self._floats, n_symbols), grown(self._ints, n_symbols)
        n = len(released)
        out_floats, out_ints = np.full((n, floats.shape[1]), np.nan), np.zeros((n, ints.shape[1]), np.int64)
        found = np.zeros(n, np.bool_)
        _advance(symbols, seqs, floats, ints, released, made_seqs, self._seq, self._floats, self._ints, self._count, out_floats, out_ints,
                 found)
        return out_floats, out_ints, found

    def snapshot(self) -> Any:
        return [each.copy() for each in (self._seq, self._floats, self._ints, self._count)]

    def restore(self, state: Any) -> None:
        self._seq, self._floats, self._ints, self._count = (each.copy() for each in state)
