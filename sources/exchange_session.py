"""One connection to one exchange through ccxt: subscriptions that are kept up, and every event handed on as it arrives.

A session never decides what to do about trouble: it tells its listener that a connection was lost or made, and each trade
and quote in the order in which they came. Events are taken where ccxt stores them, before anything waits, so that none is
overwritten by the next. Nothing that an exchange sends can end the loop that reads it.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol

import ccxt
import ccxt.async_support
import ccxt.pro
from ccxt.async_support.base.ws.cache import ArrayCache

from schemas.config_live import ExchangeConfig
from schemas.errors import UserError, unknown
from schemas.tables import SIDES
from sources.exchange_calls import Backoff, Banned, Calls
from sources.exchange_order import Trade
from telemetry import logs

BY_ID = ("binance", "binanceus", "binanceusdm", "binancecoinm")
"""Exchanges whose trades can be asked for by id: their aggregated trades, numbered without gaps, need no key."""
_ROOM = {"binance": "public", "binanceus": "public", "binanceusdm": "fapiPublic", "binancecoinm": "dapiPublic"}
_PAGE = 1000
AWAY = (ccxt.NetworkError, ccxt.ExchangeClosedByUser, ConnectionError, asyncio.TimeoutError, Banned)
"""What an exchange that is away, slow, in maintenance or banning us raises."""
log = logs.get("ingest")


class Listener(Protocol):
    """Who a session talks to; `session` is the one that speaks."""

    def traded(self, session: "Session", symbol: str, trade: Trade) -> None: ...
    def quoted(self, session: "Session", symbol: str, ts_ns: int | None, quote: tuple[float, float, float, float]) -> None: ...
    def connected(self, session: "Session", again: bool) -> None: ...
    def lost(self, session: "Session", why: str) -> None: ...


def known_exchange(name: str) -> None:
    """UserError where ccxt does not know it, or knows no websockets of it."""
    if name not in ccxt.exchanges:
        raise unknown("exchange", name, ccxt.exchanges)
    if name not in ccxt.pro.exchanges:
        raise UserError(f"{name} has no websockets in ccxt, so nothing can be streamed from it; "
                        f"its past can be had with `penstock fetch-history --exchange {name}`")


def made(name: str, config: ExchangeConfig, symbols: Sequence[str], streaming: bool = True) -> Any:
    """A ccxt exchange with the user's options. Those of one exchange of several are under its name."""
    given = config.options.get(name, config.options)
    own: dict[str, Any] = {"enableRateLimit": True, "newUpdates": True, "options": {}}
    if name in BY_ID:
        own["options"]["watchTradesForSymbols"] = {"name": "aggTrade"}
        if not any(":" in s for s in symbols):
            own["options"]["fetchMarkets"] = {"types": ["spot"]}
    try:
        if streaming:
            one = getattr(ccxt.pro, name)(ccxt.Exchange.deep_extend(own, dict(given)))
        else:
            one = getattr(ccxt.async_support, name)(ccxt.Exchange.deep_extend(own, dict(given)))
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"exchange options: {error}") from None
    if name in BY_ID and one.options["watchTradesForSymbols"]["name"] == "trade":
        if not one.apiKey:
            raise UserError(f"exchange options: single trades of {name} can be asked for again only with an apiKey; "
                            "give one, or take watchTradesForSymbols out: aggregated trades need none")
        one.options["fetchTradesMethod"] = f"{_ROOM[name]}GetHistoricalTrades"
    return one


def known_symbols(exchange: Any, symbols: Sequence[str]) -> None:
    """UserError for a symbol that the exchange does not have, with the nearest."""
    for symbol in symbols:
        if symbol not in exchange.markets:
            near = [s for s in exchange.markets if s.replace("/", "").split(":")[0] == symbol.replace("/", "").replace("-", "").upper()]
            if near:
                raise UserError(f'unknown symbol of {exchange.id} "{symbol}"; did you mean "{near[0]}"?')
            few = unknown(f"symbol of {exchange.id}", symbol, exchange.markets)
            some = f"it has {len(exchange.markets)}, such as {', '.join(sorted(exchange.markets)[:5])}"
            raise few if len(str(few)) < 300 else UserError(f'unknown symbol of {exchange.id} "{symbol}"; {some}')
        if exchange.markets[symbol].get("active") is False:
            log.warning("the exchange says that this symbol is not traded now", exchange=exchange.id, symbol=symbol)


class Session:
    """One ccxt instance with its connections. `start` connects, `stop` leaves nothing running."""

    def __init__(self, name: str, config: ExchangeConfig, calls: Calls, listener: Listener) -> None:
        self.name, self.config, self.calls, self.listener = name, config, calls, listener
        self.exchange = made(name, config, config.symbols)
        self.closed = False
        self.messages = self.garbage = 0
        self.heard: set[str] = set()
        """Tables that something came of."""
        self._tapped: set[tuple[str, str]] = set()
        self._urls: set[str] = set()
        self._tasks: list[asyncio.Task[None]] = []
        calls.guard(self.exchange)
        self._tap()

    async def load(self, markets: Mapping[str, Any] | None = None) -> None:
        """Markets, from another session where there is one. UserError for an unknown symbol, or a table that it cannot stream."""
        if markets:
            self.exchange.set_markets(list(markets.values()))
        else:
            await self.exchange.load_markets()
        known_symbols(self.exchange, self.config.symbols)
        for table, able in (("trades", ("watchTradesForSymbols", "watchTrades")),
                            ("quotes", ("watchBidsAsks", "watchOrderBookForSymbols", "watchOrderBook", "watchTicker"))):
            if table in self.config.tables and not any(self.exchange.has.get(a) for a in able):
                raise UserError(f"{self.name} streams no {table} in ccxt; leave {table} out of exchange.tables, or use another exchange")

    def start(self) -> None:
        """Keep the subscriptions up until `stop`."""
        for loop in self._loops():
            self._tasks.append(asyncio.create_task(loop))

    @property
    def is_connected(self) -> bool:
        """Whether every connection that was made is there."""
        live = {_place(url) for url, c in (self.exchange.clients or {}).items() if c.isConnected and not c.closed()}
        return bool(self._urls) and self._urls <= live

    async def drop(self) -> None:
        """Close the connections, which the loops then make again."""
        for client in list((self.exchange.clients or {}).values()):
            client.on_error(ccxt.NetworkError("dropped by us"))
        await asyncio.sleep(0)

    async def stop(self) -> None:
        """Close everything."""
        self.closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            await asyncio.wait_for(self.exchange.close(), self.calls.timeout_s)
        except (*AWAY, ccxt.BaseError) as error:
            log.debug("a connection was not closed in time", exchange=self.name, error=str(error))

    def _loops(self) -> list[Coroutine[Any, Any, None]]:
        symbols, has = list(self.config.symbols), self.exchange.has
        out: list[Coroutine[Any, Any, None]] = []
        if "trades" in self.config.tables:
            if has.get("watchTradesForSymbols"):
                out.append(self._watch("trades", lambda: self.exchange.watch_trades_for_symbols(symbols), self._trades))
            else:
                out += [self._watch("trades", lambda s=s: self.exchange.watch_trades(s), self._trades) for s in symbols]  # type: ignore[misc]
        if "quotes" in self.config.tables:
            if has.get("watchBidsAsks"):
                out.append(self._watch("quotes", lambda: self.exchange.watch_bids_asks(symbols), self._tickers))
            elif has.get("watchOrderBookForSymbols"):
                out.append(self._watch("quotes", lambda: self.exchange.watch_order_book_for_symbols(symbols), self._book))
            elif has.get("watchOrderBook"):
                out += [self._watch("quotes", lambda s=s: self.exchange.watch_order_book(s), self._book) for s in symbols]  # type: ignore[misc]
            else:
                out += [self._watch("quotes", lambda s=s: self.exchange.watch_ticker(s), self._tickers) for s in symbols]  # type: ignore[misc]
        return out

    async def _watch(self, table: str, ask: Callable[[], Any], take: Callable[[Any], None]) -> None:
        backoff = Backoff()
        while not self.closed:
            try:
                take(await ask())
                backoff.reset()
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if self.closed or (task is not None and task.cancelling()):
                    raise
                self.listener.lost(self, f"{table}: closed")  # ccxt cancels the futures of a connection that it closes
                await asyncio.sleep(backoff.next_s())
            except (*AWAY, ccxt.BaseError) as error:
                if self.closed:
                    return
                self.listener.lost(self, f"{table}: {reason(error)}")
                await asyncio.sleep(backoff.next_s())
                await self.calls.clear()

    def _trades(self, found: Any) -> None:
        """What the call returned, for an exchange whose store is not one that can be listened to."""
        for t in found or ():
            if ("trades", t["symbol"]) not in self._tapped:
                self._trade(t)

    def _tickers(self, found: Any) -> None:
        for ticker in [found] if "symbol" in (found or {}) else list((found or {}).values()):
            if ("quotes", ticker["symbol"]) not in self._tapped:
                self._quote(ticker)

    def _book(self, book: Any) -> None:
        best = {"symbol": book["symbol"], "timestamp": book["timestamp"]}
        for side, price, size in (("bids", "bid", "bidVolume"), ("asks", "ask", "askVolume")):
            best[price], best[size] = book[side][0][:2] if book[side] else (0.0, 0.0)
        self._quote(best)

    def _trade(self, t: Any) -> None:
        self.heard.add("trades")
        side = SIDES.index(t["side"]) if t.get("side") in SIDES else 0
        ts_ns = int(t["timestamp"]) * 10**6 if t.get("timestamp") else 0
        self.listener.traded(self, t["symbol"], Trade(str(t.get("id") or ""), ts_ns, float(t["price"]), float(t["amount"]), side))

    def _quote(self, t: Any) -> None:
        self.heard.add("quotes")
        quote = tuple(float(t.get(k) or 0.0) for k in ("bid", "ask", "bidVolume", "askVolume"))
        ts_ns = int(t["timestamp"]) * 10**6 if t.get("timestamp") else None
        self.listener.quoted(self, t["symbol"], ts_ns, quote)  # type: ignore[arg-type]

    def _tap(self) -> None:
        """Listens where ccxt stores trades and quotes, where its connections begin, and to messages that it cannot read."""
        session, exchange = self, self.exchange

        class Trades(ArrayCache):  # type: ignore[misc]
            def append(self, item: Any) -> None:
                super().append(item)
                session._tapped.add(("trades", item["symbol"]))
                session._trade(item)

        class Quotes(dict[str, Any]):
            def __setitem__(self, symbol: str, ticker: Any) -> None:
                super().__setitem__(symbol, ticker)
                session._tapped.add(("quotes", symbol))
                session._quote(ticker)

        exchange.trades = {s: Trades(1000) for s in self.config.symbols}
        if "quotes" in self.config.tables and exchange.has.get("watchBidsAsks"):
            exchange.bidsasks = Quotes()
        client, connected = exchange.client, exchange.on_connected

        def guarded(url: str) -> Any:
            known = url in (exchange.clients or {})
            one = client(url)
            if not known:
                handle = one.handle_message

                def careful(message: Any) -> None:
                    session.messages += 1
                    try:
                        handle(message)
                    except Exception as error:  # whatever an exchange sends: the next message is read
                        session.garbage += 1
                        if session.garbage < 10 or session.garbage % 1000 == 0:
                            log.warning("a message could not be read and was left out; its trades are asked for when their ids are missed",
                                        exchange=session.name, error=f"{type(error).__name__}: {error}"[:200], messages=session.garbage)

                one.handle_message = careful
            return one

        def on_connected(one: Any, message: Any = None) -> None:
            connected(one, message)
            again = _place(one.url) in session._urls
            session._urls.add(_place(one.url))
            session.listener.connected(session, again)

        exchange.client, exchange.on_connected = guarded, on_connected


def _place(url: str) -> str:
    """An address without the token that some exchanges give anew to each connection."""
    return url.partition("?")[0]


def reason(error: BaseException) -> str:
    """An error of an exchange in one short line."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, ccxt.OnMaintenance):
        text = f"maintenance: {error}"
    return " ".join(text.split())[:200]


async def trades_after(exchange: Any, symbol: str, last: Trade, pages_max: int = 1000) -> list[Trade]:
    """All trades after `last` by REST, in the exchange's order, a page at a time; what is beyond `pages_max` is left and said."""
    out: list[Trade] = []
    seen = {last.id}
    at = last
    for _ in range(pages_max):
        if exchange.id in BY_ID and at.number >= 0:
            found = await exchange.fetch_trades(symbol, None, _PAGE, {"fromId": at.number + 1})
        else:
            found = await exchange.fetch_trades(symbol, at.ts_ns // 10**6, _PAGE)
        page = [t for t in map(_from_rest, found) if t.id not in seen and (t.number < 0 or last.number < 0 or t.number > last.number)]
        page.sort(key=lambda t: (t.ts_ns, t.number))
        out += page
        seen.update(t.id for t in page)
        if not page or (exchange.id in BY_ID and len(found) < _PAGE):
            return out
        at = page[-1]
    log.error("too many trades were missed; the rest can be had with penstock fetch-history", exchange=exchange.id, symbol=symbol,
              after=at.id, pages=pages_max)
    return out


def _from_rest(t: Any) -> Trade:
    side = SIDES.index(t["side"]) if t.get("side") in SIDES else 0
    return Trade(str(t.get("id") or ""), int(t["timestamp"] or 0) * 10**6, float(t["price"]), float(t["amount"]), side)
