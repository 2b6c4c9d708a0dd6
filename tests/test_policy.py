"""The policy: every limit with its unit and bounds, mistakes that say what to write, YAML both ways, a digest of its meaning."""

from decimal import Decimal

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import UserError
from schemas.policy import DURATIONS_NS, ENTRIES, FRACTIONS, UNITS, Entry, Policy, compile_policy, parse_policy, parse_value, reference

BY_NAME = {entry.name: entry for entry in ENTRIES}
names = pytest.mark.parametrize("name", BY_NAME)


def bound(entry: Entry, which: str) -> int:
    return parse_value(entry, getattr(entry, which), "test")


def written(entry: Entry, value: int) -> str:
    """A value in the desk's units as text."""
    unit = {"fraction": " x", "duration": " ns"}.get(entry.unit, "")
    return f"{Decimal(value).scaleb(-8):f}{unit}" if entry.unit in ("fraction", "amount") else f"{value}{unit}"


@names
def test_a_default_lies_within_its_bounds(name: str) -> None:
    entry = BY_NAME[name]
    assert bound(entry, "low") <= bound(entry, "default") <= bound(entry, "high")
    assert compile_policy(Policy())[name][0] == bound(entry, "default")


@names
def test_bounds_are_inclusive_and_one_unit_beyond_is_refused(name: str) -> None:
    entry = BY_NAME[name]
    other = {"drawdown_halt": "100 %"} if name == "drawdown_reduce" else {"drawdown_reduce": "0.01 %"}
    for which, step in (("low", -1), ("high", 1)):
        value = bound(entry, which)
        assert compile_policy(Policy({**other, name: written(entry, value)}))[name][0] == value
        with pytest.raises(UserError, match=f'policy {name}: ".*" is (outside|not a)'):
            parse_policy({**other, name: written(entry, value + step)})


@names
def test_a_wrong_unit_is_an_error_that_shows_a_right_one(name: str) -> None:
    entry = BY_NAME[name]
    wrong = "5 min" if entry.unit != "duration" else "5 %"
    with pytest.raises(UserError, match=f'config policy {name}: "{wrong}"') as error:
        parse_policy_at(name, wrong)
    assert entry.default in str(error.value) and "\n" not in str(error.value)


def parse_policy_at(name: str, value: str) -> None:
    parse_value(BY_NAME[name], value, "config policy")


@pytest.mark.parametrize(("name", "text", "value"), [
    ("risk_per_trade", "1 %", UNITS // 100), ("risk_per_trade", "100bps", UNITS // 100), ("leverage_max", "1.5 x", 3 * UNITS // 2),
    ("latency", "50 ms", 50_000_000), ("latency", "1.5us", 1500), ("cooldown_after_loss", "15 min", 900 * 10**9),
    ("capital", "1_000_000", 10**6 * UNITS), ("capital", "2500 USDT", 2500 * UNITS), ("lot", ".5", UNITS // 2), ("positions_max", "7", 7),
    ("fee_maker", "-1 bps", -UNITS // 10_000),
])
def test_values_as_people_write_them(name: str, text: str, value: int) -> None:
    assert compile_policy(parse_policy({name: text}))[name][0] == value


@pytest.mark.parametrize(("document", "message"), [
    ({"risk_per_trad": "1 %"}, 'unknown policy key "risk_per_trad"; did you mean "risk_per_trade"?'),
    ({"risk_per_trade": "1"}, 'policy risk_per_trade: "1" has the wrong unit; write a fraction in %, bps or x, like "1 %"'),
    ({"latency": "50"}, 'policy latency: "50" has the wrong unit; write a duration in ns, us, ms, s, min, h, d, like "50 ms"'),
    ({"positions_max": "1.5"}, 'policy positions_max: "1.5" is not a whole number, like "10"'),
    ({"capital": True}, 'policy capital: "True" is not a value; write it like "100000"'),
    ({"capital": "a lot"}, 'policy capital: "a lot" is not a value; write it like "100000"'),
    ({"capital": "0"}, 'policy capital: "0" is outside 1 to 1000000000'),
    ({"version": 0}, 'policy version: "0" is not a whole number from 1'),
    ({"drawdown_reduce": "20 %"}, "policy drawdown_reduce is above drawdown_halt; sizes are halved before trading halts"),
    (["capital"], "policy is not a mapping of limits to values"),
])
def test_mistakes_say_what_is_wrong_and_what_to_write(document: object, message: str) -> None:
    with pytest.raises(UserError) as error:
        parse_policy(document)
    assert str(error.value) == message


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """A policy with any of its keys at any value within bounds."""
    values = {}
    for entry in draw(st.lists(st.sampled_from([e for e in ENTRIES if not e.name.startswith("drawdown")]), unique=True)):
        values[entry.name] = written(entry, draw(st.integers(bound(entry, "low"), bound(entry, "high"))))
    return Policy(values, draw(st.integers(1, 1000)))


@settings(max_examples=50)
@given(policies())
def test_yaml_round_trip(policy: Policy) -> None:
    again = parse_policy(yaml.safe_load(policy.to_yaml()))
    assert compile_policy(again).tobytes() == compile_policy(policy).tobytes()
    assert again.digest == policy.digest and again.to_yaml() == policy.to_yaml()


@settings(max_examples=50)
@given(policies(), policies())
def test_two_policies_have_one_digest_where_they_mean_the_same(one: Policy, other: Policy) -> None:
    assert (one.digest == other.digest) == (compile_policy(one).tobytes() == compile_policy(other).tobytes())


def test_a_digest_is_of_the_meaning_and_of_the_version() -> None:
    assert Policy({"risk_per_trade": "1 %"}).digest == Policy({"risk_per_trade": "100 bps"}).digest == Policy().digest
    assert Policy({"risk_per_trade": "1.01 %"}).digest != Policy().digest
    assert Policy(version=2).digest != Policy().digest


def test_nothing_is_the_default_and_the_reference_names_every_key() -> None:
    assert parse_policy(None) == Policy() and parse_policy({}).digest == Policy().digest
    lines = reference().splitlines()
    assert len(lines) == len(ENTRIES) + 2
    assert all(f"`{entry.name}`" in line for entry, line in zip(ENTRIES, lines[2:], strict=True))
    assert FRACTIONS["%"] * 100 == 1 and DURATIONS_NS["d"] == 86_400 * 10**9
