"""How large a model's numbers usually are: the mean of |score| over all rows before, so that a score can be weighed."""

from typing import Any

import numpy as np

from operators.compiled import kernel
from operators.learners.pending import Floats


@kernel
def _advance(scores: Floats, state: Floats, out: Floats) -> None:
    for i in range(len(scores)):
        size = abs(scores[i])
        if not np.isfinite(size):
            out[i] = 0.0
            continue
        usual = state[0] / state[1] if state[1] > 0.0 else 0.0
        out[i] = size / (size + usual) if usual > 0.0 else 0.0
        state[0] += size
        state[1] += 1.0


class Usual:
    """Scores in order; gives |score| / (|score| + usual), from 0 to 1: one half at the usual size, 0 while that is unknown."""

    def __init__(self) -> None:
        self._state = np.zeros(2)

    def step(self, scores: Floats) -> Floats:
        """(rows,) to (rows,)."""
        out = np.empty(len(scores))
        _advance(scores, self._state, out)
        return out

    def snapshot(self) -> Any:
        return self._state.copy()

    def restore(self, state: Any) -> None:
        self._state = state.copy()
