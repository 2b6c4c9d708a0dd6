"""Poison: what is no message becomes a dead letter with a sentence, and compiled code never takes what the slow way refuses."""

import base64
import json
import random
import re
from typing import Any

import pytest

from schemas.codec import encode_ipc, to_arrow
from schemas.codec_json import encode_json
from schemas.errors import UserError
from schemas.messages import headers
from schemas.tables import QUOTES, TRADES, TableSpec
from schemas.tables_desk import FUNDING_RATES
from sources.kafka_names import Interner
from sources.kafka_polled import BAD_HEADERS
from sources.kafka_slow import read_message
from tests.kafka_producing import as_polled
from tests.kafka_rows_made import GOOD, NAMES, changed, decoder, rewritten, some_rows

POISON = [
    (b"", "the message is empty"),
    (b" ", "neither a JSON object nor an Arrow IPC stream"),
    (b"hello", "neither a JSON object nor an Arrow IPC stream"),
    (b"[1, 2]", "neither a JSON object nor"),
    (b'{"symbol": "A", "price": 1.5', "not a JSON object: Input data was truncated"),
    (changed() + b"x", "not a JSON object: .*trailing characters"),
    (changed() + changed(), "not a JSON object: .*trailing characters"),
    (b"\xef\xbb\xbf" + changed(), "neither a JSON object"),
    (changed(price="abc"), 'price "abc" is not a number; write it without quotes'),
    (changed(price="60000.5"), 'price "60000.5" is not a number; write it without quotes'),
    (changed(price=True), "price true is not a number"),
    (changed(price=[1]), r"price \[1\] is not a number"),
    (changed(price=1).replace(b": 1,", b": NaN,"), "not a JSON object: "),
    (changed(price=1).replace(b": 1,", b": 1.,"), "not a JSON object: .*invalid number"),
    (changed(price=1).replace(b": 1,", b": 01,"), "not a JSON object: "),
    (changed(price=1).replace(b": 1,", b": +1,"), "not a JSON object: "),
    (changed(price=1).replace(b": 1,", b": 1e999,"), "price .* is not a number|Number out of range"),
    (changed(price=1).replace(b": 1,", b": 1" + b"0" * 400 + b","), "number"),
    (changed(ts_event_ns="2024-01-01"), 'ts_event_ns "2024-01-01" is not a whole number'),
    (changed(ts_event_ns=1.5), "ts_event_ns 1.5 is not a whole number"),
    (changed(ts_event_ns=None), "ts_event_ns null is not a whole number"),
    (changed(ts_event_ns=2**63), "ts_event_ns 9223372036854775808 does not fit"),
    (changed(ts_event_ns=10**30), "ts_event_ns 1000000000000000000000000000000 does not fit|whole number"),
    (changed(seq=-(2**63) - 1), "seq -9223372036854775809 does not fit"),
    (changed(side="bid"), 'unknown side "bid"'),
    (changed(side="BUY"), 'unknown side "BUY"'),
    (changed(side=1), "side 1 is not text"),
    (changed(symbol=""), "symbol is empty; a row of trades is of one symbol"),
    (changed(symbol=None), "symbol null is not text"),
    (changed(symbol={"a": 1}), "symbol .* is not text"),
    (changed(symbol="x" * 200), "has 200 characters; at most 128"),
    (changed(symbol="a\nb"), "characters that cannot be shown"),
    (changed(symbol="A").replace(b'"A"', b'"A\xff"'), "not a JSON object: .*utf-8|UTF-8"),
    (json.dumps({k: v for k, v in GOOD.items() if k != "price"}).encode(), "a row of trades needs price; it has symbol, size, ts_event_ns"),
    (b"{}", "a row of trades needs ts_event_ns, symbol, price, size; it has nothing"),
    (b'{"a":' * 5000 + b"1" + b"}" * 5000, "not a JSON object: "),
    (b"\xff\xff\xff\xff", "not an Arrow IPC stream of 4 bytes"),
    (b"\xff" * 100, "not an Arrow IPC stream of 100 bytes"),
]


@pytest.mark.parametrize("payload, said", POISON, ids=[str(i) for i in range(len(POISON))])
def test_poison_is_a_dead_letter_with_a_sentence(payload: bytes, said: str) -> None:
    d = decoder("A")
    decoded = d.decode(as_polled([changed(), payload, changed(size=4)], partitions=[3, 3, 3]))
    assert decoded.blocks[0].rows["size"].tolist() == [2.0, 4.0] and decoded.blocks[0].offsets.tolist() == [100, 102]
    (letter,) = decoded.dead
    assert (letter["topic"], letter["partition"], letter["offset"], letter["ts_seen_ns"]) == ("penstock.trades", 3, 101, 7)
    assert base64.b64decode(letter["payload"]) == payload
    assert re.match(rf"penstock.trades partition 3 offset 101: .*({said})", letter["error"]), letter["error"]
    assert d.symbols.names == ("A",)
    alone = d.decode(as_polled([payload]))
    assert len(alone.blocks) == 1 and len(alone.blocks[0].rows) == 0 and len(alone.dead) == 1
    assert (alone.blocks[0].offset_from, alone.blocks[0].offset_to) == (100, 101)


ARROW = encode_ipc(to_arrow(TRADES, some_rows(TRADES, 5, 1), NAMES)).to_pybytes()


@pytest.mark.parametrize("payload, given, said", [
    (changed(), [("schema", b"quotes/1")], 'schema "quotes/1" on the topic of trades'),
    (changed(), [("schema", b"trades/2")], 'trades version "2" is newer than 1'),
    (changed(), [("schema", b"trades/x")], 'trades version "x" is newer'),
    (changed(), [("codec", b"avro")], 'codec "avro" is not one of arrow, json'),
    (changed(), [("codec", b"arrow")], "not an Arrow IPC stream"),
    (ARROW, [("codec", b"json")], "not a JSON object"),
    (ARROW, [("schema", b"quotes/1")], 'schema "quotes/1" on the topic of trades'),
    (b"[]", [("codec", b"json")], r"JSON, but not an object: \[\]"),
])
def test_headers_that_do_not_fit_are_said(payload: bytes, given: Any, said: str) -> None:
    (letter,) = decoder("A").decode(as_polled([payload], headers=[given])).dead
    assert said.replace("\\", "") in letter["error"]


def test_headers_that_cannot_be_read_are_a_dead_letter() -> None:
    polled = as_polled([changed()])
    polled.headers[0] = BAD_HEADERS
    (letter,) = decoder("A").decode(polled).dead
    assert "(headers that cannot be read)" in letter["error"]


def test_the_right_headers_and_older_ones_are_taken() -> None:
    given: list[Any] = [headers(TRADES, "json"), [("schema", b"trades/0")], [("codec", b"json")], []]
    decoded = decoder("A").decode(as_polled([changed()] * 4, headers=given))
    assert decoded.dead == () and len(decoded.blocks[0].rows) == 4


def taken_slowly(spec: TableSpec, payload: bytes, names: tuple[str, ...]) -> tuple[bytes | None, str]:
    """What the slow way alone says: (rows as bytes with their names, or the error)."""
    symbols = Interner()
    symbols.restore(names)
    try:
        rows = read_message(spec, payload, [], symbols, Interner())
    except UserError as error:
        return None, str(error)
    return rows.tobytes() + "|".join(symbols.names).encode(), ""


@pytest.mark.parametrize("spec", [TRADES, QUOTES, FUNDING_RATES], ids=lambda s: s.name)
def test_mangled_json_is_taken_or_refused_as_the_slow_way_does(spec: TableSpec) -> None:
    rng = random.Random(4)
    rows = some_rows(spec, 300, 4, symbols=3)
    letters = b'{}[]",:.-+eE0123456789 \\\n\x00\x1f\x7f\x80\xff"nulltruefalse'
    refused = 0
    for message in encode_json(spec, rows, NAMES):
        for _ in range(4):
            made = bytearray(rewritten(rng, spec, message)[0])
            for _ in range(rng.choice([1, 1, 2, 5])):
                at = rng.randrange(len(made))
                act = rng.randrange(4)
                if act == 0:
                    made[at] = rng.choice(letters)
                elif act == 1:
                    made.insert(at, rng.choice(letters))
                elif act == 2:
                    del made[at]
                else:
                    del made[at : at + rng.randrange(1, 20)]
                made = made or bytearray(b" ")
            d = decoder(*NAMES)
            decoded = d.decode(as_polled([bytes(made)], spec.name))
            wanted, error = taken_slowly(spec, bytes(made), NAMES)
            if wanted is None:
                refused += 1
                assert len(decoded.blocks[0].rows) == 0
                assert decoded.dead[0]["error"] == f"penstock.{spec.name} partition 0 offset 100: {error}", bytes(made)
            else:
                assert decoded.dead == (), bytes(made)
                assert decoded.blocks[0].rows.tobytes() + "|".join(d.symbols.names).encode() == wanted, bytes(made)
    assert 300 < refused < 1190


def test_mangled_arrow_gives_rows_or_a_dead_letter() -> None:
    rng = random.Random(5)
    dead = 0
    for _ in range(1500):
        made = bytearray(ARROW)
        for _ in range(rng.choice([1, 2, 8])):
            made[rng.randrange(len(made))] = rng.randrange(256)
        if rng.random() < 0.2:
            del made[rng.randrange(len(made)) :]
        decoded = decoder(*NAMES).decode(as_polled([bytes(made)]))
        assert len(decoded.dead) == (len(decoded.blocks[0].rows) == 0) or (len(decoded.dead) == 0)
        dead += len(decoded.dead)
        for f in TRADES.fields:
            if f.labels and len(decoded.blocks[0].rows):
                assert set(decoded.blocks[0].rows[f.name].tolist()) <= set(range(len(f.labels)))
    assert 100 < dead < 1400
