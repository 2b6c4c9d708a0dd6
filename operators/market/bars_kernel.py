"""The compiled loops behind `Bars`: one pass over trades, quotes, recorded bars and beats, merged by `seq`.

A bar that closed never reopens: once a row or a beat has shown that the shortest interval of its symbol is over, an
older row is late. State is two record arrays, `head` (one a symbol) and `slots` (symbol × kind of bar); a loop that
runs out of room for output returns where it stands, and continues from there. One file, because the compiler's cache
does not see changes in functions that are called across files.
"""

from typing import Any

import numpy as np
from numba import njit

from schemas.tables import BUY, NO_SIDE, Rows

NEVER = np.iinfo(np.int64).min
FOREVER = np.iinfo(np.int64).max
NAN_BITS = 0x7FF8000000000000
"""What NumPy's NaN is as an integer."""
DONE, OUT_FULL, LATE_FULL, BAD_SYMBOL = 0, 1, 2, 3
AT_TRADE, AT_RECORDED, AT_QUOTE, AT_BEAT, N_BARS, N_LATE, ROOM = range(7)
"""Places in the cursor: the next row of each table, the rows written, the room for bars that the next row may need."""
TIME, TICK, VOLUME, DOLLAR = range(4)
"""Codes of `bar_kind`."""

HEAD = np.dtype([
    ("seen", "i8"),  # a row of the symbol has been read: beats concern it
    ("traded", "i8"),  # a trade or a recorded bar has been read: quotes make no bars
    ("late_before_ns", "i8"),  # an older row is late
    ("next_ns", "i8"),  # before this time a quote or a beat closes nothing
    ("trade_next_ns", "i8"),  # before this time a trade closes and opens nothing
    ("frontier_ns", "i8"),  # highest event time read
    ("trade_last_ns", "i8"),  # highest event time of a trade
    ("recorded_ns", "i8"),  # shortest interval of its recorded bars, 0: none
    ("recorded_until_ns", "i8"),  # their last close
    ("grace_ns", "i8"),  # its last row was a recorded bar of this length, 0: a trade
    ("bid", "f8"), ("ask", "f8"), ("bid_size", "f8"), ("ask_size", "f8"),
])
NEW_HEAD = np.array(
    (0, 0, NEVER, NEVER, NEVER, NEVER, NEVER, 0, NEVER, 0, np.nan, np.nan, np.nan, np.nan), HEAD
)[()]

SLOT = np.dtype([
    ("open_now", "i8"), ("ts_open_ns", "i8"), ("ts_close_ns", "i8"), ("ts_closed_ns", "i8"), ("gap", "i8"),
    ("open", "f8"), ("high", "f8"), ("low", "f8"), ("close", "f8"), ("volume", "f8"), ("notional", "f8"),
    ("buy_volume", "f8"), ("trades", "i8"), ("first_seq", "i8"), ("last_seq", "i8"), ("ts_first_ns", "i8"),
    ("ts_last_ns", "i8"),
])
"""One unfinished bar; `ts_closed_ns` is where the bar before it ended."""
NEW_SLOT = np.array((0, 0, 0, NEVER, *(0,) * 13), SLOT)[()]


@njit(cache=True, nogil=True, error_model="numpy")
def _emit(out: Rows, n: int, b: Any, h: Any, ts: int, seq: int, symbol: int, kind: int, length: int) -> int:
    """Write the bar `b`, closed by the row at (`ts`, `seq`); returns the number of bars written."""
    o = out[n]
    o.ts_event_ns = ts
    o.seq = seq
    o.symbol = symbol
    o.bar_kind = kind
    o.interval_ns = length
    o.ts_open_ns = b.ts_open_ns
    o.ts_close_ns = b.ts_close_ns
    o.open = b.open
    o.high = b.high
    o.low = b.low
    o.close = b.close
    o.volume = b.volume
    o.notional = b.notional
    o.vwap = b.notional / b.volume if b.volume > 0.0 else b.close
    o.trades = b.trades
    o.buy_volume = b.buy_volume
    o.bid = h.bid
    o.ask = h.ask
    o.bid_size = h.bid_size
    o.ask_size = h.ask_size
    o.gap = b.gap
    o.first_seq = b.first_seq
    o.last_seq = b.last_seq
    o.ts_first_ns = b.ts_first_ns
    o.ts_last_ns = b.ts_last_ns
    b.open_now = 0
    return n + 1


@njit(cache=True, nogil=True, error_model="numpy")
def _start(b: Any, ts_open: int, length: int, price: float, ts: int, seq: int) -> None:
    """Open a bar without volume at `price`; a `length` of 0 means that time does not close it."""
    b.open_now = 1
    b.ts_open_ns = ts_open
    b.ts_close_ns = ts_open + length
    b.gap = 0
    if length > 0 and b.ts_closed_ns != NEVER and ts_open > b.ts_closed_ns:
        b.gap = (ts_open - b.ts_closed_ns) // length
    b.open = price
    b.high = price
    b.low = price
    b.close = price
    b.volume = 0.0
    b.notional = 0.0
    b.buy_volume = 0.0
    b.trades = 0
    b.first_seq = seq
    b.last_seq = seq
    b.ts_first_ns = ts
    b.ts_last_ns = ts


@njit(cache=True, nogil=True, error_model="numpy")
def _late(late: Rows, m: int, h: Any, ts: int, seq: int, symbol: int, price: float, size: float) -> int:
    """Write a late row; returns the number of late rows written."""
    o = late[m]
    o.ts_event_ns = ts
    o.seq = seq
    o.symbol = symbol
    o.frontier_ns = max(h.frontier_ns, h.late_before_ns)
    o.price = price
    o.size = size
    return m + 1


@njit(cache=True, nogil=True, error_model="numpy")
def _roll(h: Any, slots: Any, symbol: int, lengths: Any, n_time: int, ts: int, seq: int, out: Rows, n: int) -> int:
    """Close the time bars of a symbol that ended by `ts`; returns the number of bars written.

    After a recorded bar, bars close one recording later: the recorded bar that completes them may still be on its way.
    """
    grace = h.grace_ns
    late_before = h.late_before_ns
    next_ns = FOREVER
    for k in range(n_time):
        b = slots[symbol, k]
        length = lengths[k]
        if b.open_now == 1 and b.ts_close_ns <= ts - grace:
            n = _emit(out, n, b, h, ts, seq, symbol, TIME, length)
            b.ts_closed_ns = b.ts_close_ns
            late_before = max(late_before, b.ts_close_ns)
        if grace == 0:
            start = ts // length * length
            late_before = max(late_before, start)
            next_ns = min(next_ns, start + length)
        elif b.open_now == 1:
            next_ns = min(next_ns, b.ts_close_ns + grace)
    h.late_before_ns = late_before
    h.next_ns = next_ns
    h.trade_next_ns = NEVER
    return n


@njit(cache=True, nogil=True, error_model="numpy")
def _open_slots(h: Any, slots: Any, symbol: int, lengths: Any, n_time: int, r: Any) -> None:
    """Open every bar of a symbol that is not; its first trade ends the bars made of quotes."""
    for k in range(slots.shape[1]):
        b = slots[symbol, k]
        if h.traded == 0:
            b.open_now = 0
        if b.open_now == 0:
            length = lengths[k] if k < n_time else 0
            start = r.ts_event_ns // length * length if k < n_time else r.ts_event_ns
            _start(b, start, length, r.price, r.ts_event_ns, r.seq)
    h.traded = 1
    h.seen = 1
    h.trade_next_ns = h.next_ns


@njit(cache=True, nogil=True, error_model="numpy")
def _close_counted(
    h: Any, slots: Any, symbol: int, kinds: Any, lengths: Any, limits: Any, n_time: int, r: Any, out: Rows, n: int
) -> int:
    """Close the tick, volume and dollar bars that the trade `r` has filled; returns the number of bars written."""
    for k in range(n_time, slots.shape[1]):
        b = slots[symbol, k]
        kind = kinds[k]
        filled = float(b.trades) if kind == TICK else (b.volume if kind == VOLUME else b.notional)
        if filled >= limits[k]:
            b.ts_close_ns = r.ts_event_ns
            n = _emit(out, n, b, h, r.ts_event_ns, r.seq, symbol, kind, lengths[k])
            h.trade_next_ns = NEVER
    return n


@njit(cache=True, nogil=True, error_model="numpy")
def _trades(
    rows: Rows, cursor: Any, bound: int, head: Any, slots: Any, kinds: Any, lengths: Any, limits: Any, n_time: int,
    out: Rows, late: Rows,
) -> int:
    """Read trades up to tape position `bound`."""
    i, n, m = cursor[AT_TRADE], cursor[N_BARS], cursor[N_LATE]
    n_slots = slots.shape[1]
    status = DONE
    while i < len(rows):
        r = rows[i]
        symbol, ts, price, size = r.symbol, r.ts_event_ns, r.price, r.size
        if r.seq > bound:
            break
        if symbol < 0 or symbol >= len(head):
            status = BAD_SYMBOL
            break
        h = head[symbol]
        if ts < h.late_before_ns:
            if m == len(late):
                status = LATE_FULL
                break
            m = _late(late, m, h, ts, r.seq, symbol, price, size)
            i += 1
            continue
        if (ts >= h.trade_next_ns or n_time < n_slots) and n + 2 * n_slots > len(out):
            cursor[ROOM] = 2 * n_slots
            status = OUT_FULL
            break
        if ts >= h.trade_next_ns:
            h.grace_ns = 0
            n = _roll(h, slots, symbol, lengths, n_time, ts, r.seq, out, n)
            _open_slots(h, slots, symbol, lengths, n_time, r)
        value = price * size
        bought = size if r.side == BUY else (np.nan if r.side == NO_SIDE else 0.0)
        for k in range(n_slots):
            b = slots[symbol, k]
            if price > b.high:  # a branch seldom taken is quicker than a maximum that is always stored
                b.high = price
            elif price < b.low:
                b.low = price
            b.close = price
            b.volume += size
            b.notional += value
            b.buy_volume += bought
            b.trades += 1
            b.last_seq = r.seq
            b.ts_last_ns = ts
        h.trade_last_ns = max(h.trade_last_ns, ts)
        h.frontier_ns = max(h.frontier_ns, ts)
        if n_time < n_slots:
            n = _close_counted(h, slots, symbol, kinds, lengths, limits, n_time, r, out, n)
        i += 1
    cursor[AT_TRADE], cursor[N_BARS], cursor[N_LATE] = i, n, m
    return status


@njit(cache=True, nogil=True, error_model="numpy")
def _quote(r: Any, cursor: Any, head: Any, slots: Any, lengths: Any, n_time: int, out: Rows, late: Rows) -> None:
    """Read one quote; there is room for what it may write."""
    ts, symbol = r.ts_event_ns, r.symbol
    h = head[symbol]
    if ts < h.late_before_ns:
        price = r.bid if r.ask <= 0.0 else (r.ask if r.bid <= 0.0 else (r.bid + r.ask) / 2.0)
        cursor[N_LATE] = _late(late, cursor[N_LATE], h, ts, r.seq, symbol, price, 0.0)
        return
    if ts >= h.next_ns:
        cursor[N_BARS] = _roll(h, slots, symbol, lengths, n_time, ts, r.seq, out, cursor[N_BARS])
    h.seen = 1
    h.frontier_ns = max(h.frontier_ns, ts)
    if r.bid > 0.0:  # zero says nothing about a side: its last value stands
        h.bid = r.bid
        h.bid_size = r.bid_size
    if r.ask > 0.0:
        h.ask = r.ask
        h.ask_size = r.ask_size
    mid = (h.bid + h.ask) / 2.0
    if h.traded == 1 or np.isnan(mid):
        return
    for k in range(n_time):
        b = slots[symbol, k]
        if b.open_now == 0:
            _start(b, ts // lengths[k] * lengths[k], lengths[k], mid, ts, r.seq)
        b.high = max(b.high, mid)
        b.low = min(b.low, mid)
        b.close = mid
        b.last_seq = r.seq
        b.ts_last_ns = ts


@njit(cache=True, nogil=True, error_model="numpy")
def _is_late(r: Any, h: Any, slots: Any, lengths: Any, n_time: int) -> bool:
    """Whether a recorded bar overlaps trades, repeats a recorded bar, or belongs to a bar that closed."""
    length = r.interval_ns
    if h.recorded_ns > 0 and length > h.recorded_ns:
        late = False
        for k in range(n_time):
            late = late or (lengths[k] == length and r.ts_close_ns <= slots[r.symbol, k].ts_closed_ns)
        return late
    if r.ts_close_ns <= h.recorded_until_ns or r.ts_open_ns <= h.trade_last_ns:
        return True
    for k in range(n_time):
        if lengths[k] > length and lengths[k] % length == 0 and r.ts_open_ns < slots[r.symbol, k].ts_closed_ns:
            return True
    return False


@njit(cache=True, nogil=True, error_model="numpy")
def _merge(b: Any, r: Any, length: int) -> None:
    """Add a recorded bar to a longer bar, which it may open."""
    if b.open_now == 0:
        _start(b, r.ts_open_ns // length * length, length, r.open, r.ts_event_ns, r.seq)
    b.high = max(b.high, r.high)
    b.low = min(b.low, r.low)
    b.close = r.close
    b.volume += r.volume
    b.notional += r.notional
    b.buy_volume += r.buy_volume
    b.trades += r.trades
    b.last_seq = r.seq
    b.ts_last_ns = r.ts_event_ns


@njit(cache=True, nogil=True, error_model="numpy")
def _pass(r: Any, h: Any, ts_closed: int, out: Rows, n: int) -> int:
    """Write a recorded bar as it is, with its gap and the quote that stands; returns the number of bars written."""
    out[n] = r
    o = out[n]
    o.first_seq = r.seq
    o.last_seq = r.seq
    if ts_closed != NEVER:
        o.gap = max(0, (r.ts_open_ns - ts_closed) // r.interval_ns)
    if np.isnan(o.bid):
        o.bid = h.bid
        o.bid_size = h.bid_size
    if np.isnan(o.ask):
        o.ask = h.ask
        o.ask_size = h.ask_size
    return n + 1


@njit(cache=True, nogil=True, error_model="numpy")
def _recorded(r: Any, cursor: Any, head: Any, slots: Any, lengths: Any, n_time: int, out: Rows, late: Rows) -> None:
    """Read one recorded bar; there is room for what it may write. A symbol's shortest recording aggregates upward."""
    symbol, ts, seq, length = r.symbol, r.ts_event_ns, r.seq, max(1, r.interval_ns)
    h = head[symbol]
    if r.interval_ns < 1 or _is_late(r, h, slots, lengths, n_time):
        cursor[N_LATE] = _late(late, cursor[N_LATE], h, ts, seq, symbol, r.close, r.volume)
        return
    n = cursor[N_BARS]
    shortest = h.recorded_ns == 0 or length <= h.recorded_ns
    ts_closed = h.recorded_until_ns if length == h.recorded_ns else NEVER
    passed = False
    for k in range(n_time):
        b = slots[symbol, k]
        if not passed and lengths[k] > length:
            n = _pass(r, h, ts_closed, out, n)
            passed = True
        fed = shortest and lengths[k] > length and lengths[k] % length == 0
        over = b.open_now == 1 and b.ts_close_ns <= (r.ts_open_ns if fed else ts)
        if over and (shortest or lengths[k] != length):
            n = _emit(out, n, b, h, ts, seq, symbol, TIME, lengths[k])
            b.ts_closed_ns = b.ts_close_ns
        if h.traded == 0:
            b.open_now = 0  # a bar made of quotes, which recorded bars replace
        if lengths[k] == length:
            ts_closed = max(ts_closed, b.ts_closed_ns)
            b.open_now = 0  # the recording itself holds this bar
            b.ts_closed_ns = r.ts_close_ns
        elif fed:
            _merge(b, r, lengths[k])
            if b.ts_close_ns <= r.ts_close_ns:
                n = _emit(out, n, b, h, ts, seq, symbol, TIME, lengths[k])
                b.ts_closed_ns = b.ts_close_ns
    if not passed:
        n = _pass(r, h, ts_closed, out, n)
    cursor[N_BARS] = n
    h.traded = 1
    h.seen = 1
    h.next_ns = NEVER
    h.trade_next_ns = NEVER
    h.frontier_ns = max(h.frontier_ns, ts)
    if shortest:
        h.recorded_ns = length
        h.recorded_until_ns = r.ts_close_ns
        h.grace_ns = length
        h.late_before_ns = max(h.late_before_ns, r.ts_close_ns)


@njit(cache=True, nogil=True, error_model="numpy")
def unchanged(rows: Rows, words: Any, bid_at: int, head: Any, slots: Any, length: int) -> int:
    """Read recorded bars of the one interval that is made, as `_recorded` would, while what it would write is the row.

    words: the same rows as int64 [rows, fields], where `bid_at` is the first of the four quote fields. Returns how many
    rows were read; the first that needs more is left to `run`, with the state as if the rows before had gone there.
    """
    for i in range(len(rows)):
        r = rows[i]
        symbol, ts_open, ts_close = r.symbol, r.ts_open_ns, r.ts_close_ns
        if symbol < 0 or symbol >= len(head) or r.interval_ns != length or r.first_seq != r.seq or r.last_seq != r.seq:
            return i
        h = head[symbol]
        b = slots[symbol, 0]
        if b.open_now == 1 or (h.recorded_ns != length and h.recorded_ns != 0) or not (np.isnan(h.bid) and np.isnan(h.ask)):
            return i
        if ts_close <= h.recorded_until_ns or ts_open <= h.trade_last_ns:
            return i
        ts_closed = max(h.recorded_until_ns, b.ts_closed_ns)
        if ts_closed != NEVER and r.gap != max(0, (ts_open - ts_closed) // length):
            return i
        for k in range(bid_at, bid_at + 4):
            if words[i, k] != NAN_BITS:
                return i
        b.ts_closed_ns = ts_close
        h.traded = 1
        h.seen = 1
        h.next_ns = NEVER
        h.trade_next_ns = NEVER
        h.frontier_ns = max(h.frontier_ns, r.ts_event_ns)
        h.recorded_ns = length
        h.recorded_until_ns = ts_close
        h.grace_ns = length
        h.late_before_ns = max(h.late_before_ns, ts_close)
    return len(rows)


@njit(cache=True, nogil=True, error_model="numpy")
def _beat(r: Any, cursor: Any, head: Any, slots: Any, lengths: Any, n_time: int, out: Rows) -> None:
    """Read one beat; there is room for what it may write."""
    ts, n = r.ts_event_ns, cursor[N_BARS]
    first, last = (0, len(head)) if r.symbol < 0 else (r.symbol, r.symbol + 1)
    for symbol in range(first, last):
        h = head[symbol]
        if h.seen == 1:
            if ts >= h.next_ns:
                n = _roll(h, slots, symbol, lengths, n_time, ts, r.seq, out, n)
            h.frontier_ns = max(h.frontier_ns, ts)
    cursor[N_BARS] = n


@njit(cache=True, nogil=True, error_model="numpy")
def run(
    trades: Rows, recorded: Rows, quotes: Rows, beats: Rows, cursor: Any, head: Any, slots: Any, kinds: Any,
    lengths: Any, limits: Any, n_time: int, out: Rows, late: Rows,
) -> int:
    """Read the four tables from the cursor on, in the order of `seq`; DONE, or why it stopped at the cursor.

    head: HEAD [symbols]. slots: SLOT [symbols, kinds of bar], the time bars first. kinds, lengths (`interval_ns`) and
    limits (what fills the bar) of the slots. On equal `seq`: trade, recorded bar, quote, beat.
    """
    n_symbols = len(head)
    while True:
        i, j, k = cursor[AT_RECORDED], cursor[AT_QUOTE], cursor[AT_BEAT]
        at_recorded = recorded[i].seq if i < len(recorded) else FOREVER
        at_quote = quotes[j].seq if j < len(quotes) else FOREVER
        at_beat = beats[k].seq if k < len(beats) else FOREVER
        if cursor[AT_TRADE] < len(trades):
            bound = min(at_recorded, min(at_quote, at_beat))
            status = _trades(trades, cursor, bound, head, slots, kinds, lengths, limits, n_time, out, late)
            if status != DONE:
                return int(status)
        if i == len(recorded) and j == len(quotes) and k == len(beats):
            return DONE
        is_recorded = i < len(recorded) and at_recorded <= at_quote and at_recorded <= at_beat
        is_quote = not is_recorded and j < len(quotes) and at_quote <= at_beat
        if is_recorded:
            symbol = recorded[i].symbol
        elif is_quote:
            symbol = quotes[j].symbol
        else:
            symbol = beats[k].symbol
        if symbol >= n_symbols or (symbol < 0 and (is_recorded or is_quote)):
            return BAD_SYMBOL
        room = 2 * n_time + 1 if symbol >= 0 else n_symbols * n_time
        if cursor[N_BARS] + room > len(out):
            cursor[ROOM] = room
            return OUT_FULL
        if cursor[N_LATE] == len(late):
            return LATE_FULL
        if is_recorded:
            _recorded(recorded[i], cursor, head, slots, lengths, n_time, out, late)
            cursor[AT_RECORDED] = i + 1
        elif is_quote:
            _quote(quotes[j], cursor, head, slots, lengths, n_time, out, late)
            cursor[AT_QUOTE] = j + 1
        else:
            _beat(beats[k], cursor, head, slots, lengths, n_time, out)
            cursor[AT_BEAT] = k + 1
