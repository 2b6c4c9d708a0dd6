"""Laws of the rule language over generated strategies: text and YAML read back, the hash depends on the meaning alone."""

import json
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from operators.strategies.documents import from_data, node_from_data, node_to_data, parse_strategy, to_data, to_yaml
from operators.strategies.rules import (
    COMPARE_OPS,
    CROSS_OPS,
    AllOf,
    AnyOf,
    Arith,
    Call,
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
    walk,
)
from operators.strategies.text import parse_rule, rule_text, to_text
from operators.strategies.validation import known_names, validated

FEATURES = ("f(1)", "g(2,1.5).x")
KNOWN = known_names(FEATURES)
TIMEFRAMES = ("1m", "5m")

small = st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0])
wide = st.floats(allow_nan=False, allow_infinity=False).map(lambda v: v + 0.0)


def refs(timeframe: str) -> st.SearchStrategy[Ref]:
    """Features and bar columns, of this timeframe and another."""
    other = next(t for t in TIMEFRAMES if t != timeframe)
    return st.builds(Ref, st.sampled_from([*FEATURES, "close", "high"]), st.sampled_from([None, None, other]))


def numbers(timeframe: str, constants: st.SearchStrategy[float] = small) -> st.SearchStrategy[Node]:
    def deeper(inner: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
        pair = st.tuples(inner, inner)
        return st.one_of(
            st.builds(Arith, st.sampled_from("+-*"), inner, inner),
            st.builds(Arith, st.just("/"), inner, inner.filter(lambda n: n != Number(0.0))),
            st.builds(Call, st.sampled_from(["min", "max"]), pair),
            st.builds(lambda arg: Call("abs", (arg,)), inner),
            st.builds(Lag, inner, st.integers(1, 3)),
        )

    leaf: st.SearchStrategy[Node] = st.one_of(refs(timeframe), refs(timeframe), st.builds(Number, constants))
    return st.recursive(leaf, deeper, max_leaves=3)


def conditions(timeframe: str, constants: st.SearchStrategy[float] = small) -> st.SearchStrategy[Node]:
    value = numbers(timeframe, constants)

    def names_something(node: Node) -> bool:
        return any(isinstance(n, Ref) for n in walk(node))

    leaf: st.SearchStrategy[Node] = st.one_of(
        st.builds(Compare, st.sampled_from(COMPARE_OPS), value, value),
        st.builds(Cross, st.sampled_from(CROSS_OPS), value, value),
    ).filter(names_something)

    def deeper(inner: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
        some = st.lists(inner, min_size=2, max_size=3).map(tuple)
        return st.one_of(st.builds(AllOf, some), st.builds(AnyOf, some), st.builds(Not, inner))

    return st.recursive(leaf, deeper, max_leaves=4)


@st.composite
def specs(draw: st.DrawFn, name: str = "generated") -> StrategySpec:
    """A valid, canonical strategy on 1m or 5m."""
    timeframe = draw(st.sampled_from(TIMEFRAMES))
    rule = conditions(timeframe)
    trades = draw(st.sampled_from([("long",), ("short",), ("long", "short")]))

    def sides(part: st.SearchStrategy[Any], chance: int) -> Sides[Any]:
        return Sides(**{side: draw(part) for side in trades if draw(st.integers(0, 9)) < chance})

    distance = st.sampled_from([Number(0.5), Number(1.0), Number(2.0), Ref("f(1)"), Arith("*", Number(2.0), Ref("f(1)"))])
    level = st.one_of(
        st.builds(Level, st.sampled_from(["distance", "percent"]), distance),
        st.builds(Level, st.just("price"), st.just(Arith("+", Ref("close"), Ref("g(2,1.5).x")))))
    spec = StrategySpec(
        name=name, timeframe=timeframe, entry=sides(rule, 10), exit=sides(rule, 5), stop=sides(level, 3),
        target=sides(level, 3), trail=sides(st.builds(Level, st.sampled_from(["distance", "percent"]), distance), 3),
        hold_bars=draw(st.sampled_from([0, 1, 3])) if len(trades) == 2 else draw(st.sampled_from([1, 2, 5])),
        cooldown_bars=draw(st.sampled_from([0, 0, 1, 2])),
        limits=Limits(open_symbols_max=draw(st.sampled_from([None, 3])), trades_per_day_max=draw(st.sampled_from([None, 9]))),
        description=draw(st.sampled_from(["", "What it does: buys low.", "è 'quoted' #"])),
    )
    return validated(spec, KNOWN)


@given(conditions("1m", wide))
def test_a_rule_reads_back_from_its_text(rule: Node) -> None:
    assert parse_rule(rule_text(rule)) == rule


@given(numbers("1m", wide))
def test_a_number_reads_back_from_its_text(node: Node) -> None:
    assert parse_rule(rule_text(node)) == node


@given(conditions("1m", wide))
def test_a_rule_reads_back_from_its_tree_through_json(rule: Node) -> None:
    assert node_from_data(json.loads(json.dumps(node_to_data(rule))), "entry") == rule


@settings(max_examples=60)
@given(specs())
def test_a_strategy_reads_back_from_its_yaml(spec: StrategySpec) -> None:
    again = parse_strategy(to_yaml(spec), "generated.yaml", KNOWN)
    assert again == spec
    assert again.content_hash() == spec.content_hash()
    assert spec.content_hash() in to_text(spec)


@settings(max_examples=30)
@given(specs(), st.randoms(use_true_random=False))
def test_the_order_of_keys_does_not_matter(spec: StrategySpec, random: Any) -> None:
    def shuffled(data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        keys = list(data)
        random.shuffle(keys)
        return {key: shuffled(data[key]) for key in keys}

    assert from_data(shuffled(to_data(spec)), KNOWN).content_hash() == spec.content_hash()


@settings(max_examples=30)
@given(specs(), specs())
def test_the_hash_is_equal_where_the_meaning_is(one: StrategySpec, other: StrategySpec) -> None:
    renamed = replace(other, name=one.name, description=one.description)
    assert (renamed == one) == (one.content_hash() == other.content_hash())
