"""From rule trees to column operations: a `Program` evaluates the rules of a timeframe's strategies over a batch.

Every node becomes one operation on whole columns, shared where strategies ask for the same thing. Values are exact
IEEE doubles, so a batch of one and of 65,536 rows give the same bits. NaN is "unknown": a condition column is true only
where the condition is known to hold (Kleene's three values), for which negations are pushed down to the comparisons.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from operators.state import grown
from operators.strategies import kernels
from operators.strategies.rules import (
    BAR_COLUMNS,
    CONDITIONS,
    AllOf,
    AnyOf,
    Arith,
    Call,
    Compare,
    CompareOp,
    Cross,
    Lag,
    Level,
    Node,
    Not,
    Number,
    Ref,
    StrategySpec,
    timeframe_ns,
    timeframe_text,
)
from schemas.errors import PenstockError
from schemas.frame import FeatureRows
from schemas.tables import Rows

Column = Any
CONDITION_COLUMNS = 4
"""entry long, entry short, exit long, exit short."""
LEVEL_COLUMNS = 6
"""stop long, stop short, target long, target short, trail long, trail short."""


def _ratio(left: Column, right: Column, out: Column) -> None:
    np.divide(left, right, out)
    if isinstance(right, float):
        return  # a constant, and not 0: that does not validate
    np.putmask(out, np.equal(right, 0.0), np.nan)


def _unequal(left: Column, right: Column, out: Column) -> None:
    """Unlike IEEE's, false where a side is NaN."""
    np.bitwise_or(np.less(left, right), np.greater(left, right), out)


def _minimum(left: Column, right: Column, out: Column) -> None:
    np.minimum(left, right, out=out)


def _maximum(left: Column, right: Column, out: Column) -> None:
    np.maximum(left, right, out=out)


def _absolute(arg: Column, _: Column, out: Column) -> None:
    np.absolute(arg, out)


_PURE: dict[str, Callable[[Column, Column, Column], Any]] = {
    "<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal, "==": np.equal, "!=": _unequal,
    "+": np.add, "-": np.subtract, "*": np.multiply, "/": _ratio,
    "min": _minimum, "max": _maximum, "abs": _absolute,
    "and": np.bitwise_and, "or": np.bitwise_or,
}
_OPPOSITE: dict[CompareOp, CompareOp] = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "==": "!=", "!=": "=="}

# An operation: function or name of a kernel, the registers it reads, the register it writes, its state or -1.
_Operation = tuple[Any, int, int, int, int]


class Program:
    """The compiled rules of the strategies of one timeframe, and the state of their nodes.

    `condition_at[k]` and `level_at[k]` say in which rows of what `run` returns the clauses of strategy k are, -1: none.
    Registers count the rows of the first array, then the conditions in the second, then the constants.
    """

    def __init__(self, specs: Sequence[StrategySpec]) -> None:
        self.interval_ns = specs[0].interval_ns
        builder = _Builder(specs)
        self.condition_at = builder.condition_at
        self.level_at = builder.level_at
        self.level_is_price = builder.level_is_price
        self._numbers, self._conditions, self._constants, self._operations = builder.finished()
        self._fills = builder.fills
        self._own = {ref.name: at for ref, at in builder.loads.items() if ref.timeframe is None}
        self._others: dict[int, dict[str, int]] = {}
        for ref, at in builder.loads.items():
            if ref.timeframe is not None:
                self._others.setdefault(timeframe_ns(ref.timeframe), {})[ref.name] = at
        self._states = [np.full((1, width), np.nan) if width else np.zeros(1, np.int8) for width in builder.states]
        self._last = {ns: np.full((1, len(names)), np.nan) for ns, names in self._others.items()}
        self._targets = {ns: np.array(list(names.values()), np.int64) for ns, names in self._others.items()}
        self._places: dict[tuple[int, tuple[str, ...]], dict[str, int]] = {}

    @property
    def intervals(self) -> tuple[int, ...]:
        """Every timeframe that it reads, its own first."""
        return (self.interval_ns, *(ns for ns in self._others if ns != self.interval_ns))

    def snapshot(self) -> Any:
        return [s.copy() for s in self._states], {ns: last.copy() for ns, last in self._last.items()}

    def restore(self, state: Any) -> None:
        states, last = state
        self._states = [s.copy() for s in states]
        self._last = {ns: found.copy() for ns, found in last.items()}

    def run(
        self, features: Mapping[int, FeatureRows], symbols: npt.NDArray[np.int32], n_symbols: int
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """(numbers, rows) and (conditions, rows) of the batch; without rows of its own it still takes in others'."""
        self._states = [grown(s, n_symbols, np.nan if s.ndim == 2 else 0) for s in self._states]
        n = len(symbols)
        numbers = np.empty((self._numbers, n))
        conditions = np.empty((self._conditions, n), np.bool_)
        for ns in self._others:
            self._load_other(ns, features, symbols, n_symbols, numbers)
        if not n:
            return numbers, conditions
        rows = features[self.interval_ns]
        places = self._places_of(rows, self._own)
        for name, at in self._own.items():
            numbers[at] = rows.bars[name] if name in BAR_COLUMNS else rows.values[:, places[name]]
        for at, value in self._fills:
            numbers[at] = value
        registers: list[Any] = [*numbers, *conditions, *self._constants]
        with np.errstate(all="ignore"):
            for do, a, b, to, state in self._operations:
                if state < 0:
                    do(registers[a], registers[b], registers[to])
                elif do == "lag":
                    kernels.lag(registers[a], registers[to], symbols, self._states[state])
                else:
                    kernels.cross(registers[a], registers[b], registers[to], symbols, self._states[state], do == "not")
        return numbers, conditions

    def _load_other(
        self, ns: int, features: Mapping[int, FeatureRows], symbols: npt.NDArray[np.int32], n_symbols: int, numbers: Any
    ) -> None:
        names = self._others[ns]
        last = self._last[ns] = grown(self._last[ns], n_symbols, np.nan)
        own = features.get(self.interval_ns)
        seqs = _ascending_seq(own.bars) if own is not None else np.zeros(0, np.int64)
        other = features.get(ns)
        if other is None:
            values, from_symbols, from_seqs = np.empty((0, len(names))), np.zeros(0, np.int32), np.zeros(0, np.int64)
        else:
            places = self._places_of(other, names)
            from_seqs, from_symbols = _ascending_seq(other.bars), other.bars["symbol"].copy()
            values = np.empty((len(from_seqs), len(names)))
            for j, name in enumerate(names):
                values[:, j] = other.bars[name] if name in BAR_COLUMNS else other.values[:, places[name]]
        kernels.as_of(symbols, seqs, from_symbols, from_seqs, values, last, numbers, self._targets[ns])

    def _places_of(self, rows: FeatureRows, wanted: Mapping[str, int]) -> dict[str, int]:
        """Column numbers of the features; PenstockError where the frame lacks one: a mistake of the wiring."""
        key = (rows.interval_ns, rows.names)
        if key not in self._places:
            found = {name: i for i, name in enumerate(rows.names)}
            for name in wanted:
                if name not in BAR_COLUMNS and name not in found:
                    raise PenstockError(
                        f'the frame has no feature "{name}" on {timeframe_text(rows.interval_ns)}; compute what '
                        "required_features(specs) lists, under these names")
            self._places[key] = found
        return self._places[key]


def _ascending_seq(bars: Rows) -> npt.NDArray[np.int64]:
    seqs: npt.NDArray[np.int64] = bars["seq"].copy()
    if len(seqs) > 1 and not bool((seqs[1:] >= seqs[:-1]).all()):
        raise PenstockError("bars of one timeframe are not in tape order (seq descends)")
    return seqs


class _Builder:
    """Lays the nodes of all strategies out in registers, each distinct node once.

    While building, a register is a name: ("n", i) a number column, ("c", i) a condition column, ("k", i) a constant.
    """

    def __init__(self, specs: Sequence[StrategySpec]) -> None:
        self.loads: dict[Ref, int] = {}
        self.fills: list[tuple[int, float]] = []
        self.states: list[int] = []
        self._constants: list[float] = []
        self._operations: list[tuple[Any, tuple[str, int], tuple[str, int], tuple[str, int], int]] = []
        self._done: dict[Any, tuple[str, int]] = {}
        self._counts = {"n": 0, "c": 0}
        self.condition_at = np.full((len(specs), CONDITION_COLUMNS), -1, np.int64)
        self.level_at = np.full((len(specs), LEVEL_COLUMNS), -1, np.int64)
        self.level_is_price = np.zeros((len(specs), LEVEL_COLUMNS), np.bool_)
        for k, spec in enumerate(specs):
            for j, rule in enumerate((spec.entry.long, spec.entry.short, spec.exit.long, spec.exit.short)):
                if rule is not None:
                    self.condition_at[k, j] = self.condition(rule, False)[1]
            levels = (*_pair(spec.stop), *_pair(spec.target), *_pair(spec.trail))
            for j, level in enumerate(levels):
                if level is not None:
                    self.level_at[k, j] = self.level(level)
                    self.level_is_price[k, j] = level.kind == "price"

    def finished(self) -> tuple[int, int, list[float], list[_Operation]]:
        """Numbers, conditions, constants and the operations with registers counted through."""
        start = {"n": 0, "c": self._counts["n"], "k": self._counts["n"] + self._counts["c"]}

        def flat(register: tuple[str, int]) -> int:
            return start[register[0]] + register[1]

        operations = [(do, flat(a), flat(b), flat(to), state) for do, a, b, to, state in self._operations]
        return self._counts["n"], self._counts["c"], self._constants, operations

    def new(self, bank: str) -> tuple[str, int]:
        self._counts[bank] += 1
        return bank, self._counts[bank] - 1

    def emit(self, do: Any, a: tuple[str, int], b: tuple[str, int], bank: str, width: int = -1) -> tuple[str, int]:
        to = self.new(bank)
        state = -1
        if width >= 0:
            state = len(self.states)
            self.states.append(width)
        self._operations.append((do, a, b, to, state))
        return to

    def condition(self, node: Node, negated: bool) -> tuple[str, int]:
        if isinstance(node, Not):
            return self.condition(node.arg, not negated)
        key = (node, negated)
        if key not in self._done:
            self._done[key] = self._condition(node, negated)
        return self._done[key]

    def _condition(self, node: Node, negated: bool) -> tuple[str, int]:
        if isinstance(node, AllOf | AnyOf):
            word = "and" if isinstance(node, AllOf) != negated else "or"
            result = self.condition(node.args[0], negated)
            for arg in node.args[1:]:
                result = self.emit(_PURE[word], result, self.condition(arg, negated), "c")
            return result
        if isinstance(node, Compare):
            op = _OPPOSITE[node.op] if negated else node.op
            return self.emit(_PURE[op], self.number(node.left), self.number(node.right), "c")
        assert isinstance(node, Cross)
        left, right = self.column(node.left), self.column(node.right)
        if node.op == "crosses_below":
            left, right = right, left
        return self.emit("not" if negated else "cross", left, right, "c", 0)

    def number(self, node: Node) -> tuple[str, int]:
        assert not isinstance(node, CONDITIONS)
        if node not in self._done:
            self._done[node] = self._number(node)
        return self._done[node]

    def _number(self, node: Node) -> tuple[str, int]:
        if isinstance(node, Number):
            self._constants.append(node.value)
            return "k", len(self._constants) - 1
        if isinstance(node, Ref):
            register = self.new("n")
            self.loads[node] = register[1]
            return register
        if isinstance(node, Lag):
            source = self.column(node.arg)
            return self.emit("lag", source, source, "n", node.bars + 1)
        if isinstance(node, Call):
            args = [self.number(arg) for arg in node.args]
            return self.emit(_PURE[node.name], args[0], args[-1], "n")
        assert isinstance(node, Arith)
        return self.emit(_PURE[node.op], self.number(node.left), self.number(node.right), "n")

    def column(self, node: Node) -> tuple[str, int]:
        """The node as a column, also where it is a constant: kernels read arrays only."""
        if not isinstance(node, Number):
            return self.number(node)
        key = ("column", node)
        if key not in self._done:
            self._done[key] = self.new("n")
            self.fills.append((self._done[key][1], node.value))
        return self._done[key]

    def level(self, level: Level) -> int:
        """The register of a level: a price, or a distance in price."""
        value = level.value
        if level.kind == "percent":
            value = Arith("*", Ref("close"), Arith("/", value, Number(100.0)))
        return self.column(value)[1]


def _pair(sides: Any) -> tuple[Level | None, Level | None]:
    return sides.long, sides.short
