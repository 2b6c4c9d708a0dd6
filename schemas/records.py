"""Desk records as messages: what crosses the door to a venue. They never change once made."""

import msgspec


class ApprovedOrder(msgspec.Struct, frozen=True):
    """An order that the gate approved; the only thing a venue accepts. quantity: units of 1e-8, positive."""

    order_id: int
    account: str
    strategy: str
    symbol: str
    side: str
    quantity: int
    decision_no: int
    ts_event_ns: int
