"""The performance floor: a model whose recent accuracy is below it is stopped, and trades again only once it is clearly above.

Accuracy is that of a model's last `window` scores, over all symbols in the order of the tape; before that many there is no verdict.
What stops a model must not stop its scores: hits are those of what it said, whether or not that was acted on.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from operators.compiled import kernel
from schemas.tables import Rows
from schemas.tables_models import DETECTORS, DRIFT, DRIFT_ACTIONS

ALERT_SHARE = 0.75
"""An alert where accuracy is below this share of the trained accuracy."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

COUNT, RIGHT, STOPPED, WORSE = range(4)
"""Of a model: scores so far, hits in the window, whether it is stopped, whether it is below its alert bound."""


class Fallback:
    """models: how many. window: scores that count. floor: accuracy below which a model is stopped. margin: how far above the floor it
    has to come to trade again, and above its alert bound before it can be alerted of again."""

    def __init__(self, models: int, window: int = 500, floor: float = 0.45, margin: float = 0.03) -> None:
        if window < 1 or not 0.0 <= floor <= 1.0 or margin < 0.0:
            raise ValueError(f"window {window}, floor {floor:g}, margin {margin:g}; they are at least 1, from 0 to 1, and at least 0")
        self.floor, self._margin = floor, margin
        self._hits = np.zeros((models, window), np.int8)
        self._state = np.zeros((models, 4), np.int64)
        self._trained = np.full(models, math.nan)

    def begin(self, model: int, trained: float = math.nan) -> None:
        """Another version of the model takes over: nothing is known of it but `trained`, its accuracy when it was trained, if that is
        known; without it there are no alerts."""
        self._state[model] = 0
        self._trained[model] = trained

    def step(self, model: Ints, hit: Ints) -> tuple[Bools, Bools, Floats]:
        """Scores in the order of the tape. model: index. hit: 1 right, 0 wrong, else passed over.

        stopped_after: whether the row's model is stopped from this row on. alarm: this row stopped it, or took it below its alert
        bound while it was not stopped. accuracy: over its last scores, NaN before the first.
        """
        n = len(model)
        stopped, alarm, accuracy = np.zeros(n, np.bool_), np.zeros(n, np.bool_), np.empty(n)
        _step(model, hit, self.floor, self.floor + self._margin, ALERT_SHARE * self._trained, self._margin, self._hits, self._state,
              stopped, alarm, accuracy)
        return stopped, alarm, accuracy

    @property
    def stopped(self) -> Bools:
        """Per model, whether it is stopped now."""
        return np.asarray(self._state[:, STOPPED] != 0)

    def drift(self, scores: Rows, model: Ints, stopped: Bools, alarm: Bools, accuracy: Floats) -> Rows:
        """The DRIFT rows of one `step`'s alarms: the accuracy, below the floor where it stopped the model and else below its alert bound.
        scores: rows of SCORES, one for each of model. The rest is what `step` was given and what it gave."""
        rows = DRIFT.empty(int(np.count_nonzero(alarm)))
        for name in ("ts_event_ns", "seq", "symbol", "model"):
            rows[name] = scores[name][alarm]
        rows["detector"] = DETECTORS.index("performance")
        rows["feature"] = -1
        rows["statistic"] = accuracy[alarm]
        rows["bound"] = np.where(stopped, self.floor, ALERT_SHARE * self._trained[model])[alarm]
        rows["action"] = DRIFT_ACTIONS.index("alert")
        return rows

    def snapshot(self) -> dict[str, Any]:
        return {"hits": self._hits.copy(), "state": self._state.copy(), "trained": self._trained.copy()}

    def restore(self, state: dict[str, Any]) -> None:
        if state["hits"].shape != self._hits.shape:
            raise ValueError(f"the snapshot holds (models, window) {state['hits'].shape}, here they are {self._hits.shape}")
        self._hits = np.array(state["hits"], np.int8)
        self._state = np.array(state["state"], np.int64)
        self._trained = np.array(state["trained"], np.float64)


@kernel
def _step(model: Ints, hit: Ints, floor: float, resume: float, alert: Floats, margin: float, hits: npt.NDArray[np.int8], state: Ints,
          stopped: Bools, alarm: Bools, accuracy: Floats) -> None:
    """hits: (models, window), a ring. state: (models, 4). alert: per model, NaN for none."""
    window = hits.shape[1]
    for at in range(len(model)):
        m = model[at]
        s = state[m]
        if hit[at] == 0 or hit[at] == 1:
            place = s[COUNT] % window
            if s[COUNT] >= window:
                s[RIGHT] -= hits[m, place]
            hits[m, place] = hit[at]
            s[RIGHT] += hit[at]
            s[COUNT] += 1
            if s[COUNT] >= window:
                share = s[RIGHT] / window
                if s[STOPPED] == 1:
                    s[STOPPED] = 0 if share > resume else 1
                elif share < floor:
                    s[STOPPED] = 1
                    alarm[at] = True
                if s[WORSE] == 1:
                    s[WORSE] = 1 if share < alert[m] + margin else 0
                elif share < alert[m]:
                    s[WORSE] = 1
                    alarm[at] = alarm[at] or s[STOPPED] == 0
        stopped[at] = s[STOPPED] == 1
        accuracy[at] = s[RIGHT] / min(s[COUNT], window) if s[COUNT] > 0 else math.nan
