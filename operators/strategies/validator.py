"""`Validator`: five layers that an entry signal has to pass before it reaches the desk; adds `validations`, one row per entry.

Exits are never held back. All layers are asked of every entry, and a refused one stays visible as a signal of strength -1. A signal is
judged by what was known at its tape position. A layer passes where, with the numbers of `ValidatorConfig`:

    statistics   of the active model's labels in the last `window_days` (all symbols), at least `hits_min` were right
    regime       the annualised sample deviation of the symbol's last `correlation_bars` log returns is at most `volatility_max`
    size         `notional` over the notional of the signal's bar is at most `participation_max`
    correlation  the returns of no position that the strategy already holds are more like this one's than `correlation_max`: Pearson's r
                 over the closes that both have among the last `correlation_bars`, with the sign turned where one is long and one short
    cost         the expected move is at least `edge_min` times `cost_bps`: the size of the model's latest prediction for the symbol where
                 that is a log return, else the mean absolute return of the last `correlation_bars` times the square root of the bars that
                 the position is to be held (15 where it has no limit)

A layer does not apply where its bound is 0, where fewer than `labels_min` labels or `correlation_bars` returns are known, where nothing
else is held, and, for the size, where a symbol shows quotes alone. A strategy holds what its last passed entry that was not lost to
another strategy said, until its next exit. Where symbols are spread over shards this operator belongs after they are joined.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from operators.state import grown
from operators.strategies import validator_kernel as kernel
from schemas.config_models import ValidatorConfig
from schemas.errors import UserError, unknown
from schemas.frame import Frame
from schemas.tables import BARS, EXIT, SIGNALS, Rows, TableSpec
from schemas.tables_models import PREDICTIONS, SCORES, VALIDATIONS

REFUSED_STRENGTH = -1.0
"""What `signals.strength` of a refused entry becomes."""
DAY_NS = 86_400 * 10**9
BARS_MAX = 10_000


class Validator:
    """The operator. strategies, models: their names, in the order of their codes: a model's is len(strategies) plus its place.

    score_is_return: whether what `config.model` predicts is a log return.
    """

    name = "validator"

    def __init__(self, config: ValidatorConfig, strategies: Sequence[str], models: Sequence[str], score_is_return: bool = False) -> None:
        _check(config, models)
        self.config = config
        self._code = len(strategies) + list(models).index(config.model) if config.model else -1
        self._score_is_return = score_is_return
        self._bucket_ns = max(round(config.window_days * DAY_NS) // kernel.BUCKETS, 1)
        self._bounds = np.array([config.hits_min if config.model else 0.0, config.volatility_max,
                                 config.participation_max if config.notional else 0.0, config.correlation_max,
                                 config.edge_min * config.cost_bps])
        self._numbers = np.array([*self._bounds, config.labels_min, config.notional])
        self._intervals_ns = np.zeros(0, np.int64)
        self._series: Rows = np.zeros((1, 0), kernel.SERIES)
        self._times = np.zeros((1, 0, config.correlation_bars + 1), np.int64)
        self._logs = np.zeros((1, 0, config.correlation_bars + 1))
        self._foreseen = np.full(1, np.nan)
        self._held = np.zeros((1, len(strategies)), np.int64)
        self._buckets: Rows = np.full(kernel.BUCKETS, np.array((kernel.NEVER, 0, 0), kernel.HITS)[()], kernel.HITS)
        self._clock = np.full(1, kernel.NEVER, np.int64)

    def step(self, frame: Frame) -> Frame:
        signals, bars = _input(frame, SIGNALS), _input(frame, BARS)
        scores, predictions = _in_order(_input(frame, SCORES)), _in_order(_input(frame, PREDICTIONS))
        if not (len(signals) or len(bars) or len(scores) or len(predictions)):
            return frame
        self._make_room(max(len(frame.symbols), 1), bars)
        if not kernel.all_known(signals, self._intervals_ns):
            raise ValueError(f"a signal's timeframe is not among those of the bars so far, {self._intervals_ns.tolist()} ns")
        n = len(signals)
        verdicts, observed = np.zeros((n, len(self._bounds)), np.int64), np.full((n, len(self._bounds)), np.nan)
        passed = np.ones(n, np.bool_)
        kernel.advance(signals, bars, scores, predictions, self._code, self._score_is_return, self._bucket_ns, self._numbers,
                       self._intervals_ns, self._series, self._times, self._logs, self._buckets, self._foreseen, self._held, self._clock,
                       verdicts, observed, passed)
        if not n:
            return frame
        entries = np.flatnonzero(signals["action"] != EXIT)
        if not len(entries):
            return frame
        rows = VALIDATIONS.empty(len(entries))
        for column in ("ts_event_ns", "seq", "symbol", "strategy", "slot"):
            rows[column] = signals[column][entries]
        rows["passed"], rows["verdicts"], rows["observed"] = passed[entries], verdicts[entries], observed[entries]
        rows["bounds"] = self._bounds
        if passed.all():
            return frame.with_tables(validations=rows)
        judged = signals.copy()
        judged["strength"][~passed & (judged["strength"] > 0.0)] = REFUSED_STRENGTH
        return frame.with_tables(validations=rows, signals=judged)

    def _make_room(self, n_symbols: int, bars: Rows) -> None:
        """Room for every symbol, and a place for every timeframe that bars show."""
        while interval_ns := kernel.new_interval(bars, self._intervals_ns):
            self._intervals_ns = np.append(self._intervals_ns, interval_ns)
            self._series, self._times, self._logs = (
                np.concatenate([each, np.zeros((len(each), 1, *each.shape[2:]), each.dtype)], axis=1)
                for each in (self._series, self._times, self._logs))
        if n_symbols > len(self._held):
            self._series, self._held = grown(self._series, n_symbols, np.zeros((), kernel.SERIES)[()]), grown(self._held, n_symbols)
            self._times, self._logs = grown(self._times, n_symbols), grown(self._logs, n_symbols)
            self._foreseen = grown(self._foreseen, n_symbols, np.nan)

    def snapshot(self) -> dict[str, Any]:
        return {name: getattr(self, f"_{name}").copy() for name in _STATE}

    def restore(self, state: dict[str, Any]) -> None:
        if (state["logs"].shape[2], state["held"].shape[1]) != (self._logs.shape[2], self._held.shape[1]):
            raise ValueError(f"the snapshot is of {state['held'].shape[1]} strategies and windows of {state['logs'].shape[2]} closes, this "
                             f"operator has {self._held.shape[1]} and {self._logs.shape[2]}")
        for name in _STATE:
            setattr(self, f"_{name}", state[name].copy())


_STATE = ("intervals_ns", "series", "times", "logs", "foreseen", "held", "buckets", "clock")


def _input(frame: Frame, spec: TableSpec) -> Rows:
    """The rows of a table as the compiled loop takes them: contiguous, writeable, so that it is compiled once."""
    rows = frame.rows(spec)
    return rows if rows.flags.c_contiguous and rows.flags.writeable else rows.copy()


def _in_order(rows: Rows) -> Rows:
    """Rows in the order of the tape; most tables are already."""
    if len(rows) < 2 or bool((rows["seq"][1:] >= rows["seq"][:-1]).all()):
        return rows
    return rows[np.argsort(rows["seq"], kind="stable")]


def _check(config: ValidatorConfig, models: Sequence[str]) -> None:
    if config.model and config.model not in models:
        raise unknown("validator model", config.model, models)
    for each in fields(config):
        value = getattr(config, each.name)
        if each.name != "model" and not 0.0 <= value < math.inf:
            raise UserError(f"validator {each.name}: {value:g} is below 0 or not a number; 0 switches its layer off")
    if not 0.0 < config.window_days <= 3650:
        raise UserError(f"validator window_days: {config.window_days:g} is not above 0 and at most 3650")
    if not 2 <= config.correlation_bars <= BARS_MAX:
        raise UserError(f"validator correlation_bars: {config.correlation_bars} is not from 2 to {BARS_MAX}")


@dataclass(frozen=True)
class Quality:
    """Of the labels in the window that ends before `ts_end_ns`: how many there were, how many were right, and what follows.

    share: NaN without labels. verdict: APPROVE or IMPROVE.
    """

    ts_end_ns: int
    labels: int
    hits: int
    share: float
    verdict: str


def signal_quality(hits: npt.ArrayLike, ts_ns: npt.ArrayLike, window_days: float = 30.0, hits_min: float = 0.55) -> list[Quality]:
    """Rolling quality at the end of each UTC day, from the first with a label to the last.

    hits: 1 right, 0 wrong, -1 no direction (not counted). ts_ns: when each label became known, in any order. APPROVE where more than
    `hits_min` of the labels of the last `window_days` were right; IMPROVE otherwise, and where there are none.
    """
    right, when = np.asarray(hits, np.int64), np.asarray(ts_ns, np.int64)
    order = np.argsort(when[right >= 0], kind="stable")
    right, when = right[right >= 0][order], when[right >= 0][order]
    if not len(when):
        return []
    ends = np.arange(when[0] // DAY_NS + 1, when[-1] // DAY_NS + 2) * DAY_NS
    first, last = np.searchsorted(when, ends - round(window_days * DAY_NS)), np.searchsorted(when, ends)
    total = np.concatenate([[0], np.cumsum(right)])
    out = []
    for end, a, z in zip(ends.tolist(), first.tolist(), last.tolist(), strict=True):
        good = int(total[z] - total[a])
        share = good / (z - a) if z > a else math.nan
        out.append(Quality(end, z - a, good, share, "APPROVE" if share > hits_min else "IMPROVE"))
    return out
