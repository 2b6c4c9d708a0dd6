"""Live prices as rows: an async iterator for those who have a loop, and frames for those who have a thread.

Rows come in the order of the feed; in frames they are numbered 0, 1, 2, … over all tables, from `first_number` on. What is
not taken in time is let go and fetched again, so a slow reader costs memory only up to a bound.
"""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from schemas.config_live import ExchangeConfig
from schemas.errors import UserError, unknown
from schemas.frame import Frame
from schemas.tables import BEATS, QUOTES, TRADES, Rows, TableSpec
from schemas.tables_desk import FUNDING_RATES
from sources.exchange_events import Event, Timings
from sources.exchange_feed import Feed
from sources.exchange_order import Trade
from telemetry import metrics

ROWS_MAX = 8_192
TABLES = ("trades", "quotes", "funding")
_SPECS: dict[str, TableSpec] = {s.name: s for s in (TRADES, QUOTES, BEATS, FUNDING_RATES)}
Batch = tuple[TableSpec, Rows, tuple[str, ...]]


def checked(config: ExchangeConfig) -> ExchangeConfig:
    """The configuration; UserError for tables that an exchange cannot give, or times that make no sense."""
    for table in config.tables:
        if table not in TABLES:
            raise unknown("exchange.tables entry", table, TABLES)
    for name in ("beat_s", "silence", "timeout_s", "rotate_s", "requests_per_minute_max"):
        if getattr(config, name) <= 0:
            raise UserError(f"exchange.{name} is 0; give a positive number")
    return config


def rows_of(table: str, events: Sequence[Event]) -> Rows:
    """Events of one table as rows, `seq` unset."""
    rows = _SPECS[table].empty(len(events))
    rows["symbol"] = [code for _, code, _ in events]
    if table == "trades":
        for column, values in (("ts_event_ns", [t.ts_ns for _, _, t in events]), ("price", [t.price for _, _, t in events]),
                               ("size", [t.size for _, _, t in events]), ("side", [t.side for _, _, t in events]),
                               ("trade_id", [t.number for _, _, t in events])):
            rows[column] = values
    elif table == "beats":
        rows["ts_event_ns"] = [ts for _, _, ts in events]
    else:
        columns = ("ts_event_ns", "bid", "ask", "bid_size", "ask_size") if table == "quotes" else ("ts_event_ns", "rate", "mark")
        for k, column in enumerate(columns):
            rows[column] = [values[k] for _, _, values in events]
    return rows


async def live_rows(config: ExchangeConfig, *, stopping: Callable[[], bool] = lambda: False,
                    timings: Timings | None = None) -> AsyncIterator[Batch]:
    """Rows of one table at a time, in the order of the feed, until `stopping()`."""
    events: deque[Event] = deque()
    some = asyncio.Event()

    def give(event: Event) -> None:
        events.append(event)
        some.set()

    feed = Feed(checked(config), give, stopping=stopping, pending=lambda: len(events), timings=timings)
    running = asyncio.create_task(feed.run())
    running.add_done_callback(lambda _: some.set())
    try:
        while events or not running.done():
            await some.wait()
            some.clear()
            while events:
                chunk = [events.popleft() for _ in range(min(len(events), ROWS_MAX))]
                for table, group in groupby(chunk, key=lambda e: e[0]):
                    yield _SPECS[table], rows_of(table, list(group)), config.symbols
        await running
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def live_frames(config: ExchangeConfig, first_number: int, stopping: Callable[[], bool], *,
                timings: Timings | None = None, said: Callable[[Feed], Any] = lambda feed: None,
                resume: Mapping[str, Trade] | None = None) -> Iterator[Frame]:
    """Frames of live rows, numbered from `first_number` on, until `stopping()`. resume: by symbol the last trade that is known,
    after which the first session fetches; of a configuration with one exchange, since ids are an exchange's own. The feed runs in a
    thread of its own; what it raises is raised here. `said` is given the feed at the end, for its counts."""
    events: deque[Event] = deque()
    some, over = threading.Event(), threading.Event()
    failed: list[BaseException] = []

    def give(event: Event) -> None:
        events.append(event)
        some.set()

    feed = Feed(checked(config), give, stopping=lambda: over.is_set() or stopping(), pending=lambda: len(events), timings=timings)
    if len(config.names) == 1:
        feed.resume = dict(resume or {})

    def run() -> None:
        try:
            asyncio.run(feed.run())
        except BaseException as error:  # carried to the thread that takes the frames
            failed.append(error)
        finally:
            over.set()
            some.set()

    thread = threading.Thread(target=run, name="exchange", daemon=True)
    thread.start()
    number = 0
    try:
        while events or not over.is_set():
            some.wait()
            some.clear()
            while events:
                chunk = [events.popleft() for _ in range(min(len(events), ROWS_MAX))]
                yield _frame(chunk, first_number, number, config.symbols)
                first_number, number = first_number + len(chunk), number + 1
        if failed:
            raise failed[0]
    finally:
        over.set()
        thread.join(timeout=config.timeout_s + 5)
        said(feed)


def _frame(chunk: list[Event], first: int, number: int, symbols: tuple[str, ...]) -> Frame:
    tables: dict[str, Rows] = {}
    for table in dict.fromkeys(e[0] for e in chunk):
        places = [k for k, e in enumerate(chunk) if e[0] == table]
        rows = rows_of(table, [chunk[k] for k in places])
        rows["seq"] = np.array(places, np.int64) + first
        tables[table] = rows
        if table in ("trades", "quotes"):
            metrics.SILENCE_SECONDS.see(symbols, rows["symbol"], rows["ts_event_ns"])
    frontier_ns = max(int(rows["ts_event_ns"].max()) for rows in tables.values())
    return Frame("exchange", number, frontier_ns, symbols, tables)
