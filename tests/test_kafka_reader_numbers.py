"""Numbers out of JSON: correctly rounded, to the last bit, or not taken."""

import random
import struct
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sources.kafka_memory import compiled
from sources.kafka_numbers import number, whole


@compiled
def reals(base: int, starts: Any, out: Any, taken: Any) -> None:
    for i in range(len(out)):
        end, out[i] = number(base + starts[i], base + starts[i + 1])
        taken[i] = end == base + starts[i + 1]


@compiled
def wholes(base: int, starts: Any, out: Any, taken: Any) -> None:
    for i in range(len(out)):
        end, out[i] = whole(base + starts[i], base + starts[i + 1])
        taken[i] = end == base + starts[i + 1]


def parsed(read: Any, texts: list[str], dtype: Any) -> tuple[Any, Any]:
    """(values, whether all of the text was taken)."""
    data = np.frombuffer("".join(texts).encode() + bytes(64), np.uint8)
    starts = np.cumsum([0, *map(len, texts)])
    out, taken = np.zeros(len(texts), dtype), np.zeros(len(texts), np.bool_)
    read(data.ctypes.data, starts, out, taken)
    return out, taken


def check(texts: list[str]) -> float:
    """The share that is taken; every one of them must have Python's bits."""
    out, taken = parsed(reals, texts, np.float64)
    wanted = np.array([float(t) for t in texts])
    wrong = np.flatnonzero(taken & (out.view(np.int64) != wanted.view(np.int64)))
    assert not len(wrong), [(texts[i], out[i]) for i in wrong[:5]]
    return float(taken.mean())


def test_numbers_of_markets_are_all_taken() -> None:
    rng = random.Random(1)
    texts = [repr(round(rng.random() * 10 ** rng.randrange(7), rng.randrange(1, 9))) for _ in range(20_000)]
    texts += [repr(rng.random()) for _ in range(20_000)] + [str(rng.randrange(10**18)) for _ in range(5_000)]
    texts += [f"{rng.randrange(10**5)}.{rng.randrange(10**8):08d}" for _ in range(5_000)]
    assert check([t for t in texts if len(t) < 19]) == 1.0
    assert check(texts) > 0.97


def test_every_bit_pattern_that_is_taken_is_right() -> None:
    rng = random.Random(2)
    numbers = [struct.unpack("<d", rng.randbytes(8))[0] for _ in range(30_000)]
    assert check([repr(x) for x in numbers if x == x and abs(x) != float("inf")]) > 0.95


def test_halfway_cases_go_to_the_even_one() -> None:
    rng = random.Random(3)
    texts = [f"{rng.randrange(2**53, 2**54) * 2 + 1}{rng.choice(['', 'e1', 'e-1', 'e22', 'e-4', 'e-10', 'e5', 'e-20'])}" for _ in range(20_000)]
    texts += [str(2**53 + k) for k in range(-3, 4)] + [f"{2**54 + k}.0" for k in range(-9, 10)] + ["9007199254740993", "1.00000000000000011102230246251565"]
    assert check(texts) > 0.9


def test_at_the_ends_of_the_range() -> None:
    texts = ["0", "0.0", "0e0", "0.000", "1e22", "1e23", "-1e-22", "1e-23", "1.7976931348623157e308", "2.2250738585072014e-308", "4.9e-324", "1e-400", "1e308",
             "8.98846567431158e307", "-123456789012345678e-200", "9999999999999999999", "1e-290"]
    check(texts)


@given(st.lists(st.from_regex(r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?", fullmatch=True), min_size=1, max_size=50))
def test_any_number_of_json(texts: list[str]) -> None:
    check(texts)


@given(st.lists(st.text("0123456789.-+eE \"x", min_size=1, max_size=12), min_size=1, max_size=50))
def test_what_is_no_number_of_json_is_not_taken(texts: list[str]) -> None:
    import json

    for text, taken in zip(texts, parsed(reals, texts, np.float64)[1], strict=True):
        if taken:
            assert isinstance(json.loads(text), int | float), text


@given(st.lists(st.integers(-(2**70), 2**70), min_size=1, max_size=50))
def test_whole_numbers_are_exact_or_not_taken(values: list[int]) -> None:
    out, taken = parsed(wholes, [str(v) for v in values], np.int64)
    for value, got, ok in zip(values, out.tolist(), taken.tolist(), strict=True):
        assert ok == (abs(value) < 2**63)
        assert not ok or got == value


def test_whole_numbers_are_not_floats_nor_padded() -> None:
    assert not parsed(wholes, ["1.0", "1e3", "01", "-", "", "+1", "1_0", "--1", "00"], np.int64)[1].any()
    assert parsed(wholes, ["0", "-0", "9223372036854775807", "-9223372036854775807"], np.int64)[0].tolist() == [0, 0, 2**63 - 1, -(2**63) + 1]
