"""The summary of a run: what the account did, in numbers, gathered frame by frame in bounded memory.

Ratios are annualised from equity changes over whole hours (24 x 365.25 a year), with a risk-free rate of zero. A trade is a
round trip of one strategy in one symbol; it wins if it made money after fees.
"""

import math
from typing import Any

import numpy as np

from schemas.frame import Frame
from schemas.money import to_decimal
from schemas.policy import Policy, compile_policy
from schemas.tables_desk import DECISIONS, EQUITY, FILLS, REASONS

HOURS_A_YEAR = 24 * 365.25
_HOUR_NS = 3600 * 10**9


class Summary:
    """Feed it the frames in order."""

    def __init__(self, policy: Policy) -> None:
        self.capital = int(compile_policy(policy)["capital"][0])
        self.counts: dict[str, int] = {}
        self.rows = 0
        self.refusals = np.zeros(len(REASONS), np.int64)
        self.trades = self.wins = 0
        self.gains = self.losses = 0
        self.fees = 0
        self.peak, self.drawdown_max = self.capital, 0.0
        self.equity = self.capital
        self._hour, self._hour_equity = -1, self.capital
        self._n, self._sum, self._sum2 = 0, 0.0, 0.0

    def add(self, frame: Frame) -> None:
        """Count a frame."""
        for name, rows in frame.tables.items():
            if name == "account":
                continue  # the account's state after the frame, not a record
            self.counts[name] = self.counts.get(name, 0) + len(rows)
        for found in frame.features:
            self.counts["features"] = self.counts.get("features", 0) + len(found.bars)
        decisions = frame.rows(DECISIONS)
        if len(decisions):
            self.refusals += np.bincount(decisions["reason"], minlength=len(REASONS))
        fills = frame.rows(FILLS)
        if len(fills):
            self.fees += int(fills["fee"].sum())
            made = fills["trade_pnl"][fills["closed"] == 1]
            self.trades += len(made)
            self.wins += int((made > 0).sum())
            self.gains += int(made[made > 0].sum())
            self.losses -= int(made[made < 0].sum())
        equity = frame.rows(EQUITY)
        if len(equity):
            self._equity(equity["ts_event_ns"], equity["equity"])

    def _equity(self, ts: Any, equity: Any) -> None:
        peaks = np.maximum(np.maximum.accumulate(equity), self.peak)
        self.drawdown_max = max(self.drawdown_max, float(((peaks - equity) / peaks).max()))
        self.peak = int(peaks[-1])
        hours = ts // _HOUR_NS
        for k in np.flatnonzero(np.diff(hours, prepend=self._hour)):
            value = int(equity[k])
            if self._hour >= 0 and self._hour_equity > 0:
                change = value / self._hour_equity - 1.0
                self._n, self._sum, self._sum2 = self._n + 1, self._sum + change, self._sum2 + change * change
            self._hour, self._hour_equity = int(hours[k]), value

    def sharpe(self) -> float | None:
        """Annualised Sharpe ratio (Sharpe 1994) of hourly equity changes; None where there are fewer than two or none moves."""
        if self._n < 2:
            return None
        mean = self._sum / self._n
        variance = (self._sum2 - self._n * mean * mean) / (self._n - 1)
        return mean / math.sqrt(variance) * math.sqrt(HOURS_A_YEAR) if variance > 1e-24 else None

    def values(self, equity_final: int) -> dict[str, Any]:
        """The numbers, as JSON takes them; money as decimal text with eight places, exact."""
        self.drawdown_max = max(self.drawdown_max, (self.peak - equity_final) / self.peak)
        refused = {REASONS[k]: int(n) for k, n in enumerate(self.refusals) if k and n}
        return {
            "equity_final": f"{to_decimal(equity_final):f}", "pnl": f"{to_decimal(equity_final - self.capital):f}",
            "fees": f"{to_decimal(self.fees):f}", "drawdown_max": self.drawdown_max, "sharpe": self.sharpe(),
            "win_rate": self.wins / self.trades if self.trades else None,
            "profit_factor": self.gains / self.losses if self.losses else None,
            "trades": self.trades, "refusals": dict(sorted(refused.items(), key=lambda item: -item[1])),
        }
