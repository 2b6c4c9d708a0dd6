"""An intent in the form that a market takes: decimal texts on its steps, or a refusal with the limit that forbids it.

A quantity is never rounded up, a limit price never to the worse side: a buy's goes down to the tick, a sell's goes up. All
arithmetic is exact.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_DOWN, ROUND_UP, Decimal
from typing import Any

from schemas.money import to_decimal
from sinks.venue import Intent, Refused

DECIMAL_PLACES, SIGNIFICANT_DIGITS, TICK_SIZE = 2, 3, 4
"""How ccxt counts an exchange's precision."""


@dataclass(frozen=True)
class Shaped:
    """amount: in the market's units (base, or contracts). price: None for a market order. kind: market or limit."""

    kind: str
    amount: str
    price: str | None


def contract_size(market: Mapping[str, Any]) -> Decimal:
    """Base units in one unit of the market's amounts."""
    return Decimal(str(market.get("contractSize") or 1)) if market.get("contract") else Decimal(1)


def shaped(market: Mapping[str, Any], precision_mode: int, intent: Intent) -> Shaped:
    """The amounts to send; Refused where the market cannot take the order."""
    if intent.order_type not in ("market", "limit"):
        raise Refused("order_type", f"a {intent.order_type} order is watched by the desk, no venue gets it")
    if market.get("active") is False:
        raise Refused("not_trading", f"{intent.symbol} is not trading at the venue")
    if market.get("inverse") or market.get("option"):
        raise Refused("market_type", f"{intent.symbol}: only spot markets and linear contracts are traded")
    wanted = to_decimal(intent.quantity) / contract_size(market)
    amount = _stepped(wanted, _step(market, "amount", precision_mode, wanted), ROUND_DOWN)
    price: Decimal | None = None
    if intent.order_type == "limit":
        given = to_decimal(intent.limit_price)
        price = _stepped(given, _step(market, "price", precision_mode, given), ROUND_DOWN if intent.side == "buy" else ROUND_UP)
        _within(market, "price", price, intent, "limit price")
    if amount <= 0:
        raise Refused("quantity_min", f"{intent.symbol}: quantity {_text(wanted)} is below the market's step")
    _within(market, "amount", amount, intent, "quantity")
    if intent.order_type == "market":
        _within(market, "market", amount, intent, "quantity of a market order")
    reference = price if price is not None else to_decimal(intent.reference)
    if reference > 0 and not intent.reduce_only:
        _within(market, "cost", amount * contract_size(market) * reference, intent, "notional")
    return Shaped(intent.order_type, _text(amount), None if price is None else _text(price))


def _step(market: Mapping[str, Any], of: str, mode: int, value: Decimal) -> Decimal | None:
    found = (market.get("precision") or {}).get(of)
    if found is None:
        return None
    precision = Decimal(str(found))
    if mode == TICK_SIZE:
        return precision if precision > 0 else None
    if mode == DECIMAL_PLACES:
        return Decimal(1).scaleb(-int(precision))
    return Decimal(1).scaleb(value.adjusted() + 1 - int(precision)) if value else None


def _stepped(value: Decimal, step: Decimal | None, rounding: str) -> Decimal:
    return value if step is None else (value / step).to_integral_value(rounding) * step


def _within(market: Mapping[str, Any], of: str, value: Decimal, intent: Intent, what: str) -> None:
    limits = (market.get("limits") or {}).get(of) or {}
    low, high = limits.get("min"), limits.get("max")
    name = {"amount": "quantity", "market": "quantity", "cost": "notional"}.get(of, of)
    if low is not None and value < Decimal(str(low)):
        raise Refused(f"{name}_min", f"{intent.symbol}: {what} {_text(value)} is below the market's least of {_text(Decimal(str(low)))}")
    if high is not None and Decimal(str(high)) > 0 and value > Decimal(str(high)):
        raise Refused(f"{name}_max", f"{intent.symbol}: {what} {_text(value)} is above the market's most of {_text(Decimal(str(high)))}")


def _text(value: Decimal) -> str:
    """A plain decimal: no exponent, no trailing zeros."""
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
