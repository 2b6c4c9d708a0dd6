"""`Bars`: clean trades, quotes and recorded bars become closed bars: by time, ticks, volume and dollars.

A bar is written once, when a row or a beat shows that it is over, and carries that row's time and tape position; empty
intervals are counted in `gap`, never filled; rows that come after their bar has closed go to `late`; the end of the
input closes nothing. Time bars start at multiples of their interval since 1970 UTC; a trade on the boundary belongs to
the next bar. Bars come in the order of the row that caused them, then symbol, kind and length; the tables must each be
in the order of `seq`, and are read merged by it.

Recorded bars pass through at their own interval and aggregate into the configured intervals that are multiples of it;
for other intervals a recording gives no bars (`check_recorded` says so beforehand). A recorded bar that overlaps trades
already read, or comes again, is late, and so is a trade that a recorded bar covers. A longer bar closes when the
recorded bar that completes it arrives, or any that opens after it; quotes and beats close it one recording later.
Where a symbol shows trades or recorded bars, quotes only set the bid and ask of its bars; where it shows quotes alone,
bars are made of the mid-price. A tick, volume or dollar bar ends with the trade that fills it, at that trade's time.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from operators.market import bars_kernel as kernel
from operators.state import grown
from schemas.errors import UserError
from schemas.frame import Frame
from schemas.money import UNITS
from schemas.rows import copied, opaque
from schemas.tables import BARS, BEATS, LATE, QUOTES, RECORDED, TRADES, Rows, TableSpec

SECOND_NS = 1_000_000_000
MINUTE_NS = 60 * SECOND_NS
DAY_NS = 86_400 * SECOND_NS
SLOTS_MAX = 64
"""Kinds of bar in one pass."""
AMOUNT_MAX = 9e10
"""Volume and dollar bars keep their size in `interval_ns`, in units of 1e-8."""


@dataclass(frozen=True)
class BarsConfig:
    """Which bars to make.

    intervals_ns: lengths of time bars, 1 s to 1 day. tick_bars: trades a bar. volume_bars: base units a bar.
    dollar_bars: quote units a bar. A trade that fills a bar belongs to it whole.
    """

    intervals_ns: tuple[int, ...] = (MINUTE_NS,)
    tick_bars: tuple[int, ...] = ()
    volume_bars: tuple[float, ...] = ()
    dollar_bars: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        groups: tuple[tuple[str, tuple[Any, ...], float, float, str], ...] = (
            ("intervals_ns", self.intervals_ns, SECOND_NS, DAY_NS, "whole ns from 1e9 (1 s) to 8.64e13 (1 day)"),
            ("tick_bars", self.tick_bars, 1, 10**9, "a whole number of trades from 1 to 1e9"),
            ("volume_bars", self.volume_bars, 1e-8, AMOUNT_MAX, "base units from 1e-8 to 9e10"),
            ("dollar_bars", self.dollar_bars, 1e-8, AMOUNT_MAX, "quote units from 1e-8 to 9e10"),
        )
        for name, values, low, high, what in groups:
            whole = name in ("intervals_ns", "tick_bars")
            for value in values:
                known = isinstance(value, (int, np.integer)) if whole else isinstance(value, (int, float, np.number))
                if not known or isinstance(value, bool) or not low <= value <= high:
                    raise UserError(f'bars.{name}: "{value}" is out of bounds; write {what}')
            if len(set(values)) < len(values):
                raise UserError(f"bars.{name}: {values} names a bar twice; name each once")
        count = sum(len(values) for _, values, _, _, _ in groups)
        if count == 0:
            raise UserError("bars: no bar is configured; name at least one interval, such as 60000000000 (1 minute)")
        if count > SLOTS_MAX:
            raise UserError(f"bars: {count} kinds of bar are configured; at most {SLOTS_MAX} are made in one pass")


def check_recorded(config: BarsConfig, recorded_ns: int) -> None:
    """UserError where a recording of bars of `recorded_ns` cannot give a configured interval."""
    for interval_ns in config.intervals_ns:
        if interval_ns % recorded_ns:
            raise UserError(
                f"bars of {interval_ns / SECOND_NS:g} s cannot be made from recorded bars of "
                f"{recorded_ns / SECOND_NS:g} s; choose a multiple of {recorded_ns / SECOND_NS:g} s or replay trades"
            )
    if config.tick_bars or config.volume_bars or config.dollar_bars:
        raise UserError("tick, volume and dollar bars cannot be made from recorded bars; replay trades or omit them")


class Bars:
    """The operator: reads `trades`, `quotes`, `recorded`, `beats`; writes `bars` and `late`."""

    name = "bars"

    def __init__(self, config: BarsConfig | None = None) -> None:
        self.config = config or BarsConfig()
        groups: tuple[tuple[Any, ...], ...] = (
            self.config.intervals_ns, self.config.tick_bars, self.config.volume_bars, self.config.dollar_bars
        )
        shape = [(kind, value) for kind, values in enumerate(groups) for value in sorted(values)]
        self._kinds = np.array([kind for kind, _ in shape], np.int64)
        self._lengths = np.array([v if kind <= kernel.TICK else round(v * UNITS) for kind, v in shape], np.int64)
        self._limits = np.array([float(value) for _, value in shape], np.float64)
        self._n_time = len(self.config.intervals_ns)
        self._head: Rows = np.empty(0, kernel.HEAD)
        self._slots: Rows = np.empty((0, len(shape)), kernel.SLOT)
        self._out = BARS.empty(256)
        self._late = LATE.empty(16)
        self._cursor = np.zeros(7, np.int64)
        self._none = {spec.name: spec.empty(0) for spec in (TRADES, RECORDED, QUOTES, BEATS)}

    def step(self, frame: Frame) -> Frame:
        trades, recorded = self._input(frame, TRADES), self._input(frame, RECORDED)
        quotes, beats = self._input(frame, QUOTES), self._input(frame, BEATS)
        if not (len(trades) or len(recorded) or len(quotes) or len(beats)):
            return frame
        self._head = grown(self._head, len(frame.symbols), kernel.NEW_HEAD)
        self._slots = grown(self._slots, len(frame.symbols), kernel.NEW_SLOT)
        cursor = self._cursor
        cursor[:] = 0
        if len(recorded):
            read = 0
            if len(self._lengths) == 1 and self._n_time == 1 and not (len(trades) or len(quotes) or len(beats)):
                words = recorded.view(np.int64).reshape(len(recorded), -1)
                read = kernel.unchanged(recorded, words, _BID_AT, self._head, self._slots, self.config.intervals_ns[0])
            if read == len(recorded):  # a recording of the very bars that are wanted is passed on itself, uncopied
                return frame.with_tables(bars=recorded)
            self._out = _roomier(self._out, 0, len(recorded) + 256)
            opaque(self._out)[:read] = opaque(recorded[:read])
            cursor[kernel.AT_RECORDED] = cursor[kernel.N_BARS] = read
        while True:
            status = kernel.run(
                trades, recorded, quotes, beats, cursor, self._head, self._slots, self._kinds, self._lengths,
                self._limits, self._n_time, self._out, self._late,
            )
            if status == kernel.DONE:
                break
            if status == kernel.BAD_SYMBOL:
                raise IndexError(f"frame {frame.number} of {frame.origin}: a row's symbol is not among its symbols")
            if status == kernel.LATE_FULL:
                self._late = grown(self._late, 2 * len(self._late), np.zeros((), LATE.dtype)[()])
            else:
                room = int(cursor[kernel.N_BARS] + cursor[kernel.ROOM])
                self._out = _roomier(self._out, int(cursor[kernel.N_BARS]), max(room, 2 * len(self._out)))
        n_bars, n_late = int(cursor[kernel.N_BARS]), int(cursor[kernel.N_LATE])
        tables = {}
        if n_bars:
            tables[BARS.name] = copied(self._out[:n_bars])
        if n_late:
            tables[LATE.name] = copied(self._late[:n_late])
        return frame.with_tables(**tables) if tables else frame

    def open_bars(self) -> Rows:
        """The unfinished bars, `bars_kernel.SLOT` records [symbols, kinds of bar]; `open_now` tells which are real."""
        return self._slots.copy()

    def snapshot(self) -> dict[str, Rows]:
        return {"head": self._head.copy(), "slots": self._slots.copy()}

    def restore(self, state: dict[str, Rows]) -> None:
        if state["slots"].shape[1] != len(self._kinds):
            raise UserError(
                f"the saved state has {state['slots'].shape[1]} kinds of bar and the configuration {len(self._kinds)}; "
                "restore with the configuration it was saved under"
            )
        self._head = state["head"].copy()
        self._slots = state["slots"].copy()

    def _input(self, frame: Frame, spec: TableSpec) -> Rows:
        """The rows of a table as the compiled loop takes them: contiguous, writeable, so that it is compiled once."""
        rows = frame.tables.get(spec.name)
        if rows is None or len(rows) == 0:
            return self._none[spec.name]
        if rows.flags.c_contiguous and rows.flags.writeable:
            return rows
        return copied(rows)


_BID_AT = [f.name for f in BARS.fields].index("bid")
"""The first of four: bid, ask, bid_size, ask_size."""


def _roomier(rows: Rows, used: int, n: int) -> Rows:
    """`rows` where it has `n`, else new ones, of which the first `used` are copied."""
    if len(rows) >= n:
        return rows
    out = BARS.empty(n)
    opaque(out)[:used] = opaque(rows[:used])
    return out
