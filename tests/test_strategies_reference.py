"""The strategies operator against a second implementation: one row, one dict, plain Python, straight from the prose."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from operators.strategies.intents import CONFLICTS
from operators.strategies.orchestrator import Strategies, allocations
from operators.strategies.rules import (
    AllOf,
    AnyOf,
    Call,
    Compare,
    Cross,
    Lag,
    Level,
    Not,
    Number,
    Ref,
    StrategySpec,
    timeframe_ns,
)
from schemas.frame import FeatureRows, Frame
from schemas.tables import ACTIONS, BARS, SIGNALS, Rows
from tests.test_rules_generated import FEATURES, TIMEFRAMES, specs

CAUSES = SIGNALS.field("cause").labels
INTERVALS = {timeframe: timeframe_ns(timeframe) for timeframe in TIMEFRAMES}
SYMBOLS = ("A", "B", "C")
Row = tuple[int, int, str, dict[str, float]]
"""seq, symbol, timeframe, values."""


def tape(seed: int, seqs: int) -> list[Row]:
    """Bars of two timeframes and three symbols on a coarse grid, so that values tie, cross, warm up and go missing."""
    rng = np.random.default_rng(seed)
    closes = [10.0, 12.0, 8.0]
    rows: list[Row] = []
    for seq in range(0, 3 * seqs, 3):
        for symbol in range(len(SYMBOLS)):
            for timeframe, chance in (("1m", 0.7), ("5m", 0.3)):
                if rng.random() > chance:
                    continue
                closes[symbol] = max(1.0, closes[symbol] + int(rng.integers(-2, 3)) / 2)
                values = {"close": closes[symbol], "high": closes[symbol] + int(rng.integers(0, 3)) / 2,
                          "low": closes[symbol] - int(rng.integers(0, 3)) / 2}
                for name in FEATURES:
                    values[name] = math.nan if rng.random() < 0.1 else float(rng.integers(-2, 4)) / 2
                rows.append((seq, symbol, timeframe, values))
    return rows


def frames(rows: Sequence[Row], cuts: Sequence[int]) -> list[Frame]:
    """The tape as frames, cut after these seqs; symbols are named as they come."""
    bounds = [-1, *sorted(cuts), 1 << 60]
    made = []
    for number, (low, high) in enumerate(zip(bounds, bounds[1:], strict=False)):
        known = 1 + max((row[1] for row in rows if row[0] <= high), default=-1)
        features = []
        for timeframe, interval_ns in INTERVALS.items():
            mine = [row for row in rows if low < row[0] <= high and row[2] == timeframe]
            bars = BARS.empty(len(mine))
            values = np.empty((len(mine), len(FEATURES)))
            for i, (seq, symbol, _, found) in enumerate(mine):
                bars[i]["seq"], bars[i]["symbol"], bars[i]["interval_ns"] = seq, symbol, interval_ns
                bars[i]["ts_event_ns"], bars[i]["ts_open_ns"] = 1000 + seq, 500 + seq
                for name in ("close", "high", "low"):
                    bars[i][name] = found[name]
                values[i] = [found[name] for name in FEATURES]
            features.append(FeatureRows(interval_ns, FEATURES, bars, values))
        made.append(Frame("test", number, 0, SYMBOLS[:known], features=tuple(features)))
    return made


def run(operator: Strategies, made: Sequence[Frame]) -> list[Rows]:
    return [operator.step(frame).rows(SIGNALS) for frame in made]


def joined(parts: Sequence[Rows]) -> bytes:
    return b"".join(part.tobytes() for part in parts)


def told(parts: Sequence[Rows]) -> list[tuple[Any, ...]]:
    """Signals as tuples, NaN as None, for comparison with the reference."""
    out = []
    for row in (row for part in parts for row in part):
        levels = (None if math.isnan(row[name]) else float(row[name]) for name in ("stop", "target", "trail"))
        out.append((int(row["seq"]), int(row["symbol"]), int(row["strategy"]), int(row["slot"]), ACTIONS[row["action"]],
                    CAUSES[row["cause"]], *levels, float(row["strength"]), float(row["price"])))
    return out


History = list[dict[Ref, float]]


def value(node: Any, history: History, t: int) -> float | None:
    """A number at row t; None where it is unknown."""
    if t < 0:
        return None
    if isinstance(node, Number):
        return node.value
    if isinstance(node, Ref):
        found = history[t].get(node, math.nan)
    elif isinstance(node, Lag):
        return value(node.arg, history, t - node.bars)
    else:
        args = [value(arg, history, t) for arg in (node.args if isinstance(node, Call) else (node.left, node.right))]
        if any(arg is None for arg in args):
            return None
        known = [arg for arg in args if arg is not None]
        if isinstance(node, Call):
            found = abs(known[0]) if node.name == "abs" else min(known) if node.name == "min" else max(known)
        elif node.op == "/":
            found = math.nan if known[1] == 0 else known[0] / known[1]
        else:
            found = {"+": known[0] + known[1], "-": known[0] - known[1], "*": known[0] * known[1]}[node.op]
    return None if math.isnan(found) else found


def holds(node: Any, history: History, t: int) -> bool | None:
    """A condition at row t in three values (Kleene)."""
    if isinstance(node, AllOf | AnyOf):
        args = [holds(arg, history, t) for arg in node.args]
        decisive = isinstance(node, AnyOf)
        return decisive if decisive in args else None if None in args else not decisive
    if isinstance(node, Not):
        inner = holds(node.arg, history, t)
        return None if inner is None else not inner
    left, right = value(node.left, history, t), value(node.right, history, t)
    if left is None or right is None:
        return None
    if isinstance(node, Compare):
        return {"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right, "==": left == right,
                "!=": left != right}[node.op]
    assert isinstance(node, Cross)
    left_before, right_before = value(node.left, history, t - 1), value(node.right, history, t - 1)
    if t == 0 or left_before is None or right_before is None:
        return None
    if node.op == "crosses_above":
        return left_before <= right_before and left > right
    return left_before >= right_before and left < right


@dataclass
class Book:
    """One strategy in one symbol."""

    side: str | None = None
    stop: float | None = None
    target: float | None = None
    trail: float | None = None
    best: float = 0.0
    held: int = 0
    wait: int = 0
    put_out_at: int = -1


@dataclass
class Reference:
    strategies: Sequence[StrategySpec]
    conflict: str
    signals: list[tuple[Any, ...]] = field(default_factory=list)

    def run(self, rows: Sequence[Row]) -> list[tuple[Any, ...]]:
        latest: dict[tuple[int, str], dict[str, float]] = {}
        histories: dict[tuple[int, str], History] = defaultdict(list)
        self.books = {(s, k): Book() for s in range(len(SYMBOLS)) for k in range(len(self.strategies))}
        for moment in sorted({(seq, symbol) for seq, symbol, _, _ in rows}):
            closed = {timeframe: values for seq, symbol, timeframe, values in rows if (seq, symbol) == moment}
            for timeframe, values in closed.items():
                latest[moment[1], timeframe] = values
            for timeframe in closed:
                seen = {Ref(name): v for name, v in closed[timeframe].items()}
                for other in TIMEFRAMES:
                    seen |= {Ref(name, other): v for name, v in latest.get((moment[1], other), {}).items()}
                histories[moment[1], timeframe].append(seen)
            for k, spec in enumerate(self.strategies):
                if spec.timeframe in closed:
                    self.bar(moment, k, spec, closed[spec.timeframe], histories[moment[1], spec.timeframe])
        return sorted(self.signals, key=lambda row: row[:4])

    def emit(self, moment: tuple[int, int], k: int, slot: int, action: str, cause: str, strength: float, close: float) -> None:
        book = self.books[moment[1], k]
        self.signals.append((*moment, k, slot, action, cause, book.stop, book.target, book.trail, strength, close))

    def bar(self, moment: tuple[int, int], k: int, spec: StrategySpec, bar: dict[str, float], history: History) -> None:
        book = self.books[moment[1], k]

        def true(rule: Any) -> bool:
            return rule is not None and holds(rule, history, len(history) - 1) is True

        entries = [side for side in ("long", "short") if true(getattr(spec.entry, side))]
        wanted = entries[0] if len(entries) == 1 and not true(getattr(spec.exit, entries[0])) else None
        slot = 0
        if book.side is None:
            if book.put_out_at == moment[0]:
                return
            if book.wait > 0:
                book.wait -= 1
                return
        else:
            book.held += 1
            cause = self.touched(book, bar)
            if cause is None and spec.hold_bars and book.held >= spec.hold_bars:
                cause = "hold"
            if cause is None and true(getattr(spec.exit, book.side)):
                cause = "exit"
            if cause is None and wanted not in (None, book.side):
                cause = "entry"
            if cause is None:
                return
            self.emit(moment, k, 0, "exit", cause, 1.0, bar["close"])
            if wanted == book.side or spec.cooldown_bars:
                wanted = None
            book.side, book.wait, slot = None, spec.cooldown_bars, 1
        if wanted is not None:
            self.enter(moment, k, spec, slot, wanted, bar, history)

    def touched(self, book: Book, bar: dict[str, float]) -> str | None:
        up = 1 if book.side == "long" else -1
        worst, top = (bar["low"], bar["high"]) if up > 0 else (-bar["high"], -bar["low"])
        if book.stop is not None and worst <= up * book.stop:
            return "stop"
        if book.trail is not None and worst <= up * (book.best - up * book.trail):
            return "stop"
        if book.target is not None and top >= up * book.target:
            return "target"
        book.best = up * max(up * book.best, top)
        return None

    def enter(
        self, moment: tuple[int, int], k: int, spec: StrategySpec, slot: int, side: str, bar: dict[str, float], history: History
    ) -> None:
        up = 1 if side == "long" else -1
        close = bar["close"]
        levels: dict[str, float | None] = {}
        for clause, direction in (("stop", -up), ("target", up), ("trail", 0)):
            level: Level | None = getattr(getattr(spec, clause), side)
            levels[clause] = None
            if level is None:
                continue
            found = value(level.value, history, len(history) - 1)
            if found is None:
                return
            distance = close * (found / 100) if level.kind == "percent" else found
            if level.kind == "price":
                distance = (found - close) * direction
            if distance <= 0:
                return
            levels[clause] = found if level.kind == "price" else close + direction * distance if direction else distance
            if levels[clause] <= 0:  # type: ignore[operator]
                return
        book = self.books[moment[1], k]
        book.stop, book.target, book.trail = levels["stop"], levels["target"], levels["trail"]
        others = {j: self.books[moment[1], j] for j in range(len(self.strategies)) if j != k}
        against = [j for j, other in others.items() if other.side not in (None, side)]
        weights = allocations(self.strategies)
        net = sum(weights[j] if other.side == side else -weights[j] for j, other in others.items() if other.side)
        lost = {"independent": False, "first": bool(against), "priority": any(j < k for j in against),
                "net": -net >= weights[k]}[self.conflict]
        self.emit(moment, k, slot, f"enter_{side}", "entry", 0.0 if lost else 1.0, close)
        if lost:
            return
        book.side, book.best, book.held = side, close, 0
        for j in against if self.conflict == "priority" else ():
            self.emit(moment, j, 0, "exit", "exit", 1.0, close)
            others[j].side, others[j].wait, others[j].put_out_at = None, self.strategies[j].cooldown_bars, moment[0]


POOL: list[StrategySpec] = []
"""Generated strategies; the laws pick from them, because to generate is slower than to run."""


@pytest.fixture(scope="module", autouse=True)
def _pool() -> None:
    @settings(max_examples=100, database=None, phases=[Phase.generate])
    @given(specs())
    def draw(spec: StrategySpec) -> None:
        POOL.append(spec)

    draw()


def picked(numbers: Sequence[int]) -> list[StrategySpec]:
    return [replace(POOL[number % len(POOL)], name=f"s{k}") for k, number in enumerate(numbers)]


cases = st.tuples(st.lists(st.integers(0, 10**4), min_size=1, max_size=3), st.sampled_from(CONFLICTS), st.integers(0, 2**32),
                  st.integers(0, 30))


@settings(max_examples=400)
@given(cases)
def test_the_operator_says_what_the_reference_says(case: Any) -> None:
    numbers, conflict, seed, seqs = case
    strategies = picked(numbers)
    rows = tape(seed, seqs)
    assert told(run(Strategies(strategies, conflict=conflict), frames(rows, []))) == Reference(strategies, conflict).run(rows)


@settings(max_examples=150)
@given(cases, st.lists(st.integers(0, 90), max_size=5), st.booleans())
def test_batch_law(case: Any, cuts: list[int], singly: bool) -> None:
    numbers, conflict, seed, seqs = case
    strategies = picked(numbers)
    rows = tape(seed, seqs)
    whole = run(Strategies(strategies, conflict=conflict), frames(rows, []))
    cut = run(Strategies(strategies, conflict=conflict), frames(rows, list(range(0, 90, 3)) if singly else cuts))
    assert joined(cut) == joined(whole)


@settings(max_examples=150)
@given(cases, st.integers(0, 90))
def test_resume_law(case: Any, cut: int) -> None:
    numbers, conflict, seed, seqs = case
    strategies = picked(numbers)
    first, second = frames(tape(seed, seqs), [cut])
    straight = Strategies(strategies, conflict=conflict)
    straight.step(first)
    saved = straight.snapshot()
    expected = straight.step(second).rows(SIGNALS)
    resumed = Strategies(strategies, conflict=conflict)
    resumed.restore(saved)
    assert resumed.step(second).rows(SIGNALS).tobytes() == expected.tobytes()
    again = Strategies(strategies, conflict=conflict)
    again.restore(saved)
    assert again.step(second).rows(SIGNALS).tobytes() == expected.tobytes()


@settings(max_examples=150)
@given(cases, st.integers(0, 90))
def test_prefix_law(case: Any, cut: int) -> None:
    """The future is poisoned: what was said before does not change."""
    numbers, conflict, seed, seqs = case
    strategies = picked(numbers)
    rows = tape(seed, seqs)
    poisoned = [(seq, symbol, timeframe, values if seq <= cut else dict.fromkeys(values, 1000000000.0))
                for seq, symbol, timeframe, values in rows]
    one = np.concatenate(run(Strategies(strategies, conflict=conflict), frames(rows, [])))
    other = np.concatenate(run(Strategies(strategies, conflict=conflict), frames(poisoned, [])))
    prefix = run(Strategies(strategies, conflict=conflict), frames([row for row in rows if row[0] <= cut], []))
    assert one[one["seq"] <= cut].tobytes() == other[other["seq"] <= cut].tobytes() == joined(prefix)


def test_generated_cases_reach_every_cause_and_conflict() -> None:
    """The laws above would be hollow if generated strategies never traded."""
    seen: set[Any] = set()
    for i in range(0, 160, 2):
        conflict = CONFLICTS[i // 2 % len(CONFLICTS)]
        for row in Reference(picked((i, i + 1, i + 80)), conflict).run(tape(i, 25)):
            seen.update([row[4], row[5], (conflict, row[9])])
    assert {"enter_long", "enter_short", "exit", *CAUSES} <= seen
    assert {(conflict, 0.0) for conflict in CONFLICTS[1:]} <= seen
