"""The desk's loop: market rows, reports, control and signals in tape order, one writer for the account.

Rows are taken by `seq`; at the same place on the tape a trade comes before a quote, a bar, funding, a beat, control, a report and last
the signals, so a signal never fills on the row that caused it. Returns when the input is used up or an output could overflow; the
cursor says where.
"""

import math

import numpy as np
from numba import int64

from operators.compiled import inner, kernel
from operators.desk.gate import decide
from operators.desk.ledger import book, revalue
from operators.desk.orders import withdraw_entries
from operators.desk.quiet import on_time, run_bars, run_trades
from operators.desk.reports import on_report
from operators.desk.sending import retry, watch
from operators.desk.state import Desk, Out, Record, Records
from operators.desk.venue import NO_SIZE, work_bar, work_tick
from schemas.money import mul_units, to_units
from schemas.tables_desk import ACTIVE, CASH, CAUSE_FLATTEN, DISABLED, FUNDING, HALTED, REDUCING

END = 2**62
TRADE_I, QUOTE_I, BAR_I, FUNDING_I, BEAT_I, CONTROL_I, SIGNAL_I, REPORT_I = range(8)
OWN_SLOT = 99
"""The slot of what the desk itself proposes; with an external venue it may do so more than once at a time, in slots from here on."""


@inner
def mark(desk: Desk, symbol: int, price: int, ts: int) -> None:
    """A new last price; past the drawdown's limit, trading halts and everything is flattened."""
    s = desk.symbols[symbol]
    s.last = price
    s.ts_last_ns = ts
    if s.net != 0:
        revalue(desk, symbol)
        a = desk.account[0]
        if a.equity < a.halt_below and (a.trading_state == ACTIVE or a.trading_state == REDUCING):
            a.trading_state = HALTED
            a.flatten_due = 1


@inner
def size_units(x: float) -> int:
    """A size to units, bounded far below overflow."""
    return to_units(min(x, 1e10))


@inner
def on_tick(desk: Desk, out: Out, is_trade: bool, trades: Records, quotes: Records, at: Records, ts: int, seq: int) -> None:
    """A print, or best bid and offer: the price, then the open orders. Where a symbol has no trades its ticks are the mids of quotes."""
    if is_trade:
        t = trades[at[0]]
        symbol = t.symbol
        s = desk.symbols[symbol]
        s.ticks = 1
        price = to_units(t.price)
        buy = sell = size_units(t.size)
    else:
        q = quotes[at[1]]
        symbol = q.symbol
        s = desk.symbols[symbol]
        s.bid = price_units(q.bid)
        s.ask = price_units(q.ask)
        if s.ticks == 1 or s.bid == 0 or s.ask == 0:
            return
        s.ticks = 2
        price = (s.bid + s.ask) // 2
        buy = size_units(q.ask_size) if q.ask_size > 0.0 else NO_SIZE
        sell = size_units(q.bid_size) if q.bid_size > 0.0 else NO_SIZE
    mark(desk, symbol, price, ts)
    if s.head >= 0 and (price <= s.act_below or price >= s.act_above):
        if desk.account[0].external:
            watch(desk, out, symbol, price, price, ts, seq)
            return
        work_tick(desk, out, symbol, price, s.bid, s.ask, buy, sell, ts, seq)


@inner
def on_bar(desk: Desk, out: Out, b: Record) -> None:
    """A closed bar: volatility for sizing; where the symbol has no ticks, also its price and its fills."""
    s = desk.symbols[b.symbol]
    if b.bar_kind != 0 or (s.bar_interval_ns != 0 and b.interval_ns > s.bar_interval_ns):
        return
    s.bar_interval_ns = b.interval_ns
    if desk.policy[0].volatility_target > 0:
        if s.bar_close > 0.0 and b.ts_close_ns > s.bar_ts_ns:
            r = math.log(b.close / s.bar_close)
            rate = r * r * 1e9 / (b.ts_close_ns - s.bar_ts_ns)
            s.var_rate = rate if s.var_rate == 0.0 else 0.97 * s.var_rate + 0.03 * rate
        s.bar_close = b.close
        s.bar_ts_ns = b.ts_close_ns
    if s.ticks != 0:
        return
    if desk.account[0].external:
        mark(desk, b.symbol, to_units(b.close), b.ts_event_ns)
        watch(desk, out, b.symbol, to_units(b.low), to_units(b.high), b.ts_event_ns, b.seq)
        return
    if s.head >= 0:
        s.last = to_units(b.open)  # what fills in this bar is valued at its open, not at the close before
        work_bar(desk, out, b.symbol, s.last, to_units(b.high), to_units(b.low), size_units(b.volume), b.ts_close_ns,
                 b.ts_event_ns, b.seq)
    mark(desk, b.symbol, to_units(b.close), b.ts_event_ns)


@inner
def on_funding(desk: Desk, out: Out, f: Record) -> None:
    """Funding of a perpetual: every book pays rate * notional, or receives it."""
    a = desk.account[0]
    price = to_units(f.mark) if f.mark > 0.0 else desk.symbols[f.symbol].last
    rate = to_units(f.rate)
    for strategy in range(desk.books.shape[0]):
        quantity = desk.books[strategy, f.symbol].quantity
        if quantity != 0:
            paid = mul_units(mul_units(price, quantity), rate)
            a.cash -= paid
            a.equity -= paid
            a.funding += paid
            book(out, desk, f.ts_event_ns, f.seq, f.symbol, strategy, int64(FUNDING), int64(CASH), paid, int64(0))
    revalue(desk, f.symbol)  # what was received may be a new peak


@inner
def on_control(desk: Desk, out: Out, c: Record) -> None:
    """Enable, disable, reduce, halt; a halt flattens, and each but the first withdraws what would still open a position."""
    a = desk.account[0]
    a.trading_state = ACTIVE if c.command == 0 else (DISABLED if c.command == 1 else (REDUCING if c.command == 2 else HALTED))
    if a.trading_state == HALTED:
        a.flatten_due = 1
    elif a.trading_state != ACTIVE:
        withdraw_entries(desk, out, c.ts_event_ns, c.seq)


@inner
def price_units(x: float) -> int:
    """A price that may be absent (NaN) to units, 0 for none."""
    return to_units(x) if x > 0.0 else 0


@inner
def propose(desk: Desk, out: Out, g: Record, signalled: bool, ts: int, seq: int) -> None:
    """The proposals that are due: a signal's, or the desk's own: the exit of every open book where a flattening is, or of the books
    into which something came of an order that was given up. A refusal of the latter ends the matter: its row says why."""
    a = desk.account[0]
    flattening = a.flatten_due == 1
    own = flattening or a.leave_due == 1
    a.flatten_due = 0
    a.leave_due = 0
    none = int64(0)
    rows = desk.books.shape[0] if own else 1
    columns = desk.books.shape[1] if own else 1
    for i in range(rows):
        for j in range(columns):
            b = desk.books[i, j]
            leaving = False
            if own:
                leaving = b.leave == 1 and b.quantity != 0 and b.exit_pending < 0 and b.exit_sent < 0
                if not leaving and not (flattening and (b.quantity != 0 or b.entry_pending >= 0)):
                    continue
                slot = int64(OWN_SLOT) + b.own_exits
                b.own_exits += a.external
            # one call for all: the gate is large, and is compiled once for each place that calls it
            decide(desk, out, int64(i) if own else g.strategy, int64(j) if own else g.symbol, int64(2) if own else g.action,
                   int64(CAUSE_FLATTEN) if own else g.cause, slot if own else g.slot, ts if own else g.ts_open_ns,
                   none if own else g.interval_ns, none if own else price_units(g.stop), none if own else price_units(g.target),
                   none if own else price_units(g.trail), 1.0 if own else g.strength, ts, seq)
            if leaving and b.exit_pending < 0:
                b.leave = 0
    if flattening:
        withdraw_entries(desk, out, ts, seq)


@inner
def room(out: Out, reserve: int) -> bool:
    """Whether every output can take what one row may make in the worst case."""
    return (len(out.decisions) - out.n[0] > reserve and len(out.orders) - out.n[1] > 8 * reserve and len(out.fills) - out.n[2] > 4 * reserve
            and len(out.ledger) - out.n[3] > 12 * reserve and len(out.positions) - out.n[4] > 4 * reserve
            and len(out.equity) - out.n[5] > 8 and len(out.approved) - out.n[6] > 4 * reserve)


@kernel
def reduce(desk: Desk, out: Out, trades: Records, quotes: Records, bars: Records, funding: Records, beats: Records, control: Records,
           signals: Records, reports: Records, at: Records, reserve: int) -> bool:
    """Take rows in tape order from the cursors `at`; True when all were taken, False when the outputs have to be emptied first."""
    a = desk.account[0]
    no_signal = np.zeros(1, signals.dtype)[0]
    while True:
        q = quotes[at[1]].seq if at[1] < len(quotes) else END
        f = funding[at[3]].seq if at[3] < len(funding) else END
        h = beats[at[4]].seq if at[4] < len(beats) else END
        c = control[at[5]].seq if at[5] < len(control) else END
        g = signals[at[6]].seq if at[6] < len(signals) else END
        r = reports[at[7]].seq if at[7] < len(reports) else END
        if at[2] < len(bars):
            t = trades[at[0]].seq if at[0] < len(trades) else END
            before = min(min(min(t - 1, q - 1), min(f, h)), min(min(c, g), r))
            at[2] = run_bars(desk.account, desk.policy, desk.symbols, out.equity, out.n, bars, at[2], before)
        b = bars[at[2]].seq if at[2] < len(bars) else END
        first = min(min(min(q, b), min(f, h)), min(min(c, g), r))
        at[0] = run_trades(desk.account, desk.policy, desk.symbols, out.equity, out.n, trades, at[0], first)
        t = trades[at[0]].seq if at[0] < len(trades) else END
        if t == END and first == END:
            return True
        if not room(out, reserve):
            return False
        which = TRADE_I
        if t > first:
            which = (QUOTE_I if q == first else BAR_I if b == first else FUNDING_I if f == first else BEAT_I if h == first
                     else CONTROL_I if c == first else REPORT_I if r == first else SIGNAL_I)
        seq = min(t, first)
        if which == TRADE_I:
            ts = trades[at[0]].ts_event_ns
        elif which == QUOTE_I:
            ts = quotes[at[1]].ts_event_ns
        elif which == BAR_I:
            ts = bars[at[2]].ts_event_ns
        elif which == FUNDING_I:
            ts = funding[at[3]].ts_event_ns
        elif which == BEAT_I:
            ts = beats[at[4]].ts_event_ns
        elif which == CONTROL_I:
            ts = control[at[5]].ts_event_ns
        elif which == REPORT_I:
            ts = reports[at[7]].ts_event_ns
        else:
            ts = signals[at[6]].ts_event_ns
        if ts >= a.retry_at_ns:
            retry(desk, out, ts, seq)
        if ts >= a.next_time_ns:
            on_time(desk.account, desk.policy, out.equity, out.n, ts, seq)
        if which == TRADE_I or which == QUOTE_I:
            on_tick(desk, out, which == TRADE_I, trades, quotes, at, ts, seq)
        elif which == BAR_I:
            on_bar(desk, out, bars[at[2]])
        elif which == FUNDING_I:
            on_funding(desk, out, funding[at[3]])
        elif which == CONTROL_I:
            on_control(desk, out, control[at[5]])
        elif which == REPORT_I:
            on_report(desk, out, reports[at[7]], ts, seq)
        if which == SIGNAL_I or a.flatten_due == 1 or a.leave_due == 1:
            propose(desk, out, signals[at[6]] if which == SIGNAL_I else no_signal, which == SIGNAL_I, ts, seq)
        at[which] += 1
