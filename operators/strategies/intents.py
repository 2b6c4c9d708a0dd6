"""The position each strategy means to hold in each symbol, as one compiled state machine over bars.

    flat --entry--> long or short --stop | target | hold limit | exit | opposite entry--> flat [--opposite entry--> …]

On a bar in a position the first of these that applies ends it: a stop or trail that the bar's low or high touched, a
target touched, the hold limit, the exit rule, the entry rule of the opposite side. The exit wins over an entry of the
same side on the same bar; an opposite entry follows at once (slot 1) unless a cooldown is set. Both entries at once:
neither. An entry whose declared stop, target or trail is unknown or on the wrong side of the close is not taken: no
position starts without the protection that its strategy declares. Levels are set from the entry bar's close; a trail is
measured from the best price since, and moves only after the bar was checked against it.
"""

from typing import Any

import numpy as np
from numba import njit

from schemas.tables import ENTER_LONG, ENTER_SHORT, EXIT

CONFLICTS = ("independent", "first", "priority", "net")
INDEPENDENT, FIRST, PRIORITY, NET = 0, 1, 2, 3
BY_ENTRY, BY_EXIT, BY_STOP, BY_TARGET, BY_HOLD = 0, 1, 2, 3, 4
"""Codes of `signals.cause`."""
NO_CAUSE = -1

STATE = np.dtype([
    ("stop", "f8"), ("target", "f8"), ("trail", "f8"), ("best", "f8"), ("held", "i8"), ("wait", "i8"),
    ("out_seq", "i8"), ("side", "i8"),
], align=True)
"""One cell of (symbols, strategies). side: 1 long, 0 flat, -1 short. best: the trail's extreme. out_seq: seq at which a
strategy of higher priority put it out."""


@njit(cache=True, nogil=True)
def _packed(conditions: Any, condition_at: Any) -> Any:
    """(strategies, rows) of bits: the clauses that hold, 1 entry long, 2 entry short, 4 exit long, 8 exit short."""
    n = conditions.shape[1]
    bits = np.zeros((len(condition_at), n), np.uint8)
    for k in range(len(condition_at)):
        for j in range(4):
            at = condition_at[k, j]
            if at >= 0:
                for i in range(n):
                    bits[k, i] |= np.uint8(conditions[at, i]) << np.uint8(j)
    return bits


@njit(cache=True, nogil=True)
def _wanted(bits: int) -> int:
    """1: enter long, -1: enter short, 0: neither. An exit that holds on the same bar forbids its side's entry."""
    if bits & 3 == 1:
        return 0 if bits & 4 else 1
    if bits & 3 == 2:
        return 0 if bits & 8 else -1
    return 0


@njit(cache=True, nogil=True)
def _leaves(cell: Any, high: float, low: float) -> int:
    """Whether the bar touched the stop, the trail or the target; the stop wins where it touched both."""
    if cell.side > 0:
        if low <= cell.stop or low <= cell.best - cell.trail:
            return BY_STOP
        if high >= cell.target:
            return BY_TARGET
        cell.best = max(cell.best, high)
    else:
        if high >= cell.stop or high >= cell.best + cell.trail:
            return BY_STOP
        if low <= cell.target:
            return BY_TARGET
        cell.best = min(cell.best, low)
    return NO_CAUSE


@njit(cache=True, nogil=True)
def _levels(numbers: Any, at: Any, is_price: Any, k: int, i: int, side: int, close: float, levels: Any) -> bool:
    """Stop, target and trail of an entry at `close` into `levels`, NaN for none; False: one is unusable."""
    other = 0 if side > 0 else 1
    for j in range(3):
        levels[j] = np.nan
        column = at[k, 2 * j + other]
        if column < 0:
            continue
        away = numbers[column, i]
        if is_price[k, 2 * j + other]:
            away = (close - away) * side if j == 0 else (away - close) * side
        if not (away > 0.0 and away < np.inf):
            return False
        if j == 2:
            levels[j] = away
        elif is_price[k, 2 * j + other]:
            levels[j] = numbers[column, i]
        else:
            levels[j] = close - side * away if j == 0 else close + side * away
        if levels[j] <= 0.0:
            return False
    return True


@njit(cache=True, nogil=True)
def _overruled(state: Any, s: int, k: int, side: int, conflict: int, weights: Any) -> bool:
    """Whether the other strategies' positions in the symbol forbid strategy k to enter on `side`."""
    net = 0.0
    for j in range(state.shape[1]):
        if j == k:
            continue
        if state[s, j].side == -side and (conflict == FIRST or (conflict == PRIORITY and j < k)):
            return True
        net += weights[j] * state[s, j].side
    return conflict == NET and -side * net >= weights[k]


@njit(cache=True, nogil=True)
def _write(row: Any, cell: Any, symbol: int, k: int, slot: int, action: int, cause: int, strength: float) -> None:
    row.symbol = symbol
    row.strategy = k
    row.slot = slot
    row.action = action
    row.cause = cause
    row.stop = cell.stop
    row.target = cell.target
    row.trail = cell.trail
    row.strength = strength


@njit(cache=True, nogil=True)
def advance(
    strategies: Any, rows: Any, symbols: Any, seqs: Any, closes: Any, highs: Any, lows: Any, numbers: Any,
    conditions: Any, condition_at: Any, level_at: Any, level_is_price: Any, watches: Any, holds: Any, cooldowns: Any,
    conflict: int, weights: Any, state: Any, out: Any, out_rows: Any,
) -> int:
    """Run the events (strategies[e], rows[e]) in order, or every strategy on every row where `rows` is empty.

    Writes the signals to `out`, the rows that caused them to `out_rows`, and returns how many there are. seqs are read
    under the conflict rule "priority" alone; closes, highs and lows where a strategy declares a level (`watches`).
    """
    n_strategies = len(holds)
    implicit = len(rows) == 0
    n_events = len(symbols) * n_strategies if implicit else len(rows)
    clauses = _packed(conditions, condition_at)
    levels = np.empty(3)
    m = 0
    k = -1
    i = 0
    for e in range(n_events):
        if implicit:
            k += 1
            if k == n_strategies:
                k = 0
                i += 1
        else:
            k = strategies[e]
            i = rows[e]
        s = symbols[i]
        cell = state[s, k]
        bits = clauses[k, i]
        slot = 0
        wanted = 0
        if cell.side == 0:
            if conflict == PRIORITY and cell.out_seq == seqs[i]:
                continue
            if cell.wait > 0:
                cell.wait -= 1
                continue
            wanted = _wanted(bits)
            if wanted == 0:
                continue
        else:
            cell.held += 1
            cause = _leaves(cell, highs[i], lows[i]) if watches[k] else NO_CAUSE
            if cause == NO_CAUSE:
                if holds[k] > 0 and cell.held >= holds[k]:
                    cause = BY_HOLD
                elif bits & (4 if cell.side > 0 else 8):
                    cause = BY_EXIT
            opposite = _wanted(bits) == -cell.side
            if cause == NO_CAUSE:
                if not opposite:
                    continue
                cause = BY_ENTRY
            _write(out[m], cell, s, k, 0, EXIT, cause, 1.0)
            out_rows[m] = i
            m += 1
            wanted = -cell.side if opposite and cooldowns[k] == 0 else 0
            slot = 1
            cell.side = 0
            cell.wait = cooldowns[k]
            if wanted == 0:
                continue
        close = closes[i] if watches[k] else 0.0
        if not _levels(numbers, level_at, level_is_price, k, i, wanted, close, levels):
            continue
        cell.stop = levels[0]
        cell.target = levels[1]
        cell.trail = levels[2]
        overruled = conflict != INDEPENDENT and _overruled(state, s, k, wanted, conflict, weights)
        action = ENTER_LONG if wanted > 0 else ENTER_SHORT
        _write(out[m], cell, s, k, slot, action, BY_ENTRY, 0.0 if overruled else 1.0)
        out_rows[m] = i
        m += 1
        if overruled:
            continue
        cell.side = wanted
        cell.held = 0
        cell.best = close
        if conflict == PRIORITY:
            for j in range(k + 1, n_strategies):
                other = state[s, j]
                if other.side == -wanted:
                    _write(out[m], other, s, j, 0, EXIT, BY_EXIT, 1.0)
                    out_rows[m] = i
                    m += 1
                    other.side = 0
                    other.wait = cooldowns[j]
                    other.out_seq = seqs[i]
    return m
