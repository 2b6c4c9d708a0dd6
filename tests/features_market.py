"""Markets for the feature tests: random walks of interleaved symbols, and recorded price files, as tables of bars."""

import csv
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.tables import BARS, Rows

MINUTE_NS = 60_000_000_000
DAY_NS = 86_400_000_000_000
DATA = Path(os.environ.get("PENSTOCK_DATA", Path(__file__).parents[2] / "shared" / "data")) / "indicators"


def random_walk(bars: int, symbols: int = 1, seed: int = 7, tick: float = 0.0) -> Rows:
    """Bars of a random walk with gaps, sides and quotes; symbols interleave. tick: what prices are rounded to."""
    g = np.random.default_rng(seed)
    shape = (bars, symbols)
    close = 100.0 * np.exp(np.cumsum(g.normal(0, 0.002, shape), axis=0))
    open_ = np.vstack([np.full(symbols, 100.0), close[:-1]]) * np.exp(g.normal(0, 0.0004, shape))
    high = np.maximum(open_, close) * np.exp(np.abs(g.normal(0, 0.001, shape)))
    low = np.minimum(open_, close) * np.exp(-np.abs(g.normal(0, 0.001, shape)))
    if tick:
        open_, high, low, close = (np.round(x / tick) * tick for x in (open_, high, low, close))
    volume = g.gamma(2.0, 10.0, shape)
    columns = {
        "open": open_, "high": high, "low": low, "close": close, "volume": volume,
        "notional": volume * 0.5 * (open_ + close), "vwap": 0.5 * (open_ + close), "trades": 1 + g.poisson(30, shape),
        "buy_volume": volume * g.random(shape), "bid": close * 0.9999,
        "ask": close * (1.0001 + 0.0001 * g.random(shape)), "bid_size": g.gamma(2, 1, shape),
        "ask_size": g.gamma(2, 1, shape),
    }
    flat = {name: values.ravel() for name, values in columns.items()}
    rows = as_bars(flat, MINUTE_NS, np.repeat(np.arange(bars), symbols))
    rows["symbol"] = np.tile(np.arange(symbols), bars)
    return rows


def as_bars(columns: dict[str, npt.NDArray[Any]], interval_ns: int, number: npt.NDArray[np.int64]) -> Rows:
    """Bars of these columns, opened at `number` intervals after 2024-02-28 (a leap year)."""
    rows = BARS.empty(len(number))
    for name, values in columns.items():
        rows[name] = values
    rows["interval_ns"] = interval_ns
    rows["ts_open_ns"] = 1_709_078_400_000_000_000 + number * interval_ns
    rows["ts_close_ns"] = rows["ts_open_ns"] + interval_ns
    rows["ts_event_ns"] = rows["ts_close_ns"]
    rows["seq"] = np.arange(len(rows))
    return rows


def recorded() -> Rows:
    """The price file behind the independent answers."""
    with (DATA / "quotes" / "default.csv").open(encoding="utf-8-sig") as file:
        lines = list(csv.DictReader(file))
    names = ("open", "high", "low", "close", "volume")
    columns = {name: np.array([float(line[name]) for line in lines]) for name in names}
    columns["buy_volume"] = np.full(len(lines), np.nan)
    return as_bars(columns, DAY_NS, np.arange(len(lines)))


def answers(indicator: str) -> dict[str, npt.NDArray[np.float64]]:
    """The independent answers of an indicator: output → values, NaN where it has none."""
    lines = json.loads((DATA / "results" / f"{indicator}.standard.json").read_text(encoding="utf-8"))
    names = [name for name in lines[0] if name != "timestamp"]
    return {name: np.array([line[name] for line in lines], np.float64) for name in names}  # None becomes NaN
