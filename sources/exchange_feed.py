"""The feed of live prices: one exchange in use at a time, the first healthy one of those named.

A connection is replaced before the exchange ends it; an exchange that is away for `failover_s` is replaced by the next in
priority, and taken again when it has answered for `healthy_s`. What comes out, and in which order, is `Events`.
"""

import asyncio
import time
from collections.abc import Callable

import ccxt

from schemas.config_live import ExchangeConfig
from schemas.errors import PenstockError, UserError
from sources.exchange_calls import Backoff
from sources.exchange_events import Event, Events, Timings
from sources.exchange_session import AWAY, Session, known_exchange, reason
from telemetry import logs, metrics

log = logs.get("ingest")


class Feed(Events):
    """Runs until `stopping()`. UserError for what the configuration names wrongly, PenstockError where the clock is too far off."""

    def __init__(self, config: ExchangeConfig, give: Callable[[Event], None], *, stopping: Callable[[], bool] = lambda: False,
                 pending: Callable[[], int] = lambda: 0, timings: Timings | None = None) -> None:
        if not config.symbols:
            raise UserError("no symbols; give --symbols BTC/USDT,ETH/USDT, or exchange.symbols in the configuration")
        if not config.names:
            raise UserError("no exchange; give --exchange binance, or exchange.names in the configuration")
        for name in config.names:
            known_exchange(name)
        super().__init__(config, give, pending, timings or Timings())
        self.stopping = stopping
        self._used = False
        self._helpers: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        """Until `stopping()`."""
        self._helpers = [asyncio.create_task(h) for h in (self.beats(), self.funding())]
        try:
            avoid = ""
            while not self.stopping():
                await self._open(avoid)
                avoid = await self._supervise()
        finally:
            for task in (*self._helpers, *(s.repair for s in self.symbols.values() if s.repair is not None)):
                task.cancel()
            for session in (self.coming, self.session):
                if session is not None:
                    await session.stop()
            self.coming = self.session = None

    async def _open(self, avoid: str) -> None:
        """Connect to the first exchange that works, by priority; the one to avoid comes last."""
        names = sorted(self.config.names, key=lambda n: n == avoid)
        backoff = Backoff(1.0)
        while not self.stopping():
            refused: list[PenstockError] = []
            for name in names:
                try:
                    session = await self._connect(name)
                except (*AWAY, ccxt.BaseError) as error:
                    log.warning("the exchange cannot be used now", exchange=name, error=reason(error))
                except PenstockError as error:
                    if isinstance(error, UserError) and not self._used:
                        raise
                    refused.append(error)
                    log.error(str(error))
                else:
                    self._use(session)
                    return
            if len(refused) == len(names):
                raise refused[0]
            wait_s = max(backoff.next_s(), min(c.banned_s for c in self.calls.values()))
            log.warning("no exchange can be used; trying again", in_s=round(wait_s, 1), exchanges=list(names))
            await self._sleep(wait_s)

    async def _connect(self, name: str) -> Session:
        session = Session(name, self.config, self.calls[name], self)
        try:
            await session.load()
            await self.clocks[name].measure(session.exchange)
        except BaseException:
            await session.stop()
            raise
        return session

    def _use(self, session: Session) -> None:
        self.begin(session)
        self._used = True
        log.info("this exchange is in use", exchange=session.name, symbols=len(self.config.symbols))
        session.start()

    async def _supervise(self) -> str:
        """Watches over the session in use. Returns the exchange to avoid when it is time for another, or at the end."""
        assert self.session is not None
        better = self.config.names[: self.config.names.index(self.session.name)]
        own = [asyncio.create_task(t) for t in (self._rotating(), self._measuring(), self._failing_back(better))]
        try:
            while not self.stopping():
                await asyncio.sleep(self.timings.tick_s)
                for task in (*own, *self._helpers):
                    if task.done():
                        task.result()
                now = time.monotonic()
                silent = self.look(now)
                if silent:
                    log.warning("silent for longer than ever; subscribing again", exchange=self.session.name, symbols=silent[:20])
                    metrics.RECONNECTS.labels(exchange=self.session.name, reason="silence").inc()
                    await self.session.drop()
                down = self.down_since
                if len(self.config.names) > 1 and down is not None and now - down > self.timings.failover_s:
                    name = self.session.name
                    log.warning("the exchange was away for too long; another takes over", exchange=name, s=round(now - down, 1))
                    await self._leave()
                    return name
        finally:
            for task in own:
                task.cancel()
        return ""

    async def _leave(self) -> None:
        gone, self.session = self.session, None
        if gone is not None:
            metrics.EXCHANGE_IN_USE.labels(exchange=gone.name).set(0)
            await gone.stop()

    async def _rotating(self) -> None:
        """A new connection before the exchange ends the old one; both live for a while."""
        while True:
            await asyncio.sleep(self.config.rotate_s)
            old = self.session
            if old is None:
                return
            new = Session(old.name, self.config, self.calls[old.name], self)
            try:
                await new.load(old.exchange.markets)
                self.coming = new
                new.start()
                until = time.monotonic() + self.timings.overlap_s_max
                while not (new.is_connected and new.heard >= old.heard) and time.monotonic() < until:
                    await asyncio.sleep(self.timings.tick_s)
                if not new.is_connected:
                    raise ccxt.NetworkError("no second connection")
                await asyncio.sleep(self.timings.overlap_s)
            except (*AWAY, ccxt.BaseError) as error:
                log.warning("the connection was not rotated; trying again", exchange=old.name, error=reason(error))
                self.coming = None
                await new.stop()
                continue
            self.session, self.coming = new, None
            self.rotations += 1
            metrics.RECONNECTS.labels(exchange=new.name, reason="rotated").inc()
            log.info("the connection was rotated", exchange=new.name)
            if not all(s.order.counted and s.order.last is not None and s.order.last.number >= 0 for s in self.symbols.values()):
                self.hold()
            await old.stop()

    async def _measuring(self) -> None:
        while True:
            await asyncio.sleep(self.timings.clock_s)
            if self.session is not None:
                try:
                    await self.clocks[self.session.name].measure(self.session.exchange)
                except (*AWAY, ccxt.BaseError) as error:
                    log.warning("the clock offset was not measured", exchange=self.session.name, error=reason(error))

    async def _failing_back(self, better: tuple[str, ...]) -> None:
        """Goes back to an exchange of higher priority that has answered for a while."""
        asked: dict[str, tuple[Session, float]] = {}
        try:
            while better:
                await asyncio.sleep(self.timings.probe_s)
                for name in better:
                    try:
                        if name in asked:
                            await self.clocks[name].measure(asked[name][0].exchange)
                        else:
                            asked[name] = await self._connect(name), time.monotonic()
                    except (*AWAY, ccxt.BaseError, PenstockError):
                        if name in asked:
                            await asked.pop(name)[0].stop()
                        continue
                    if time.monotonic() - asked[name][1] >= self.timings.healthy_s:
                        log.info("a better exchange answers again", exchange=name)
                        old = self.session
                        self._use(asked.pop(name)[0])
                        if old is not None:
                            await old.stop()
                        better = self.config.names[: self.config.names.index(name)]
                        break
        finally:
            for session, _ in asked.values():
                await session.stop()

    async def _sleep(self, s: float) -> None:
        until = time.monotonic() + s
        while not self.stopping() and time.monotonic() < until:
            await asyncio.sleep(min(self.timings.tick_s, s))
