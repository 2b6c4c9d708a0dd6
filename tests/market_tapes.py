"""Tapes for the tests of the market operators: random ones from a seed, recorded ones from the data folder."""

import os
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from operators.protocol import Operator
from schemas.frame import Frame
from schemas.tables import BEATS, QUOTES, RECORDED, TRADES, Rows, TableSpec

SPECS = {spec.name: spec for spec in (TRADES, QUOTES, RECORDED, BEATS)}
SECOND = 1_000_000_000
MINUTE = 60 * SECOND
DATA = Path(os.environ.get("PENSTOCK_DATA", Path(__file__).parents[2] / "shared" / "data"))
Tape = Mapping[str, Rows]


def recorded_file(path: str) -> Any:
    """A recorded file as a pandas frame; skips the test where the data folder is absent."""
    if not (DATA / path).exists():
        pytest.skip(f"no {path} in the data folder; set PENSTOCK_DATA")
    parquet = pytest.importorskip("pyarrow.parquet")
    return parquet.read_table(DATA / path).to_pandas()


def time_ns(column: Any) -> Any:
    """A pandas timestamp column as int64 ns."""
    return column.astype("datetime64[ns, UTC]").astype("int64").to_numpy()


def bar_rows(table: Any, interval_ns: int, symbol: int = 0) -> Rows:
    """Recorded OHLCV bars, opening at `timestamp`, as rows known at their close."""
    rows = RECORDED.empty(len(table))
    rows["seq"] = np.arange(len(table))
    rows["symbol"] = symbol
    rows["interval_ns"] = interval_ns
    rows["ts_open_ns"] = time_ns(table["timestamp"])
    rows["ts_close_ns"] = rows["ts_event_ns"] = rows["ts_open_ns"] + interval_ns
    for name in ("open", "high", "low", "close", "volume"):
        rows[name] = table[name]
    rows["notional"] = rows["close"] * rows["volume"]
    for name in ("buy_volume", "bid", "ask", "bid_size", "ask_size"):
        rows[name] = np.nan
    return rows


def rows_of(spec: TableSpec, rows: Iterable[Mapping[str, Any]]) -> Rows:
    """A table from a literal list of rows; what a row does not name is zero, and `trade_id` -1."""
    listed = list(rows)
    out = spec.empty(len(listed))
    if "trade_id" in (out.dtype.names or ()):
        out["trade_id"] = -1
    for at, row in enumerate(listed):
        for name, value in row.items():
            out[name][at] = value
    return out


def frames(tape: Tape, symbols: int, cuts: Iterable[int] = ()) -> list[Frame]:
    """The tape as frames, cut before each of these tape positions."""
    names = tuple(f"S{k}" for k in range(symbols))
    edges = [-1, *sorted(cuts), np.iinfo(np.int64).max]
    out = []
    for number, (low, high) in enumerate(pairwise(edges)):
        part = {name: rows[(rows["seq"] >= low) & (rows["seq"] < high)] for name, rows in tape.items()}
        out.append(Frame("test", number, 0, names, {name: rows for name, rows in part.items() if len(rows)}))
    return out


def run(operator: Operator, tape_frames: Iterable[Frame], *specs: TableSpec) -> tuple[Rows, ...]:
    """All the rows of each of these tables that the operator makes of the frames."""
    made = [operator.step(frame) for frame in tape_frames]
    return tuple(np.concatenate([spec.empty(0), *(frame.rows(spec) for frame in made)]) for spec in specs)


def same(left: Rows, right: Rows) -> bool:
    return left.dtype == right.dtype and left.tobytes() == right.tobytes()


def random_tape(seed: int, n: int, symbols: int, tables: Iterable[str], late: float = 0.05, bad: bool = False) -> Tape:
    """A tape of about `n` rows: bursts, silences, ties, rows out of order, and, if asked for, rows that are wrong."""
    random = np.random.default_rng(seed)
    steps = [0, 1, SECOND // 3, SECOND, 7 * SECOND, 61 * SECOND, 400 * SECOND]
    ts = 1_600_000_000 * SECOND + np.cumsum(random.choice(steps, n, p=[0.2, 0.1, 0.3, 0.2, 0.1, 0.08, 0.02]))
    if late:
        ts -= np.where(random.random(n) < late, random.integers(0, 200 * SECOND, n), 0)
    which = random.integers(0, len(names := sorted(tables)), n)
    price = np.round(100 * np.exp(np.cumsum(random.normal(0, 1e-3, n))), 2)
    tape = {}
    for k, name in enumerate(names):
        at = np.flatnonzero(which == k)
        rows = SPECS[name].empty(len(at))
        rows["seq"] = at * 3 + 5
        rows["ts_event_ns"] = ts[at]
        rows["symbol"] = random.integers(0, symbols, len(at))
        if name == "trades":
            rows["price"] = price[at]
            rows["size"] = random.integers(1, 1000, len(at)) / 7
            rows["side"] = random.choice([0, 1, 2], len(at), p=[.02, .49, .49])
            rows["trade_id"] = np.where(random.random(len(at)) < 0.1, random.integers(0, n, len(at)), at)
            rows["trade_id"][random.random(len(at)) < 0.1] = -1
        elif name == "quotes":
            rows["bid"] = np.where(random.random(len(at)) < 0.1, 0, price[at] - 0.01)
            rows["ask"] = np.where(random.random(len(at)) < 0.1, 0, price[at] + random.integers(0, 3, len(at)) / 100)
            rows["bid_size"], rows["ask_size"] = random.integers(0, 50, (2, len(at)))
        elif name == "recorded":
            rows["interval_ns"] = random.choice([MINUTE, 5 * MINUTE], len(at), p=[.9, .1])
            rows["ts_close_ns"] = rows["ts_event_ns"] // rows["interval_ns"] * rows["interval_ns"]
            rows["ts_open_ns"] = rows["ts_close_ns"] - rows["interval_ns"]
            rows["open"], rows["close"] = price[at], np.roll(price[at], 1)
            rows["high"] = np.maximum(rows["open"], rows["close"]) + 0.1
            rows["low"] = np.minimum(rows["open"], rows["close"]) - 0.1
            rows["volume"], rows["notional"], rows["trades"] = random.integers(1, 1000, (3, len(at)))
            rows["bid"] = rows["ask"] = np.nan
        else:
            rows["symbol"][random.random(len(at)) < 0.5] = -1
        if bad:
            _spoil(rows, random)
        tape[name] = rows
    return tape


def _spoil(rows: Rows, random: np.random.Generator) -> None:
    """Wrong values in a tenth of the rows."""
    columns = [name for name in (rows.dtype.names or ()) if rows.dtype[name] == np.float64]
    for column in columns:
        values = random.choice([0.0, -1.0, np.nan, np.inf, 1e-4, 1e6, 130.0], len(rows))
        rows[column] = np.where(random.random(len(rows)) < 0.1 / len(columns), values, rows[column])
    if "flags" in (rows.dtype.names or ()):
        rows["flags"] = random.random(len(rows)) < 0.02
