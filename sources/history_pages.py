"""The past of one symbol, page by page over REST: trades, candles or funding, and what of it is not there.

A page is asked for from a cursor; what comes back moves the cursor on, so that whoever keeps the cursor can go on from there. A
hole is a stretch in which rows are missing that should be there: trades by their consecutive ids, candles by their interval,
funding by its usual interval.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from schemas.tables import RECORDED, SIDES, TRADES, Rows, TableSpec
from schemas.tables_desk import FUNDING_RATES
from sources.exchange_session import BY_ID

LIMIT = 1000
HOUR_MS, MS = 3_600_000, 10**6
SPECS: dict[str, TableSpec] = {"trades": TRADES, "candles": RECORDED, "funding": FUNDING_RATES}


@dataclass(frozen=True)
class Hole:
    """Rows that are missing: from and to (exclusive) in ms, or in ids where there are any; how many, -1 where that is not known."""

    first: int
    end: int
    missing: int
    by_id: bool = False


@dataclass(frozen=True)
class Page:
    """Rows in order, and where to go on: a time in ms, and an id where trades have consecutive ones. done: there is no more."""

    rows: Rows
    cursor: dict[str, int]
    done: bool


class Pages:
    """Pages of one symbol between two times in ms (the end exclusive)."""

    def __init__(self, exchange: Any, symbol: str, what: str, timeframe: str, from_ms: int, to_ms: int) -> None:
        self.exchange, self.symbol, self.what, self.timeframe = exchange, symbol, what, timeframe
        self.from_ms, self.to_ms = from_ms, to_ms
        self.step_ms = int(exchange.parse_timeframe(timeframe) * 1000) if what == "candles" else 0
        self.spec = SPECS[what]
        self.by_id = what == "trades" and exchange.id in BY_ID

    def start(self) -> dict[str, int]:
        return {"ms": self.from_ms, "id": -1}

    async def page(self, cursor: dict[str, int], now_ms: int) -> Page:
        """The page at a cursor. `now_ms`: the exchange's time; a candle that is not over is left out."""
        found = await self._ask(cursor)
        if self.what == "candles":
            return self._candles(found, cursor, now_ms)
        rows = self.rows(found)
        times = rows["ts_event_ns"] // MS
        fresh = times >= cursor["ms"]
        if self.what == "trades" and cursor["id"] >= 0:
            fresh &= rows["trade_id"] >= cursor["id"]
        inside = rows[fresh & (times < self.to_ms)]
        beyond = bool((times >= self.to_ms).any())
        if not fresh.any():
            # such an exchange answers for an hour at a time; this one was empty
            ahead = cursor["ms"] + HOUR_MS
            if self.by_id and cursor["id"] < 0 and ahead < self.to_ms:
                return Page(inside, {"ms": ahead, "id": -1}, False)
            return Page(inside, cursor, True)
        last = rows[fresh][-1]
        last_ms = int(last["ts_event_ns"]) // MS
        if self.by_id:
            return Page(inside, {"ms": last_ms, "id": int(last["trade_id"]) + 1}, beyond)
        if self.what == "trades" and not beyond and int(times[fresh].min()) < last_ms:
            # the next page begins with the last time again, so that no trade of it is left on the border of pages
            return Page(inside[inside["ts_event_ns"] // MS < last_ms], {"ms": last_ms, "id": -1}, False)
        return Page(inside, {"ms": last_ms + 1, "id": -1}, beyond or last_ms + 1 >= self.to_ms)

    async def again(self, hole: Hole) -> Rows:
        """What the exchange has of a hole when it is asked once more."""
        if hole.by_id:
            out, at = [], hole.first
            while at < hole.end:
                rows = self.rows(await self.exchange.fetch_trades(self.symbol, None, LIMIT, {"fromId": at}))
                rows = rows[(rows["trade_id"] >= at) & (rows["trade_id"] < hole.end)]
                if len(rows) == 0:
                    break
                out.append(rows)
                at = int(rows["trade_id"][-1]) + 1
            return np.concatenate(out) if out else self.spec.empty(0)
        rows = self.rows(await self._ask({"ms": hole.first, "id": -1}))
        key = rows["ts_open_ns"] if self.what == "candles" else rows["ts_event_ns"]
        return rows[(key >= hole.first * MS) & (key < hole.end * MS)]

    async def _ask(self, cursor: dict[str, int]) -> list[Any]:
        found: list[Any]
        if self.what == "candles":
            found = await self.exchange.fetch_ohlcv(self.symbol, self.timeframe, cursor["ms"], LIMIT)
        elif self.what == "funding":
            found = await self.exchange.fetch_funding_rate_history(self.symbol, cursor["ms"], LIMIT)
        elif self.by_id and cursor["id"] >= 0:
            found = await self.exchange.fetch_trades(self.symbol, None, LIMIT, {"fromId": cursor["id"]})
        else:
            found = await self.exchange.fetch_trades(self.symbol, cursor["ms"], LIMIT)
        return found or []

    def _candles(self, found: list[Any], cursor: dict[str, int], now_ms: int) -> Page:
        rows = self.rows(found)
        opened = rows["ts_open_ns"] // MS
        fresh = opened >= cursor["ms"]
        over = opened + self.step_ms <= now_ms
        inside = rows[fresh & over & (opened < self.to_ms)]
        if not fresh.any():
            # an exchange that answers for a stretch of time only: this one was empty
            ahead = cursor["ms"] + LIMIT * self.step_ms
            return Page(inside, {"ms": ahead, "id": -1}, ahead >= min(self.to_ms, now_ms))
        after = int(opened[fresh].max()) + self.step_ms
        done = after >= self.to_ms or not bool(over[fresh].all()) or after + self.step_ms > now_ms
        return Page(inside, {"ms": after, "id": -1}, done)

    def rows(self, found: list[Any]) -> Rows:
        """What ccxt gave as rows in order, symbol 0, `seq` 0."""
        rows = self.spec.empty(len(found))
        if self.what == "candles":
            columns = np.array([[float(v) if v is not None else 0.0 for v in c[:6]] for c in found]).reshape(-1, 6)
            opened = np.array([int(c[0]) for c in found], np.int64) * MS
            rows["ts_open_ns"], rows["ts_close_ns"] = opened, opened + self.step_ms * MS
            rows["ts_event_ns"], rows["interval_ns"] = rows["ts_close_ns"], self.step_ms * MS
            rows["ts_first_ns"], rows["ts_last_ns"] = opened, rows["ts_close_ns"] - 1
            for k, name in enumerate(("open", "high", "low", "close", "volume")):
                rows[name] = columns[:, k + 1]
            rows["vwap"], rows["notional"] = rows["close"], rows["close"] * rows["volume"]
            for name in ("buy_volume", "bid", "ask", "bid_size", "ask_size"):
                rows[name] = np.nan
            return rows[np.argsort(rows["ts_open_ns"], kind="stable")]
        if self.what == "funding":
            rows["ts_event_ns"] = [int(f["timestamp"]) * MS for f in found]
            rows["rate"] = [float(f["fundingRate"]) for f in found]
            return rows[np.argsort(rows["ts_event_ns"], kind="stable")]
        rows["ts_event_ns"] = [int(t["timestamp"]) * MS for t in found]
        rows["price"] = [float(t["price"]) for t in found]
        rows["size"] = [float(t["amount"]) for t in found]
        rows["side"] = [SIDES.index(t["side"]) if t.get("side") in SIDES else 0 for t in found]
        ids = [str(t.get("id") or "") for t in found]
        rows["trade_id"] = [int(i) if i.isascii() and i.isdigit() and len(i) < 19 else -1 for i in ids]
        return rows[np.lexsort((rows["trade_id"], rows["ts_event_ns"]))]

    def key(self, rows: Rows) -> Any:
        """What tells rows apart and orders them: the id where there is one, else the time."""
        if self.what == "candles":
            return rows["ts_open_ns"]
        return rows["trade_id"] if self.by_id else rows["ts_event_ns"]

    def holes(self, before: int | None, rows: Rows, step: int = 0) -> list[Hole]:
        """Holes in front of and between rows; `before`: the key of the row before them. step: of funding, in ns."""
        keys = self.key(rows)
        if before is not None:
            keys = np.concatenate(([before], keys))
        width = 1 if self.by_id else self.step_ms * MS if self.what == "candles" else step
        if width == 0 or len(keys) < 2 or (self.what == "trades" and not self.by_id):
            return []
        gaps = np.diff(keys)
        at = np.flatnonzero(gaps > width if self.what != "funding" else gaps > 1.5 * width)
        unit = 1 if self.by_id else MS
        return [Hole((int(keys[k]) + width) // unit, int(keys[k + 1]) // unit, round(float(gaps[k]) / width) - 1, self.by_id)
                for k in at.tolist()]
