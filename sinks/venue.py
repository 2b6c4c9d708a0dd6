"""A venue as the execute flow sees it: send an order, ask for it by its client id, cancel it, tell the time.

`send` either returns what the venue made of the order or raises one of three: `Refused` (it never will be an order), `NotTaken`
(this request made none, another may), `Unanswered` (nobody here knows). What a venue adds beyond that is not used.
"""

from dataclasses import dataclass
from typing import Protocol

from schemas.errors import PenstockError
from schemas.tables_live import R_CANCELLED, R_FILLED, R_REJECTED


@dataclass(frozen=True)
class Intent:
    """An approved order on its way. quantity, limit_price, reference: units of 1e-8; limit_price 0 for a market order.
    side: buy or sell."""

    client_id: str
    symbol: str
    side: str
    order_type: str
    quantity: int
    limit_price: int
    reference: int
    reduce_only: bool


@dataclass(frozen=True)
class Seen:
    """An order as the venue has it. state: of REPORT_STATES. filled: base units in all; notional, fee: quote units in all."""

    state: int
    filled: int = 0
    notional: int = 0
    fee: int = 0
    maker: bool = False

    @property
    def final(self) -> bool:
        """Whether it cannot change any more."""
        return self.state in (R_FILLED, R_CANCELLED, R_REJECTED)


class Refused(PenstockError):
    """The venue will not have this order. reason: one word for counting."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class NotTaken(PenstockError):
    """The request certainly made no order; it may be repeated after `retry_s`."""

    def __init__(self, text: str, retry_s: float = 0.0) -> None:
        super().__init__(text)
        self.retry_s = retry_s


class Unanswered(PenstockError):
    """No answer, or one that says nothing: the order may or may not exist."""


class Unreachable(PenstockError):
    """A question was not answered; it may be repeated after `retry_s`."""

    def __init__(self, text: str, retry_s: float = 0.0) -> None:
        super().__init__(text)
        self.retry_s = retry_s


class Venue(Protocol):
    """Somewhere that executes orders."""

    async def open(self) -> None:
        """Connect; UserError where the key is refused or a setting is wrong."""

    async def close(self) -> None:
        """Let go of connections; harmless when called twice."""

    async def send(self, intent: Intent, not_after_ns: int) -> Seen:
        """Place the order. A request that is not on its way by the wall time `not_after_ns` is not sent at all (NotTaken)."""

    async def ask(self, intent: Intent) -> Seen | None:
        """The order of that client id; None where the venue does not know it; Unreachable where it did not say."""

    async def cancel(self, intent: Intent) -> Seen | None:
        """Cancel what is open of it; what it is then, None where the venue does not know it."""

    async def time_ns(self) -> int:
        """The venue's clock."""
