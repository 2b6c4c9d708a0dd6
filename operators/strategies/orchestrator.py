"""`Strategies`: several strategies at once over the features of a frame; adds the `signals` table.

Signals are sorted by (seq, symbol, strategy, slot) and carry the time and tape position of the bar that caused them.
Every strategy keeps a position of its own per symbol (see `intents`). Where two disagree on a symbol, the conflict rule
decides; the entry that loses stays visible as a signal of strength 0, which the desk refuses (reason `conflict`):

    independent  nobody loses (the default: each strategy has a book of its own)
    first        who holds the symbol keeps it: entries against any open position lose
    priority     as `first`, against strategies listed earlier; one listed later is put out by an entry against it
    net          an entry loses where the allocations of the open positions against it, net, are at least its own
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from operators.state import grown
from operators.strategies import intents
from operators.strategies.compiler import Program
from operators.strategies.rules import STRATEGIES_MAX, Compare, Cross, Lag, Number, Ref, Sides, StrategySpec
from schemas.errors import UserError, unknown
from schemas.frame import FeatureRows, Frame
from schemas.rows import copied
from schemas.tables import BARS, SIGNALS, Rows

DEFAULT_ALLOCATIONS = {3: (0.4, 0.3, 0.3)}
"""Shares where none is configured; equal ones for any other number of strategies."""

_FLAT = np.array((np.nan, np.nan, np.nan, np.nan, 0, 0, -1, 0), intents.STATE)[()]


def allocations(specs: Sequence[StrategySpec]) -> tuple[float, ...]:
    """Each strategy's share of equity: its own `limits.allocation`; those without one share what is left equally.

    Where none has one: 40/30/30 for three strategies, else equal. UserError where the shares are more than 1.
    """
    given = [spec.limits.allocation for spec in specs]
    if not any(given):
        return DEFAULT_ALLOCATIONS.get(len(specs)) or (1.0 / len(specs),) * len(specs)
    total = sum(share for share in given if share is not None)
    missing = given.count(None)
    if total > 1.0 + 1e-9 or (missing and total > 1.0 - 1e-9):
        shares = ", ".join(f"{spec.name} {spec.limits.allocation}" for spec in specs if spec.limits.allocation)
        rest = f" and leave nothing for {missing} more" if missing else ""
        raise UserError(f"limits.allocation: {shares} are {total:g} of equity{rest}; make them at most 1 in all")
    return tuple((1.0 - total) / missing if share is None else float(share) for share in given)


class Strategies:
    """The operator. Reads `frame.features`; `strategy` in a signal is an index into `specs`."""

    def __init__(
        self, specs: Sequence[StrategySpec], *, conflict: str = "independent", name: str = "strategies"
    ) -> None:
        if not 1 <= len(specs) <= STRATEGIES_MAX:
            raise UserError(f"{len(specs)} strategies; give 1 to {STRATEGIES_MAX}")
        if conflict not in intents.CONFLICTS:
            raise unknown("conflict rule", conflict, intents.CONFLICTS)
        names = [spec.name for spec in specs]
        twice = next((n for n in names if names.count(n) > 1), None)
        if twice:
            raise UserError(f'strategy "{twice}" is given twice; rename one')
        self.name = name
        self.specs = tuple(specs)
        self.weights = allocations(specs)
        self._conflict = intents.CONFLICTS.index(conflict)
        self._groups = [_Group(self.specs, ns) for ns in dict.fromkeys(spec.interval_ns for spec in specs)]
        self._holds = np.array([spec.hold_bars for spec in specs], np.int64)
        self._hold_ns = np.array([spec.hold_bars * spec.interval_ns for spec in specs], np.int64)
        self._cooldowns = np.array([spec.cooldown_bars for spec in specs], np.int64)
        self._weights = np.array(self.weights, np.float64)
        self._level_is_price = np.zeros((len(specs), 6), np.bool_)
        self._watches = np.zeros(len(specs), np.bool_)
        for group in self._groups:
            self._level_is_price[group.members] = group.program.level_is_price
            self._watches[group.members] = (group.program.level_at >= 0).any(axis=1)
        self._state: npt.NDArray[Any] = np.full((1, len(specs)), _FLAT, intents.STATE)
        self._scratch = SIGNALS.empty(0)
        self._scratch_rows = np.zeros(0, np.int64)

    def snapshot(self) -> Any:
        return {"state": self._state.copy(), "programs": [group.program.snapshot() for group in self._groups]}

    def restore(self, state: Any) -> None:
        self._state = state["state"].copy()
        for group, saved in zip(self._groups, state["programs"], strict=True):
            group.program.restore(saved)

    def step(self, frame: Frame) -> Frame:
        if not any(len(rows.bars) for rows in frame.features):
            return frame  # most frames of a live run close no bar
        features: dict[int, FeatureRows] = {}
        for rows in frame.features:
            features.setdefault(rows.interval_ns, rows)
        n_symbols = max(len(frame.symbols), 1)
        self._state = grown(self._state, n_symbols, _FLAT)
        evaluated = [group.run(features, n_symbols) for group in self._groups]
        active = [part for part in evaluated if len(part.bars)]
        if not active:
            return frame
        signals = self._signals(active[0] if len(self._groups) == 1 else _merged(active, len(self.specs)))
        return frame.with_tables(signals=signals) if len(signals) else frame

    def _signals(self, part: "_Evaluated") -> Rows:
        bars, n = part.bars, len(part.bars)
        events = len(part.rows) or n * len(self.specs)
        most = 2 * events if self._conflict != intents.PRIORITY else 3 * events + self._state.size
        if len(self._scratch) < most:
            self._scratch, self._scratch_rows = SIGNALS.empty(most), np.zeros(most, np.int64)
        closes = highs = lows = _NO_PRICES
        if self._watches.any():
            closes, highs, lows = bars["close"].copy(), bars["high"].copy(), bars["low"].copy()
        seqs = bars["seq"].copy() if self._conflict == intents.PRIORITY else _NO_ROWS
        m = intents.advance(
            part.strategies, part.rows, part.symbols, seqs, closes, highs, lows, part.numbers, part.conditions,
            part.condition_at, part.level_at, self._level_is_price, self._watches, self._holds, self._cooldowns,
            self._conflict, self._weights, self._state, self._scratch, self._scratch_rows)
        if not m:
            return self._scratch[:0]
        signals = copied(self._scratch[:m])
        causes = self._scratch_rows[:m]
        for column in ("ts_event_ns", "seq", "interval_ns", "ts_open_ns"):
            signals[column] = bars[column][causes]
        signals["price"] = bars["close"][causes]
        signals["hold_ns"] = self._hold_ns[signals["strategy"]]
        return _sorted(signals)


_NO_ROWS = np.zeros(0, np.int64)
_NO_PRICES = np.zeros(0)
_NO_BARS = BARS.empty(0)


class _Evaluated:
    """Rules evaluated over rows: the bars, the columns, and where in them each strategy's clauses are.

    (strategies[e], rows[e]) are the events in order; empty where every strategy sees every row.
    """

    def __init__(
        self, bars: Rows, symbols: npt.NDArray[np.int32], numbers: npt.NDArray[np.float64],
        conditions: npt.NDArray[np.bool_], condition_at: npt.NDArray[np.int64], level_at: npt.NDArray[np.int64],
        members: npt.NDArray[np.int64], strategies: npt.NDArray[np.int64] = _NO_ROWS,
        rows: npt.NDArray[np.int64] = _NO_ROWS,
    ) -> None:
        self.bars, self.symbols, self.numbers, self.conditions = bars, symbols, numbers, conditions
        self.condition_at, self.level_at, self.members = condition_at, level_at, members
        self.strategies, self.rows = strategies, rows


class _Group:
    """The strategies of one timeframe and their program."""

    def __init__(self, specs: Sequence[StrategySpec], interval_ns: int) -> None:
        self.members = np.array([k for k, spec in enumerate(specs) if spec.interval_ns == interval_ns], np.int64)
        self.program = Program([specs[k] for k in self.members])

    def run(self, features: Mapping[int, FeatureRows], n_symbols: int) -> _Evaluated:
        own = features.get(self.program.interval_ns)
        bars = _NO_BARS if own is None else own.bars
        symbols = bars["symbol"].copy()
        program = self.program
        numbers, conditions = program.run(features, symbols, n_symbols)
        return _Evaluated(bars, symbols, numbers, conditions, program.condition_at, program.level_at, self.members)


def _merged(parts: Sequence[_Evaluated], n_strategies: int) -> _Evaluated:
    """Several timeframes as one: rows and columns side by side, events in the order of (seq, symbol, strategy)."""
    n = sum(len(part.bars) for part in parts)
    numbers = np.empty((sum(len(part.numbers) for part in parts), n))
    conditions = np.empty((sum(len(part.conditions) for part in parts), n), np.bool_)
    condition_at = np.full((n_strategies, 4), -1, np.int64)
    level_at = np.full((n_strategies, 6), -1, np.int64)
    rows, strategies = [], []
    first = number = condition = 0
    for part in parts:
        last = first + len(part.bars)
        numbers[number:number + len(part.numbers), first:last] = part.numbers
        conditions[condition:condition + len(part.conditions), first:last] = part.conditions
        condition_at[part.members] = np.where(part.condition_at < 0, -1, part.condition_at + condition)
        level_at[part.members] = np.where(part.level_at < 0, -1, part.level_at + number)
        for k in part.members:
            rows.append(np.arange(first, last))
            strategies.append(np.full(last - first, k))
        number, condition, first = number + len(part.numbers), condition + len(part.conditions), last
    bars = np.concatenate([part.bars for part in parts])
    who, where = np.concatenate(strategies), np.concatenate(rows)
    order = np.lexsort((who, bars["symbol"][where], bars["seq"][where]))
    members = np.arange(n_strategies)
    return _Evaluated(bars, bars["symbol"].copy(), numbers, conditions, condition_at, level_at, members,
                      who[order], where[order])


def _sorted(signals: Rows) -> Rows:
    if len(signals) < 2:
        return signals
    order = np.lexsort((signals["slot"], signals["strategy"], signals["symbol"], signals["seq"]))
    return signals if bool((order[1:] > order[:-1]).all()) else signals[order]


def kernels() -> list[tuple[str, Callable[[], None]]]:
    """What there is to compile: labels, and calls that compile (or load from the cache) by running on one bar."""
    return [("strategies", _warm)]


def _warm() -> None:
    close, other = Ref("close"), Ref("close", "2s")
    entry = Compare(">", Lag(close, 1), other)
    spec = StrategySpec("warm", "1s", Sides(entry, Cross("crosses_above", close, Number(1.0))), hold_bars=1)
    bars = BARS.empty(1)
    Strategies([spec]).step(Frame("warm", 0, 0, ("WARM",), features=(FeatureRows(10**9, (), bars, np.empty((1, 0))),)))
