"""The past of an exchange over REST, into Parquet files: resumable, within the rate budget, with its holes asked for twice and listed.

Symbols come one after the other; a run that was ended at any moment goes on where the last checkpoint was, and gives the same
file as one that was not.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import ccxt
import numpy as np

from schemas.config_live import ExchangeConfig
from schemas.errors import PenstockError, UserError, unknown
from schemas.tables import Rows
from sources.exchange_calls import Backoff, Calls
from sources.exchange_session import AWAY, known_symbols, made, reason
from sources.history_pages import MS, SPECS, Hole, Page, Pages
from sources.history_store import Store, shown
from telemetry import logs

TRIES = 8
FLUSH_ROWS, FLUSH_S = 100_000, 10.0
_ABLE = {"trades": "fetchTrades", "candles": "fetchOHLCV", "funding": "fetchFundingRateHistory"}
Progress = Callable[[float, str], None]
log = logs.get("history")


class Stopped(Exception):
    """It was asked to stop; what was fetched is kept."""


def check_request(config: ExchangeConfig, what: str, from_ms: int, to_ms: int | None) -> None:
    """UserError for what cannot be asked for, before anything is."""
    name = config.names[0] if config.names else ""
    if name not in ccxt.exchanges:
        raise unknown("exchange", name, ccxt.exchanges)
    if what not in SPECS:
        raise unknown("--what", what, SPECS)
    if not config.symbols:
        raise UserError("no symbols; give --symbols BTC/USDT,ETH/USDT")
    if from_ms >= (to_ms if to_ms is not None else int(time.time() * 1000)):
        raise UserError("--from is not before --to" if to_ms is not None else "--from is not in the past")


def fetch_history(config: ExchangeConfig, what: str, timeframe: str, from_ms: int, to_ms: int | None, out: Path, *,
                  stopping: Callable[[], bool] = lambda: False, progress: Progress = lambda share, note: None) -> dict[str, Any]:
    """Fetch into `out`. Returns files, rows and gaps, as `--json` prints them. PenstockError where the exchange stays away."""
    check_request(config, what, from_ms, to_ms)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out}: {error.strerror}; choose another --out") from None
    return asyncio.run(_History(config, what, timeframe, from_ms, to_ms, out, stopping, progress).run())


class _History:
    def __init__(self, config: ExchangeConfig, what: str, timeframe: str, from_ms: int, to_ms: int | None, out: Path,
                 stopping: Callable[[], bool], progress: Progress) -> None:
        self.config, self.what, self.timeframe, self.from_ms, self.to_ms, self.out = config, what, timeframe, from_ms, to_ms, out
        self.stopping, self.progress = stopping, progress
        self.name = config.names[0]
        self.calls = Calls(self.name, config.requests_per_minute_max, config.timeout_s)
        self.files: list[dict[str, Any]] = []

    async def run(self) -> dict[str, Any]:
        exchange = made(self.name, replace(self.config, names=(self.name,)), self.config.symbols, streaming=False)
        self.calls.guard(exchange)
        stopped = False
        try:
            await self._tried(exchange.load_markets)
            known_symbols(exchange, self.config.symbols)
            if not exchange.has.get(_ABLE[self.what]):
                raise UserError(f"{self.name} gives no {self.what} in ccxt")
            if self.what == "candles" and exchange.timeframes and self.timeframe not in exchange.timeframes:
                raise unknown(f"timeframe of {self.name}", self.timeframe, exchange.timeframes)
            for number, symbol in enumerate(self.config.symbols):
                await self._symbol(exchange, symbol, number)
        except Stopped:
            stopped = True
        finally:
            await exchange.close()
        return {"exchange": self.name, "what": self.what, "files": self.files, "rows": sum(f["rows"] for f in self.files),
                "missing": sum(max(0, g["missing"]) for f in self.files for g in f["gaps"]), "requests": self.calls.requests,
                "stopped": stopped}

    async def _symbol(self, exchange: Any, symbol: str, number: int) -> None:
        stem = f"{symbol.replace('/', '-').replace(':', '-')}-{self.timeframe if self.what == 'candles' else self.what}"
        store = Store(self.out, stem, {"exchange": self.name, "symbol": symbol, "what": self.what, "timeframe": self.timeframe,
                                       "from_ms": self.from_ms, "to_ms": self.to_ms})
        state = store.state
        to_ms = state["identity"].get("to_ms") or state.get("to_ms") or int(time.time() * 1000)
        state["to_ms"] = to_ms
        pages = Pages(exchange, symbol, self.what, self.timeframe, self.from_ms, to_ms)
        already = state["done"]
        before = state["rows"]
        if not already:
            await self._pages(pages, store, number)
            await self._ends(pages, store)
        self.files.append({"path": str(store.path), "symbol": symbol, "rows": state["rows"], "resumed_from_rows": before,
                           "already": already,
                           "gaps": [shown(pages, h) for h in _holes(pages, state["holes"])]})

    async def _pages(self, pages: Pages, store: Store, number: int) -> None:
        cursor = store.state["cursor"] or pages.start()
        held: list[Rows] = []
        flushed_at = time.monotonic()
        done = False
        span_ms = max(1, pages.to_ms - pages.from_ms)
        while not done:
            if self.stopping():
                store.keep(pages, _joined(pages, held), cursor)
                raise Stopped
            try:
                page: Page = await self._tried(pages.page, cursor, int(time.time() * 1000))
            except PenstockError:
                store.keep(pages, _joined(pages, held), cursor)
                raise
            held.append(page.rows)
            cursor, done = page.cursor, page.done
            rows = store.state["rows"] + sum(map(len, held))
            if done or sum(map(len, held)) >= FLUSH_ROWS or time.monotonic() - flushed_at > FLUSH_S:
                store.keep(pages, _joined(pages, held), cursor)
                held, flushed_at = [], time.monotonic()
            share = min(1.0, max(0.0, (cursor["ms"] - pages.from_ms) / span_ms))
            self.progress((number + share) / len(self.config.symbols), f"{pages.symbol} {rows:,} rows")

    async def _ends(self, pages: Pages, store: Store) -> None:
        """Asks again for what is missing, then finishes the file."""
        holes = _holes(pages, store.state["holes"])
        step = 0
        if self.what == "funding":
            keys = store.keys(pages)
            step = int(np.median(np.diff(keys))) if len(keys) > 2 else 0
            holes = _between(pages, keys, step)
        if self.what == "candles":
            holes = _edges(pages, store) + holes
        extra, left = [pages.spec.empty(0)], []
        for hole in holes:
            if self.stopping():
                raise Stopped
            found: Rows = await self._tried(pages.again, hole)
            found = found[np.unique(pages.key(found), return_index=True)[1]]
            extra.append(found)
            left += _left(pages, hole, found, step)
        filled = np.concatenate(extra)
        if len(filled):
            log.info("rows that were missing were there when asked again", symbol=pages.symbol, rows=len(filled))
        for hole in left:
            log.warning("the exchange does not have these", symbol=pages.symbol, **shown(pages, hole))
        store.finish(pages, filled, left)

    async def _tried(self, ask: Callable[..., Any], *given: Any) -> Any:
        """An answer, after as many tries as it takes up to a bound; a ban is waited for and is no try."""
        backoff = Backoff(0.5, 30.0)
        for attempt in range(TRIES):
            try:
                while self.calls.banned_s > 0:
                    if self.stopping():
                        raise Stopped
                    await asyncio.sleep(min(0.1, self.calls.banned_s))
                return await ask(*given)
            except (*AWAY, ccxt.NetworkError) as error:
                if attempt == TRIES - 1:
                    raise PenstockError(f"{self.name} did not answer {TRIES} times ({reason(error)}); what was fetched is kept, "
                                        "run the same command again") from None
                log.warning("no answer; trying again", exchange=self.name, error=reason(error))
                if self.calls.banned_s == 0:
                    await asyncio.sleep(backoff.next_s())
            except ccxt.BaseError as error:
                raise PenstockError(f"{self.name} refuses: {reason(error)}") from None
        raise AssertionError("unreachable")


def _holes(pages: Pages, kept: list[list[int]]) -> list[Hole]:
    return [Hole(first, end, missing, pages.by_id) for first, end, missing in kept]


def _joined(pages: Pages, held: list[Rows]) -> Rows:
    return np.concatenate([pages.spec.empty(0), *held])


def _between(pages: Pages, keys: Any, step: int) -> list[Hole]:
    rows = pages.spec.empty(len(keys))
    rows["ts_event_ns"] = keys
    return pages.holes(None, rows, step)


def _edges(pages: Pages, store: Store) -> list[Hole]:
    """Candles that are missing before the first row, and after the last."""
    step = pages.step_ms
    first_ms = -(-pages.from_ms // step) * step
    end_ms = min(-(-pages.to_ms // step) * step, int(time.time() * 1000) // step * step)
    keys = store.keys(pages) // MS
    if len(keys) == 0:
        return [Hole(first_ms, end_ms, (end_ms - first_ms) // step)] if end_ms > first_ms else []
    spans = ((first_ms, int(keys[0])), (int(keys[-1]) + step, end_ms))
    return [Hole(a, b, (b - a) // step) for a, b in spans if b > a]


def _left(pages: Pages, hole: Hole, found: Rows, step: int) -> list[Hole]:
    """What of a hole is still missing."""
    if len(found) == 0:
        return [hole]
    unit = 1 if pages.by_id else MS
    width = 1 if pages.by_id else (pages.step_ms * MS if pages.what == "candles" else step)
    rows = pages.spec.empty(len(found) + 1)
    rows[:-1] = found
    name = "trade_id" if pages.by_id else "ts_open_ns" if pages.what == "candles" else "ts_event_ns"
    rows[name][-1] = hole.end * unit
    return pages.holes(hole.first * unit - width, rows, step)
