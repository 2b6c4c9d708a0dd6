"""The quiet stretches of the tape: rows that move a price and nothing else, and what the passing of time does.

Almost every row of a replay is one of these, so its speed hangs on these loops. They stop before the first row that needs more.
"""

from operators.compiled import inner
from operators.desk.state import EQUITY_N, Records
from schemas.money import mul_units, to_units

DAY_NS = 86_400_000_000_000


@inner
def on_time(account: Records, policy: Records, equity: Records, n: Records, ts: int, seq: int) -> None:
    """Event time has passed a boundary: sample equity, begin the day and the week (Mondays, UTC)."""
    a = account[0]
    if ts >= a.next_sample_ns:
        row = equity[n[EQUITY_N]]
        n[EQUITY_N] += 1
        row.ts_event_ns = ts
        row.seq = seq
        row.symbol = -1
        row.equity = a.equity
        row.cash = a.cash
        row.exposure = a.exposure
        row.realised = a.realised
        row.fees = a.fees
        row.funding = a.funding
        row.drawdown = a.peak - a.equity
        row.positions = a.positions
        row.trading_state = a.trading_state
        interval = policy[0].equity_interval
        a.next_sample_ns = (ts // interval + 1) * interval
    if ts >= a.next_day_ns:
        a.next_day_ns = (ts // DAY_NS + 1) * DAY_NS
        a.day_start_equity = a.equity
        a.entries_today = 0
    if ts >= a.next_week_ns:
        day = ts // DAY_NS
        a.next_week_ns = (day - (day + 3) % 7 + 7) * DAY_NS
        a.week_start_equity = a.equity
    a.next_time_ns = min(min(a.next_sample_ns, a.retry_at_ns), min(a.next_day_ns, a.next_week_ns))


@inner
def run_trades(account: Records, policy: Records, symbols: Records, equity: Records, n_out: Records, trades: Records, i: int,
               until: int) -> int:
    """The common case: trades that only move a price. Stops at the first that needs more, or that lies beyond `until`.

    What `mark` of the reducer does is written out here.
    """
    a = account[0]
    next_time = a.next_time_ns
    n = len(trades)
    while i < n:
        t = trades[i]
        if t.seq > until:
            break
        s = symbols[t.symbol]
        price = to_units(t.price)
        if s.head >= 0 and (price <= s.act_below or price >= s.act_above):
            break
        if t.ts_event_ns >= next_time:
            if len(equity) - n_out[EQUITY_N] <= 8 or t.ts_event_ns >= a.retry_at_ns:
                break
            on_time(account, policy, equity, n_out, t.ts_event_ns, t.seq)
            next_time = a.next_time_ns
        if s.net != 0:
            value = mul_units(price, s.net)
            worth = a.equity + value - s.value
            if worth < a.halt_below:
                break
            a.equity = worth
            a.exposure += abs(value) - abs(s.value)
            s.value = value
            if worth > a.peak:
                a.peak = worth
                a.halt_below = worth - mul_units(worth, policy[0].drawdown_halt)
        s.ticks = 1
        s.last = price
        s.ts_last_ns = t.ts_event_ns
        i += 1
    return i


@inner
def run_bars(account: Records, policy: Records, symbols: Records, equity: Records, n_out: Records, bars: Records, i: int,
             until: int) -> int:
    """The common case of bars alone: those that only move a price, taken like the trades of `run_trades`."""
    a = account[0]
    next_time = a.next_time_ns
    volatility = policy[0].volatility_target > 0
    n = len(bars)
    while i < n:
        b = bars[i]
        if b.seq > until or volatility or b.bar_kind != 0:
            break
        s = symbols[b.symbol]
        if s.ticks != 0 or b.interval_ns != s.bar_interval_ns:
            break
        if s.head >= 0 and (to_units(b.low) <= s.act_below or to_units(b.high) >= s.act_above):
            break
        price = to_units(b.close)
        if b.ts_event_ns >= next_time:
            if len(equity) - n_out[EQUITY_N] <= 8 or b.ts_event_ns >= a.retry_at_ns:
                break
            on_time(account, policy, equity, n_out, b.ts_event_ns, b.seq)
            next_time = a.next_time_ns
        if s.net != 0:
            value = mul_units(price, s.net)
            worth = a.equity + value - s.value
            if worth < a.halt_below:
                break
            a.equity = worth
            a.exposure += abs(value) - abs(s.value)
            s.value = value
            if worth > a.peak:
                a.peak = worth
                a.halt_below = worth - mul_units(worth, policy[0].drawdown_halt)
        s.last = price
        s.ts_last_ns = b.ts_event_ns
        i += 1
    return i
