"""`Labels`: what came true of closed bars, one symbol and interval at a time, as a state machine over bars.

A label of bar t is released by the first bar of its symbol that closes at or after t's close plus the horizon, or, for the triple barrier,
by an earlier one that touches a barrier; it carries that bar's time and tape position, so nothing is visible before it is known.

With C the close of t, E the close of the bar that releases, h the horizon in bars, and s the sample standard deviation of the last
`volatility_bars` log returns from bar to bar, t's own being the last:

    forward_return     ln(E / C)
    volatility_scaled  ln(E / C) / (s sqrt(h))
    triple_barrier     1 or -1 where a high reaches C (1 + upper s sqrt(h)) or a low reaches C (1 - lower s sqrt(h)) first, else 0
                       (Lopez de Prado 2018, Advances in Financial Machine Learning, ch. 3); a bar that reaches both: the lower

Where s is not known yet, or the price did not move, the last two have no unit: such a bar gets no label. Gaps: a return is from bar to
bar, however far apart. A label that fell due in a gap is released by the first bar after it, with that bar's close; a bar that opens
after the horizon touches no barrier. So no symbol ever has more labels waiting than a horizon has bars; the ring of a symbol grows to
that and no further, and bars that would overfill it (closer together than their interval, or out of order) are an error.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from operators.compiled import inner, kernel
from operators.state import grown
from schemas.config_models import LabelConfig
from schemas.errors import PenstockError
from schemas.rows import opaque
from schemas.tables import Rows
from schemas.tables_models import (
    FORWARD_RETURN,
    LABEL_KINDS,
    LABELS,
    T_HORIZON,
    T_LOWER,
    T_UPPER,
    TRIPLE_BARRIER,
    VOLATILITY_SCALED,
)

NEVER = np.iinfo(np.int64).min
VOLATILITY_MIN = 1e-12
"""Less is rounding: the price did not move, or always by the same factor."""
_RING_FIRST = 16
_DONE, _OUT_FULL, _RING_FULL, _OUT_OF_ORDER, _BAD_PRICE = range(5)

_HEAD = np.dtype([("ts_close_ns", "i8"), ("close", "f8"), ("returns", "i8"), ("first", "i8"), ("waiting", "i8")])
"""Of a symbol. ts_close_ns, close: of its last bar. returns: how many there were. first, waiting: the labels in its ring."""
_NEW = np.array((NEVER, np.nan, 0, 0, 0), _HEAD)[()]
_WAITING = np.dtype([("ts_open_ns", "i8"), ("due_ns", "i8"), ("ts_made_ns", "i8"), ("made_seq", "i8"), ("price", "f8"), ("scale", "f8"),
                     ("upper", "f8"), ("lower", "f8")])
"""A label that is not known yet. scale: volatility over the horizon. upper, lower: prices."""


class Labels:
    """The labels of one definition on the time bars of one interval."""

    def __init__(self, label: LabelConfig, interval_ns: int) -> None:
        self.label, self.interval_ns = label, interval_ns
        self._kind = LABEL_KINDS.index(label.kind)
        self._label_id = label.label_id
        self._waiting_max = -(-label.horizon_ns // interval_ns) + 1
        self._numbers = np.array([math.sqrt(label.horizon_ns / interval_ns), label.upper, label.lower, label.threshold])
        self._head: Rows = np.full(1, _NEW, _HEAD)
        self._ring: Rows = np.zeros((1, min(_RING_FIRST, self._waiting_max)), _WAITING)
        self._returns = np.zeros((1, 0 if self._kind == FORWARD_RETURN else label.volatility_bars))
        self._out = LABELS.empty(64)
        self._index = np.zeros(64, np.int64)

    def step(self, bars: Rows, n_symbols: int) -> tuple[Rows, npt.NDArray[np.int64]]:
        """The labels that these bars release, and which bar (its position in `bars`) released each.

        bars: time bars of this interval alone, in the order (seq, symbol). The labels that one bar releases come in the order in which
        they were made. PenstockError for bars of a symbol that are out of order or overlap, and for a close that is not above 0.
        """
        if not len(bars):
            return LABELS.empty(0), np.zeros(0, np.int64)
        if not (bars.flags.c_contiguous and bars.flags.writeable):
            bars = _copied(bars)
        self._head, self._returns = grown(self._head, n_symbols, _NEW), grown(self._returns, n_symbols)
        self._ring = grown(self._ring, n_symbols, np.zeros((), _WAITING)[()])
        cursor = np.zeros(2, np.int64)
        while True:
            status = _advance(bars, self._kind, self.label.horizon_ns, self._numbers, self._head, self._ring, self._returns, self._out,
                              self._index, cursor)
            at, n = int(cursor[0]), int(cursor[1])
            if status == _DONE:
                break
            if status == _OUT_FULL:
                room = max(2 * len(self._out), n + self._waiting_max, len(bars))
                self._out, written = LABELS.empty(room), self._out
                opaque(self._out)[:n] = opaque(written[:n])
                self._index = grown(self._index, room)
            elif status == _RING_FULL and self._ring.shape[1] < self._waiting_max:
                self._ring = _longer(self._head, self._ring, min(2 * self._ring.shape[1], self._waiting_max))
            else:
                raise PenstockError(self._wrong(status, bars[at]))
        made = _copied(self._out[:n])
        made["label_id"], made["kind"] = self._label_id, self._kind
        made["interval_ns"], made["horizon_ns"] = self.interval_ns, self.label.horizon_ns
        return made, self._index[:n].copy()

    def _wrong(self, status: int, bar: Any) -> str:
        where = f"labels: the bar of symbol {bar['symbol']} at tape position {bar['seq']}"
        if status == _BAD_PRICE:
            return f"{where} has the close {bar['close']}, which is not above 0; the quality step lets no such bar through"
        last = self._head[bar["symbol"]]["ts_close_ns"]
        return (f"{where} closes at {bar['ts_close_ns']} ns, and the one before at {last} ns: bars of an interval of {self.interval_ns} ns "
                "neither overlap nor go back")

    def snapshot(self) -> dict[str, Any]:
        return {"label_id": self._label_id, "interval_ns": self.interval_ns, "head": self._head.copy(), "ring": self._ring.copy(),
                "returns": self._returns.copy()}

    def restore(self, state: dict[str, Any]) -> None:
        if (state["label_id"], state["interval_ns"]) != (self._label_id, self.interval_ns):
            raise ValueError(f"the snapshot holds another label than {self.label} on bars of {self.interval_ns} ns")
        self._head, self._ring, self._returns = state["head"].copy(), state["ring"].copy(), state["returns"].copy()


def _copied(rows: Rows) -> Rows:
    rows = np.ascontiguousarray(rows)
    return opaque(rows).copy().view(rows.dtype)


def _longer(head: Rows, ring: Rows, length: int) -> Rows:
    """The rings with more room; what waits in each is moved to its start."""
    out = np.zeros((len(ring), length), _WAITING)
    order = (head["first"][:, None] + np.arange(ring.shape[1])) % ring.shape[1]
    out[:, :ring.shape[1]] = np.take_along_axis(ring, order, 1)
    head["first"] = 0
    return out


@inner
def _volatility(returns: Any, seen: int) -> float:
    """Sample standard deviation of a full ring, summed anew from its oldest entry, NaN while it is not full."""
    n = len(returns)
    if seen < n:
        return math.nan
    total = 0.0
    for k in range(n):
        total += returns[(seen + k) % n]
    mean = total / n
    squares = 0.0
    for k in range(n):
        squares += (returns[(seen + k) % n] - mean) ** 2
    return math.sqrt(squares / (n - 1))


@inner
def _touched(waiting: Any, bar: Any) -> int:
    """The barrier that the bar reaches, T_HORIZON for none. In a bar that reaches both nobody knows which was first: the worse one."""
    if bar.ts_open_ns >= waiting.due_ns:
        return T_HORIZON
    if bar.low <= waiting.lower:
        return T_LOWER
    if bar.high >= waiting.upper:
        return T_UPPER
    return T_HORIZON


@inner
def _write(row: Any, bar: Any, waiting: Any, kind: int, touch: int, threshold: float) -> None:
    row.ts_event_ns, row.seq, row.symbol = bar.ts_event_ns, bar.seq, bar.symbol
    row.ts_open_ns, row.ts_made_ns, row.made_seq = waiting.ts_open_ns, waiting.ts_made_ns, waiting.made_seq
    row.price, row.price_end, row.touch = waiting.price, bar.close, touch
    if kind == TRIPLE_BARRIER:
        row.value = 1.0 if touch == T_UPPER else -1.0 if touch == T_LOWER else 0.0
    else:
        row.value = math.log(bar.close / waiting.price)
        if kind == VOLATILITY_SCALED:
            row.value /= waiting.scale
    row.up = 1 if row.value > threshold else 0


@inner
def _release(bar: Any, i: int, kind: int, threshold: float, h: Any, ring: Any, out: Any, index: Any, n: int) -> int:
    """Write the labels that the bar makes known and take them from the ring; how many are written in all."""
    size = len(ring)
    kept = 0
    for k in range(h.waiting):
        waiting = ring[(h.first + k) % size]
        touch = _touched(waiting, bar) if kind == TRIPLE_BARRIER else T_HORIZON
        if touch != T_HORIZON or waiting.due_ns <= bar.ts_close_ns:
            _write(out[n], bar, waiting, kind, touch, threshold)
            index[n] = i
            n += 1
        else:
            if kind != TRIPLE_BARRIER:  # the others are due later still
                h.first = (h.first + k) % size
                h.waiting -= k
                return n
            if kept != k:
                ring[(h.first + kept) % size] = waiting
            kept += 1
    h.waiting = kept
    return n


@kernel
def _advance(bars: Any, kind: int, horizon_ns: int, numbers: Any, head: Any, ring: Any, returns: Any, out: Any, index: Any,
             cursor: Any) -> int:
    """Bars from cursor[0] on; labels go to `out` from cursor[1] on. Stops before a bar for which something is missing."""
    root_bars, upper, lower, threshold = numbers
    n = cursor[1]
    for i in range(cursor[0], len(bars)):
        bar = bars[i]
        s = bar.symbol
        h = head[s]
        cursor[0], cursor[1] = i, n
        if bar.ts_close_ns <= h.ts_close_ns:
            return _OUT_OF_ORDER
        if not (bar.close > 0.0 and bar.close < math.inf):
            return _BAD_PRICE
        if n + h.waiting > len(out):
            return _OUT_FULL
        if h.waiting == ring.shape[1]:
            return _RING_FULL
        n = _release(bar, i, kind, threshold, h, ring[s], out, index, n)
        scale = math.nan
        if kind != FORWARD_RETURN:
            if h.ts_close_ns != NEVER:
                returns[s, h.returns % returns.shape[1]] = math.log(bar.close / h.close)
                h.returns += 1
            volatility = _volatility(returns[s], h.returns)
            if volatility > VOLATILITY_MIN:
                scale = volatility * root_bars
        h.ts_close_ns, h.close = bar.ts_close_ns, bar.close
        if kind == FORWARD_RETURN or scale > 0.0:
            new = ring[s, (h.first + h.waiting) % ring.shape[1]]
            new.ts_open_ns, new.due_ns = bar.ts_open_ns, bar.ts_close_ns + horizon_ns
            new.ts_made_ns, new.made_seq, new.price = bar.ts_event_ns, bar.seq, bar.close
            new.scale, new.upper, new.lower = scale, bar.close * (1.0 + upper * scale), bar.close * (1.0 - lower * scale)
            h.waiting += 1
    cursor[0], cursor[1] = len(bars), n
    return _DONE
