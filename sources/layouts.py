"""Which columns of a file mean what: a layout is recognised by the columns' names or, without a header, by values.

A layout says the table that the rows go to and, for every role (time, price, size, …), the column that plays it. The
order of `_ALIASES` decides where a file has several candidates: our own names come first.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from schemas.errors import UserError
from schemas.tables import BARS

_ALIASES: dict[str, tuple[str, ...]] = {
    "symbol": ("symbol", "ticker", "instrument"),
    "price": ("price",),
    "size": ("size", "qty", "quantity", "amount", "volume"),
    "side": ("side",),
    "buyer_maker": ("is_buyer_maker", "isbuyermaker", "buyer_maker", "was_the_buyer_the_maker"),
    "trade_id": ("trade_id", "agg_trade_id", "aggregate_tradeid", "tradeid", "id"),
    "flags": ("flags",),
    "suspicious": ("suspicious",),
    "bid": ("bid", "best_bid", "bid_price", "best_bid_price"),
    "ask": ("ask", "best_ask", "ask_price", "best_ask_price"),
    "bid_size": ("bid_size", "bid_volume", "bid_qty", "best_bid_qty", "best_bid_size"),
    "ask_size": ("ask_size", "ask_volume", "ask_qty", "best_ask_qty", "best_ask_size"),
    "exchange": ("exchange",),
    "open": ("open",),
    "high": ("high",),
    "low": ("low",),
    "close": ("close",),
    "volume": ("volume",),
    "notional": ("notional", "quote_volume", "quote_asset_volume"),
    "trades": ("trades", "count", "number_of_trades"),
    "buy_volume": ("buy_volume", "taker_buy_volume", "taker_buy_base_volume", "taker_buy_base_asset_volume"),
    "close_time": ("ts_close_ns", "close_time"),
}
_TIMES = ("timestamp", "time", "transact_time", "transaction_time", "date", "datetime", "ts", "event_time")
_OPEN_TIMES = ("ts_open_ns", "open_time", *_TIMES)

_ROLES = {
    "recorded": ("symbol", "open", "high", "low", "close", "volume", "notional", "trades", "buy_volume", "close_time"),
    "trades": ("symbol", "price", "size", "side", "buyer_maker", "trade_id", "flags", "suspicious"),
    "quotes": ("symbol", "bid", "ask", "bid_size", "ask_size", "exchange", "flags", "suspicious"),
    "beats": ("symbol",),
}
_BINANCE_KLINES = (
    "open_time",
    "open",
    "high",
    "low",
    "close",
    "volume",
    "close_time",
    "quote_volume",
    "count",
    "taker_buy_volume",
    "taker_buy_quote_volume",
    "ignore",
)
_BINANCE_AGG = (
    "agg_trade_id",
    "price",
    "quantity",
    "first_trade_id",
    "last_trade_id",
    "transact_time",
    "is_buyer_maker",
    "is_best_match",
)
_BINANCE_TRADES = ("id", "price", "qty", "quote_qty", "time", "is_buyer_maker", "is_best_match")

KNOWN = (
    "trades (timestamp, price, size[, side, trade_id]), quotes (timestamp, bid, ask[, bid_size, ask_size]), "
    "bars (timestamp, open, high, low, close, volume), each with an optional symbol, Penstock's own tables, "
    "and Binance's trades, aggTrades and klines"
)


@dataclass(frozen=True)
class Layout:
    """The table that rows go to, and the column of each role; `time` is one of the roles.

    own: the columns are Penstock's and go over as they are. opening: times are those of a bar's start.
    """

    kind: str
    columns: dict[str, str]
    own: bool = False
    opening: bool = False

    @property
    def time(self) -> str:
        return self.columns["time"]


def layout_of(names: Sequence[str], path: str) -> Layout:
    """The layout of a file with columns of these names; UserError that lists what is recognised."""
    by_key = {_key(name): name for name in reversed(names)}
    kind = _kind(by_key)
    if kind is None:
        shown = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
        raise UserError(f'{path}: columns "{shown}" are not recognised; recognised are: {KNOWN}')
    columns = {}
    for role in _ROLES[kind]:
        found = next((by_key[a] for a in _ALIASES[role] if a in by_key), None)
        if found is not None:
            columns[role] = found
    own = kind == "recorded" and all(
        f.name in by_key for f in BARS.fields if f.name not in ("seq", "first_seq", "last_seq")
    )
    if own:
        columns = {f.name: by_key[f.name] for f in BARS.fields if f.name in by_key}
    opening = kind == "recorded" and not own
    times = _OPEN_TIMES if opening else ("ts_event_ns", *_TIMES)
    columns["time"] = next(by_key[t] for t in times if t in by_key)
    return Layout(kind, columns, own, opening)


def headerless(cells: Sequence[str]) -> tuple[str, ...] | None:
    """The column names of a Binance dump without header, from the cells of its first row; None where it is none."""
    n = len(cells)
    if not all(_is_number(c) or _is_bool(c) for c in cells):
        return None
    if n == 12 and _is_time(cells[0]) and _is_time(cells[6]):
        return _BINANCE_KLINES
    if n in (7, 8) and _is_time(cells[5]) and _is_bool(cells[6]):
        return _BINANCE_AGG[:n]
    if n in (6, 7) and _is_time(cells[4]) and _is_bool(cells[5]):
        return _BINANCE_TRADES[:n]
    return None


def looks_like_header(cells: Sequence[str]) -> bool:
    """Whether the cells of a first row are names: none of them is a number, a truth value or empty."""
    return all(c.strip() and not _is_number(c) and not _is_bool(c) and not c.strip()[0].isdigit() for c in cells)


def _kind(by_key: dict[str, str]) -> str | None:
    has = by_key.__contains__
    any_time = has("ts_event_ns") or any(map(has, _TIMES))
    if all(map(has, ("open", "high", "low", "close"))) and (any_time or any(map(has, _OPEN_TIMES))):
        return "recorded"
    if any_time and has("price") and any(map(has, _ALIASES["size"])):
        return "trades"
    if any_time and any(map(has, _ALIASES["bid"])) and any(map(has, _ALIASES["ask"])):
        return "quotes"
    if has("ts_event_ns") and set(by_key) <= {"ts_event_ns", "symbol", "seq"}:
        return "beats"
    return None


def _key(name: str) -> str:
    """`isBuyerMaker`, `Is Buyer Maker` and `is_buyer_maker` are one name."""
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip().lstrip("\ufeff"))
    return re.sub(r"[\s_-]+", "_", name).lower()


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _is_bool(cell: str) -> bool:
    return cell.strip().lower() in ("true", "false")


def _is_time(cell: str) -> bool:
    """Milli-, micro- or nanoseconds since 1970."""
    return cell.strip().isdigit() and len(cell.strip()) in (13, 16, 19)
