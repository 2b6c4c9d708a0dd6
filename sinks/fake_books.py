"""The books of the fake exchange: orders, fills and balances, kept in an append-only file.

What was acknowledged is in the file first, so a killed exchange comes back with the same books. A client order id is
taken once and remembered for ever. Amounts are exact decimals.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import ROUND_DOWN, Decimal
from pathlib import Path
from typing import Any

from schemas.errors import UserError

PRICE_STEP, SIZE_STEP, NOTIONAL_MIN = Decimal("0.01"), Decimal("0.00001"), Decimal(5)
DEPOSIT = Decimal(100_000_000)
"""What the account has of every asset at the start."""
_EIGHT = Decimal("0.00000001")
OPEN = ("NEW", "PARTIALLY_FILLED")


class Refusal(Exception):
    """A request that the exchange answers with an error of its own code."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code, self.text = code, text


@dataclass
class Order:
    """An order in the books. parts: in how many fills it is to be filled; one is made at once, one at each later look."""

    number: int
    client_id: str
    market: str
    side: str
    kind: str
    quantity: Decimal
    price: Decimal
    ts_ms: int
    parts: int = 1
    status: str = "NEW"
    filled: Decimal = Decimal(0)
    quote: Decimal = Decimal(0)
    fee: Decimal = Decimal(0)
    fills: list[dict[str, Any]] = field(default_factory=list)


class Books:
    """Orders by client id. prices: last price by symbol, such as BTC/USDT. path: None keeps them in memory."""

    def __init__(self, prices: Mapping[str, str], path: Path | None = None, fee_bps: str = "10") -> None:
        if not prices:
            raise UserError("the fake exchange has no markets; give one, such as BTC/USDT=50000")
        self.prices = {symbol: _positive(price, symbol) for symbol, price in prices.items()}
        self.names = {symbol.replace("/", ""): symbol for symbol in prices}
        self.fee_bps = Decimal(fee_bps)
        self.orders: dict[str, Order] = {}
        self.balances: dict[str, Decimal] = {asset: DEPOSIT for symbol in prices for asset in symbol.split("/")}
        self.trades = 0
        self._file: int | None = None
        if path is not None:
            self._replay(path)
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def place(self, client_id: str, market: str, side: str, kind: str, quantity: Decimal, price: Decimal, ts_ms: int,
              parts: int = 1) -> Order:
        """A new order, filled as far as the last price allows; Refusal with Binance's codes."""
        if market not in self.names:
            raise Refusal(-1121, "Invalid symbol.")
        if client_id in self.orders:
            raise Refusal(-2010, "Duplicate order sent.")
        if quantity <= 0 or quantity % SIZE_STEP:
            raise Refusal(-1013, "Filter failure: LOT_SIZE")
        last = self.prices[self.names[market]]
        if kind == "LIMIT" and (price <= 0 or price % PRICE_STEP):
            raise Refusal(-1013, "Filter failure: PRICE_FILTER")
        at = price if kind == "LIMIT" else last
        if quantity * at < NOTIONAL_MIN:
            raise Refusal(-1013, "Filter failure: NOTIONAL")
        base, quote = self.names[market].split("/")
        if self.balances[quote] < quantity * at if side == "BUY" else self.balances[base] < quantity:
            raise Refusal(-2010, "Account has insufficient balance for requested action.")
        number = len(self.orders) + 1
        self._do({"do": "place", "number": number, "client_id": client_id, "market": market, "side": side, "kind": kind,
                  "quantity": str(quantity), "price": str(price), "ts_ms": ts_ms, "parts": parts})
        order = self.orders[client_id]
        self._match(order, ts_ms, maker=False)
        return order

    def look(self, client_id: str, ts_ms: int) -> Order:
        """The order; one that is filled in parts gets its next part, so that whoever looks sees it move."""
        order = self.orders.get(client_id)
        if order is None:
            raise Refusal(-2013, "Order does not exist.")
        if order.status == "PARTIALLY_FILLED":
            self._match(order, ts_ms, maker=bool(order.fills[-1]["maker"]))
        return order

    def cancel(self, client_id: str) -> Order:
        """Cancel what is open of it."""
        order = self.orders.get(client_id)
        if order is None or order.status not in OPEN:
            raise Refusal(-2011, "Unknown order sent.")
        self._do({"do": "cancel", "client_id": client_id})
        return order

    def move(self, symbol: str, price: str, ts_ms: int) -> None:
        """A new last price; resting orders that it reaches are filled."""
        if symbol not in self.prices:
            raise Refusal(-1121, "Invalid symbol.")
        self._do({"do": "price", "symbol": symbol, "price": str(_positive(price, symbol))})
        for order in self.orders.values():
            if order.status == "NEW" and self.names[order.market] == symbol:
                self._match(order, ts_ms, maker=True)

    def _match(self, order: Order, ts_ms: int, maker: bool) -> None:
        last = self.prices[self.names[order.market]]
        if order.kind == "LIMIT" and (last > order.price if order.side == "BUY" else last < order.price):
            return
        size = (order.quantity / order.parts).quantize(SIZE_STEP, ROUND_DOWN)
        rest = order.quantity - order.filled
        if size <= 0 or len(order.fills) + 1 >= order.parts or rest < size:
            size = rest
        price = order.price if maker else last
        fee = (size * price * self.fee_bps / 10_000).quantize(_EIGHT, ROUND_DOWN)
        self._do({"do": "fill", "client_id": order.client_id, "trade": self.trades + 1, "price": str(price), "size": str(size),
                  "fee": str(fee), "maker": maker, "ts_ms": ts_ms})

    def _do(self, event: dict[str, Any]) -> None:
        """Written first, then done."""
        if self._file is not None:
            os.write(self._file, json.dumps(event).encode() + b"\n")
        self._apply(event)

    def _apply(self, event: Mapping[str, Any]) -> None:
        if event["do"] == "price":
            self.prices[event["symbol"]] = Decimal(event["price"])
            return
        if event["do"] == "place":
            self.orders[event["client_id"]] = Order(
                event["number"], event["client_id"], event["market"], event["side"], event["kind"], Decimal(event["quantity"]),
                Decimal(event["price"]), event["ts_ms"], event["parts"])
            return
        order = self.orders[event["client_id"]]
        if event["do"] == "cancel":
            order.status = "CANCELED"
            return
        size, price, fee = Decimal(event["size"]), Decimal(event["price"]), Decimal(event["fee"])
        base, quote = self.names[order.market].split("/")
        sign = 1 if order.side == "BUY" else -1
        self.balances[base] += sign * size
        self.balances[quote] -= sign * size * price + fee
        self.trades = event["trade"]
        order.filled, order.quote, order.fee = order.filled + size, order.quote + size * price, order.fee + fee
        order.fills.append(dict(event))
        order.status = "FILLED" if order.filled == order.quantity else "PARTIALLY_FILLED"

    def _replay(self, path: Path) -> None:
        if not path.exists():
            return
        whole = path.read_bytes()
        kept = whole[: whole.rfind(b"\n") + 1]
        if len(kept) < len(whole):
            os.truncate(path, len(kept))  # a line that a kill cut off was never acknowledged
        for number, line in enumerate(kept.splitlines(), 1):
            try:
                self._apply(json.loads(line))
            except (ValueError, KeyError, ArithmeticError):
                raise UserError(f"{path} line {number}: not a line of these books; give another --file, or the same markets") from None


def _positive(text: object, symbol: str) -> Decimal:
    try:
        price = Decimal(str(text))
    except ArithmeticError:
        price = Decimal(0)
    if not price.is_finite() or price <= 0 or symbol.count("/") != 1:
        raise UserError(f'market "{symbol}={text}" is not a symbol and a positive price, such as BTC/USDT=50000')
    return price
