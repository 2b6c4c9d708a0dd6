"""The paper venue: what an open order makes of a tick, a quote or a bar.

An order sees only market rows after the row that caused it, and only once it has reached the venue (`ts_active_ns`).
Market orders and triggered stops take liquidity: at the print (or the worse side of the quote), worse by slippage and by impact
times the square root of the share taken, the square-root law of market impact (Almgren et al. 2005). Limits and targets rest: they fill at
their price only when a print goes through it. No order takes more than its participation of a print. A stop that is
touched by a tick fills from the next tick on.

From bars alone the path is the cautious one: taking orders fill at the open; then every stop that the bar's range touches
fills at the stop, or at the open where that is worse, before any limit or target may fill; a bracket that was placed in the same
bar can only be stopped in it.
"""

import math

from numba import int64

from operators.compiled import inner
from operators.desk.ledger import book_fill
from operators.desk.orders import cancel_exits, fillable, finish, place_bracket, sweep, write_order
from operators.desk.state import Desk, Out
from schemas.money import mul_units
from schemas.tables_desk import (
    ACCEPTED,
    CANCELLED,
    FILLED,
    LIMIT,
    MARKET,
    NEW,
    PARTIALLY_FILLED,
    STOP,
    STOP_LIMIT,
    TAKE_PROFIT,
    TRAILING_STOP,
    TRIGGERED,
)

NO_SIZE = -1
"""Size of a market row that does not bound what may be taken."""


@inner
def execute(desk: Desk, out: Out, slot: int, reference: int, size: int, maker: int, ts: int, seq: int) -> None:
    """Fill what may be filled of the order at `reference`, and do what follows: state, bracket, the other exits."""
    policy = desk.policy[0]
    o = desk.orders[slot]
    want = fillable(desk, slot)
    if want == 0:
        if o.reduce_only:
            finish(desk, out, slot, int64(CANCELLED), ts, seq)
        return
    quantity = want
    share = 0.0
    if size != NO_SIZE:
        quantity = min(want, mul_units(size, policy.participation))
        quantity -= 0 if quantity == want else quantity % policy.lot
        if quantity <= 0:
            return
        share = quantity / size
    price = reference
    if not maker:
        slip = policy.slippage + int(policy.impact * math.sqrt(share))
        worse = mul_units(reference, slip)
        price = max(reference + o.side * worse, 1)
    b = desk.books[o.strategy, o.symbol]
    was_flat = b.quantity == 0
    notional = mul_units(price, quantity)
    fee = -mul_units(-notional, policy.fee_maker if maker else policy.fee_taker)
    book_fill(desk, out, slot, quantity, notional, fee, price, reference, maker, ts, seq)
    if b.quantity == 0 or o.filled >= o.quantity:
        finish(desk, out, slot, int64(FILLED), ts, seq)
    else:
        write_order(desk, out, slot, int64(PARTIALLY_FILLED), ts, seq)
    if b.quantity == 0:
        cancel_exits(desk, out, o.strategy, o.symbol, ts, seq)
    elif was_flat and not o.reduce_only:
        place_bracket(desk, out, slot, int64(0), ts, seq)


@inner
def touched(side: int, price: int, level: int) -> bool:
    """Whether a stop on this side at `level` is triggered by `price`: a sell from above, a buy from below."""
    return price <= level if side < 0 else price >= level


@inner
def through(side: int, price: int, level: int) -> bool:
    """Whether a print at `price` goes through a resting order at `level`; a touch leaves it in the queue."""
    return price > level if side < 0 else price < level


@inner
def takes(desk: Desk, slot: int) -> bool:
    """Whether the order takes liquidity now: a market order, or a stop that was triggered."""
    o = desk.orders[slot]
    if o.order_type == MARKET:
        return True
    return (o.order_type == STOP or o.order_type == TRAILING_STOP) and o.stop_price == 0


@inner
def work_tick(desk: Desk, out: Out, symbol: int, price: int, bid: int, ask: int, buy_size: int, sell_size: int, ts: int,
              seq: int) -> None:
    """All open orders of a symbol against one print or quote, oldest first. bid, ask: 0 where unknown."""
    s = desk.symbols[symbol]
    k = s.head
    while k >= 0:
        o = desk.orders[k]
        if o.used == 1 and ts >= o.ts_active_ns and seq > o.seq_placed:
            size = buy_size if o.side > 0 else sell_size
            if takes(desk, k):
                reference = price
                if o.side > 0 and ask > 0:
                    reference = max(price, ask)
                if o.side < 0 and bid > 0:
                    reference = min(price, bid)
                execute(desk, out, k, reference, size, int64(0), ts, seq)
            else:
                if o.state == NEW:
                    write_order(desk, out, k, int64(ACCEPTED), ts, seq)
                if o.order_type == TRAILING_STOP:
                    level = price + o.side * o.trail
                    if (o.side < 0 and level > o.stop_price) or (o.side > 0 and level < o.stop_price):
                        o.stop_price = level
                if o.stop_price > 0:
                    if touched(o.side, price, o.stop_price):
                        write_order(desk, out, k, int64(TRIGGERED), ts, seq)
                        o.stop_price = 0
                elif through(o.side, price, o.limit_price):
                    execute(desk, out, k, o.limit_price, size, int64(1), ts, seq)
        k = o.next
    sweep(desk, symbol)


@inner
def work_bar(desk: Desk, out: Out, symbol: int, opened: int, high: int, low: int, volume: int, ts_close: int, ts: int,
             seq: int) -> None:
    """All open orders of a symbol against one bar, along the cautious path of the module's text."""
    s = desk.symbols[symbol]
    for phase in range(3):
        k = s.head
        while k >= 0:
            o = desk.orders[k]
            placed_now = o.seq_placed == seq
            due = (phase == 1 and o.is_bracket == 1) if placed_now else o.ts_active_ns < ts_close
            if o.used == 1 and due:
                stop = o.stop_price
                if phase == 0:
                    if takes(desk, k):
                        execute(desk, out, k, opened, volume, int64(0), ts, seq)
                    elif o.state == NEW and o.order_type != MARKET:
                        write_order(desk, out, k, int64(ACCEPTED), ts, seq)
                elif phase == 1 and stop > 0:
                    if touched(o.side, low if o.side < 0 else high, stop):
                        write_order(desk, out, k, int64(TRIGGERED), ts, seq)
                        o.stop_price = 0
                        if o.order_type != STOP_LIMIT:
                            worse = min(stop, opened) if o.side < 0 else max(stop, opened)
                            execute(desk, out, k, worse, volume, int64(0), ts, seq)
                    elif o.order_type == TRAILING_STOP and not placed_now:
                        level = high - o.trail if o.side < 0 else low + o.trail
                        if (o.side < 0 and level > stop) or (o.side > 0 and level < stop):
                            o.stop_price = level
                elif phase == 2 and o.stop_price == 0 and (
                    o.order_type == LIMIT or o.order_type == TAKE_PROFIT or o.order_type == STOP_LIMIT
                ) and through(o.side, high if o.side < 0 else low, o.limit_price):
                    execute(desk, out, k, o.limit_price, volume, int64(1), ts, seq)
            k = o.next
        sweep(desk, symbol)
        if s.head < 0:
            return
