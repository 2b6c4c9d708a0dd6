"""A local exchange that speaks enough of Binance spot for ccxt: REST and websockets, which misbehaves on cue.

It plays real trades and quotes where recorded frames are at hand, else made-up ones; every trade that it has published can be
asked for by REST, whatever its sockets did. Times are those of its own clock at publication.
"""

import asyncio
import gzip
import json
import os
import random
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

DATA = Path(os.environ.get("PENSTOCK_DATA", Path(__file__).parents[2] / "shared" / "data"))
FRAMES = DATA / "frames" / "spot_btcusdt_20240809.gz"
SYMBOLS = {"BTCUSDT": ("BTC", "USDT"), "ETHUSDT": ("ETH", "USDT")}
MINUTE_MS = 60_000


def recorded(n: int) -> list[dict[str, Any]]:
    """The first `n` trade and bookTicker messages of a recording: real ones where there is one."""
    if not FRAMES.exists():
        return made_up(n)
    out: list[dict[str, Any]] = []
    with gzip.open(FRAMES, "rt") as file:
        for line in file:
            body = json.loads(line.partition(" ")[2])
            if "@trade" in body.get("stream", "") or "@bookTicker" in body.get("stream", ""):
                out.append(body["data"])
            if len(out) == n:
                return out
    return out


def made_up(n: int) -> list[dict[str, Any]]:
    chance, price, out, trade = random.Random(1), 60_000.0, [], 3_735_693_016
    for k in range(n):
        price += chance.uniform(-1, 1)
        if k % 3:
            out.append({"u": k, "s": "BTCUSDT", "b": f"{price - 0.01:.2f}", "B": f"{chance.random():.5f}", "a": f"{price:.2f}", "A": "1.0"})
        else:
            out.append({"e": "trade", "s": "BTCUSDT", "t": trade, "p": f"{price:.2f}", "q": f"{0.001 + chance.random():.5f}", "m": k % 2 == 0})
            trade += 1
    return out


@dataclass
class Socket:
    ws: web.WebSocketResponse
    streams: set[str] = field(default_factory=set)
    waiting: list[str] = field(default_factory=list)
    """A message that a reordering socket keeps back."""


class ExchangeServer:
    """Runs in a thread of its own. Cues are attributes that a test sets while it runs."""

    def __init__(self) -> None:
        self.trades: dict[str, list[dict[str, Any]]] = {s: [] for s in SYMBOLS}
        self.klines: dict[str, list[list[Any]]] = {s: [] for s in SYMBOLS}
        self.requests: list[tuple[float, str, int]] = []
        self.connections = 0
        self.clock_offset_ms = 0
        self.stalled = self.duplicating = self.reordering = self.maintenance = False
        self.garbage_every = self.losing_every = self.quotes_sent = self.sent = 0
        self.slow_s = 0.0
        self.refuse: tuple[int, str | None] | None = None
        """Status and Retry-After with which REST answers."""
        self.sockets: list[Socket] = []
        self.loop = asyncio.new_event_loop()
        self.port = 0
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "ExchangeServer":
        self._thread.start()
        assert self._ready.wait(20)
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(20)

    @property
    def options(self) -> dict[str, Any]:
        """What makes ccxt's Binance talk to this server."""
        rest = f"http://127.0.0.1:{self.port}"
        return {"urls": {"api": {"public": f"{rest}/api/v3", "private": f"{rest}/api/v3", "v1": f"{rest}/api/v1",
                                 "fapiPublic": f"{rest}/fapi/v1", "ws": {"spot": f"ws://127.0.0.1:{self.port}/stream/ws"}}}}

    def publish(self, message: dict[str, Any], symbol: str = "BTCUSDT") -> None:
        """A trade or a quote happens."""
        asyncio.run_coroutine_threadsafe(self._publish(message, symbol), self.loop).result(20)

    def play(self, messages: list[dict[str, Any]], rate: float = 500.0, symbol: str = "BTCUSDT") -> None:
        """They happen one after the other."""
        for k, message in enumerate(messages):
            self.publish(message, symbol)
            if k % 10 == 9:
                time.sleep(10 / rate)

    def drop(self) -> None:
        """Every socket breaks, without a word."""
        async def cut() -> None:
            for one in self.sockets:
                transport = one.ws._req.transport if one.ws._req is not None else None
                if transport is not None:
                    transport.abort()
            self.sockets = []
        asyncio.run_coroutine_threadsafe(cut(), self.loop).result(20)

    # inside

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        app = web.Application()
        app.router.add_get("/stream/ws/{n}", self._socket)
        for path, answer in (("exchangeInfo", self._info), ("time", self._time), ("aggTrades", self._agg), ("historicalTrades", self._historical),
                             ("klines", self._klines)):
            app.router.add_get(f"/api/v3/{path}", self._guarded(path, answer))
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        self.loop.run_until_complete(runner.setup())
        site = web.TCPSite(runner, "127.0.0.1", 0)
        self.loop.run_until_complete(site.start())
        self.port = runner.addresses[0][1]
        self._ready.set()
        self.loop.run_forever()
        self.loop.run_until_complete(runner.cleanup())
        self.loop.close()

    def now_ms(self) -> int:
        return int(time.time() * 1000) + self.clock_offset_ms

    def _guarded(self, path: str, answer: Any) -> Any:
        async def handler(request: web.Request) -> web.Response:
            if self.slow_s:
                await asyncio.sleep(self.slow_s)
            if self.maintenance:
                self.requests.append((time.monotonic(), path, 503))
                return web.Response(status=503, text="Service unavailable from a restricted maintenance window")
            if self.refuse is not None:
                status, after = self.refuse
                self.requests.append((time.monotonic(), path, status))
                return web.json_response({"code": -1003, "msg": "Too much request weight used"}, status=status,
                                         headers={"Retry-After": after} if after else {})
            self.requests.append((time.monotonic(), path, 200))
            return web.json_response(answer(request))
        return handler

    def _info(self, request: web.Request) -> Any:
        symbols = [{
            "symbol": s, "status": "TRADING", "baseAsset": base, "baseAssetPrecision": 8, "quoteAsset": quote, "quotePrecision": 8,
            "quoteAssetPrecision": 8, "orderTypes": ["LIMIT", "MARKET"], "isSpotTradingAllowed": True, "isMarginTradingAllowed": False,
            "permissions": ["SPOT"], "filters": [
                {"filterType": "PRICE_FILTER", "minPrice": "0.01", "maxPrice": "1000000", "tickSize": "0.01"},
                {"filterType": "LOT_SIZE", "minQty": "0.00001", "maxQty": "9000", "stepSize": "0.00001"}],
        } for s, (base, quote) in SYMBOLS.items()]
        return {"timezone": "UTC", "serverTime": self.now_ms(), "rateLimits": [], "exchangeFilters": [], "symbols": symbols}

    def _time(self, request: web.Request) -> Any:
        return {"serverTime": self.now_ms()}

    def _some(self, request: web.Request) -> list[dict[str, Any]]:
        q, found = request.query, self.trades[request.query["symbol"]]
        if "fromId" in q:
            found = [t for t in found if t["a"] >= int(q["fromId"])]
        elif "startTime" in q:
            found = [t for t in found if int(q["startTime"]) <= t["T"] <= int(q.get("endTime", 1 << 60))]
        else:
            found = found[-int(q.get("limit", 500)):]
        return found[: int(q.get("limit", 500))]

    def _agg(self, request: web.Request) -> Any:
        return self._some(request)

    def _historical(self, request: web.Request) -> Any:
        return [{"id": t["a"], "price": t["p"], "qty": t["q"], "quoteQty": "0", "time": t["T"], "isBuyerMaker": t["m"], "isBestMatch": True}
                for t in self._some(request)]

    def _klines(self, request: web.Request) -> Any:
        q = request.query
        found = [k for k in self.klines[q["symbol"]] if int(q.get("startTime", 0)) <= k[0] <= int(q.get("endTime", 1 << 60))]
        return found[: int(q.get("limit", 500))]

    async def _socket(self, request: web.Request) -> Any:
        if self.maintenance:
            return web.Response(status=503)
        if self.refuse is not None:
            return web.Response(status=self.refuse[0], headers={"Retry-After": self.refuse[1]} if self.refuse[1] else {})
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        self.connections += 1
        one = Socket(ws)
        self.sockets.append(one)
        try:
            async for message in ws:
                if message.type == aiohttp.WSMsgType.TEXT:
                    asked = json.loads(message.data)
                    if asked.get("method") == "SUBSCRIBE":
                        one.streams.update(asked["params"])
                        await ws.send_json({"result": None, "id": asked["id"]})
        finally:
            if one in self.sockets:
                self.sockets.remove(one)
        return ws

    async def _publish(self, message: dict[str, Any], symbol: str) -> None:
        if "t" in message:
            now = max(self.now_ms(), self.trades[symbol][-1]["T"] if self.trades[symbol] else 0)
            self.trades[symbol].append({"a": message["t"], "p": message["p"], "q": message["q"], "f": message["t"], "l": message["t"], "T": now,
                                        "m": message["m"], "M": True})
            single = {"e": "trade", "E": now, "s": symbol, "t": message["t"], "p": message["p"], "q": message["q"], "T": now, "m": message["m"],
                      "M": True}
            every = {"e": "aggTrade", "E": now, "s": symbol, **self.trades[symbol][-1]}
            texts = {f"{symbol.lower()}@trade": json.dumps(single), f"{symbol.lower()}@aggTrade": json.dumps(every)}
        else:
            self.quotes_sent += 1
            texts = {f"{symbol.lower()}@bookTicker": json.dumps({**message, "s": symbol})}
        if self.stalled:
            return
        for one in list(self.sockets):
            for stream, text in texts.items():
                if stream in one.streams:
                    await self._send(one, text)

    async def _send(self, one: Socket, text: str) -> None:
        self.sent += 1
        out = [text]
        if self.losing_every and self.sent % self.losing_every == 0:
            out = []
        elif self.garbage_every and self.sent % self.garbage_every == 0:
            out = ['{"e": "aggTrade", "s":', '{"e": "aggTrade", "s": "BTCUSDT", "p": "NaN?"}', "hello", '[]', '{"e": 5}', text[: len(text) // 2]]
        elif self.duplicating:
            out = [text, text]
        elif self.reordering:
            one.waiting.append(text)
            if len(one.waiting) < 3:
                return
            out, one.waiting = list(reversed(one.waiting)), []
        try:
            for piece in out:
                await one.ws.send_str(piece)
            if self.garbage_every and self.sent % self.garbage_every == 0:
                await one.ws.send_bytes(b"\xff\xfe\x00{")
        except (ConnectionError, RuntimeError):
            return
