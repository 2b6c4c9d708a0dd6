"""A fake exchange to rehearse with: Binance's spot order API on this machine, so that ccxt's own Binance class trades there.

Signatures, timestamps and the receive window are checked as Binance does, and it misbehaves on cue. Nothing here
knows Penstock: a client that is right with it does what the real one wants.
"""

import asyncio
import hashlib
import hmac
import json
import time
from collections import deque
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web

from schemas.errors import UserError
from sinks.fake_books import NOTIONAL_MIN, PRICE_STEP, SIZE_STEP, Books, Order, Refusal
from sinks.fake_cues import HANG_S, RETRY_AFTER_S, Cue, Cues
from sinks.venue_open import FAKE_KEY

AHEAD_MS = 1000
RECV_WINDOW_MS, RECV_WINDOW_MS_MAX = 5000, 60_000
Hook = Callable[[str, str], None]


class FakeExchange:
    """The server. hook(label, client id) is called when an order arrived and when it is booked. skew_ms: its clock less this machine's.
    requests: (kind, client id) of the last thousands. duplicates: client ids that were sent again while it had them."""

    def __init__(self, books: Books, cues: Cues | None = None, skew_ms: int = 0, hook: Hook = lambda label, order: None) -> None:
        self.books, self.cues, self.skew_ms, self.hook = books, cues or Cues(), skew_ms, hook
        self.requests: deque[tuple[str, str]] = deque(maxlen=10_000)
        self.duplicates: list[str] = []
        self._hidden_until: dict[str, float] = {}
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Listen; the URL. UserError where the port is taken."""
        app = web.Application()
        app.add_routes([
            web.get("/api/v3/ping", self._ping), web.get("/api/v3/time", self._time), web.get("/api/v3/exchangeInfo", self._markets),
            web.get("/api/v3/ticker/price", self._price), web.get("/api/v3/account", self._signed(self._account)),
            web.post("/api/v3/order", self._signed(self._place)), web.get("/api/v3/order", self._signed(self._look)),
            web.delete("/api/v3/order", self._signed(self._cancel)), web.get("/api/v3/openOrders", self._signed(self._open)),
            web.get("/api/v3/myTrades", self._signed(self._trades)), web.get("/fake/orders", self._books),
            web.post("/fake/price", self._move), web.post("/fake/cues", self._cue),
        ])
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        try:
            site = web.TCPSite(self._runner, host, port, reuse_address=True)
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            raise UserError(f"the fake exchange cannot listen on {host}:{port}: {error.strerror or error}; give another --port") from None
        self.url = f"http://{host}:{self._runner.addresses[0][1]}"
        return self.url

    async def stop(self) -> None:
        """Stop listening; the books stay."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def now_ms(self) -> int:
        """The exchange's clock."""
        return time.time_ns() // 1_000_000 + self.skew_ms

    def _signed(self, serve: Callable[[dict[str, str], Cue], Any]) -> Callable[[web.Request], Any]:
        kind = {"_place": "order", "_look": "ask", "_cancel": "cancel", "_trades": "trades"}.get(serve.__name__, "")

        async def handler(request: web.Request) -> web.StreamResponse:
            raw = request.query_string or (await request.text())
            given = dict(parse_qsl(raw))
            self.requests.append((kind, given.get("newClientOrderId") or given.get("origClientOrderId") or ""))
            cue = self.cues.next(kind) if kind else Cue()
            if kind == "order":
                self.hook("arrived", given.get("newClientOrderId", ""))
            if cue.kind in ("slow", "late"):
                await asyncio.sleep(cue.value)
            if cue.kind in ("hang_before", "drop_before", "status_before"):
                return await self._trouble(request, cue)
            try:
                self._check(request, raw, given)
                if cue.kind == "reject":
                    raise Refusal(-2010, "Account has insufficient balance for requested action.")
                answer = serve(given, cue)
            except Refusal as refusal:
                return web.json_response({"code": refusal.code, "msg": refusal.text}, status=400)
            if kind == "order":
                self.hook("booked", given["newClientOrderId"])
            if cue.kind in ("hang_after", "drop_after", "status_after"):
                return await self._trouble(request, cue)
            return web.json_response(answer)

        return handler

    async def _trouble(self, request: web.Request, cue: Cue) -> web.StreamResponse:
        if cue.kind.startswith("status"):
            code = {418: -1003, 429: -1003}.get(int(cue.value), -1000)
            headers = {"Retry-After": str(RETRY_AFTER_S)} if int(cue.value) in (418, 429) else {}
            return web.json_response({"code": code, "msg": "trouble on cue"}, status=int(cue.value), headers=headers)
        if cue.kind.startswith("hang"):
            await asyncio.sleep(cue.value or HANG_S)
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

    def _check(self, request: web.Request, raw: str, given: dict[str, str]) -> None:
        if request.headers.get("X-MBX-APIKEY") != FAKE_KEY:
            raise Refusal(-2015, "Invalid API-key, IP, or permissions for action.")
        body, _, signature = raw.rpartition("&signature=")
        if not hmac.compare_digest(hmac.new(FAKE_KEY.encode(), body.encode(), hashlib.sha256).hexdigest(), signature):
            raise Refusal(-1022, "Signature for this request is not valid.")
        try:
            sent_ms, window_ms = int(given["timestamp"]), int(given.get("recvWindow", RECV_WINDOW_MS))
        except (KeyError, ValueError):
            raise Refusal(-1102, "Mandatory parameter 'timestamp' was not sent, was empty/null, or malformed.") from None
        if window_ms > RECV_WINDOW_MS_MAX:
            raise Refusal(-1131, "recvWindow must be less than 60000.")
        if sent_ms > self.now_ms() + AHEAD_MS or self.now_ms() - sent_ms > window_ms:
            raise Refusal(-1021, "Timestamp for this request is outside of the recvWindow.")

    def _place(self, given: dict[str, str], cue: Cue) -> dict[str, Any]:
        try:
            client_id, kind = given["newClientOrderId"], given["type"]
            quantity, price = Decimal(given["quantity"]), Decimal(given.get("price", "0"))
        except (KeyError, InvalidOperation):
            raise Refusal(-1102, "A mandatory parameter was not sent, was empty/null, or malformed.") from None
        if kind not in ("LIMIT", "MARKET") or given.get("side") not in ("BUY", "SELL"):
            raise Refusal(-1116, "Invalid orderType.")
        if client_id in self.books.orders:
            self.duplicates.append(client_id)
        parts = int(cue.value) if cue.kind == "parts" else 1
        if cue.kind == "hide":
            self._hidden_until[client_id] = time.monotonic() + cue.value
        order = self.books.place(client_id, given.get("symbol", ""), given["side"], kind, quantity, price, self.now_ms(), parts)
        quote = self.books.names[order.market].split("/")[1]
        fills = [{"price": f["price"], "qty": f["size"], "commission": f["fee"], "commissionAsset": quote, "tradeId": f["trade"]}
                 for f in order.fills]
        return {**_shown(order), "transactTime": order.ts_ms, "fills": fills}

    def _look(self, given: dict[str, str], cue: Cue) -> dict[str, Any]:
        client_id = given.get("origClientOrderId", "")
        if time.monotonic() < self._hidden_until.get(client_id, 0.0):
            raise Refusal(-2013, "Order does not exist.")
        return _shown(self.books.look(client_id, self.now_ms()))

    def _cancel(self, given: dict[str, str], cue: Cue) -> dict[str, Any]:
        return _shown(self.books.cancel(given.get("origClientOrderId", "")))

    def _open(self, given: dict[str, str], cue: Cue) -> list[dict[str, Any]]:
        return [_shown(o) for o in self.books.orders.values() if o.status in ("NEW", "PARTIALLY_FILLED")]

    def _trades(self, given: dict[str, str], cue: Cue) -> list[dict[str, Any]]:
        return [
            {"symbol": o.market, "id": f["trade"], "orderId": o.number, "price": f["price"], "qty": f["size"],
             "quoteQty": str(Decimal(f["price"]) * Decimal(f["size"])), "commission": f["fee"],
             "commissionAsset": self.books.names[o.market].split("/")[1], "time": f["ts_ms"], "isBuyer": o.side == "BUY",
             "isMaker": f["maker"], "isBestMatch": True}
            for o in self.books.orders.values() for f in o.fills
            if o.market == given.get("symbol") and str(o.number) == given.get("orderId", str(o.number))
        ]

    def _account(self, given: dict[str, str], cue: Cue) -> dict[str, Any]:
        held = [{"asset": a, "free": str(v), "locked": "0"} for a, v in self.books.balances.items()]
        return {"canTrade": True, "accountType": "SPOT", "balances": held, "permissions": ["SPOT"], "updateTime": self.now_ms()}

    async def _ping(self, request: web.Request) -> web.Response:
        return web.json_response({})

    async def _time(self, request: web.Request) -> web.Response:
        return web.json_response({"serverTime": self.now_ms()})

    async def _price(self, request: web.Request) -> web.Response:
        return web.json_response([{"symbol": n, "price": str(self.books.prices[s])} for n, s in self.books.names.items()])

    async def _markets(self, request: web.Request) -> web.Response:
        return web.json_response({"timezone": "UTC", "serverTime": self.now_ms(), "rateLimits": [], "exchangeFilters": [], "symbols": [
            _market(name, *symbol.split("/")) for name, symbol in self.books.names.items()]})

    async def _books(self, request: web.Request) -> web.Response:
        return web.json_response([_shown(o) for o in self.books.orders.values()])

    async def _move(self, request: web.Request) -> web.Response:
        given = await _document(request)
        try:
            self.books.move(str(given.get("symbol", "")), str(given.get("price", "")), self.now_ms())
        except (Refusal, UserError) as error:
            return web.json_response({"code": -1, "msg": str(error)}, status=400)
        return web.json_response({})

    async def _cue(self, request: web.Request) -> web.Response:
        try:
            self.cues.add([str(c) for c in (await _document(request)).get("cues", [])])
        except UserError as error:
            return web.json_response({"code": -1, "msg": str(error)}, status=400)
        return web.json_response({})


async def _document(request: web.Request) -> dict[str, Any]:
    try:
        found = json.loads(await request.text())
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _shown(order: Order) -> dict[str, Any]:
    return {
        "symbol": order.market, "orderId": order.number, "orderListId": -1, "clientOrderId": order.client_id, "price": str(order.price),
        "origQty": str(order.quantity), "executedQty": str(order.filled), "cummulativeQuoteQty": str(order.quote), "status": order.status,
        "timeInForce": "GTC", "type": order.kind, "side": order.side, "time": order.ts_ms, "updateTime": order.ts_ms, "isWorking": True,
    }


def _market(name: str, base: str, quote: str) -> dict[str, Any]:
    return {
        "symbol": name, "status": "TRADING", "baseAsset": base, "baseAssetPrecision": 8, "quoteAsset": quote, "quotePrecision": 8,
        "quoteAssetPrecision": 8, "orderTypes": ["LIMIT", "MARKET"], "isSpotTradingAllowed": True, "isMarginTradingAllowed": False,
        "permissions": ["SPOT"], "filters": [
            {"filterType": "PRICE_FILTER", "minPrice": str(PRICE_STEP), "maxPrice": "10000000", "tickSize": str(PRICE_STEP)},
            {"filterType": "LOT_SIZE", "minQty": str(SIZE_STEP), "maxQty": "9000000", "stepSize": str(SIZE_STEP)},
            {"filterType": "NOTIONAL", "minNotional": str(NOTIONAL_MIN), "applyMinToMarket": True, "maxNotional": "90000000",
             "applyMaxToMarket": False, "avgPriceMins": 5},
        ],
    }
