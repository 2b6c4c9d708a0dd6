"""Bars made the slow and obvious way, from the documentation of `operators.market.bars`, to compare with."""

from collections import defaultdict
from typing import Any

import numpy as np

from operators.market.bars import BarsConfig
from schemas.tables import BARS, BUY, NO_SIDE
from tests.market_tapes import Tape

NAN = float("nan")


class SlowBars:
    """Trades, quotes and beats (no recorded bars): one dictionary per open bar, no shortcut."""

    def __init__(self, config: BarsConfig) -> None:
        groups = (config.intervals_ns, config.tick_bars, config.volume_bars, config.dollar_bars)
        self.kinds = [(kind, length) for kind, lengths in enumerate(groups) for length in sorted(lengths)]
        self.bars: list[dict[str, Any]] = []
        self.late: list[dict[str, Any]] = []
        self.open: dict[tuple[int, int], dict[str, Any]] = {}
        self.ended: dict[tuple[int, int], int] = {}
        self.frontier: dict[int, int] = {}
        self.traded: set[int] = set()
        names = ("bid", "ask", "bid_size", "ask_size")
        self.quote: dict[int, dict[str, float]] = defaultdict(lambda: dict.fromkeys(names, NAN))

    def feed(self, tape: Tape) -> "SlowBars":
        merged = [(int(row["seq"]), name, row) for name, rows in tape.items() for row in rows]
        for _, name, row in sorted(merged, key=lambda item: item[0]):
            getattr(self, f"on_{name}")(row)
        return self

    def on_beats(self, row: Any) -> None:
        for symbol in sorted(self.frontier) if row["symbol"] < 0 else [int(row["symbol"])]:
            if symbol in self.frontier:
                self.passed(symbol, row)

    def on_trades(self, row: Any) -> None:
        symbol = int(row["symbol"])
        if self.is_late(symbol, row, row["price"], row["size"]):
            return
        self.passed(symbol, row)
        if symbol not in self.traded:
            self.traded.add(symbol)
            for at in range(len(self.kinds)):
                self.open.pop((symbol, at), None)
        for at, (kind, length) in enumerate(self.kinds):
            self.add(symbol, at, row, float(row["price"]), float(row["size"]), int(row["side"]), 1)
            bar = self.open[symbol, at]
            if kind and (bar["trades"], bar["volume"], bar["notional"])[kind - 1] >= length:
                bar["ts_close_ns"] = int(row["ts_event_ns"])
                self.close(symbol, at, row)

    def on_quotes(self, row: Any) -> None:
        symbol = int(row["symbol"])
        bid, ask = float(row["bid"]), float(row["ask"])
        if self.is_late(symbol, row, (bid + ask) / 2 if bid > 0 and ask > 0 else max(bid, ask), 0.0):
            return
        self.passed(symbol, row)
        quote = self.quote[symbol]
        for side in ("bid", "ask"):
            if row[side] > 0:
                quote[side], quote[f"{side}_size"] = float(row[side]), float(row[f"{side}_size"])
        mid = (quote["bid"] + quote["ask"]) / 2
        if symbol not in self.traded and mid == mid:
            for at, (kind, _) in enumerate(self.kinds):
                if kind == 0:
                    self.add(symbol, at, row, mid, 0.0, BUY, 0)

    def is_late(self, symbol: int, row: Any, price: float, size: float) -> bool:
        ts, frontier = int(row["ts_event_ns"]), self.frontier.get(symbol)
        late = frontier is not None and any(kind == 0 and ts // n < frontier // n for kind, n in self.kinds)
        if late:
            self.late.append({"seq": row["seq"], "symbol": symbol, "ts_event_ns": ts, "frontier_ns": frontier,
                              "price": price, "size": size})
        return late

    def passed(self, symbol: int, row: Any) -> None:
        ts = int(row["ts_event_ns"])
        self.frontier[symbol] = max(ts, self.frontier.get(symbol, ts))
        for at, (kind, _) in enumerate(self.kinds):
            if kind == 0 and (symbol, at) in self.open and ts >= self.open[symbol, at]["ts_close_ns"]:
                self.ended[symbol, at] = self.open[symbol, at]["ts_close_ns"]
                self.close(symbol, at, row)

    def close(self, symbol: int, at: int, row: Any) -> None:
        bar = self.open.pop((symbol, at))
        self.bars.append({**bar, **self.quote[symbol], "ts_event_ns": row["ts_event_ns"], "seq": row["seq"],
                          "vwap": bar["notional"] / bar["volume"] if bar["volume"] else bar["close"]})

    def add(self, symbol: int, at: int, row: Any, price: float, size: float, side: int, count: int) -> None:
        kind, length = self.kinds[at]
        ts, seq = int(row["ts_event_ns"]), int(row["seq"])
        start = ts - ts % length if kind == 0 else ts
        bar = self.open.setdefault((symbol, at), {
            "symbol": symbol, "bar_kind": kind, "interval_ns": length if kind < 2 else round(length * 1e8),
            "ts_open_ns": start, "ts_close_ns": start + length if kind == 0 else 0,
            "open": price, "high": price, "low": price, "volume": 0.0,
            "notional": 0.0, "trades": 0, "buy_volume": 0.0, "first_seq": seq, "ts_first_ns": ts,
            "gap": (start - self.ended[symbol, at]) // length if (symbol, at) in self.ended else 0,
        })
        bar.update(high=max(bar["high"], price), low=min(bar["low"], price), close=price, volume=bar["volume"] + size,
                   notional=bar["notional"] + price * size, trades=bar["trades"] + count, last_seq=seq, ts_last_ns=ts)
        bar["buy_volume"] += NAN if side == NO_SIDE else size * (side == BUY)


def table(rows: list[dict[str, Any]], dtype: np.dtype[Any] = BARS.dtype) -> Any:
    out = np.zeros(len(rows), dtype)
    for at, row in enumerate(rows):
        for name in dtype.names or ():
            out[name][at] = row[name]
    return out
