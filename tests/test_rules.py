"""The rule language: what may be written, how it is read, and what is said about each mistake."""

import re
from pathlib import Path

import pytest

from operators.strategies.builtin import BUILTINS, builtin
from operators.strategies.documents import parse_strategies, parse_strategy, to_yaml
from operators.strategies.intents import CONFLICTS
from operators.strategies.rules import (
    BAR_COLUMNS,
    AllOf,
    AnyOf,
    Arith,
    Compare,
    Cross,
    Lag,
    Not,
    Number,
    Ref,
    Sides,
    StrategySpec,
    references,
    required_features,
    timeframe_ns,
    timeframe_text,
)
from operators.strategies.text import parse_rule, rule_text, to_text
from operators.strategies.validation import known_names, validated
from schemas.errors import UserError

MINUTE = 60 * 10**9
KNOWN = known_names(["rsi(14)", "ema(10)", "ema(30)", "atr(14)", "bollinger(20,2).lower"])
HEAD = "name: test\ntimeframe: 1m\n"


def read(body: str, head: str = HEAD) -> StrategySpec:
    return parse_strategy(head + body, "my.yaml", KNOWN)


@pytest.mark.parametrize(("text", "tree"), [
    ("rsi(14) < 30", Compare("<", Ref("rsi(14)"), Number(30.0))),
    ("1h:rsi( 14 ) >= -1.5e1", Compare(">=", Ref("rsi(14)", "1h"), Number(-15.0))),
    ("close<bollinger(20,2).lower", Compare("<", Ref("close"), Ref("bollinger(20,2).lower"))),
    ("a > 1 and b > 2 or not c > 3", AnyOf((
        AllOf((Compare(">", Ref("a"), Number(1.0)), Compare(">", Ref("b"), Number(2.0)))),
        Not(Compare(">", Ref("c"), Number(3.0)))))),
    ("20 < x < 30", AllOf((Compare("<", Number(20.0), Ref("x")), Compare("<", Ref("x"), Number(30.0))))),
    ("a - b - c * -d > 0", Compare(">", Arith(
        "-", Arith("-", Ref("a"), Ref("b")), Arith("*", Ref("c"), Arith("-", Number(0.0), Ref("d")))), Number(0.0))),
    ("a / (b / c) == lag(close, 3)", Compare(
        "==", Arith("/", Ref("a"), Arith("/", Ref("b"), Ref("c"))), Lag(Ref("close"), 3))),
    ("crosses_above(ema(10), ema(30))", Cross("crosses_above", Ref("ema(10)"), Ref("ema(30)"))),
])
def test_text_is_read_by_the_usual_precedence(text: str, tree: object) -> None:
    assert parse_rule(text) == tree
    assert parse_rule(rule_text(parse_rule(text))) == tree


@pytest.mark.parametrize(("text", "message"), [
    ("rsi(14) <", 'expected a value, found the end, at character 10 of "rsi(14) <"'),
    ("rsi(14) < 30 and", "expected a value, found the end, at character 17"),
    ("rsi(14) = 30", '"=" has no meaning here, at character 9'),
    ("(rsi(14) < 30", 'expected ")", found the end, at character 14'),
    ("rsi(14) < 30 close > 2", 'expected the end or an operator, found "close", at character 14'),
    ("lag(close, 2.5) > 1", 'expected a whole number of bars, found "2.5"'),
    ("__import__('os').system('x')", 'expected the end or an operator, found "("'),
    ("(" * 100 + "close", "brackets too deep"),
    ("x" * 5000, "at most 4096"),
])
def test_text_that_cannot_be_read_says_where(text: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        parse_rule(text)
    assert message in str(error.value)


@pytest.mark.parametrize(("body", "message"), [
    ('entry: {all: [rsi(14) > 3, rsj(14) < 30]}\nhold_bars: 3',
     'my.yaml: entry.all[1].left: unknown feature "rsj(14)"; did you mean "rsi(14)"?'),
    ('entry: rsi(14) > 3 and not (close < 5 or 2 < abs(emu(10)))\nhold_bars: 3',
     'entry.all[1].not.any[1].right.abs[0]: unknown feature "emu(10)"; did you mean "ema(10)"?'),
    ("entry: {short: rsi(14)}\nhold_bars: 1", 'entry.short: expected a condition, found the number "rsi(14)"'),
    ("entry: (rsi(14) > 3) + 1 > 2\nhold_bars: 1", 'entry.left.left: expected a number, found the condition "rsi(14) > 3"'),
    ("entry: 2 > 1\nhold_bars: 1", 'entry: "2 > 1" compares two constants'),
    ("entry: rsi(14) <\nhold_bars: 1", "entry: expected a value, found the end, at character 10"),
    ("entry: close > lag(close, 501)\nhold_bars: 1", "entry.right: lag of 501 bars is not between 1 and 500"),
    ("entry: close / 0 > 1\nhold_bars: 1", 'entry.left: "close / 0" divides by 0'),
    ("entry: close > 90m5:close\nhold_bars: 1", "entry: expected"),
    ("entry: close > 9d:close\nhold_bars: 1", 'entry.right: timeframe "9d" is not between 1s and 7d'),
    ("entry: close > 1", "exit: a long position has no way out; give exit, stop, target, trail or hold_bars"),
    ("entry: close > 1\nstop: {distance: 0}", "stop.distance: 0 is not positive"),
    ("entry: close > 1\nstop: 5", "stop: expected one of distance, percent or price"),
    ("entry: close > 1\ntrail: {price: close}", 'trail: unknown kind "price"; give distance or percent'),
    ("entry: close > 1\nexit: {short: close < 1}\nstop: {percent: 1}", "exit.short: side is long; drop this or set side: both"),
    ("entry: close > 1\nside: both\nhold_bars: 1", "entry: side is both; give entry.long and entry.short"),
    ("entry: close > 1\nside: up\nhold_bars: 1", 'side: "up" is not long, short or both'),
    ("entry: close > 1\nhold_bars: -1", 'hold_bars: "-1" is not a whole number from 0 to 100000'),
    ("entry: close > 1\nhold_bars: 1\ncooldown_bars: 1.5", 'cooldown_bars: "1.5" is not a whole number'),
    ("entry: close > 1\nhold_bars: 1\nlimits: {allocation: 1.2}", 'limits.allocation: "1.2" is not a share above 0 and up to 1'),
    ("entry: close > 1\nhold_bars: 1\nlimits: {open_symbols_max: 0}", 'limits.open_symbols_max: "0" is not a whole number from 1'),
    ("entry: close > 1\nexti: close < 1", 'exti: unknown key "exti"; did you mean "exit"?'),
    ("entry: {ani: [close > 1]}\nhold_bars: 1", 'entry: no node has the keys "ani"'),
    ('entry: {op: "=<", left: close, right: 1}\nhold_bars: 1', 'entry: unknown operator "=<"'),
    ("entry: {feature: rsi(14), timeframe: 5}\nhold_bars: 1", "entry: feature and timeframe are text"),
    ("entry: yes\nhold_bars: 1", 'entry: expected a number, a rule such as "rsi(14) < 30" or a mapping; found "True"'),
    ("entry: {lag: close, bars: two}\nhold_bars: 1", "entry: lag of two bars"),
    ("entry: .inf\nhold_bars: 1", 'entry: "inf" is not a finite number'),
    ("hold_bars: 1", "entry: missing"),
    ("entry: close > 1\nentry: close > 2\nhold_bars: 1", 'my.yaml line 4: not valid YAML: "entry" is given twice'),
    ("entry: [close > 1", "my.yaml line "),
    ("entry: &a close > 1\nexit: *a", "my.yaml line 4: not valid YAML: aliases are not allowed"),
])
def test_a_mistake_in_a_strategy_names_the_node(body: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        read(body)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("my.yaml")


@pytest.mark.parametrize(("head", "message"), [
    ("name: Not A Name\ntimeframe: 1m\n", 'name: "Not A Name" is not a name of lower-case letters'),
    ("name: test\ntimeframe: 0m\n", 'timeframe: timeframe "0m" is not between 1s and 7d'),
    ("name: 7\ntimeframe: 1m\n", 'name: "7" is not text'),
    ("timeframe: 1m\n", "name: missing"),
])
def test_a_mistake_in_the_head(head: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        read("entry: close > 1\nhold_bars: 1", head)
    assert message in str(error.value)


@pytest.mark.parametrize(("text", "message"), [("", "expected a mapping"), ("just text", "expected a mapping"), ("[]", "0 strategies")])
def test_a_file_that_holds_no_strategy(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_strategy(text, "my.yaml", KNOWN)


def test_a_deep_or_large_tree_is_refused() -> None:
    deep = "close > 1"
    for _ in range(40):
        deep = f"not {deep}"
    with pytest.raises(UserError, match="more than 32 levels deep"):
        read(f"entry: {deep}\nhold_bars: 1")
    with pytest.raises(UserError, match="more than 512 nodes"):
        read("entry: " + " or ".join(["close > 1"] * 200) + "\nhold_bars: 1")


def test_every_way_of_writing_gives_the_same_strategy() -> None:
    line = read("entry: rsi(14) < 30 and close < 1h:ema(10)\nexit: rsi(14) > 70")
    tree = read('exit: {op: ">", left: {feature: rsi(14)}, right: 70}\nside: long\n'
                'entry: {long: {all: [rsi(14) < 30, {op: "<", left: close, right: {feature: ema( 10 ), timeframe: 60m}}]}}')
    own = read("entry: 60s:rsi(14) < 30 and close < 1h:ema(10)\nexit: rsi(14) > 70.0", "name: other\ntimeframe: 60s\n")
    assert line.content_hash() == tree.content_hash() == own.content_hash()
    assert line == tree
    assert line.side == "long"


def test_the_hash_of_a_strategy_stays_what_it_was() -> None:
    """Stored decisions name strategies by it: if this fails, either undo the change or give the canonical form a version."""
    assert read("entry: rsi(14) < 30\nexit: rsi(14) > 70").content_hash() == "9773fe102a5ddba9"


def test_levels_once_or_per_side() -> None:
    both = read("entry: {long: close > 2, short: close < 1}\nstop: {percent: 2}\ntarget: {long: {price: 2 * close}}")
    assert both.stop == Sides(both.stop.long, both.stop.long)
    assert both.target.short is None
    assert parse_strategy(to_yaml(both), "again", KNOWN) == both


def test_several_strategies_in_one_file() -> None:
    text = "- {name: a, timeframe: 1m, entry: close > 1, hold_bars: 1}\n- {name: b, timeframe: 1m, entry: clos > 1, hold_bars: 1}"
    with pytest.raises(UserError, match=r'^two.yaml: \[1\].entry.left: unknown feature "clos"'):
        parse_strategies(text, "two.yaml", KNOWN)
    assert [spec.name for spec in parse_strategies(text.replace("clos ", "close "), "two.yaml", KNOWN)] == ["a", "b"]


def test_what_must_be_computed() -> None:
    a = read("entry: rsi(14) < 30 and close < 1h:ema(10)\nexit: rsi(14) > 70")
    b = read("entry: close < open\nhold_bars: 1", "name: b\ntimeframe: 5m\n")
    assert required_features([a, b]) == {MINUTE: ("rsi(14)",), 60 * MINUTE: ("ema(10)",), 5 * MINUTE: ()}
    assert references(a) == (Ref("rsi(14)"), Ref("close"), Ref("ema(10)", "1h"))


def test_timeframes() -> None:
    assert [timeframe_ns(text) for text in ("1s", "15m", "4h", "7d")] == [10**9, 15 * MINUTE, 240 * MINUTE, 7 * 1440 * MINUTE]
    assert [timeframe_text(timeframe_ns(text)) for text in ("60s", "90m", "24h")] == ["1m", "90m", "1d"]
    for text in ("", "m", "1w", "8d", "-1m", "01m", "1 m"):
        with pytest.raises(UserError, match="is not between 1s and 7d"):
            timeframe_ns(text)


def test_programmatic_trees_are_validated_too() -> None:
    good = StrategySpec("x", "1m", Sides(long=Compare(">", Ref("close"), Number(1))), hold_bars=1)
    assert validated(good, KNOWN).entry.long == Compare(">", Ref("close"), Number(1.0))
    with pytest.raises(UserError, match=r"^entry.long: \"and\" |^entry.long.right: .*not a finite"):
        validated(StrategySpec("x", "1m", Sides(long=Compare(">", Ref("close"), Number(float("nan")))), hold_bars=1), KNOWN)
    with pytest.raises(UserError, match="^entry: missing"):
        validated(StrategySpec("x", "1m", Sides(), hold_bars=1), KNOWN)
    with pytest.raises(UserError, match='^entry.long: "all" needs two conditions or more, found 0'):
        validated(StrategySpec("x", "1m", Sides(long=AllOf(())), hold_bars=1), KNOWN)


@pytest.mark.parametrize("name", BUILTINS)
def test_built_in_strategies_are_written_in_the_language(name: str) -> None:
    spec = builtin(name)
    assert spec.name == name
    assert spec.description
    assert parse_strategy(to_yaml(spec), "again") == spec
    assert to_text(spec).startswith(f"{name} (")


def test_an_unknown_built_in_suggests_the_nearest() -> None:
    with pytest.raises(UserError, match='unknown strategy "ema_crss"; did you mean "ema_cross"'):
        builtin("ema_crss")


def test_the_registry_is_asked_for_names() -> None:
    spec = parse_strategy(HEAD + "entry: rsi() < 30 and macd(12, 26, 9).signal > 0\nhold_bars: 1", "my.yaml")
    assert [ref.name for ref in references(spec)] == ["rsi(14)", "macd(12,26,9).signal"]
    with pytest.raises(UserError, match=r'my.yaml: entry.left: unknown feature "rsj\(14\)"; did you mean "rsi\(14\)"\?'):
        parse_strategy(HEAD + "entry: rsj(14) < 30\nhold_bars: 1", "my.yaml")
    with pytest.raises(UserError, match="my.yaml: entry.left: feature"):
        parse_strategy(HEAD + "entry: rsi(0) < 30\nhold_bars: 1", "my.yaml")


def test_the_how_to_is_true() -> None:
    """Every YAML block of docs/strategies.md is a strategy, and its Python runs."""
    page = (Path(__file__).parents[1] / "docs" / "strategies.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```(\w+)\n(.*?)```", page, re.DOTALL)
    strategies = [parse_strategy(text, "docs/strategies.md") for kind, text in blocks if kind == "yaml"]
    assert [spec.name for spec in strategies] == ["dip_in_uptrend", "tree", "always_in"]
    for text in (text for kind, text in blocks if kind == "python"):
        exec(compile(text, "docs/strategies.md", "exec"), {})
    assert all(f"`{name}`" in page for name in CONFLICTS)
    assert all(name in page for name in BAR_COLUMNS)
