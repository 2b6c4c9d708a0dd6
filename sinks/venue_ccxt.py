"""A venue through ccxt: any exchange that takes a client order id and can be asked for an order by it.

What an error means for the order is decided here, once: refused, not taken, or unanswered. Only what the exchange
says in plain terms counts as a refusal; everything doubtful is unanswered, and whoever asked has to ask again. No text
of an error carries a query string, since that is where a signature stands.
"""

import asyncio
import contextlib
import re
import socket
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import ccxt.async_support as ccxt

from schemas.errors import PenstockError, UserError, unknown
from schemas.money import UNITS
from schemas.tables_live import R_ACCEPTED, R_CANCELLED, R_FILLED, R_PARTIALLY_FILLED, R_REJECTED
from sinks.venue import Intent, NotTaken, Refused, Seen, Unanswered, Unreachable
from sinks.venue_limits import contract_size, shaped
from telemetry import logs, metrics

CLIENT_ID_FORMS: Mapping[str, Callable[[str], str]] = {"gate": lambda i: f"t-{i}", "hyperliquid": lambda i: f"0x{i:0>32}"}
"""Exchanges that want a client order id in a form of their own; the others take the sixteen hex digits."""
RATE_LIMITED = (418, 429)
CONNECT_RETRY_S = 0.5
CLOCK_RETRY_S = 0.2
FEE_PRICE_S = 60.0
log = logs.get("execute")


@dataclass
class _Heard:
    """What one call heard: the HTTP status and headers of its last response."""

    not_after_ns: int = 0
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)


class _TooLate(Exception):
    """The request would have been signed after its time."""


_heard: ContextVar[_Heard] = ContextVar("heard")


def exchange_class(name: str) -> Any:
    """ccxt's class of an exchange, which also notes what each call hears; UserError with the nearest name where there is none."""
    if name not in ccxt.exchanges:
        raise unknown("exchange", name, ccxt.exchanges)
    base: Any = getattr(ccxt, name)

    class Listening(base):  # type: ignore[misc]
        async def fetch(self, url: str, method: str = "GET", headers: Any = None, body: Any = None) -> Any:
            heard = _heard.get(None)
            # ccxt waits for its rate limiter first and signs then, so this is when the request's time stands in it
            if heard is not None and heard.not_after_ns and time.time_ns() > heard.not_after_ns:
                raise _TooLate
            return await super().fetch(url, method, headers, body)

        def on_rest_response(self, code: int, reason: str, url: str, method: str, response_headers: Any, response_body: str,
                             request_headers: Any, request_body: Any) -> Any:
            heard = _heard.get(None)
            if heard is not None:
                heard.status, heard.headers = code, response_headers
            return super().on_rest_response(code, reason, url, method, response_headers, response_body, request_headers, request_body)

    return Listening


class CcxtVenue:
    """One account at one exchange. settings: as ccxt's constructor takes them, keys included. recv_window_s goes into each request
    where the exchange knows one."""

    def __init__(self, name: str, settings: Mapping[str, Any], recv_window_s: float, timeout_s: float, sandbox: bool = False) -> None:
        self.name = name
        given = {**settings, "timeout": int(timeout_s * 1000), "number": str}
        given["options"] = {"adjustForTimeDifference": True, **settings.get("options", {}), "recvWindow": int(recv_window_s * 1000)}
        self._exchange: Any = exchange_class(name)(given)
        self._exchange.number = str
        self._fee_prices: dict[str, tuple[float, Decimal]] = {}
        if sandbox:
            if not self._exchange.urls.get("test"):
                raise UserError(f"{name} has no testnet; --dry-run sends nothing, --live trades with real money")
            self._exchange.set_sandbox_mode(True)
        for need in ("createOrder", "fetchOrder"):
            if not self._exchange.has.get(need):
                raise UserError(f"{name} cannot be traded safely: ccxt has no {need} for it")

    async def open(self) -> None:
        """Markets, clock, and a signed request that shows whether the key is good."""
        try:
            await self._exchange.load_markets()
            await self._exchange.fetch_balance()
        except ccxt.AuthenticationError as error:
            raise UserError(f"{self.name} refuses the key: {said(error)}; check venue key and secret") from None
        except ccxt.BaseError as error:
            raise PenstockError(f"{self.name} does not answer: {said(error)}") from None

    async def close(self) -> None:
        await self._exchange.close()

    async def time_ns(self) -> int:
        if not self._exchange.has.get("fetchTime"):
            return time.time_ns()
        return int(await self._asked("time", self._exchange.fetch_time())) * 1_000_000

    async def send(self, intent: Intent, not_after_ns: int) -> Seen:
        try:
            market = self._exchange.market(intent.symbol)
        except ccxt.BaseError:
            raise Refused("bad_symbol", f"{self.name} has no market {intent.symbol}") from None
        form = shaped(market, self._exchange.precisionMode, intent)
        params: dict[str, Any] = {"clientOrderId": self._client_id(intent)}
        if intent.reduce_only and market.get("contract"):
            params["reduceOnly"] = True
        heard = _Heard(not_after_ns)
        _heard.set(heard)
        begun = time.perf_counter()
        try:
            order = await self._exchange.create_order(intent.symbol, form.kind, intent.side, form.amount, form.price, params)
        except _TooLate:
            raise NotTaken(f"{self.name}: waited too long for the rate limit") from None
        except Exception as error:
            # an edge: whatever a library raises here, the order may exist, unless the exchange itself says otherwise
            if isinstance(error, ccxt.InvalidNonce):
                await self._set_clock()
            raise meaning(error, heard) from None
        finally:
            metrics.VENUE_SECONDS.labels(request="send").observe(time.perf_counter() - begun)
        try:
            return await self._seen(order, market)
        except Exception as error:
            # it has the order, whatever else it said; the fills are read when it is asked next
            log.warning("the answer to an order is not complete yet", order=intent.client_id, said=said(error))
            return Seen(R_ACCEPTED)

    async def ask(self, intent: Intent) -> Seen | None:
        params = {"clientOrderId": self._client_id(intent)}
        try:
            market = self._exchange.market(intent.symbol)
        except ccxt.BaseError:
            return None  # where there is no market there is no order
        try:
            return await self._seen(await self._asked("ask", self._exchange.fetch_order(None, intent.symbol, params)), market)
        except ccxt.OrderNotFound:
            return None

    async def cancel(self, intent: Intent) -> Seen | None:
        params = {"clientOrderId": self._client_id(intent)}
        try:
            await self._asked("cancel", self._exchange.cancel_order(None, intent.symbol, params))
        except (ccxt.OrderNotFound, Unreachable) as error:
            # filled, cancelled or never there, or a refusal: the answer to a question tells which
            log.info("not cancelled", order=intent.client_id, said=said(error))
        return await self.ask(intent)

    async def _set_clock(self) -> None:
        """Measure the venue's clock again: it said that a request's time is not its own."""
        if self._exchange.options.get("adjustForTimeDifference") and hasattr(self._exchange, "load_time_difference"):
            with contextlib.suppress(ccxt.BaseError):
                await self._exchange.load_time_difference()

    async def _asked(self, request: str, call: Any) -> Any:
        heard = _Heard()
        _heard.set(heard)
        begun = time.perf_counter()
        try:
            return await call
        except ccxt.OrderNotFound:
            raise
        except Exception as error:
            # an edge: a question that failed is asked again
            raise Unreachable(f"{self.name}: {said(error)}", retry_after_s(heard)) from None
        finally:
            metrics.VENUE_SECONDS.labels(request=request).observe(time.perf_counter() - begun)

    def _client_id(self, intent: Intent) -> str:
        return CLIENT_ID_FORMS.get(self.name, str)(intent.client_id)

    async def _seen(self, order: Mapping[str, Any], market: Mapping[str, Any]) -> Seen:
        size = contract_size(market)
        filled, notional = _decimal(order.get("filled")) * size, _decimal(order.get("cost"))
        state = _state(order.get("status"), filled)
        if not filled:
            return Seen(state)
        trades = order.get("trades") or []
        fees = [t["fee"] for t in trades if t.get("fee")] or [f for f in (order.get("fees") or [order.get("fee")]) if f and f.get("cost")]
        if not fees and (self._exchange.has.get("fetchOrderTrades") or self._exchange.has.get("fetchMyTrades")):
            trades = await self._trades(order, market)
            traded = sum((_decimal(t["amount"]) for t in trades), Decimal(0)) * size
            if traded < filled:
                raise Unreachable(f"{self.name} shows fills of {traded} for an order filled by {filled}: they are still coming")
            filled, notional = traded, sum((_decimal(t["cost"]) for t in trades), Decimal(0))
            state = _state(order.get("status"), filled)
            fees = [t["fee"] for t in trades if t.get("fee")]
        fee = sum([await self._in_quote(f, market, notional / filled) for f in fees], Decimal(0))
        maker = bool(trades) and trades[-1].get("takerOrMaker") == "maker"
        return Seen(state, int(filled * UNITS), int(notional * UNITS), int(fee * UNITS), maker)

    async def _trades(self, order: Mapping[str, Any], market: Mapping[str, Any]) -> list[Any]:
        if self._exchange.has.get("fetchOrderTrades"):
            return await self._asked("trades", self._exchange.fetch_order_trades(order["id"], market["symbol"]))
        found = await self._asked("trades", self._exchange.fetch_my_trades(market["symbol"]))
        return [t for t in found if t.get("order") == order["id"]]

    async def _in_quote(self, fee: Mapping[str, Any], market: Mapping[str, Any], price: Decimal) -> Decimal:
        cost, currency = _decimal(fee.get("cost")), fee.get("currency")
        if not cost or currency in (None, market["quote"], market.get("settle")):
            return cost
        if currency == market["base"]:
            return cost * price
        known = self._fee_prices.get(currency)
        if known is None or time.monotonic() - known[0] > FEE_PRICE_S:
            ticker = await self._asked("ticker", self._exchange.fetch_ticker(f"{currency}/{market['quote']}"))
            known = self._fee_prices[currency] = (time.monotonic(), _decimal(ticker.get("last")))
        return cost * known[1]


def meaning(error: BaseException, heard: _Heard) -> Refused | NotTaken | Unanswered:
    """What an error on sending says of the order."""
    text, status = said(error), heard.status
    if isinstance(error, ccxt.RateLimitExceeded | ccxt.DDoSProtection) and (status in RATE_LIMITED or status < 500):
        return NotTaken(text, retry_after_s(heard))
    if isinstance(error, ccxt.InvalidNonce):
        return NotTaken(text, CLOCK_RETRY_S)
    if isinstance(error.__cause__, aiohttp.ClientConnectorError | socket.gaierror):
        return NotTaken(text, CONNECT_RETRY_S)  # there was no connection to write to
    if isinstance(error, ccxt.DuplicateOrderId | ccxt.OrderNotFound) or "duplicate" in text.lower():
        return Unanswered(text)  # it knows the id: it has the order, or had it
    definite = (ccxt.InsufficientFunds, ccxt.InvalidOrder, ccxt.BadRequest, ccxt.AuthenticationError, ccxt.OperationRejected,
                ccxt.NotSupported, ccxt.ArgumentsRequired)
    if isinstance(error, definite) and status < 500:
        return Refused(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(error).__name__).lower(), text)
    return Unanswered(text)


def retry_after_s(heard: _Heard) -> float:
    """How long the exchange wants to be left alone, by its Retry-After."""
    given = next((v for k, v in heard.headers.items() if k.lower() == "retry-after"), "")
    try:
        return max(0.0, float(given))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(given).timestamp() - time.time())
    except ValueError:
        return 0.0


def said(error: BaseException) -> str:
    """An error as it may be shown: one line, no query string."""
    if isinstance(error, asyncio.TimeoutError):
        return "no answer in time"
    return re.sub(r"\?\S*", "", " ".join(str(error).split()))[:300] or type(error).__name__


def _state(status: object, filled: Decimal) -> int:
    known = {"closed": R_FILLED, "canceled": R_CANCELLED, "expired": R_CANCELLED, "rejected": R_REJECTED}
    return known.get(str(status), R_PARTIALLY_FILLED if filled else R_ACCEPTED)


def _decimal(value: object) -> Decimal:
    return Decimal(str(value)) if value is not None else Decimal(0)
