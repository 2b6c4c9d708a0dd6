"""What an external venue reports: totals of an order, of which the desk books what it has not booked yet.

A report that is read twice does nothing, and one that comes after a later one adds nothing: quantities only grow, other totals and
states count where the report's number is new, and an end counts whenever it comes. What was filled is booked as it is, to the last
unit, also after the order's end. Where it is more than was ordered, carries a book through zero or cost nothing, trading halts.
Reports of orders that were never sent are counted.
"""

from numba import int64

from operators.compiled import inner
from operators.desk.ledger import book_fill, correct_fill
from operators.desk.orders import cancel_exits, finish, place_bracket, sweep, write_order
from operators.desk.sending import dispatch, halt, renew
from operators.desk.state import SCRATCH, Desk, Out, Record
from schemas.money import UNITS, mul_div, mul_units
from schemas.tables_desk import (
    ACCEPTED,
    CANCELLED,
    EXPIRED,
    FILLED,
    HALTED,
    PARTIALLY_FILLED,
    REJECTED_ORDER,
    SENT,
    UNKNOWN,
)
from schemas.tables_live import (
    R_ACCEPTED,
    R_CANCELLED,
    R_EXPIRED,
    R_FILLED,
    R_PARTIALLY_FILLED,
    R_REJECTED,
    R_SENT,
    R_UNKNOWN,
)

TOTAL_MAX = 2**60
"""No total is beyond this; what is cannot be true."""
NO_STATE = -1


@inner
def open_slot(desk: Desk, order_id: int) -> int:
    """The slot of an order that was sent and has not ended, or -1."""
    for k in range(SCRATCH):
        o = desk.orders[k]
        if o.order_id == order_id and o.used == 1 and o.sent > 0:
            return k
    return -1


@inner
def done_place(desk: Desk, order_id: int) -> int:
    """The place of an ended order in the ring, or -1."""
    for k in range(min(desk.account[0].done_no, len(desk.done))):
        if desk.done[k].order_id == order_id:
            return k
    return -1


@inner
def ending(state: int) -> int:
    """The final state of an order that a report's state stands for, or NO_STATE."""
    if state == R_FILLED:
        return int64(FILLED)
    if state == R_CANCELLED:
        return int64(CANCELLED)
    if state == R_REJECTED:
        return int64(REJECTED_ORDER)
    return int64(EXPIRED) if state == R_EXPIRED else int64(NO_STATE)


@inner
def going_on(before: int, filled: int, more: int, newer: bool, state: int) -> int:
    """The state of an order that has not ended, or NO_STATE where the report does not change it."""
    after = before
    if newer and state == R_UNKNOWN:
        after = UNKNOWN
    elif more > 0 or (newer and filled > 0):
        after = PARTIALLY_FILLED
    elif newer and (state == R_ACCEPTED or state == R_PARTIALLY_FILLED):
        after = ACCEPTED
    elif newer and state == R_SENT and before == UNKNOWN:
        after = SENT
    return int64(after) if after != before or more > 0 else int64(NO_STATE)


@inner
def take_fill(desk: Desk, out: Out, slot: int, quantity: int, notional: int, fee: int, maker: int, ts: int, seq: int) -> None:
    """Book what was filled since the report before, in two parts where it carries the book through zero."""
    o = desk.orders[slot]
    b = desk.books[o.strategy, o.symbol]
    reference = desk.symbols[o.symbol].last
    price = mul_div(notional, UNITS, quantity)
    unpaid = notional <= 0 and mul_units(reference, quantity) > 1
    through_zero = b.quantity != 0 and (b.quantity > 0) != (o.side > 0) and quantity > abs(b.quantity)
    if through_zero:
        first = abs(b.quantity)
        part = mul_div(notional, first, quantity)
        part_fee = mul_div(fee, first, quantity)
        book_fill(desk, out, slot, first, part, part_fee, price, reference, maker, ts, seq)
        quantity -= first
        notional -= part
        fee -= part_fee
    book_fill(desk, out, slot, quantity, notional, fee, price, reference, maker, ts, seq)
    if through_zero or unpaid or o.filled > o.quantity:
        b.leave = 1
        halt(desk)
    if o.reduce_only == 0 and desk.account[0].trading_state == HALTED:
        b.leave = 1


@inner
def take_totals(desk: Desk, out: Out, slot: int, r: Record, ts: int, seq: int) -> int:
    """Book what the report's totals add to what was booked of the order; 1 where they add anything."""
    o = desk.orders[slot]
    more = r.filled - o.filled
    newer = r.report_no > o.report_no
    if more < 0 or (more == 0 and (not newer or (r.notional == o.notional and r.fee == o.fee))):
        return 0
    notional = r.notional - o.notional
    fee = r.fee - o.fee
    o.notional = r.notional
    o.fee = r.fee
    if more > 0:
        take_fill(desk, out, slot, more, notional, fee, r.maker, ts, seq)
    else:
        correct_fill(desk, out, slot, notional, fee, desk.symbols[o.symbol].last, r.maker, ts, seq)
    return 1


@inner
def on_report(desk: Desk, out: Out, r: Record, ts: int, seq: int) -> None:
    """One report: money, the order's state, and what may be sent now."""
    a = desk.account[0]
    slot = open_slot(desk, r.order_id)
    place = -1
    if slot < 0:
        place = done_place(desk, r.order_id)
        if place < 0:
            a.reports_unknown += 1
            return
    if min(r.filled, r.notional) < 0 or r.fee < -TOTAL_MAX or max(r.filled, max(r.notional, r.fee)) > TOTAL_MAX:
        a.reports_ignored += 1
        return
    if place >= 0:
        slot = SCRATCH
        desk.orders[slot] = desk.done[place]
        desk.orders[slot].used = 0
    o = desk.orders[slot]
    b = desk.books[o.strategy, o.symbol]
    before = o.filled
    was_flat = b.quantity == 0
    newer = r.report_no > o.report_no
    end = ending(r.state)
    booked = take_totals(desk, out, slot, r, ts, seq)
    more = o.filled - before
    o.report_no = max(o.report_no, r.report_no)
    if o.filled >= o.quantity:
        end = int64(FILLED)
    opened = was_flat and b.quantity != 0 and o.reduce_only == 0
    first = int64(3) * o.rounds
    o.rounds += 1 if opened else 0
    if place >= 0:
        if more > 0:
            write_order(desk, out, slot, end if end != NO_STATE else o.state, ts, seq)
        desk.done[place] = o
    elif end != NO_STATE:
        if o.reduce_only == 1 and abs(b.quantity) >= desk.policy[0].lot and (b.quantity > 0) != (o.side > 0):
            renew(desk, out, slot, end, ts, seq)
        else:
            finish(desk, out, slot, end, ts, seq)
    else:
        after = going_on(o.state, o.filled, more, newer, r.state)
        if after != NO_STATE:
            write_order(desk, out, slot, after, ts, seq)
    if booked == 0 and not newer and (place >= 0 or end == NO_STATE):
        a.reports_ignored += 1
    if opened:
        place_bracket(desk, out, slot, first, ts, seq)
    elif b.quantity == 0 and not was_flat:
        cancel_exits(desk, out, o.strategy, o.symbol, ts, seq)
        if b.entry_pending >= 0 and desk.orders[b.entry_pending].filled > 0:
            b.leave = 1  # what else comes of it comes too late
    dispatch(desk, out, o.symbol, ts, seq)
    sweep(desk, o.symbol)
    if b.quantity == 0 and b.entry_pending < 0:
        b.leave = 0
    elif b.leave == 1 and abs(b.quantity) >= desk.policy[0].lot and b.exit_pending < 0 and b.exit_sent < 0:
        a.leave_due = 1
