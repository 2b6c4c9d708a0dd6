"""The venue: amounts that a market takes, what errors mean for an order, which exchange is opened, and the fake one's own rules."""

import asyncio
import json
import time
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import ccxt.async_support as ccxt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.config_live import VenueConfig
from schemas.errors import PenstockError, UserError
from schemas.money import UNITS, to_decimal
from schemas.tables_live import R_ACCEPTED, R_CANCELLED, R_FILLED
from sinks.fake_books import Books, Refusal
from sinks.fake_cues import parse_cue
from sinks.venue import Intent, NotTaken, Refused, Unanswered, Unreachable
from sinks.venue_ccxt import _Heard, meaning, retry_after_s
from sinks.venue_limits import DECIMAL_PLACES, SIGNIFICANT_DIGITS, TICK_SIZE, shaped
from sinks.venue_open import is_real, open_venue, with_venue
from tests.execute_setup import PRICES, Exchange

FAR_NS = 2**62


def intent(order_id: int = 1, side: str = "buy", quantity: str = "0.01", limit_price: str = "0", **more: Any) -> Intent:
    kind = "market" if limit_price == "0" else "limit"
    units = {k: int(Decimal(v) * UNITS) for k, v in (("quantity", quantity), ("limit_price", limit_price), ("reference", "50000"))}
    return Intent(**{"client_id": f"{order_id:016x}", "symbol": "BTC/USDT", "side": side, "order_type": kind, "reduce_only": False, **units, **more})


@given(quantity=st.integers(1, 10**15), price=st.integers(1, 10**14), step=st.sampled_from(["0.00001", "0.001", "1", "0.25", "100"]),
       tick=st.sampled_from(["0.01", "0.5", "0.00000001", "5"]), side=st.sampled_from(["buy", "sell"]))
def test_never_more_than_approved_and_never_worse_than_the_limit(quantity: int, price: int, step: str, tick: str, side: str) -> None:
    market = {"precision": {"amount": step, "price": tick}, "limits": {}}
    wanted = intent(side=side, limit_price="1")
    wanted = Intent(**{**wanted.__dict__, "quantity": quantity, "limit_price": price})
    try:
        form = shaped(market, TICK_SIZE, wanted)
    except Refused as refused:
        assert to_decimal(quantity) < Decimal(step) and refused.reason == "quantity_min"
        return
    amount, limit = Decimal(form.amount), Decimal(str(form.price))
    assert amount % Decimal(step) == 0 and limit % Decimal(tick) == 0
    assert 0 <= to_decimal(quantity) - amount < Decimal(step)
    worse = limit - to_decimal(price) if side == "buy" else to_decimal(price) - limit
    assert -Decimal(tick) < worse <= 0
    assert "e" not in (form.amount + str(form.price)).lower()


@pytest.mark.parametrize(("mode", "precision", "amount"), [(DECIMAL_PLACES, 3, "0.123"), (SIGNIFICANT_DIGITS, 4, "0.1234"),
                                                            (TICK_SIZE, "0.005", "0.12"), (TICK_SIZE, None, "0.12345678")])
def test_a_precision_is_counted_as_the_exchange_counts(mode: int, precision: object, amount: str) -> None:
    assert shaped({"precision": {"amount": precision}}, mode, intent(quantity="0.12345678")).amount == amount


def test_contracts_are_counted_in_contracts() -> None:
    market = {"contract": True, "linear": True, "contractSize": "0.01", "precision": {"amount": "1"}}
    assert shaped(market, TICK_SIZE, intent(quantity="0.1299")).amount == "12"
    with pytest.raises(Refused, match="only spot markets and linear contracts"):
        shaped({**market, "inverse": True}, TICK_SIZE, intent())


@pytest.mark.parametrize(("error", "status", "kind"), [
    (ccxt.InsufficientFunds("no"), 400, Refused), (ccxt.InvalidOrder("no"), 400, Refused), (ccxt.BadSymbol("no"), 200, Refused),
    (ccxt.PermissionDenied("no"), 401, Refused), (ccxt.MarketClosed("no"), 400, Refused),
    (ccxt.RateLimitExceeded("slow down"), 429, NotTaken), (ccxt.DDoSProtection("banned"), 418, NotTaken),
    (ccxt.InvalidNonce("clock"), 400, NotTaken),
    (ccxt.RequestTimeout("?"), 0, Unanswered), (ccxt.ExchangeNotAvailable("?"), 503, Unanswered), (ccxt.OperationFailed("?"), 400, Unanswered),
    (ccxt.ExchangeError("something"), 400, Unanswered), (ccxt.InvalidOrder("no"), 500, Unanswered),
    (ccxt.DuplicateOrderId("?"), 400, Unanswered), (ccxt.InvalidOrder("Duplicate order sent."), 400, Unanswered),
    (ccxt.DDoSProtection("cloud"), 503, Unanswered), (KeyError("orderId"), 200, Unanswered), (ccxt.NullResponse(""), 200, Unanswered),
])  # fmt: skip
def test_what_an_error_means_for_the_order(error: Exception, status: int, kind: type[PenstockError]) -> None:
    assert type(meaning(error, _Heard(status=status))) is kind


def test_retry_after_is_seconds_or_a_date() -> None:
    assert retry_after_s(_Heard(headers={"retry-after": "7"})) == 7
    assert retry_after_s(_Heard(headers={})) == 0 == retry_after_s(_Heard(headers={"Retry-After": "soon"}))
    assert retry_after_s(_Heard(headers={"Retry-After": "Fri, 31 Dec 2100 23:59:59 GMT"})) > 10**9


def test_no_shown_error_holds_a_signature() -> None:
    error = ccxt.RequestTimeout("binance GET https://api.example/api/v3/order?symbol=BTCUSDT&signature=abc")
    assert "signature" not in str(meaning(error, _Heard())) and "/api/v3/order" in str(meaning(error, _Heard()))


def test_ccxt_s_binance_trades_at_the_fake_exchange() -> None:
    exchange = Exchange()

    async def trade() -> None:
        venue = open_venue(VenueConfig(name="fake", options={"url": exchange.url}, timeout_s=2.0), False)
        await venue.open()
        assert abs(await venue.time_ns() - time.time_ns()) < 10**9
        assert await venue.ask(intent(1)) is None
        bought = await venue.send(intent(1, quantity="0.012345678"), FAR_NS)
        assert (bought.state, bought.filled, bought.notional, bought.fee) == (R_FILLED, 1_234_000, 617 * UNITS, 617 * UNITS // 1000)
        assert await venue.ask(intent(1)) == bought
        resting = await venue.send(intent(2, "sell", limit_price="60000.001"), FAR_NS)
        assert resting.state == R_ACCEPTED and str(exchange.books.orders[f"{2:016x}"].price) == "60000.01"
        cancelled = await venue.cancel(intent(2, "sell"))
        assert cancelled is not None and cancelled.state == R_CANCELLED
        assert await venue.cancel(intent(3)) is None
        with pytest.raises(Unanswered, match="Duplicate"):
            await venue.send(intent(1), FAR_NS)
        with pytest.raises(NotTaken, match="rate limit"):
            await venue.send(intent(4), time.time_ns() - 1)
        exchange.cues.add(["ask:status_before:429"])
        with pytest.raises(Unreachable) as told:
            await venue.ask(intent(1))
        assert told.value.retry_s == 1.0
        await asyncio.to_thread(exchange.stop)
        with pytest.raises(NotTaken):
            await venue.send(intent(5), FAR_NS)
        await venue.close()

    asyncio.run(trade())


def test_a_clock_that_is_wrong_is_set_by_the_venue_s() -> None:
    exchange = Exchange()

    async def trade() -> None:
        exchange.served.skew_ms = -60_000
        venue = open_venue(VenueConfig(name="fake", options={"url": exchange.url}, timeout_s=2.0), False)
        await venue.open()
        assert (await venue.send(intent(1), FAR_NS)).state == R_FILLED
        exchange.served.skew_ms = 60_000
        with pytest.raises(NotTaken):
            await venue.send(intent(2), FAR_NS)
        assert (await venue.send(intent(2), FAR_NS)).state == R_FILLED
        await venue.close()

    asyncio.run(trade())
    exchange.stop()


def test_a_wrong_key_is_a_user_s_mistake() -> None:
    exchange = Exchange()

    async def connect() -> None:
        venue = open_venue(VenueConfig(name="fake", key="other-key", secret="other", options={"url": exchange.url}), False)
        try:
            with pytest.raises(UserError, match="refuses the key") as told:
                await venue.open()
            assert "other" not in str(told.value)
        finally:
            await venue.close()

    asyncio.run(connect())
    exchange.stop()


def test_which_exchange_is_opened() -> None:
    keys = {"key": "k" * 8, "secret": "s" * 8}
    with pytest.raises(UserError, match='unknown exchange "binanse"; did you mean "binance"'):
        open_venue(VenueConfig(name="binanse"), False)
    with pytest.raises(UserError, match=r"venue key is empty; write key: \$\{KRAKEN_KEY\}"):
        open_venue(VenueConfig(name="kraken"), True)
    with pytest.raises(UserError, match="has no testnet; --dry-run sends nothing, --live trades with real money"):
        open_venue(VenueConfig(name="kraken", **keys), False)
    with pytest.raises(UserError, match="paper venue fills inside the pipeline"):
        open_venue(VenueConfig(name="paper"), False)
    with pytest.raises(UserError, match="not on this machine"):
        open_venue(VenueConfig(name="fake", options={"url": "http://example.com"}), False)
    with pytest.raises(UserError, match="no section venue"):
        with_venue(None, None)
    testnet, real = open_venue(VenueConfig(**keys), False), open_venue(VenueConfig(**keys), True)
    assert "testnet" in str(testnet._exchange.urls["api"]["private"]) and "testnet" not in str(real._exchange.urls["api"]["private"])
    # another exchange on the command line never gets the key of the one in the file
    assert with_venue(VenueConfig(**keys), "kraken").key == ""
    assert is_real(VenueConfig(), True) and not is_real(VenueConfig(), False) and not is_real(VenueConfig(name="fake"), True)


def _answer(url: str, data: bytes | None = None, method: str | None = None) -> tuple[int, Any]:
    try:
        with urlopen(Request(url, data, {"X-MBX-APIKEY": "fake-exchange"}, method=method), timeout=5) as answer:
            return answer.status, json.loads(answer.read())
    except HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def test_the_fake_exchange_checks_what_binance_checks() -> None:
    exchange = Exchange()
    try:
        assert _answer(exchange.url + "/api/v3/order", b"symbol=BTCUSDT&signature=00")[1]["code"] == -1022
        assert _answer(exchange.url + "/fake/price", b'{"symbol": "DOGE/USDT", "price": "1"}')[0] == 400
        assert _answer(exchange.url + "/fake/price", b'{"symbol": "BTC/USDT", "price": "-1"}')[0] == 400
        assert _answer(exchange.url + "/fake/price", b"[]")[0] == 400
        assert _answer(exchange.url + "/fake/cues", b'{"cues": ["order:drop"]}')[1]["msg"].startswith('unknown cue "drop"')
        assert _answer(exchange.url + "/fake/price", b'{"symbol": "BTC/USDT", "price": "51000"}') == (200, {})
        assert str(exchange.books.prices["BTC/USDT"]) == "51000"
        assert _answer(exchange.url + "/fake/orders") == (200, [])
    finally:
        exchange.stop()


def test_the_books_survive_a_kill_at_any_byte(tmp_path: Path) -> None:
    path = tmp_path / "books.jsonl"
    books = Books(PRICES, path)
    books.place("a", "BTCUSDT", "BUY", "MARKET", Decimal("0.5"), Decimal(0), 1, parts=2)
    books.place("b", "BTCUSDT", "SELL", "LIMIT", Decimal("0.1"), Decimal(60000), 2)
    books.move("BTC/USDT", "61000", 3)
    books.look("a", 4)
    with pytest.raises(Refusal, match="Duplicate"):
        books.place("a", "BTCUSDT", "BUY", "MARKET", Decimal("0.5"), Decimal(0), 5)
    books.close()
    whole = path.read_bytes()
    again = Books(PRICES, path)
    assert again.orders == books.orders and again.balances == books.balances and again.prices == books.prices
    again.close()
    for cut in range(0, len(whole), 37):
        path.write_bytes(whole[:cut])
        partial = Books(PRICES, path)
        lines = whole[:cut].count(b"\n")
        assert path.read_bytes() == b"".join(whole.splitlines(keepends=True)[:lines])
        assert len(partial.orders) <= 2
        partial.close()
    path.write_bytes(b'{"do": "fill", "client_id": "x"}\n')
    with pytest.raises(UserError, match=r"books\.jsonl line 1: not a line of these books"):
        Books(PRICES, path)


@pytest.mark.parametrize("text", ["hang", "order:slow", "ask:slow:-1", "order:slow:x", "order:slow:1:2", ""])
def test_a_cue_is_checked(text: str) -> None:
    with pytest.raises(UserError, match="cue"):
        parse_cue(text)
