"""The compiled loops behind `Quality`, one a table: each finds the rows to drop, and why.

A row is judged by what came before it on its table and symbol alone. State is one record a symbol for each table, the
ids of its last trades and the row numbers of its last dropped rows; nothing grows with the tape. One file, because the
compiler's cache does not see changes in functions that are called across files.
"""

from typing import Any

import numpy as np
from numba import njit

from schemas.tables import FLAG_SUSPICIOUS, NO_TRADE_ID, REJECT_REASONS, Rows

NEVER = np.iinfo(np.int64).min
BAD_SYMBOL = -1
OK = -1
(DUPLICATE, OUT_OF_ORDER, NOT_POSITIVE, NOT_FINITE, OUTLIER, CROSSED, SUSPICIOUS, EMPTY, INCONSISTENT) = range(
    len(REJECT_REASONS)
)

JUDGE = np.dtype([
    ("count", "i8"),  # rows read
    ("dropped", "i8"),  # rows dropped
    ("ts_last_ns", "i8"),  # highest event time of a row that passed
    ("key_last", "i8"),  # trades: highest id read; recorded bars: open time of the last that passed
    ("interval_last_ns", "i8"),  # recorded bars: length of the last that passed
    ("ascended", "i8"),  # trades: ids that were above all before
    ("ids", "i8"),  # trades: ids in the newer of the two sets
    ("newer", "i8"),  # trades: which set that is
    ("level", "f8"),  # robust mean of the price, 0: none yet
    ("deviation", "f8"),  # mean absolute deviation from it
    ("band", "f8"),  # a price beyond level + band is an outlier, and so is its mirror image below
    ("far_level", "f8"),  # last outlier
    ("far_count", "i8"),  # outliers near each other without a good price between
])
NEW_JUDGE = np.array((0, 0, NEVER, NEVER, 0, 0, 0, 0, 0.0, 0.0, 0.0, 0.0, 0), JUDGE)[()]
RULES = np.dtype([
    ("tolerance_ns", "i8"), ("confirm", "i8"), ("move_min", "f8"), ("deviations", "f8"), ("speed", "f8"),
    ("deviation_speed", "f8"),
])


@njit(cache=True, nogil=True, error_model="numpy")
def _is_far(price: float, level: float, band: float) -> bool:
    """Whether a price lies outside [level / (1 + x), level * (1 + x)], x = band / level, without a division."""
    return bool(price > level + band or price * (level + band) < level * level)


@njit(cache=True, nogil=True, error_model="numpy")
def _settle(s: Any, price: float, spread: float, rules: Any) -> None:
    """Let a good price move level and band: exponentially weighted mean and (bounded) absolute deviation."""
    s.far_count = 0
    s.level += rules.speed * (price - s.level)
    s.deviation += rules.deviation_speed * (min(spread, s.band) - s.deviation)
    s.band = max(rules.move_min * s.level, rules.deviations * s.deviation)


@njit(cache=True, nogil=True, error_model="numpy")
def _surprise(s: Any, price: float, rules: Any) -> bool:
    """Judge an outlier, or a first price: False drops it; the `confirm`-th in a row near the last is the new level."""
    if s.level > 0.0:
        near = s.far_count > 0 and not _is_far(price, s.far_level, rules.move_min * s.far_level)
        s.far_count = s.far_count + 1 if near else 1
        s.far_level = price
        if s.far_count < rules.confirm:
            return False
    s.far_count = 0
    s.level = price
    s.deviation = min(s.deviation, rules.move_min * price)
    s.band = max(rules.move_min * price, rules.deviations * s.deviation)
    return True


@njit(cache=True, nogil=True, error_model="numpy")
def _judge_price(s: Any, price: float, rules: Any) -> bool:
    """Whether a price is near enough to those before it; an `_surprise` confirmed is."""
    if s.level > 0.0 and not _is_far(price, s.level, s.band):
        _settle(s, price, abs(price - s.level), rules)
        return True
    return bool(_surprise(s, price, rules))


@njit(cache=True, nogil=True, error_model="numpy")
def _place(ids: Any, trade_id: int) -> int:
    """Where an id is in an open-addressing set, or the empty place where it belongs (linear probing)."""
    mask = len(ids) - 1
    at = (trade_id ^ (trade_id >> 12) ^ (trade_id >> 24)) & mask
    while ids[at] != NO_TRADE_ID and ids[at] != trade_id:
        at = (at + 1) & mask
    return at


@njit(cache=True, nogil=True, error_model="numpy")
def _in_run(s: Any, run: Any, trade_id: int) -> bool:
    """Whether an id is among the last ascending ones: a binary search, since the ring holds them in order."""
    mask = len(run) - 1
    low, high = max(0, s.ascended - len(run)), s.ascended
    while low < high:
        middle = (low + high) >> 1
        if run[middle & mask] < trade_id:
            low = middle + 1
        else:
            high = middle
    return bool(low < s.ascended and run[low & mask] == trade_id)


@njit(cache=True, nogil=True, error_model="numpy")
def _is_known(s: Any, run: Any, sets: Any, trade_id: int) -> bool:
    """Whether an id, not above all before it, is among the last; if not, remember it.

    Such ids are kept in two sets that take turns: when one is full the other is emptied, so one set's worth is known.
    """
    newer, older = sets[s.newer], sets[1 - s.newer]
    if newer[_place(newer, trade_id)] == trade_id or older[_place(older, trade_id)] == trade_id:
        return True
    if _in_run(s, run, trade_id):
        return True
    if s.ids == len(run):
        s.newer = 1 - s.newer
        s.ids = 0
        older[:] = NO_TRADE_ID
        newer = older
    newer[_place(newer, trade_id)] = trade_id
    s.ids += 1
    return False


@njit(cache=True, nogil=True, error_model="numpy")
def _drop(s: Any, lost: Any, at: int, reason: int, n: int, dropped: Any) -> int:
    """Note a dropped row, in the output and in the symbol's last dropped ones; returns the number of rows dropped."""
    lost[s.dropped % len(lost)] = s.count
    s.dropped += 1
    dropped[n, 0] = at
    dropped[n, 1] = reason
    return n + 1


@njit(cache=True, nogil=True, error_model="numpy")
def trades(rows: Rows, judges: Rows, lost: Any, runs: Any, sets: Any, rules: Rows, dropped: Any) -> int:
    """The number of trades to drop; their places and reasons are in `dropped` [rows, 2]; BAD_SYMBOL for a wrong symbol.

    judges: JUDGE [symbols]. lost: the last dropped row numbers [symbols, window]. runs: the last
    ascending ids [symbols, ids]. sets: the last others [symbols, 2, 2 * ids].
    """
    rule = rules[0]
    run_mask = runs.shape[1] - 1
    n = 0
    for at in range(len(rows)):
        r = rows[at]
        symbol, price, size = r.symbol, r.price, r.size
        if symbol < 0 or symbol >= len(judges):
            return BAD_SYMBOL
        s = judges[symbol]
        s.count += 1
        reason = OK
        if r.flags & FLAG_SUSPICIOUS:
            reason = SUSPICIOUS
        elif not (price > 0.0 and size > 0.0 and price < np.inf and size < np.inf):
            reason = NOT_POSITIVE if np.isfinite(price) and np.isfinite(size) else NOT_FINITE
        elif r.trade_id > s.key_last and r.trade_id != NO_TRADE_ID:  # above every id before: no repetition
            s.key_last = r.trade_id
            runs[symbol, s.ascended & run_mask] = r.trade_id
            s.ascended += 1
        elif r.trade_id != NO_TRADE_ID and _is_known(s, runs[symbol], sets[symbol], r.trade_id):
            reason = DUPLICATE
        if reason == OK:
            if r.ts_event_ns + rule.tolerance_ns < s.ts_last_ns:
                reason = OUT_OF_ORDER
            elif not _judge_price(s, price, rule):
                reason = OUTLIER
        if reason == OK:
            s.ts_last_ns = max(s.ts_last_ns, r.ts_event_ns)
        else:
            n = _drop(s, lost[symbol], at, reason, n, dropped)
    return n


@njit(cache=True, nogil=True, error_model="numpy")
def quotes(rows: Rows, judges: Rows, lost: Any, rules: Rows, dropped: Any) -> int:
    """The number of quotes to drop, as `trades`; the mid-price is judged, or the one side that has a value."""
    rule = rules[0]
    n = 0
    for at in range(len(rows)):
        r = rows[at]
        symbol, bid, ask = r.symbol, r.bid, r.ask
        if symbol < 0 or symbol >= len(judges):
            return BAD_SYMBOL
        s = judges[symbol]
        s.count += 1
        reason = OK
        price = (bid + ask) / 2.0 if bid > 0.0 and ask > 0.0 else max(bid, ask)
        if r.flags & FLAG_SUSPICIOUS:
            reason = SUSPICIOUS
        elif not (np.isfinite(bid) and np.isfinite(ask)) or np.isinf(r.bid_size) or np.isinf(r.ask_size):
            reason = NOT_FINITE
        elif bid < 0.0 or ask < 0.0 or r.bid_size < 0.0 or r.ask_size < 0.0:
            reason = NOT_POSITIVE
        elif price == 0.0:
            reason = EMPTY
        elif bid > ask and ask > 0.0:
            reason = CROSSED
        elif r.ts_event_ns + rule.tolerance_ns < s.ts_last_ns:
            reason = OUT_OF_ORDER
        elif not _judge_price(s, price, rule):
            reason = OUTLIER
        if reason == OK:
            s.ts_last_ns = max(s.ts_last_ns, r.ts_event_ns)
        else:
            n = _drop(s, lost[symbol], at, reason, n, dropped)
    return n


@njit(cache=True, nogil=True, error_model="numpy")
def _judge_bar(s: Any, r: Any, rules: Any) -> bool:
    """Whether open and close are near enough to the bars before, and high and low to the bar's open and close."""
    low, high = min(r.open, r.close), max(r.open, r.close)
    share = max(rules.move_min, s.band / s.level if s.level > 0.0 else 0.0)
    spiked = r.high > high * (1.0 + share) or r.low * (1.0 + share) < low
    if s.level == 0.0:
        return bool(not spiked and _surprise(s, r.close, rules))
    if spiked or _is_far(r.close, s.level, s.band) or _is_far(r.open, s.level, s.band):
        return bool(_surprise(s, r.close, rules))
    _settle(s, r.close, max(abs(r.close - s.level), r.high - r.low), rules)
    return True


@njit(cache=True, nogil=True, error_model="numpy")
def _is_timed(r: Any) -> bool:
    """Whether a recorded bar spans its interval and was known no earlier than its close."""
    return bool(r.interval_ns >= 1 and r.ts_close_ns == r.ts_open_ns + r.interval_ns and r.ts_event_ns >= r.ts_close_ns)


@njit(cache=True, nogil=True, error_model="numpy")
def recorded(rows: Rows, judges: Rows, lost: Any, rules: Rows, dropped: Any) -> int:
    """The number of recorded bars to drop, as `trades`."""
    rule = rules[0]
    n = 0
    for at in range(len(rows)):
        r = rows[at]
        symbol = r.symbol
        if symbol < 0 or symbol >= len(judges):
            return BAD_SYMBOL
        s = judges[symbol]
        s.count += 1
        reason = OK
        finite = np.isfinite(r.open) and np.isfinite(r.high) and np.isfinite(r.low) and np.isfinite(r.close)
        if not finite or not np.isfinite(r.volume):
            reason = NOT_FINITE
        elif not (r.open > 0.0 and r.high > 0.0 and r.low > 0.0 and r.close > 0.0 and r.volume >= 0.0):
            reason = NOT_POSITIVE
        elif r.high < max(r.open, r.close) or r.low > min(r.open, r.close) or not _is_timed(r):
            reason = INCONSISTENT
        elif r.ts_open_ns == s.key_last and r.interval_ns == s.interval_last_ns:
            reason = DUPLICATE
        elif r.ts_event_ns + rule.tolerance_ns < s.ts_last_ns:
            reason = OUT_OF_ORDER
        elif not _judge_bar(s, r, rule):
            reason = OUTLIER
        if reason == OK:
            s.ts_last_ns = max(s.ts_last_ns, r.ts_event_ns)
            s.key_last = r.ts_open_ns
            s.interval_last_ns = r.interval_ns
        else:
            n = _drop(s, lost[symbol], at, reason, n, dropped)
    return n
