"""What comes from an exchange, put into an order that holds: the events of the session in use, and what was missed.

Every trade goes on once, in the exchange's order; behind a hole or a lost connection everything of a symbol waits until the
missed trades are fetched. A heartbeat says that time has passed only where that is known: none is given while a connection
is down, nor for `repair_hold_s` while missed trades are on their way. Quotes that were missed stay missed, and a quote that
says what the one before said is left out.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import ccxt

from schemas.config_live import ExchangeConfig
from schemas.tables import ALL_SYMBOLS
from sources.exchange_calls import Backoff, Calls
from sources.exchange_clock import ExchangeClock
from sources.exchange_order import Trade, TradeOrder
from sources.exchange_rate import Pulse
from sources.exchange_session import AWAY, Session, reason, trades_after
from telemetry import logs, metrics

QUOTES_HELD_MAX = 1_000
PENDING_MAX = 200_000
"""Events that nobody has taken yet; beyond, events are let go, and their trades fetched when there is room again."""
RECENT_MAX = 256
"""Quotes of a symbol by which a second connection is recognised as being behind the first."""
REPAIR_TRIES = 3
log = logs.get("ingest")
Event = tuple[str, int, Any]
"""Table, code of the symbol, and what it is: a Trade, (time, bid, ask, bid size, ask size), (time, rate, mark), or a time."""


@dataclass(frozen=True)
class Timings:
    """How patient the feed is, in seconds. hole_s: how long a jump in ids may close by itself. connect_s: how long a new connection is
    given to show its first event. repair_hold_s: how long heartbeats wait for missed trades. overlap_s: how long both
    connections live in a rotation. failover_s: how long the exchange in use may be away. probe_s, healthy_s: how often, and for
    how long, a better one must answer before it is used again. clock_s: between measurements of the clock offset."""

    hole_s: float = 0.25
    connect_s: float = 3.0
    repair_hold_s: float = 30.0
    overlap_s: float = 5.0
    overlap_s_max: float = 60.0
    failover_s: float = 10.0
    probe_s: float = 15.0
    healthy_s: float = 60.0
    clock_s: float = 600.0
    funding_s: float = 60.0
    tick_s: float = 0.1


@dataclass
class _Symbol:
    """What is known of one symbol on the exchange in use."""

    name: str
    code: int
    pulses: dict[str, Pulse]
    order: TradeOrder = field(default_factory=TradeOrder)
    quotes: deque[tuple[float, ...]] = field(default_factory=lambda: deque(maxlen=QUOTES_HELD_MAX))
    quoted_by: Session | None = None
    recent: deque[tuple[float, ...]] = field(default_factory=lambda: deque(maxlen=RECENT_MAX))
    repair: asyncio.Task[None] | None = None
    repair_since: float = 0.0
    repair_again: bool = False
    silent: bool = False


class Events:
    """The listener of sessions. `give` gets every event; `pending` says how many of them nobody has taken yet."""

    def __init__(self, config: ExchangeConfig, give: Callable[[Event], None], pending: Callable[[], int], timings: Timings) -> None:
        self.config, self.give, self.pending, self.timings = config, give, pending, timings
        self.calls = {n: Calls(n, config.requests_per_minute_max, config.timeout_s) for n in config.names}
        self.clocks = {n: ExchangeClock(n, config.clock_offset_s_max) for n in config.names}
        self.session: Session | None = None
        self.coming: Session | None = None
        """In a rotation, the session that will be in use."""
        self.symbols: dict[str, _Symbol] = {}
        self.resume: Mapping[str, Trade] = {}
        """By symbol the trade that the process before wrote last; it counts for the first session."""
        self.duplicates = self.fetched = self.reconnects = self.rotations = 0
        self.down_since: float | None = None
        self._let_go = 0
        self._beat_ns = 0

    def begin(self, session: Session) -> None:
        """From now on this session's events count; those of another exchange are over."""
        for one in self.symbols.values():
            self._emit(one, one.order.repaired([]))
            if one.repair is not None:
                one.repair.cancel()
        self.symbols = {
            name: _Symbol(name, code, {t: Pulse(self.config.silence) for t in ("trades", "quotes")})
            for code, name in enumerate(self.config.symbols)
        }
        for name, trade in self.resume.items():
            if name in self.symbols:
                self.symbols[name].order.last = trade
                self.symbols[name].order.hold()  # until what was traded since is fetched
        self.resume = {}
        self.session, self.down_since = session, time.monotonic()
        for name in self.config.names:
            metrics.EXCHANGE_IN_USE.labels(exchange=name).set(name == session.name)

    def look(self, now: float) -> list[str]:
        """What stands still is set going, every tick. Returns the symbols that are silent beyond their custom."""
        if self.session is None:
            return []
        if self.session.is_connected:
            self.down_since = None
            for one in self.symbols.values():
                if one.order.holding and one.repair is None:
                    self._repair(one, "the connection was lost")
        elif self.down_since is None:
            self.down_since = now
        if self._let_go and self.pending() < PENDING_MAX // 2:
            log.warning("events came faster than they were written; trades are fetched again, quotes are gone", events=self._let_go)
            self._let_go = 0
            self.hold()
        silent = sorted({s.name for s in self.symbols.values() for p in s.pulses.values() if self.down_since is None and p.silent(now)})
        for name in silent:
            self.symbols[name].silent = True
        metrics.SILENT_SYMBOLS.set(sum(s.silent for s in self.symbols.values()))
        return silent

    def hold(self) -> None:
        """Let nothing through until what may have been missed is here."""
        if "trades" in self.config.tables:
            for one in self.symbols.values():
                one.order.hold()
                one.repair_again = one.repair is not None

    def traded(self, session: Session, symbol: str, trade: Trade) -> None:
        """A trade came, from the session in use or from the one that will be."""
        one = self.symbols.get(symbol)
        if one is None or not self._counts(session):
            return
        self._heard(one, "trades")
        if self.pending() > PENDING_MAX:
            self._let_go += 1
            return
        clock = self.clocks[session.name]
        if trade.ts_ns == 0:
            trade = Trade(trade.id, clock.now_ns(), trade.price, trade.size, trade.side)
        before = one.order.duplicates
        ready = one.order.push(trade)
        if one.order.duplicates > before:
            self.duplicates += 1
            metrics.INGEST_DUPLICATES.labels(exchange=session.name).inc()
        elif ready:
            clock.arrived(trade.ts_ns)
        self._emit(one, ready)
        if one.order.open_hole and not one.order.holding:
            self._repair(one, "ids jumped")

    def quoted(self, session: Session, symbol: str, ts_ns: int | None, quote: tuple[float, float, float, float]) -> None:
        """A quote came; in a rotation the newer session takes over a symbol as soon as it is ahead."""
        one = self.symbols.get(symbol)
        if one is None or not self._counts(session):
            return
        self._heard(one, "quotes")
        if one.quoted_by is not session:
            both = one.quoted_by is self.session and session is self.coming
            if session is not self.coming and one.quoted_by is self.coming is not None:
                return
            if both and quote in one.recent:
                return  # it repeats what the older session said already
            one.quoted_by = session
        if one.recent and quote == one.recent[-1]:
            return
        if self.pending() > PENDING_MAX:
            self._let_go += 1
            return
        one.recent.append(quote)
        at = (ts_ns if ts_ns is not None else self.clocks[session.name].quoted_ns(), *quote)
        if one.repair is not None or one.order.holding:
            one.quotes.append(at)
        else:
            self.give(("quotes", one.code, at))

    def _counts(self, session: Session) -> bool:
        """Whether it is the session in use, or the one that will be."""
        return session is self.session or session is self.coming

    def connected(self, session: Session, again: bool) -> None:
        """A connection was made; what it missed while it was away is fetched."""
        log.info("connected", exchange=session.name, again=again)
        if session is self.session and again:
            self.hold()

    def lost(self, session: Session, why: str) -> None:
        """A connection was lost: nothing goes on until what it missed is here."""
        log.warning("a connection was lost", exchange=session.name, why=why)
        if session is not self.session:
            return
        self.reconnects += 1
        metrics.RECONNECTS.labels(exchange=session.name, reason="lost").inc()
        now = time.monotonic()
        self.down_since = self.down_since or now
        self.hold()
        for one in self.symbols.values():
            for pulse in one.pulses.values():
                pulse.forgive(now)

    async def beats(self) -> None:
        """Heartbeats, where it is known that time has passed."""
        while True:
            await asyncio.sleep(self.config.beat_s)
            session, now = self.session, time.monotonic()
            if session is None or self.down_since is not None or not session.is_connected or self._let_go:
                continue
            if any(s.repair is not None and now - s.repair_since < self.timings.repair_hold_s for s in self.symbols.values()):
                continue
            at_ns = self.clocks[session.name].passed_ns()
            metrics.SILENCE_SECONDS.passed(at_ns)
            if at_ns > self._beat_ns:
                self._beat_ns = at_ns
                self.give(("beats", ALL_SYMBOLS, at_ns))

    async def funding(self) -> None:
        """Payments of perpetuals, as they become known."""
        told: dict[str, int] = {}
        while "funding" in self.config.tables:
            await asyncio.sleep(self.timings.funding_s)
            session = self.session
            if session is None or not session.exchange.has.get("fetchFundingRateHistory"):
                continue
            clock = self.clocks[session.name]
            for one in list(self.symbols.values()):
                if not session.exchange.markets[one.name].get("swap"):
                    continue
                since = told.setdefault(one.name, clock.now_ns() // 10**6)
                try:
                    found = await session.exchange.fetch_funding_rate_history(one.name, since + 1)
                except (*AWAY, ccxt.BaseError) as error:
                    log.warning("funding was not fetched", exchange=session.name, symbol=one.name, error=reason(error))
                    continue
                for paid in found:
                    if paid["timestamp"] > told[one.name] and paid.get("fundingRate") is not None:
                        told[one.name] = int(paid["timestamp"])
                        at_ns = max(clock.passed_ns(), paid["timestamp"] * 10**6)
                        self.give(("funding", one.code, (at_ns, float(paid["fundingRate"]), 0.0)))

    def _repair(self, one: _Symbol, why: str) -> None:
        if one.repair is not None:
            return
        one.repair_since, one.repair_again = time.monotonic(), False
        one.repair = asyncio.create_task(self._fetch_missed(one, why))

    async def _fetch_missed(self, one: _Symbol, why: str) -> None:
        try:
            await self._settle(one)
            backoff, tries = Backoff(), 0
            while one.order.open_hole:
                session, last = self.session, one.order.last
                if session is None or last is None:
                    return
                one.repair_again = False
                try:
                    fetched = await trades_after(session.exchange, one.name, last)
                except (*AWAY, ccxt.BaseError) as error:
                    log.warning("missed trades were not fetched; trying again", exchange=session.name, symbol=one.name, error=reason(error))
                    await asyncio.sleep(backoff.next_s())
                    await self.calls[session.name].clear()
                    continue
                tries += 1
                whole = one.order.fills(fetched)
                if one.repair_again or (not whole and tries < REPAIR_TRIES):
                    await asyncio.sleep(backoff.next_s())
                    continue
                held = one.order.held
                ready = one.order.repaired(fetched)
                filled = max(0, len(ready) - held)
                self.fetched += filled
                metrics.INGEST_FILLED.labels(exchange=session.name).inc(filled)
                if not whole:
                    log.warning("the exchange does not have every number between", exchange=session.name, symbol=one.name, after=last.id)
                if filled:
                    log.info("missed trades were fetched", exchange=session.name, symbol=one.name, why=why, trades=filled)
                self._emit(one, ready)
        except asyncio.CancelledError:
            one.quotes.clear()
            raise
        finally:
            one.repair = None
            while one.quotes:
                self.give(("quotes", one.code, one.quotes.popleft()))

    async def _settle(self, one: _Symbol) -> None:
        """A jump may close by itself; a new connection should have shown that it is subscribed."""
        if not one.order.holding:
            await asyncio.sleep(self.timings.hole_s)
            return
        until = time.monotonic() + self.timings.connect_s
        while time.monotonic() < until and not (self.down_since is None and one.order.held):
            await asyncio.sleep(self.timings.tick_s)

    def _emit(self, one: _Symbol, ready: list[Trade]) -> None:
        for trade in ready:
            while one.quotes and one.quotes[0][0] <= trade.ts_ns:
                self.give(("quotes", one.code, one.quotes.popleft()))
            self.give(("trades", one.code, trade))

    def _heard(self, one: _Symbol, table: str) -> None:
        one.pulses[table].beat(time.monotonic())
        one.silent = False
