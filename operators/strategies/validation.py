"""What a strategy must satisfy before it is compiled, and its canonical form.

`validated` returns a spec of the same meaning whose feature names are canonical and whose references to its own
timeframe are bare, or raises one UserError that begins with the node's path: `entry.all[1].left: unknown feature …`.
"""

import difflib
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from typing import Any, NoReturn, cast

from operators.strategies.rules import (
    ARITH_OPS,
    BAR_COLUMNS,
    CALLS,
    CLAUSES,
    COMPARE_OPS,
    CONDITIONS,
    COOLDOWN_BARS_MAX,
    CROSS_OPS,
    DEPTH_MAX,
    HOLD_BARS_MAX,
    LAG_BARS_MAX,
    NODES_MAX,
    AllOf,
    AnyOf,
    Arith,
    Call,
    Compare,
    Lag,
    Level,
    Limits,
    Node,
    Not,
    Number,
    Ref,
    Sides,
    StrategySpec,
    timeframe_ns,
    timeframe_text,
    walk,
)
from operators.strategies.text import rule_text
from schemas.errors import UserError, unknown

Known = Callable[[str], str]
"""A feature name to its canonical form; UserError with a suggestion where there is no such feature."""

_COUNTS = {"open_symbols_max": 10_000, "trades_per_day_max": 100_000}
_LEVEL_KINDS = {"stop": ("distance", "percent", "price"), "target": ("distance", "percent", "price"),
                "trail": ("distance", "percent")}


def registry(name: str) -> str:
    """The canonical form of a feature of `operators.market.features`."""
    from operators.market.features.registry import FEATURES, parse

    head = name.partition("(")[0].partition(".")[0]
    if head not in FEATURES:
        near = difflib.get_close_matches(head, (*FEATURES, *BAR_COLUMNS), n=1, cutoff=0.5)
        hint = f'did you mean "{near[0]}{name[len(head):]}"?' if near else "penstock features list shows them all"
        raise UserError(f'unknown feature "{name}"; {hint}')
    request = parse(name)
    return request.feature.columns(request.values)[request.output]


def known_names(names: Iterable[str]) -> Known:
    """A `Known` that accepts exactly these names."""
    accepted = frozenset(names)

    def known(name: str) -> str:
        if name not in accepted:
            raise unknown("feature", name, accepted)
        return name

    return known


def fail(path: str, what: str) -> NoReturn:
    """The one way in which a strategy's mistake is said."""
    raise UserError(f"{path}: {what}")


class _Checker:
    """Rebuilds a tree in canonical form, node by node, counting as it goes."""

    def __init__(self, timeframe: str, known: Known) -> None:
        self.timeframe = timeframe
        self.known = known
        self.nodes = 0

    def condition(self, node: Node, path: str, depth: int = 0) -> Node:
        if not isinstance(node, CONDITIONS):
            self.number(node, path, depth)
            fail(path, f'expected a condition, found the number "{rule_text(node)}"; compare it, for example with > 0')
        self.count(path, depth)
        deeper = depth + 1
        if isinstance(node, AllOf | AnyOf):
            word = "all" if isinstance(node, AllOf) else "any"
            if len(node.args) < 2:
                fail(path, f'"{word}" needs two conditions or more, found {len(node.args)}')
            return type(node)(tuple(
                self.condition(arg, f"{path}.{word}[{i}]", deeper) for i, arg in enumerate(node.args)))
        if isinstance(node, Not):
            return Not(self.condition(node.arg, f"{path}.not", deeper))
        if node.op not in (COMPARE_OPS if isinstance(node, Compare) else CROSS_OPS):
            fail(path, f'unknown operator "{node.op}"')
        left = self.number(node.left, f"{path}.left", deeper)
        right = self.number(node.right, f"{path}.right", deeper)
        if not any(isinstance(n, Ref) for side in (left, right) for n in walk(side)):
            fail(path, f'"{rule_text(node)}" compares two constants; name a feature or a bar column')
        return replace(node, left=left, right=right)

    def number(self, node: Node, path: str, depth: int = 0) -> Node:
        if isinstance(node, CONDITIONS):
            fail(path, f'expected a number, found the condition "{rule_text(node)}"')
        self.count(path, depth)
        deeper = depth + 1
        if isinstance(node, Number):
            return self.constant(node, path)
        if isinstance(node, Ref):
            return self.reference(node, path)
        if isinstance(node, Lag):
            if type(node.bars) is not int or not 1 <= node.bars <= LAG_BARS_MAX:
                fail(path, f"lag of {node.bars} bars is not between 1 and {LAG_BARS_MAX}")
            return Lag(self.number(node.arg, f"{path}.lag", deeper), node.bars)
        if isinstance(node, Call):
            if node.name not in CALLS or len(node.args) != CALLS[node.name]:
                fail(path, f'"{node.name}" of {len(node.args)}; there are min and max of two values and abs of one')
            return Call(node.name, tuple(
                self.number(arg, f"{path}.{node.name}[{i}]", deeper) for i, arg in enumerate(node.args)))
        if isinstance(node, Arith):
            if node.op not in ARITH_OPS:
                fail(path, f'unknown operator "{node.op}"')
            left = self.number(node.left, f"{path}.left", deeper)
            right = self.number(node.right, f"{path}.right", deeper)
            if node.op == "/" and right == Number(0.0):
                fail(path, f'"{rule_text(node)}" divides by 0')
            return replace(node, left=left, right=right)
        fail(path, f"{node!r} is not a node of the rule language")

    def count(self, path: str, depth: int) -> None:
        self.nodes += 1
        if depth >= DEPTH_MAX:
            fail(path, f"the rule is more than {DEPTH_MAX} levels deep")
        if self.nodes > NODES_MAX:
            fail(path, f"the strategy has more than {NODES_MAX} nodes")

    def constant(self, node: Number, path: str) -> Number:
        if isinstance(node.value, bool) or not isinstance(node.value, int | float) or not math.isfinite(node.value):
            fail(path, f'"{node.value}" is not a finite number')
        return Number(float(node.value) + 0.0)

    def reference(self, node: Ref, path: str) -> Ref:
        timeframe = node.timeframe
        name = re.sub(r"\s+", "", node.name)
        try:
            if timeframe is not None:
                timeframe = timeframe_text(timeframe_ns(timeframe))
            if name not in BAR_COLUMNS:
                name = self.known(name)
        except UserError as error:
            fail(path, str(error))
        return Ref(name, None if timeframe == self.timeframe else timeframe)

    def level(self, level: Level, clause: str, path: str) -> Level:
        kinds = _LEVEL_KINDS[clause]
        if level.kind not in kinds:
            fail(path, f'unknown kind "{level.kind}"; give {", ".join(kinds[:-1])} or {kinds[-1]}')
        value = self.number(level.value, f"{path}.{level.kind}")
        if isinstance(value, Number) and value.value <= 0:
            fail(f"{path}.{level.kind}", f'{rule_text(value)} is not positive')
        return Level(level.kind, value)


def validated(spec: StrategySpec, known: Known = registry, *, plain: frozenset[str] = frozenset()) -> StrategySpec:
    """The spec in canonical form; UserError with the node's path. `plain`: clauses that were written without a side."""
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,63}", spec.name):
        fail("name", f'"{spec.name}" is not a name of lower-case letters, digits and _ (64 at most, a letter first)')
    try:
        timeframe = timeframe_text(timeframe_ns(spec.timeframe))
    except UserError as error:
        fail("timeframe", str(error))
    checker = _Checker(timeframe, known)
    if spec.entry == Sides():
        fail("entry", "missing; give a condition, or one each for long and short")
    checked: dict[str, Sides[Any]] = {}
    for clause in CLAUSES:
        sides: dict[str, Any] = {}
        for side in ("long", "short"):
            part = getattr(getattr(spec, clause), side)
            if part is None:
                continue
            path = clause if clause in plain else f"{clause}.{side}"
            if getattr(spec.entry, side) is None:
                fail(path, f"there is no entry.{side} that it could belong to")
            sides[side] = (checker.level(part, clause, path) if isinstance(part, Level)
                           else checker.condition(part, path))
        checked[clause] = Sides(**sides)
    _check_bounds(spec)
    _check_way_out(spec)
    return replace(spec, timeframe=timeframe, **cast(Any, checked))


def _check_way_out(spec: StrategySpec) -> None:
    for side, other in (("long", "short"), ("short", "long")):
        if getattr(spec.entry, side) is None or spec.hold_bars or getattr(spec.entry, other) is not None:
            continue
        if not any(getattr(getattr(spec, clause), side) for clause in CLAUSES[1:]):
            fail("exit", f"a {side} position has no way out; give exit, stop, target, trail or hold_bars")


def _check_bounds(spec: StrategySpec) -> None:
    for name, most in (("hold_bars", HOLD_BARS_MAX), ("cooldown_bars", COOLDOWN_BARS_MAX)):
        _whole(name, getattr(spec, name), 0, most)
    for limit in fields(Limits):
        value = getattr(spec.limits, limit.name)
        if value is None:
            continue
        if limit.name == "allocation":
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
                fail("limits.allocation", f'"{value}" is not a share above 0 and up to 1')
        else:
            _whole(f"limits.{limit.name}", value, 1, _COUNTS[limit.name])


def _whole(path: str, value: object, least: int, most: int) -> None:
    if type(value) is not int or not least <= value <= most:
        fail(path, f'"{value}" is not a whole number from {least} to {most}')
