"""Orders on their way to an external venue: which may go, when, and again where nothing came of an exit.

A book never has two exits at the venue, and never asks it for more than the position: an exit that is due while another is out
waits for the report that ends that one. An order id is sent once. An exit that ended with the position still there is placed again
under an id made from its first; after `EXIT_FAILURES` in a row of which nothing was filled, trading halts.
"""

import numpy as np
from numba import int64

from operators.compiled import inner
from operators.desk.approvals import ask_venue
from operators.desk.orders import fillable, finish, remember, sweep, write_order
from operators.desk.state import NEVER, Desk, Out
from operators.desk.venue import through, touched
from schemas.ids import fold
from schemas.tables_desk import (
    CANCELLED,
    EXPIRED,
    HALTED,
    NEW,
    SENT,
    TAKE_PROFIT,
    TRAILING_STOP,
    TRIGGERED,
)
from schemas.tables_live import PLACE_REQUEST

EXIT_FAILURES = 8
"""So many exits in a row without a fill, and trading halts; with the waits between them this takes about a minute."""
RETRY_NS = 1_000_000_000
"""The first wait; each is twice the one before. The first exit after a failure goes at once."""


@inner
def halt(desk: Desk) -> None:
    """Something happened that must not: trading halts and everything is flattened, once."""
    a = desk.account[0]
    if a.trading_state != HALTED:
        a.trading_state = HALTED
        a.flatten_due = 1


@inner
def send(desk: Desk, out: Out, slot: int, quantity: int, ts: int, seq: int) -> None:
    """Hand the order over."""
    o = desk.orders[slot]
    o.quantity = quantity
    o.sent = quantity
    o.ts_active_ns = ts
    if o.reduce_only:
        desk.books[o.strategy, o.symbol].exit_sent = slot
    ask_venue(desk, out, slot, int64(PLACE_REQUEST), quantity, ts, seq)
    write_order(desk, out, slot, int64(SENT), ts, seq)


@inner
def dispatch(desk: Desk, out: Out, symbol: int, ts: int, seq: int) -> None:
    """Send what is due of a symbol and may go, oldest first."""
    k = desk.symbols[symbol].head
    while k >= 0:
        o = desk.orders[k]
        if o.used == 1 and o.due == 1 and o.sent == 0 and ts >= o.ts_active_ns and desk.books[o.strategy, symbol].exit_sent < 0:
            quantity = fillable(desk, k)
            if quantity > 0 and o.reduce_only == 0 and ts - o.ts_active_ns > desk.policy[0].price_age_max:
                finish(desk, out, k, int64(EXPIRED), ts, seq)  # it waited for an exit, and was decided on a price that is gone
            elif quantity > 0:
                send(desk, out, k, quantity, ts, seq)
            elif o.reduce_only:
                finish(desk, out, k, int64(CANCELLED), ts, seq)
        k = o.next


@inner
def arm(desk: Desk, out: Out, slot: int, ts: int, seq: int) -> None:
    """The price has reached an order that the desk watches: it is due."""
    o = desk.orders[slot]
    o.due = 1
    o.ts_active_ns = ts
    if o.stop_price > 0:
        write_order(desk, out, slot, int64(TRIGGERED), ts, seq)
        o.stop_price = 0


@inner
def watch(desk: Desk, out: Out, symbol: int, low: int, high: int, ts: int, seq: int) -> None:
    """All orders of a symbol that the desk watches, against a price (low = high) or a bar's range; stops before targets."""
    for phase in range(2):
        k = desk.symbols[symbol].head
        while k >= 0:
            o = desk.orders[k]
            if o.used == 1 and o.due == 0 and seq > o.seq_placed:
                if phase == 0 and o.stop_price > 0:
                    if touched(o.side, low if o.side < 0 else high, o.stop_price):
                        arm(desk, out, k, ts, seq)
                    elif o.order_type == TRAILING_STOP:
                        follow(desk, k, high if o.side < 0 else low)
                elif phase == 1 and o.order_type == TAKE_PROFIT and through(o.side, high if o.side < 0 else low, o.limit_price):
                    arm(desk, out, k, ts, seq)
            k = o.next
    dispatch(desk, out, symbol, ts, seq)
    sweep(desk, symbol)


@inner
def follow(desk: Desk, slot: int, price: int) -> None:
    """A trailing stop follows the price, one way only."""
    o = desk.orders[slot]
    level = price + o.side * o.trail
    if (o.side < 0 and level > o.stop_price) or (o.side > 0 and level < o.stop_price):
        o.stop_price = level


@inner
def renew(desk: Desk, out: Out, slot: int, state: int, ts: int, seq: int) -> None:
    """An exit ended with the position still there: place it again in its slot, under a new id, or give up and halt."""
    a = desk.account[0]
    o = desk.orders[slot]
    b = desk.books[o.strategy, o.symbol]
    failures = 0 if o.filled > 0 else o.failures + 1
    if failures >= EXIT_FAILURES:
        a.exits_failed += 1
        finish(desk, out, slot, state, ts, seq)
        halt(desk)
        return
    write_order(desk, out, slot, state, ts, seq)
    remember(desk, slot)
    b.exit_sent = -1
    if o.parent_id == np.uint64(0):
        o.parent_id = o.root_id
    o.attempt += 1
    o.order_id = fold(o.root_id, np.uint64(o.attempt))
    o.failures = failures
    o.quantity = abs(b.quantity)
    o.filled = 0
    o.sent = 0
    o.notional = 0
    o.fee = 0
    o.report_no = 0
    o.cancel_asked = 0
    o.ts_active_ns = ts if failures < 2 else ts + (RETRY_NS << (failures - 2))
    if o.ts_active_ns > ts:
        a.retry_at_ns = min(a.retry_at_ns, o.ts_active_ns)
        a.next_time_ns = min(a.next_time_ns, a.retry_at_ns)
    write_order(desk, out, slot, int64(NEW), ts, seq)


@inner
def retry(desk: Desk, out: Out, ts: int, seq: int) -> None:
    """The wait of an exit is over: send it, and find when the next is."""
    a = desk.account[0]
    a.retry_at_ns = NEVER
    for k in range(len(desk.orders)):
        o = desk.orders[k]
        if o.used == 1 and o.due == 1 and o.sent == 0:
            if ts >= o.ts_active_ns:
                dispatch(desk, out, o.symbol, ts, seq)
            else:
                a.retry_at_ns = min(a.retry_at_ns, o.ts_active_ns)
    a.next_time_ns = min(a.next_time_ns, a.retry_at_ns)
