"""The market that everything is measured on: a seeded random walk on a price grid, the same for us and for the peers.

A tick of 1.0 at 60,000, a spread of one tick, a print every 100 ms on average (exponential) that lifts the offer or hits
the bid, and a touch that moves one tick before half of the prints.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from operators.assembly import Plan, plan
from research.replaying import enabled, load_strategies
from schemas.config import Config
from schemas.frame import Frame
from schemas.policy import Policy
from schemas.tables import BARS, BEATS, BUY, RECORDED, SELL, TRADES, Rows

MINUTE_NS = 60 * 10**9
START_NS = 1_700_000_040 * 10**9
"""A whole minute."""
SHARED = np.dtype([("ts_event_ns", "i8"), ("bid", "f8"), ("price", "f8"), ("size", "f8"), ("buy", "i8")])
"""What is written for the peers."""
OPEN_POLICY = Policy(
    {
        "daily_trades_max": "1000000",
        "daily_loss_max": "100 %",
        "weekly_loss_max": "100 %",
        "drawdown_reduce": "99 %",
        "drawdown_halt": "100 %",
        "cooldown_after_loss": "0 s",
        "notional_per_trade": "1 %",
    }
)
"""Every limit is asked for every proposal, and none ends the trading: peers without a gate trade to the end of the tape."""


def shared_trades(n: int, seed: int = 1) -> npt.NDArray[Any]:
    """The trades as the peers read them."""
    rng = np.random.default_rng(seed)
    out = np.zeros(n, SHARED)
    out["ts_event_ns"] = START_NS + np.cumsum(rng.exponential(1e8, n).astype(np.int64) + 1)
    u = rng.random(n)
    out["bid"] = 60_000.0 + np.cumsum(np.where(u < 0.25, 1.0, np.where(u < 0.5, -1.0, 0.0)))
    out["buy"] = rng.random(n) < 0.5
    out["price"] = out["bid"] + out["buy"]
    out["size"] = np.round(rng.random(n) * 0.1 + 0.001, 3)
    return out


def trade_rows(shared: npt.NDArray[Any]) -> Rows:
    """The same trades as rows of the table."""
    rows = TRADES.empty(len(shared))
    for name in ("ts_event_ns", "price", "size"):
        rows[name] = shared[name]
    rows["seq"] = rows["trade_id"] = np.arange(len(shared))
    rows["side"] = np.where(shared["buy"] == 1, BUY, SELL)
    return rows


def recorded_bars(n: int, symbols: int = 1, seed: int = 1) -> Rows:
    """`n` one-minute bars in all, symbol after symbol within each minute."""
    rng = np.random.default_rng(seed)
    minutes = -(-n // symbols)
    closes = 60_000.0 * np.exp(np.cumsum(rng.normal(0.0, 1e-3, (minutes, symbols)), axis=0))
    opens = np.vstack([np.full((1, symbols), 60_000.0), closes[:-1]])
    rows = RECORDED.empty(minutes * symbols)
    rows["ts_open_ns"] = np.repeat(START_NS + MINUTE_NS * np.arange(minutes), symbols)
    rows["ts_close_ns"] = rows["ts_event_ns"] = rows["ts_open_ns"] + MINUTE_NS
    rows["interval_ns"] = MINUTE_NS
    rows["symbol"] = np.tile(np.arange(symbols), minutes)
    rows["open"], rows["close"] = opens.ravel(), closes.ravel()
    rows["high"] = np.maximum(rows["open"], rows["close"]) * (1.0 + rng.random(len(rows)) * 1e-3)
    rows["low"] = np.minimum(rows["open"], rows["close"]) * (1.0 - rng.random(len(rows)) * 1e-3)
    rows["volume"] = np.round(rng.random(len(rows)) * 50.0 + 0.1, 3)
    rows["vwap"] = (rows["high"] + rows["low"]) / 2.0
    rows["notional"] = rows["vwap"] * rows["volume"]
    rows["trades"] = 600
    rows["buy_volume"] = rows["volume"] * rng.random(len(rows))
    for name in ("bid", "ask", "bid_size", "ask_size"):
        rows[name] = np.nan
    rows["seq"] = rows["first_seq"] = rows["last_seq"] = np.arange(len(rows))
    rows["ts_first_ns"], rows["ts_last_ns"] = rows["ts_open_ns"], rows["ts_close_ns"] - 1
    return rows[:n]


def frames_of(table: str, rows: Rows, symbols: Sequence[str], batch_rows: int = 65_536) -> list[Frame]:
    """The rows cut into frames, the first with the record that enables trading."""
    names = tuple(symbols)

    def cut() -> Iterator[Frame]:
        for number, start in enumerate(range(0, len(rows), batch_rows)):
            part = rows[start : start + batch_rows]
            yield Frame("bench", number, int(part["ts_event_ns"][-1]), names, {table: part})

    return list(enabled(cut()))


def cross_plan(
    features: Sequence[str] = (), strategies: Sequence[str] = ("ema_cross",), policy: Policy = OPEN_POLICY
) -> Plan:
    """EMA 10/30 cross on one-minute bars, under limits that are all asked and never end the trading."""
    config = Config(
        features={MINUTE_NS: tuple(features)} if features else {}, policy=policy, strategies=tuple(strategies)
    )
    return plan(config, load_strategies(config.strategies))


def saved(shared: npt.NDArray[Any], folder: str) -> str:
    """Writes the peers' input; returns its path."""
    path = Path(folder) / "trades.npy"
    np.save(path, shared)
    return str(path)


def minute_bars(closes: Any, first: int, symbols: tuple[str, ...], random: Any) -> Frame:
    """Recorded minute bars from closes (minutes + 1, symbols), the first row being those before; `first` is the number of the first minute.
    An open is the close before."""
    minutes, n = len(closes) - 1, len(symbols)
    out = RECORDED.empty(minutes * n)
    out["symbol"] = np.tile(np.arange(n), minutes)
    out["open"], out["close"] = closes[:-1].ravel(), closes[1:].ravel()
    out["high"], out["low"] = np.maximum(out["open"], out["close"]) * 1.0005, np.minimum(out["open"], out["close"]) * 0.9995
    out["volume"], out["trades"], out["interval_ns"] = random.uniform(1, 9, len(out)), 10, MINUTE_NS
    out["vwap"] = (out["open"] + out["close"]) / 2
    out["notional"] = out["vwap"] * out["volume"]
    out["ts_open_ns"] = START_NS + np.repeat(np.arange(first, first + minutes), n) * MINUTE_NS
    out["ts_close_ns"] = out["ts_event_ns"] = out["ts_open_ns"] + MINUTE_NS
    out["ts_first_ns"], out["ts_last_ns"] = out["ts_open_ns"], out["ts_close_ns"] - 1
    for name in ("buy_volume", "bid", "ask", "bid_size", "ask_size"):
        out[name] = np.nan
    out["seq"] = first * n + np.arange(len(out))
    return Frame("bench", first // minutes, int(out["ts_event_ns"][-1]), symbols, {"recorded": out})


__all__ = [
    "BARS",
    "BEATS",
    "MINUTE_NS",
    "OPEN_POLICY",
    "START_NS",
    "minute_bars",
    "cross_plan",
    "frames_of",
    "recorded_bars",
    "saved",
    "shared_trades",
    "trade_rows",
]
