"""The decoder: what compiled code takes has the very bits of the codecs, and what is no message becomes a dead letter with a sentence."""

import base64
import json
import random
from typing import Any

import numpy as np
import pytest

from schemas.codec import encode_ipc, to_arrow
from schemas.codec_json import decode_json, encode_json
from schemas.errors import UserError
from schemas.json_schema import OPTIONAL
from schemas.messages import headers
from schemas.tables import BEATS, QUOTES, RECORDED, TRADES, Rows, TableSpec
from schemas.tables_desk import CONTROL, FUNDING_RATES
from schemas.tables_live import APPROVED, REPORTS
from sources import kafka_rows
from sources.kafka_names import LIMIT, Interner
from sources.kafka_polled import BAD_HEADERS, Polled
from sources.kafka_rows import Decoded, Decoder
from sources.kafka_slow import read_message
from tests.kafka_producing import as_polled

INPUTS = (TRADES, QUOTES, RECORDED, BEATS, FUNDING_RATES, CONTROL)
"""Those that the compiled parser reads."""
ALL = (*INPUTS, REPORTS, APPROVED)
NAMES = ("BTC/USDT", "E", "SYM-12345678901", "a name of 32 bytes, no more of it", "one that is longer than thirty-two bytes by far", "ÄÖÜ/€", 'q"\\uote')
BY_NAME = pytest.mark.parametrize("spec", INPUTS, ids=lambda s: s.name)


def some_rows(spec: TableSpec, n: int, seed: int, symbols: int = len(NAMES)) -> Rows:
    """Rows of every kind of value, some of them extreme."""
    rng = np.random.default_rng(seed)
    rows = spec.empty(n)
    for f in spec.fields:
        if f.kind in ("symbol", "strategy"):
            rows[f.name] = rng.integers(0, symbols, n)
        elif f.kind == "enum":
            rows[f.name] = rng.integers(0, len(f.labels), n)
        elif f.kind == "bool":
            rows[f.name] = rng.integers(0, 2, n)
        elif f.kind == "id":
            rows[f.name] = rng.integers(0, 2**63, n, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
        elif f.kind == "float":
            rows[f.name] = np.choose(rng.integers(0, 6, n), [
                np.round(rng.random(n) * 1e5, 2), rng.random(n), rng.integers(-(2**62), 2**62, n).astype(float),
                np.frombuffer(rng.bytes(8 * n), np.float64), rng.choice([0.0, -0.0, 5e-324, 1.7976931348623157e308, 0.1 + 0.2], n), np.full(n, np.nan),
            ])
            rows[f.name][np.isnan(rows[f.name])] = np.nan  # one NaN: JSON has no payloads
        else:
            rows[f.name] = np.choose(rng.integers(0, 3, n), [
                rng.integers(-100, 100, n), 1_700_000_000_000_000_000 + rng.integers(0, 10**15, n), rng.choice([2**63 - 1, -(2**63) + 1, 0, 10**18], n)])
    return rows


def decoder(*names: str) -> Decoder:
    """One that knows these names."""
    symbols, strategies = Interner(), Interner()
    for name in names:
        symbols.code(name)
        strategies.code(name)
    return Decoder(symbols, strategies, clock=lambda: 7)


def all_rows(decoded: Decoded) -> Rows:
    return np.concatenate([block.rows for block in decoded.blocks])


def same(a: Rows, b: Rows) -> bool:
    return a.dtype == b.dtype and a.tobytes() == b.tobytes()


def number(rng: random.Random, value: Any) -> str:
    """A float as JSON, in one of the ways to write it that say the same."""
    if value is None or isinstance(value, str):
        return json.dumps(value)
    if value == 0:
        return repr(value)  # "-0" is the whole number 0
    forms = [repr(value), f"{value:.17g}", f"{value:.16e}", f"{value:.20e}".replace("e", "E")]
    if value == int(value) and abs(value) < 1e15:
        forms += [str(int(value)), f"{int(value)}.000", f"{int(value)}e0", f"{int(value)}0e-1"]
    return rng.choice(forms)


def rewritten(rng: random.Random, spec: TableSpec, message: bytes) -> tuple[bytes, bytes]:
    """The same row written another way: key order, white space, unknown keys, forms of numbers, columns left out; and all of it in full."""
    document = json.loads(message)
    items = [(json.dumps(k, ensure_ascii=rng.random() < 0.5),
              number(rng, v) if spec.field(k).kind == "float" else json.dumps(v, ensure_ascii=rng.random() < 0.3)) for k, v in document.items()]
    optional = OPTIONAL.get(spec.name, {})
    for k, default in optional.items():
        if rng.random() < 0.2:
            items = [(key, v) for key, v in items if json.loads(key) != k]
            document[k] = default
    items += rng.sample([('"x"', "1.5e3"), ('"venue"', '"binance"'), ('"null"', "null"), ('"ok"', "true"), ('"no"', "false"), ('"n"', "-7"),
                         ('"deep"', '{"a":[1,{"b":"}"}]}'), ('"esc"', '"\\u0041\\n"')], rng.choice([0, 0, 0, 1, 2]))
    rng.shuffle(items)
    space = (lambda: "") if rng.random() < 0.4 else (lambda: rng.choice(["", " ", "\t", "\n", "\r\n  "]))
    text = "," .join(f"{space()}{k}{space()}:{space()}{v}{space()}" for k, v in items)
    return f"{space()}{{{text}}}{space()}".encode(), json.dumps(document).encode()


@pytest.mark.parametrize("spec", ALL, ids=lambda s: s.name)
@pytest.mark.parametrize("seed", [1, 2])
def test_json_in_any_form_is_what_the_codec_says(spec: TableSpec, seed: int) -> None:
    rng = random.Random(seed)
    rows = some_rows(spec, 400, seed)
    pairs = [rewritten(rng, spec, message) for message in encode_json(spec, rows, NAMES, NAMES)]
    decoded = decoder(*NAMES).decode(as_polled([message for message, _ in pairs], spec.name))
    assert decoded.dead == ()
    wanted = decode_json(spec, [full for _, full in pairs], NAMES, NAMES)
    assert same(all_rows(decoded), wanted)
    assert decoded.blocks[0].offsets.tolist() == list(range(100, 500))


@BY_NAME
def test_plain_json_never_takes_the_slow_way(spec: TableSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = some_rows(spec, 300, 3, symbols=3)
    for f in spec.fields:  # what only the slow way reads: infinities, -0 and numbers below the normal ones
        if f.kind == "float":
            with np.errstate(invalid="ignore"):
                odd = ~np.isfinite(rows[f.name]) & ~np.isnan(rows[f.name]) | (np.abs(rows[f.name]) < 1e-300) | (np.abs(rows[f.name]) > 1e300)
            rows[f.name][odd] = 0.0
    monkeypatch.setattr(kafka_rows, "read_message", lambda *_: pytest.fail("the slow way was taken"))
    decoded = decoder(*NAMES).decode(as_polled(encode_json(spec, rows, NAMES), spec.name, [headers(spec, "json")] * 300))
    assert same(all_rows(decoded), rows)


@pytest.mark.parametrize("spec", ALL, ids=lambda s: s.name)
@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
def test_arrow_is_what_the_codec_says(spec: TableSpec, compression: str | None) -> None:
    parts = [some_rows(spec, n, n) for n in (1, 0, 700, 13)]
    payloads = [encode_ipc(to_arrow(spec, part, NAMES, NAMES), compression).to_pybytes() for part in parts]
    for given in (None, [headers(spec, "arrow", "r")] * len(parts)):
        decoded = decoder("other", *NAMES).decode(as_polled(payloads, spec.name, given))
        assert decoded.dead == ()
        wanted = np.concatenate(parts)
        for f in spec.fields:
            if f.kind in ("symbol", "strategy"):
                wanted[f.name] += 1
        assert same(all_rows(decoded), wanted)
        assert decoded.blocks[0].offsets.tolist() == [100] + [102] * 700 + [103] * 13
        assert (decoded.blocks[0].offset_from, decoded.blocks[0].offset_to) == (100, 104)


@BY_NAME
def test_arrow_of_known_names_never_takes_the_slow_way(spec: TableSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_rows, "read_message", lambda *_: pytest.fail("the slow way was taken"))
    rows = some_rows(spec, 300, 3)
    table = to_arrow(spec, rows, NAMES)
    decoded = decoder(*NAMES).decode(as_polled([encode_ipc(table).to_pybytes(), encode_ipc(table.slice(5, 100)).to_pybytes()], spec.name))
    assert same(all_rows(decoded), np.concatenate((rows, rows[5:105])))


def test_both_codecs_on_one_partition_keep_the_order_of_the_log() -> None:
    rows = some_rows(TRADES, 60, 5, symbols=3)
    payloads: list[bytes] = []
    offsets: list[int] = []
    for start in range(0, 60, 6):
        payloads += encode_json(TRADES, rows[start : start + 2], NAMES)
        payloads.append(encode_ipc(to_arrow(TRADES, rows[start + 2 : start + 6], NAMES)).to_pybytes())
        offsets += [100 + len(payloads) - 3, 100 + len(payloads) - 2, *[100 + len(payloads) - 1] * 4]
    payloads.insert(7, b"nothing")
    offsets = [o + (o >= 107) for o in offsets]
    d = decoder(*NAMES)
    decoded = d.decode(as_polled(payloads))
    assert same(all_rows(decoded), rows)
    assert decoded.blocks[0].offsets.tolist() == offsets
    assert [letter["offset"] for letter in decoded.dead] == [107]


def test_partitions_and_tables_come_apart() -> None:
    rows = some_rows(TRADES, 90, 6, symbols=3)
    payloads = encode_json(TRADES, rows, NAMES)
    where = [int(p) for p in np.random.default_rng(1).integers(0, 5, 90)]
    payloads[11] = b"{"
    decoded = decoder(*NAMES).decode(as_polled(payloads, partitions=where))
    good = np.array([i != 11 for i in range(90)])
    assert [block.partition for block in decoded.blocks] == [0, 1, 2, 3, 4]
    for block in decoded.blocks:
        mine = np.array([p == block.partition for p in where])
        assert same(block.rows, rows[mine & good])
        assert (block.offset_from, block.offset_to) == (100, 100 + int(mine.sum()))
        assert block.rows.flags.c_contiguous and block.rows.flags.writeable
    assert decoded.dead[0]["partition"] == where[11]
    quotes = some_rows(QUOTES, 4, 1, symbols=3)
    one, two = as_polled(payloads[:3]), as_polled(encode_json(QUOTES, quotes, NAMES), "quotes")
    mixed = Polled(
        ("quotes", "trades"), ("p.quotes", "p.trades"), np.array([1, 0, 0, 1, 0, 1, 0]), np.zeros(7, np.int64), np.arange(7), np.zeros(7, np.int64),
        np.zeros(7, np.int64), one.header_sets, *_joined([one, two, two, one, two, one, two], [0, 0, 1, 1, 2, 2, 3]),
    )
    blocks = decoder(*NAMES).decode(mixed).blocks
    assert [b.table for b in blocks] == ["quotes", "trades"]
    assert same(blocks[0].rows, quotes) and same(blocks[1].rows, rows[:3])
    assert blocks[0].offsets.tolist() == [1, 2, 4, 6] and blocks[1].offsets.tolist() == [0, 3, 5]


def _joined(polls: list[Polled], which: list[int]) -> tuple[Any, Any]:
    made = as_polled([poll.payload(i) for poll, i in zip(polls, which, strict=True)])
    return made.data, made.starts


GOOD = {"symbol": "A", "price": 1.5, "size": 2, "ts_event_ns": 3}


def changed(**columns: Any) -> bytes:
    return json.dumps({**GOOD, **columns}).encode()


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
    import re

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


def test_arrow_of_other_producers() -> None:
    import pyarrow as pa

    ours = some_rows(TRADES, 4, 2)
    table = to_arrow(TRADES, ours, NAMES)
    d = decoder(*NAMES)
    plain = table.set_column(2, "symbol", table["symbol"].cast(pa.string())).append_column("venue", pa.array(["x"] * 4))
    fewer = table.drop_columns(["seq", "side", "trade_id", "flags"])
    without, nulls = table.drop_columns(["price"]), table.set_column(3, "price", pa.array([1.0, None, 2.0, 3.0]))
    no_time = table.set_column(0, "ts_event_ns", pa.array([1, None, 2, 3], pa.int64()))
    blank = table.set_column(2, "symbol", pa.array(["", "A", "A", "A"]).dictionary_encode())
    decoded = d.decode(as_polled([encode_ipc(t).to_pybytes() for t in (plain, fewer, without, nulls, no_time, blank)]))
    rows = all_rows(decoded)
    assert same(rows[:4], ours)
    for name, value in (("seq", -1), ("side", 0), ("trade_id", -1), ("flags", 0)):
        assert (rows[name][4:8] == value).all()
    assert np.isnan(rows["price"][9]) and len(rows) == 12
    errors = [letter["error"] for letter in decoded.dead]
    assert 'no column "price"' in errors[0] and "ts_event_ns is null in row 2" in errors[1] and "symbol is empty" in errors[2]


def test_beats_and_control_may_speak_for_all() -> None:
    d = decoder()
    beats = d.decode(as_polled([b'{"ts_event_ns":5}', b'{"symbol":"","ts_event_ns":6,"seq":9}', b'{"symbol":"A","ts_event_ns":7}'], "beats"))
    assert beats.dead == ()
    assert beats.blocks[0].rows.tolist() == [(5, -1, -1), (6, 9, -1), (7, -1, 0)]
    control = d.decode(as_polled([b'{"command":"halt","ts_event_ns":5}'], "control"))
    assert control.blocks[0].rows.tolist() == [(5, -1, -1, 3)]
    for table in ("beats", "control"):
        spec = kafka_rows.TABLES[table]
        payload = encode_ipc(to_arrow(spec, control.blocks[0].rows if table == "control" else beats.blocks[0].rows, d.symbols.names)).to_pybytes()
        assert d.decode(as_polled([payload], table)).dead == ()


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


def test_new_names_get_codes_in_the_order_of_the_log_and_keep_them() -> None:
    d = decoder()
    names = [f"N{i % 200}" for i in range(1000)]
    decoded = d.decode(as_polled([changed(symbol=name) for name in names]))
    assert decoded.dead == () and d.symbols.names == tuple(f"N{i}" for i in range(200))
    assert decoded.blocks[0].rows["symbol"].tolist() == [i % 200 for i in range(1000)]
    other = Interner()
    other.restore(d.symbols.snapshot())
    again = Decoder(other).decode(as_polled([changed(symbol="N7"), changed(symbol="new"), changed(symbol="N199")]))
    assert again.blocks[0].rows["symbol"].tolist() == [7, 200, 199]
    assert d.symbols.names == tuple(f"N{i}" for i in range(200))


def test_a_bad_message_leaves_no_name_behind() -> None:
    d = decoder()
    decoded = d.decode(as_polled([changed(symbol="GHOST", price="x"), changed(symbol="REAL")]))
    assert len(decoded.dead) == 1 and d.symbols.names == ("REAL",)


def test_names_are_bounded() -> None:
    d = Decoder(Interner(limit=3))
    decoded = d.decode(as_polled([changed(symbol=f"N{i}") for i in range(5)] + [changed(symbol="N1")]))
    assert decoded.blocks[0].rows["symbol"].tolist() == [0, 1, 2, 1]
    assert ["at most 3 different ones" in letter["error"] for letter in decoded.dead] == [True, True]
    assert Interner().limit == LIMIT and Interner().code("") == -1


def test_a_table_of_records_is_not_for_this_decoder() -> None:
    with pytest.raises(ValueError, match="dead_letter has text columns"):
        decoder().decode(as_polled([b"{}"], "dead_letter"))


def test_nothing_gives_nothing() -> None:
    assert decoder().decode(as_polled([])) == Decoded((), ())
