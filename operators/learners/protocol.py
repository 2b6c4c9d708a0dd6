"""What a learner is: `predict` one row, `learn` one row when its label is due, a state that can be saved and put back.

Promised: `predict` changes nothing; after `restore(snapshot())` on a learner of the same configuration, predictions and learning
go on as if nothing had happened, bit for bit. Rows are given in the order of the tape.
"""

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]


class Learner(Protocol):
    """An online learner of one key (a symbol, a group, or all)."""

    learned: int
    """Labels learned so far."""
    version: int
    """How often it was replaced or reset."""
    last_statistic: float
    """What the drift detector measured when it last spoke, and what it allows."""
    last_bound: float

    def predict(self, x: dict[str, float]) -> float:
        """The probability that the label is up (classify), the label (regress), or an anomaly score from 0 to 1 (anomaly)."""
        ...

    def learn(self, x: dict[str, float], value: float, up: int, predicted: float) -> str:
        """Learn a row from its label. predicted: what `predict` said of it when it was new, NaN where it abstained. Gives the drift action
        that this caused: "", "alert", "reset" or "replace"."""
        ...

    def snapshot(self) -> Any:
        """The whole state as plain, picklable values that later steps do not change."""
        ...

    def restore(self, state: Any) -> None:
        """Put back what `snapshot` gave."""
        ...


class Batch(Protocol):
    """A trained model that does not learn: the same row gives the same number in whatever batch."""

    def predict(self, rows: npt.NDArray[np.float64]) -> Vector:
        """float64 (rows, features) to float64 (rows,): the probability of up, or the label."""
        ...
