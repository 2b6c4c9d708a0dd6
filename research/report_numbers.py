"""The arithmetic of the report: round trips, attribution, periods, costs and thinned series, from Arrow tables by plain NumPy.

Everything here is for display, so amounts are floats; the exact ones stay in the tables. A function reads the columns that it
names and no others, so a table that holds more or comes from the warehouse will do.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
DAY_NS = 86_400 * 10**9


def floats(table: pa.Table, name: str) -> Floats:
    """A numeric column as float64."""
    return np.asarray(table[name].cast(pa.float64()).to_numpy(), np.float64)


def ints(table: pa.Table, name: str) -> Ints:
    """An integer or boolean column as int64."""
    return np.asarray(table[name].cast(pa.int64()).to_numpy(), np.int64)


def codes(table: pa.Table, name: str) -> tuple[Ints, list[str]]:
    """A column of names as codes into the distinct names that occur, which are sorted."""
    if not table.num_rows:
        return np.zeros(0, np.int64), []
    column = table[name]
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    column = column.unify_dictionaries().combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0)
    words = [str(v) for v in column.dictionary.to_pylist()]
    found = np.asarray(column.indices.to_numpy(zero_copy_only=False), np.int64)
    names = sorted({words[k] for k in np.flatnonzero(np.bincount(found, minlength=len(words)))})
    place = {word: k for k, word in enumerate(names)}
    return np.array([place.get(word, 0) for word in words], np.int64)[found], names


def texts(table: pa.Table, name: str) -> npt.NDArray[Any]:
    """A column of names as an array of str."""
    found, names = codes(table, name)
    return np.array(names, dtype=object)[found] if names else np.zeros(0, object)


@dataclass(frozen=True)
class Trips:
    """Round trips in the order in which they closed, one element each; `open` of them had not closed. first: row of the fill that began it."""

    strategy: npt.NDArray[Any]
    symbol: npt.NDArray[Any]
    long: npt.NDArray[np.bool_]
    ts_entry: Ints
    ts_exit: Ints
    entry: Floats
    exit: Floats
    quantity: Floats
    fee: Floats
    pnl: Floats
    cause: npt.NDArray[Any]
    first: Ints
    open: int

    def __len__(self) -> int:
        return len(self.pnl)


def _ratio(a: Floats, b: Floats) -> Floats:
    return np.divide(a, b, out=np.full(len(a), np.nan), where=b != 0)


def round_trips(fills: pa.Table) -> Trips:
    """Fills grouped into round trips of a strategy in a symbol: from flat, to the fill that `closed`. Prices are averages by quantity."""
    n = fills.num_rows
    strategies, strategy_names = codes(fills, "strategy")
    symbols, symbol_names = codes(fills, "symbol")
    fill_no, closed = ints(fills, "fill_no"), ints(fills, "closed")
    order = np.lexsort((fill_no, symbols, strategies))
    book = (strategies * (len(symbol_names) + 1) + symbols)[order]
    ends = closed[order] == 1
    first = np.ones(n, bool)
    first[1:] = ends[:-1] | (book[1:] != book[:-1])
    starts = np.flatnonzero(first)
    lasts = np.append(starts[1:], n)[: len(starts)] - 1
    buys = (texts(fills, "side") == "buy")[order]
    long = buys[starts]
    trip = np.cumsum(first) - 1
    opening = buys == long[trip] if n else buys
    quantity, price = floats(fills, "quantity")[order], floats(fills, "price")[order]

    def total(values: Floats) -> Floats:
        return np.asarray(np.add.reduceat(values, starts) if n else values, np.float64)

    bought, sold = total(quantity * opening), total(quantity * ~opening)
    done = ends[lasts]
    by_exit = np.argsort(fill_no[order][lasts][done], kind="stable")

    def chosen(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return values[done][by_exit]

    ts = ints(fills, "ts_event_ns")[order]
    return Trips(
        strategy=chosen(np.array([*strategy_names, ""], object)[strategies[order][starts]]),
        symbol=chosen(np.array([*symbol_names, ""], object)[symbols[order][starts]]),
        long=chosen(long), ts_entry=chosen(ts[starts]), ts_exit=chosen(ts[lasts]),
        entry=chosen(_ratio(total(quantity * price * opening), bought)),
        exit=chosen(_ratio(total(quantity * price * ~opening), sold)),
        quantity=chosen(bought), fee=chosen(total(floats(fills, "fee")[order])),
        pnl=chosen(floats(fills, "trade_pnl")[order][lasts]), cause=chosen(texts(fills, "cause")[order][lasts]),
        first=chosen(order[starts]), open=int((~done).sum()),
    )


def win_rate(pnl: Floats) -> float | None:
    """Share of round trips that made money after fees."""
    return float((pnl > 0).mean()) if len(pnl) else None


def profit_factor(pnl: Floats) -> float | None:
    """Gains over losses; None without a loss."""
    lost = -float(pnl[pnl < 0].sum())
    return float(pnl[pnl > 0].sum()) / lost if lost else None


def longest_streak(hits: npt.NDArray[np.bool_]) -> int:
    """The longest run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], hits.astype(np.int8), [0]))))
    return int((edges[1::2] - edges[::2]).max()) if len(edges) else 0


@dataclass(frozen=True)
class Costs:
    """What trading cost, in quote units; slippage is |price - reference| times quantity."""

    fees: float
    slippage: float
    funding: float
    turnover: float

    @property
    def total(self) -> float:
        return self.fees + self.slippage + self.funding


def costs(fills: pa.Table, equity: pa.Table) -> Costs:
    """The costs of a run."""
    quantity, price = floats(fills, "quantity"), floats(fills, "price")
    funding = floats(equity, "funding")
    return Costs(
        float(floats(fills, "fee").sum()), float((np.abs(price - floats(fills, "reference")) * quantity).sum()),
        float(funding[-1]) if len(funding) else 0.0, float((price * quantity).sum()),
    )


@dataclass(frozen=True)
class Book:
    """A strategy's position in a symbol at the end, valued at the close of the symbol's last bar."""

    strategy: str
    symbol: str
    quantity: float
    entry: float
    mark: float
    unrealised: float


def last_closes(bars: pa.Table) -> dict[str, float]:
    """Symbol → close of its latest bar."""
    symbols, names = codes(bars, "symbol")
    close, seq = floats(bars, "close"), ints(bars, "seq")
    last = np.zeros(len(names), np.int64)
    order = np.argsort(seq, kind="stable")
    last[symbols[order]] = order
    return {name: float(close[last[k]]) for k, name in enumerate(names)}


def open_books(positions: pa.Table, marks: dict[str, float]) -> list[Book]:
    """The positions that were not flat at the end."""
    strategies, strategy_names = codes(positions, "strategy")
    symbols, symbol_names = codes(positions, "symbol")
    order = np.argsort(ints(positions, "position_no"), kind="stable")
    last = {(int(strategies[k]), int(symbols[k])): int(k) for k in order}
    quantity, cost = floats(positions, "quantity"), floats(positions, "cost")
    entry, mark = floats(positions, "entry_price"), floats(positions, "mark")
    books = []
    for (strategy, symbol), k in sorted(last.items()):
        if quantity[k] != 0:
            name = symbol_names[symbol]
            at = marks.get(name, float(mark[k]))
            books.append(Book(strategy_names[strategy], name, float(quantity[k]), float(entry[k]), at, float(quantity[k] * at - cost[k])))
    return books


@dataclass(frozen=True)
class Period:
    """A month or a day: its P&L and return from the equity, its round trips by exit time, the fees of its fills."""

    label: str
    pnl: float
    start: float
    trades: int
    fees: float

    @property
    def returns(self) -> float:
        return self.pnl / self.start if self.start > 0 else float("nan")


def periods(unit: str, equity: pa.Table, capital: float, trips: Trips, fills: pa.Table) -> list[Period]:
    """Calendar periods in UTC (`unit` "M" or "D") that hold an equity sample, in order."""
    kind = f"datetime64[{unit}]"

    def at(ts: Ints) -> Ints:
        return np.asarray(ts.astype("datetime64[ns]").astype(kind).astype(np.int64))

    when, values = at(ints(equity, "ts_event_ns")), floats(equity, "equity")
    labels, lasts = np.unique(when[::-1], return_index=True)
    ends = values[::-1][lasts]
    exits, paid, fee = at(trips.ts_exit), at(ints(fills, "ts_event_ns")), floats(fills, "fee")
    found, before = [], capital
    for label, end in zip(labels, ends, strict=True):
        name = str(np.datetime64(int(label), unit))  # type: ignore[call-overload]
        found.append(Period(name, float(end) - before, before, int((exits == label).sum()), float(fee[paid == label].sum())))
        before = float(end)
    return found


def thinned(values: Floats, points: int) -> Ints:
    """Indices of at most about `points` values that keep the first, the last, and the low and high of every stretch of the series."""
    n = len(values)
    if n <= points:
        return np.arange(n)
    width = -(-2 * n // points)
    whole = n // width * width
    blocks = values[:whole].reshape(-1, width)
    base = np.arange(len(blocks)) * width
    kept = [np.array([0, n - 1]), base + blocks.argmin(1), base + blocks.argmax(1)]
    if whole < n:
        kept.append(whole + np.array([values[whole:].argmin(), values[whole:].argmax()]))
    return np.unique(np.concatenate(kept))


def shortest_bars(bars: pa.Table, symbol: str) -> tuple[Ints, Floats]:
    """Close times and closes of a symbol's bars of the shortest interval that it has; time bars before others."""
    kinds, names = codes(bars, "bar_kind")
    symbols, symbol_names = codes(bars, "symbol")
    if symbol not in symbol_names:
        return np.zeros(0, np.int64), np.zeros(0)
    mine = symbols == symbol_names.index(symbol)
    interval = ints(bars, "interval_ns")
    if "time" in names and (mine & (kinds == names.index("time"))).any():
        mine &= kinds == names.index("time")
    mine &= interval == interval[mine].min()
    order = np.argsort(ints(bars, "seq")[mine], kind="stable")
    return ints(bars, "ts_close_ns")[mine][order], floats(bars, "close")[mine][order]
