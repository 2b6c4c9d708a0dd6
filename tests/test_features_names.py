"""How features are named, and what is said about a name that means nothing."""

import pytest

from operators.market.features import DEFAULT_FEATURES, FEATURES, catalogue, describe, expand, parse
from schemas.errors import UserError


def test_names() -> None:
    assert parse("rsi").values == parse("rsi(14)").values == parse("rsi()").values == (14.0,)
    assert parse(" rsi( 14 ) ").feature.name == "rsi"
    assert parse("keltner(20,2).upper").values == (20.0, 2.0, 10.0)
    signal = parse("macd(12,26,9).signal")
    assert (signal.feature.name, signal.values, signal.output) == ("macd", (12.0, 26.0, 9.0), 1)
    assert parse("ewma_vol(0.97)").values == (0.97,)
    assert parse("hour").values == ()


def test_a_feature_of_several_outputs_gives_them_all() -> None:
    assert [request.text for request in expand(["rsi", "macd(5,9,3)", "macd(5,9,3).signal"])] == [
        "rsi", "macd(5,9,3).macd", "macd(5,9,3).signal", "macd(5,9,3).histogram"]


@pytest.mark.parametrize(("text", "message"), [
    ("rsj(14)", 'unknown feature "rsj"; did you mean "rsi"?'),
    ("macd.signl", 'unknown output of macd "signl"; did you mean "signal"?'),
    ("rsi(14).signal", 'feature "rsi(14).signal": rsi has one output; write rsi(14)'),
    ("macd(5,9,3)", 'feature "macd(5,9,3)" has outputs macd, signal, histogram; write macd(5,9,3).macd'),
    ("rsi(14,3)", 'feature "rsi(14,3)" has 2 parameters, rsi takes 1 (length); write rsi(14)'),
    ("hour(1)", 'feature "hour(1)" has 1 parameters, hour takes none; write hour'),
    ("rsi(0)", 'feature "rsi(0)": length 0 is out of bounds; give a whole number from 1 to 10000'),
    ("rsi(1.5)", 'feature "rsi(1.5)": length 1.5 is out of bounds; give a whole number from 1 to 10000'),
    ("rsi(nan)", 'feature "rsi(nan)": length nan is out of bounds; give a whole number from 1 to 10000'),
    ("rsi(ten)", 'feature "rsi(ten)": length "ten" is not a number; give a whole number from 1 to 10000'),
    ("rsi(,)", 'feature "rsi(,)" has 2 parameters, rsi takes 1 (length); write rsi(14)'),
    ("ewma_vol(2)", 'feature "ewma_vol(2)": lambda 2 is out of bounds; give a number from 0.5 to 0.9999'),
    ("macd(26,12,9).macd", 'feature "macd(26,12,9).macd": fast 26 must be below slow 12'),
    ("rsi(14", 'feature "rsi(14" cannot be read; write a name such as rsi(14) or macd(12,26,9).signal'),
    ("", 'feature "" cannot be read; write a name such as rsi(14) or macd(12,26,9).signal'),
])
def test_bad_names_say_what_to_write(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(text)
    assert str(caught.value) == message


def test_the_catalogue_describes_every_feature() -> None:
    assert [entry["name"] for entry in catalogue()] == list(FEATURES)
    assert tuple(column for entry in catalogue() for column in entry["columns"]) == DEFAULT_FEATURES
    macd = describe("macd")
    assert macd["outputs"] == ["macd", "signal", "histogram"]
    assert macd["warm_up_bars"] == {"macd(12,26,9).macd": 25, "macd(12,26,9).signal": 33, "macd(12,26,9).histogram": 33}
    assert macd["params"][0] == {"name": "fast", "default": 12, "min": 1, "max": 10_000, "type": "int"}
    assert describe("rsi(5)")["columns"] == ["rsi(5)"]
    for column in DEFAULT_FEATURES:
        assert parse(column).text == column
