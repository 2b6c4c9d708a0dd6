"""What following a forecast would have earned and risked: trades, returns per period, drawdown, value at risk, expected shortfall.

A position is opened at the forecast's bar and closed at the bar that ended its label, one per symbol at a time, every symbol with an equal
share of the capital, the same amount each time: so returns add up, and nothing is known before it was.
"""

from dataclasses import dataclass

import numpy as np

from research.learning.evaluation import Floats, Ints, Outcomes


@dataclass(frozen=True)
class Trades:
    """(trades,) each, by time of exit. net: simple return after costs, as a share of what was put in."""

    ts_entry_ns: Ints
    ts_exit_ns: Ints
    symbol: Ints
    direction: Ints
    net: Floats
    symbols: int


def trades_of(o: Outcomes, cost_bps: float, threshold: float = 0.0) -> Trades:
    """Trade the direction of each forecast, long and short. cost_bps: of one side, in hundredths of a percent. threshold: a probability has
    to be this far from even, or a score from 0."""
    far = np.abs(o.score - 0.5) if o.task == "classify" else np.abs(o.score)
    side = np.where(np.nan_to_num(far, nan=-1.0) >= threshold, o.direction, 0)
    taken: list[Ints] = []
    for code in np.unique(o.symbol):
        rows = np.flatnonzero((o.symbol == code) & (side != 0))
        rows = rows[np.argsort(o.ts_ns[rows], kind="stable")]
        following = np.searchsorted(o.ts_ns[rows], o.ts_end_ns[rows])
        at, mine = 0, []
        while at < len(rows):
            mine.append(at)
            at = max(int(following[at]), at + 1)
        taken.append(rows[np.array(mine, np.int64)])
    chosen = np.concatenate(taken) if taken else np.empty(0, np.int64)
    chosen = chosen[np.lexsort((o.symbol[chosen], o.ts_end_ns[chosen]))]
    net = side[chosen] * np.expm1(o.return_[chosen]) - 2.0 * cost_bps / 1e4
    return Trades(o.ts_ns[chosen], o.ts_end_ns[chosen], o.symbol[chosen], side[chosen], net, max(1, len(np.unique(o.symbol))))


def period_returns(t: Trades, ts_from_ns: int, ts_to_ns: int, period_ns: int) -> Floats:
    """Return on the capital of every whole or begun period in [from, to], by time of exit; 0 where nothing was traded."""
    first, last = ts_from_ns // period_ns, ts_to_ns // period_ns
    per = np.bincount((t.ts_exit_ns // period_ns - first).astype(np.int64), t.net / t.symbols, int(last - first) + 1)
    return per.astype(np.float64)


def drawdown(returns: Floats) -> float:
    """The deepest fall from a peak of the summed returns, as a share of the capital put in; the start counts as a peak."""
    equity = np.concatenate(([0.0], np.cumsum(returns)))
    return float(np.max(np.maximum.accumulate(equity) - equity))


def value_at_risk(returns: Floats, level: float) -> float:
    """Historical value at risk: the smallest loss that is not exceeded with probability `level` (Jorion 2006, chapter 10): the inverse of
    the empirical distribution of losses, no interpolation. A gain is a negative loss; NaN without returns."""
    if not len(returns):
        return float("nan")
    return float(np.quantile(-returns, level, method="inverted_cdf"))


def expected_shortfall(returns: Floats, level: float) -> float:
    """Historical expected shortfall: the mean of the worst 1 - level of the returns, the return at the edge counted by the share of it that
    belongs there (Acerbi and Tasche 2002, proposition 4.1)."""
    n = len(returns)
    if n == 0:
        return float("nan")
    losses = np.sort(-returns)[::-1]
    tail = n * (1.0 - level)
    whole = min(int(np.floor(tail + 1e-9)), n)
    rest = max(0.0, tail - whole)
    total = float(losses[:whole].sum()) + (rest * float(losses[whole]) if whole < n else 0.0)
    return total / tail


@dataclass(frozen=True)
class Risk:
    """Figures per period and in all; the levels are 95 and 99 %."""

    periods: int
    trades: int
    net: float
    mean: float
    drawdown: float
    var_95: float
    var_99: float
    es_95: float
    es_99: float
    win_rate: float
    profit_factor: float


def risk_of_returns(returns: Floats, trades: int, win_rate: float = float("nan"), profit_factor: float = float("nan")) -> Risk:
    """The figures of returns per period."""
    if not len(returns):
        nan = float("nan")
        return Risk(0, 0, 0.0, nan, 0.0, nan, nan, nan, nan, nan, nan)
    return Risk(len(returns), trades, float(returns.sum()), float(returns.mean()), drawdown(returns), value_at_risk(returns, 0.95),
                value_at_risk(returns, 0.99), expected_shortfall(returns, 0.95), expected_shortfall(returns, 0.99), win_rate, profit_factor)


def risk(o: Outcomes, cost_bps: float, period_ns: int, threshold: float = 0.0) -> tuple[Risk, Floats]:
    """The figures of following `o`, and the returns per period that they are of."""
    if not len(o):
        return risk_of_returns(np.empty(0), 0), np.empty(0)
    trades = trades_of(o, cost_bps, threshold)
    returns = period_returns(trades, int(o.ts_ns.min()), int(o.ts_end_ns.max()), period_ns)
    won, lost = float(trades.net[trades.net > 0].sum()), float(-trades.net[trades.net < 0].sum())
    win_rate = float(np.mean(trades.net > 0)) if len(trades.net) else float("nan")
    return risk_of_returns(returns, len(trades.net), win_rate, won / lost if lost > 0 else float("nan")), returns
