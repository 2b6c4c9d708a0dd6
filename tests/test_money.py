"""Exact money against Python's integers and decimals; ids as functions of content."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import UserError
from schemas.ids import fold, id_text, name_id, name_ids
from schemas.money import UNITS, UNITS_MAX, div_units, mul_div, mul_units, parse_units, to_decimal, to_units

INT64 = st.integers(-UNITS_MAX, UNITS_MAX)
UINT64 = st.integers(0, 2**64 - 1)


@given(a=INT64, b=INT64)
def test_mul_units_is_the_floor_of_the_exact_product(a: int, b: int) -> None:
    exact = a * b // UNITS
    if abs(exact) <= UNITS_MAX:
        assert mul_units(a, b) == exact


@given(a=st.integers(-UNITS_MAX, UNITS_MAX), b=st.integers(-10**9, 10**9))
def test_mul_units_of_a_large_and_a_small_amount(a: int, b: int) -> None:
    if abs(exact := a * b // UNITS) <= UNITS_MAX:
        assert mul_units(a, b) == mul_units(b, a) == exact


@given(a=INT64, b=st.integers(1, 2**59))
def test_div_units_is_the_truncated_exact_quotient(a: int, b: int) -> None:
    exact = abs(a) * UNITS // b
    if exact <= UNITS_MAX:
        assert div_units(a, b) == (exact if a >= 0 else -exact)


@given(a=INT64, b=st.integers(1, UNITS_MAX), c=st.integers(1, UNITS_MAX))
def test_mul_div_is_the_floor_of_the_exact_quotient(a: int, b: int, c: int) -> None:
    if abs(exact := a * b // c) <= UNITS_MAX:
        assert mul_div(a, b, c) == exact


@given(a=INT64, b=st.integers(1, UNITS_MAX))
def test_a_share_of_all_is_all(a: int, b: int) -> None:
    assert mul_div(a, b, b) == a


@given(units=st.integers(-(2**50), 2**50))
def test_a_float_as_it_is_written_gives_its_units(units: int) -> None:
    assert to_units(float(to_decimal(units))) == units


@given(x=st.floats(-1e7, 1e7))
def test_a_float_goes_to_the_nearest_unit(x: float) -> None:
    assert abs(Fraction(x) * UNITS - to_units(x)) <= Fraction(1, 2) + abs(Fraction(x)) * UNITS / 2**52
    assert to_units(-x) == -to_units(x)


def test_half_a_unit_goes_away_from_zero() -> None:
    assert [to_units(x) for x in (0.5e-8, 2.5e-8, -0.5e-8, -2.5e-8, 0.0)] == [1, 3, -1, -3, 0]


@given(units=st.integers(-UNITS_MAX, UNITS_MAX))
def test_what_is_written_is_parsed_exactly(units: int) -> None:
    assert parse_units(to_decimal(units)) == units
    assert parse_units(f"{to_decimal(units):f}") == units
    assert to_decimal(units) * UNITS == units


@pytest.mark.parametrize(("text", "units"), [("0.001", 100_000), (12, 12 * UNITS), (3.5, 350_000_000), ("1e-8", 1), (Decimal("-2"), -2 * UNITS)])
def test_amounts_as_people_write_them(text: object, units: int) -> None:
    assert parse_units(text) == units


@pytest.mark.parametrize(("text", "message"), [
    ("ten", '"ten" is not an amount'), ("", "is not an amount"), ("NaN", "is not an amount"), ("inf", "is not an amount"), (None, "is not an amount"),
    ("0.123456789", "more than 8 decimals"), ("1e12", "is beyond"), (UNITS_MAX, "is beyond"),
])
def test_what_is_not_an_amount_says_so(text: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_units(text)


def test_ids_are_the_same_on_every_machine() -> None:
    assert id_text(name_id("BTCUSDT")) == "c4301ccfe376852e"
    assert id_text(fold(fold(0, 1), 2)) == "6871c08cbe75136c"
    assert name_ids(["a", "b"]).tolist() == [name_id("a"), name_id("b")]
    assert id_text(255) == "00000000000000ff"


def splitmix(seed: int, value: int) -> int:
    """The finaliser in Python's integers."""
    mask = 2**64 - 1
    z = seed ^ ((value + 0x9E3779B97F4A7C15) & mask)
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


@given(seed=UINT64, value=UINT64, other=UINT64)
def test_fold_is_a_bijection_of_its_value(seed: int, value: int, other: int) -> None:
    assert fold(seed, value) == splitmix(seed, value)
    assert (fold(seed, value) == fold(seed, other)) == (value == other)
