"""Strategies as YAML, both ways: `parse_strategy(to_yaml(spec), …) == spec`. Nothing here reads a file.

A condition or value is a number, a line of text (see `text`), or a mapping: `{all: [a, b]}`, `{any: [a, b]}`,
`{not: a}`, `{op: "<", left: a, right: b}` with any operator, `{lag: a, bars: n}`, `{min: [a, b]}`, `{max: [a, b]}`,
`{abs: a}`, `{feature: "rsi(14)", timeframe: 1h}`. A clause is given once where the strategy trades one side, or as
`{long: …, short: …}`; a stop, target or trail that is given once holds for both.
"""

import math
from typing import Any, cast

import yaml

from operators.strategies.rules import (
    ARITH_OPS,
    CALLS,
    CLAUSES,
    COMPARE_OPS,
    CROSS_OPS,
    DEPTH_MAX,
    AllOf,
    AnyOf,
    Arith,
    Call,
    CallName,
    Compare,
    Cross,
    Lag,
    Level,
    Limits,
    Node,
    Not,
    Number,
    Ref,
    Sides,
    StrategySpec,
)
from operators.strategies.text import parse_rule, rule_text
from operators.strategies.validation import Known, fail, registry, validated
from schemas.errors import UserError, unknown

DOCUMENT_BYTES_MAX = 1 << 20

_KEYS = ("name", "description", "timeframe", "side", *CLAUSES, "hold_bars", "cooldown_bars", "limits")
_LIMITS = ("allocation", "open_symbols_max", "trades_per_day_max")
_SHAPES = ({"all"}, {"any"}, {"not"}, {"op", "left", "right"}, {"lag", "bars"}, {"feature"}, {"feature", "timeframe"},
           *({call} for call in CALLS))


class _Loader(yaml.SafeLoader):
    """YAML without aliases (they blow up a small file) and without a key twice (the last would win silently)."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "aliases are not allowed", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f'"{key.value}" is given twice', key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(text: str, source_name: str) -> Any:
    """The plain values of a YAML text; UserError with source and line."""
    if len(text) > DOCUMENT_BYTES_MAX:
        raise UserError(f"{source_name}: {len(text)} characters; a strategy file has at most {DOCUMENT_BYTES_MAX}")
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f" line {mark.line + 1}" if mark else ""
        raise UserError(f"{source_name}{line}: not valid YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{source_name}: not valid YAML: {str(error).splitlines()[0]}") from None


def parse_strategy(yaml_text: str, source_name: str, known: Known = registry) -> StrategySpec:
    """The one strategy of a YAML text, validated and canonical; UserError with source and path."""
    found = parse_strategies(yaml_text, source_name, known)
    if len(found) != 1:
        raise UserError(f"{source_name}: {len(found)} strategies where one is expected")
    return found[0]


def parse_strategies(yaml_text: str, source_name: str, known: Known = registry) -> tuple[StrategySpec, ...]:
    """The strategies of a YAML text: one mapping, or a list of them."""
    document = read_yaml(yaml_text, source_name)
    several = document if isinstance(document, list) else [document]
    specs = []
    for i, data in enumerate(several):
        try:
            specs.append(from_data(data, known))
        except UserError as error:
            place = f"{source_name}: [{i}]." if isinstance(document, list) else f"{source_name}: "
            raise UserError(f"{place}{error}") from None
    return tuple(specs)


def from_data(data: Any, known: Known = registry) -> StrategySpec:
    """A strategy from plain values (what YAML or JSON holds)."""
    data = _mapping(data, "", _KEYS)
    for key in ("name", "timeframe", "entry"):
        if key not in data:
            fail(key, "missing")
    for key in ("name", "description", "timeframe"):
        if not isinstance(data.get(key, ""), str):
            fail(key, f'"{data[key]}" is not text; put it in quotes')
    split = {clause: _split(data.get(clause)) for clause in CLAUSES}
    side = data.get("side")
    if side is None:
        side = "long" if split["entry"] is None else "both" if len(split["entry"]) == 2 else next(iter(split["entry"]))
    if side not in ("long", "short", "both"):
        fail("side", f'"{side}" is not long, short or both')
    parsed = {clause: _clause(clause, data.get(clause), split[clause], side) for clause in CLAUSES}
    limits = _mapping(data.get("limits") or {}, "limits", _LIMITS)
    spec = StrategySpec(
        name=data["name"], timeframe=data["timeframe"], description=data.get("description", "").strip(),
        hold_bars=data.get("hold_bars", 0), cooldown_bars=data.get("cooldown_bars", 0), limits=Limits(**limits),
        **parsed)
    plain = frozenset(clause for clause in CLAUSES if split[clause] is None)
    return validated(spec, known, plain=plain)


def _mapping(data: Any, path: str, keys: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(data, dict):
        fail(path or "strategy", f'expected a mapping with the keys {", ".join(keys)}; found "{data}"')
    for key in data:
        if key not in keys:
            fail(f"{path}.{key}" if path else str(key), str(unknown("key", str(key), keys)))
    return data


def _split(part: Any) -> dict[str, Any] | None:
    """The mapping of a clause that is given per side, else None."""
    if isinstance(part, dict) and part and set(part) <= {"long", "short"}:
        return part
    return None


def _clause(clause: str, part: Any, split: dict[str, Any] | None, side: str) -> Sides[Any]:
    is_rule = clause in ("entry", "exit")
    read = node_from_data if is_rule else _level
    if part is None:
        return Sides()
    if split is not None:
        for key in split:
            if side not in (key, "both"):
                fail(f"{clause}.{key}", f"side is {side}; drop this or set side: both")
        if clause == "entry" and side == "both" and len(split) == 1:
            fail("entry", "side is both; give entry.long and entry.short")
        return Sides(**{key: read(value, f"{clause}.{key}") for key, value in split.items()})
    if side == "both":
        if is_rule:
            fail(clause, f"side is both; give {clause}.long and {clause}.short")
        level = read(part, clause)
        return Sides(level, level)
    return Sides(**{side: read(part, clause)})


def _level(data: Any, path: str) -> Level:
    if not isinstance(data, dict) or len(data) != 1:
        fail(path, f'expected one of distance, percent or price, such as {{distance: "2 * atr(14)"}}; found "{data}"')
    kind, value = next(iter(data.items()))
    return Level(kind, node_from_data(value, f"{path}.{kind}"))


def node_from_data(data: Any, path: str, depth: int = 0) -> Node:
    """A node from plain values; its names and types are checked later, by `validated`."""
    if depth > DEPTH_MAX:
        fail(path, f"the rule is more than {DEPTH_MAX} levels deep")
    if isinstance(data, int | float) and not isinstance(data, bool):
        if (isinstance(data, int) and abs(data) > 2**63) or not math.isfinite(data):
            fail(path, f'"{data}" is not a finite number')
        return Number(float(data))
    if isinstance(data, str):
        try:
            return parse_rule(data)
        except UserError as error:
            fail(path, str(error))
    if not isinstance(data, dict):
        fail(path, f'expected a number, a rule such as "rsi(14) < 30" or a mapping; found "{data}"')
    if set(data) not in _SHAPES:
        shown = ", ".join(str(key) for key in data)
        fail(path, f'no node has the keys "{shown}"; known: all | any | not | op, left, right | lag, bars | feature, '
                   "timeframe | min | max | abs")

    def below(value: Any, step: str) -> Node:
        return node_from_data(value, f"{path}.{step}", depth + 1)

    if "op" in data:
        return _operator(data["op"], below(data["left"], "left"), below(data["right"], "right"), path)
    if "lag" in data:
        return Lag(below(data["lag"], "lag"), data["bars"])
    if "feature" in data:
        if not isinstance(data["feature"], str) or not isinstance(data.get("timeframe", ""), str):
            fail(path, "feature and timeframe are text")
        return Ref(data["feature"], data.get("timeframe"))
    if "not" in data:
        return Not(below(data["not"], "not"))
    key = next(iter(data))
    args = data[key] if isinstance(data[key], list) else [data[key]]
    nodes = tuple(below(arg, f"{key}[{i}]") for i, arg in enumerate(args))
    if key in CALLS:
        return Call(cast(CallName, key), nodes)
    if len(nodes) == 1:
        return nodes[0]
    return AllOf(nodes) if key == "all" else AnyOf(nodes)


def _operator(op: Any, left: Node, right: Node, path: str) -> Node:
    if op in COMPARE_OPS:
        return Compare(op, left, right)
    if op in CROSS_OPS:
        return Cross(op, left, right)
    if op not in ARITH_OPS:
        fail(path, str(unknown("operator", str(op), (*COMPARE_OPS, *ARITH_OPS, *CROSS_OPS))))
    return Arith(op, left, right)


def node_to_data(node: Node) -> Any:
    """A node as plain values in the mapping form: what a generator or an editor of trees works on."""
    if isinstance(node, Number):
        return node.value
    if isinstance(node, Ref):
        return {"feature": node.name} if node.timeframe is None else {"feature": node.name, "timeframe": node.timeframe}
    if isinstance(node, Arith | Compare | Cross):
        return {"op": node.op, "left": node_to_data(node.left), "right": node_to_data(node.right)}
    if isinstance(node, Lag):
        return {"lag": node_to_data(node.arg), "bars": node.bars}
    if isinstance(node, Not):
        return {"not": node_to_data(node.arg)}
    key = node.name if isinstance(node, Call) else "all" if isinstance(node, AllOf) else "any"
    return {key: [node_to_data(arg) for arg in node.args]}


def to_data(spec: StrategySpec) -> dict[str, Any]:
    """A strategy as plain values, rules as text; `from_data` reads it back."""
    data: dict[str, Any] = {"name": spec.name}
    if spec.description:
        data["description"] = spec.description
    data |= {"timeframe": spec.timeframe, "side": spec.side}
    for clause in CLAUSES:
        sides = getattr(spec, clause)
        given = {side: _part_to_data(part) for side in ("long", "short") if (part := getattr(sides, side)) is not None}
        if not given:
            continue
        once = spec.side != "both" or (clause not in ("entry", "exit") and sides.long == sides.short)
        data[clause] = next(iter(given.values())) if once else given
    data |= {key: getattr(spec, key) for key in ("hold_bars", "cooldown_bars") if getattr(spec, key)}
    limits = {key: getattr(spec.limits, key) for key in _LIMITS if getattr(spec.limits, key) is not None}
    return data | ({"limits": limits} if limits else {})


def _part_to_data(part: Node | Level) -> Any:
    if isinstance(part, Level):
        return {part.kind: _part_to_data(part.value)}
    if isinstance(part, Number):
        return int(part.value) if part.value == int(part.value) and abs(part.value) < 1e15 else part.value
    return rule_text(part)


def to_yaml(spec: StrategySpec) -> str:
    """A strategy as YAML that a person would write; `parse_strategy` reads it back."""
    return yaml.safe_dump(to_data(spec), sort_keys=False, width=120, allow_unicode=True)
