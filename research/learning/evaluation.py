"""How good a model was out of sample: errors, direction, ranking and calibration, in all, per symbol, per regime and over time.

Every figure is a function of forecasts that were made before what came true was known. What a figure cannot be computed from (one class
only, no spread, no probability) is NaN, never a number made up.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

REGIMES = ("calm", "usual", "volatile")
P_MIN = 1e-6
"""Probabilities are kept this far from 0 and 1 in the log loss, as in the table `scores`."""
BINS = 10


@dataclass(frozen=True)
class Outcomes:
    """Forecasts beside what came true: (rows,) each, by time made, then symbol.

    name: whose. task: classify (score is a probability, and p_up the same) or regress (p_up is NaN throughout). symbol: codes into
    `symbols`. regime: index into REGIMES. horizon_bars: how many bars a label spans at most, which is how far forecasts overlap.
    """

    name: str
    task: str
    ts_ns: Ints
    ts_end_ns: Ints
    symbol: Ints
    symbols: tuple[str, ...]
    regime: Ints
    score: Floats
    p_up: Floats
    value: Floats
    up: Ints
    return_: Floats
    horizon_bars: int = 1

    def __len__(self) -> int:
        return len(self.ts_ns)

    def where(self, mask: Bools | Ints) -> "Outcomes":
        """The rows of a mask, or by their numbers."""
        return replace(self, **{name: getattr(self, name)[mask] for name in _COLUMNS})

    def saying(self, score: Floats, name: str, task: str | None = None) -> "Outcomes":
        """What another forecast says of the same rows."""
        kind = task or self.task
        return replace(self, name=name, task=kind, score=score, p_up=score.copy() if kind == "classify" else np.full(len(score), np.nan))

    @property
    def direction(self) -> Ints:
        """1 up, -1 down, 0 neither."""
        centre = self.score - 0.5 if self.task == "classify" else self.score
        return np.where(np.isfinite(centre), np.sign(centre), 0.0).astype(np.int64)

    @property
    def loss(self) -> Floats:
        """Per row: log loss of a probability, else squared error."""
        if self.task == "classify":
            p = np.clip(self.p_up, P_MIN, 1.0 - P_MIN)
            return np.asarray(-np.log(np.where(self.up == 1, p, 1.0 - p)))
        return np.asarray((self.score - self.value) ** 2)


_COLUMNS = ("ts_ns", "ts_end_ns", "symbol", "regime", "score", "p_up", "value", "up", "return_")


def auc(score: Floats, up: Ints) -> float:
    """Area under the receiver operating characteristic, as the Mann-Whitney statistic with mid-ranks for ties (Hanley and McNeil 1982)."""
    n_up = int(np.count_nonzero(up == 1))
    n_down = len(up) - n_up
    if n_up == 0 or n_down == 0:
        return float("nan")
    ranks = rankdata(score)
    return float((ranks[up == 1].sum() - n_up * (n_up + 1) / 2) / (n_up * n_down))


def rank_correlation(a: Floats, b: Floats) -> float:
    """Spearman's rank correlation; NaN where one of them does not vary."""
    if len(a) < 3:
        return float("nan")
    ra, rb = rankdata(a) - (len(a) + 1) / 2, rankdata(b) - (len(b) + 1) / 2
    spread = float(np.sqrt((ra @ ra) * (rb @ rb)))
    return float(ra @ rb) / spread if spread > 0 else float("nan")


@dataclass(frozen=True)
class Bin:
    """One bin of a reliability table: how often it was up where about this much was said."""

    low: float
    high: float
    rows: int
    said: float
    came_true: float


def reliability(p_up: Floats, up: Ints, bins: int = BINS) -> list[Bin]:
    """Bins of equal width over [0, 1], the last closed; those without rows are left out (Murphy and Winkler 1977)."""
    at = np.minimum((p_up * bins).astype(np.int64), bins - 1)
    found = []
    for k in range(bins):
        mine = at == k
        n = int(np.count_nonzero(mine))
        if n:
            found.append(Bin(k / bins, (k + 1) / bins, n, float(p_up[mine].mean()), float(up[mine].mean())))
    return found


def calibration_error(table: Sequence[Bin]) -> float:
    """Expected calibration error: the mean |said - came true| over bins, by rows (Naeini, Cooper and Hauskrecht 2015)."""
    rows = sum(b.rows for b in table)
    return sum(b.rows * abs(b.said - b.came_true) for b in table) / rows if rows else float("nan")


METRICS = ("rows", "accuracy", "decided", "ic", "auc", "log_loss", "brier", "calibration_error", "rmse", "mae", "r2", "base_rate")
"""rows; accuracy: share of right directions where there was one, and `decided`: how many had one; ic: rank correlation of forecast and
return; errors are those of the probability against 0 or 1 (classify), or of the score against the label (regress); r2 is against the
mean of what came true; base_rate: share of labels that were up."""


def metrics(o: Outcomes) -> dict[str, float]:
    """All METRICS of some rows. Rows without a finite score are not forecasts and are left out."""
    o = o if np.isfinite(o.score).all() else o.where(np.isfinite(o.score))
    out = dict.fromkeys(METRICS, float("nan"))
    n = len(o)
    out["rows"], out["decided"] = float(n), 0.0
    if n == 0:
        return out
    direction = o.direction
    said = direction != 0
    decided = int(np.count_nonzero(said))
    out["decided"] = float(decided)
    if decided:
        out["accuracy"] = float(np.mean((direction[said] > 0) == (o.up[said] == 1)))
    classify = o.task == "classify"
    target = o.up.astype(np.float64) if classify else o.value
    error = o.score - target
    spread = float(np.sum((target - target.mean()) ** 2))
    out["rmse"], out["mae"] = float(np.sqrt(np.mean(error**2))), float(np.mean(np.abs(error)))
    out["r2"] = 1.0 - float(np.sum(error**2)) / spread if spread > 0 else float("nan")
    out["ic"], out["auc"], out["base_rate"] = rank_correlation(o.score, o.return_), auc(o.score, o.up), float(np.mean(o.up == 1))
    if classify:
        out["log_loss"], out["brier"] = float(o.loss.mean()), float(np.mean((o.p_up - o.up) ** 2))
        out["calibration_error"] = calibration_error(reliability(o.p_up, o.up))
    return out


def per_symbol(o: Outcomes) -> dict[str, dict[str, float]]:
    """METRICS by symbol, by name."""
    codes = sorted({int(c) for c in np.unique(o.symbol)}, key=lambda c: o.symbols[c])
    return {o.symbols[c]: metrics(o.where(o.symbol == c)) for c in codes}


def per_regime(o: Outcomes) -> dict[str, dict[str, float]]:
    """METRICS by regime, those that came up."""
    return {name: metrics(o.where(o.regime == k)) for k, name in enumerate(REGIMES) if np.any(o.regime == k)}


def rolling(o: Outcomes, window_ns: int, step_ns: int | None = None) -> list[dict[str, float]]:
    """METRICS of the labels that became known in windows (t - window, t], t every `step_ns` (default: the window) from the first full
    window on; with ts_ns = t. The last window ends at the last label."""
    if len(o) == 0:
        return []
    step = step_ns or window_ns
    first, last = int(o.ts_end_ns.min()), int(o.ts_end_ns.max())
    ends = [last - k * step for k in range(max(0, (last - first - window_ns + step) // step) + 1)]
    found = []
    for end in reversed(ends):
        part = o.where((o.ts_end_ns > end - window_ns) & (o.ts_end_ns <= end))
        if len(part):
            found.append({"ts_ns": float(end), **metrics(part)})
    return found


def sums_by_time(ts_ns: Ints, *values: Floats) -> tuple[Floats, ...]:
    """Per column its sum over symbols at each time, in order."""
    order = np.argsort(ts_ns, kind="stable")
    ts, first = np.unique(ts_ns[order], return_index=True)
    return tuple(np.asarray(np.add.reduceat(column[order], first)) if len(ts) else np.empty(0) for column in values)


def by_time(ts_ns: Ints, values: Floats) -> Floats:
    """The mean over symbols at each time, in order: what tests over time are made on, since symbols move together."""
    total, rows = sums_by_time(ts_ns, values, np.ones(len(values)))
    return total / rows


def evaluation(o: Outcomes, window_ns: int) -> dict[str, Any]:
    """Everything about one model, as plain values."""
    table = reliability(o.p_up, o.up) if o.task == "classify" and len(o) else []
    return {
        "model": o.name, "task": o.task, "overall": metrics(o), "symbols": per_symbol(o), "regimes": per_regime(o),
        "over_time": rolling(o, window_ns), "window_ns": window_ns,
        "reliability": [{"low": b.low, "high": b.high, "rows": b.rows, "said": b.said, "came_true": b.came_true} for b in table],
        "ts_from_ns": int(o.ts_ns.min()) if len(o) else 0, "ts_to_ns": int(o.ts_end_ns.max()) if len(o) else 0,
    }


def daily_volatility_regimes(price: Floats, symbol: Ints, interval_ns: int, n_symbols: int) -> Ints:
    """The regime of each row as the pipeline tells it: from the daily volatility of the symbol's bars up to this one."""
    from operators.learners.group import CALM, VOLATILE
    from operators.learners.volatility import Volatility
    found = Volatility(interval_ns).step(np.ascontiguousarray(price), symbol.astype(np.int64), n_symbols)
    return np.where(found < CALM, 0, np.where(found >= VOLATILE, 2, 1)).astype(np.int64)


def outcomes_of_scores(name: str, task: str, columns: Mapping[str, Any], symbols: Sequence[str], interval_ns: int,
                       horizon_bars: int) -> Outcomes:
    """From columns of the table `scores`; `symbol` holds codes into `symbols`."""
    def floats(key: str) -> Floats:
        return np.asarray(columns[key], np.float64)

    def ints(key: str) -> Ints:
        return np.asarray(columns[key], np.int64)

    return Outcomes(name, task, ints("ts_open_ns") + interval_ns, ints("ts_event_ns"), ints("symbol"), tuple(symbols), ints("regime"),
                    floats("score"), floats("p_up"), floats("value"), ints("up"), floats("return_"), horizon_bars)
