"""The ledger: what a fill does to cash, positions, fees and realised profit, in double entry.

Kept to the unit after any sequence of fills: capital = cash + cost of positions + fees + funding - realised. A fill never
carries a book through zero (whoever books it sees to it), so it either opens or closes.
"""

from numba import int64

from operators.compiled import inner
from operators.desk.state import FILL_N, LEDGER_N, POSITION_N, Desk, Out
from schemas.money import mul_div, mul_units
from schemas.tables_desk import CASH, FEES, POSITION, REALISED


@inner
def book(out: Out, desk: Desk, ts: int, seq: int, symbol: int, strategy: int, debit: int, credit: int, amount: int,
         fill_no: int) -> None:
    """One entry; a negative amount is booked the other way round, a zero one not at all."""
    if amount == 0:
        return
    account = desk.account[0]
    account.entry_no += 1
    row = out.ledger[out.n[LEDGER_N]]
    out.n[LEDGER_N] += 1
    row.ts_event_ns = ts
    row.seq = seq
    row.symbol = symbol
    row.strategy = strategy
    row.entry_no = account.entry_no
    row.debit = debit if amount > 0 else credit
    row.credit = credit if amount > 0 else debit
    row.amount = abs(amount)
    row.fill_no = fill_no


@inner
def revalue(desk: Desk, symbol: int) -> None:
    """Equity and exposure after the last price or the net position of a symbol changed; then the drawdown's peak."""
    account = desk.account[0]
    s = desk.symbols[symbol]
    value = mul_units(s.last, s.net)
    account.equity += value - s.value
    account.exposure += abs(value) - abs(s.value)
    s.value = value
    if account.equity > account.peak or account.halt_below < -(2**61):
        account.peak = max(account.peak, account.equity)
        account.halt_below = account.peak - mul_units(account.peak, desk.policy[0].drawdown_halt)


@inner
def write_position(desk: Desk, out: Out, ts: int, seq: int, symbol: int, strategy: int) -> None:
    """The state of a book as a row of `positions`."""
    account = desk.account[0]
    b = desk.books[strategy, symbol]
    last = desk.symbols[symbol].last
    account.position_no += 1
    row = out.positions[out.n[POSITION_N]]
    out.n[POSITION_N] += 1
    row.ts_event_ns = ts
    row.seq = seq
    row.symbol = symbol
    row.strategy = strategy
    row.position_no = account.position_no
    row.quantity = b.quantity
    row.cost = b.cost
    row.entry_price = mul_div(abs(b.cost), 100_000_000, abs(b.quantity)) if b.quantity != 0 else 0
    row.mark = last
    row.stop = b.stop
    row.target = b.target
    row.realised = b.realised
    row.unrealised = mul_units(last, b.quantity) - b.cost
    row.fees = b.fees


@inner
def heat_of(quantity: int, cost: int, stop: int) -> int:
    """What a position loses if its stop is hit; without a stop, all that was paid for it."""
    if quantity == 0:
        return 0
    if stop == 0:
        return abs(cost)
    at_stop = mul_units(stop, quantity)
    return max(cost - at_stop, 0)


@inner
def release(desk: Desk, slot: int, quantity: int) -> None:
    """Free the share of an entry's reservation that `quantity` of it stood for; 0 frees what is left."""
    account = desk.account[0]
    o = desk.orders[slot]
    left = o.quantity - o.filled
    whole = quantity == 0 or quantity >= left
    notional = o.reserved if whole else mul_div(o.reserved, quantity, left)
    heat = o.reserved_heat if whole else mul_div(o.reserved_heat, quantity, left)
    o.reserved -= notional
    o.reserved_heat -= heat
    account.pending_notional -= notional
    account.pending_heat -= heat


@inner
def book_fill(desk: Desk, out: Out, slot: int, quantity: int, notional: int, fee: int, price: int, reference: int, maker: int, ts: int,
              seq: int) -> None:
    """Book one execution of the order in `slot`: `quantity` base units, more than none, for `notional` quote units."""
    account = desk.account[0]
    policy = desk.policy[0]
    o = desk.orders[slot]
    symbol = o.symbol
    strategy = o.strategy
    b = desk.books[strategy, symbol]
    s = desk.symbols[symbol]
    side = o.side
    account.fill_no += 1
    fill_no = account.fill_no
    if b.quantity == 0:
        b.ts_entry_ns = ts
        account.positions += 1
    realised = 0
    book(out, desk, ts, seq, symbol, strategy, int64(POSITION), int64(CASH), side * notional, fill_no)
    if b.quantity == 0 or (b.quantity > 0) == (side > 0):
        b.cost += side * notional
    else:
        part = b.cost if quantity == abs(b.quantity) else mul_div(b.cost, quantity, abs(b.quantity))
        realised = -side * notional - part
        b.cost -= part
        book(out, desk, ts, seq, symbol, strategy, int64(POSITION), int64(REALISED), realised, fill_no)
    book(out, desk, ts, seq, symbol, strategy, int64(FEES), int64(CASH), fee, fill_no)
    b.quantity += side * quantity
    b.realised += realised
    b.fees += fee
    b.trip_pnl += realised - fee
    s.net += side * quantity
    account.cash -= side * notional + fee
    account.equity -= side * notional + fee
    account.realised += realised
    account.fees += fee
    release(desk, slot, quantity)
    o.filled += quantity
    revalue(desk, symbol)
    if not o.reduce_only:
        b.stop = o.bracket_stop
        b.target = o.bracket_target
    trip = 0
    closed = b.quantity == 0
    if closed:
        trip = b.trip_pnl
        b.trip_pnl = 0
        b.stop = 0
        b.target = 0
        account.positions -= 1
        if trip < 0:
            s.cooldown_until_ns = ts + policy.cooldown_after_loss
    risk = heat_of(b.quantity, b.cost, b.stop)
    account.heat += risk - b.risk
    b.risk = risk
    write_fill(desk, out, slot, quantity, price, reference, fee, realised, maker, int64(1) if closed else int64(0), trip, ts, seq)


@inner
def correct_fill(desk: Desk, out: Out, slot: int, notional: int, fee: int, reference: int, maker: int, ts: int, seq: int) -> None:
    """Book what a venue changes of what it had reported: more or less paid or received, another fee, and no quantity."""
    account = desk.account[0]
    o = desk.orders[slot]
    symbol = o.symbol
    strategy = o.strategy
    b = desk.books[strategy, symbol]
    account.fill_no += 1
    fill_no = account.fill_no
    realised = 0
    book(out, desk, ts, seq, symbol, strategy, int64(POSITION), int64(CASH), o.side * notional, fill_no)
    if b.quantity != 0 and (b.quantity > 0) == (o.side > 0):
        b.cost += o.side * notional
    else:
        realised = -o.side * notional
        book(out, desk, ts, seq, symbol, strategy, int64(POSITION), int64(REALISED), realised, fill_no)
    book(out, desk, ts, seq, symbol, strategy, int64(FEES), int64(CASH), fee, fill_no)
    b.realised += realised
    b.fees += fee
    b.trip_pnl += realised - fee
    account.cash -= o.side * notional + fee
    account.equity -= o.side * notional + fee
    account.realised += realised
    account.fees += fee
    risk = heat_of(b.quantity, b.cost, b.stop)
    account.heat += risk - b.risk
    b.risk = risk
    revalue(desk, symbol)
    write_fill(desk, out, slot, int64(0), int64(0), reference, fee, realised, maker, int64(0), int64(0), ts, seq)


@inner
def write_fill(desk: Desk, out: Out, slot: int, quantity: int, price: int, reference: int, fee: int, realised: int, maker: int,
               closed: int, trip: int, ts: int, seq: int) -> None:
    """The row of `fills`, and the position that it led to."""
    o = desk.orders[slot]
    row = out.fills[out.n[FILL_N]]
    out.n[FILL_N] += 1
    row.ts_event_ns = ts
    row.seq = seq
    row.symbol = o.symbol
    row.strategy = o.strategy
    row.fill_no = desk.account[0].fill_no
    row.order_id = o.order_id
    row.side = 1 if o.side > 0 else 2
    row.quantity = quantity
    row.price = price
    row.reference = reference
    row.fee = fee
    row.realised = realised
    row.maker = maker
    row.cause = o.cause
    row.closed = closed
    row.trade_pnl = trip
    row.ts_entry_ns = desk.books[o.strategy, o.symbol].ts_entry_ns
    write_position(desk, out, ts, seq, o.symbol, o.strategy)
