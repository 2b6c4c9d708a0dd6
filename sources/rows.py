"""Arrow batches of a recognised file to rows of our tables.

Rows keep the order of the file and none is dropped; what a file does not say gets the value that the table's
declaration names for "unknown". A converter has state (the built book), so each pass over a file has its own.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.errors import UserError
from schemas.tables import (
    ALL_SYMBOLS,
    BEATS,
    FLAG_SUSPICIOUS,
    NO_SIDE,
    NO_TRADE_ID,
    QUOTES,
    RECORDED,
    SELL,
    TRADES,
    Rows,
    TableSpec,
)
from sources.book import Book
from sources.layouts import Layout
from sources.values import Place, floats, ints, sides, texts, times_ns, truths

SPECS: dict[str, TableSpec] = {s.name: s for s in (TRADES, QUOTES, RECORDED, BEATS)}
BAR_KINDS = RECORDED.field("bar_kind").labels
_OWN_TIMES = ("ts_event_ns", "ts_open_ns", "ts_close_ns", "ts_first_ns", "ts_last_ns")


class Converter:
    """One pass over one file. `codes`: symbol → code; `symbol`: the file's, where no column names it.

    `interval_ns` is that of bars whose file gives only the start.
    """

    def __init__(
        self,
        layout: Layout,
        place: Callable[[int], str],
        codes: Mapping[str, int],
        symbol: str | None,
        interval_ns: int = 0,
    ) -> None:
        self._layout, self._place, self._codes, self._symbol, self._interval_ns = (
            layout,
            place,
            codes,
            symbol,
            interval_ns,
        )
        self._book = Book()
        self._row = 0
        self._unit = 0

    def rows(self, batch: Any) -> Rows:
        """The rows of the next batch, `seq` unset."""
        first = self._row
        self._row += len(batch)
        out = SPECS[self._layout.kind].empty(len(batch))
        if len(batch) == 0:
            return out

        def place(k: int) -> str:
            return self._place(first + k)

        out["symbol"] = self._symbols(batch, place)
        if self._layout.own:
            self._own_bars(batch, out, place)
            return out
        name = self._layout.time
        out["ts_event_ns"] = times_ns(batch.column(name), place, name, is_ns=name.endswith("_ns"))
        self._one_unit(batch.column(name), place)
        if self._layout.kind == "trades":
            self._trades(batch, out, place)
        elif self._layout.kind == "quotes":
            self._quotes(batch, out, place)
        elif self._layout.kind == "recorded":
            self._bars(batch, out, place)
        return out

    def _symbols(self, batch: Any, place: Place) -> Any:
        column = self._layout.columns.get("symbol")
        if column is None:
            return ALL_SYMBOLS if self._symbol is None else self._codes[self._symbol]
        names, indices = texts(batch.column(column))
        everyone = self._layout.kind == "beats"
        lookup = np.array([self._codes.get(n, ALL_SYMBOLS) for n in names] + [ALL_SYMBOLS], np.int64)
        out = lookup[indices]
        if not everyone and (out == ALL_SYMBOLS).any():
            raise UserError(f"{place(int((out == ALL_SYMBOLS).argmax()))}: {column} is missing")
        return out

    def _one_unit(self, column: Any, place: Place) -> None:
        """Numbers as times must not change their unit between blocks; within one `times_ns` sees to it."""
        if self._layout.time.endswith("_ns") or not str(column.type).startswith(("int", "uint")):
            return
        digits = len(str(column[0].as_py())) // 3
        if self._unit and digits != self._unit:
            raise UserError(f'{place(0)}: {self._layout.time} "{column[0]}" is in another unit than the rows before')
        self._unit = digits

    def _floats(self, batch: Any, role: str, place: Place, missing: float) -> Any:
        name = self._layout.columns.get(role)
        return missing if name is None else floats(batch.column(name), place, name)

    def _ints(self, batch: Any, role: str, place: Place, missing: int) -> Any:
        name = self._layout.columns.get(role)
        return missing if name is None else ints(batch.column(name), place, name, missing)

    def _flags(self, batch: Any, place: Place) -> Any:
        flags = self._ints(batch, "flags", place, 0)
        name = self._layout.columns.get("suspicious")
        return flags if name is None else flags | (truths(batch.column(name), place, name) * FLAG_SUSPICIOUS)

    def _trades(self, batch: Any, out: Rows, place: Place) -> None:
        columns = self._layout.columns
        out["price"] = self._floats(batch, "price", place, np.nan)
        out["size"] = self._floats(batch, "size", place, np.nan)
        if "side" in columns:
            out["side"] = sides(batch.column(columns["side"]), place, columns["side"])
        elif "buyer_maker" in columns:
            # the buyer rested in the book, so the seller was the aggressor
            out["side"] = SELL - (1 - truths(batch.column(columns["buyer_maker"]), place, columns["buyer_maker"]))
        else:
            out["side"] = NO_SIDE
        out["trade_id"] = self._ints(batch, "trade_id", place, NO_TRADE_ID)
        out["flags"] = self._flags(batch, place)

    def _quotes(self, batch: Any, out: Rows, place: Place) -> None:
        names = ("bid", "ask", "bid_size", "ask_size")
        quotes = np.empty((len(batch), 4))
        for k, role in enumerate(names):
            quotes[:, k] = self._floats(batch, role, place, 0.0 if k < 2 else np.nan)
        out["flags"] = self._flags(batch, place)
        exchange = self._layout.columns.get("exchange")
        if exchange is not None:
            venues, indices = texts(batch.column(exchange))
            codes = self._book.exchange_codes([*venues, ""])
            quotes = self._book.step(
                np.ascontiguousarray(out["symbol"]), codes[indices], quotes, np.ascontiguousarray(out["flags"])
            )
        for k, role in enumerate(names):
            out[role] = quotes[:, k]

    def _bars(self, batch: Any, out: Rows, place: Place) -> None:
        opened = out["ts_event_ns"].copy()
        close_time = self._layout.columns.get("close_time")
        closed = opened + self._interval_ns
        if close_time is not None:
            closed = _exclusive(times_ns(batch.column(close_time), place, close_time, is_ns=close_time.endswith("_ns")))
            if (closed <= opened).any():
                k = int((closed <= opened).argmax())
                raise UserError(f"{place(k)}: {close_time} is not after {self._layout.time}")
        for role in ("open", "high", "low", "close"):
            out[role] = self._floats(batch, role, place, np.nan)
        out["volume"] = self._floats(batch, "volume", place, 0.0)
        volume, close = out["volume"], out["close"]
        notional = self._floats(batch, "notional", place, np.nan)
        out["notional"] = np.where(np.isnan(notional), volume * close, notional)
        traded = volume > 0
        out["vwap"] = np.where(traded & ~np.isnan(notional), notional / np.where(traded, volume, 1.0), close)
        out["trades"] = self._ints(batch, "trades", place, 0)
        out["buy_volume"] = self._floats(batch, "buy_volume", place, np.nan)
        for unknown in ("bid", "ask", "bid_size", "ask_size"):
            out[unknown] = np.nan
        out["ts_open_ns"], out["ts_close_ns"], out["ts_event_ns"] = opened, closed, closed
        out["interval_ns"] = closed - opened
        out["ts_first_ns"], out["ts_last_ns"] = opened, closed - 1

    def _own_bars(self, batch: Any, out: Rows, place: Place) -> None:
        for f in RECORDED.fields:
            name = self._layout.columns.get(f.name)
            if name is None or f.name == "symbol":
                continue
            column = batch.column(name)
            if f.name in _OWN_TIMES:
                out[f.name] = times_ns(column, place, name, is_ns=True)
            elif f.name == "bar_kind":
                out[f.name] = _bar_kinds(column, place, name)
            elif f.kind == "float":
                out[f.name] = floats(column, place, name)
            else:
                out[f.name] = ints(column, place, name, 0)
        other = out["interval_ns"] != (self._interval_ns or out["interval_ns"][0])
        self._interval_ns = self._interval_ns or int(out["interval_ns"][0])
        if other.any():
            k = int(other.argmax())
            raise UserError(
                f"{place(k)}: holds bars of intervals {self._interval_ns} ns and {out['interval_ns'][k]} ns; "
                f"keep one interval in a file"
            )


def number_rows(rows: Rows, seq: npt.NDArray[np.int64]) -> None:
    """Sets the tape positions; a recorded bar is its own first and last row."""
    rows["seq"] = seq
    if "first_seq" in (rows.dtype.names or ()):
        rows["first_seq"] = seq
        rows["last_seq"] = seq


def _exclusive(closed: Any) -> Any:
    """Binance's close time is the last ms (or µs, or ns) of the bar: the end is one unit later."""
    rest = closed % 10**9
    unit = np.where(
        rest == 999_000_000, 10**6, np.where(rest == 999_999_000, 10**3, np.where(rest == 999_999_999, 1, 0))
    )
    return closed + unit


def _bar_kinds(column: Any, place: Place, name: str) -> Any:
    if str(column.type).startswith(("int", "uint")):
        return ints(column, place, name, 0)
    names, indices = texts(column)
    lookup = np.array([BAR_KINDS.index(n) if n in BAR_KINDS else -1 for n in names] + [-1], np.int64)
    out = lookup[indices]
    if (out < 0).any():
        raise UserError(f"{place(int((out < 0).argmax()))}: {name} is none of {', '.join(BAR_KINDS)}")
    return out
