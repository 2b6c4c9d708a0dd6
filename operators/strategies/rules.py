"""The rule language: a strategy is a frozen tree over named features, and nothing in it is ever executed as code.

Two trees that are equal mean the same and compile to the same columns; `content_hash` depends on the meaning alone:
not on the strategy's name, its description or the order of keys in a file. Trees come from `documents` (YAML) or `text`
(one line), are checked and made canonical by `validation`, and compiled by `compiler`.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from blake3 import blake3

from schemas.errors import UserError

BAR_COLUMNS = (
    "open", "high", "low", "close", "volume", "notional", "vwap", "trades", "buy_volume", "bid", "ask", "bid_size",
    "ask_size",
)
"""Columns of the bar itself that a rule may name; every other name is a feature."""

LAG_BARS_MAX = 500
NODES_MAX = 512
DEPTH_MAX = 32
HOLD_BARS_MAX = 100_000
COOLDOWN_BARS_MAX = 100_000
STRATEGIES_MAX = 64

CompareOp = Literal["<", "<=", ">", ">=", "==", "!="]
ArithOp = Literal["+", "-", "*", "/"]
CrossOp = Literal["crosses_above", "crosses_below"]
CallName = Literal["min", "max", "abs"]
COMPARE_OPS: tuple[CompareOp, ...] = ("<", "<=", ">", ">=", "==", "!=")
ARITH_OPS: tuple[ArithOp, ...] = ("+", "-", "*", "/")
CROSS_OPS: tuple[CrossOp, ...] = ("crosses_above", "crosses_below")
CALLS: dict[str, int] = {"min": 2, "max": 2, "abs": 1}
"""Functions of the language and how many arguments they take."""


@dataclass(frozen=True)
class Number:
    """A constant."""

    value: float


@dataclass(frozen=True)
class Ref:
    """A feature or bar column by name: of the rule's own timeframe, or of the last closed bar of another."""

    name: str
    timeframe: str | None = None


@dataclass(frozen=True)
class Arith:
    """left op right. Dividing by 0 gives an unknown value (NaN)."""

    op: ArithOp
    left: "Node"
    right: "Node"


@dataclass(frozen=True)
class Call:
    """min, max or abs; unknown where an argument is."""

    name: CallName
    args: tuple["Node", ...]


@dataclass(frozen=True)
class Lag:
    """The value that `arg` had `bars` bars ago, in bars of the rule's own timeframe."""

    arg: "Node"
    bars: int


@dataclass(frozen=True)
class Compare:
    """left op right; neither true nor false where a side is unknown."""

    op: CompareOp
    left: "Node"
    right: "Node"


@dataclass(frozen=True)
class Cross:
    """crosses_above: left was at or below right one bar ago and is above it now, all four values known."""

    op: CrossOp
    left: "Node"
    right: "Node"


@dataclass(frozen=True)
class AllOf:
    """Every one holds."""

    args: tuple["Node", ...]


@dataclass(frozen=True)
class AnyOf:
    """At least one holds."""

    args: tuple["Node", ...]


@dataclass(frozen=True)
class Not:
    """The condition is known not to hold: not of an unknown is unknown."""

    arg: "Node"


Node = Number | Ref | Arith | Call | Lag | Compare | Cross | AllOf | AnyOf | Not
CONDITIONS = (Compare, Cross, AllOf, AnyOf, Not)

T = TypeVar("T")


@dataclass(frozen=True)
class Sides(Generic[T]):
    """One clause for longs and one for shorts."""

    long: T | None = None
    short: T | None = None


@dataclass(frozen=True)
class Level:
    """Where a stop, target or trail lies. distance: in price from the close; percent: of the close; price: itself."""

    kind: Literal["distance", "percent", "price"]
    value: Node


@dataclass(frozen=True)
class Limits:
    """What the desk holds a strategy to; None: the policy's own. allocation is a share of equity, 0 to 1."""

    allocation: float | None = None
    open_symbols_max: int | None = None
    trades_per_day_max: int | None = None


@dataclass(frozen=True)
class StrategySpec:
    """A strategy. It trades the sides that have an entry; levels are set from the entry bar's close and kept."""

    name: str
    timeframe: str
    entry: Sides[Node]
    exit: Sides[Node] = field(default_factory=Sides)
    stop: Sides[Level] = field(default_factory=Sides)
    target: Sides[Level] = field(default_factory=Sides)
    trail: Sides[Level] = field(default_factory=Sides)
    hold_bars: int = 0
    cooldown_bars: int = 0
    limits: Limits = field(default_factory=Limits)
    description: str = ""

    @property
    def side(self) -> Literal["long", "short", "both"]:
        if self.entry.short is None:
            return "long"
        return "short" if self.entry.long is None else "both"

    @property
    def interval_ns(self) -> int:
        return timeframe_ns(self.timeframe)

    def content_hash(self) -> str:
        """Sixteen hex digits of the BLAKE3 of the canonical form, without name and description."""
        return blake3(canonical_json(self).encode()).hexdigest(length=8)


CLAUSES = ("entry", "exit", "stop", "target", "trail")
"""The two-sided clauses of a strategy, in the order in which they are written."""


def clauses(spec: StrategySpec) -> Iterator[tuple[str, str, Node | Level]]:
    """(clause, side, node or level) of every clause that is there."""
    for clause in CLAUSES:
        sides = getattr(spec, clause)
        for side in ("long", "short"):
            found = getattr(sides, side)
            if found is not None:
                yield clause, side, found


def children(node: Node) -> tuple[Node, ...]:
    """The nodes right below."""
    if isinstance(node, Arith | Compare | Cross):
        return node.left, node.right
    if isinstance(node, AllOf | AnyOf | Call):
        return node.args
    if isinstance(node, Lag | Not):
        return (node.arg,)
    return ()


def walk(node: Node) -> Iterator[Node]:
    """The node and all below, top first, left before right."""
    yield node
    for child in children(node):
        yield from walk(child)


def references(spec: StrategySpec) -> tuple[Ref, ...]:
    """Every feature and bar column that the strategy reads, once, in the order of its clauses."""
    found: dict[Ref, None] = {}
    for _, _, part in clauses(spec):
        node = part.value if isinstance(part, Level) else part
        found.update((n, None) for n in walk(node) if isinstance(n, Ref))
    return tuple(found)


def required_features(specs: Sequence[StrategySpec]) -> dict[int, tuple[str, ...]]:
    """What must be computed for these strategies: interval in ns → feature names, in order of first use.

    The timeframe of a strategy is there even where it names bar columns alone.
    """
    wanted: dict[int, dict[str, None]] = {}
    for spec in specs:
        own = wanted.setdefault(spec.interval_ns, {})
        for ref in references(spec):
            at = own if ref.timeframe is None else wanted.setdefault(timeframe_ns(ref.timeframe), {})
            if ref.name not in BAR_COLUMNS:
                at[ref.name] = None
    return {interval: tuple(names) for interval, names in wanted.items()}


_UNITS_NS = {"s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9, "d": 86400 * 10**9}


def timeframe_ns(text: str) -> int:
    """`15m` → nanoseconds; UserError where it is not a whole number of s, m, h or d between 1s and 7d."""
    found = re.fullmatch(r"([1-9]\d{0,6})([smhd])", text)
    ns = int(found[1]) * _UNITS_NS[found[2]] if found else 0
    if not 0 < ns <= 7 * _UNITS_NS["d"]:
        raise UserError(f'timeframe "{text}" is not between 1s and 7d; write for example 1m, 15m, 4h or 1d')
    return ns


def timeframe_text(interval_ns: int) -> str:
    """Nanoseconds in the largest unit that divides them: `60m` and `1h` are one timeframe."""
    for unit in ("d", "h", "m"):
        if interval_ns % _UNITS_NS[unit] == 0:
            return f"{interval_ns // _UNITS_NS[unit]}{unit}"
    return f"{interval_ns // _UNITS_NS['s']}s"


def _plain(value: Any) -> Any:
    if isinstance(value, Number):
        return value.value + 0.0  # -0.0 becomes 0.0
    if hasattr(value, "__dataclass_fields__"):
        return {"is": type(value).__name__, **{k: _plain(getattr(value, k)) for k in value.__dataclass_fields__}}
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return value


def canonical_json(spec: StrategySpec) -> str:
    """The meaning of a strategy as one line of JSON with sorted keys: what `content_hash` hashes."""
    plain = _plain(spec)
    del plain["name"], plain["description"]
    return json.dumps(plain, sort_keys=True, separators=(",", ":"))
