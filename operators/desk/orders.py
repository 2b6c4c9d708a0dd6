"""The life of an order: one table of the moves that are allowed, and the compiled functions that make them.

Open orders sit in slots, linked per symbol in the order in which they were placed; that is the order in which they fill.
Every state that an order comes into is a row. An order that is at an external venue is ended by the venue's report alone.
"""

import numpy as np
from numba import int64

from operators.compiled import inner
from operators.desk.approvals import ask_venue
from operators.desk.ledger import release
from operators.desk.state import ORDER_N, SCRATCH, Desk, Out
from schemas.ids import fold
from schemas.tables_desk import (
    ACCEPTED,
    CANCELLED,
    EXPIRED,
    FILLED,
    LIMIT,
    NEW,
    PARTIALLY_FILLED,
    REJECTED_ORDER,
    SENT,
    STOP,
    STOP_LIMIT,
    TAKE_PROFIT,
    TRAILING_STOP,
    TRIGGERED,
    UNKNOWN,
)
from schemas.tables_live import CANCEL_REQUEST

FAR = 2**62
"""Beyond every price."""

_ENDS = (FILLED, CANCELLED, REJECTED_ORDER, EXPIRED)
LIFE_CYCLE: dict[int, tuple[int, ...]] = {
    NEW: (ACCEPTED, TRIGGERED, PARTIALLY_FILLED, SENT, *_ENDS),
    ACCEPTED: (TRIGGERED, PARTIALLY_FILLED, UNKNOWN, *_ENDS),
    TRIGGERED: (PARTIALLY_FILLED, SENT, FILLED, CANCELLED, EXPIRED),
    PARTIALLY_FILLED: (PARTIALLY_FILLED, UNKNOWN, *_ENDS),
    FILLED: (),
    CANCELLED: (),
    REJECTED_ORDER: (),
    EXPIRED: (),
    SENT: (ACCEPTED, PARTIALLY_FILLED, UNKNOWN, *_ENDS),
    UNKNOWN: (UNKNOWN, SENT, ACCEPTED, PARTIALLY_FILLED, *_ENDS),
}
"""From each state, the states that may follow; a state with none is final."""
LATE: dict[int, tuple[int, ...]] = dict.fromkeys(_ENDS, _ENDS)
"""What may still follow a final state, where an external venue reports more of an order than when it ended it."""


@inner
def write_order(desk: Desk, out: Out, slot: int, state: int, ts: int, seq: int) -> None:
    """Bring the order into `state` and write the row that says so."""
    account = desk.account[0]
    o = desk.orders[slot]
    o.state = state
    account.event_no += 1
    row = out.orders[out.n[ORDER_N]]
    out.n[ORDER_N] += 1
    row.ts_event_ns = ts
    row.seq = seq
    row.symbol = o.symbol
    row.strategy = o.strategy
    row.order_id = o.order_id
    row.parent_id = o.parent_id
    row.event_no = account.event_no
    row.order_type = o.order_type
    row.state = state
    row.side = 1 if o.side > 0 else 2
    row.cause = o.cause
    row.quantity = o.quantity
    row.filled = o.filled
    row.limit_price = o.limit_price
    row.stop_price = o.stop_price
    row.ts_active_ns = o.ts_active_ns


@inner
def free_slot(desk: Desk) -> int:
    """A free slot, or -1 where the table is full."""
    for k in range(SCRATCH):
        if desk.orders[k].used == 0:
            return k
    return -1


@inner
def link(desk: Desk, slot: int) -> None:
    """Put the order at the end of its symbol's queue."""
    o = desk.orders[slot]
    s = desk.symbols[o.symbol]
    o.next = -1
    if s.tail >= 0:
        desk.orders[s.tail].next = slot
    else:
        s.head = slot
    s.tail = slot
    s.act_below = FAR
    desk.account[0].open_orders += 1


@inner
def place(desk: Desk, out: Out, slot: int, strategy: int, symbol: int, order_id: int, parent_id: int, order_type: int, side: int,
          cause: int, quantity: int, ts: int, seq: int, ts_active: int, reduce_only: int) -> None:
    """Fill a free slot with a new order, queue it and write its first row. Prices and bracket are set by the caller before."""
    o = desk.orders[slot]
    o.order_id = order_id
    o.parent_id = parent_id
    o.used = 1
    o.strategy = strategy
    o.symbol = symbol
    o.order_type = order_type
    o.side = side
    o.cause = cause
    o.quantity = quantity
    o.filled = 0
    o.ts_active_ns = ts_active
    o.seq_placed = seq
    o.reduce_only = reduce_only
    o.root_id = order_id
    link(desk, slot)
    write_order(desk, out, slot, int64(NEW), ts, seq)


@inner
def clear_slot(desk: Desk, slot: int) -> None:
    """Reset the prices and bracket of a slot before it is placed."""
    o = desk.orders[slot]
    o.limit_price = 0
    o.stop_price = 0
    o.trail = 0
    o.bracket_stop = 0
    o.bracket_target = 0
    o.bracket_trail = 0
    o.is_bracket = 0
    o.reserved = 0
    o.reserved_heat = 0
    o.decision_no = 0
    o.due = 0
    o.sent = 0
    o.notional = 0
    o.fee = 0
    o.report_no = 0
    o.cancel_asked = 0
    o.attempt = 0
    o.failures = 0
    o.rounds = 0


@inner
def fillable(desk: Desk, slot: int) -> int:
    """Quantity that the order may still fill: an exit never more than the position, an entry never against one."""
    o = desk.orders[slot]
    held = desk.books[o.strategy, o.symbol].quantity
    left = o.quantity - o.filled
    if o.reduce_only:
        against = held != 0 and (held > 0) != (o.side > 0)
        return (abs(held) if o.is_bracket else min(left, abs(held))) if against else 0
    return 0 if held != 0 and (held > 0) != (o.side > 0) else left


@inner
def remember(desk: Desk, slot: int) -> None:
    """Keep an order that an external venue has ended: it may still say something of it."""
    a = desk.account[0]
    desk.done[a.done_no % len(desk.done)] = desk.orders[slot]
    a.done_no += 1


@inner
def finish(desk: Desk, out: Out, slot: int, state: int, ts: int, seq: int) -> None:
    """A final state: write it and forget what was pending; the slot is freed by `sweep`."""
    o = desk.orders[slot]
    b = desk.books[o.strategy, o.symbol]
    if b.entry_pending == slot:
        b.entry_pending = -1
        desk.account[0].pending -= 1
    if b.exit_pending == slot:
        b.exit_pending = -1
    release(desk, slot, int64(0))
    write_order(desk, out, slot, state, ts, seq)
    o.used = 2
    desk.symbols[o.symbol].act_below = FAR  # the symbol's next row sweeps, however the rows are cut into batches
    if o.sent > 0:
        if b.exit_sent == slot:
            b.exit_sent = -1
        remember(desk, slot)


@inner
def withdraw(desk: Desk, out: Out, slot: int, ts: int, seq: int) -> None:
    """Cancel an order; one that is at an external venue stays open until the venue has reported its end."""
    o = desk.orders[slot]
    if o.sent == 0:
        finish(desk, out, slot, int64(CANCELLED), ts, seq)
    elif o.cancel_asked == 0:
        o.cancel_asked = 1
        ask_venue(desk, out, slot, int64(CANCEL_REQUEST), int64(0), ts, seq)


@inner
def sweep(desk: Desk, symbol: int) -> None:
    """Unlink the finished orders of a symbol, free their slots, and say between which prices the others sleep."""
    orders = desk.orders
    s = desk.symbols[symbol]
    external = desk.account[0].external == 1
    before = -1
    below = 0
    above = FAR
    k = s.head
    while k >= 0:
        o = orders[k]
        following = o.next
        if o.used == 2:
            if before >= 0:
                orders[before].next = following
            else:
                s.head = following
            if s.tail == k:
                s.tail = before
            o.used = 0
            desk.account[0].open_orders -= 1
        else:
            before = k
            stop = o.stop_price
            if external:
                if o.sent > 0 or (o.due == 1 and desk.books[o.strategy, o.symbol].exit_sent >= 0):
                    k = following
                    continue  # only a report moves it
                asleep = o.due == 0
            else:
                asleep = o.state != NEW
            if not asleep or (stop == 0 and o.order_type != LIMIT and o.order_type != TAKE_PROFIT and o.order_type != STOP_LIMIT):
                below = FAR
            elif (o.side < 0) == (stop > 0):
                below = max(below, stop if stop > 0 else o.limit_price)
            else:
                above = min(above, stop if stop > 0 else o.limit_price)
            if o.order_type == TRAILING_STOP and stop > 0:
                if o.side < 0:
                    above = min(above, stop + o.trail)
                else:
                    below = max(below, stop - o.trail)
        k = following
    s.act_below = below
    s.act_above = above


@inner
def cancel_exits(desk: Desk, out: Out, strategy: int, symbol: int, ts: int, seq: int) -> None:
    """One cancels the other: a flat book has no exits left, nor the rest of the entry that it was opened with."""
    k = desk.symbols[symbol].head
    while k >= 0:
        o = desk.orders[k]
        if o.used == 1 and o.strategy == strategy and (o.reduce_only == 1 or o.filled > 0):
            withdraw(desk, out, k, ts, seq)
        k = o.next


@inner
def withdraw_entries(desk: Desk, out: Out, ts: int, seq: int) -> None:
    """Cancel every entry that is still open: trading is not active any more. Exits stay."""
    for k in range(len(desk.orders)):
        o = desk.orders[k]
        if o.used == 1 and o.reduce_only == 0:
            withdraw(desk, out, k, ts, seq)


@inner
def place_bracket(desk: Desk, out: Out, entry: int, first: int, ts: int, seq: int) -> None:
    """Stop, target and trailing stop of a filled entry: each reduces whatever the position then is. Their ids count from `first`."""
    e = desk.orders[entry]
    for kind in range(3):
        price = e.bracket_stop if kind == 0 else (e.bracket_target if kind == 1 else e.bracket_trail)
        if price <= 0:
            continue
        slot = free_slot(desk)
        if slot < 0:
            desk.books[e.strategy, e.symbol].leave = 1  # what cannot be protected is left
            return
        clear_slot(desk, slot)
        o = desk.orders[slot]
        order_type = int64(STOP)
        cause = int64(2)
        if kind == 0:
            o.stop_price = price
        elif kind == 1:
            o.limit_price = price
            order_type = int64(TAKE_PROFIT)
            cause = int64(3)
        else:
            o.trail = price
            o.stop_price = desk.symbols[e.symbol].last - e.side * price
            order_type = int64(TRAILING_STOP)
        o.is_bracket = 1
        o.decision_no = e.decision_no
        place(desk, out, slot, e.strategy, e.symbol, bracket_id(e.order_id, first + kind), e.order_id, order_type, -e.side, cause,
              e.quantity, ts, seq, ts, int64(1))


@inner
def bracket_id(order_id: int, kind: int) -> int:
    """The id of a bracket's exit, from its entry's."""
    return fold(order_id, np.uint64(kind + 1))


