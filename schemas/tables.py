"""Every table of the platform, declared once: from a declaration follow its NumPy row type, its Arrow schema and its DDL.

Inside the process a table is a NumPy structured array, one record a row, which compiled loops read and write in place;
at the edges (`sources`, `sinks`, `research`) it is an Arrow table made by `schemas.codec`. A row's `seq` is its position
on the tape; a derived row carries the time and the position of the row that caused it.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[Any]
"""A structured array whose dtype is `TableSpec.dtype` of its table."""

Kind = Literal["time", "int", "float", "money", "symbol", "strategy", "enum", "id", "bool", "floats", "ints", "text"]
"""What a column holds. time: int64 ns since 1970 UTC. money: int64 in 1e-8. symbol, strategy: a code into the frame's names.
enum: a code into `labels`. id: uint64, sixteen hex digits outside. floats, ints: a fixed-size list. text: Arrow only.
Inside, every scalar takes eight bytes, so that a record has no padding and its bytes are its content."""

SIDES = ("none", "buy", "sell")
NO_SIDE, BUY, SELL = 0, 1, 2

FLAG_SUSPICIOUS = 1
"""Bit of `flags`: the recording marks the print as bad."""
NO_TRADE_ID = -1
ALL_SYMBOLS = -1
"""The symbol code of a beat that speaks for every symbol."""

REJECT_REASONS = (
    "duplicate", "out_of_order", "not_positive", "not_finite", "outlier", "crossed", "suspicious", "empty", "inconsistent",
)

ACTIONS = ("enter_long", "enter_short", "exit")
ENTER_LONG, ENTER_SHORT, EXIT = 0, 1, 2


@dataclass(frozen=True)
class Field:
    """One column: its name, with the unit last where it has one, its kind and what it means."""

    name: str
    kind: Kind
    doc: str
    labels: tuple[str, ...] = ()
    width: int = 0


_NUMPY: dict[str, str] = {
    "time": "i8", "int": "i8", "float": "f8", "money": "i8", "symbol": "i8", "strategy": "i8", "enum": "i8", "id": "u8",
    "bool": "i8",
}


@dataclass(frozen=True)
class TableSpec:
    """A table: its columns, and the columns that identify a row (within one run)."""

    name: str
    doc: str
    key: tuple[str, ...]
    fields: tuple[Field, ...]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The NumPy record type, without padding; `text` columns have none and raise KeyError."""
        return _dtype(self)

    def empty(self, n: int) -> Rows:
        """`n` uninitialised-to-zero rows."""
        return np.zeros(n, self.dtype)

    def field(self, name: str) -> Field:
        return next(f for f in self.fields if f.name == name)


_dtypes: dict[str, np.dtype[Any]] = {}


def _dtype(spec: TableSpec) -> np.dtype[Any]:
    if spec.name not in _dtypes:
        columns: list[Any] = []
        for f in spec.fields:
            if f.kind == "floats":
                columns.append((f.name, "f8", (f.width,)))
            elif f.kind == "ints":
                columns.append((f.name, "i8", (f.width,)))
            else:
                columns.append((f.name, _NUMPY[f.kind]))
        _dtypes[spec.name] = np.dtype(columns)
    return _dtypes[spec.name]


def _when(what: str) -> tuple[Field, ...]:
    return (
        Field("ts_event_ns", "time", f"when {what} became known"),
        Field("seq", "int", "tape position of the row that caused it"),
        Field("symbol", "symbol", "instrument"),
    )


TRADES = TableSpec("trades", "Prints, as the market made them.", ("symbol", "ts_event_ns", "seq"), (
    *_when("the trade"),
    Field("price", "float", "quote units per base unit"),
    Field("size", "float", "base units"),
    Field("side", "enum", "aggressor side", SIDES),
    Field("trade_id", "int", "the venue's id, -1 where it has none"),
    Field("flags", "int", "bit 0: marked suspicious by the recording"),
))

QUOTES = TableSpec("quotes", "Best bid and offer. Zero: no value on that side.", ("symbol", "ts_event_ns", "seq"), (
    *_when("the quote"),
    Field("bid", "float", "best bid price"),
    Field("ask", "float", "best ask price"),
    Field("bid_size", "float", "size at the best bid, base units"),
    Field("ask_size", "float", "size at the best ask, base units"),
    Field("flags", "int", "bit 0: marked suspicious by the recording"),
))

BEATS = TableSpec("beats", "Heartbeats: event time has passed for a symbol (-1: for all), though nothing traded.",
                  ("ts_event_ns", "seq"), _when("the time"))

BARS = TableSpec("bars", "Closed bars. A bar never reopens.", ("symbol", "interval_ns", "bar_kind", "ts_open_ns", "first_seq"), (
    *_when("the bar's close"),
    Field("bar_kind", "enum", "what closes the bar", ("time", "tick", "volume", "dollar")),
    Field("interval_ns", "int", "time bars: length in ns; tick bars: trades; volume, dollar bars: units"),
    Field("ts_open_ns", "time", "start of the interval (inclusive)"),
    Field("ts_close_ns", "time", "end of the interval (exclusive)"),
    Field("open", "float", "first price"),
    Field("high", "float", "highest price"),
    Field("low", "float", "lowest price"),
    Field("close", "float", "last price"),
    Field("volume", "float", "base units"),
    Field("notional", "float", "sum of price times size, quote units"),
    Field("vwap", "float", "notional / volume; the close where volume is 0"),
    Field("trades", "int", "number of trades; 0 where the recording does not say"),
    Field("buy_volume", "float", "volume whose aggressor bought; NaN where sides are unknown"),
    Field("bid", "float", "best bid at the close, NaN without quotes"),
    Field("ask", "float", "best ask at the close, NaN without quotes"),
    Field("bid_size", "float", "size at the bid at the close, NaN without quotes"),
    Field("ask_size", "float", "size at the ask at the close, NaN without quotes"),
    Field("gap", "int", "empty intervals between the bar before and this one"),
    Field("first_seq", "int", "tape position of its first row"),
    Field("last_seq", "int", "tape position of its last row"),
    Field("ts_first_ns", "time", "time of its first row"),
    Field("ts_last_ns", "time", "time of its last row"),
))

RECORDED = TableSpec("recorded", "Bars as a recording holds them: input, known at their close.",
                     BARS.key, BARS.fields)

LATE = TableSpec("late", "Rows that came after their bar had closed.", ("symbol", "ts_event_ns", "seq"), (
    *_when("the late row"),
    Field("frontier_ns", "time", "event time the stream had reached"),
    Field("price", "float", "its price"),
    Field("size", "float", "its size"),
))

REJECTED = TableSpec("rejected", "Rows that the quality step dropped, with the reason.", ("symbol", "ts_event_ns", "seq"), (
    *_when("the dropped row"),
    Field("source_table", "enum", "which table it was of", ("trades", "quotes", "bars")),
    Field("reason", "enum", "why it was dropped", REJECT_REASONS),
    Field("price", "float", "its price (quotes: bid; bars: close)"),
    Field("size", "float", "its size (quotes: ask; bars: volume)"),
    Field("trade_id", "int", "its id, -1 where it has none"),
))

SIGNALS = TableSpec("signals", "What a strategy wants, on the bar that made it want it.", ("strategy", "symbol", "seq", "slot"), (
    *_when("the signal"),
    Field("strategy", "strategy", "who says so"),
    Field("slot", "int", "0, 1, …: the strategy's signals on one bar"),
    Field("action", "enum", "what to do", ACTIONS),
    Field("cause", "enum", "which clause fired", ("entry", "exit", "stop", "target", "hold")),
    Field("interval_ns", "int", "timeframe of the bar"),
    Field("ts_open_ns", "time", "open time of the bar"),
    Field("price", "float", "close of the bar"),
    Field("stop", "float", "protective stop price, NaN for none"),
    Field("target", "float", "take-profit price, NaN for none"),
    Field("trail", "float", "trailing distance in price, NaN for none"),
    Field("strength", "float", "0 to 1, scales the size; 0: lost a conflict; -1: the validator refused it"),
    Field("hold_ns", "int", "close after this long, 0 for no limit"),
))
