"""The desk with an external venue under test: a scripted day, and a venue that answers as venues do, from one seed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from operators.desk.desk import DeskOperator
from schemas.frame import Frame
from schemas.policy import Policy
from schemas.tables import Rows
from schemas.tables_desk import FILLS, LEDGER, ORDER_STATES, ORDER_TYPES, ORDERS
from schemas.tables_live import (
    APPROVED,
    CANCEL_REQUEST,
    R_ACCEPTED,
    R_CANCELLED,
    R_EXPIRED,
    R_FILLED,
    R_PARTIALLY_FILLED,
    R_REJECTED,
    R_SENT,
    R_UNKNOWN,
    REPORT_STATES,
    REPORTS,
    REQUESTS,
)
from tests.desk_tapes import MADE, MONDAY, ONE, STRATEGIES, SYMBOLS, ScriptedDesk, Tape, concat, cut, random_policy, random_tape
from tests.test_desk_ledger import check_account

ALL_MADE = (*MADE, APPROVED)
FINAL_REPORTS = {R_FILLED, R_CANCELLED, R_REJECTED, R_EXPIRED}


class ExternalDesk(ScriptedDesk):
    """A scripted desk whose orders go to a venue that the test plays."""

    def __init__(self, policy: Policy, strategies: Sequence[str] = ("alpha",), symbols: Sequence[str] = ("AAA", "BBB", "CCC"),
                 weights: Sequence[float] | None = None, ts: int = MONDAY, enabled: bool = True) -> None:
        super().__init__(policy, strategies, symbols, weights, ts, enabled=False)
        self.operator = DeskOperator(policy, strategies, weights or [1.0] * len(strategies), external=True)
        self.numbers: dict[int, int] = {}
        if enabled:
            self.control("enable")

    @property
    def approved(self) -> Rows:
        return self.made(APPROVED)

    def sent(self, frame: Frame | None = None) -> list[str]:
        """What the venue was asked, in all or by one row, as a person would tell it."""
        out = []
        for r in self.approved if frame is None else frame.rows(APPROVED):
            side = "buy" if r["side"] == 1 else "sell"
            only = " only reducing" if r["reduce_only"] else ""
            limit = f" at {r['limit_price'] / ONE:g}" if r["limit_price"] else ""
            kind = ORDER_TYPES[r["order_type"]]
            out.append(f"{REQUESTS[r['request']]} {kind} {side} {r['quantity'] / ONE:g}{limit}{only}")
        return out

    def signal_frame(self, action: str, **values: Any) -> Frame:
        """A signal; the frame that it led to."""
        self.signal(action, **values)
        return self.frames[-1]

    def last_id(self) -> int:
        return int(self.approved[-1]["order_id"])

    def report(self, state: str, filled: float = 0, price: float | None = None, *, order_id: int | None = None, notional: int | None = None,
               fee: int = 0, no: int | None = None, after: int = 0) -> Frame:
        """What the venue says of an order, of the last that was sent where none is named. filled: base units in all."""
        key = self.last_id() if order_id is None else order_id
        self.numbers[key] = number = self.numbers.get(key, 0) + 1 if no is None else no
        units = round(filled * ONE)
        paid = round(filled * (self.operator.desk.symbols["last"][0] if price is None else price * ONE)) if notional is None else notional
        return self._step(REPORTS, after, order_id=np.uint64(key), report_no=number, state=REPORT_STATES.index(state), filled=units,
                          notional=paid, fee=fee, symbol=0)

    def life(self, order_id: int) -> list[str]:
        """The states of one order."""
        return [ORDER_STATES[r["state"]] for r in self.made(ORDERS) if r["order_id"] == order_id]

    def story(self) -> list[str]:
        """The orders' states as a person would tell them."""
        return [f"{ORDER_TYPES[r['order_type']]} {ORDER_STATES[r['state']]} {r['filled'] / ONE:g}/{r['quantity'] / ONE:g}"
                for r in self.made(ORDERS)]


def opened(desk: ExternalDesk, stop: float = 90.0, target: float = np.nan, trail: float = np.nan, symbol: int = 0) -> int:
    """A long position of 100 units at 100, and the entry's id."""
    desk.trade(100.0, symbol=symbol)
    desk.signal("enter_long", symbol, stop=stop, target=target, trail=trail)
    entry = desk.last_id()
    desk.report("filled", 100, 100.0)
    assert desk.held(symbol) == 100
    return entry


def books_balance(desk: ExternalDesk) -> None:
    check_account(desk.operator, desk.made(LEDGER), desk.made(FILLS))


@dataclass
class Order:
    """An order as the venue has it."""

    quantity: int
    price: int
    filled: int = 0
    notional: int = 0
    fee: int = 0
    reports: int = 0
    over: bool = False
    due: list[tuple[int, int]] = field(default_factory=list)


class RandomVenue:
    """Fills in parts, refuses, loses orders, finds them again and reports late; everything follows from its seed. Every fourth seed is
    a venue that refuses most exits."""

    def __init__(self, seed: int) -> None:
        self.harsh = seed % 4 == 0
        self.random = np.random.default_rng([seed, 9])
        self.orders: dict[int, Order] = {}
        self.now = 0

    def take(self, approved: Rows) -> None:
        for row in approved:
            key = int(row["order_id"])
            if row["request"] == CANCEL_REQUEST:
                order = self.orders[key]
                if order.due and self.random.random() < 0.7:
                    order.due = [(self.now + 1, R_CANCELLED)]
                continue
            assert key not in self.orders and row["quantity"] > 0
            order = self.orders[key] = Order(int(row["quantity"]), int(row["reference"]))
            order.due = self._plan(row["limit_price"] > 0, row["reduce_only"] == 1)

    def _plan(self, limit: bool, only_reducing: bool) -> list[tuple[int, int]]:
        plans = [
            [R_REJECTED], [R_SENT, R_REJECTED], [R_EXPIRED], [R_FILLED], [R_SENT, R_FILLED], [R_SENT, R_ACCEPTED, R_FILLED],
            [R_SENT, R_PARTIALLY_FILLED, R_PARTIALLY_FILLED, R_FILLED], [R_SENT, R_PARTIALLY_FILLED, R_CANCELLED],
            [R_SENT, R_UNKNOWN, R_FILLED], [R_UNKNOWN, R_PARTIALLY_FILLED, R_UNKNOWN, R_FILLED], [R_SENT, R_UNKNOWN, R_REJECTED],
            [R_SENT, R_CANCELLED, R_CANCELLED], [R_ACCEPTED, R_PARTIALLY_FILLED, R_CANCELLED, R_CANCELLED], [R_SENT, R_UNKNOWN],
        ]
        weights = np.array([2, 2, 2, 20, 10, 12, 20, 6, 6, 4, 2, 2, 3, 0.5])
        if self.harsh and only_reducing:
            weights[:3] = 800
        chosen = plans[int(self.random.choice(len(plans), p=weights / weights.sum()))]
        at = self.now
        out = []
        for state in chosen:
            at += int(self.random.choice([0, 1, 3, 12 if limit else 5]))
            out.append((at, state))
        return out

    def reports(self, ts: int) -> list[Any]:
        """What there is to say by now."""
        self.now += 1
        rows = []
        for key, order in self.orders.items():
            while order.due and order.due[0][0] <= self.now:
                rows.append(self._report(key, order, order.due.pop(0)[1], ts))
        return rows

    def _report(self, key: int, order: Order, state: int, ts: int) -> Any:
        left = order.quantity - order.filled
        more = 0
        if state == R_FILLED:
            more = left + (1 if self.random.random() < 0.01 else 0)
        elif (state == R_PARTIALLY_FILLED and left > 1) or (state in (R_CANCELLED, R_UNKNOWN) and left > 1 and self.random.random() < 0.2):
            more = int(self.random.integers(1, left))
        if more:
            price = order.price * (1 + self.random.normal(0, 1e-3))
            order.filled += more
            order.notional += max(int(more * price / ONE) + int(self.random.integers(0, 3)), 1)
            order.fee += int(self.random.integers(-50, 2_000_000))
        elif self.random.random() < 0.1 and order.filled:
            order.fee += int(self.random.integers(1, 1000))
        order.reports += 1
        row = REPORTS.empty(1)[0]
        row["ts_event_ns"], row["order_id"], row["report_no"], row["state"] = ts, np.uint64(key), order.reports, state
        row["filled"], row["notional"], row["fee"], row["maker"] = order.filled, order.notional, order.fee, int(self.random.integers(0, 2))
        return row


def external_operator(seed: int, **values: str) -> DeskOperator:
    random = np.random.default_rng([seed, 1])
    policy = random_policy(random)
    entry = [{}, {}, {"entry_limit": "5 bps"}, {"entry_stop": "5 bps"}, {"entry_stop": "5 bps", "entry_limit": "5 bps"}]
    mode: dict[str, str] = entry[int(random.integers(0, len(entry)))]
    return DeskOperator(Policy({**policy.values, **mode, **values}), STRATEGIES, [0.4, 0.3, 0.3], external=True)


ROOM = 64
"""Places for reports between two places of a random tape."""


def traded(seed: int, n: int, operator: DeskOperator | None = None) -> tuple[Tape, list[Frame]]:
    """A random tape with the reports that a random venue gave while it was traded row by row, and the frames of that."""
    tape = random_tape(seed, n)
    for rows in tape.values():
        rows["seq"] *= ROOM
    desk = operator or external_operator(seed)
    venue = RandomVenue(seed)
    places = sorted({int(s) for rows in tape.values() for s in rows["seq"]})
    when = {int(r["seq"]): int(r["ts_event_ns"]) for rows in tape.values() for r in rows}
    frames, said = [], []
    for frame, place in zip(cut(tape, SYMBOLS, places)[1:], places, strict=True):
        made = desk.step(frame)
        frames.append(made)
        venue.take(made.rows(APPROVED))
        for k, report in enumerate(venue.reports(when[place])):
            assert k + 1 < ROOM
            report["seq"] = place + 1 + k
            said.append(report)
            frames.append(desk.step(Frame("test", 0, 0, SYMBOLS, {"reports": np.array([report], REPORTS.dtype)})))
            venue.take(frames[-1].rows(APPROVED))
    tape["reports"] = np.array(said, REPORTS.dtype)
    return tape, frames


def run_all(operator: DeskOperator, frames: Iterable[Frame]) -> tuple[Rows, ...]:
    """Every table that the desk makes of the frames, approvals last."""
    made = [operator.step(frame) for frame in frames]
    return tuple(concat(spec, made) for spec in ALL_MADE)


def totals(reports: Rows) -> dict[int, Any]:
    """By order: the report with the most filled, and of those the last by number."""
    out: dict[int, Any] = {}
    for r in reports:
        key = int(r["order_id"])
        if key not in out or (r["filled"], r["report_no"]) >= (out[key]["filled"], out[key]["report_no"]):
            out[key] = r
    return out
