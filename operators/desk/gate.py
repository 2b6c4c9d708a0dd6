"""The gate: the one door to the market. A proposal becomes an approved order here or a refusal with its reason, never neither.

Signals, flatten-all and manual proposals all come through `decide`; `ApprovedOrder` is constructed in this file alone.
There is no bypass.
"""

import numpy as np
from numba import int64

from operators.compiled import inner
from operators.desk.ledger import heat_of
from operators.desk.limits import check
from operators.desk.orders import clear_slot, free_slot, place, withdraw
from operators.desk.sending import dispatch
from operators.desk.sizing import size
from operators.desk.state import DECISION_N, SCRATCH, Desk, Out, Record
from schemas.ids import fold
from schemas.money import mul_units
from schemas.records import ApprovedOrder
from schemas.tables import SIDES, Rows
from schemas.tables_desk import LIMIT, LIMITS, MARKET, STOP, STOP_LIMIT

_OPEN_ORDERS = LIMITS.index("open_orders")


@inner
def order_id_of(desk: Desk, strategy: int, symbol: int, ts_bar_end: int, action: int, slot: int) -> int:
    """client order id = hash(account, strategy, symbol, bar end, action, slot)."""
    h = fold(desk.account[0].id, desk.strategy_ids[strategy])
    h = fold(h, desk.symbol_ids[symbol])
    h = fold(h, np.uint64(ts_bar_end))
    return fold(fold(h, np.uint64(action)), np.uint64(slot))


@inner
def decide(desk: Desk, out: Out, strategy: int, symbol: int, action: int, cause: int, slot_no: int, ts_open: int, interval: int,
           stop: int, target: int, trail: int, strength: float, ts: int, seq: int) -> None:
    """One proposal in, one decision out; where it is approved, its order is placed."""
    account = desk.account[0]
    price = desk.symbols[symbol].last
    held = desk.books[strategy, symbol].quantity
    if action == 2:
        quantity = abs(held)
        side = -1 if held > 0 else 1
    else:
        side = 1 if action == 0 else -1
        quantity = size(desk, symbol, strategy, price, stop if stop > 0 else (price - side * trail if trail > 0 else 0), strength)
    row = out.decisions[out.n[DECISION_N]]
    out.n[DECISION_N] += 1
    account.decision_no += 1
    row.ts_event_ns = ts
    row.seq = seq
    row.symbol = symbol
    row.strategy = strategy
    row.decision_no = account.decision_no
    row.order_id = order_id_of(desk, strategy, symbol, ts_open + interval, action, slot_no)
    row.action = action
    row.cause = cause
    row.slot = slot_no
    row.ts_open_ns = ts_open
    row.interval_ns = interval
    row.trading_state = account.trading_state
    row.policy_version = desk.policy[0].version
    row.quantity = side * quantity
    row.price = price
    row.stop = stop
    row.target = target
    row.equity = account.equity
    check(desk, row, strategy, symbol, action, cause, quantity, price, stop, strength, ts)
    if row.reason == 0 and quantity > 0 and free_slot(desk) < 0:
        row.observed[_OPEN_ORDERS] = SCRATCH + 1
        row.bounds[_OPEN_ORDERS] = SCRATCH
        row.verdicts[_OPEN_ORDERS] = 2
        row.reason = _OPEN_ORDERS + 1
    row.approved = 1 if row.reason == 0 else 0
    if row.reason == 0:
        approve(desk, out, row, side, quantity, trail, ts, seq)


@inner
def price_entry(desk: Desk, slot: int, price: int, side: int) -> int:
    """Set the prices of an entry as the policy has it and return its type: market, limit, stop or stop-limit."""
    policy = desk.policy[0]
    o = desk.orders[slot]
    if policy.entry_stop > 0:
        o.stop_price = price + side * mul_units(price, policy.entry_stop)
        if policy.entry_limit > 0:
            o.limit_price = o.stop_price + side * mul_units(price, policy.entry_limit)
            return int64(STOP_LIMIT)
        return int64(STOP)
    if policy.entry_limit > 0:
        o.limit_price = price - side * mul_units(price, policy.entry_limit)
        return int64(LIMIT)
    return int64(MARKET)


@inner
def approve(desk: Desk, out: Out, row: Record, side: int, quantity: int, trail: int, ts: int, seq: int) -> None:
    """Place the order of an approved decision; an exit first withdraws the entry that is still pending."""
    account = desk.account[0]
    strategy = row.strategy
    symbol = row.symbol
    b = desk.books[strategy, symbol]
    is_exit = row.action == 2
    if is_exit and b.entry_pending >= 0:
        withdraw(desk, out, b.entry_pending, ts, seq)
        if b.entry_pending >= 0:
            b.leave = 1  # it is at the venue: what still comes of it is left again
    if quantity == 0:
        return
    k = free_slot(desk)
    clear_slot(desk, k)
    o = desk.orders[k]
    if is_exit:
        b.exit_pending = k
    else:
        o.bracket_stop = row.stop
        o.bracket_target = row.target
        o.bracket_trail = trail
        o.reserved = mul_units(row.price, quantity)
        o.reserved_heat = heat_of(side * quantity, side * o.reserved, row.stop)
        account.pending_notional += o.reserved
        account.pending_heat += o.reserved_heat
        account.pending += 1
        account.entries_today += 1
        b.entry_pending = k
    order_type = int64(MARKET) if is_exit else price_entry(desk, k, row.price, side)
    external = account.external == 1
    o.decision_no = row.decision_no
    place(desk, out, k, strategy, symbol, row.order_id, np.uint64(0), order_type, side, row.cause, quantity, ts, seq,
          ts if external else ts + desk.policy[0].latency, int64(1) if is_exit else int64(0))
    if external:
        o.due = 1 if order_type == MARKET or order_type == LIMIT else 0
        dispatch(desk, out, symbol, ts, seq)


def approved_orders(decisions: Rows, account: str, symbols: tuple[str, ...], strategies: tuple[str, ...]) -> list[ApprovedOrder]:
    """The orders that a venue may take: one per approved decision, in the order of the decisions."""
    return [
        ApprovedOrder(
            order_id=int(row["order_id"]), account=account, strategy=strategies[row["strategy"]], symbol=symbols[row["symbol"]],
            side=SIDES[1 if row["quantity"] > 0 else 2], quantity=abs(int(row["quantity"])), decision_no=int(row["decision_no"]),
            ts_event_ns=int(row["ts_event_ns"]),
        )
        for row in decisions if row["approved"] and row["quantity"] != 0
    ]
