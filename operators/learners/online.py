"""An online learner: a River model of one key that predicts, then learns, is kept within bounds, and is reset or replaced on drift.

Promised (`operators.learners.protocol`): `predict` changes nothing, and what `restore` puts back goes on bit for bit. A model that gives
what is not finite abstains, and begins again after `UNFIT_MAX` rows in a row.
"""

import math
import pickle
from contextlib import suppress
from typing import Any

import numpy as np

from operators.learners.detectors import FELL, ROSE, STEADY, WARNED, LossMonitor
from operators.learners.river_build import build, derived
from operators.learners.river_calls import STEPS_MAX, Row, bound, clip_weights, dumped, loaded, rekeyed
from operators.learners.state_digest import describe_state, state_digest, steps_of
from schemas.config_models import ModelConfig
from schemas.errors import UserError

UNFIT_MAX = 3
"""Predictions in a row that are not finite, after which a learner begins again."""
CLIP_EVERY = 64
"""Learned rows between two looks at the weights; a prediction beyond `EXTREME` brings one forward."""
EXTREME_P, EXTREME_SCORE = 0.999, 100.0
BIG_BYTES = 256 * 1024
"""A state that pickles to more is written in full only every `CHECKPOINT_EVERY` learned rows; between, the rows since go with it."""
CHECKPOINT_EVERY = 2_000
LOSS_P_MIN = 0.001
"""Probabilities are clipped to this for the loss that drift is looked for in, so it is at most 6.9."""
PROBE_ROWS = 40
_FAILURES = (ArithmeticError, ValueError, IndexError)
"""What River raises on numbers out of its range, or before it has seen enough; it counts as a prediction that is not finite."""


class Online:
    """The learner of `config` for a key: a symbol's name, a group, or all. Its seed is derived from the configuration's and the key.

    classify: `predict` gives 0.5 until both classes were seen. regress and anomaly: NaN until something was learned. A forecaster's series
    is that of the labels as they are released; it forecasts as many steps as the horizon has bars and takes the last, with the row's
    features in every step. An anomaly score beyond 0 to 1 is put there by the logistic function.

    drift: a detector sees log losses (classify), squared errors (regress) or scores (anomaly). Where they rose, the configured action
    follows. Where they fell, `learn` gives "alert" and nothing else: a model is not thrown away for getting better.

    `last_statistic` and `last_bound` are of the last action; after `UNFIT_MAX` abstentions they are their number and `UNFIT_MAX`.
    """

    def __init__(self, config: ModelConfig, key: str) -> None:
        self.config, self.key = config, key
        self.seed = derived(config.seed, key)
        self.learned = 0
        self.version = 0
        self.last_statistic = self.last_bound = math.nan
        self._where = f"models {config.name}"
        self._classify, self._regress = config.task == "classify", config.task == "regress"
        self._bars = -(-config.label.horizon_ns // config.interval_ns)
        self._monitor = self._watch() if config.drift.detector != "none" else None
        self._wait_with(None, 0, 0)
        self._ups = 0
        self._ready = False
        self._unfit = 0
        self._core: bytes | None = None
        self._tail: list[tuple[tuple[float, ...], float, int, float]] | None = None
        self._names: tuple[str, ...] = ()
        self._use(build(config, self.seed))

    def _watch(self) -> LossMonitor:
        return LossMonitor(self.config.drift, self._bars, derived(self.seed, "drift"), self._where)

    def _wait_with(self, model: Any, rows: int, ups: int) -> None:
        """Have this learner wait in the background, or none."""
        self._background, self._background_rows, self._background_ups = model, rows, ups
        self._background_teach = None if model is None else bound(model, self.config, self._bars)[1]

    def _use(self, model: Any) -> None:
        """Bind a model's methods once, so that a row costs no look-ups."""
        self.model = model
        self._score, self._teach = bound(model, self.config, self._bars)

    def predict(self, x: Row) -> float:
        """See `Learner.predict`; NaN where the model gives what is not finite."""
        if not self._ready:
            return 0.5 if self._classify else math.nan
        try:
            said = self._score(x)
        except _FAILURES:
            return math.nan
        return said if said - said == 0.0 else math.nan

    def learn(self, x: Row, value: float, up: int, predicted: float) -> str:
        """See `Learner.learn`."""
        self._core = None if self._tail is None else self._core
        target = value if self._regress else up == 1
        failed = False
        try:
            self._teach(x, target)
        except _FAILURES:
            failed = True
        self.learned = learned = self.learned + 1
        if up == 1:
            self._ups += 1
        if not self._ready:
            self._ready = not self._classify or 0 < self._ups < learned
        if self._tail is not None:
            self._append(x, value, up, predicted)
        if self._background is not None:
            self._teach_background(x, target, up)
        if failed or predicted != predicted:  # it abstained: while it warms up, nothing follows
            return self._reset_unfit() if self._is_unfit(x, failed) else ""
        self._unfit = 0
        far = abs(predicted - 0.5) > EXTREME_P - 0.5 if self._classify else abs(predicted) > EXTREME_SCORE
        if far or learned % CLIP_EVERY == 0:
            clip_weights(self.model, self.config.bounds.weight_max)
        return "" if self._monitor is None else self._drifted(value, up, predicted)

    def _is_unfit(self, x: Row, failed: bool) -> bool:
        """Whether a model that could not learn a row, or abstained and still cannot say anything of it, did so once too often."""
        fit = self.learned <= self.config.warmup or (not failed and (not self._ready or not math.isnan(self.predict(x))))
        self._unfit = 0 if fit else self._unfit + 1
        return self._unfit >= UNFIT_MAX

    def _reset_unfit(self) -> str:
        self.last_statistic, self.last_bound = float(self._unfit), float(UNFIT_MAX)
        self._begin(build(self.config, self.seed), 0, 0)
        if self._monitor is not None:
            self._monitor = self._watch()
        return "reset"

    def _begin(self, model: Any, learned: int, ups: int) -> None:
        self.version += 1
        self.learned, self._ups, self._unfit = learned, ups, 0
        self._ready = learned > 0 and (not self._classify or 0 < ups < learned)
        self._wait_with(None, 0, 0)
        self._use(model)

    def _drifted(self, value: float, up: int, predicted: float) -> str:
        assert self._monitor is not None
        if self._classify:
            p = predicted if up == 1 else 1.0 - predicted
            loss = -math.log(max(LOSS_P_MIN, p))
        elif self._regress:
            loss = min((predicted - value) ** 2, 1e12)
        else:
            loss = predicted
        found = self._monitor.update(loss)
        if found == STEADY:
            return ""
        action = self.config.drift.action
        if found == WARNED:
            if action == "replace" and self._background is None:
                self._wait_with(build(self.config, self.seed), 0, 0)
            return ""
        self.last_statistic, self.last_bound = self._monitor.statistic, self._monitor.bound
        if found == FELL or action == "alert":
            return "alert"
        if found == ROSE and action == "replace" and self._background is not None:
            self._begin(self._background, self._background_rows, self._background_ups)
        else:
            self._begin(build(self.config, self.seed), 0, 0)
        return action

    def _teach_background(self, x: Row, target: Any, up: int) -> None:
        """Let the learner in waiting learn the row; it is dropped where no drift follows the warning in time."""
        assert self._monitor is not None and self._background_teach is not None
        with suppress(*_FAILURES):  # should it be of no use, it is found unfit when it has taken its place
            self._background_teach(x, target)
        self._background_rows += 1
        self._background_ups += up == 1
        if self._background_rows % CLIP_EVERY == 0:
            clip_weights(self._background, self.config.bounds.weight_max)
        if self._background_rows >= self._monitor.patience:
            self._wait_with(None, 0, 0)

    def _append(self, x: Row, value: float, up: int, predicted: float) -> None:
        assert self._tail is not None
        self._names = self._names or tuple(x)
        self._tail.append((tuple(x.values()), value, up, predicted))
        if len(self._tail) > CHECKPOINT_EVERY:
            self._tail = self._core = None

    def snapshot(self) -> dict[str, Any]:
        """The whole state: a pickle and, for a big model, the rows learned since it was made, at most `CHECKPOINT_EVERY`."""
        if self._core is None:
            self._core = dumped(self._state())
            self._tail = [] if len(self._core) > BIG_BYTES else None
            self._names = ()
        if not self._tail:
            return {"core": self._core, "tail": None}
        rows, values, ups, predicted = zip(*self._tail, strict=True)
        return {"core": self._core, "tail": (self._names, np.array(rows, np.float64), np.array(values, np.float64), np.array(ups, np.int64),
                                             np.array(predicted, np.float64))}

    def restore(self, state: dict[str, Any]) -> None:
        """Put back what `snapshot` gave; a tail is learned again."""
        core, tail = state["core"], state["tail"]
        (self.learned, self.version, self._ups, self._unfit, self.last_statistic, self.last_bound, self._monitor, background,
         rows, ups, model) = loaded(core)
        for each in (model, background):
            if each is not None:
                rekeyed(each)
        self._wait_with(background, rows, ups)
        self._ready = self.learned > 0 and (not self._classify or 0 < self._ups < self.learned)
        self._core, self._tail, self._names = core, [] if len(core) > BIG_BYTES else None, ()
        self._use(model)
        if tail is not None:
            names, matrix, *labels = tail
            for row, value, up, predicted in zip(matrix.tolist(), *(each.tolist() for each in labels), strict=True):
                self.learn(dict(zip(names, row, strict=True)), value, up, predicted)

    def _state(self) -> tuple[Any, ...]:
        return (self.learned, self.version, self._ups, self._unfit, self.last_statistic, self.last_bound, self._monitor, self._background,
                self._background_rows, self._background_ups, self.model)

    def digest(self) -> str:
        """64 hex digits over the whole state: equal for learners that will go on alike."""
        return state_digest(self._state())

    def describe(self) -> dict[str, Any]:
        """The state in words, as `penstock model at` prints it."""
        return {"key": self.key, "seed": self.seed, "version": self.version, "learned": self.learned, "model": describe_state(self.model)}


def check(config: ModelConfig) -> None:
    """Whether a configuration's model can be built and keeps a learner's promises, tried on a few rows; UserError where not.

    To be called once per model when a run is planned; `Online` itself does not try.
    """
    where = f"models {config.name}"
    bars = -(-config.label.horizon_ns // config.interval_ns)
    learner = Online(config, "probe")
    last = type(steps_of(learner.model)[-1]).__name__
    if last in ("SNARIMAX", "HoltWinters") and bars > STEPS_MAX:
        raise UserError(f"{where}: a horizon of {bars} bars is forecast in as many steps; {last} takes at most {STEPS_MAX}")
    score, teach = bound(learner.model, config, bars)
    try:
        for n in range(PROBE_ROWS):
            x = {name: float((n * 7 + 3 * k) % 11) / 11.0 for k, name in enumerate(config.features)}
            teach(x, n % 3 * 0.5 if config.task == "regress" else n % 2 == 1)
        before = [state_digest(step) for step in steps_of(learner.model)]
        float(score(x))
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "it has no such prediction"
        raise UserError(f"{where} pipeline: {last} cannot learn rows of numbers for the task {config.task}: "
                        f"{type(error).__name__}: {reason}") from None
    for step, earlier in zip(steps_of(learner.model), before, strict=True):
        name = type(step).__name__
        if state_digest(step) != earlier:
            raise UserError(f"{where} pipeline: {name} changes when it predicts, so a replay could not repeat it; choose another class")
        try:
            copy = loaded(dumped(step))
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise UserError(f"{where} pipeline: the state of {name} cannot be saved: {error}") from None
        if state_digest(copy) != earlier:
            raise UserError(f"{where} pipeline: the state of {name} is not the same when it was saved and read back; choose another class")
